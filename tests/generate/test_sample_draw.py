"""Draws: frequencies, edges of the uniform numbers, cutting off, log probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.generate.sample_draw import _inverted, _nucleus, draw, gumbel

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frequencies(logits_V: Tensor, num: int, **options: float | int) -> Tensor:
    drawn = draw((logits_V.expand(num, -1),), generator=generator(), **options)  # type: ignore[arg-type]
    return torch.bincount(drawn.ids_NF[:, 0], minlength=len(logits_V)) / num


@pytest.mark.parametrize("size", [2, 7, 255, 256, 257, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_ids_come_as_often_as_their_probability_says(size: int, temperature: float) -> None:
    logits = torch.randn(size, generator=generator(3)) * 2
    found = frequencies(logits, 30_000, temperature=temperature)
    expected = (logits / temperature).softmax(-1)
    often = expected > 1e-3
    chi_square = (30_000 * (found - expected).square() / expected)[often].mean()
    assert 0.3 < float(chi_square) < 1.9 or size < 8
    assert torch.allclose(found, expected, atol=0.012)


@pytest.mark.parametrize("size", [5, 256, 300, 1024])
def test_inversion_is_the_cumulative_sum(size: int) -> None:
    weights = torch.rand(64, size, generator=generator(), dtype=torch.float64)
    weights[weights < 0.3] = 0
    uniform = torch.rand(64, generator=generator(1), dtype=torch.float64)
    ids, total = _inverted(weights, uniform)
    ends = weights.cumsum(-1)
    expected = (ends <= (uniform * ends[:, -1])[:, None]).sum(-1)
    assert torch.equal(ids, expected)
    assert torch.allclose(total, ends[:, -1])


@pytest.mark.parametrize("uniform", [0.0, 1.0, 1 - 2**-24])
def test_ids_of_weight_zero_are_never_drawn(uniform: float) -> None:
    for size in (3, 256, 600):
        for place in (0, size // 2, size - 1):
            weights = torch.zeros(1, size)
            weights[0, place] = 1e-30
            assert _inverted(weights, torch.tensor([uniform]))[0].item() == place
    weights = torch.rand(50, 700, generator=generator()) * (torch.rand(50, 700, generator=generator(1)) < 0.1)
    ids, _ = _inverted(weights, torch.full((50,), uniform))
    assert bool((weights.gather(1, ids[:, None]) > 0).all())


def test_log_probs_are_the_models_whatever_is_cut_off() -> None:
    logits = (torch.randn(40, 300, generator=generator()) * 3, torch.randn(40, 5, generator=generator(1)))
    for options in ({}, {"temperature": 0.7}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5}):
        drawn = draw(logits, generator=generator(), **options)  # type: ignore[arg-type]
        assert drawn.ids_NF.shape == (40, 2)
        expected = sum(part.log_softmax(-1).gather(1, drawn.ids_NF[:, [dim]])[:, 0] for dim, part in enumerate(logits))
        assert torch.allclose(drawn.log_probs_N, torch.as_tensor(expected), atol=1e-5)


def test_temperature_zero_takes_the_largest_and_no_random_numbers() -> None:
    logits, source = torch.randn(9, 50, generator=generator()), generator(4)
    before = source.get_state()
    assert torch.equal(draw((logits,), temperature=0, generator=source).ids_NF[:, 0], logits.argmax(-1))
    assert torch.equal(source.get_state(), before)


def test_only_one_random_number_a_row_and_factor() -> None:
    source, same = generator(5), generator(5)
    draw((torch.zeros(7, 4096), torch.zeros(7, 3)), generator=source)
    torch.rand(2, 7, generator=same)
    assert torch.equal(source.get_state(), same.get_state())


def test_top_k_keeps_the_k_largest() -> None:
    logits = torch.randn(400, generator=generator())
    found = frequencies(logits, 4000, top_k=3)
    assert set(found.nonzero()[:, 0].tolist()) == set(logits.topk(3).indices.tolist())
    assert torch.equal(frequencies(logits, 500, top_k=400), frequencies(logits, 500))


def test_top_p_keeps_the_smallest_likely_set() -> None:
    probabilities = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    for top_p, kept in ((0.3, {1}), (0.5, {1, 3}), (0.71, {1, 3, 4}), (1.0, {0, 1, 2, 3, 4})):
        found = frequencies(probabilities.log(), 2000, top_p=top_p)
        assert set(found.nonzero()[:, 0].tolist()) == kept


def test_the_nucleus_of_flat_and_of_steep_rows_is_that_of_a_full_sort() -> None:
    weights = torch.stack([torch.rand(500, generator=generator()), torch.rand(500, generator=generator(1)) ** 40])
    for top_p in (0.05, 0.5, 0.9, 0.999):
        ordered = weights.sort(descending=True).values
        last = (ordered.cumsum(-1) < top_p * ordered.sum(-1, keepdim=True)).sum(-1)
        assert torch.equal(_nucleus(weights, top_p), ordered.gather(1, last[:, None])[:, 0])


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    logits = torch.randn(200, 5000, generator=generator())
    many = draw((logits,), generator=generator(2))
    uniform = torch.rand(1, 200, generator=generator(2))[0]
    weights = (logits - logits.max(-1, keepdim=True).values).exp()
    for row in (0, 104, 105, 199):
        assert _inverted(weights[row : row + 1], uniform[row : row + 1])[0] == many.ids_NF[row, 0]


def test_gumbel_noise_has_its_mean_and_spread() -> None:
    noise = gumbel(200_000, generator=generator())
    assert noise.dtype == torch.float32
    assert bool(torch.isfinite(noise).all())
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.03)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must lie in"),
        ({"top_p": 1.5}, "top_p must lie in"),
    ],
)
def test_options_out_of_range(options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        draw((torch.zeros(1, 3),), generator=generator(), **options)  # type: ignore[arg-type]


def test_logits_that_are_not_finite_are_told() -> None:
    with pytest.raises(InputError, match="not finite"):
        draw((torch.tensor([[0.0, float("nan")]]),), generator=generator())
