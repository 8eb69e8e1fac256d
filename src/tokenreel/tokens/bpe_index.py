"""The index of neighbouring pairs that byte-pair training works on: where each pair stands, and which comes next.

One property makes training fast. A merge gives birth to a new id ``c``, and every pair with ``c`` in it is born in
that very merge; later merges only make pairs with still younger ids. So the places of a pair are listed **once**, in
order, when its younger id is born, and afterwards they only die. The stored count of a pair is therefore an upper
bound that never grows: the queue is a heap of stored counts, and a pair whose count may have fallen (one of its two
ids was merged since) is counted again, by reading its own list, when it comes to the top. Nothing is ever decreased,
so there is no table from pairs to counts.

Pairs that stand fewer than ``low`` times are not listed at all. When the queue holds nothing of at least ``low``, the
index is built anew over the shortened sequence with a smaller ``low``; that happens a few times in a training.

Importing this module imports numba. numba keys its disk cache on the file of the *calling* function: after an edit here,
remove ``__pycache__/*.nb?`` so that the loops in ``bpe_flat`` and ``bpe_grid`` are compiled again. In hot loops indices
are unsigned: numba then leaves out its test for negative ones, which halves the time of loops of a few loads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["Queue", "Side", "add_run", "build_queue", "free", "has_room", "jit", "next_pair", "pair_key", "places_of", "pop", "spread"]

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile a function when it is first called, and keep the result on disk."""
    return cast(Function, njit(cache=True, nogil=True)(function))


CELLS_A_COUNT = 1
"""Pairs are counted in a square table of ids where there are so many cells for each of its counts; else by sorting."""


class Queue(NamedTuple):
    """Listed pairs: one record a pair, their places in ``arena``, and a heap of record numbers.

    ``sizes`` holds the heap's size, the number of records, the part of ``arena`` in use, where its waste begins (a
    stretch that takes the places nobody needs, so that loops that write places have no branch), and the two ends of a
    free stretch below: the list of the pair merged last.
    """

    count: npt.NDArray[np.int32]
    key: npt.NDArray[np.uint64]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    seen: npt.NDArray[np.int32]
    heap: npt.NDArray[np.int32]
    arena: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]


@jit
def pair_key(left: int, right: int, axis: int) -> Any:
    """A pair as one number whose order is the order of (left, right, axis)."""
    return (np.uint64(left) << np.uint64(33)) | (np.uint64(right) << np.uint64(2)) | np.uint64(axis)


@jit
def _before(i: int, j: int, count: Any, key: Any) -> Any:
    """The order in which pairs are merged: higher count first, then the smaller (left, right, axis)."""
    return count[i] > count[j] or (count[i] == count[j] and key[i] < key[j])


@jit
def _sift_down(heap: Any, size: int, place: int, count: Any, key: Any) -> None:
    moved = heap[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _before(heap[child + 1], heap[child], count, key):
            child += 1
        if not _before(heap[child], moved, count, key):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = moved


@jit
def _sift_up(heap: Any, place: int, count: Any, key: Any) -> None:
    moved = heap[place]
    while place > 0:
        parent = (place - 1) // 2
        if not _before(moved, heap[parent], count, key):
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = moved


@jit
def _heapify(heap: Any, size: int, count: Any, key: Any) -> None:
    for place in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, place, count, key)


@jit
def _keep_living(cells: Any, places: Any, left: int, right: int, step: int) -> Any:
    """Drop the dead places of a pair's list; give how many are left."""
    ahead = np.uint64(step)
    kept = np.uint64(0)
    for j in range(places.size):
        p = np.uint64(places[j])
        places[kept] = p
        kept += np.uint64((cells[p] == left) & (cells[p + ahead] == right))
    return np.int64(kept)


@jit
def places_of(queue: Queue, record: int) -> Any:
    """A view of a pair's listed places."""
    return queue.arena[queue.start[record] : queue.start[record] + queue.length[record]]


