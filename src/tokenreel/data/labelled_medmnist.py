"""MedMNIST files as labelled sets: the official splits, classes by name; of ChestMNIST a head a finding.

Letters: N examples, K findings.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tokenreel.errors import InputError

from .collection import Collection, Joined
from .facts import split_name
from .labelled import HEAD, LabelledSet, labelled_of
from .medmnist import MULTI_LABEL, Fetch, MedMnist, fetch, known_as, medmnist_file
from .npz import NpzCollection

__all__ = ["FINDING", "medmnist_set"]

FINDING = ("absent", "present")
"""The classes of each head of a multi-label set."""

_SPLITS = ("train", "val", "test")


def medmnist_set(
    source: str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    group: str | None = None,
    fetch: Fetch = fetch,
) -> LabelledSet:
    """All splits of a MedMNIST data set; ``example.frames()`` is uint8 (T, H, W, C), a 2-D image is T = 1.

    Args:
        source: a name such as ``organmnist3d`` (fetched once), its npz file, or a folder that holds it. Another npz in
            the same layout has its numbers for classes.
        folder, fetch: see ``medmnist_file``.
        group: a regular expression on the key (``train/17``).

    Raises:
        InputError: no such file or name, or a file that is not what its name says.
    """
    path = medmnist_file(source, folder=folder, fetch=fetch)
    parts = [NpzCollection(path, split=name, group=group) for name in _names(path)]
    whole = Joined(parts, name=str(path))
    splits = [split_name(part.split) or part.split for part in parts for _ in range(len(part))]
    entry = known_as(path)
    if entry is None:
        return labelled_of(whole, splits=splits)
    for part in parts:
        _check(part, entry)
    if entry.task == MULTI_LABEL:
        return _findings(whole, entry, splits)
    targets = np.array([_number(label, entry, path) for label in whole.labels], np.int64)
    return LabelledSet(whole, {HEAD: entry.classes}, {HEAD: targets}, splits=splits)


def _names(path: Path) -> list[str]:
    """The splits of the file, the usual ones first."""
    with np.load(path) as arrays:
        found = [name.removesuffix("_images") for name in arrays.files if name.endswith("_images")]
    usual = [name for name in _SPLITS if name in found]
    return usual + [name for name in found if name not in usual]


def _check(part: NpzCollection, entry: MedMnist) -> None:
    frames, _, _, channels = part[0].array().shape
    if (frames > 1) != entry.is_volume or channels != entry.num_channels:
        kind = "volumes" if entry.is_volume else "pictures"
        raise InputError(
            f"{part.name}: {entry.name} has {kind} of {entry.num_channels} channels, this file has {frames} slices of "
            f"{channels}; give it another name if it is another data set"
        )


def _number(label: object, entry: MedMnist, path: Path) -> int:
    if not isinstance(label, int) or not 0 <= label < len(entry.classes):
        raise InputError(f"{path}: {entry.name} has labels in [0, {len(entry.classes)}), found {label!r}")
    return label


def _findings(whole: Collection, entry: MedMnist, splits: list[str]) -> LabelledSet:
    marks = [facts.get("meta", {}).get("labels") for facts in whole._readable()]
    if any(mark is None or len(mark) != len(entry.classes) for mark in marks):
        raise InputError(f"{whole.name}: {entry.name} needs {len(entry.classes)} marks an example, 0 or 1 each")
    marks_NK = np.array(marks, np.int64)
    if not np.isin(marks_NK, (0, 1)).all():
        raise InputError(f"{whole.name}: marks must be 0 or 1, found {sorted(set(marks_NK.ravel().tolist()))[:5]}")
    targets = {name: marks_NK[:, at] for at, name in enumerate(entry.classes)}
    return LabelledSet(whole, dict.fromkeys(entry.classes, FINDING), targets, splits=splits)
