"""What a process does for the stream, the main one or a worker: chunks of positions -> transformed examples.

Everything here is a function of (collection, transform, seed, epoch, position), whoever runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from tokenreel.errors import InputError, MismatchError

from .collection import Collection
from .example import Example
from .order import EpochOrder, Even, chunks, num_chunks, share

__all__ = ["Broken", "Chunk", "Transform", "Work", "example_rng"]

T = TypeVar("T")
Transform = Callable[[Example, np.random.Generator], T]
"""``transform(example, rng)``: all randomness from ``rng``, which depends on seed, epoch and example alone."""


class Broken(NamedTuple):
    """An example that could not be read: its number, its name, where it is, and why."""

    number: int
    key: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Chunk(Generic[T]):
    """The examples of one batch that could be read.

    Attributes:
        number: among the chunks of the rank.
        num_positions: how many positions it covers, broken ones included.
        items: what the transform made, with the place of each in the chunk; empty where they are collated.
        batch: what ``collate`` made of the items, if there is one and any item.
        num_items: how many could be read.
        broken: those that could not.
    """

    number: int
    num_positions: int
    items: list[tuple[int, T]]
    batch: Any
    num_items: int
    broken: list[Broken]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[T]):
    """All that decides the stream of one rank but epoch and position; see ``Feeder`` for the fields."""

    collection: Collection
    transform: Transform[T]
    batch_size: int
    seed: int
    shuffle: bool
    rank: int
    world_size: int
    even: Even
    drop_last: bool
    collate: Callable[[list[T]], Any] | None

    def positions(self, start: int = 0) -> range:
        """The positions of this rank from ``start`` on."""
        return share(len(self.collection), rank=self.rank, world_size=self.world_size, even=self.even, start=start)

    def num_chunks(self) -> int:
        """Chunks of a whole epoch."""
        return num_chunks(self.positions(), self.batch_size, drop_last=self.drop_last)

    def chunks(self, epoch: int, start: int, *, worker: int = 0, num_workers: int = 1) -> Iterator[Chunk[T]]:
        """The chunks of one worker of this rank, from position ``start`` of an epoch on."""
        order = EpochOrder(len(self.collection), seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        taken = chunks(
            self.positions(start),
            self.batch_size,
            worker=worker,
            num_workers=num_workers,
            drop_last=self.drop_last,
        )
        for number, positions in taken:
            yield self._chunk(number, [order[position % len(order)] for position in positions], epoch)

    def _chunk(self, number: int, indices: list[int], epoch: int) -> Chunk[T]:
        items: list[tuple[int, T]] = []
        broken: list[Broken] = []
        for place, index in enumerate(indices):
            try:
                items.append((place, self._item(index, epoch)))
            except MismatchError:  # two things that do not belong together: no fault of a file, and the same for all
                raise
            except (InputError, OSError) as error:
                broken.append(self._broken(index, error))
            except Exception as error:
                error.add_note(f"while making the example {self.collection.key(index)} of {self.collection.name}")
                raise
        if self.collate is None or not items:
            return Chunk(number, len(indices), items, None, len(items), broken)
        return Chunk(number, len(indices), [], self.collate([item for _, item in items]), len(items), broken)

    def _item(self, index: int, epoch: int) -> T:
        return self.transform(self.collection[index], example_rng(self.seed, epoch, index))

    def _broken(self, index: int, error: Exception) -> Broken:
        key = self.collection.key(index)
        try:
            source = self.collection[index].source
        except (InputError, OSError):  # what stands beside it is broken: the reason names it
            source = f"{self.collection.name}:{key}"
        return Broken(index, key, source, str(error) or type(error).__name__)


def example_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator that a transform is given for one example in one epoch."""
    return np.random.default_rng((seed, epoch, index))
