"""What a classifier learns from, what chooses its weights, and what it is measured on: parts of one labelled source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from tokenreel.data.changed import grouped_by_clip, unchanged
from tokenreel.data.facts import split_name
from tokenreel.data.labelled import LabelledSet
from tokenreel.data.labelled_open import open_labelled
from tokenreel.data.labelled_rendered import RENDERED, SCENES_OF, asked_scenes, rendered_set
from tokenreel.data.labelled_split import check_apart, check_complete, hold_out_groups, split_labelled
from tokenreel.errors import InputError

from .recipes_base import DataChoice, SourceChoice

__all__ = ["DataParts", "LabelledChoice"]

_TRAIN, _VAL, _TEST = "train", "val", "test"
_TEST_SHARE = 0.05  # of rendered scenes, where there is no validation part to be as large as


class DataParts(NamedTuple):
    """Parts that share no group.

    Attributes:
        train: what is learned from; every class has an example.
        val: what chooses among weights; None without one.
        test: what is measured once, at the end; None without one.
    """

    train: LabelledSet
    val: LabelledSet | None
    test: LabelledSet | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledChoice(DataChoice):
    """One labelled source, as ``data.open_labelled`` takes it, and its parts.

    ``rendered:COUNT`` or ``rendered:COUNT,FRAMES,HEIGHT,WIDTH`` are scenes drawn as they are asked for; those of
    validation are others of the same kind, those of the test show combinations of attributes that training never does.

    Attributes:
        labels: a table that says the labels of examples which do not carry them.
        heads: columns to take as heads instead of the label.
        group: a regular expression on the key whose first bracket is the group, such as ``(performer\\d+)``.
        hold_out: group or groups that are kept from training, to be the test part.
        train, val, test: names of the splits, where the source has some; null leaves that part of the source out.
        val_share: share of what is trained on that becomes the validation part where the source has no such split:
            whole groups, or of each class in proportion; 0: none. Of rendered scenes, so many more.
    """

    labels: str | None = None
    heads: tuple[str, ...] = ()
    group: str | None = None
    hold_out: str | tuple[str, ...] | None = None
    train: str = _TRAIN
    val: str | None = _VAL
    test: str | None = _TEST
    val_share: float = 0.15

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple(self.heads))
        if not 0 <= self.val_share < 1:
            raise InputError(f"val_share must lie in [0, 1), got {self.val_share}")

    def parts(self, *, seed: int) -> DataParts:
        """Open the source and divide it.

        Raises:
            InputError: several sources, nothing there, no labels, a class that training has no example of, or a group
                in two parts.
        """
        source = self._source()
        if source.data.startswith(RENDERED):
            return self._rendered(source.data, seed)
        whole = self._whole()
        found = self._held_out(whole) if self.hold_out is not None else self._splits(whole)
        if found.val is None and self.val_share:
            shares = {_TRAIN: 1 - self.val_share, _VAL: self.val_share}
            try:
                parts = split_labelled(found.train, shares, seed=seed)
            except InputError as error:
                raise InputError(f"{error}; say a larger data.val_share, or 0 for no validation part") from None
            found = found._replace(train=parts[_TRAIN], val=parts[_VAL])
        check_complete(found.train)
        check_apart(*(part for part in found if part is not None))
        return DataParts(found.train, *(None if part is None else unchanged(part) for part in (found.val, found.test)))

    def groups(self) -> tuple[str, ...]:
        """The groups of the source in order of name, any of which ``hold_out`` may name; of drawn scenes none."""
        if self._source().data.startswith(RENDERED):
            return ()
        return tuple(sorted({group for group in self._whole().groups if group is not None}))

    def _source(self) -> SourceChoice:
        if len(self.sources) != 1:
            named = ", ".join(source.data for source in self.sources)
            raise InputError(f"a classifier learns from one labelled source, got {named}; join them in one table")
        return self.sources[0]

    def _whole(self) -> LabelledSet:
        source = self._source()
        found = open_labelled(
            source.data, split=source.split, group=self.group, labels=self.labels, heads=self.heads or None
        )
        return grouped_by_clip(found)

    def _held_out(self, whole: LabelledSet) -> DataParts:
        groups = [self.hold_out] if isinstance(self.hold_out, str) else list(self.hold_out or ())
        train, test = hold_out_groups(whole, groups)
        return DataParts(train, None, test)

    def _splits(self, whole: LabelledSet) -> DataParts:
        there = {name for name in whole.splits if name is not None}
        if not there:
            return DataParts(whole, None, None)
        train = whole.part(self.train)
        return DataParts(train, self._part(whole, self.val, _VAL), self._part(whole, self.test, _TEST))

    def _part(self, whole: LabelledSet, asked: str | None, usual: str) -> LabelledSet | None:
        """The part of this name; None where none is asked for, or where the usual one is not there."""
        if asked is None or (split_name(asked) == usual and usual not in whole.splits):
            return None
        return whole.part(asked)

    def _rendered(self, text: str, seed: int) -> DataParts:
        if self.hold_out is not None or self.labels or self.heads:
            raise InputError("rendered scenes have their own labels and parts; leave hold_out, labels and heads out")
        count, size = asked_scenes(text)

        def part(split: str, count: int) -> LabelledSet:
            first, held_out = SCENES_OF[split]
            sizes: dict[str, Any] = dict(zip(("num_frames", "height", "width"), size or ()))
            return rendered_set(count, first=first, seed=seed, held_out=held_out, **sizes)

        few = max(1, round(count * (self.val_share or _TEST_SHARE)))
        return DataParts(part(_TRAIN, count), part(_VAL, few) if self.val_share else None, part(_TEST, few))
