"""The stream of examples that training reads: shuffled, shared among ranks, resumable, broken files passed over."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tokenreel.errors import InputError, MismatchError, TokenReelWarning

from .collection import Collection
from .example import Example
from .order import Even, uneven_count
from .work import Broken, Chunk, Transform, Work

__all__ = ["Feeder", "as_is"]

T = TypeVar("T")
_STATE_VERSION = 1
_ALL_BROKEN_AFTER = 100


def as_is(example: Example, rng: Any) -> Example:
    """The transform that does nothing."""
    return example


class Feeder(Generic[T]):
    """Batches of transformed examples, epoch after epoch, made in this process.

    ``for batch in feeder`` gives what is left of the current epoch, the next loop the next epoch. ``items()`` gives
    single examples instead, for those who pack batches themselves. ``state_dict()`` may be taken at any moment and
    counts what was handed over, so that a loop which saves after using a batch continues with the next one.

    Args:
        collection: the examples.
        transform: ``transform(example, rng) -> T``; draws from ``rng`` alone are the same in every run. An InputError
            or OSError of it marks the example as broken (a MismatchError does not: it is no fault of a file); any other
            error goes up with the example's name added.
        batch_size: examples a batch; a batch with broken ones is smaller, one with nothing else is left out.
        seed: of order and augmentation.
        shuffle: another order each epoch.
        rank, world_size: this process among those that share the epoch.
        even: ``no``: each example once, lengths may differ by one; ``drop``/``pad``: as many positions for every rank,
            by leaving out the last / repeating the first ``num_uneven`` positions of the epoch.
        drop_last: leave out a last batch that is not full.
        collate: ``collate(items) -> batch``, run where the examples are made; a list of the items by default.

    Attributes:
        epoch: of the next example.
        position: all positions of the epoch below this one have been handed over (on this rank).
        broken: every broken example so far, each once; a warning names each.
    """

    num_workers = 0

    def __init__(
        self,
        collection: Collection,
        transform: Transform[T],
        *,
        batch_size: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        even: Even = "no",
        drop_last: bool = False,
        collate: Callable[[list[T]], Any] | None = None,
    ) -> None:
        if not len(collection):
            raise InputError(f"{collection.name} has no examples to feed")
        if seed < 0:
            raise InputError(f"seed must be at least 0, got {seed}")
        self._work = Work(
            collection=collection,
            transform=transform,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
            even=even,
            drop_last=drop_last,
            collate=collate,
        )
        self._work.num_chunks()  # refuses wrong ranks and batch sizes now
        self.epoch = self.position = 0
        self._broken: dict[int, Broken] = {}
        self._run = 0

    @property
    def collection(self) -> Collection:
        """The examples."""
        return self._work.collection

    @property
    def broken(self) -> list[Broken]:
        """Every broken example so far, each once."""
        return list(self._broken.values())

    @property
    def num_uneven(self) -> int:
        """Examples an epoch that ``even`` leaves out or repeats."""
        return uneven_count(len(self.collection), world_size=self._work.world_size, even=self._work.even)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._work.num_chunks()

    def __iter__(self) -> Iterator[Any]:
        """The batches left in this epoch: lists of items, or what ``collate`` makes of them.

        Raises:
            InputError: no example can be read.
        """
        for chunk, _ in self._consumed(by_item=False):
            if chunk.num_items:
                yield [item for _, item in chunk.items] if self._work.collate is None else chunk.batch

    def items(self) -> Iterator[T]:
        """The examples left in this epoch one by one; the state counts each."""
        if self._work.collate is not None:
            raise InputError("items() gives single examples, which collate= has already joined; leave collate out")
        for _, item in self._consumed(by_item=True):
            if item is not None:
                yield item[1]

    def forever(self) -> Iterator[Any]:
        """Batches of this epoch, the next, and so on without end.

        Raises:
            InputError: a whole epoch gives no batch.
        """
        while True:
            count, whole = 0, self.position == 0
            for batch in self:
                count += 1
                yield batch
            if whole and not count:
                raise InputError(
                    f"a whole epoch of {self.collection.name} gives no batch on rank {self._work.rank}: "
                    f"{len(self.collection)} examples for {self._work.world_size} ranks, batches of "
                    f"{self._work.batch_size}, {len(self._broken)} broken; use fewer ranks or smaller batches"
                )

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Go to a position of an epoch; iterations under way end with an error."""
        if epoch < 0 or position < 0:
            raise InputError(f"epoch and position must be at least 0, got {epoch} and {position}")
        self.epoch, self.position = epoch, position
        self._run += 1

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, as JSON values; see ``load_state_dict``."""
        return {
            "version": _STATE_VERSION,
            "epoch": self.epoch,
            "position": self.position,
            "broken": [list(broken) for broken in self.broken],
            **self._identity(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken; the number of workers and the batch size may be others.

        The number of ranks may be another too where every rank loads the same state and all had handed over as much
        when it was taken (``even`` ranks in step): the rest of the epoch is then shared among the new ranks.

        Raises:
            MismatchError: the state is of another collection, seed, order or version.
        """
        if state.get("version") != _STATE_VERSION:
            raise MismatchError(f"the data state has version {state.get('version')!r}, expected {_STATE_VERSION}")
        for name, ours in self._identity().items():
            if state.get(name) != ours:
                raise MismatchError(
                    f"the data state was saved with {name}={state.get(name)!r}, this run has {ours!r}: the order of "
                    "examples would be another; use the same data and seed, or start without the state"
                )
        self.set_epoch(int(state["epoch"]), int(state["position"]))
        self._broken = {int(entry[0]): Broken(*entry) for entry in state["broken"]}

    def close(self) -> None:
        """End iterations under way (and worker processes, where there are any)."""
        self._run += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- what subclasses change and what they do not ------------------------------------------------------------

    def _chunks(self, epoch: int, start: int) -> Iterator[Chunk[T]]:
        """All chunks of this rank from ``start`` on, in order."""
        return self._work.chunks(epoch, start)

    def _identity(self) -> dict[str, Any]:
        collection, count = self.collection, len(self.collection)
        some = [collection.key(place * (count - 1) // 31) for place in range(32)] if count > 1 else [collection.key(0)]
        return {
            "num_examples": count,
            "keys_crc32": _crc32("\n".join(some)),
            "seed": self._work.seed,
            "shuffle": self._work.shuffle,
        }

    def _consumed(self, *, by_item: bool) -> Iterator[tuple[Chunk[T], tuple[int, T] | None]]:
        """Chunks (or items of chunks) with ``position`` moved past each before it is handed over."""
        self._run += 1
        run, base, step = self._run, self.position, self._work.world_size
        done = num_items = num_broken = 0
        with closing(_as_generator(self._chunks(self.epoch, base))) as chunks:
            for expected, chunk in enumerate(chunks):
                assert chunk.number == expected, "chunks come in order"
                self._note(chunk.broken)
                num_items, num_broken = num_items + chunk.num_items, num_broken + len(chunk.broken)
                if not num_items and num_broken >= _ALL_BROKEN_AFTER:
                    raise self._all_broken(chunk.broken[-1], num_broken)
                if by_item:
                    for item in chunk.items:
                        self.position = base + (done + item[0] + 1) * step
                        yield chunk, item
                        self._check_run(run)
                done += chunk.num_positions
                self.position = base + done * step
                if not by_item:
                    yield chunk, None
                    self._check_run(run)
        if not num_items and base == 0 and (num_broken > 1 or num_broken == len(self.collection)):
            raise self._all_broken(self.broken[-1], num_broken)
        self.epoch, self.position = self.epoch + 1, 0

    def _check_run(self, run: int) -> None:
        if run != self._run:
            raise InputError("this iteration has ended: the feeder was closed, moved, or iterated anew meanwhile")

    def _note(self, broken: list[Broken]) -> None:
        for one in broken:
            if one.number not in self._broken:
                self._broken[one.number] = one
                text = f"skipped the broken example {one.key} of {self.collection.name}: {one.reason}"
                warnings.warn(text, TokenReelWarning, stacklevel=4)

    def _all_broken(self, last: Broken, count: int) -> InputError:
        return InputError(
            f"none of the first {count} examples of {self.collection.name} can be used; the last, {last.source}: "
            f"{last.reason}"
        )


def _as_generator(chunks: Iterator[Chunk[T]]) -> Any:
    """The same, with a ``close`` that ends what stands behind it."""
    yield from chunks


def _crc32(text: str) -> str:
    from zlib import crc32

    return f"{crc32(text.encode('utf-8', 'surrogateescape')):08x}"
