"""Several sources as one endless row of clips: which example stands at a place is a function of the seed alone.

Places are dealt to the sources in cycles of fixed shares, shuffled within a cycle, and each source is gone through in
shuffled epochs. So every example of a source comes once in its epoch, over all ranks, and any place can be looked up
without those before it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from tokenreel.data.collection import Collection
from tokenreel.data.opening import open_collection
from tokenreel.data.order import EpochOrder
from tokenreel.errors import InputError
from tokenreel.types import Clip

__all__ = ["RENDERED", "Mix", "Place", "Source", "rendered_clip"]

RENDERED = "rendered"
"""As the ``data`` of a ``Source``: scenes that are drawn as they are asked for, each another."""

AnyPath = str | os.PathLike[str]
_CYCLE = 1024
_DEALT, _EPOCHS = 3, 4
_NUM_SCENES = 1 << 40


def rendered_clip(seed: int, num_frames: int, height: int, width: int) -> Clip:
    """A scene drawn by the project; equal arguments give equal bytes."""
    from tokenreel.render import natural_clip

    return natural_clip(seed, num_frames, height, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One of the things that batches are mixed from.

    Attributes:
        data: what ``open_collection`` opens (folders of pictures and videos, tars, npz, pixel shards), a collection
            that is open already, or ``"rendered"``.
        weight: its share of the clips, relative to the other sources.
        split: which split of it.
        is_single: its clips have one frame in packed batches, whatever ``num_frames`` says; for pictures.
    """

    data: AnyPath | Sequence[AnyPath] | Collection
    weight: float = 1.0
    split: str | None = None
    is_single: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise InputError(f"Source.weight must be above 0, got {self.weight}")

    @property
    def is_rendered(self) -> bool:
        """Whether its clips are drawn."""
        return isinstance(self.data, str) and self.data == RENDERED

    def open(self) -> Collection | None:
        """The collection behind it; None for rendered scenes.

        Raises:
            InputError: there is nothing, or no example.
        """
        if self.is_rendered:
            return None
        opened = self.data if isinstance(self.data, Collection) else open_collection(self.data, split=self.split)
        if not len(opened):
            raise InputError(f"{opened.name} has no examples to make batches of")
        return opened


class Place(NamedTuple):
    """A source by its number, and how many places of this source came before."""

    source: int
    turn: int


class Mix:
    """Sources dealt by their weights.

    Args:
        sources: at least one.
        seed: of the shuffling.
    """

    def __init__(self, sources: Sequence[Source], *, seed: int) -> None:
        if not sources:
            raise InputError("nothing to make batches of: give at least one source")
        if seed < 0:
            raise InputError(f"seed must be at least 0, got {seed}")
        self.sources, self.seed = tuple(sources), seed
        self.collections = [source.open() for source in sources]
        self._shares = _shares([source.weight for source in sources])
        self._cycle = lru_cache(maxsize=8)(self._dealt)
        self._order = lru_cache(maxsize=4 * len(sources))(self._epoch)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("sources", "seed", "collections", "_shares")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cycle = lru_cache(maxsize=8)(self._dealt)
        self._order = lru_cache(maxsize=4 * len(self.sources))(self._epoch)

    def place(self, number: int) -> Place:
        """What stands at place ``number`` of the row."""
        cycle, at = divmod(number, sum(self._shares))
        source_of, count_of = self._cycle(cycle)
        source = source_of[at]
        return Place(source, cycle * self._shares[source] + count_of[at])

    def size(self, source: int) -> int:
        """Examples of a source."""
        collection = self.collections[source]
        return _NUM_SCENES if collection is None else len(collection)

    def examples(self, place: Place) -> Iterator[int]:
        """The number of the example at a place, then those that stand in, in this order, where it is broken."""
        size = self.size(place.source)
        epoch, at = divmod(place.turn, size)
        order = self._order(place.source, epoch)
        return (order[(at + offset) % size] for offset in range(size))

    def identity(self) -> list[dict[str, Any]]:
        """What decides the row, as JSON values."""
        return [
            {"weight": source.weight, "is_single": source.is_single, **_fingerprint(collection)}
            for source, collection in zip(self.sources, self.collections)
        ]

    def _dealt(self, cycle: int) -> tuple[list[int], list[int]]:
        """The source at each place of a cycle, and how many of its places came before in the cycle."""
        dealt = np.repeat(np.arange(len(self._shares)), self._shares)
        order = EpochOrder(len(dealt), seed=self.seed + (_DEALT << 40), epoch=cycle)
        sources = dealt[order.indices(np.arange(len(dealt)))]
        counts = np.empty(len(sources), np.int64)
        for source in range(len(self._shares)):
            own = sources == source
            counts[own] = np.arange(int(own.sum()))
        return sources.tolist(), counts.tolist()

    def _epoch(self, source: int, epoch: int) -> EpochOrder:
        number = epoch * len(self.sources) + source
        return EpochOrder(self.size(source), seed=self.seed + (_EPOCHS << 40), epoch=number)


def _shares(weights: Sequence[float]) -> list[int]:
    """Places of each source in a cycle, at least one, by largest remainders.

    >>> _shares([2.0, 1.0, 1.0])
    [512, 256, 256]
    """
    if len(weights) == 1:
        return [1]
    if len(weights) > _CYCLE // 2:
        raise InputError(f"at most {_CYCLE // 2} sources can be mixed, got {len(weights)}; join some to one")
    exact = np.array(weights) * (_CYCLE / sum(weights))
    shares = np.maximum(1, np.floor(exact)).astype(np.int64)
    for index in np.argsort(np.floor(exact) - exact, kind="stable")[: max(0, _CYCLE - int(shares.sum()))]:
        shares[index] += 1
    return [int(share) for share in shares]


def _fingerprint(collection: Collection | None) -> dict[str, Any]:
    if collection is None:
        return {"name": RENDERED}
    last = len(collection) - 1
    keys = "\n".join(collection.key(place * last // 31) for place in range(32))
    return {"examples": last + 1, "keys_crc32": f"{crc32(keys.encode('utf-8', 'surrogateescape')):08x}"}
