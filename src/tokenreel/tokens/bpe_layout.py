"""How sequences and grids lie in one flat array while byte-pair merges are learned or applied.

Sequences stand end to end with a border cell before, after and between them. Grids stand on a *sheet*: pages of one
width and height, each as deep as the grids on it, with borders between grids, so that one stride an axis leads to the
neighbour in every grid. All grids of one size simply stand one behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = ["MOST_CELLS", "Sheet", "as_ids", "as_parts", "cell_dtype", "flagged", "join", "lay_out"]

MOST_CELLS = 2**31 - 2**16
"""Places are 32-bit."""

Ids = npt.NDArray[np.integer[Any]]


class Sheet(NamedTuple):
    """Grids in one flat array.

    Attributes:
        cells: ids; borders hold the flag.
        strides: cells from one to the next along t, h, w.
        axes: the axes along which any grid is longer than 1.
        boxes: each grid's own cells, (t, h, w), seen in place.
    """

    cells: npt.NDArray[Any]
    strides: npt.NDArray[np.int64]
    axes: npt.NDArray[np.int64]
    boxes: list[npt.NDArray[Any]]

    def steps(self, extents_VA: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """For blocks of these extents: cells to the next neighbour, by axis and id, and the extents across each axis.

        An extent that no grid of the sheet has is cut: such a block cannot stand here.
        """
        limit = np.array([MOST_CELLS // stride for stride in self.strides.tolist()])
        steps = (np.minimum(extents_VA, limit) * self.strides).T
        one, two = steps[[1, 2, 0]], steps[[2, 0, 1]]
        return np.ascontiguousarray(steps, np.int32), np.ascontiguousarray(one << 32 | two)


def as_ids(values: Any, *, what: str) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Whole numbers of at least 0 as an unsigned array; bytes, and only bytes, as uint8.

    Raises:
        InputError: anything else.
    """
    if isinstance(values, bytes | bytearray | memoryview):
        return np.frombuffer(values, np.uint8)
    ids = np.asarray(values)
    if ids.dtype.kind == "u":
        return ids
    if ids.size == 0:
        return ids.astype(np.uint8)
    if ids.dtype.kind != "i":
        raise InputError(f"{what} must be whole numbers or bytes, got {ids.dtype}; quantize or round them first")
    if int(ids.min()) < 0:
        raise InputError(f"{what} must not be negative, found {int(ids.min())}")
    return ids.astype(np.min_scalar_type(max(256, int(ids.max()))))  # uint8 is for bytes


def as_parts(sequences: Any, *, num_axes: int) -> list[npt.NDArray[np.unsignedinteger[Any]]]:
    """One sequence or grid, many, or an array of them, as a list of unsigned arrays with ``num_axes`` axes."""
    if (isinstance(sequences, np.ndarray) and sequences.ndim == num_axes) or isinstance(
        sequences, bytes | bytearray | memoryview
    ):
        sequences = [sequences]
    parts = [as_ids(part, what="sequences") for part in sequences]
    for part in parts:
        if part.ndim != num_axes:
            shape = (
                "sequences must each have the shape (L,)"
                if num_axes == 1
                else "grids must each have the shape (t, h, w)"
            )
            raise InputError(f"{shape}, got {part.shape}")
    return parts


def cell_dtype(highest: int) -> np.dtype[Any]:
    """The dtype of cells that hold values up to ``highest``; only two, because each is compiled."""
    return np.dtype(np.uint16 if highest < 1 << 16 else np.uint32)


def flagged(num_ids: int) -> tuple[np.dtype[Any], int]:
    """The dtype of cells on a sheet, and the bit that marks a cell that is no block's first."""
    dtype = np.dtype(np.uint16 if num_ids <= 1 << 15 else np.uint32)
    return dtype, 1 << (8 * dtype.itemsize - 1)


def _check_size(num_cells: int) -> None:
    if num_cells > MOST_CELLS:
        raise InputError(
            f"{num_cells:,} ids at once are more than byte-pair merging holds ({MOST_CELLS:,}); train on a part of them"
        )


def join(sequences: Sequence[Ids], *, border: int, dtype: np.dtype[Any], boundaries: bool) -> npt.NDArray[Any]:
    """All sequences in one array, with a border at both ends and, with ``boundaries``, between them."""
    gap = 1 if boundaries else 0
    sizes = [part.size + gap for part in sequences]
    total = 1 + sum(sizes) + (1 - gap)
    _check_size(total)
    cells = np.full(total, border, dtype)
    at = 1
    for part, size in zip(sequences, sizes):
        cells[at : at + part.size] = part
        at += size
    return cells


def lay_out(grids: Sequence[Ids], *, flag: int, dtype: np.dtype[Any]) -> Sheet:
    """A sheet of grids, each (t, h, w)."""
    sizes = [grid.shape for grid in grids]
    deep = any(t > 1 for t, _, _ in sizes)
    width = max(w for _, _, w in sizes)
    places, planes, height = _places(sizes, width, deep=deep)
    strides = np.array([(height + 1) * (width + 1), width + 1, 1], np.int64)
    lead = int(strides[0]) if deep else width + 1
    total = lead + planes * int(strides[0])
    _check_size(total)
    cells = np.full(total, flag, dtype)
    pages = cells[lead:].reshape(planes, height + 1, width + 1)
    boxes = []
    for grid, (plane, row, column) in zip(grids, places):
        t, h, w = grid.shape
        box = pages[plane : plane + t, row : row + h, column : column + w]
        box[...] = grid
        boxes.append(box)
    axes = [axis for axis in range(3) if any(size[axis] > 1 for size in sizes)]
    return Sheet(cells=cells, strides=strides, axes=np.array(axes or [2], np.int64), boxes=boxes)


def _places(
    sizes: list[tuple[int, ...]], width: int, *, deep: bool
) -> tuple[list[tuple[int, int, int]], int, int]:  # fmt: skip
    """Where each grid goes (plane, row, column), the number of planes, and the height of a page.

    Grids fill shelves from left to right, shelves fill pages from top to bottom; a page holds grids of one depth. Where
    all are one deep, one page holds them all.
    """
    height = max(h for _, h, _ in sizes) if deep else 0
    places: list[tuple[int, int, int]] = [(0, 0, 0)] * len(sizes)
    plane = row = column = shelf = depth = 0
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i], reverse=True):
        t, h, w = sizes[i]
        if column and column + w > width:
            row, column, shelf = row + shelf + 1, 0, 0
        if depth and deep and (t != depth or row + h > height):
            plane, row, column, shelf = plane + depth + 1, 0, 0, 0
        places[i] = (plane, row, column)
        depth, shelf, column = t, max(shelf, h), column + w + 1
        if not deep:
            height = max(height, row + shelf)
    return places, plane + depth + (1 if deep else 0), height
