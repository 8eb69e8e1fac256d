"""Quantizers against vector-quantize-pytorch on the same weights and latents: the ids are equal."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from tokenreel.quantize import FSQ, LFQ, VQ, FSQConfig, LFQConfig, VQConfig


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("vector_quantize_pytorch", reason="part of the dev extra", exc_type=ImportError)


@pytest.mark.parametrize("is_cosine", [False, True])
@pytest.mark.parametrize(("size", "dim"), [(64, 8), (1500, 16)])
def test_vq(theirs: Any, is_cosine: bool, size: int, dim: int) -> None:
    torch.manual_seed(0)
    reference = theirs.VectorQuantize(dim=dim, codebook_size=size, use_cosine_sim=is_cosine).eval()
    ours = VQ(VQConfig(codebook_size=size, codebook_dim=dim, l2_norm=is_cosine)).eval()
    ours.load_state_dict({"codebook_KE": reference.codebook.clone()}, strict=False)
    latents = torch.randn(4, 300, dim)
    codes, ids, _ = reference(latents)
    assert torch.equal(ours(latents).ids, ids)
    torch.testing.assert_close(ours(latents).codes, codes, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("levels", "symmetric"),
    [((8, 5, 5, 5), False), ((7, 7, 7, 5, 5), False), ((8, 8, 8, 6, 5), False), ((5, 3, 7, 2), True)],
)
def test_fsq(theirs: Any, levels: tuple[int, ...], symmetric: bool) -> None:
    torch.manual_seed(0)
    reference = theirs.FSQ(levels=list(levels), preserve_symmetry=symmetric).eval()
    ours = FSQ(FSQConfig(levels=levels, symmetric=symmetric))
    latents = torch.randn(3, 2000, len(levels)) * 2
    codes, ids = reference(latents)
    assert torch.equal(ours(latents).ids, ids.long())
    torch.testing.assert_close(ours(latents).codes, codes, rtol=0, atol=1e-6)
    every = torch.arange(ours.codebook_size)
    torch.testing.assert_close(ours.codes(every), reference.indices_to_codes(every[None])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dim", [4, 10])
def test_lfq(theirs: Any, dim: int) -> None:
    """Theirs puts the first dimension in the highest bit; the paper's eq. 4, and ours, in the lowest."""
    torch.manual_seed(0)
    reference = theirs.LFQ(dim=dim, codebook_size=2**dim, entropy_loss_weight=1.0, commitment_loss_weight=0.25)
    ours = LFQ(LFQConfig(codebook_dim=dim, entropy_weight=1.0, temperature=0.02, commit_weight=0.25))
    latents = torch.randn(2, 200, dim) * 0.05
    # theirs scales 2 z c where |z - c|^2 has it too: inv_temperature 50 is T = 0.02
    (codes, ids, loss), _ = reference(latents, inv_temperature=50.0, return_loss_breakdown=True)
    result = ours(latents.flip(-1))
    assert torch.equal(result.ids, ids)
    torch.testing.assert_close(result.codes.flip(-1), codes)
    torch.testing.assert_close(sum(result.aux_losses.values()), loss, rtol=1e-3, atol=2e-3)
