"""A collection in memory for tests of the stream: example i holds the number i; some may be broken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from tokenreel.data.collection import Collection
from tokenreel.data.example import Example
from tokenreel.data.payload import ArrayPayload
from tokenreel.errors import MediaError


class Numbers(Collection):
    def __init__(self, count: int, broken: Iterable[int] = ()) -> None:
        super().__init__("numbers")
        self.count, self.bad = count, frozenset(broken)

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return f"n{index}"

    def _facts(self, index: int) -> Mapping[str, Any]:
        return {"label": index}

    def _example(self, index: int) -> Example:
        payload = ArrayPayload(partial(self.load, index), self.key(index))
        return Example(key=self.key(index), source=f"src{index}", payload=payload, **self._facts(index))

    def load(self, index: int) -> np.ndarray:
        if index in self.bad:
            raise MediaError(f"src{index} is broken")
        return np.full((1, 1, 1, 1), index, np.uint8)


def number(example: Example, rng: np.random.Generator) -> int:
    example.array()
    return int(example.key[1:])


def number_and_draw(example: Example, rng: np.random.Generator) -> tuple[int, float]:
    return number(example, rng), float(rng.random())


def flat(batches: Iterable[Iterable[Any]]) -> list[Any]:
    return [item for batch in batches for item in batch]
