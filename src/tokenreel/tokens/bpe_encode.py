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

from . import bpe_flat, bpe_grid
from .bpe_index import jit, pair_key

__all__ = ["Rules", "encode_flat", "encode_grids", "rules_of"]

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
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    axis: npt.NDArray[np.int32]
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
    left, right = (np.ascontiguousarray(column).astype(np.int32) for column in pairs.T)
    axes = axis.astype(np.int32)
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


@jit
def _grown(arena: Any, used: int, more: int) -> Any:
    """The arena, or a larger copy of it if ``more`` does not fit."""
    if used + more <= arena.size:
        return arena
    larger = np.empty(2 * (used + more), np.int32)
    larger[:used] = arena[:used]
    return larger


@jit
def _list_by_rank(ranks: Any, places: Any, lists: Lists, arena: Any, used: int) -> Any:
    """List ``places[i]`` under ``ranks[i]``, in order; none of these ranks has a list yet. Negative ranks are left out."""
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
def _follow(rules: Rules, made: int, axis: int, side: int, ids: Any, places: Any, lists: Lists, rank_V: Any, ranks: Any,
            arena: Any, used: int) -> Any:  # fmt: skip
    """List the pairs that merge ``made`` has just made on one side, as the rules of its id say.

    ``rank_V`` is scratch, -1 for every id; ``ranks`` is scratch. For ``BOTH`` the neighbours are all the new id itself.
    """
    first, stop = rules.bounds[made], rules.bounds[made + 1]
    wanted = False
    for k in range(first, stop):
        if rules.side[k] == side and rules.axis[rules.rank[k]] == axis:
            rank_V[rules.other[k]] = rules.rank[k]
            wanted = True
            if side == BOTH:
                ranks[: places.size] = rules.rank[k]
    if wanted and places.size > 0:
        if side != BOTH:
            for j in range(places.size):
                ranks[j] = rank_V[ids[j]]
        arena, used = _list_by_rank(ranks[: places.size], places, lists, arena, used)
    for k in range(first, stop):
        rank_V[rules.other[k]] = -1
    return arena, used


@jit
def _ranks_of_base_pairs(left: Any, right: Any, axis: int, limit: int, rules: Rules, ranks: Any) -> None:
    """The rank of each pair of neighbours, or a negative number; ids at or above ``limit`` are markers."""
    for i in range(left.size):
        ranks[i] = NOWHERE
        if left[i] < limit and right[i] < limit:
            ranks[i] = rules.ranks[_slot(rules.keys, pair_key(left[i], right[i], axis))]


@jit
def encode_flat(cells: Any, rules: Rules, width_V: Any, base_size: int, border: int, block_size: int) -> None:
    """Apply all merges to sequences in ``cells`` (see ``bpe_flat``), in place, block by block."""
    num_merges = rules.left.size
    lists = Lists(np.full(num_merges, -1, np.int64), np.zeros(num_merges, np.int32))
    rank_V = np.full(border + 1, -1, np.int32)
    arena = np.empty(block_size, np.int32)
    ranks = np.empty(0, np.int32)
    beside = bpe_flat.Beside(np.empty((2, 0), cells.dtype), np.empty((3, 0), np.int32))
    begin = 1
    while begin < cells.size - 1:
        end = min(begin + block_size, cells.size - 1)
        while end < cells.size - 1:
            if rules.ranks[_slot(rules.keys, pair_key(cells[end - 1], cells[end], 0))] == NOWHERE:
                break
            end += 1
        size = end - begin
        if size > ranks.size:
            ranks = np.empty(size, np.int32)
            beside = bpe_flat.Beside(np.empty((2, size + 1), cells.dtype), np.empty((3, size + 1), np.int32))
        _ranks_of_base_pairs(cells[begin : end - 1], cells[begin + 1 : end], 0, base_size, rules, ranks)
        arena, used = _list_by_rank(ranks[: size - 1], np.arange(begin, end), lists, arena, 0)
        for r in range(num_merges):
            if lists.size[r] == 0:
                continue
            places = arena[lists.start[r] : lists.start[r] + lists.size[r]]
            lists.start[r] = -1
            lists.size[r] = 0
            before, after, both = bpe_flat.merge_places(
                cells, places, rules.left[r], rules.right[r], base_size + r, width_V, border, beside
            )
            if rules.bounds[r] == rules.bounds[r + 1]:
                continue
            arena, used = _follow(
                rules, r, 0, BEFORE, beside.ids[0], beside.places[0, :before], lists, rank_V, ranks, arena, used
            )
            arena, used = _follow(
                rules, r, 0, AFTER, beside.ids[1], beside.places[1, :after], lists, rank_V, ranks, arena, used
            )
            arena, used = _follow(
                rules, r, 0, BOTH, beside.ids[1], beside.places[2, :both], lists, rank_V, ranks, arena, used
            )
        begin = end


@jit
def encode_grids(cells: Any, rules: Rules, step_AV: Any, cross_AV: Any, strides: Any, axes: Any, base_size: int, flag: int) -> None:  # fmt: skip  # noqa: E501
    """Apply all merges to the grids of a sheet (see ``bpe_grid``), in place."""
    num_merges = rules.left.size
    lists = Lists(np.full(num_merges, -1, np.int64), np.zeros(num_merges, np.int32))
    rank_V = np.full(base_size + num_merges, -1, np.int32)
    ranks = np.empty(cells.size, np.int32)
    everywhere = np.arange(cells.size)
    arena = np.empty(cells.size, np.int32)
    used = 0
    for k in axes:
        size = cells.size - strides[k]
        _ranks_of_base_pairs(cells[:size], cells[strides[k] :], k, base_size, rules, ranks)
        arena, used = _list_by_rank(ranks[:size], everywhere, lists, arena, used)
    most = 0
    for r in range(num_merges):
        most = max(most, lists.size[r])
    ids, places = np.empty(most + 1, cells.dtype), np.empty((3, most + 1), np.int32)
    for r in range(num_merges):
        if lists.size[r] == 0:
            continue
        listed = arena[lists.start[r] : lists.start[r] + lists.size[r]]
        lists.start[r] = -1
        lists.size[r] = 0
        new = base_size + r
        num = bpe_grid.merge_places(
            cells, listed, rules.left[r], rules.right[r], new, rules.axis[r], step_AV, strides, flag, places[2]
        )
        if rules.bounds[r] == rules.bounds[r + 1]:
            continue
        blocks = places[2, :num]
        for k in axes:
            found = bpe_grid.blocks_before(
                cells, blocks, new, step_AV[k], cross_AV[k], strides[k], flag, ids, places[0]
            )
            arena, used = _follow(rules, r, k, BEFORE, ids, places[0, :found], lists, rank_V, ranks, arena, used)
            found, found_new = bpe_grid.blocks_after(
                cells, blocks, new, step_AV[k], cross_AV[k], flag, ids, places[0], places[1]
            )
            arena, used = _follow(rules, r, k, AFTER, ids, places[0, :found], lists, rank_V, ranks, arena, used)
            arena, used = _follow(rules, r, k, BOTH, ids, places[1, :found_new], lists, rank_V, ranks, arena, used)
