"""``open_labelled``: a path, a table or the name of a MedMNIST data set as a ``LabelledSet``.

::

    actions = open_labelled("actions", group=r"(performer\\d+)")           # a class a folder
    for performer, train, test in folds(actions): ...

    chest = open_labelled("pneumoniamnist")                               # fetched once; its npz file works too
    train, val = chest.part("train"), chest.part("val")

    tokens = open_labelled("shards", labels="labels.csv")                 # ids without pixels; labels from a table
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenreel.errors import InputError

from .collection import Collection, Joined
from .facts import split_name
from .folder import FolderCollection
from .labelled import Classes, LabelledSet, labelled_of
from .labelled_medmnist import medmnist_set
from .labelled_table import AnyPath, Splits, facts_by_table, is_parquet_table, open_table
from .medmnist import MEDMNIST, known_as
from .opening import open_collection
from .pixel_manifest import is_pixel_shard
from .table import TABLE_SUFFIXES
from .walk import visible_names

__all__ = ["open_labelled"]


def open_labelled(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    group: str | None = None,
    label: str | None = "folder",
    labels: AnyPath | None = None,
    heads: Sequence[str] | None = None,
    classes: Classes | None = None,
    columns: Mapping[str, str] | None = None,
    root: AnyPath | None = None,
) -> LabelledSet:
    """Examples with classes, of whatever kind of source.

    Args:
        source: a folder a class of videos, pictures or ``.tokens`` files; folders ``train``, ``val``, ``test`` of
            those; a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` table with the columns path and label, and perhaps
            group and split; token shards whose records carry labels; an npz of MedMNIST, or the name of one; tars and
            pixel shards.
        split: only this part; all parts by default (or ``all``), to be had by ``part``.
        group: a regular expression on the key (the relative path) whose first bracket is the group, where the source
            names none: ``(performer\\d+)``.
        label: for folders, see ``FolderCollection``.
        labels: a table (path, label, group, split) that says the labels of examples which do not carry them.
        heads: columns, or fields of the metadata, to take as heads instead of the label.
        classes: names of the classes in order, see ``labelled_of``.
        columns, root: for tables, see ``TableCollection``.

    Raises:
        InputError: nothing is there, an example has no label or an unknown one, a class is empty, there is one class
            only, or a group is in two splits.
    """
    path = Path(source)
    if _is_medmnist(source):
        if heads or classes or labels:
            raise InputError(f"{source} has its own classes; leave heads=, classes= and labels= out")
        labelled = medmnist_set(source, group=group)
        return labelled if split in (None, "all") else labelled.part(split)
    whole, splits = _opened(path, group=group, label=label, columns=columns, root=root)
    facts = None
    if labels is not None:
        facts, splits = facts_by_table(whole, labels)
        for fact, found in zip(facts, whole.groups):
            fact.setdefault("group", found)
    elif label == "folder" and heads is None:
        _check_folders(whole)
    known = splits if any(name is not None for name in splits) else None
    labelled = labelled_of(whole, heads=heads, classes=classes, splits=known, facts=facts)
    return labelled if split in (None, "all") else labelled.part(split)


def _is_medmnist(source: str | os.PathLike[str]) -> bool:
    path = Path(source)
    if path.is_dir():
        return sum(known_as(file) is not None for file in path.glob("*.npz")) == 1
    return path.suffix.lower() == ".npz" or (not path.exists() and str(source).lower() in MEDMNIST)


def _opened(
    path: Path, *, group: str | None, label: str | None, columns: Mapping[str, str] | None, root: AnyPath | None
) -> tuple[Collection, Splits]:
    if path.is_file() and (path.suffix.lower() in TABLE_SUFFIXES or is_parquet_table(path)):
        return open_table(path, columns=columns, root=root, group=group)
    if columns is not None or root is not None:
        raise InputError(f"columns= and root= are for tables, and {path} is none; leave them out")
    named = _split_folders(path)
    if not named:
        is_packed = is_pixel_shard(path) if path.exists() else False
        whole = open_collection(path, split="all" if is_packed else None, group=group, label=label)
        return whole, [facts.get("meta", {}).get("split") if is_packed else None for facts in whole._readable()]
    parts = {name: open_collection(path / name, group=group, label=label) for name in named}
    splits: Splits = [split_name(name) for name, part in parts.items() for _ in range(len(part))]
    return Joined(list(parts.values()), name=str(path)), splits


def _split_folders(path: Path) -> list[str]:
    """The folders below, where all of them are named after splits."""
    folders = visible_names(path)[0] if path.is_dir() else []
    return folders if len(folders) > 1 and all(split_name(name) for name in folders) else []


def _check_folders(whole: Collection) -> None:
    """A class a folder: none of them may be empty."""
    for part in whole.parts if isinstance(whole, Joined) else (whole,):
        if not isinstance(part, FolderCollection) or not Path(part.name).is_dir():
            continue
        used = {part.key(index).split("/")[0] for index in range(len(part))}
        empty = [name for name in visible_names(part.root)[0] if name not in used]
        if empty:
            raise InputError(
                f"the class folder {part.root / empty[0]} holds nothing that can be read; fill it or remove it"
            )
