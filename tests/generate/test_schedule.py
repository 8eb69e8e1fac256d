from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.generate.schedule import SCHEDULES, draw_primed, mask_for_training, masked_count, masked_counts
from tokenreel.types import Grid

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", SCHEDULES)
def test_gamma_falls_from_all_to_nothing(name: str) -> None:
    shares = SCHEDULES[name](torch.linspace(0, 1, 101, dtype=torch.float64))
    assert float(shares[0]) == pytest.approx(1, abs=1e-12)
    assert float(shares[-1]) == pytest.approx(0, abs=1e-12)
    assert (shares.diff() < 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("steps", "num"), [(1, 9), (18, 288), (18, 18), (18, 7), (5, 1), (4, 0), (100, 2304)])
def test_counts_are_monotone_and_end_at_nothing(name: str, steps: int, num: int) -> None:
    counts = masked_counts(steps, num, name)
    assert counts == tuple(masked_count(step, steps, num, name) for step in range(steps + 1))
    assert (counts[0], counts[-1]) == (num, 0)
    assert all(later <= earlier for earlier, later in pairwise(counts))
    if num >= steps:
        assert all(later < earlier for earlier, later in pairwise(counts))


def test_cosine_counts_are_the_papers() -> None:
    wanted = [math.floor(math.cos(math.pi / 2 * step / 12) * 1024) for step in range(12)] + [0]
    assert list(masked_counts(12, 1024)) == wanted


def test_training_shares_are_continuous_and_follow_gamma() -> None:
    num = 400
    is_masked = mask_for_training(torch.ones(4000, num, dtype=torch.bool), generator=generator())
    counts = is_masked.sum(1).numpy()
    assert len(np.unique(counts)) > 300
    # count = ceil(gamma(r) n) <= k exactly if r >= 2 / pi arccos(k / n)
    expected = 1 - 2 / np.pi * np.arccos(np.arange(num + 1) / num)
    found = np.cumsum(np.bincount(counts, minlength=num + 1)) / len(counts)
    assert np.abs(expected - found).max() < 1.63 / math.sqrt(len(counts))  # Kolmogorov-Smirnov, 1 %
    per_place = is_masked.float().mean(0)
    assert (per_place - 2 / math.pi).abs().max() < 0.04


def test_at_least_one_token_is_masked_and_only_real_unknown_ones() -> None:
    valid = torch.arange(7) < torch.tensor([[7], [1], [3], [0]])
    known = torch.zeros_like(valid)
    known[0, :5] = known[2] = True
    seen = torch.zeros(4, 7, dtype=torch.bool)
    for seed in range(60):
        is_masked = mask_for_training(valid, generator=generator(seed), known_mask=known)
        assert not (is_masked & (~valid | known)).any()
        assert is_masked.any(1).tolist() == [True, True, False, False]
        seen |= is_masked
    assert torch.equal(seen, valid & ~known)


def test_masks_are_a_function_of_the_seed() -> None:
    valid = torch.ones(3, 50, dtype=torch.bool)
    a, b, c = (mask_for_training(valid, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_primed_steps_are_the_first_ones() -> None:
    grid = Grid(t=4, h=2, w=3)
    primed = draw_primed(grid, 4000, probability=0.25, generator=generator()).view(-1, 4, 6)
    assert (primed.all(2) == primed.any(2)).all()
    steps = primed.all(2).sum(1)
    assert (primed.all(2).int().diff(dim=1) <= 0).all()
    shares = torch.bincount(steps, minlength=5) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.75, 0.25 / 3, 0.25 / 3, 0.25 / 3, 0]), rtol=0, atol=0.02)
    one = draw_primed(grid, 4000, probability=0.25, steps=1, generator=generator()).view(-1, 4, 6)
    assert torch.equal(one.any(2).any(1), primed.any(2).any(1))
    assert one.all(2).sum(1).max() == 1
    assert draw_primed(grid, 40, probability=1.0, steps=9).view(-1, 4, 6).all(2).sum(1).eq(3).all()
    assert not draw_primed(Grid(t=1, h=2, w=3), 50, probability=0.9, generator=generator()).any()


@pytest.mark.parametrize(
    "call", [lambda: masked_count(0, 4, 9, "cosin"), lambda: mask_for_training(torch.ones(1, 2) > 0, schedule="x")]
)
def test_an_unknown_schedule_is_named_with_the_known_ones(call: object) -> None:
    with pytest.raises(InputError, match="schedule must be one of cosine, linear, square, cubic, sqrt, arccos, got"):
        call()  # type: ignore[operator]


def test_steps_and_masks_out_of_range_are_told() -> None:
    with pytest.raises(InputError, match="got step 5 of 4"):
        masked_count(5, 4, 9)
    with pytest.raises(InputError, match="got 0 and 3"):
        masked_counts(0, 3)
    with pytest.raises(InputError, match="valid_mask must be bool"):
        mask_for_training(torch.ones(2, 3))


def test_tubes_hide_squares_through_all_steps_and_blank_rows_hide_all() -> None:
    grid = Grid(t=3, h=8, w=8)
    valid = torch.ones(400, grid.num_cells, dtype=torch.bool)
    hidden = mask_for_training(valid, generator=generator(), grid=grid, tube_share=1.0).view(400, 3, 4, 2, 4, 2)
    columns = hidden.permute(0, 2, 4, 1, 3, 5).flatten(3)  # squares of two through all steps
    is_whole = columns.all(-1) | ~columns.any(-1)
    assert is_whole.flatten(1).sum(1).min() >= 12  # of 16; one wide tube, four narrow ones, may be cut
    whole = hidden.flatten(1).float().mean(1)
    usual = mask_for_training(valid, generator=generator()).float().mean(1)
    torch.testing.assert_close(whole, usual)  # as many are hidden, other ones
    blank = mask_for_training(valid, generator=generator(), blank_share=0.25).all(1).float().mean()
    assert 0.19 < blank < 0.32
    known = torch.arange(grid.num_cells) < 64
    kept = mask_for_training(valid, generator=generator(), known_mask=known.expand_as(valid), blank_share=1.0)
    assert torch.equal(kept, ~known.expand_as(valid))
    with pytest.raises(InputError, match="tube_share needs the grid"):
        mask_for_training(valid, grid=Grid(t=1, h=8, w=8), tube_share=0.5)
