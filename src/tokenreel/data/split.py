"""Parts of a collection for training and testing: at random, or so that no group lies on both sides.

A performer, patient or film that is in the training part and in the test part makes results that do not hold for new
ones; ``split_by_group`` and ``hold_out`` keep each whole.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from tokenreel.errors import InputError

from .collection import Collection, Subset
from .order import EpochOrder

__all__ = ["hold_out", "leave_one_out", "split_by_group", "split_random"]


def split_random(
    collection: Collection, fractions: Mapping[str, float], *, seed: int, by_label: bool = False
) -> dict[str, Subset]:
    """Parts of these sizes, drawn at random; with ``by_label``, each label is divided in the same proportions.

    Args:
        fractions: name -> share, each above 0, together at most 1: ``{"train": 0.8, "val": 0.2}``.

    Raises:
        InputError: the fractions are wrong, or a part would be empty.
    """
    _check(fractions)
    pools: dict[object, list[int]] = defaultdict(list)
    labels = collection.labels if by_label else [None] * len(collection)
    order = EpochOrder(len(collection), seed=seed, epoch=0)
    for position in range(len(collection)):
        index = order[position]
        pools[labels[index]].append(index)
    parts: dict[str, list[int]] = {name: [] for name in fractions}
    for pool in pools.values():
        bounds = [0, *(round(share * len(pool)) for share in _cumulated(fractions))]
        for name, start, stop in zip(fractions, bounds, bounds[1:]):
            parts[name] += pool[start:stop]
    return _subsets(collection, parts, f"{len(collection)} examples")


def split_by_group(collection: Collection, fractions: Mapping[str, float], *, seed: int) -> dict[str, Subset]:
    """Parts of about these sizes (counted in examples) with every group whole in one of them.

    Groups in random order; each goes to the part that is furthest below its size.

    Raises:
        InputError: examples without a group, the fractions are wrong, or fewer groups than parts.
    """
    _check(fractions)
    groups = _groups(collection)
    names = sorted(groups)
    order = EpochOrder(len(names), seed=seed, epoch=0)
    parts: dict[str, list[int]] = {name: [] for name in fractions}
    if math.fsum(fractions.values()) < 1 - 1e-9:
        parts[""] = []  # what no part wants
    wanted = {**fractions, "": 1 - math.fsum(fractions.values())}
    for position in range(len(names)):
        lacking = {name: wanted[name] * len(collection) - len(part) for name, part in parts.items()}
        empty = [name for name, part in parts.items() if name and not part]
        if len(names) - position <= len(empty):  # just enough groups left for each part to have one
            lacking = {name: lacking[name] for name in empty}
        parts[max(lacking, key=lambda name: lacking[name])] += groups[names[order[position]]]
    parts.pop("", None)
    return _subsets(collection, parts, f"{len(names)} groups")


def hold_out(collection: Collection, groups: Iterable[str]) -> tuple[Subset, Subset]:
    """(the rest, the held-out part): all examples of these groups are in the second.

    Raises:
        InputError: a group that is not there, examples without a group, or nothing left on a side.
    """
    held = set(groups)
    all_groups = _groups(collection)
    unknown = sorted(held - all_groups.keys())
    if unknown or not held:
        named = f"has no group {unknown[0]!r}" if unknown else "was given no group to hold out"
        raise InputError(f"{collection.name} {named}; its groups are {', '.join(sorted(all_groups)[:20])}")
    sides: dict[str, list[int]] = {"rest": [], "held out": []}
    for group, indices in all_groups.items():
        sides["held out" if group in held else "rest"] += indices
    parts = _subsets(collection, sides, f"{len(all_groups)} groups")
    return parts["rest"], parts["held out"]


def leave_one_out(collection: Collection) -> Iterator[tuple[str, Subset, Subset]]:
    """(group, the rest, its examples) for each group in order of name: cross-validation over all of them."""
    for group in sorted(_groups(collection)):
        rest, held = hold_out(collection, [group])
        yield group, rest, held


def _groups(collection: Collection) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    without = []
    for index, group in enumerate(collection.groups):
        if group is None:
            without.append(index)
        else:
            found[group].append(index)
    if without:
        raise InputError(
            f"{len(without)} of {len(collection)} examples of {collection.name} have no group, such as "
            rf"{collection.key(without[0])}; open it with group= and a regular expression such as (performer\d+)"
        )
    return found


def _check(fractions: Mapping[str, float]) -> None:
    total = math.fsum(fractions.values())
    if not fractions or not all(share > 0 for share in fractions.values()) or total > 1 + 1e-9 or "" in fractions:
        raise InputError(f"fractions must be names with shares above 0, together at most 1, got {dict(fractions)}")


def _cumulated(fractions: Mapping[str, float]) -> list[float]:
    shares = list(fractions.values())
    return [math.fsum(shares[: count + 1]) for count in range(len(shares))]


def _subsets(collection: Collection, parts: Mapping[str, list[int]], there: str) -> dict[str, Subset]:
    for name, part in parts.items():
        if not part:
            raise InputError(f"the part {name!r} of {collection.name} would be empty; it has only {there}")
    return {name: Subset(collection, sorted(part), name=f"{collection.name} ({name})") for name, part in parts.items()}
