"""Examples with classes, for a classifier: every example has a class number a head, and may have a group and a split.

A head is one question about an example (``label``, or ``shape`` and ``colour`` at once), with its classes in order. A
``LabelledSet`` is a collection, so whatever feeds, films or divides collections takes it. ``labelled_open`` makes one
of a path, ``labelled_split`` divides it without a group on two sides, ``labelled_weights`` counts its classes.

Letters: N examples, K classes, T frames (or slices of a volume), H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError
from tokenreel.media.frames import Selection

from .collection import Collection
from .example import Example, Label
from .facts import split_name
from .payload import Size

__all__ = ["HEAD", "LabelledExample", "LabelledSet", "labelled_of"]

HEAD = "label"
"""The head of a set whose examples have one label."""

Targets = npt.NDArray[np.int64]
Classes = Sequence[str | int] | Mapping[str, Sequence[str | int]]
_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledExample(Example):
    """An example with its classes. ``label`` is the name of the class where there is one head.

    Attributes:
        classes: head -> number of its class.
        split: ``train``, ``val``, ``test`` ... where the source says so.
    """

    classes: Mapping[str, int]
    split: str | None = None

    @property
    def target(self) -> int:
        """The number of its class, of a set with one head.

        Raises:
            InputError: there are several heads.
        """
        if len(self.classes) != 1:
            raise InputError(f"{self.source} has the heads {', '.join(self.classes)}: take one of .classes")
        return next(iter(self.classes.values()))

    def frames(self, selection: Selection | None = None, *, size: Size = None) -> npt.NDArray[np.uint8]:
        """uint8 (T, H, W, C): grey arrays and volumes keep C = 1, all else is RGB.

        Raises:
            InputError: the file is broken, or the example holds tokens.
        """
        if self.kind != "array":
            return self.clip(selection, size=size).frames_THWC
        stored = self.array()
        if selection is None and size is None:
            return stored
        return self.clip(selection, size=size).frames_THWC[..., : stored.shape[-1]]


class LabelledSet(Collection):
    """Examples of a collection with their classes; parts of it keep its heads.

    Args:
        whole: the examples.
        heads: head -> the names of its classes, in order of their numbers; at least two.
        targets: head -> the class number of each example, (N,).
        groups: of each example; those of ``whole`` by default.
        splits: of each example; none by default.
        indices: which examples of ``whole`` these are; all by default.

    Raises:
        InputError: no example, a head with one class, numbers outside, or lengths that do not agree.
    """

    def __init__(
        self,
        whole: Collection,
        heads: Mapping[str, Sequence[str]],
        targets: Mapping[str, npt.ArrayLike],
        *,
        groups: Sequence[str | None] | None = None,
        splits: Sequence[str | None] | None = None,
        indices: npt.ArrayLike | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name or whole.name)
        self.whole = whole
        self.indices = np.arange(len(whole)) if indices is None else np.asarray(indices, np.int64).reshape(-1)
        if not len(self.indices):
            raise InputError(f"{self.name} has no examples to learn classes from")
        self.heads: dict[str, tuple[str, ...]] = {head: tuple(names) for head, names in heads.items()}
        self._targets = {head: np.asarray(values, np.int64) for head, values in targets.items()}
        found = whole.groups if groups is None and indices is None else groups
        self._groups: tuple[str | None, ...] = tuple(found or [None] * len(self))
        self.splits: tuple[str | None, ...] = tuple(splits or [None] * len(self))
        self._check()

    def _check(self) -> None:
        if not self.heads or self.heads.keys() != self._targets.keys():
            raise InputError(f"{self.name}: heads {sorted(self.heads)} need targets, got {sorted(self._targets)}")
        for head, names in self.heads.items():
            if len(names) < 2:
                raise InputError(
                    f"{self.name}: {head} has one class only ({', '.join(names) or 'none'}); a classifier needs two"
                )
            if len(set(names)) < len(names):
                raise InputError(f"{self.name}: the classes of {head} have a name twice: {_shown(names)}")
            values = self._targets[head]
            if values.shape != (len(self),) or values.min() < 0 or values.max() >= len(names):
                raise InputError(
                    f"{self.name}: targets of {head} must be {len(self)} numbers in [0, {len(names)}), got shape "
                    f"{values.shape} and numbers in [{values.min()}, {values.max()}]"
                )
        for what, values_N in (("groups", self._groups), ("splits", self.splits)):
            if len(values_N) != len(self):
                raise InputError(f"{self.name}: {len(values_N)} {what} for {len(self)} examples")

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        """Name of an example."""
        return self.whole.key(int(self.indices[index]))

    def _example(self, index: int) -> LabelledExample:
        example = self.whole[int(self.indices[index])]
        classes = {head: int(values[index]) for head, values in self._targets.items()}
        known = {field.name: getattr(example, field.name) for field in fields(Example)}
        labelled = LabelledExample(**known, classes=classes, split=self.splits[index])
        return replace(labelled, group=self._groups[index], **self._label_of(classes))

    def _label_of(self, classes: Mapping[str, int]) -> dict[str, Any]:
        if len(classes) != 1:
            return {}
        [(head, number)] = classes.items()
        return {"label": self.heads[head][number]}

    def _facts(self, index: int) -> dict[str, Any]:
        classes = {head: int(values[index]) for head, values in self._targets.items()}
        return {"group": self._groups[index], **self._label_of(classes)}

    def __getitem__(self, index: int) -> LabelledExample:
        """The example of this number; negative numbers count from the end."""
        example = super().__getitem__(index)
        assert isinstance(example, LabelledExample)
        return example

    @property
    def labels(self) -> list[Label | None]:
        """The name of every example's class; None where there are several heads."""
        return [self._facts(index).get("label") for index in range(len(self))]

    @property
    def label_names(self) -> tuple[Label, ...]:
        """The classes of a set with one head, in order of their numbers."""
        return next(iter(self.heads.values())) if len(self.heads) == 1 else ()

    @property
    def groups(self) -> list[str | None]:
        """The group of every example."""
        return list(self._groups)

    def targets(self, head: str | None = None) -> Targets:
        """The class number of every example, int64 (N,); the head need not be said where there is one."""
        return self._targets[self.head(head)]

    def counts(self, head: str | None = None) -> npt.NDArray[np.int64]:
        """How many examples each class has, int64 (K,)."""
        name = self.head(head)
        return np.bincount(self.targets(name), minlength=len(self.heads[name])).astype(np.int64)

    def head(self, name: str | None = None) -> str:
        """The name of a head, checked; that of the only one where None is given.

        Raises:
            InputError: no such head, or one of several must be said.
        """
        if name is None and len(self.heads) == 1:
            return next(iter(self.heads))
        if name not in self.heads:
            raise InputError(f"{self.name} has the heads {', '.join(self.heads)}: choose one with head=, got {name!r}")
        return name

    def take(self, indices: npt.ArrayLike, *, name: str | None = None) -> Self:
        """These examples, by their numbers in this set; heads and class numbers stay.

        Raises:
            InputError: no number, or one that is not in this set.
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if not chosen.size or chosen.min() < 0 or chosen.max() >= len(self):
            raise InputError(f"a part of {self.name} must take at least one number in [0, {len(self)})")
        return self._taken(chosen, name or f"part of {self.name}")

    def _taken(self, chosen: npt.NDArray[np.int64], name: str) -> Self:
        return type(self)(
            self.whole,
            self.heads,
            {head: values[chosen] for head, values in self._targets.items()},
            groups=[self._groups[index] for index in chosen.tolist()],
            splits=[self.splits[index] for index in chosen.tolist()],
            indices=self.indices[chosen],
            name=name,
        )

    def part(self, split: str) -> Self:
        """The examples of one split; its usual names (``validation`` for ``val``) are known.

        Raises:
            InputError: there is none.
        """
        wanted = split_name(split) or split
        chosen = [index for index, name in enumerate(self.splits) if name == wanted]
        if not chosen:
            found = ", ".join(sorted({name for name in self.splits if name is not None})) or "no splits"
            raise InputError(f"{self.name} has no split {split!r}; it has {found}")
        return self.take(chosen, name=f"{self.name} ({wanted})")


def labelled_of(
    collection: Collection,
    *,
    heads: Sequence[str] | None = None,
    classes: Classes | None = None,
    splits: Sequence[str | None] | None = None,
    facts: Sequence[Mapping[str, Any]] | None = None,
) -> LabelledSet:
    """The classes of a collection, from the labels of its examples.

    Args:
        heads: further columns (of ``Example.meta``) to take as heads, instead of the label.
        classes: the names of the classes in order, of one head or head -> names; those that are found by default,
            numbers before names. Give those of a trained classifier to evaluate it.
        splits: of each example.
        facts: of each example (label, group, further columns) where they are known from elsewhere.

    Raises:
        InputError: an example without a label, a label that is not in ``classes``, one class only, or a group that is
            in two splits.
    """
    names = tuple(heads) if heads else (HEAD,)
    found = {head: _labels(collection, head, facts) for head in names}
    given = _given(classes, names)
    known = {head: given.get(head) or _in_order(found[head]) for head in names}
    targets = {head: _numbered(collection, head, found[head], known[head]) for head in names}
    groups = collection.groups if facts is None else [_text(fact.get("group")) for fact in facts]
    if splits is not None:
        _check_splits(collection.name, groups, splits)
    return LabelledSet(collection, known, targets, groups=groups, splits=splits)


def _labels(collection: Collection, head: str, facts: Sequence[Mapping[str, Any]] | None) -> list[Label]:
    if facts is None and head == HEAD:
        found: list[Any] = list(collection.labels)
    else:
        each = list(collection._readable()) if facts is None else facts
        found = [fact.get(head, fact.get("meta", {}).get(head)) for fact in each]
    without = [index for index, label in enumerate(found) if label is None or label == ""]
    if without:
        raise InputError(
            f"{len(without)} of {len(found)} examples of {collection.name} have no {head}, such as "
            f"{collection.key(without[0])}; put them into a folder a class, or name their labels in a table"
        )
    return found


def _in_order(labels: Sequence[Label]) -> tuple[str, ...]:
    ordered = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
    return tuple(str(label) for label in ordered)


def _given(classes: Classes | None, heads: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    if classes is None:
        return {}
    by_head = classes if isinstance(classes, Mapping) else {heads[0]: classes}
    if unknown := sorted(by_head.keys() - set(heads)):
        raise InputError(f"classes are given for {', '.join(unknown)}, but the heads are {', '.join(heads)}")
    if not isinstance(classes, Mapping) and len(heads) > 1:
        raise InputError(f"classes must name the heads ({', '.join(heads)}): give head -> names")
    return {head: tuple(str(name) for name in names) for head, names in by_head.items()}


def _numbered(collection: Collection, head: str, labels: Sequence[Label], classes: tuple[str, ...]) -> Targets:
    numbers = {name: number for number, name in enumerate(classes)}
    for index, label in enumerate(labels):
        if str(label) not in numbers:
            raise InputError(
                f"{collection.name}: {collection.key(index)} has the {head} {label!r}, which is none of the "
                f"{len(classes)} classes {_shown(classes)}"
            )
    return np.array([numbers[str(label)] for label in labels], np.int64)


def _check_splits(name: str, groups: Sequence[str | None], splits: Sequence[str | None]) -> None:
    sides: dict[str, str | None] = {}
    for group, split in zip(groups, splits):
        if group is not None and split is not None and sides.setdefault(group, split) != split:
            raise InputError(
                f"{name}: the group {group!r} is in the splits {sides[group]} and {split}, so results would not hold "
                "for new groups; give it to one of them"
            )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _shown(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
