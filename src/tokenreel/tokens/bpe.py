"""Byte-pair merges over ids or raw bytes: ``train`` learns them, ``Merges`` applies, undoes, keeps and exports them.

**What is learned.** Again and again the most frequent pair of neighbouring ids becomes one new id. How often a pair
stands is the number of places where its two ids are neighbours, overlapping ones included (``aaa`` holds ``aa`` twice);
of pairs that stand equally often, the one with the smallest (left id, right id, axis) is taken. It is merged everywhere
from left to right, without overlap. It ends at ``vocab_size``, or before a pair that stands only once. ``encode``
applies the merges in the same order, so the training data come out as training left them.

**Along a grid.** With ``axes="grid"`` a token stands for a block of cells of a (t, h, w) grid, at first for one. Two
blocks are neighbours along an axis if one begins where the other ends and both have the same place and extents in the
two other axes; a pair is (id that comes first along the axis, other id, axis), with axis 0 = t, 1 = h, 2 = w, and is
merged everywhere in the order of the first cells (t, then h, then w). ``encode`` gives the ids in the order of their
blocks' first cells; ``decode`` puts each block at the first cell that is still empty, which is the same place. (The
idea: multidimensional byte-pair encoding, arXiv 2411.10281.)

Letters: t h w grid, L ids, M merges, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

from .bpe_layout import as_parts, cell_dtype, flagged, join, lay_out
from .bpe_merges import MOST_BASE_IDS, Axes, Merges

if TYPE_CHECKING:
    from .bpe_train import Training

__all__ = ["Axes", "Merges", "train"]

MOST_IDS = 1 << 26

Callback = Callable[[int, int], object]
Ids = npt.NDArray[np.unsignedinteger[Any]]


def train(
    sequences: Any,
    *,
    vocab_size: int,
    base_size: int | None = None,
    boundaries: bool = True,
    axes: Axes = "flat",
    callback: Callback | None = None,
) -> Merges:
    """Learn byte-pair merges, exactly greedily (see the top of this file).

    Args:
        sequences: one sequence (L,), or many: arrays of whole numbers or bytes, or the rows of a 2-D array. With
            ``axes="grid"`` one grid (t, h, w) or many.
        vocab_size: base ids and merged ids together; fewer come out where no pair stands twice before (``meta``
            says so).
        base_size: ids lie in [0, base_size). By default 256 for bytes (uint8), else the highest id + 1.
        boundaries: whether pairs stop at the ends of sequences; if not, all are joined into one. Grids always end.
        axes: ``flat`` or ``grid``.
        callback: called with (merges done, merges wanted) now and then. Where it raises KeyboardInterrupt, or the user
            presses Ctrl-C, training ends with the merges it has (``Merges.interrupted``).

    Raises:
        InputError: no ids, ids that are no whole numbers or not in [0, base_size), or a ``vocab_size`` that leaves no
            merge.
    """
    if axes not in get_args(Axes):
        raise InputError(f"axes must be one of {', '.join(get_args(Axes))}, got {axes!r}")
    if axes == "grid" and not boundaries:
        raise InputError("grids cannot be joined into one; leave boundaries at True for axes='grid'")
    parts = as_parts(sequences, num_axes=1 if axes == "flat" else 3)
    base_size = _base_size(parts, base_size)
    if not isinstance(vocab_size, int | np.integer) or not base_size < vocab_size <= MOST_IDS:
        raise InputError(
            f"vocab_size must be a whole number above {base_size} base ids and at most {MOST_IDS:,}, got {vocab_size}"
        )
    num_ids = sum(part.size for part in parts)
    wanted = min(int(vocab_size) - base_size, num_ids)  # each merge takes away one id at least
    if axes == "flat":
        training, interrupted = _train_flat(parts, base_size, wanted, boundaries, callback)
    else:
        training, interrupted = _train_grid(parts, base_size, wanted, callback)
    done = training.done
    reached = "vocab_size" if done == int(vocab_size) - base_size else "no pair occurs twice"
    return Merges(
        pairs=training.learned.pairs[:done, :2].copy(),
        base_size=base_size,
        axes=axes,
        axis=None if axes == "flat" else training.learned.pairs[:done, 2].astype(np.uint8),
        counts=training.learned.counts[:done].copy(),
        meta={
            "stopped": "interrupted" if interrupted else reached,
            "num_ids": num_ids,
            "num_sequences": len(parts),
            "boundaries": boundaries,
        },
    )


def _train_flat(
    parts: list[Ids], base_size: int, num_merges: int, boundaries: bool, callback: Callback | None
) -> tuple[Training, bool]:
    from .bpe_train import FlatTraining, drive

    border = base_size + num_merges
    cells = join(parts, border=border, dtype=cell_dtype(border + 1), boundaries=boundaries)
    training = FlatTraining(cells, base_size=base_size, num_merges=num_merges)
    return training, drive(training, callback)


def _train_grid(parts: list[Ids], base_size: int, num_merges: int, callback: Callback | None) -> tuple[Training, bool]:
    from .bpe_train import GridTraining, drive

    dtype, flag = flagged(base_size + num_merges)
    sheet = lay_out([part for part in parts if part.size], flag=flag, dtype=dtype)
    training = GridTraining(sheet, base_size=base_size, num_merges=num_merges, flag=flag)
    return training, drive(training, callback)


def _base_size(parts: list[Ids], base_size: int | None) -> int:
    """The number of base ids, given or found, once all ids are known to lie below it."""
    highest = max((int(part.max()) for part in parts if part.size), default=-1)
    if highest < 0:
        raise InputError("there are no ids to train on; give at least one sequence that is not empty")
    if base_size is None:
        base_size = 256 if all(part.dtype == np.uint8 for part in parts) else highest + 1
    if not isinstance(base_size, int | np.integer) or not 1 <= base_size <= MOST_BASE_IDS:
        raise InputError(f"base_size must lie between 1 and {MOST_BASE_IDS:,} (2^20), got {base_size}")
    if highest >= base_size:
        raise InputError(f"ids must lie in [0, {base_size}), found {highest}; raise base_size or check the codebook")
    return int(base_size)