@jit
def free(queue: Queue, record: int) -> None:
    """Let new lists take the place of a merged pair's list."""
    queue.sizes[4] = queue.start[record]
    queue.sizes[5] = queue.start[record] + queue.length[record]


@jit
def pop(queue: Queue) -> None:
    """Take the first pair off the queue."""
    size = queue.sizes[0] - 1
    queue.sizes[0] = size
    if size > 0:
        queue.heap[0] = queue.heap[size]
        _sift_down(queue.heap, size, 0, queue.count, queue.key)


@jit
def next_pair(queue: Queue, cells: Any, step_AV: Any, last: Any, now: int, low: int) -> Any:
    """The record of the pair to merge next, its count exact; -1 where no listed pair stands ``low`` times.

    ``step_AV[axis, id]`` is how many cells lie between a token's first cell and its next neighbour along the axis,
    ``last[id]`` the merge in which the id was last born or consumed.
    """
    while queue.sizes[0] > 0:
        r = queue.heap[0]
        if queue.count[r] < low:
            return -1
        key = queue.key[r]
        left = np.int64(key >> np.uint64(33))
        right = np.int64((key >> np.uint64(2)) & np.uint64(0x7FFFFFFF))
        axis = np.int64(key & np.uint64(3))
        if last[left] <= queue.seen[r] and last[right] <= queue.seen[r]:
            return r
        alive = _keep_living(cells, places_of(queue, r), left, right, step_AV[axis, left])
        queue.seen[r] = now
        queue.length[r] = alive
        if alive < low:
            pop(queue)
        elif alive != queue.count[r]:
            queue.count[r] = alive
            _sift_down(queue.heap, queue.sizes[0], 0, queue.count, queue.key)
    return -1


@jit
def _add(queue: Queue, key: Any, count: int, now: int) -> Any:
    """A new record and room for its places; gives where they go."""
    r = queue.sizes[1]
    if count <= queue.sizes[5] - queue.sizes[4]:
        start = queue.sizes[4]
        queue.sizes[4] = start + count
    else:
        start = queue.sizes[2]
        queue.sizes[2] = start + count
    queue.count[r] = count
    queue.key[r] = key
    queue.start[r] = start
    queue.length[r] = count
    queue.seen[r] = now
    queue.heap[queue.sizes[0]] = r
    _sift_up(queue.heap, queue.sizes[0], queue.count, queue.key)
    queue.sizes[0] += 1
    queue.sizes[1] = r + 1
    return start


@jit
def add_run(queue: Queue, places: Any, num: int, new: int, axis: int, low: int, now: int) -> None:
    """List the pair (new, new) that one merge gave birth to."""
    if num >= low:
        start = _add(queue, pair_key(new, new, axis), num, now)
        queue.arena[start : start + num] = places[:num]


@jit
def spread(queue: Queue, ids: Any, places: Any, num: int, new: int, axis: int, behind: bool, tally: Any, touched: Any,
           low: int, now: int) -> None:  # fmt: skip
    """List the pairs of a new id and older ones, that one merge gave birth to on one side of its tokens.

    Args:
        queue: gets the new records.
        ids: the neighbours' ids.
        places: where the pairs stand, that is the place of the first token of each.
        num: how many there are.
        new: the id just born.
        axis: along which the neighbours lie.
        behind: True for neighbours before the new token (left, above, earlier), False for those after it.
        tally: zeros, one an id; zeros again afterwards.
        touched: scratch, one an id.
        low: pairs that stand fewer times are not listed.
        now: the number of this merge.
    """
    if num < low:
        return
    kinds = 0
    for j in range(num):
        other = np.uint64(ids[j])
        if tally[other] == 0:
            touched[kinds] = other
            kinds += 1
        tally[other] += 1
    waste = queue.sizes[3]
    listed = False
    for k in range(kinds):
        other = touched[k]
        count = tally[other]
        tally[other] = waste
        if count >= low:
            listed = True
            key = pair_key(other, new, axis) if behind else pair_key(new, other, axis)
            tally[other] = _add(queue, key, count, now)
    if listed:
        for j in range(num):
            other = np.uint64(ids[j])
            place = np.uint64(tally[other])
            tally[other] = place + np.uint64(1)
            queue.arena[place] = places[j]
    for k in range(kinds):
        tally[touched[k]] = 0


