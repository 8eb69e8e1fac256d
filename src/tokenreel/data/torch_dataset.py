"""PyTorch over a collection: a ``Feeder`` with worker processes, and a dataset for DataLoaders of one's own.

Worker w of W makes batches w, w + W, w + 2W ... of its rank, and a DataLoader takes from its workers in turn, so the
batches come in the one order that also a single process would give. What is counted is what the consumer was handed,
not what workers have prefetched; a resumed run starts its workers at that place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tokenreel.errors import InputError, TokenReelWarning

from .collection import Collection
from .feed import Feeder
from .order import Even
from .work import Chunk, Transform, Work

__all__ = ["ExampleDataset", "WorkerFeeder", "make_loader"]

T = TypeVar("T")
Start = Literal["fork", "spawn", "forkserver"]


class _Control:
    """Two numbers in shared memory, which worker processes read when an iteration begins."""

    def __init__(self) -> None:
        self.values = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set(self, epoch: int, start: int) -> None:
        self.values[0], self.values[1] = epoch, start

    def get(self) -> tuple[int, int]:
        epoch, start = self.values.tolist()
        return epoch, start


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


class _Chunks(IterableDataset[Chunk[T]]):
    def __init__(self, work: Work[T], control: _Control) -> None:
        self.work, self.control = work, control

    def __iter__(self) -> Iterator[Chunk[T]]:
        worker, num_workers = _worker()
        epoch, start = self.control.get()
        return self.work.chunks(epoch, start, worker=worker, num_workers=num_workers)


class WorkerFeeder(Feeder[T]):
    """A ``Feeder`` whose examples are made by worker processes; use ``make_loader``.

    The workers live until ``close`` (or the end of the program). Warnings of media files come on their stderr.
    """

    def __init__(
        self,
        collection: Collection,
        transform: Transform[T],
        *,
        num_workers: int,
        prefetch_batches: int = 2,
        start_method: Start | None = None,
        **options: Any,
    ) -> None:
        super().__init__(collection, transform, **options)
        self.num_workers = num_workers
        self._control = _Control()
        # A generator of its own: a DataLoader otherwise draws from torch's global one at each epoch, and a resumed
        # run, which begins more iterations, would see other random numbers in the model.
        self._loader = DataLoader(
            _Chunks(self._work, self._control),
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_unchanged,
            prefetch_factor=prefetch_batches,
            persistent_workers=True,
            multiprocessing_context=start_method,
            generator=torch.Generator(),
        )

    def close(self) -> None:
        """End iterations under way and the worker processes."""
        super().close()
        iterator, self._loader._iterator = self._loader._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]

    def _chunks(self, epoch: int, start: int) -> Iterator[Chunk[T]]:
        self._control.set(epoch, start)
        return iter(self._loader)


def make_loader(
    collection: Collection,
    transform: Transform[T],
    *,
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    even: Even = "no",
    drop_last: bool = False,
    collate: Callable[[list[T]], Any] | None = None,
    prefetch_batches: int = 2,
    start_method: Start | None = None,
) -> Feeder[T]:
    """A stream of batches with ``state_dict`` and ``load_state_dict``, exact with any number of workers.

    Args:
        num_workers: processes that make the examples; 0 makes them here, where they are asked for.
        prefetch_batches: that each worker may be ahead.
        start_method: ``fork`` starts in milliseconds and shares the collection's memory (Linux); ``spawn`` and
            ``forkserver`` start anew, take seconds, and need a transform that pickles (a module's function, not a
            lambda). None: what the platform does.
        collection, transform, batch_size, seed, shuffle, rank, world_size, even, drop_last, collate: see ``Feeder``.
    """
    if num_workers < 0 or prefetch_batches < 1:
        raise InputError(f"num_workers must be 0 or more and prefetch_batches 1, got {num_workers}, {prefetch_batches}")
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "seed": seed,
        "shuffle": shuffle,
        "rank": rank,
        "world_size": world_size,
        "even": even,
        "drop_last": drop_last,
        "collate": collate,
    }
    if num_workers == 0:
        return Feeder(collection, transform, **options)
    return WorkerFeeder(
        collection,
        transform,
        num_workers=num_workers,
        prefetch_batches=prefetch_batches,
        start_method=start_method,
        **options,
    )


class ExampleDataset(IterableDataset[T]):
    """A plain PyTorch dataset of transformed examples, for a DataLoader of one's own: any batching and collation.

    Ranks and workers share an epoch with nothing lost or twice; ``set_epoch`` before each epoch gives another order.
    A broken example is passed over with a warning. Exact resume and the list of broken ones are what ``make_loader``
    is for.
    """

    def __init__(
        self,
        collection: Collection,
        transform: Transform[T],
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        even: Even = "no",
    ) -> None:
        self._work = Work(
            collection=collection,
            transform=transform,
            batch_size=1,
            seed=seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
            even=even,
            drop_last=False,
            collate=None,
        )
        self._work.num_chunks()
        self._control = _Control()

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration, in all workers, those that persist included."""
        self._control.set(epoch, 0)

    def __iter__(self) -> Iterator[T]:
        worker, num_workers = _worker()
        epoch, start = self._control.get()
        for chunk in self._work.chunks(epoch, start, worker=worker, num_workers=num_workers):
            for broken in chunk.broken:
                warnings.warn(
                    f"skipped the broken example {broken.key}: {broken.reason}", TokenReelWarning, stacklevel=2
                )
            for _, item in chunk.items:
                yield item


def _unchanged(chunk: Any) -> Any:
    return chunk
