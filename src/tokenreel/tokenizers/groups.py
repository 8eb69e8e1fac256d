"""Which inputs run together: equal keys in one batch, at most so many at once, order kept by index."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

__all__ = ["in_groups"]

K = TypeVar("K", bound=Hashable)


def in_groups(keys: Sequence[K], most: Callable[[K], int]) -> Iterator[tuple[K, list[int]]]:
    """Each key with the indices that have it, in groups of at most ``most(key)``.

    >>> list(in_groups(["a", "b", "a", "a"], lambda key: 2))
    [('a', [0, 2]), ('a', [3]), ('b', [1])]
    """
    places: dict[K, list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)
    for key, indices in places.items():
        size = max(1, most(key))
        for start in range(0, len(indices), size):
            yield key, indices[start : start + size]
