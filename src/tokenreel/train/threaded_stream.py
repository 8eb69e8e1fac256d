"""Batches that threads make ahead: endless, resumable, the same for any number of threads."""

from __future__ import annotations

import itertools
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from tokenreel.errors import InputError, TokenReelWarning

from .batches import Broken
from .stream_state import check_stream_state

__all__ = ["ThreadedStream"]

BatchT = TypeVar("BatchT")

_VERSION = 1
_AHEAD = 2  # batches that each thread may be ahead


@dataclass(frozen=True, slots=True)
class _Made(Generic[BatchT]):
    number: int
    batch: BatchT | None
    broken: list[Broken]
    error: InputError | None


class ThreadedStream(ABC, Generic[BatchT]):
    """Batches without end, each a function of its number; a stream of records or of examples says how one is made.

    Args:
        num_workers: threads that work ahead; 0 makes a batch where it is asked for.

    Attributes:
        index: the number of the next batch.
    """

    item: ClassVar[str]
    """What one row of a batch is called in warnings."""

    def __init__(self, num_workers: int) -> None:
        self.index = 0
        self._num_workers = num_workers
        self._broken: dict[tuple[int, int], Broken] = {}
        self._run = 0
        self._threads: ThreadPoolExecutor | None = None

    @abstractmethod
    def _batch_of(self, index: int, broken: list[Broken]) -> BatchT:
        """Batch number ``index``, in whatever thread; what could not be read is added to ``broken``.

        Raises:
            InputError: nothing can be read.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the batches, as JSON values: a state of another stream has another."""

    @property
    def broken(self) -> list[Broken]:
        """Everything broken so far, each once."""
        return list(self._broken.values())

    def batch(self, index: int) -> BatchT:
        """Batch number ``index``, made here; the stream does not move.

        Raises:
            InputError: nothing can be read.
        """
        return self._handed(self._made(index))

    def __iter__(self) -> Iterator[BatchT]:
        """The batches from ``index`` on, without end.

        Raises:
            InputError: nothing can be read.
        """
        self.close()
        run = self._run
        for made in self._ahead(self.index):
            if run != self._run:
                raise InputError("this iteration has ended: the stream was closed, moved, or iterated anew meanwhile")
            batch = self._handed(made)
            self.index = made.number + 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, as JSON values: what was handed over counts, not what is made ahead."""
        return {
            "version": _VERSION,
            "index": self.index,
            "broken": [list(broken) for broken in self.broken],
            **self.identity(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken; the number of workers may be another.

        Raises:
            MismatchError: the state is of other data, another config, seed, number of ranks or version.
        """
        check_stream_state(state, version=_VERSION, identity=self.identity())
        self.close()
        self.index = int(state["index"])
        noted = (Broken(*entry) for entry in state["broken"])
        self._broken = {(one.source, one.number): one for one in noted}

    def close(self) -> None:
        """End iterations under way and the threads that work ahead."""
        self._run += 1
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _ahead(self, first: int) -> Iterator[_Made[BatchT]]:
        if not self._num_workers:
            yield from map(self._made, itertools.count(first))
            return
        threads = self._threads = ThreadPoolExecutor(self._num_workers, f"{self.item}s")
        line: deque[Future[_Made[BatchT]]] = deque()
        for index in itertools.count(first):
            while len(line) < _AHEAD * self._num_workers:
                line.append(threads.submit(self._made, index + len(line)))
            yield line.popleft().result()

    def _made(self, index: int) -> _Made[BatchT]:
        broken: list[Broken] = []
        try:
            return _Made(index, self._batch_of(index, broken), broken, None)
        except InputError as error:
            return _Made(index, None, broken, error)

    def _handed(self, made: _Made[BatchT]) -> BatchT:
        for one in made.broken:
            if (one.source, one.number) not in self._broken:
                self._broken[one.source, one.number] = one
                warnings.warn(
                    f"replaced the broken {self.item} {one.key}: {one.reason}", TokenReelWarning, stacklevel=3
                )
        if made.batch is None:
            raise made.error or InputError("no batch")
        return made.batch
