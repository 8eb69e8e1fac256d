"""Parts of a labelled set with every group on one side: shares, named groups, or one group at a time.

The rules are those of ``split``; the parts are labelled sets with the heads of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tokenreel.errors import InputError

from .labelled import LabelledSet
from .split import hold_out, leave_one_out, split_by_group, split_random

__all__ = ["check_apart", "check_complete", "folds", "hold_out_groups", "split_labelled"]


def split_labelled(labelled: LabelledSet, fractions: Mapping[str, float], *, seed: int) -> dict[str, LabelledSet]:
    """Parts of about these sizes: whole groups where the examples have groups, else each class in proportion.

    Args:
        fractions: name -> share, each above 0, together at most 1: ``{"train": 0.8, "val": 0.2}``.

    Raises:
        InputError: the fractions are wrong, only some examples have a group, or a part would be empty.
    """
    if any(group is not None for group in labelled.groups):
        parts = split_by_group(labelled, fractions, seed=seed)
    else:
        parts = split_random(labelled, fractions, seed=seed, by_label=True)
    return {name: labelled.take(part.indices, name=part.name) for name, part in parts.items()}


def hold_out_groups(labelled: LabelledSet, groups: Iterable[str]) -> tuple[LabelledSet, LabelledSet]:
    """(the rest, the examples of these groups).

    Raises:
        InputError: no such group, examples without one, or a class of which nothing would be left to learn from.
    """
    rest, held = hold_out(labelled, groups)
    train = labelled.take(rest.indices, name=rest.name)
    check_complete(train)
    return train, labelled.take(held.indices, name=held.name)


def folds(labelled: LabelledSet) -> Iterator[tuple[str, LabelledSet, LabelledSet]]:
    """(group, the rest, its examples) for each group in order of name: leave-one-group-out cross-validation.

    Raises:
        InputError: examples without a group, one group only, or a class that only the group held out has.
    """
    for group, rest, held in leave_one_out(labelled):
        train = labelled.take(rest.indices, name=f"{labelled.name} without {group}")
        check_complete(train)
        yield group, train, labelled.take(held.indices, name=f"{labelled.name}: {group}")


def check_complete(labelled: LabelledSet) -> None:
    """Every class of every head has an example; what is learned from must pass this.

    Raises:
        InputError: a class is empty, by name.
    """
    for head, names in labelled.heads.items():
        empty = [name for name, count in zip(names, labelled.counts(head).tolist()) if not count]
        if empty:
            raise InputError(
                f"{labelled.name} has no example of the {head} {', '.join(map(repr, empty))}; add some, or leave "
                "the class out"
            )


def check_apart(*parts: LabelledSet) -> None:
    """No group lies in two of these sets.

    Raises:
        InputError: one does, by name.
    """
    for place, part in enumerate(parts):
        for other in parts[:place]:
            both = sorted({group for group in part.groups if group is not None} & set(other.groups))
            if both:
                raise InputError(
                    f"the group {both[0]!r} is in {other.name} and in {part.name} ({len(both)} groups are in both), "
                    "so results would not hold for new groups; divide by group"
                )
