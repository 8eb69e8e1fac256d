"""Batches of a labelled set for training a classifier: shuffled or balanced, changed at random, resumable.

::

    reader = ClipReader(model.config, ClipView(video=VideoAugment(shift=0.1)), is_random=True)
    with LabelledStream(train, reader, LabelledBatchConfig(batch_size=16), seed=0) as stream:
        for batch in stream: ...             # endless; batch.inputs.logits(model, generator), batch.targets
        state = stream.state_dict()          # at any moment; load_state_dict goes on with the next batch

``classify_clips`` reads pixels, ``classify_codes`` ids. Examples are kept as they are first read, up to a number of
bytes; kept or not, batches are the same.

Letters: B examples.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, Self
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from tokenreel.classify.logits import Logits
from tokenreel.data.labelled import LabelledExample, LabelledSet
from tokenreel.data.order import EpochOrder
from tokenreel.errors import InputError, MismatchError, TokenReelWarning

from .batches import Broken
from .threaded_stream import ThreadedStream

__all__ = ["Inputs", "Kept", "LabelledBatch", "LabelledBatchConfig", "LabelledStream", "Reader", "labelled_batches"]

_TRIES = 64
_EPOCHS, _CHANGES = 6, 7  # of seeds


class Inputs(Protocol):
    """What a classifier reads of a batch."""

    @property
    def num_tokens(self) -> int:
        """Of all examples."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Self:
        """The same on a device."""

    def logits(self, model: nn.Module, generator: torch.Generator | None) -> Logits:
        """What the classifier answers; the generator draws what it drops in training."""

    def mixed(
        self, probs: Mapping[str, Tensor], *, alpha: float, generator: torch.Generator
    ) -> tuple[Self, dict[str, Tensor]]:
        """Inputs and labels mixed with others of the batch."""


