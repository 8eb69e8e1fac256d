"""Applying byte-pair merges: the loops that turn ids into merged ids, in time about linear in their number.

Merges are applied in the order of their ranks, each everywhere from left to right (in a grid: in the order of first
cells). As in training, a pair whose younger id is ``c`` can only come into being when ``c`` does, so each rank's places
are listed once, either at the start (both ids are base ids) or by the merge that makes the younger id, which looks up
its few *rules*: the later merges in which it is the younger one.

A long sequence is cut into blocks that fit the cache, where no token can lie across the cut: between two base ids that
no merge ever joins.

Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .bpe_flat import merge_places as merge_flat
from .bpe_grid import blocks_around
from .bpe_grid import merge_places as merge_grid
from .bpe_queue import jit, pair_key

__all__ = ["Lists", "Rules", "encode_flat", "encode_grids", "rules_of"]

FREE = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
NOWHERE = -1
JOINED = -2
"""What a pair of base ids leads to, if not to the rank of its merge: no token holds it inside, or some token does."""

BEFORE, AFTER, BOTH = 0, 1, 2


class Rules(NamedTuple):
    """Merges, arranged for applying them.

    Attributes:
        keys: open-addressed hash of pairs of base ids.
        ranks: what each key leads to.
        left: of each merge, by rank.
        right: of each merge.
        axis: of each merge.
        bounds: the rules of merged id ``base_size + r`` are those from ``bounds[r]`` to ``bounds[r + 1]``.
        other: the older id of the rule's pair.
        side: ``BEFORE`` if the older id stands before, ``AFTER`` if after, ``BOTH`` if both are the same id.
        rank: the merge of that pair.
    """

    keys: npt.NDArray[np.uint64]
    ranks: npt.NDArray[np.int32]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    axis: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int32]
    other: npt.NDArray[np.int32]
    side: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]


@jit
def _slot(keys: Any, key: Any) -> Any:
    """Where a key stands in the hash, or the free slot where it would."""
    mask = np.uint64(keys.size - 1)
    slot = ((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while keys[slot] != key and keys[slot] != FREE:
        slot = (slot + np.uint64(1)) & mask
    return slot


@jit
def _fill(keys: Any, ranks: Any, left: Any, right: Any, axis: Any, base_size: int, first: Any, last: Any) -> None:
    """Enter the merges of two base ids, and every pair of base ids that some merge joins."""
    for r in range(left.size):
        first[base_size + r] = first[left[r]]
        last[base_size + r] = last[right[r]]
        key = pair_key(last[left[r]], first[right[r]], axis[r])
        slot = _slot(keys, key)
        if keys[slot] == FREE:
            keys[slot] = key
            ranks[slot] = JOINED
        if left[r] < base_size and right[r] < base_size:
            ranks[slot] = r


def rules_of(pairs: npt.NDArray[np.uint32], axis: npt.NDArray[np.integer[Any]], base_size: int) -> Rules:
    """The merges ``pairs`` (M, 2) with their axes, arranged for applying them."""
    left, right = (np.ascontiguousarray(column).astype(np.int64) for column in pairs.T)
    axes = axis.astype(np.int64)
    size = 16
    while size < 2 * left.size:
        size *= 2
    keys, ranks = np.full(size, FREE, np.uint64), np.full(size, NOWHERE, np.int32)
    ends = np.arange(base_size + left.size, dtype=np.int32)
    _fill(keys, ranks, left, right, axes, base_size, ends, ends.copy())
    younger = np.maximum(left, right)
    order = np.argsort(younger, kind="stable")
    order = order[younger[order] >= base_size]
    made_by = younger[order] - base_size
    side = np.where(left == right, BOTH, np.where(right == younger, BEFORE, AFTER))
    return Rules(
        keys=keys,
        ranks=ranks,
        left=left,
        right=right,
        axis=axes,
        bounds=np.searchsorted(made_by, np.arange(left.size + 1)).astype(np.int32),
        other=np.minimum(left, right)[order].astype(np.int32),
        side=side[order].astype(np.int32),
        rank=order.astype(np.int32),
    )


class Lists(NamedTuple):
    """The places of each rank still to come: ``size[r]`` of them, from ``start[r]`` on in an arena (-1: none yet)."""

    start: npt.NDArray[np.int64]
    size: npt.NDArray[np.int32]

    @classmethod
    def empty(cls, num_merges: int) -> Lists:
        """No lists for any rank."""
        return cls(start=np.full(num_merges, -1, np.int64), size=np.zeros(num_merges, np.int32))


@jit
def _grown(arena: Any, used: Any, more: Any) -> Any:
    """The arena, or a larger copy of it if ``more`` does not fit."""
    if used + more <= arena.size:
        return arena
    larger = np.empty(2 * (used + more), np.int32)
    for i in range(used):
        larger[i] = arena[i]
    return larger


@jit
def _list_by_rank(ranks: Any, places: Any, lists: Lists, arena: Any, used: Any) -> Any:
    """List ``places[i]`` under ``ranks[i]``, in order; none of these ranks has a list yet. Negative ones stay out."""
    total = 0
    for i in range(ranks.size):
        r = ranks[i]
        if r >= 0:
            lists.size[r] += 1
            total += 1
    arena = _grown(arena, used, total)
    for i in range(ranks.size):
        r = ranks[i]
        if r >= 0:
            if lists.start[r] < 0:
                lists.start[r] = used
                used += lists.size[r]
                lists.size[r] = 0
            arena[lists.start[r] + lists.size[r]] = places[i]
            lists.size[r] += 1
    return arena, used


@jit
def _list_base_pairs(cells: Any, begin: Any, end: Any, stride: Any, axis: Any, limit: Any, rules: Rules, lists: Lists, work: Any, arena: Any, used: Any) -> Any:  # fmt: skip  # noqa: E501
    """List the pairs of base ids from ``begin`` on whose second stands before ``end``, under the ranks of their merges.

    Ids at or above ``limit`` are markers. ``work`` is scratch, two rows.
    """
    num = 0
    for p in range(begin, end - stride):
        left, right = cells[p], cells[p + stride]
        if left < limit and right < limit:
            work[0, num] = rules.ranks[_slot(rules.keys, pair_key(left, right, axis))]
            work[1, num] = p
            num += 1
    return _list_by_rank(work[0, :num], work[1, :num], lists, arena, used)


@jit
def _follow(rules: Rules, made: Any, new: Any, axis: Any, ids: Any, places: Any, nums: Any, lists: Lists, rank_V: Any, ranks: Any, arena: Any, used: Any) -> Any:  # fmt: skip  # noqa: E501
    """List the pairs that merge ``made`` has just made along an axis, as the rules of its id say.

    ``ids``, ``places`` and ``nums`` tell its neighbours as in training; ``rank_V`` (-1 for all ids) and ``ranks`` are
    scratch.
    """
    for side in range(3):
        num, num_rules = nums[side], 0
        for k in range(rules.bounds[made], rules.bounds[made + 1]):
            if rules.side[k] == side and rules.axis[rules.rank[k]] == axis:
                rank_V[rules.other[k]] = rules.rank[k]
                num_rules += 1
        if num == 0 or num_rules == 0:
            num = 0
        elif side == BOTH:
            for j in range(num):
                ranks[j] = rank_V[new]
        else:
            for j in range(num):
                ranks[j] = rank_V[ids[side, j]]
        arena, used = _list_by_rank(ranks[:num], places[side, :num], lists, arena, used)
        for k in range(rules.bounds[made], rules.bounds[made + 1]):
            rank_V[rules.other[k]] = -1
    return arena, used


@jit
def _take(lists: Lists, r: Any, arena: Any) -> Any:
    """The places listed under a rank, which then has no list any more."""
    start, size = lists.start[r], lists.size[r]
    lists.start[r] = -1
    lists.size[r] = 0
    return arena[start : start + size]


@jit
def encode_flat(cells: Any, rules: Rules, lists: Lists, width_V: Any, base_size: Any, border: Any, block_size: Any) -> None:  # fmt: skip  # noqa: E501
    """Apply all merges to sequences in ``cells`` (see ``bpe_flat``), in place, block by block."""
    num_merges = rules.left.size
    rank_V = np.full(border + 1, -1, np.int32)
    nums = np.zeros(3, np.int64)
    arena, work = np.empty(block_size, np.int32), np.empty((2, 0), np.int32)
    ids, places = np.empty((2, 0), cells.dtype), np.empty((3, 0), np.int32)
    one, row, begin, nothing = np.int64(1), np.int64(0), np.int64(1), np.int64(0)
    while begin < cells.size - 1:
        end = min(begin + block_size, cells.size - 1)
        while end < cells.size - 1:
            if rules.ranks[_slot(rules.keys, pair_key(cells[end - 1], cells[end], row))] == NOWHERE:
                break
            end += 1
        size = end - begin
        if size > work.shape[1]:
            work = np.empty((2, size), np.int32)
            ids, places = np.empty((2, size + 1), cells.dtype), np.empty((3, size + 1), np.int32)
        # The block before is done and may end with a token that this block's first one must not take for its own.
        ended = cells[begin - 1]
        cells[begin - 1] = border
        arena, used = _list_base_pairs(
            cells, begin, end, one, row, base_size, rules, lists, work, arena, nothing
        )  # fmt: skip
        for r in range(num_merges):
            if lists.size[r] == 0:
                continue
            listed = _take(lists, r, arena)
            merge_flat(
                cells, listed, rules.left[r], rules.right[r], base_size + r, width_V, border, ids, places, nums
            )  # fmt: skip
            if rules.bounds[r] < rules.bounds[r + 1]:
                arena, used = _follow(
                    rules, r, base_size + r, row, ids, places, nums, lists, rank_V, work[0], arena, used
                )
        cells[begin - 1] = ended
        begin = end


@jit
def encode_grids(cells: Any, rules: Rules, lists: Lists, step_AV: Any, cross_AV: Any, strides: Any, axes: Any, base_size: Any, flag: Any) -> None:  # fmt: skip  # noqa: E501
    """Apply all merges to the grids of a sheet (see ``bpe_grid``), in place."""
    num_merges = rules.left.size
    rank_V = np.full(base_size + num_merges, -1, np.int32)
    nums = np.zeros(3, np.int64)
    arena, work = np.empty(cells.size, np.int32), np.empty((2, cells.size), np.int32)
    begin, used = np.int64(0), np.int64(0)
    for k in axes:
        arena, used = _list_base_pairs(
            cells, begin, cells.size, strides[k], k, base_size, rules, lists, work, arena, used
        )  # fmt: skip
    most = 0
    for r in range(num_merges):
        most = max(most, lists.size[r])
    ids, places, merged = (
        np.empty((2, most + 1), cells.dtype),
        np.empty((3, most + 1), np.int32),
        np.empty(most, np.int32),
    )
    for r in range(num_merges):
        if lists.size[r] == 0:
            continue
        listed = _take(lists, r, arena)
        new = base_size + r
        num = merge_grid(
            cells, listed, rules.left[r], rules.right[r], new, rules.axis[r], step_AV, strides, flag, merged
        )  # fmt: skip
        if rules.bounds[r] == rules.bounds[r + 1]:
            continue
        for k in axes:
            for i in range(3):
                nums[i] = 0
            blocks_around(
                cells, merged[:num], new, step_AV[k], cross_AV[k], strides[k], flag, ids, places, nums
            )  # fmt: skip
            arena, used = _follow(rules, r, new, k, ids, places, nums, lists, rank_V, work[0], arena, used)
