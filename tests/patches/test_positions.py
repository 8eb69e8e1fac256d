from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenreel.errors import InputError
from tokenreel.patches.positions import index_positions, sincos_1d, sincos_2d, sincos_3d, sincos_of
from tokenreel.types import Grid

grids = st.builds(Grid, t=st.integers(1, 5), h=st.integers(1, 5), w=st.integers(1, 5))


@given(grids, st.integers(0, 9))
def test_index_counts_row_major(grid: Grid, first_t: int) -> None:
    positions = index_positions(grid, first_t=first_t)
    expected = [(t + first_t, h, w) for t in range(grid.t) for h in range(grid.h) for w in range(grid.w)]
    assert positions.tolist() == [list(cell) for cell in expected]


@given(grids, st.integers(0, 9), st.sampled_from([6, 8, 12, 20, 64]))
def test_a_row_depends_on_its_cell_alone(grid: Grid, first_t: int, dim: int) -> None:
    """The table of a part is the part of the table; and no two cells share a row."""
    larger = Grid(t=grid.t + first_t + 1, h=grid.h + 2, w=grid.w + 1)
    whole = sincos_3d(larger, dim).reshape(larger.t, larger.h, larger.w, dim)
    part = sincos_3d(grid, dim, first_t=first_t).reshape(grid.t, grid.h, grid.w, dim)
    np.testing.assert_array_equal(part, whole[first_t : first_t + grid.t, : grid.h, : grid.w])
    assert len(np.unique(part.reshape(-1, dim).round(6), axis=0)) == grid.num_cells


def test_sincos_1d_is_the_formula() -> None:
    table = sincos_1d(np.arange(5), 8)
    for position in range(5):
        for i in range(4):
            angle = position / 10_000 ** (2 * i / 8)
            assert table[position, i] == pytest.approx(np.sin(angle), abs=1e-6)
            assert table[position, i + 4] == pytest.approx(np.cos(angle), abs=1e-6)


def test_nearer_cells_are_more_alike() -> None:
    table = sincos_2d(Grid(t=1, h=16, w=16), 128)
    likeness = (table @ table[8 * 16 + 8]).reshape(16, 16)
    along = likeness[8, 8:]
    assert likeness.argmax() == 8 * 16 + 8
    assert (np.diff(along[:4]) < 0).all()


def test_2d_ignores_time() -> None:
    table = sincos_2d(Grid(t=3, h=2, w=2), 8).reshape(3, 4, 8)
    np.testing.assert_array_equal(table[0], table[2])


def test_widths_that_do_not_split_are_refused() -> None:
    grid = Grid(t=1, h=2, w=2)
    for call, words in (
        (lambda: sincos_1d([0], 3), "even"),
        (lambda: sincos_2d(grid, 6), "divisible by 4"),
        (lambda: sincos_3d(grid, 4), "at least 6"),
        (lambda: sincos_3d(grid, 7), "even"),
        (lambda: sincos_of(index_positions(grid), 8, axes=(2, 2, 2)), "add up"),
    ):
        with pytest.raises(InputError, match=words):
            call()
