"""The one interface over all sources: a length, examples by number, their labels and groups.

Opening a collection looks at names and headers only; pixels and ids are read when an example is asked for them.
Collections pickle, so that worker processes can have them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from operator import index as as_index
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

from .example import Example, Label

__all__ = ["Collection", "Joined", "Subset", "capture", "pattern_of"]


class Collection(ABC):
    """Examples by number, always in the same order.

    Args:
        name: of the source, for messages.
        group: a regular expression on the key, or of token records on the name of what was encoded, whose first bracket
            is the group of an example that names none.
    """

    def __init__(self, name: str, *, group: str | None = None) -> None:
        self.name = name
        self._group = pattern_of("group", group)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, index: int) -> str:
        """Name of an example, without opening it."""

    @abstractmethod
    def _example(self, index: int) -> Example:
        """The example of a number in [0, len)."""

    @abstractmethod
    def _facts(self, index: int) -> Mapping[str, Any]:
        """The fields of that example but key, source and payload; cheaper where only labels or groups are asked for."""

    def __getitem__(self, index: int) -> Example:
        """The example of this number; negative numbers count from the end.

        Raises:
            IndexError: there is none.
            InputError: what stands beside it (a caption file) is broken.
        """
        at = as_index(index)
        at = at + len(self) if at < 0 else at
        if not 0 <= at < len(self):
            raise IndexError(f"example {index} of {self.name}, which has {len(self)} examples")
        example = self._example(at)
        if self._group is None or example.group is not None:
            return example
        return replace(example, group=capture(self._group, self._named(at)))

    def _named(self, index: int) -> str:
        """Where the pattern of the group is looked for."""
        return self.key(index)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    @property
    def labels(self) -> list[Label | None]:
        """The label of every example; None where there is none or it cannot be read."""
        return [facts.get("label") for facts in self._readable()]

    @property
    def groups(self) -> list[str | None]:
        """The group of every example; None where there is none or it cannot be read."""
        groups = [facts.get("group") for facts in self._readable()]
        if self._group is None:
            return groups
        pattern = self._group
        return [capture(pattern, self.key(at)) if group is None else group for at, group in enumerate(groups)]

    @property
    def label_names(self) -> tuple[Label, ...]:
        """The distinct labels, numbers before names, each in order; the number of a class is its place here."""
        return _in_order(set(self.labels))

    def describe(self) -> str:
        """One line: what it is, how many examples, labels and groups. Reads what labels and groups need."""
        names, groups = self.label_names, {group for group in self.groups if group is not None}
        parts = [f"{self.name}: {len(self)} examples"]
        if names:
            shown = ", ".join(map(str, names[:8])) + (", ..." if len(names) > 8 else "")
            parts.append(f"{len(names)} labels ({shown})")
        if groups:
            parts.append(f"{len(groups)} groups")
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} examples of {self.name!r})"

    def _readable(self) -> Iterator[Mapping[str, Any]]:
        for index in range(len(self)):
            try:
                yield self._facts(index)
            except (InputError, OSError):  # named and counted when it is fed
                yield {}


class Subset(Collection):
    """Some examples of a collection, by number; ``label_names`` stay those of the whole."""

    def __init__(self, whole: Collection, indices: npt.ArrayLike, *, name: str | None = None) -> None:
        super().__init__(name or f"part of {whole.name}")
        self.whole = whole
        self.indices = np.asarray(indices, np.int64).reshape(-1)
        if self.indices.size and not (self.indices.min() >= 0 and self.indices.max() < len(whole)):
            raise InputError(f"a part of {whole.name} must take numbers in [0, {len(whole)})")

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        """Name of an example."""
        return self.whole.key(int(self.indices[index]))

    def _example(self, index: int) -> Example:
        return self.whole[int(self.indices[index])]

    def _facts(self, index: int) -> Mapping[str, Any]:
        return self.whole._facts(int(self.indices[index]))

    @property
    def labels(self) -> list[Label | None]:
        """The label of every example of this part."""
        labels = self.whole.labels
        return [labels[index] for index in self.indices.tolist()]

    @property
    def groups(self) -> list[str | None]:
        """The group of every example of this part."""
        groups = self.whole.groups
        return [groups[index] for index in self.indices.tolist()]

    @property
    def label_names(self) -> tuple[Label, ...]:
        """The labels of the whole, so that the number of a class is the same in every part."""
        return self.whole.label_names


class Joined(Collection):
    """Several collections as one, end to end."""

    def __init__(self, parts: Sequence[Collection], *, name: str | None = None) -> None:
        if not parts:
            raise InputError("nothing to join: give at least one collection")
        super().__init__(name or " + ".join(part.name for part in parts))
        self.parts = tuple(parts)
        self._starts = [0, *accumulate(len(part) for part in parts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def key(self, index: int) -> str:
        """Name of an example within its part."""
        part, at = self._place(index)
        return part.key(at)

    def _example(self, index: int) -> Example:
        part, at = self._place(index)
        return part[at]

    def _facts(self, index: int) -> Mapping[str, Any]:
        part, at = self._place(index)
        return part._facts(at)

    @property
    def labels(self) -> list[Label | None]:
        """The labels of all parts."""
        return [label for part in self.parts for label in part.labels]

    @property
    def groups(self) -> list[str | None]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.groups]

    @property
    def label_names(self) -> tuple[Label, ...]:
        """The labels of all parts."""
        return _in_order({name for part in self.parts for name in part.label_names})

    def _place(self, index: int) -> tuple[Collection, int]:
        part = bisect_right(self._starts, index) - 1
        return self.parts[part], index - self._starts[part]


def pattern_of(name: str, pattern: str | None) -> re.Pattern[str] | None:
    """The compiled expression, or an InputError that names the option."""
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{name}={pattern!r} is no regular expression: {error}") from error
    if compiled.groups < 1:
        raise InputError(rf"{name}={pattern!r} needs one bracket around what to take, such as (performer\d+)")
    return compiled


def capture(pattern: re.Pattern[str], text: str) -> str | None:
    """What the first bracket that took part in the match holds, or None."""
    found = pattern.search(text)
    return None if found is None else next((part for part in found.groups() if part is not None), None)


def _in_order(labels: set[Label | None]) -> tuple[Label, ...]:
    known = [label for label in labels if label is not None]
    return tuple(sorted(known, key=lambda label: (isinstance(label, str), label)))
