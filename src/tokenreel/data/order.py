"""Who takes which example when: pure arithmetic, the same on every machine, nothing lost and nothing twice.

An epoch is the positions ``0 .. n - 1``; a seeded permutation says which example stands at each. Ranks take positions
in turn (rank r: r, r + R, r + 2R ...). A rank's positions are cut into chunks of one batch, and its worker processes
take chunks in turn. So the stream of a rank does not depend on how many workers make it, and one number, the first
position not yet consumed, is all that a resumed run needs.

The permutation of up to 4,096 examples sorts them by a keyed hash. That of more is a keyed Feistel network walked
until it lands below n (format-preserving encryption: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002):
any part of it can be had without the rest, so a billion examples need no table. Both are our own integer arithmetic,
which does not change with numpy's generators.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = ["EpochOrder", "Even", "chunks", "num_chunks", "share", "uneven_count"]

Even = Literal["no", "drop", "pad"]
"""Ranks of equal length: not asked for; the last few positions are left out; the first few come again at the end."""

Positions = npt.NDArray[np.int64]
_ROUNDS = 6
_BLOCK = 4096
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class EpochOrder:
    """Which example stands at each position of one epoch: ``order[position]``; a function of (seed, epoch, length).

    Args:
        num_examples: n.
        seed, epoch: whole numbers of at least 0.
        shuffle: False leaves the examples in their order.
    """

    def __init__(self, num_examples: int, *, seed: int, epoch: int, shuffle: bool = True) -> None:
        if min(seed, epoch) < 0:
            raise InputError(f"seed and epoch must be at least 0, got seed={seed}, epoch={epoch}")
        self.num_examples, self.shuffle = num_examples, shuffle
        self._half = (num_examples.bit_length() + 1) // 2
        self._keys = np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64)
        self._block_number, self._block = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, position: int) -> int:
        """The number of the example at ``position``; positions are made in blocks, so going in order is cheap."""
        if not 0 <= position < self.num_examples:
            raise IndexError(f"position {position} of an epoch of {self.num_examples} examples")
        number, offset = divmod(position, _BLOCK)
        if number != self._block_number:
            stop = min((number + 1) * _BLOCK, self.num_examples)
            self._block_number, self._block = number, self.indices(np.arange(number * _BLOCK, stop))
        return int(self._block[offset])

    def indices(self, positions: Positions) -> Positions:
        """The numbers of the examples at these positions (in [0, n)), in their shape."""
        if not self.shuffle:
            return positions.astype(np.int64)
        if self.num_examples <= _BLOCK:
            hashes = _mixed(np.arange(1, self.num_examples + 1, dtype=np.uint64) * _GOLDEN + self._keys[:1])
            return np.argsort(hashes, kind="stable")[positions]
        values = self._permuted(positions.astype(np.uint64).reshape(-1))
        while (outside := np.flatnonzero(values >= self.num_examples)).size:
            values[outside] = self._permuted(values[outside])
        return values.astype(np.int64).reshape(positions.shape)

    def _permuted(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        half = np.uint64(self._half)
        low = np.uint64((1 << self._half) - 1)
        left, right = values >> half, values & low
        for key in self._keys:
            left, right = right, left ^ (_mixed(right + key) & low)
        return left << half | right


def share(num_examples: int, *, rank: int, world_size: int, even: Even = "no", start: int = 0) -> range:
    """The positions of an epoch that ``rank`` takes from ``start`` on; with ``pad`` they run past the end.

    A position past the end stands for the one ``num_examples`` before it.

    >>> [list(share(5, rank=rank, world_size=2)) for rank in (0, 1)]
    [[0, 2, 4], [1, 3]]
    >>> [list(share(5, rank=rank, world_size=2, even="pad")) for rank in (0, 1)]
    [[0, 2, 4], [1, 3, 5]]
    """
    if world_size < 1 or not 0 <= rank < world_size:
        raise InputError(f"rank must lie in [0, world_size), got rank={rank}, world_size={world_size}")
    if even not in get_args(Even):
        raise InputError(f"even must be one of {', '.join(get_args(Even))}, got {even!r}")
    left = max(0, num_examples - start)
    rounded = {"no": left, "drop": left - left % world_size, "pad": left + -left % world_size}[even]
    return range(start + rank, start + rounded, world_size)


def uneven_count(num_examples: int, *, world_size: int, even: Even) -> int:
    """How many examples of an epoch are left out (``drop``) or come twice (``pad``) so that all ranks have as many."""
    return {"no": 0, "drop": num_examples % world_size, "pad": -num_examples % world_size}[even]


def num_chunks(positions: range, chunk_size: int, *, drop_last: bool = False) -> int:
    """How many chunks these positions make; ``drop_last`` leaves an incomplete one out."""
    if chunk_size < 1:
        raise InputError(f"batch_size must be at least 1, got {chunk_size}")
    return len(positions) // chunk_size if drop_last else -(-len(positions) // chunk_size)


def chunks(
    positions: range, chunk_size: int, *, worker: int = 0, num_workers: int = 1, drop_last: bool = False
) -> Iterator[tuple[int, range]]:
    """The chunks of one worker, each with its number among all: worker w takes w, w + W, w + 2W ...

    >>> list(chunks(range(0, 10, 2), 2, worker=1, num_workers=2))
    [(1, range(4, 8, 2))]
    """
    for number in range(worker, num_chunks(positions, chunk_size, drop_last=drop_last), num_workers):
        yield number, positions[number * chunk_size : (number + 1) * chunk_size]


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finishing steps of SplitMix64 (Steele, Lea and Flood, 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
