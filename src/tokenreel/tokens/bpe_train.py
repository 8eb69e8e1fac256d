"""Training byte-pair merges: a sequence of states that numba loops push on, merge by merge.

A state (``FlatTraining``, ``GridTraining``) holds the cells and the index of pairs, and ``advance`` does a few more
merges; ``drive`` calls it in short strides, reports progress, and stops where it is on an interruption. Everything a
state has learned stands in ``pairs[:done]``, so it is of use at any moment.

Importing this module imports numba.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import bpe_flat, bpe_grid
from .bpe_index import Queue, Side, build_queue
from .bpe_layout import Sheet

__all__ = ["FlatTraining", "GridTraining", "drive"]

STRIDE_SECONDS = 0.1
EVERYWHERE = np.empty(0, np.int32)


class Training:
    """What flat and grid training share: results, per-id tables, and the change between merging and indexing."""

    births: int
    """Sides on which a new token has neighbours."""

    def __init__(self, *, base_size: int, num_merges: int, num_axes: int) -> None:
        self.base_size = base_size
        self.num_merges = num_merges
        num_ids = base_size + num_merges + 2  # two more for the border and the dead cell
        self.pairs = np.zeros((num_merges, 3), np.uint32)  # left, right, axis
        self.counts = np.zeros(num_merges, np.uint32)
        self.step_AV = np.ones((num_axes, num_ids), np.int32)
        self.last = np.zeros(num_ids, np.int32)
        self.done = 0
        self.exhausted = False  # no pair stands twice
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
                self.done, spent = self._merge(self.queue, goal)
                if spent:
                    self.exhausted = self.low == 2 and self._is_through(self.queue)
                    self.queue = None

    @staticmethod
    def _is_through(queue: Queue) -> bool:
        return int(queue.sizes[0]) == 0 or int(queue.count[queue.heap[0]]) < 2

    def _index(self) -> None:
        raise NotImplementedError

    def _build(self, sides: list[Side], cells: npt.NDArray[Any]) -> None:
        """Index the pairs of ``sides``, and make room for as many neighbours as one merge can have."""
        self.queue, self.low = build_queue(
            sides,
            num_cells=cells.size,
            next_id=self.next_id,
            num_merges=self.num_merges - self.done,
            births=self.births,
            now=self.done,
        )
        self.exhausted = self.queue is None
        if self.queue is not None:
            top = int(self.queue.count[self.queue.heap[0]])
            self.ids = np.empty((self.births, top + 1), cells.dtype)
            self.places = np.empty((10 if self.births == 6 else 3, top + 1), np.int32)

    def _merge(self, queue: Queue, goal: int) -> tuple[int, bool]:
        raise NotImplementedError


class FlatTraining(Training):
    """Training along one axis.

    Args:
        cells: ids with a border before, after and between sequences; changed in place.
        base_size: ids lie below it; the border is ``base_size + num_merges``, the dead cell one more.
        num_merges: how many merges to learn.
    """

    births = 2

    def __init__(self, cells: npt.NDArray[Any], *, base_size: int, num_merges: int) -> None:
        super().__init__(base_size=base_size, num_merges=num_merges, num_axes=1)
        self.border = base_size + num_merges
        self.cells = cells
        self.young = base_size  # ids below are one cell wide
        self.tally = np.zeros(self.border + 2, np.int32)

    def _index(self) -> None:
        if self.done > self.young - self.base_size:
            self.cells = self.cells[: bpe_flat.compact(self.cells, self.step_AV[0], self.young)]
            self.step_AV.fill(1)
            self.young = self.next_id
        self._build([Side(0, self.cells[:-1], self.cells[1:], EVERYWHERE)], self.cells)

    def _merge(self, queue: Queue, goal: int) -> tuple[int, bool]:
        done, spent = bpe_flat.merge_by_places(
            self.cells, self.step_AV[0], self.last, queue, self.low, self.next_id, self.pairs, self.counts,
            self.done, goal, self.border, bpe_flat.Beside(self.ids, self.places), self.tally,
        )  # fmt: skip
        return done, spent


class GridTraining(Training):
    """Training along the axes of grids.

    Args:
        sheet: the grids, marked values having ``flag`` set; changed in place.
        base_size: ids lie below it.
        num_merges: how many merges to learn.
        flag: the mark, a power of two above all ids.
    """

    births = 6

    def __init__(self, sheet: Sheet, *, base_size: int, num_merges: int, flag: int) -> None:
        super().__init__(base_size=base_size, num_merges=num_merges, num_axes=3)
        self.sheet = sheet
        self.flag = flag
        self.step_AV, self.cross_AV = sheet.steps(np.ones((base_size + num_merges, 3), np.int64))
        self.tally = np.zeros(base_size + num_merges + 1, np.int32)

    def _index(self) -> None:
        cells = self.sheet.cells
        sides = []
        for axis in self.sheet.axes.tolist():
            if self.done == 0:  # every block is one cell: its neighbour is one stride away
                stride = int(self.sheet.strides[axis])
                sides.append(Side(axis, cells[:-stride], cells[stride:], EVERYWHERE))
            else:
                pairs = bpe_grid.aligned_pairs(cells, self.step_AV[axis], self.cross_AV[axis], self.flag)
                sides.append(Side(axis, *pairs))
        self._build(sides, cells)

    def _merge(self, queue: Queue, goal: int) -> tuple[int, bool]:
        done, spent = bpe_grid.merge_blocks(
            self.sheet.cells, self.step_AV, self.cross_AV, self.sheet.strides, self.sheet.axes, self.last, queue, self.low,
            self.next_id, self.pairs, self.counts, self.done, goal, self.flag, self.ids, self.places,
            self.tally,
        )  # fmt: skip
        return done, spent


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
