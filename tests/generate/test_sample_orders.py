"""Orders of unmasking: permutations, evenness, ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.generate.sample_orders import Order, decided, halton_places, planned_places
from tokenreel.generate.sample_ramps import constant, cosine, linear, ramp_values
from tokenreel.types import Grid

GRIDS = [Grid(t=1, h=1, w=1), Grid(t=1, h=1, w=33), Grid(t=1, h=16, w=16), Grid(t=9, h=8, w=4), Grid(t=7, h=1, w=5)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_halton_places_are_a_permutation(grid: Grid) -> None:
    places = halton_places(grid)
    assert sorted(places.tolist()) == list(range(grid.num_cells))
    assert np.array_equal(places, halton_places(grid))


def test_one_axis_is_bisected() -> None:
    assert np.argsort(halton_places(Grid(t=1, h=1, w=16)))[:8].tolist() == [0, 8, 4, 12, 2, 10, 6, 14]
    assert np.array_equal(halton_places(Grid(t=16, h=1, w=1)), halton_places(Grid(t=1, h=1, w=16)))


def test_the_first_cells_are_those_of_the_sequence_itself() -> None:
    # Points 0 to 4 of bases 2 (w) and 3 (h): (0, 0), (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9).
    order = np.argsort(halton_places(Grid(t=1, h=9, w=8)))
    assert [tuple(divmod(cell, 8)) for cell in order[:5].tolist()] == [(0, 0), (3, 4), (6, 2), (1, 6), (4, 1)]


def test_any_first_part_covers_time_and_space_evenly() -> None:
    grid = Grid(t=8, h=8, w=8)
    places = halton_places(grid).reshape(8, 8, 8)
    generator = np.random.default_rng(0)
    for count in (32, 64, 128):
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            spread = (places < count).sum(others)
            assert spread.sum() == count
            assert np.ptp(spread) <= 3 + count // 32
        octants = (places < count).reshape(2, 4, 2, 4, 2, 4).sum((1, 3, 5))
        shuffled = [
            (generator.permutation(512).reshape(8, 8, 8) < count).reshape(2, 4, 2, 4, 2, 4).sum((1, 3, 5)).std()
            for _ in range(50)
        ]
        assert octants.std() < 0.7 * np.mean(shuffled)


def test_planned_places() -> None:
    grid, source = Grid(t=2, h=2, w=3), torch.Generator().manual_seed(0)
    front = planned_places("front_to_back", grid=grid, num=2, generator=source)
    assert front.tolist() == [list(range(12))] * 2
    rows = planned_places("random", grid=grid, num=3, generator=source)
    assert [sorted(row) for row in rows.tolist()] == [list(range(12))] * 3
    assert not torch.equal(rows[0], rows[1])
    again = planned_places("random", grid=grid, num=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rows, again)


def test_decided_takes_so_many_of_each_row_and_the_first_of_equals() -> None:
    worth = torch.tensor([[1.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    assert decided(worth, counts_B=torch.tensor([3, 2])).tolist() == [
        [False, True, True, True],
        [True, True, False, False],
    ]
    assert decided(worth, counts_B=torch.tensor([1, 0])).sum(1).tolist() == [1, 0]


def test_orders_check_themselves() -> None:
    with pytest.raises(InputError, match=r"order must be one of confidence, .*, got 'best'"):
        Order(kind="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 0"):
        Order(noise=-1.0)
    with pytest.raises(InputError, match="planned"):
        Order(kind="halton", noise=1.0)
    assert Order(kind="critic").start_noise == 1.0
    assert Order(kind="critic", noise=0.0).start_noise == 0.0
    assert Order(kind="halton").start_noise == 0.0


def test_ramps() -> None:
    assert ramp_values(2, steps=3, name="x") == [2, 2, 2]
    assert ramp_values(constant(4), steps=2, name="x") == [4, 4]
    assert ramp_values(linear(1, 3), steps=5, name="x") == [1, 1.5, 2, 2.5, 3]
    assert ramp_values(cosine(0, 2), steps=3, name="x") == pytest.approx([0, 1, 2])
    assert ramp_values(linear(1, 3), steps=1, name="x") == [1]
    with pytest.raises(InputError, match="guidance_scale must be a finite number at every step, got nan at step 1"):
        ramp_values(lambda progress: float("nan") if progress else 1.0, steps=2, name="guidance_scale")