# Building the index. ``left`` and ``right`` are arrays of one length: (left[i], right[i]) is a pair if both are ids, that
# is below ``side``; markers (borders, dead cells) are above. It stands at ``places[i]``, or at i where ``places`` is empty.


@jit
def _count_in_table(left: Any, right: Any, side: int, table: Any) -> None:
    """Add every pair to ``table[left, right]``."""
    for i in range(left.size):
        a = np.uint64(left[i])
        b = np.uint64(right[i])
        if a < np.uint64(side) and b < np.uint64(side):
            table[a, b] += 1


@jit
def _counts_from(table: Any, low: int) -> Any:
    """All counts of at least ``low``."""
    flat = table.reshape(-1)
    num = 0
    for k in range(flat.size):
        num += flat[k] >= low
    counts = np.empty(num + 1, np.int32)  # one more: the last may be written and taken back
    num = 0
    for k in range(flat.size):
        counts[num] = flat[k]
        num += flat[k] >= low
        if num == counts.size - 1:
            break
    return counts[:num]


@jit
def _records_from(table: Any, axis: int, queue: Queue, low: int, now: int) -> None:
    """Records of the pairs that stand at least ``low`` times; the table turns into where their places go, or -1."""
    r = queue.sizes[1]
    used = queue.sizes[2]
    for a in range(table.shape[0]):
        for b in range(table.shape[1]):
            count = table[a, b]
            table[a, b] = -1
            if count >= low:
                queue.count[r] = count
                queue.key[r] = pair_key(a, b, axis)
                queue.start[r] = used
                queue.length[r] = count
                queue.seen[r] = now
                table[a, b] = used
                used += count
                r += 1
    queue.sizes[1] = r
    queue.sizes[2] = used


@jit
def _list_by_table(left: Any, right: Any, places: Any, side: int, head: Any, arena: Any) -> None:
    """Write the places of the pairs whose ``head`` (where to write) is not negative."""
    placed = places.size > 0
    for i in range(left.size):
        a = np.uint64(left[i])
        b = np.uint64(right[i])
        if a < np.uint64(side) and b < np.uint64(side):
            place = head[a, b]
            if place >= 0:
                arena[np.uint64(place)] = places[i] if placed else i
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
    for a in range(side):
        bounds[a + 1] += bounds[a]
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
def _counts_by_left(bounds: Any, rights: Any, tally: Any, touched: Any) -> Any:
    """The counts, of at least 2, of all pairs grouped by left id."""
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
def _list_by_left(bounds: Any, places: Any, rights: Any, axis: int, queue: Queue, tally: Any, touched: Any, low: int, now: int) -> None:  # fmt: skip  # noqa: E501
    """Records and places of the pairs grouped by left id that stand at least ``low`` times (the heap is left unordered)."""
    used = queue.sizes[2]
    r = queue.sizes[1]
    waste = queue.sizes[3]
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
                queue.count[r] = count
                queue.key[r] = pair_key(a, b, axis)
                queue.start[r] = used
                queue.length[r] = count
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
    queue.sizes[1] = r
    queue.sizes[2] = used


@jit
def has_room(queue: Queue, record: int, next_id: int, births: int) -> Any:
    """Whether merging the pair of ``record`` is sure to fit; ``births`` is the number of sides a token has."""
    count = queue.count[record]
    return (
        queue.sizes[2] + births * count <= queue.sizes[3]
        and queue.sizes[1] + births * min(count, next_id + 1) <= queue.count.size
    )


Row = npt.NDArray[np.unsignedinteger[Any]]


