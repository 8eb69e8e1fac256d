"""Byte-pair merges along the axes of a grid: one token stands for a block of cells.

Cells of all grids lie in one flat array, a *sheet*, with borders between them, so that the neighbour of a cell along
an axis is one stride away. A block's first cell holds its id. The other cells hold marked values (``flag`` set): the
last cell along each axis (from the first) holds its id too, marked, the rest hold whatever was there. So the block
before another along an axis is found from the cell beside it: read the id there, go back by its extent, and look
whether a block of that id begins there; if not, the two are not aligned.

Two blocks are neighbours along an axis if the second begins where the first ends and both have the same extents in the
other two axes. ``step_AV[axis, id]`` is a block's extent along the axis times the stride of that axis, ``cross_AV`` one
number for the extents in the two other axes.

Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bpe_index import Queue, add_run, free, has_room, jit, next_pair, places_of, pop, spread

__all__ = ["aligned_pairs", "merge_blocks"]


STRETCH = 4096


@jit
def merge_places(cells: Any, listed: Any, left: int, right: int, new: int, axis: int, step_AV: Any, strides: Any, flag: int, merged: Any) -> Any:  # fmt: skip  # noqa: E501
    """Merge one pair at its listed places, in order; note in ``merged`` where it stood, and give how many there were."""
    step = np.uint64(step_AV[axis, left])
    end_t = np.uint64(step_AV[0, new] - strides[0])
    end_h = np.uint64(step_AV[1, new] - strides[1])
    end_w = np.uint64(step_AV[2, new] - strides[2])
    marked = flag | new
    num = np.uint64(0)
    for j in range(listed.size):
        p = np.uint64(listed[j])
        if cells[p] != left or cells[p + step] != right:
            continue
        cells[p + step] |= flag
        cells[p] = new
        if end_t > 0:
            cells[p + end_t] = marked
        if end_h > 0:
            cells[p + end_h] = marked
        if end_w > 0:
            cells[p + end_w] = marked
        merged[num] = p
        num += np.uint64(1)
    return np.int64(num)


@jit
def blocks_before(cells: Any, blocks: Any, new: int, step_V: Any, cross_V: Any, stride: int, flag: int, ids: Any,
                   places: Any) -> Any:  # fmt: skip
    """Note the aligned blocks before each new one along an axis, other than new ones; give how many there are.

    ``step_V`` and ``cross_V`` are those of the axis. Indices are unsigned: numba then leaves out its test for negative ones.
    """
    mask = np.uint64(flag - 1)
    unit = np.uint64(stride)
    this = np.uint64(new)
    cross = cross_V[this]
    found = np.uint64(0)
    for j in range(blocks.size):
        q = np.uint64(blocks[j]) - unit
        other = np.uint64(cells[q]) & mask
        if other == this or cross_V[other] != cross:
            continue
        back = np.uint64(step_V[other]) - unit
        first = q - min(q, back)
        ids[found] = other
        places[found] = first
        found += np.uint64(np.uint64(cells[first]) == other)
    return np.int64(found)


@jit
def blocks_after(cells: Any, blocks: Any, new: int, step_V: Any, cross_V: Any, flag: int, ids: Any, places: Any, places_new: Any) -> Any:  # fmt: skip  # noqa: E501
    """Note the aligned blocks after each new one along an axis: the older ones, and apart from them the new ones."""
    mask = np.uint64(flag - 1)
    this = np.uint64(new)
    step = np.uint64(step_V[this])
    cross = cross_V[this]
    found, found_new = np.uint64(0), np.uint64(0)
    for j in range(blocks.size):
        p = np.uint64(blocks[j])
        value = np.uint64(cells[p + step])
        if value == this:
            places_new[found_new] = p
            found_new += np.uint64(1)
            continue
        other = value & mask
        ids[found] = other
        places[found] = p
        found += np.uint64((value == other) & (cross_V[other] == cross))
    return np.int64(found), np.int64(found_new)


@jit
def _give_birth(new: int, left: int, right: int, axis: int, step_AV: Any, cross_AV: Any) -> None:
    """Write the extents of a new id; ``cross_AV`` holds the extents in the two other axes as one number."""
    for k in range(3):
        step_AV[k, new] = step_AV[k, left]
    step_AV[axis, new] += step_AV[axis, right]
    for k in range(3):
        cross_AV[k, new] = (np.int64(step_AV[(k + 1) % 3, new]) << 32) | np.int64(step_AV[(k + 2) % 3, new])


@jit
def merge_blocks(cells: Any, step_AV: Any, cross_AV: Any, strides: Any, axes: Any, last: Any, queue: Queue, low: int,
                 next_id: int, pairs: Any, counts: Any, now: int, goal: int, flag: int, ids: Any, places: Any,
                 tally: Any) -> Any:  # fmt: skip
    """Merge the pairs of the queue, most frequent first, until merge number ``goal``.

    Returns:
        The number of the next merge, and whether the index must be built anew before it.
    """
    touched = np.empty(tally.size, np.int32)
    found = np.zeros(9, np.int64)
    while now < goal:
        r = next_pair(queue, cells, step_AV, last, now, low)
        if r < 0 or not has_room(queue, r, next_id, 6):
            return now, True
        pop(queue)
        left = np.int64(queue.key[r] >> np.uint64(33))
        right = np.int64((queue.key[r] >> np.uint64(2)) & np.uint64(0x7FFFFFFF))
        axis = np.int64(queue.key[r] & np.uint64(3))
        pairs[now, 0] = left
        pairs[now, 1] = right
        pairs[now, 2] = axis
        counts[now] = queue.count[r]
        _give_birth(next_id, left, right, axis, step_AV, cross_AV)
        num = merge_places(
            cells, places_of(queue, r), left, right, next_id, axis, step_AV, strides, flag, places[9]
        )
        if num >= low:
            found[:] = 0
            for begin in range(0, num, STRETCH):
                blocks = places[9, begin : min(num, begin + STRETCH)]
                for k in axes:
                    found[k] += blocks_before(
                        cells, blocks, next_id, step_AV[k], cross_AV[k], strides[k], flag,
                        ids[k, found[k] :], places[k, found[k] :],
                    )  # fmt: skip
                    older, newer = blocks_after(
                        cells, blocks, next_id, step_AV[k], cross_AV[k], flag,
                        ids[3 + k, found[3 + k] :], places[3 + k, found[3 + k] :], places[6 + k, found[6 + k] :],
                    )  # fmt: skip
                    found[3 + k] += older
                    found[6 + k] += newer
            for k in axes:
                spread(queue, ids[k], places[k], found[k], next_id, k, True, tally, touched, low, now)
                spread(queue, ids[3 + k], places[3 + k], found[3 + k], next_id, k, False, tally, touched, low, now)
                add_run(queue, places[6 + k], found[6 + k], next_id, k, low, now)
        next_id += 1
    return now, False


@jit
def aligned_pairs(cells: Any, step_V: Any, cross_V: Any, flag: int) -> Any:
    """All pairs of aligned blocks along an axis: their left ids, right ids and places."""
    num = 0
    for p in range(cells.size):
        num += cells[p] < flag
    lefts, rights, places = np.empty(num, cells.dtype), np.empty(num, cells.dtype), np.empty(num, np.int32)
    found = np.uint64(0)
    for i in range(cells.size):
        p = np.uint64(i)
        this = np.uint64(cells[p])
        if this < np.uint64(flag):
            value = np.uint64(cells[p + np.uint64(step_V[this])])
            other = value & np.uint64(flag - 1)
            lefts[found] = this
            rights[found] = value
            places[found] = p
            found += np.uint64((value == other) & (cross_V[other] == cross_V[this]))
    return lefts[:found], rights[:found], places[:found]
