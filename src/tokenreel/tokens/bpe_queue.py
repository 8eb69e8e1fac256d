"""Which pair is merged next: pairs with the lists of their places, in a heap by how often they stand.

One property makes training fast. A merge gives birth to a new id ``c``, and every pair with ``c`` in it is born in that
very merge; later merges only make pairs with still younger ids. So the places of a pair are listed **once**, in order,
when its younger id is born, and afterwards they only die. The stored count of a pair is therefore an upper bound that
never grows: the queue is a heap of stored counts, and a pair whose count may have fallen (one of its two ids was merged
since) is counted again, by reading its own list, when it comes to the top. Nothing is ever decreased, so there is no
table from pairs to counts.

Pairs that stand fewer than ``low`` times are not listed at all. When the queue holds nothing of at least ``low``, the
index is built anew over the shortened sequence with a smaller ``low`` (``bpe_index``); that happens a few times in a
training.

Importing this module imports numba. numba keys its disk cache on the file of the *calling* function: after an edit
here, remove ``__pycache__/bpe*.nb?``. In hot loops indices are unsigned: numba then leaves out its test for negative
ones, which halves the time of loops of a few loads. No constants are passed between compiled functions, because each
would be compiled for each, and no slices are assigned, because that takes a second to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "RECORDS", "USED", "WASTE",
    "Learned", "Queue", "Scratch",
    "free_list", "has_room", "heapify", "jit", "learn", "list_births", "next_pair", "pair_key", "places_of",
]  # fmt: skip

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile a function when it is first called, and keep the result on disk where there is a place to write."""
    try:
        return cast(Function, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba finds no folder for its cache
        return cast(Function, njit(nogil=True)(function))


class Queue(NamedTuple):
    """Listed pairs: one record a pair, their places in ``arena``, and a heap of record numbers.

    Attributes:
        counts: how often each pair stood when it was last counted.
        keys: each pair (``pair_key``).
        starts: where its list begins in the arena.
        lengths: how many places it has.
        seen: the merge before which it was last counted.
        heap: record numbers, the pair to merge next first.
        arena: places.
        sizes: six numbers, see below.
    """

    counts: npt.NDArray[np.int32]
    keys: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    seen: npt.NDArray[np.int32]
    heap: npt.NDArray[np.int32]
    arena: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]


HEAP, RECORDS, USED, WASTE, FREE_FROM, FREE_TO = range(6)
"""In ``Queue.sizes``: the heap's size; the number of records; the part of the arena in use; where its waste begins (a
stretch for the places nobody needs, so that loops that write places have no branch); and a free stretch in between,
the list of the pair merged last."""


class Learned(NamedTuple):
    """What a training has found: merge by merge its pair and count, and by id the last merge that touched it."""

    pairs: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint32]
    last: npt.NDArray[np.int32]


class Scratch(NamedTuple):
    """Room for the neighbours of the tokens that one merge makes.

    Attributes:
        ids: by axis, those before (row 0) and after (row 1) the new tokens.
        places: by axis, the places of these pairs, that is of the first token of each; row 2: the pairs (new, new).
        merged: the places of the new tokens themselves.
        tally: zeros, one an id.
        touched: anything, one an id.
    """

    ids: npt.NDArray[Any]
    places: npt.NDArray[np.int32]
    merged: npt.NDArray[np.int32]
    tally: npt.NDArray[np.int32]
    touched: npt.NDArray[np.int32]


@jit
def pair_key(left: Any, right: Any, axis: Any) -> Any:
    """A pair as one number whose order is the order of (left, right, axis)."""
    return (np.uint64(left) << np.uint64(33)) | (np.uint64(right) << np.uint64(2)) | np.uint64(axis)


@jit
def _unpack(key: Any) -> Any:
    """The left id, right id and axis of a key."""
    return (
        np.int64(key >> np.uint64(33)),
        np.int64((key >> np.uint64(2)) & np.uint64(0x7FFFFFFF)),
        np.int64(key & np.uint64(3)),
    )


@jit
def _before(queue: Queue, i: Any, j: Any) -> Any:
    """The order in which pairs are merged: higher count first, then the smaller (left, right, axis)."""
    return queue.counts[i] > queue.counts[j] or (queue.counts[i] == queue.counts[j] and queue.keys[i] < queue.keys[j])


