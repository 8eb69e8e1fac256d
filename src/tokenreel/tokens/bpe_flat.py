"""Byte-pair merges of sequences: the loops of training and of applying merges, along one axis.

A sequence lies in ``cells`` with a border before, after and between sequences. A token of width ``k`` takes ``k``
cells; the first and the last of them hold its id, those between are dead (border + 1). So both neighbours of any token
are read from the cells beside it, a merge writes four cells, and nothing moves until the sequence is compacted.

Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bpe_queue import Learned, Queue, Scratch, free_list, has_room, jit, learn, list_births, next_pair, places_of

__all__ = ["compact", "merge_pairs", "merge_places"]


@jit
def merge_places(cells: Any, listed: Any, left: Any, right: Any, new: Any, width_V: Any, border: Any, ids: Any, places: Any, nums: Any) -> None:  # fmt: skip  # noqa: E501
    """Merge one pair at its listed places, in order, and note the neighbours of the new tokens.

    ``ids`` and ``places`` are those of ``Scratch`` for one axis; ``nums`` gets how many older neighbours stand before
    new tokens, how many after them, and how many pairs (new, new) there are.
    """
    left_width, _right_width, width = np.uint64(width_V[left]), np.uint64(width_V[right]), np.uint64(width_V[new])
    one = np.uint64(1)
    num_before, num_after, num_new = np.uint64(0), np.uint64(0), np.uint64(0)
    for j in range(listed.size):
        p = np.uint64(listed[j])
        q = p + left_width
        if cells[p] != left or cells[q] != right:
            continue
        before = np.uint64(cells[p - one])
        after = np.uint64(cells[p + width])
        cells[q - one] = border + 1
        cells[q] = border + 1
        cells[p] = new
        cells[p + width - one] = new
        if before == np.uint64(new):  # the token before was merged just now, and noted ``left`` as the one after it
            num_after -= one
            places[2, num_new] = p - width
            num_new += one
        else:
            ids[0, num_before] = before
            places[0, num_before] = p - np.uint64(width_V[before])
            num_before += np.uint64(before != np.uint64(border))
        ids[1, num_after] = after
        places[1, num_after] = p
        num_after += np.uint64(after != np.uint64(border))
    nums[0], nums[1], nums[2] = num_before, num_after, num_new


@jit
def merge_pairs(cells: Any, width_V: Any, queue: Queue, learned: Learned, scratch: Scratch, low: Any, base_size: Any, now: Any, goal: Any, border: Any) -> Any:  # fmt: skip  # noqa: E501
    """Merge the pairs of the queue, most frequent first, until merge number ``goal``.

    Returns:
        The number of the next merge, and whether the index must be built anew before it.
    """
    ids, places = scratch.ids[0], scratch.places[0]
    step_AV = width_V.reshape(1, width_V.size)
    nums = np.zeros(3, np.int64)
    while now < goal:
        new = base_size + now
        r = next_pair(queue, cells, step_AV, learned.last, now, low)
        if r < 0 or not has_room(queue, r, new, 2):
            return now, True
        left, right, axis = learn(queue, r, learned, now, new)
        now += 1
        width_V[new] = width_V[left] + width_V[right]
        merge_places(cells, places_of(queue, r), left, right, new, width_V, border, ids, places, nums)
        free_list(queue, r)
        list_births(queue, scratch, nums, new, axis, low, now)
    return now, False


@jit
def compact(cells: Any, width_V: Any, young: Any) -> Any:
    """Keep the first cell of every token; give the new size. Ids below ``young`` are one cell wide."""
    kept = 0
    i = 0
    while i < cells.size:
        this = cells[i]
        cells[kept] = this
        kept += 1
        # The branch is foreseen where looking up every width would make each step wait for the one before.
        if this < young:
            i += 1
        else:
            i += width_V[this]
    return kept
