from __future__ import annotations

import itertools

import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.quantize import FSQ, FSQConfig


def build(*levels: int, **fields: float) -> FSQ:
    return FSQ(FSQConfig(levels=levels, **fields))  # type: ignore[arg-type]


def test_the_codebook_is_the_grid_with_its_first_dimension_fastest() -> None:
    grid = [[-1, -0.5, 0, 0.5], [-1, 0, 1]]
    expected = torch.tensor([[a, b] for b, a in itertools.product(grid[1], grid[0])])
    quantizer = build(4, 3)
    assert torch.equal(quantizer.codes(torch.arange(12)), expected)
    assert quantizer.digits(torch.tensor([0, 5, 11])).tolist() == [[0, 0], [1, 1], [3, 2]]
    symmetric = build(4, 2, symmetric=True).codes(torch.arange(8))
    torch.testing.assert_close(symmetric[:4, 0], torch.tensor([-1, -1 / 3, 1 / 3, 1]))
    assert symmetric[[0, 7], 1].tolist() == [-1, 1]


@pytest.mark.parametrize("levels", [*range(3, 12), 64, 255, 256, 1000, 1001, 4096])
def test_every_level_is_reached_in_order(levels: int) -> None:
    for symmetric in (False, True):
        quantizer = build(levels, symmetric=symmetric)
        ids = quantizer(torch.linspace(-12, 12, 400_001)[:, None]).ids
        assert torch.equal(ids.unique(), torch.arange(levels))
        assert bool((ids.diff() >= 0).all())
        ends = quantizer(torch.tensor([[-torch.inf], [torch.inf], [-1e30], [1e30]])).ids
        assert ends.tolist() == [0, levels - 1, 0, levels - 1]


def test_zero_is_quantized_to_zero() -> None:
    quantizer = build(3, 4, 5, 8, 16)
    assert quantizer(torch.zeros(5)).codes.tolist() == [0] * 5


def test_ids_and_codes_are_inverse_over_the_whole_codebook() -> None:
    for levels in ((7, 7, 7, 5, 5), (8, 8, 8, 5, 5, 5), (8, 6, 5), (5, 4, 3, 2)):
        quantizer = build(*levels, symmetric=2 in levels)
        ids = torch.arange(quantizer.codebook_size)
        codes = quantizer.codes(ids)
        assert len(codes.unique(dim=0)) == len(ids)
        digits = quantizer.digits(ids)
        lowest = 0 if quantizer.config.symmetric else quantizer.levels_E // 2
        assert torch.equal(quantizer._ids((digits - lowest).float().t()), ids)


def test_ids_above_the_whole_numbers_of_float32_are_exact() -> None:
    quantizer = build(*[15] * 12)  # 1.3e14 codes
    assert quantizer.codebook_size == 15**12
    ids = torch.randint(0, 15**12, (1000,), generator=torch.Generator().manual_seed(0))
    whole = quantizer.codes(ids).double() * 7
    half = 7 * 1.001
    assert torch.equal(quantizer(torch.atanh(whole / half).float()).ids, ids)


@pytest.mark.parametrize("symmetric", [False, True])
def test_casting_the_module_or_autocast_changes_no_id(symmetric: bool) -> None:
    latents = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    quantizer = build(8, 8, 8, 6, 5, symmetric=symmetric)
    expected = quantizer(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer(latents).ids, expected.ids)
    low = build(8, 8, 8, 6, 5, symmetric=symmetric).to(torch.bfloat16)
    assert torch.equal(low(latents).ids, expected.ids)
    assert torch.equal(low.codes(expected.ids), expected.codes)


@pytest.mark.parametrize("symmetric", [False, True])
def test_noise_and_skipping_happen_in_training_only(symmetric: bool) -> None:
    latents = torch.randn(6000, 3, generator=torch.Generator().manual_seed(0))
    plain = build(5, 8, 3, symmetric=symmetric)(latents)
    quantizer = build(5, 8, 3, symmetric=symmetric, noise=0.3, skip=0.2)
    assert torch.equal(quantizer.eval()(latents).codes, plain.codes)
    quantizer.train()
    codes, ids, _ = quantizer(latents, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ids, plain.ids)
    kept = (codes == plain.codes).all(-1)
    assert kept.float().mean() == pytest.approx(0.5, abs=0.03)
    open_codes = quantizer._scaled(quantizer._bounded(latents.t())).t()
    skipped = (codes == open_codes).all(-1)
    assert skipped.float().mean() == pytest.approx(0.2, abs=0.03)
    step = 2 / (quantizer.levels_E - 1) if symmetric else 1 / (quantizer.levels_E // 2)
    noisy = ~kept & ~skipped
    distance = (codes - open_codes)[noisy].abs() / step
    assert distance.max() <= 0.5 + 1e-5
    assert codes.abs().max() <= 1.5
    again = quantizer(latents, generator=torch.Generator().manual_seed(1)).codes
    assert torch.equal(again, codes)


def test_noise_keeps_the_gradient_of_the_bound() -> None:
    latents = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (expected,) = torch.autograd.grad(build(5, 7, 3)(latents).codes.sum(), latents)
    (grad,) = torch.autograd.grad(build(5, 7, 3, skip=1.0)(latents).codes.sum(), latents)
    torch.testing.assert_close(grad, expected)


def test_bad_configs_are_refused() -> None:
    for fields, match in (
        ({"levels": ()}, "at least one"),
        ({"levels": (5, 1)}, "at least 2"),
        ({"levels": (2, 3)}, "symmetric=True"),
        ({"levels": (2.5,)}, "whole number"),
        ({"levels": (1 << 20,) * 3}, "below"),
        ({"levels": (3,), "noise": 0.7, "skip": 0.6}, "at most 1"),
    ):
        with pytest.raises(InputError, match=match):
            FSQConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("levels", [(3, 3), (8, 7, 2), (4, 5), (64, 10)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_digits_codes_and_latents_are_one_another(levels: tuple[int, ...], symmetric: bool) -> None:
    if 2 in levels and not symmetric:
        levels = tuple(max(level, 3) for level in levels)
    quantizer = build(*levels, symmetric=symmetric)
    ids = torch.arange(quantizer.codebook_size)
    digits = quantizer.digits(ids)
    assert torch.equal(quantizer.digits_of_codes(quantizer.codes(ids)), digits)
    latents = quantizer.latents_of(digits)
    apart = 0.3 / max(levels)  # of a step, whose width in latents is at least 2 / L
    for pushed in (latents - apart, latents, latents + apart):
        assert torch.equal(quantizer(pushed).ids, ids)
