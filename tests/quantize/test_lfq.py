from __future__ import annotations

import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.quantize import LFQ, LFQConfig
from tokenreel.quantize.lfq import codebook_entropy, token_entropy


def direct(latents_NE: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """E[H(q(z))] and H(E[q(z)]) by the softmax over all 2^E codes, as eq. 5 is written."""
    dim = latents_NE.shape[1]
    codebook = LFQ(LFQConfig(codebook_dim=dim)).codes(torch.arange(1 << dim)).to(latents_NE)
    distance = (latents_NE[:, None] - codebook).square().sum(-1)
    log_q = (-distance / temperature).log_softmax(-1)
    mean = log_q.exp().mean(0)
    return -(log_q.exp() * log_q).sum(-1).mean(), torch.special.entr(mean).sum()


def test_ids_are_the_signs_as_bits() -> None:
    quantizer = LFQ(LFQConfig(codebook_dim=3))
    latents = torch.tensor([[-0.1, -2, -3], [0.5, -1, -1], [-1, 0.1, -1], [0.0, -0.0, 9], [1, 1, 1]])
    codes, ids, _ = quantizer(latents)
    assert ids.tolist() == [0, 1, 2, 4, 7]
    assert codes.tolist() == [[-1, -1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 10.0])
def test_the_entropies_are_those_of_the_full_softmax(dim: int, temperature: float) -> None:
    latents = torch.randn(60, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = latents * (4 / temperature)
    for ours, theirs in zip((token_entropy(logits), codebook_entropy(logits, 14)), direct(latents, temperature)):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        mine = torch.autograd.grad(ours, latents, retain_graph=True)[0]
        torch.testing.assert_close(
            mine, torch.autograd.grad(theirs, latents, retain_graph=True)[0], rtol=1e-7, atol=1e-9
        )


def test_the_losses_are_weighted_and_masked() -> None:
    config = LFQConfig(codebook_dim=6, entropy_weight=0.2, diversity=1.5, temperature=0.7, commit_weight=0.4)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(4, 30, 6, generator=generator)
    valid = torch.rand(4, 30, generator=generator) < 0.5
    codes, _, losses = LFQ(config)(latents, valid_mask=valid)
    sample, batch = direct(latents[valid], 0.7)
    torch.testing.assert_close(losses["entropy_loss"], 0.2 * (sample - 1.5 * batch))
    torch.testing.assert_close(losses["commit_loss"], 0.4 * (latents - codes)[valid].square().mean())
    assert LFQ(LFQConfig(codebook_dim=6, entropy_weight=0, commit_weight=0))(latents).aux_losses == {}


def test_groups_bound_the_entropy_from_above() -> None:
    logits = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, 6:] = logits[:, :6]  # fully dependent halves: the bound counts them twice
    exact = codebook_entropy(logits, 12)
    bounds = [codebook_entropy(logits, bits) for bits in (6, 4, 3, 1)]
    assert all(bound > exact for bound in bounds)
    assert bounds == sorted(bounds)
    alone = codebook_entropy(logits[:, :6], 6)
    torch.testing.assert_close(bounds[0], 2 * alone)
    independent = torch.zeros(5, 12)
    torch.testing.assert_close(codebook_entropy(independent, 4), codebook_entropy(independent, 12))


@pytest.mark.parametrize("dim", [10, 18, 40])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e4])
def test_the_loss_is_finite_in_bf16(dim: int, scale: float) -> None:
    quantizer = LFQ(LFQConfig(codebook_dim=dim)).to(torch.bfloat16)
    latents = torch.randn(64, dim, generator=torch.Generator().manual_seed(0)).mul(scale).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes, _, losses = quantizer(latents)
        loss = sum(losses.values())
    (loss + codes.sum()).backward()
    assert loss.dtype == torch.float32  # type: ignore[union-attr]
    assert torch.isfinite(loss)  # type: ignore[arg-type]
    assert latents.grad is not None
    assert torch.isfinite(latents.grad).all()


def test_the_entropy_loss_spreads_the_codes() -> None:
    quantizer = LFQ(LFQConfig(codebook_dim=6, temperature=1.0, commit_weight=0.0, entropy_weight=1.0, diversity=2.0))
    torch.manual_seed(0)
    latents = (torch.randn(256, 6) * 0.1 + 0.3).requires_grad_()
    before = len(quantizer(latents).ids.unique())
    optimizer = torch.optim.Adam([latents], lr=0.05)
    for _ in range(80):
        optimizer.zero_grad()
        quantizer(latents).aux_losses["entropy_loss"].backward()
        optimizer.step()
    assert before < 20
    assert len(quantizer(latents).ids.unique()) > 50


def test_bad_configs_are_refused() -> None:
    for fields in ({"codebook_dim": 0}, {"codebook_dim": 63}, {"temperature": 0.0}, {"entropy_bits": 30}):
        with pytest.raises(InputError, match="LFQConfig"):
            LFQConfig(**{"codebook_dim": 4, **fields})  # type: ignore[arg-type]
