"""Undoing byte-pair merges: the table of what merged ids stand for, and the loops that write it out.

The table holds the base ids of every merged id up to a length; longer ones, and all that come after the table is full,
are taken apart into their two halves while decoding. So a merges file whose ids double in length a hundred times costs
no memory.

Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .bpe_queue import jit

__all__ = ["Expansions", "decode_flat", "decode_grid", "decoded_size", "expansions_of"]

LONGEST = 1 << 16
MOST_ENTRIES = 1 << 26
MOST_DECODED = 1 << 40
WIDE = 4
NOT_THERE = -1

FITS, SPILLS, OVERLAPS, TOO_MANY, TOO_FEW = 0, 1, 2, 3, 4
"""How a grid's ids fit its cells."""


class Expansions(NamedTuple):
    """What ids stand for.

    Attributes:
        table: base ids, ``WIDE`` more than are used.
        spans: int64 (V, 2), where an id's base ids begin in the table (-1: not there) and how many there are.
        extents_VA: int64 (V, 3), the block of cells (t, h, w) that an id stands for; a row if flat.
        left: of each merge.
        right: of each merge.
        axis: of each merge.
    """

    table: npt.NDArray[Any]
    spans: npt.NDArray[np.int64]
    extents_VA: npt.NDArray[np.int64]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    axis: npt.NDArray[np.int32]


@jit
def _copy_block(table: Any, source: int, extents: Any, goal: int, apart: Any) -> None:
    """Copy a block within the table to ``goal``, where neighbours along (t, h, w) are so many entries apart."""
    for i in range(extents[0]):
        for j in range(extents[1]):
            for k in range(extents[2]):
                table[goal + i * apart[0] + j * apart[1] + k * apart[2]] = table[source]
                source += 1


@jit
def _fill(expansions: Expansions, base_size: int) -> None:
    """Write the table, id by id, each from its two halves."""
    table, spans, extents_VA, left, right, axis = expansions
    for i in range(base_size):
        table[i] = i
        spans[i, 0] = i
        spans[i, 1] = 1
    used = base_size
    for r in range(left.size):
        new = base_size + r
        a, b = left[r], right[r]
        spans[new, 0] = NOT_THERE
        spans[new, 1] = spans[a, 1] + spans[b, 1]
        if spans[new, 1] > MOST_DECODED:
            spans[new, 1] = MOST_DECODED
        size = spans[new, 1]
        if spans[a, 0] < 0 or spans[b, 0] < 0 or size > LONGEST or used + size > table.size - WIDE:
            continue
        spans[new, 0] = used
        apart = (extents_VA[new, 1] * extents_VA[new, 2], extents_VA[new, 2], 1)
        _copy_block(table, spans[a, 0], extents_VA[a], used, apart)
        _copy_block(table, spans[b, 0], extents_VA[b], used + apart[axis[r]] * extents_VA[a, axis[r]], apart)
        used += size


def expansions_of(pairs: npt.NDArray[np.uint32], axis: npt.NDArray[Any], extents_VA: npt.NDArray[np.int64],
                  base_size: int, dtype: np.dtype[Any]) -> Expansions:  # fmt: skip
    """The table for merges ``pairs`` (M, 2) whose ids stand for blocks of ``extents_VA`` (V, 3) cells."""
    sizes = extents_VA.astype(np.float64).prod(axis=1)
    entries = max(base_size, min(int(sizes[sizes <= LONGEST].sum()), MOST_ENTRIES))
    left, right = (np.ascontiguousarray(column).astype(np.int32) for column in pairs.T)
    expansions = Expansions(
        table=np.zeros(entries + WIDE, dtype),
        spans=np.empty((len(extents_VA), 2), np.int64),
        extents_VA=extents_VA,
        left=left,
        right=right,
        axis=axis.astype(np.int32),
    )
    _fill(expansions, base_size)
    return expansions


@jit
def decoded_size(ids: Any, spans: Any) -> Any:
    """How many base ids the ids stand for; ``MOST_DECODED`` or more if too many."""
    total = 0
    for i in range(ids.size):
        total += spans[np.uint64(ids[i]), 1]
        if total >= MOST_DECODED:
            break
    return total