@jit
def _sift_down(queue: Queue, place: Any) -> None:
    heap, size = queue.heap, queue.sizes[HEAP]
    moved = heap[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _before(queue, heap[child + 1], heap[child]):
            child += 1
        if not _before(queue, heap[child], moved):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = moved


@jit
def _sift_up(queue: Queue, place: Any) -> None:
    heap = queue.heap
    moved = heap[place]
    while place > 0:
        parent = (place - 1) // 2
        if not _before(queue, moved, heap[parent]):
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = moved


@jit
def heapify(queue: Queue) -> None:
    """Put all records into the heap, in order."""
    queue.sizes[HEAP] = queue.sizes[RECORDS]
    for r in range(queue.sizes[RECORDS]):
        queue.heap[r] = r
    for place in range(queue.sizes[HEAP] // 2 - 1, -1, -1):
        _sift_down(queue, place)


@jit
def _drop_first(queue: Queue) -> None:
    """Take the first pair off the heap."""
    size = queue.sizes[HEAP] - 1
    queue.sizes[HEAP] = size
    if size > 0:
        queue.heap[0] = queue.heap[size]
        _sift_down(queue, 0)


@jit
def places_of(queue: Queue, record: Any) -> Any:
    """A view of a pair's listed places."""
    return queue.arena[queue.starts[record] : queue.starts[record] + queue.lengths[record]]


@jit
def _keep_living(cells: Any, places: Any, left: Any, right: Any, step: Any) -> Any:
    """Drop the dead places of a pair's list; give how many are left."""
    ahead = np.uint64(step)
    kept = np.uint64(0)
    for j in range(places.size):
        p = np.uint64(places[j])
        places[kept] = p
        kept += np.uint64((cells[p] == left) & (cells[p + ahead] == right))
    return np.int64(kept)


@jit
def next_pair(queue: Queue, cells: Any, step_AV: Any, last: Any, now: Any, low: Any) -> Any:
    """The record of the pair to merge next, its count exact; -1 where no listed pair stands ``low`` times.

    Args:
        queue: in which dead places are dropped.
        cells: the sequence or sheet.
        step_AV: how many cells lie between a token's first cell and its next neighbour, by axis and id.
        last: the merge in which each id was last born or consumed.
        now: the number of the next merge.
        low: at least 2.
    """
    while queue.sizes[HEAP] > 0:
        r = queue.heap[0]
        if queue.counts[r] < low:
            return -1
        left, right, axis = _unpack(queue.keys[r])
        if last[left] <= queue.seen[r] and last[right] <= queue.seen[r]:
            return r
        living = _keep_living(cells, places_of(queue, r), left, right, step_AV[axis, left])
        queue.seen[r] = now
        queue.lengths[r] = living
        if living < low:
            _drop_first(queue)
        elif living != queue.counts[r]:
            queue.counts[r] = living
            _sift_down(queue, 0)
    return -1


@jit
def has_room(queue: Queue, record: Any, next_id: Any, num_sides: Any) -> Any:
    """Whether what merging the pair of ``record`` gives birth to is sure to fit."""
    count = queue.counts[record]
    return (
        queue.sizes[USED] + num_sides * count <= queue.sizes[WASTE]
        and queue.sizes[RECORDS] + num_sides * min(count, next_id + 1) <= queue.counts.size
    )


@jit
def learn(queue: Queue, record: Any, learned: Learned, now: Any, new: Any) -> Any:
    """Take a pair off the heap and write it down as merge number ``now``; give its left id, right id and axis."""
    _drop_first(queue)
    left, right, axis = _unpack(queue.keys[record])
    learned.pairs[now, 0] = left
    learned.pairs[now, 1] = right
    learned.pairs[now, 2] = axis
    learned.counts[now] = queue.counts[record]
    learned.last[left] = now + 1
    learned.last[right] = now + 1
    learned.last[new] = now + 1
    return left, right, axis


@jit
def free_list(queue: Queue, record: Any) -> None:
    """Let new lists take the place of a merged pair's list."""
    queue.sizes[FREE_FROM] = queue.starts[record]
    queue.sizes[FREE_TO] = queue.starts[record] + queue.lengths[record]


@jit
def _add(queue: Queue, key: Any, count: Any, now: Any) -> Any:
    """A new record in the heap, and room for its places; gives where they go."""
    r = queue.sizes[RECORDS]
    queue.sizes[RECORDS] = r + 1
    where = FREE_FROM if count <= queue.sizes[FREE_TO] - queue.sizes[FREE_FROM] else USED
    start = queue.sizes[where]
    queue.sizes[where] = start + count
    queue.counts[r] = count
    queue.keys[r] = key
    queue.starts[r] = start
    queue.lengths[r] = count
    queue.seen[r] = now
    queue.heap[queue.sizes[HEAP]] = r
    queue.sizes[HEAP] += 1
    _sift_up(queue, queue.sizes[HEAP] - 1)
    return start


@jit
def _list_older(queue: Queue, ids: Any, places: Any, new: Any, axis: Any, side: Any, scratch: Scratch, low: Any, now: Any) -> None:  # fmt: skip  # noqa: E501
    """List the pairs of a new id and older ones on one side (0: these stand before it, 1: after it)."""
    tally, touched = scratch.tally, scratch.touched
    kinds = 0
    for j in range(ids.size):
        other = np.uint64(ids[j])
        if tally[other] == 0:
            touched[kinds] = other
            kinds += 1
        tally[other] += 1
    is_listed = False
    for k in range(kinds):
        other = np.uint64(touched[k])
        count = tally[other]
        tally[other] = queue.sizes[WASTE]
        if count >= low:
            is_listed = True
            key = pair_key(other, new, axis) if side == 0 else pair_key(new, other, axis)
            tally[other] = _add(queue, key, count, now)
    if is_listed:
        for j in range(ids.size):
            other = np.uint64(ids[j])
            place = np.uint64(tally[other])
            tally[other] = place + np.uint64(1)
            queue.arena[place] = places[j]
    for k in range(kinds):
        tally[touched[k]] = 0


@jit
def list_births(queue: Queue, scratch: Scratch, nums: Any, new: Any, axis: Any, low: Any, now: Any) -> None:
    """List the pairs that one merge gave birth to along an axis, as far as they stand ``low`` times.

    Args:
        queue: gets the new records.
        scratch: holds the neighbours' ids, and the places of the pairs.
        nums: how many neighbours stand before and after, and how many pairs (new, new) there are.
        new: the id just born.
        axis: along which the neighbours lie.
        low: pairs that stand fewer times are not listed.
        now: the number of the next merge.
    """
    for side in range(2):
        num = nums[side]
        if num >= low:
            ids, places = scratch.ids[axis, side, :num], scratch.places[axis, side, :num]
            _list_older(queue, ids, places, new, axis, side, scratch, low, now)
    if nums[2] >= low:
        start = _add(queue, pair_key(new, new, axis), nums[2], now)
        for j in range(nums[2]):
            queue.arena[start + j] = scratch.places[axis, 2, j]