class Reader(Protocol):
    """Examples to what is kept of them, and from there to batches."""

    def identity(self) -> dict[str, Any]:
        """What decides a batch beside its examples, as JSON values."""

    def read(self, example: LabelledExample) -> Any:
        """What is kept of an example. InputError: it cannot be read."""

    def num_bytes(self, item: Any) -> int:
        """Of what is kept."""

    def joined(self, items: Sequence[Any], generator: torch.Generator) -> Inputs:
        """A batch; every draw is the generator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBatchConfig:
    """How examples become batches.

    Attributes:
        batch_size: examples a batch.
        balanced: the classes take turns, so that each is seen equally often; of a set with one head.
        cache_bytes: examples are kept in memory while they are no more than this.
    """

    batch_size: int
    balanced: bool = False
    cache_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.cache_bytes < 0:
            raise InputError(
                "batch_size must be at least 1 and cache_bytes at least 0, got "
                f"{self.batch_size} and {self.cache_bytes}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledBatch:
    """Examples to learn from.

    Attributes:
        inputs: what a classifier reads.
        targets: head -> int64 (B,), numbers of classes.
        num_classes: head -> how many it has.
        sources: where each example came from, for messages.
        index: the number of the batch in its stream.
    """

    inputs: Inputs
    targets: Mapping[str, Tensor]
    num_classes: Mapping[str, int]
    sources: tuple[str, ...]
    index: int

    def __post_init__(self) -> None:
        for head, numbers_B in self.targets.items():
            if numbers_B.shape != (len(self),) or numbers_B.dtype != torch.int64 or head not in self.num_classes:
                raise InputError(
                    f"LabelledBatch.targets of {head} must be int64 ({len(self)},) with a number of classes, got "
                    f"{numbers_B.dtype} {tuple(numbers_B.shape)}"
                )
        if len(self.sources) != len(self) or not len(self):
            raise InputError(f"LabelledBatch has {len(self)} examples and {len(self.sources)} sources")

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> LabelledBatch:
        """The same on a device."""
        targets = {head: numbers_B.to(device) for head, numbers_B in self.targets.items()}
        return replace(self, inputs=self.inputs.to(device), targets=targets)

    def __repr__(self) -> str:
        return f"LabelledBatch({self.index}: {len(self)} examples of {', '.join(self.targets)})"


class Kept:
    """Examples as they are first read, held up to a number of bytes; past it they are read again. For any threads."""

    def __init__(self, labelled: LabelledSet, reader: Reader, most_bytes: int) -> None:
        self._labelled, self._reader, self._most_bytes = labelled, reader, most_bytes
        self._held: dict[int, Any] = {}
        self._bytes, self._lock = 0, threading.Lock()

    def item(self, number: int) -> Any:
        """An example, read now or before.

        Raises:
            InputError: it cannot be read.
        """
        if number in self._held:
            return self._held[number]
        item = self._reader.read(self._labelled[number])
        with self._lock:
            size = self._reader.num_bytes(item)
            if number not in self._held and self._bytes + size <= self._most_bytes:
                self._held[number] = item
                self._bytes += size
        return item


class LabelledStream(ThreadedStream[LabelledBatch]):
    """Batches without end; the one of a number depends on (seed, number, rank) alone.

    Every example comes once in an epoch over all ranks; balanced, every example of a class once in an epoch of it. An
    example that cannot be read is replaced by the next in order and named in one warning.

    Args:
        labelled: what is learned from.
        reader: of its examples.
        config: what batches are made of.
        seed: of order and changes.
        rank, world_size: this process among those that share the set.
        num_workers: threads that work ahead; 0 makes a batch where it is asked for.

    Raises:
        InputError: a number is out of range, or classes cannot take turns.

    Attributes:
        index: the number of the next batch.
    """

    item = "example"

    def __init__(
        self,
        labelled: LabelledSet,
        reader: Reader,
        config: LabelledBatchConfig,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        if world_size < 1 or not 0 <= rank < world_size or num_workers < 0 or seed < 0:
            raise InputError(
                "rank must lie in [0, world_size), num_workers and seed be at least 0, got "
                f"rank={rank}, world_size={world_size}, num_workers={num_workers}, seed={seed}"
            )
        super().__init__(num_workers)
        self.labelled, self.reader, self.config = labelled, reader, config
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._pools = _pools(labelled) if config.balanced else [np.arange(len(labelled))]
        self._order = lru_cache(maxsize=4 * len(self._pools))(self._epoch)
        self._kept, self._lock = Kept(labelled, reader, config.cache_bytes), threading.Lock()

    def _batch_of(self, index: int, broken: list[Broken]) -> LabelledBatch:
        size = self.config.batch_size
        first = (index * self._world_size + self._rank) * size  # a stretch of the row: every rank sees every class
        seen = [self._seen(first + place, broken) for place in range(size)]
        mixed = np.random.SeedSequence([self._seed, _CHANGES, index, self._rank]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]) >> 1)
        inputs = self.reader.joined([item for _, item in seen], generator)
        return _batch(self.labelled, inputs, [number for number, _ in seen], index)

    def _seen(self, number: int, broken: list[Broken]) -> tuple[int, Any]:
        """The example at a place of the row; where it is broken, the next of its epoch that is not."""
        turn, which = divmod(number, len(self._pools))
        pool = self._pools[which]
        epoch, at = divmod(turn, len(pool))
        for offset in range(min(_TRIES, len(pool))):
            with self._lock:  # an order keeps the block that it was last asked for
                example = int(pool[self._order(which, epoch)[(at + offset) % len(pool)]])
            try:
                return example, self._kept.item(example)
            except MismatchError:
                raise
            except (InputError, OSError) as error:
                broken.append(Broken(0, example, self.labelled.key(example), str(error)))
        raise InputError(
            f"none of {min(_TRIES, len(pool))} examples of {self.labelled.name} that were tried can be used; the last, "
            f"{broken[-1].key}: {broken[-1].reason}"
        )

    def _epoch(self, which: int, epoch: int) -> EpochOrder:
        number = epoch * len(self._pools) + which
        return EpochOrder(len(self._pools[which]), seed=self._seed + (_EPOCHS << 40), epoch=number)

    def identity(self) -> dict[str, Any]:
        """What decides the batches, as JSON values."""
        config = {name: value for name, value in asdict(self.config).items() if name != "cache_bytes"}
        return {
            "seed": self._seed,
            "world_size": self._world_size,
            "config": config,
            "reader": self.reader.identity(),
            "examples": _fingerprint(self.labelled),
        }


def labelled_batches(
    labelled: LabelledSet, reader: Reader, *, batch_size: int, kept: Kept | None = None
) -> Iterator[tuple[list[int], LabelledBatch]]:
    """Every example once, in order, with their numbers: to measure by. Unreadable ones are left out with a warning.

    Args:
        kept: of this set and reader, where they are gone through again and again.

    Raises:
        InputError: no example can be read.
    """
    kept = Kept(labelled, reader, 0) if kept is None else kept
    generator, index = torch.Generator(), 0
    for start in range(0, len(labelled), batch_size):
        numbers, items = [], []
        for number in range(start, min(start + batch_size, len(labelled))):
            try:
                items.append(kept.item(number))
                numbers.append(number)
            except MismatchError:
                raise
            except (InputError, OSError) as error:
                text = f"left out the broken example {labelled.key(number)}: {error}"
                warnings.warn(text, TokenReelWarning, stacklevel=2)
        if items:
            yield numbers, _batch(labelled, reader.joined(items, generator), numbers, index)
            index += 1
    if not index:
        raise InputError(f"no example of {labelled.name} can be read")


def _batch(labelled: LabelledSet, inputs: Inputs, numbers: Sequence[int], index: int) -> LabelledBatch:
    at = np.array(numbers)
    return LabelledBatch(
        inputs=inputs,
        targets={head: torch.from_numpy(labelled.targets(head)[at]) for head in labelled.heads},
        num_classes={head: len(names) for head, names in labelled.heads.items()},
        sources=tuple(labelled.key(number) for number in numbers),
        index=index,
    )


def _pools(labelled: LabelledSet) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """The examples of each class."""
    if len(labelled.heads) > 1:
        raise InputError(
            f"classes of several heads ({', '.join(labelled.heads)}) cannot take turns; say data.batches.balanced=false"
        )
    targets = labelled.targets()
    pools = [np.flatnonzero(targets == number) for number in range(len(next(iter(labelled.heads.values()))))]
    return [pool for pool in pools if len(pool)]


def _fingerprint(labelled: LabelledSet) -> dict[str, Any]:
    """Which examples with which classes these are."""
    keys = "\n".join(labelled.key(number) for number in range(len(labelled)))
    found = crc32(keys.encode("utf-8", "surrogateescape"))
    for head, names in labelled.heads.items():
        found = crc32(labelled.targets(head).tobytes(), crc32("\n".join((head, *names)).encode(), found))
    return {"count": len(labelled), "crc32": f"{found:08x}"}
