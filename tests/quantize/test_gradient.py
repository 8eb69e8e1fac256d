from __future__ import annotations

import pytest
import torch

from tokenreel.quantize import FSQ, LFQ, VQ, FSQConfig, LFQConfig, VQConfig
from tokenreel.quantize.gradient import rotation_trick, straight_through


def pair(seed: int = 0, dim: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents, codes, upstream = (torch.randn(20, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    return latents.requires_grad_(), codes, upstream


def test_straight_through_is_the_identity() -> None:
    latents, codes, upstream = pair()
    out = straight_through(latents, codes)
    assert torch.equal(out, codes)
    out.backward(upstream)
    assert latents.grad is not None
    assert torch.equal(latents.grad, upstream)


def test_rotation_is_the_written_out_matrix() -> None:
    latents, codes, upstream = pair()
    out = rotation_trick(latents, codes)
    assert torch.equal(out, codes)
    out.backward(upstream)
    assert latents.grad is not None
    for z, q, g, grad in zip(latents.detach(), codes, upstream, latents.grad):
        z_hat, q_hat = z / z.norm(), q / q.norm()
        r = (z_hat + q_hat) / (z_hat + q_hat).norm()
        rotation = torch.eye(5, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(q_hat, z_hat)
        scale = q.norm() / z.norm()
        torch.testing.assert_close(scale * rotation @ z, q)
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(5, dtype=torch.float64))
        torch.testing.assert_close(grad, scale * rotation.T @ g)


def test_rotation_keeps_the_angle_between_gradient_and_code() -> None:
    latents, codes, upstream = pair(1)
    rotation_trick(latents, codes).backward(upstream)
    assert latents.grad is not None
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(latents.grad, latents.detach()), cosine(upstream, codes))


def test_without_a_rotation_the_gradient_is_straight_through() -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    upstream = torch.tensor([[1.0, 2.0]] * 3, dtype=torch.float64)
    rotation_trick(z, q).backward(upstream)
    assert z.grad is not None
    assert torch.equal(z.grad, upstream)


@pytest.mark.parametrize("estimator", [straight_through, rotation_trick])
def test_no_gradient_goes_to_the_codes(estimator) -> None:  # type: ignore[no-untyped-def]
    latents, codes, _ = pair()
    codes.requires_grad_()
    estimator(latents, codes).sum().backward()
    assert codes.grad is None
    assert not estimator(latents.detach(), codes).requires_grad


def test_the_quantizers_use_them() -> None:
    latents, _, upstream = pair()
    torch.manual_seed(0)
    for quantizer in (
        VQ(VQConfig(codebook_size=9, codebook_dim=5)),
        VQ(VQConfig(codebook_size=9, codebook_dim=5, learning="ema")),
        LFQ(LFQConfig(codebook_dim=5)),
    ):
        (grad,) = torch.autograd.grad(quantizer.double()(latents).codes, latents, upstream)
        assert torch.equal(grad, upstream)
    rotating = VQ(VQConfig(codebook_size=9, codebook_dim=5, estimator="rotation")).double()
    codes, ids, _ = rotating(latents)
    (grad,) = torch.autograd.grad(codes, latents, upstream)
    (expected,) = torch.autograd.grad(rotation_trick(latents, rotating.codes(ids).detach()), latents, upstream)
    assert torch.equal(grad, expected)


@pytest.mark.parametrize("symmetric", [False, True])
def test_fsq_has_the_gradient_of_its_bound(symmetric: bool) -> None:
    levels = torch.tensor([4, 5, 8, 3, 7])
    latents, _, upstream = pair()
    quantizer = FSQ(FSQConfig(levels=tuple(levels.tolist()), symmetric=symmetric))
    (grad,) = torch.autograd.grad(quantizer(latents).codes, latents, upstream)
    if symmetric:
        expected = 1 - latents.tanh() ** 2
    else:
        half = (levels - 1).double() * 1.001 / 2
        shift = torch.atanh((levels % 2 == 0).double() / 2 / half)
        expected = (1 - (latents + shift).tanh() ** 2) * half / (levels // 2)
    torch.testing.assert_close(grad, upstream * expected)
