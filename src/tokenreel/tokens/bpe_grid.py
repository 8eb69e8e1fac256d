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

from .bpe_queue import Learned, Queue, Scratch, free_list, has_room, jit, learn, list_births, next_pair, places_of

__all__ = ["aligned_pairs", "blocks_around", "merge_pairs", "merge_places"]

STRETCH = 4096
"""So many new blocks are looked around along all axes before the next, while the cells about them are in the cache."""


@jit
def merge_places(cells: Any, listed: Any, left: Any, right: Any, new: Any, axis: Any, step_AV: Any, strides: Any, flag: Any, merged: Any) -> Any:  # fmt: skip  # noqa: E501
    """Merge one pair at its listed places, in order; note in ``merged`` where it stood, and give how often."""
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
def blocks_around(cells: Any, blocks: Any, new: Any, step_V: Any, cross_V: Any, stride: Any, flag: Any, ids: Any, places: Any, nums: Any) -> None:  # fmt: skip  # noqa: E501
    """Note the aligned blocks before and after each new one along an axis, going on from the numbers in ``nums``.

    ``step_V`` and ``cross_V`` are those of the axis, ``ids`` and ``places`` of ``Scratch`` for it; ``nums`` counts
    what their rows hold. A pair of two new blocks is noted once, from its first.
    """
    mask = np.uint64(flag - 1)
    unit = np.uint64(stride)
    this = np.uint64(new)
    step = np.uint64(step_V[this])
    cross = cross_V[this]
    before, after, both = np.uint64(nums[0]), np.uint64(nums[1]), np.uint64(nums[2])
    for j in range(blocks.size):
        p = np.uint64(blocks[j])
        q = p - unit
        other = np.uint64(cells[q]) & mask
        value = np.uint64(cells[p + step])
        if other != this and cross_V[other] == cross:
            first = q - min(q, np.uint64(step_V[other]) - unit)
            ids[0, before] = other
            places[0, before] = first
            before += np.uint64(np.uint64(cells[first]) == other)
        if value == this:
            places[2, both] = p
            both += np.uint64(1)
            continue
        other = value & mask
        ids[1, after] = other
        places[1, after] = p
        after += np.uint64((value == other) & (cross_V[other] == cross))
    nums[0], nums[1], nums[2] = before, after, both


@jit
def _give_birth(new: Any, left: Any, right: Any, axis: Any, step_AV: Any, cross_AV: Any) -> None:
    """Write the extents of a new id."""
    for k in range(3):
        step_AV[k, new] = step_AV[k, left]
    step_AV[axis, new] += step_AV[axis, right]
    for k in range(3):
        cross_AV[k, new] = (np.int64(step_AV[(k + 1) % 3, new]) << 32) | np.int64(step_AV[(k + 2) % 3, new])


@jit
def merge_pairs(cells: Any, step_AV: Any, cross_AV: Any, strides: Any, axes: Any, queue: Queue, learned: Learned, scratch: Scratch, low: Any, base_size: Any, now: Any, goal: Any, flag: Any) -> Any:  # fmt: skip  # noqa: E501
    """Merge the pairs of the queue, most frequent first, until merge number ``goal``.

    Returns:
        The number of the next merge, and whether the index must be built anew before it.
    """
    ids, places, merged = scratch.ids, scratch.places, scratch.merged
    nums = np.zeros((3, 3), np.int64)
    while now < goal:
        new = base_size + now
        r = next_pair(queue, cells, step_AV, learned.last, now, low)
        if r < 0 or not has_room(queue, r, new, 6):
            return now, True
        left, right, axis = learn(queue, r, learned, now, new)
        now += 1
        _give_birth(new, left, right, axis, step_AV, cross_AV)
        num = merge_places(cells, places_of(queue, r), left, right, new, axis, step_AV, strides, flag, merged)
        free_list(queue, r)
        if num < low:
            continue
        for k in axes:
            for i in range(3):
                nums[k, i] = 0
        for begin in range(0, num, STRETCH):
            blocks = merged[begin : min(num, begin + STRETCH)]
            for k in axes:
                blocks_around(
                    cells, blocks, new, step_AV[k], cross_AV[k], strides[k], flag, ids[k], places[k], nums[k]
                )  # fmt: skip
        for k in axes:
            list_births(queue, scratch, nums[k], new, k, low, now)
    return now, False


@jit
def aligned_pairs(cells: Any, step_V: Any, cross_V: Any, flag: Any) -> Any:
    """All pairs of aligned blocks along an axis: their left ids, right ids and places."""
    num = 0
    for i in range(cells.size):
        num += cells[i] < flag
    lefts, rights, places = np.empty(num + 1, cells.dtype), np.empty(num + 1, cells.dtype), np.empty(num + 1, np.int32)
    found = np.uint64(0)
    for i in range(cells.size):
        p = np.uint64(i)
        left = np.uint64(cells[p])
        if left < np.uint64(flag):
            right = np.uint64(cells[p + np.uint64(step_V[left])])
            right_id = right & np.uint64(flag - 1)
            lefts[found] = left
            rights[found] = right
            places[found] = p
            found += np.uint64((right == right_id) & (cross_V[right_id] == cross_V[left]))
    return lefts[:found], rights[:found], places[:found]
