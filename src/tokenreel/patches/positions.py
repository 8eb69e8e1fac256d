"""Positions of a grid: the index of each cell, and sin-cos tables in one, two and three dimensions. Pure arrays.

Letters: t h w grid, L = t*h*w cells row-major in (t, h, w), D width of the table.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError
from tokenreel.types import Grid

__all__ = ["index_positions", "sincos_1d", "sincos_2d", "sincos_3d", "sincos_of"]

Table = npt.NDArray[np.float32]


def index_positions(grid: Grid, *, first_t: int = 0) -> npt.NDArray[np.int32]:
    """(L, 3): the (t, h, w) of every cell; ``first_t`` shifts time, for a grid that is written part by part.

    >>> index_positions(Grid(t=1, h=1, w=2)).tolist()
    [[0, 0, 0], [0, 0, 1]]
    """
    t, h, w = np.meshgrid(
        np.arange(first_t, first_t + grid.t, dtype=np.int32),
        np.arange(grid.h, dtype=np.int32),
        np.arange(grid.w, dtype=np.int32),
        indexing="ij",
    )
    return np.stack([t, h, w], axis=-1).reshape(-1, 3)


def sincos_1d(positions_L: npt.ArrayLike, dim: int, *, base: float = 10_000.0) -> Table:
    """(L,) positions -> (L, dim): ``[sin(p f_0) ... sin(p f_k), cos(p f_0) ... cos(p f_k)]``, f_i = base^(-2i/dim).

    A. Vaswani et al., arXiv 1706.03762, section 3.5, with the sines first. ``dim`` must be even.
    """
    if dim < 2 or dim % 2:
        raise InputError(f"a sin-cos table needs an even width of at least 2, got {dim}")
    positions = np.asarray(positions_L, dtype=np.float64)
    frequencies = base ** (-np.arange(dim // 2, dtype=np.float64) / (dim // 2))
    angles = positions[:, None] * frequencies[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def sincos_2d(grid: Grid, dim: int, *, base: float = 10_000.0) -> Table:
    """(L, dim): half of the width tells h, half w (the ViT baseline of arXiv 2205.01580). ``dim`` divisible by 4."""
    if dim % 4:
        raise InputError(f"a 2-D sin-cos table needs a width divisible by 4, got {dim}")
    positions = index_positions(grid)
    return sincos_of(positions, dim, axes=(0, dim // 2, dim // 2), base=base)


def sincos_3d(grid: Grid, dim: int, *, first_t: int = 0, base: float = 10_000.0) -> Table:
    """(L, dim): time, height and width each take a share of the width; any even ``dim`` of at least 6.

    Height and width get ``2 * (dim // 6)`` each, time the rest.
    """
    return sincos_of(index_positions(grid, first_t=first_t), dim, base=base)


def sincos_of(
    positions_L3: npt.NDArray[np.integer], dim: int, *, axes: tuple[int, int, int] | None = None, base: float = 10_000.0
) -> Table:
    """(L, 3) cells -> (L, dim); ``axes`` are the widths given to t, h and w (0 leaves an axis out).

    A function of the position alone: the same cell has the same row in every grid.
    """
    if axes is None:
        side = 2 * (dim // 6)
        if dim < 6 or dim % 2:
            raise InputError(f"a 3-D sin-cos table needs an even width of at least 6, got {dim}")
        axes = (dim - 2 * side, side, side)
    if sum(axes) != dim:
        raise InputError(f"the widths {axes} of t, h and w do not add up to {dim}")
    parts = []
    for axis, width in enumerate(axes):
        if width:
            steps, cells = np.unique(positions_L3[:, axis], return_inverse=True)
            parts.append(sincos_1d(steps, width, base=base)[cells])
    return np.concatenate(parts, axis=1)
