"""Building the index of pairs: all pairs of neighbours are counted, and the places of the frequent ones listed.

Small alphabets are counted in a square table, large ones by sorting the pairs by their left id. Either way two passes
over the cells suffice: one to count and choose ``low``, one to list (see ``bpe_queue``).

Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

from .bpe_layout import MOST_CELLS
from .bpe_queue import RECORDS, USED, WASTE, Queue, Scratch, heapify, jit, pair_key

__all__ = ["Side", "build_queue"]

CELLS_A_COUNT: float = 1
"""Pairs are counted in a square table of ids where there are so many cells for each of its counts; else by sorting."""

SPARE_SHARE: float = 0.5
"""Room for the places of pairs to be born, for each cell and side; where it is used up, the index is built anew."""

Row = npt.NDArray[np.unsignedinteger[Any]]


class Side(NamedTuple):
    """All pairs along one axis; (left[i], right[i]) is one if both are ids, markers (borders, dead cells) being larger.

    Attributes:
        axis: its number.
        left: ids or markers.
        right: the ids of their next neighbours along the axis, or markers.
        places: where the left ids stand, or empty if that is 0, 1, 2, ...
    """

    axis: int
    left: Row
    right: Row
    places: npt.NDArray[np.int32]


def build_queue(sides: list[Side], *, num_cells: int, next_id: int, num_merges: int, num_sides: int, now: int, scratch: Scratch) -> tuple[Queue | None, int]:  # fmt: skip  # noqa: E501
    """Count all pairs, choose ``low``, and list the pairs that stand at least so often.

    Args:
        sides: the pairs, axis by axis.
        num_cells: how long the sequence is, dead cells included.
        next_id: ids lie below it.
        num_merges: how many merges are wanted still.
        num_sides: on how many sides a token has neighbours, 2 or 6.
        now: the number of the next merge.
        scratch: whose tally is zeros again afterwards.

    Returns:
        The queue and ``low``; None where no pair stands twice.
    """
    in_table = next_id * next_id <= num_cells / CELLS_A_COUNT
    tables = np.zeros((len(sides), next_id, next_id), np.int32) if in_table else np.empty((0, 0, 0), np.int32)
    groups = []
    if in_table:
        for table, side in zip(tables, sides):
            _count_in_table(side.left, side.right, next_id, table)
        counts = _counts_from(tables)
    else:
        groups = [_sort_by_left(side.left, side.right, side.places, next_id) for side in sides]
        counts = np.concatenate([_counts_by_left(bounds, rights, scratch) for bounds, _, rights in groups])
    if not counts.size:
        return None, 2
    low = _choose_low(counts, num_merges=num_merges, next_id=next_id)
    queue = _empty_queue(counts[counts >= low], low=low, num_cells=num_cells, next_id=next_id, num_sides=num_sides)
    for table, side in zip(tables, sides):
        _records_from(table, side.axis, queue, low, now)
        _list_by_table(side.left, side.right, side.places, next_id, table, queue.arena)
    for (bounds, places, rights), side in zip(groups, sides):
        _list_by_left(bounds, places, rights, side.axis, queue, scratch, low, now)
    heapify(queue)
    return queue, low


def _choose_low(counts: npt.NDArray[np.int32], *, num_merges: int, next_id: int) -> int:
    """From which count on pairs are listed: low enough to last for many merges, high enough to list little.

    Any value from 2 to the highest count gives the same merges; this one only saves time. It aims below the count that
    the last of ``num_merges`` is likely to have: nearly the count now at that rank if few merges are wanted, for merges
    make new frequent pairs, and far below it if many. Under 1/1000 of the highest count, building anew is cheaper.
    """
    rank = num_merges + 64
    low = 2
    if rank < counts.size:
        share = 0.7 if num_merges <= next_id else 0.4
        low = int(share * np.partition(counts, counts.size - rank)[counts.size - rank])
    return max(2, low, int(counts.max()) // 1000)


def _empty_queue(counts: npt.NDArray[np.int32], *, low: int, num_cells: int, next_id: int, num_sides: int) -> Queue:
    """A queue with room for the listed ``counts`` and for what merges add until the index is built anew."""
    listed, top = int(counts.sum(dtype=np.int64)), int(counts.max())
    spare = min(max(int(SPARE_SHARE * num_cells * num_sides), num_sides * top), MOST_CELLS - listed - top)
    if spare < num_sides * top:
        raise InputError(
            f"{num_cells:,} cells are too many to train byte-pair merges on at once; train on a part of them"
        )
    records = counts.size + num_sides * (min(top, next_id) + 1) + min(spare // low, num_sides * next_id * 512)
    return Queue(
        counts=np.empty(records, np.int32),
        keys=np.empty(records, np.uint64),
        starts=np.empty(records, np.int64),
        lengths=np.empty(records, np.int32),
        seen=np.empty(records, np.int32),
        heap=np.empty(records, np.int32),
        arena=np.empty(listed + spare + top + 1, np.int32),
        sizes=np.array([0, 0, 0, listed + spare, 0, 0], np.int64),
    )


@jit
def _count_in_table(left: Any, right: Any, side: int, table: Any) -> None:
    """Add every pair to ``table[left, right]``."""
    for i in range(left.size):
        a = np.uint64(left[i])
        b = np.uint64(right[i])
        if a < np.uint64(side) and b < np.uint64(side):
            table[a, b] += 1


@jit
def _counts_from(tables: Any) -> Any:
    """All counts of at least 2."""
    flat = tables.reshape(-1)
    num = 0
    for k in range(flat.size):
        num += flat[k] >= 2
    counts = np.empty(num + 1, np.int32)  # one more: the last may be written and taken back
    num = 0
    for k in range(flat.size):
        counts[num] = flat[k]
        num += flat[k] >= 2
        if num == counts.size - 1:
            break
    return counts[:num]


@jit
def _records_from(table: Any, axis: int, queue: Queue, low: int, now: int) -> None:
    """Records of the pairs that stand at least ``low`` times; the table turns into where their places go, or -1."""
    r = queue.sizes[RECORDS]
    used = queue.sizes[USED]
    for a in range(table.shape[0]):
        for b in range(table.shape[1]):
            count = table[a, b]
            table[a, b] = -1
            if count >= low:
                queue.counts[r] = count
                queue.keys[r] = pair_key(a, b, axis)
                queue.starts[r] = used
                queue.lengths[r] = count
                queue.seen[r] = now
                table[a, b] = used
                used += count
                r += 1
    queue.sizes[RECORDS] = r
    queue.sizes[USED] = used


@jit
def _list_by_table(left: Any, right: Any, places: Any, side: int, head: Any, arena: Any) -> None:
    """Write the places of the pairs whose ``head`` (where to write) is not negative."""
    is_placed = places.size > 0
    for i in range(left.size):
        a = np.uint64(left[i])
        b = np.uint64(right[i])
        if a < np.uint64(side) and b < np.uint64(side):
            place = head[a, b]
            if place >= 0:
                arena[np.uint64(place)] = places[i] if is_placed else i
                head[a, b] = place + 1


@jit
def _sort_by_left(left: Any, right: Any, places: Any, side: int) -> Any:
    """Pairs grouped by left id: ``bounds`` (side + 1,) of the groups, and the place and right id of each pair."""
    limit = np.uint64(side)
    bounds = np.zeros(side + 1, np.int64)
    for i in range(left.size):
        a = np.uint64(left[i])
        if a < limit and np.uint64(right[i]) < limit:
            bounds[a + np.uint64(1)] += 1
    for group in range(side):
        bounds[group + 1] += bounds[group]
    head = bounds.copy()
    sorted_places = np.empty(bounds[side], np.int32)
    rights = np.empty(bounds[side], right.dtype)
    placed = places.size > 0
    for i in range(left.size):
        a = np.uint64(left[i])
        b = np.uint64(right[i])
        if a < limit and b < limit:
            k = np.uint64(head[a])
            sorted_places[k] = places[i] if placed else i
            rights[k] = b
            head[a] = k + np.uint64(1)
    return bounds, sorted_places, rights


@jit
def _counts_by_left(bounds: Any, rights: Any, scratch: Scratch) -> Any:
    """The counts, of at least 2, of all pairs grouped by left id."""
    tally, touched = scratch.tally, scratch.touched
    counts = np.empty(rights.size // 2 + 1, np.int32)
    num = 0
    for a in range(bounds.size - 1):
        kinds = 0
        for j in range(bounds[a], bounds[a + 1]):
            b = rights[j]
            if tally[b] == 0:
                touched[kinds] = b
                kinds += 1
            tally[b] += 1
        for k in range(kinds):
            if tally[touched[k]] >= 2:
                counts[num] = tally[touched[k]]
                num += 1
            tally[touched[k]] = 0
    return counts[:num]


@jit
def _list_by_left(bounds: Any, places: Any, rights: Any, axis: int, queue: Queue, scratch: Scratch, low: int, now: int) -> None:  # fmt: skip  # noqa: E501
    """Records and places of the pairs grouped by left id that stand at least ``low`` times."""
    tally, touched = scratch.tally, scratch.touched
    used = queue.sizes[USED]
    r = queue.sizes[RECORDS]
    waste = queue.sizes[WASTE]
    for a in range(bounds.size - 1):
        if bounds[a + 1] - bounds[a] < low:
            continue
        kinds = 0
        for j in range(bounds[a], bounds[a + 1]):
            b = rights[j]
            if tally[b] == 0:
                touched[kinds] = b
                kinds += 1
            tally[b] += 1
        for k in range(kinds):
            b = touched[k]
            count = tally[b]
            tally[b] = waste
            if count >= low:
                queue.counts[r] = count
                queue.keys[r] = pair_key(a, b, axis)
                queue.starts[r] = used
                queue.lengths[r] = count
                queue.seen[r] = now
                tally[b] = used
                used += count
                r += 1
        for j in range(bounds[a], bounds[a + 1]):
            place = tally[rights[j]]
            queue.arena[place] = places[j]
            tally[rights[j]] = place + 1
        for k in range(kinds):
            tally[touched[k]] = 0
    queue.sizes[RECORDS] = r
    queue.sizes[USED] = used
