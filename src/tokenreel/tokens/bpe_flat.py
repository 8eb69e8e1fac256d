"""Byte-pair merges of sequences: the loops of training and of applying merges, along one axis.

A sequence lies in ``cells`` with a border before, after and between sequences. A token of width ``k`` takes ``k``
cells; the first and the last of them hold its id, those between are dead. So both neighbours of any token are read
from the cells beside it, a merge writes four cells, and nothing moves until the sequence is compacted.

Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .bpe_index import Queue, add_run, free, has_room, jit, next_pair, places_of, pop, spread

__all__ = ["compact", "merge_by_places"]


class Beside(NamedTuple):
    """The neighbours of the tokens that one merge makes: before them (row 0), after them (row 1), and new themselves.

    ``places`` holds the place of the first token of each pair; row 2 that of the pairs (new, new).
    """

    ids: Any
    places: Any


@jit
def merge_places(cells: Any, merged: Any, left: int, right: int, new: int, width_V: Any, border: int, beside: Beside) -> Any:  # fmt: skip  # noqa: E501
    """Merge one pair at its listed places, in order; give how many neighbours there are before, after, and of both new."""
    left_width, right_width, width = np.uint64(width_V[left]), np.uint64(width_V[right]), np.uint64(width_V[new])
    one = np.uint64(1)
    num_before, num_after, num_new = np.uint64(0), np.uint64(0), np.uint64(0)
    for j in range(merged.size):
        p = np.uint64(merged[j])
        q = p + left_width
        if cells[p] != left or cells[q] != right:
            continue
        before = np.uint64(cells[p - one])
        after = np.uint64(cells[p + width])
        cells[q - one] = border + 1
        cells[q] = border + 1
        cells[p] = new
        cells[q + right_width - one] = new
        if before == np.uint64(new):  # the token before was merged just now, and noted ``left`` as the one after it
            num_after -= one
            beside.places[2, num_new] = p - width
            num_new += one
        else:
            beside.ids[0, num_before] = before
            beside.places[0, num_before] = p - np.uint64(width_V[before])
            num_before += np.uint64(before != np.uint64(border))
        beside.ids[1, num_after] = after
        beside.places[1, num_after] = p
        num_after += np.uint64(after != np.uint64(border))
    return np.int64(num_before), np.int64(num_after), np.int64(num_new)


@jit
def merge_by_places(cells: Any, width_V: Any, last: Any, queue: Queue, low: int, next_id: int, pairs: Any, counts: Any,
                    now: int, goal: int, border: int, beside: Beside, tally: Any) -> Any:  # fmt: skip
    """Merge the pairs of the queue, most frequent first, until merge number ``goal``.

    Returns:
        The number of the next merge, and whether the index must be built anew before it.
    """
    touched = np.empty(tally.size, np.int32)
    step_AV = width_V.reshape(1, width_V.size)
    while now < goal:
        r = next_pair(queue, cells, step_AV, last, now, low)
        if r < 0 or not has_room(queue, r, next_id, 2):
            return now, True
        pop(queue)
        left = np.int64(queue.key[r] >> np.uint64(33))
        right = np.int64((queue.key[r] >> np.uint64(2)) & np.uint64(0x7FFFFFFF))
        pairs[now, 0] = left
        pairs[now, 1] = right
        counts[now] = queue.count[r]
        width_V[next_id] = width_V[left] + width_V[right]
        num_before, num_after, num_new = merge_places(
            cells, places_of(queue, r), left, right, next_id, width_V, border, beside
        )
        now += 1
        last[left] = now
        last[right] = now
        last[next_id] = now
        free(queue, r)
        spread(queue, beside.ids[0], beside.places[0], num_before, next_id, 0, True, tally, touched, low, now)
        spread(queue, beside.ids[1], beside.places[1], num_after, next_id, 0, False, tally, touched, low, now)
        add_run(queue, beside.places[2], num_new, next_id, 0, low, now)
        next_id += 1
    return now, False


@jit
def compact(cells: Any, width_V: Any, young: int) -> Any:
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