class Side(NamedTuple):
    """All pairs along one axis (or more than those: see above what is no pair).

    Attributes:
        axis: its number.
        left: ids.
        right: the ids of their next neighbours along the axis.
        places: where the left ids stand, or empty if that is 0, 1, 2, ...
    """

    axis: int
    left: Row
    right: Row
    places: npt.NDArray[np.int32]




def build_queue(sides: list[Side], *, num_cells: int, next_id: int, num_merges: int, births: int, now: int) -> tuple[Queue | None, int]:
    """Count all pairs, choose ``low``, list the pairs that stand at least so often; None if no pair stands twice."""
    find = _in_table if next_id * next_id <= num_cells // CELLS_A_COUNT else _by_left
    queue, low = find(sides, num_cells, next_id, num_merges, births, now)
    if queue is not None:
        records = int(queue.sizes[1])
        queue.sizes[0] = records
        queue.heap[:records] = np.arange(records)
        _heapify(queue.heap, records, queue.count, queue.key)
    return queue, low


def _in_table(sides: list[Side], num_cells: int, next_id: int, num_merges: int, births: int, now: int) -> tuple[Queue | None, int]:  # fmt: skip  # noqa: E501
    table = np.zeros((len(sides), next_id, next_id), np.int32)
    for k, side in enumerate(sides):
        _count_in_table(side.left, side.right, next_id, table[k])
    counts = _counts_from(table, 2)
    if not counts.size:
        return None, 2
    low = _choose_low(counts, num_merges)
    queue = _empty_queue(counts[counts >= low], low=low, num_cells=num_cells, next_id=next_id, births=births)
    for k, side in enumerate(sides):
        _records_from(table[k], side.axis, queue, low, now)
        _list_by_table(side.left, side.right, side.places, next_id, table[k], queue.arena)
    return queue, low


def _by_left(sides: list[Side], num_cells: int, next_id: int, num_merges: int, births: int, now: int) -> tuple[Queue | None, int]:  # fmt: skip  # noqa: E501
    tally, touched = np.zeros(next_id, np.int32), np.empty(next_id, np.int32)
    groups = [(side.axis, *_sort_by_left(side.left, side.right, side.places, next_id)) for side in sides]
    often = np.concatenate([_counts_by_left(bounds, rights, tally, touched) for _, bounds, _, rights in groups])
    if not often.size:
        return None, 2
    low = _choose_low(often, num_merges)
    queue = _empty_queue(often[often >= low], low=low, num_cells=num_cells, next_id=next_id, births=births)
    for axis, bounds, places, rights in groups:
        _list_by_left(bounds, places, rights, axis, queue, tally, touched, low, now)
    return queue, low


def _choose_low(counts: npt.NDArray[np.int32], num_merges: int) -> int:
    """From which count on pairs are listed: low enough to last for many merges, high enough to list little.

    Any value of at least 2 gives the same merges; this one only saves time. It aims below the count that the last of
    ``num_merges`` is likely to have, and never under 1/1000 of the highest count, where building anew is cheaper.
    """
    rank = num_merges + 64
    low = 2
    if rank < counts.size:
        low = int(np.partition(counts, counts.size - rank)[counts.size - rank]) * 2 // 5
    return max(2, low, int(counts.max()) // 1000)


def _empty_queue(counts: npt.NDArray[np.int32], *, low: int, num_cells: int, next_id: int, births: int) -> Queue:
    """A queue with room for the listed ``counts`` and for what merges add until the index is built anew."""
    listed, top = int(counts.sum(dtype=np.int64)), int(counts.max())
    spare = max(num_cells * (births // 2), births * top)
    records = counts.size + births * (min(top, next_id) + 1) + min(spare // low, births * next_id * 512)
    return Queue(
        count=np.empty(records, np.int32),
        key=np.empty(records, np.uint64),
        start=np.empty(records, np.int64),
        length=np.empty(records, np.int32),
        seen=np.empty(records, np.int32),
        heap=np.empty(records, np.int32),
        arena=np.empty(listed + spare + top + 1, np.int32),
        sizes=np.array([0, 0, 0, listed + spare, 0, 0], np.int64),
    )
