"""Training byte-pair merges: a state that numba loops push on, merge by merge.

A state (``FlatTraining``, ``GridTraining``) holds the cells and the queue of pairs, and ``advance`` does a few more
merges; ``drive`` calls it in short strides, reports progress, and stops where it is on an interruption. Everything a
state has learned stands in the first ``done`` entries of ``learned``, so it is of use at any moment.

Importing this module imports numba.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import bpe_flat, bpe_grid
from .bpe_index import Side, build_queue
from .bpe_layout import Sheet
from .bpe_queue import Learned, Queue, Scratch

__all__ = ["FlatTraining", "GridTraining", "Training", "drive"]

STRIDE_SECONDS = 0.1
EVERYWHERE = np.empty(0, np.int32)


class Training:
    """What flat and grid training share: the results, and the change between indexing and merging."""

    num_axes: int

    def __init__(self, cells: npt.NDArray[Any], *, base_size: int, num_merges: int) -> None:
        self.cells = cells
        self.base_size = base_size
        self.num_merges = num_merges
        self.done = 0
        self.exhausted = False  # no pair stands twice
        num_ids = base_size + num_merges + 1  # one more for the border
        self.learned = Learned(
            pairs=np.zeros((num_merges, 3), np.uint32),
            counts=np.zeros(num_merges, np.uint32),
            last=np.zeros(num_ids, np.int32),
        )
        self.scratch = self._scratch(0, num_ids)
        self.queue: Queue | None = None
        self.low = 2

    @property
    def next_id(self) -> int:
        """The id that the next merge makes."""
        return self.base_size + self.done

    def advance(self, goal: int) -> None:
        """Go on until ``goal`` merges are done or no pair stands twice."""
        while self.done < goal and not self.exhausted:
            if self.queue is None:
                self._index()
            else:
                self.done, is_spent = self._merge(self.queue, goal)
                if is_spent:
                    self.queue = None

    def _scratch(self, top: int, num_ids: int) -> Scratch:
        return Scratch(
            ids=np.empty((self.num_axes, 2, top + 1), self.cells.dtype),
            places=np.empty((self.num_axes, 3, top + 1), np.int32),
            merged=np.empty(top + 1, np.int32),
            tally=np.zeros(num_ids, np.int32),
            touched=np.empty(num_ids, np.int32),
        )

    def _index(self) -> None:
        """Build the queue anew, and make room for as many neighbours as one merge can have."""
        queue, self.low = build_queue(
            self._sides(),
            num_cells=self.cells.size,
            next_id=self.next_id,
            num_merges=self.num_merges - self.done,
            num_sides=2 * self.num_axes,
            now=self.done,
            scratch=self.scratch,
        )
        self.exhausted = queue is None
        if queue is not None:
            self.scratch = self._scratch(int(queue.counts[queue.heap[0]]), self.scratch.tally.size)
        self.queue = queue

    def _sides(self) -> list[Side]:
        raise NotImplementedError

    def _merge(self, queue: Queue, goal: int) -> tuple[int, bool]:
        raise NotImplementedError


class FlatTraining(Training):
    """Training along one axis.

    Args:
        cells: ids with a border before, after and between sequences; changed in place.
        base_size: ids lie below it; the border is ``base_size + num_merges``.
        num_merges: how many merges to learn.
    """

    num_axes = 1

    def __init__(self, cells: npt.NDArray[Any], *, base_size: int, num_merges: int) -> None:
        super().__init__(cells, base_size=base_size, num_merges=num_merges)
        self.border = base_size + num_merges
        self.width_V = np.ones(self.border + 1, np.int32)
        self.young = base_size  # ids below are one cell wide

    def _sides(self) -> list[Side]:
        if self.next_id > self.young:
            self.cells = self.cells[: bpe_flat.compact(self.cells, self.width_V, self.young)]
            self.width_V.fill(1)
            self.young = self.next_id
        return [Side(0, self.cells[:-1], self.cells[1:], EVERYWHERE)]

    def _merge(self, queue: Queue, goal: int) -> tuple[int, bool]:
        done, is_spent = bpe_flat.merge_pairs(
            self.cells, self.width_V, queue, self.learned, self.scratch,
            self.low, self.base_size, self.done, goal, self.border,
        )  # fmt: skip
        return done, is_spent


class GridTraining(Training):
    """Training along the axes of grids.

    Args:
        sheet: the grids, marked values having ``flag`` set; changed in place.
        base_size: ids lie below it.
        num_merges: how many merges to learn.
        flag: the mark, a power of two above all ids.
    """

    num_axes = 3

    def __init__(self, sheet: Sheet, *, base_size: int, num_merges: int, flag: int) -> None:
        super().__init__(sheet.cells, base_size=base_size, num_merges=num_merges)
        self.sheet = sheet
        self.flag = flag
        self.step_AV, self.cross_AV = sheet.steps(np.ones((base_size + num_merges, 3), np.int64))

    def _sides(self) -> list[Side]:
        sides = []
        for axis in self.sheet.axes.tolist():
            if self.done == 0:  # every block is one cell: its neighbour is one stride away
                stride = int(self.sheet.strides[axis])
                sides.append(Side(axis, self.cells[:-stride], self.cells[stride:], EVERYWHERE))
            else:
                pairs = bpe_grid.aligned_pairs(self.cells, self.step_AV[axis], self.cross_AV[axis], self.flag)
                sides.append(Side(axis, *pairs))
        return sides

    def _merge(self, queue: Queue, goal: int) -> tuple[int, bool]:
        done, is_spent = bpe_grid.merge_pairs(
            self.cells, self.step_AV, self.cross_AV, self.sheet.strides, self.sheet.axes,
            queue, self.learned, self.scratch, self.low, self.base_size, self.done, goal, self.flag,
        )  # fmt: skip
        return done, is_spent


def drive(training: Training, callback: Callable[[int, int], object] | None) -> bool:
    """Run a training to its end in short strides; True if KeyboardInterrupt ended it early."""
    stride = 1
    try:
        while training.done < training.num_merges and not training.exhausted:
            began = time.perf_counter()
            training.advance(min(training.num_merges, training.done + stride))
            took = time.perf_counter() - began
            if took < STRIDE_SECONDS:
                stride *= 2
            elif took > 4 * STRIDE_SECONDS:
                stride = max(1, stride // 2)
            if callback is not None:
                callback(training.done, training.num_merges)
    except KeyboardInterrupt:
        return True
    return False