@jit
def _take_apart(this: int, expansions: Expansions, base_size: int, out: Any, at: int) -> None:
    """Write what an id stands for that is not in the table, by its halves, to ``out`` from ``at`` on."""
    table, spans, _, left, right, _ = expansions
    waiting = np.empty(left.size + 1, np.int64)
    waiting[0] = this
    num = 1
    while num > 0:
        num -= 1
        this = waiting[num]
        if spans[this, 0] >= 0:
            for k in range(spans[this, 1]):
                out[at + k] = table[spans[this, 0] + k]
            at += spans[this, 1]
        else:
            waiting[num] = right[this - base_size]
            waiting[num + 1] = left[this - base_size]
            num += 2


@jit
def decode_flat(ids: Any, expansions: Expansions, base_size: int, out: Any) -> None:
    """Write what ``ids`` stand for to ``out``, which has ``WIDE`` more entries than that.

    Most ids stand for a few base ids, so ``WIDE`` = 4 entries are read, then written, at once by one instruction; the
    next id writes over what was too many.
    """
    table, spans = expansions.table, expansions.spans
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    at = np.uint64(0)
    for i in range(ids.size):
        this = np.uint64(ids[i])
        source = spans[this, 0]
        size = np.uint64(spans[this, 1])
        if source < 0:
            _take_apart(np.int64(this), expansions, base_size, out, np.int64(at))  # type: ignore[arg-type]
        else:
            begin = np.uint64(source)
            w, x, y, z = table[begin], table[begin + one], table[begin + two], table[begin + three]
            out[at], out[at + one], out[at + two], out[at + three] = w, x, y, z
            if size > np.uint64(WIDE):
                for k in range(np.uint64(WIDE), size):
                    out[at + k] = table[begin + k]
        at += size


@jit
def _place(expansions: Expansions, this: int, t: int, h: int, w: int, out: Any, is_filled: Any) -> Any:
    """Write a tabled block at (t, h, w); False where a cell is taken already."""
    table, spans, extents_VA, _, _, _ = expansions
    source = spans[this, 0]
    for i in range(t, t + extents_VA[this, 0]):
        for j in range(h, h + extents_VA[this, 1]):
            for k in range(w, w + extents_VA[this, 2]):
                if is_filled[i, j, k]:
                    return False
                is_filled[i, j, k] = True
                out[i, j, k] = table[source]
                source += 1
    return True


@jit
def decode_grid(ids: Any, expansions: Expansions, base_size: int, out: Any, is_filled: Any) -> Any:
    """Put each id's block with its first cell at the first empty cell of ``out``; tell how they fit, and where."""
    _, spans, extents_VA, left, right, axis = expansions
    _, num_h, num_w = out.shape
    filled = is_filled.reshape(-1)
    waiting = np.empty((left.size + 1, 4), np.int64)
    at = 0
    for n in range(ids.size):
        while at < filled.size and filled[at]:
            at += 1
        if at == filled.size:
            return TOO_MANY, n
        waiting[0, 0] = ids[n]
        waiting[0, 1] = at // (num_h * num_w)
        waiting[0, 2] = at // num_w % num_h
        waiting[0, 3] = at % num_w
        for k in range(3):
            if waiting[0, 1 + k] + extents_VA[ids[n], k] > out.shape[k]:
                return SPILLS, n
        num = 1
        while num > 0:
            num -= 1
            this, t, h, w = waiting[num, 0], waiting[num, 1], waiting[num, 2], waiting[num, 3]
            if spans[this, 0] >= 0:
                if not _place(expansions, this, t, h, w, out, is_filled):
                    return OVERLAPS, n
            else:
                a = left[this - base_size]
                for k in range(1, 4):
                    waiting[num + 1, k] = waiting[num, k]
                waiting[num + 1, 0] = a
                waiting[num, 0] = right[this - base_size]
                waiting[num, 1 + axis[this - base_size]] += extents_VA[a, axis[this - base_size]]
                num += 2
    while at < filled.size and filled[at]:
        at += 1
    return (FITS if at == filled.size else TOO_FEW), ids.size
