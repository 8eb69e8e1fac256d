"""``open_collection``: looks at what a path holds and opens it as what it is."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError

from .collection import Collection, Joined
from .facts import split_name
from .folder import FolderCollection
from .labelled_rendered import RENDERED, asked_scenes
from .npz import NpzCollection
from .payload import MEDIA_SUFFIXES
from .pixel_manifest import is_pixel_shard
from .scenes import PLAIN, CaptionedScenes
from .table import TABLE_SUFFIXES, TableCollection
from .tars import TarCollection
from .walk import visible_names

__all__ = ["open_collection"]

AnyPath = str | os.PathLike[str]
_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
_MANIFEST = "_manifest.json"
_DATA_SUFFIXES = (*MEDIA_SUFFIXES, *_COMPRESSED_TARS, ".tar", ".tokens", ".parquet")


def open_collection(
    path: AnyPath | Sequence[AnyPath],
    *,
    split: str | None = None,
    group: str | None = None,
    label: str | None = "folder",
    captions: AnyPath | None = "sidecar",
    columns: Mapping[str, str] | None = None,
    root: AnyPath | None = None,
    kind: str | None = None,
) -> Collection:
    """Open a folder, table, npz, tars, token or pixel shards; a list of such things is joined end to end.

    Args:
        path: a folder of pictures and videos (a class a folder), of ``.tokens`` files, of tars, of token shards or of
            pixel shards; a ``.csv``, ``.tsv``, ``.jsonl``, ``.npz``, ``.tar`` or ``.parquet`` file, one picture, video
            or ``.tokens`` file; a pattern of tars (``shard-*.tar``, ``shard-{000..099}.tar``); ``rendered:1000``, that
            many captioned scenes drawn by the project (``rendered:1000,17,64,64``: frames, height, width of each;
            ``rendered:1000,17,64,64,plain``: one thing of one colour on a wall of one colour).
        split: ``train``, ``val``, ``test``: a folder of that name, rows, arrays or packed clips of that split. Must
            be said where there are several; ``all`` takes all (not npz).
        group: a regular expression on the key whose first bracket is the group: ``(performer\\d+)``.
        label, captions, kind: for folders, see ``FolderCollection``.
        columns, root: for tables, see ``TableCollection``.

    Raises:
        InputError: nothing is there, it is of no known kind, or an option does not fit it.
    """
    options = {"label": label, "captions": captions, "kind": kind, "columns": columns, "root": root}
    if not isinstance(path, str | os.PathLike):
        return Joined([open_collection(one, split=split, group=group, **options) for one in path])  # type: ignore[arg-type]
    if _is_pattern(str(path)) and not Path(path).exists():
        _refuse(options, "tars", "label", "captions", "kind", "columns", "root")
        _refuse_split(split, path)
        return TarCollection(_expanded(str(path)), group=group)
    here = Path(path)
    if here.is_dir():
        return _open_folder(here, split, group, options)
    if f"{path}:".startswith(RENDERED) and not here.exists():
        _refuse(options, "drawn scenes", "label", "captions", "kind", "columns", "root")
        _refuse_split(split, path)
        if group is not None:
            raise InputError(f"drawn scenes have no groups to find by group={group!r}; leave it out")
        count, size = asked_scenes(str(path).removesuffix(PLAIN))
        return CaptionedScenes(count, *(size or ()), is_plain=str(path).endswith(PLAIN))
    if not here.exists():
        raise InputError(f"{here} does not exist; check the name (the current folder is {Path.cwd()})")
    return _open_file(here, split, group, options)


def _open_folder(folder: Path, split: str | None, group: str | None, options: dict[str, Any]) -> Collection:
    folders, files = visible_names(folder)
    splits = {name: split_name(name) for name in folders}
    has_data = any(name.lower().endswith(_DATA_SUFFIXES) for name in files)
    has_shards = (folder / _MANIFEST).exists() or (files and all(name.endswith(".parquet") for name in files))
    if has_shards and is_pixel_shard(folder):
        return _pixels(folder, split, group, options)
    if split is not None or (len(folders) > 1 and all(splits.values()) and not has_data):
        return _open_split(folder, split, splits, group, options)
    if has_shards:
        _refuse(options, "token shards", "label", "captions", "columns", "root")
        return _shards(folder, group)
    tars = [name for name in files if name.lower().endswith(".tar")]
    if not tars and any(name.lower().endswith(_COMPRESSED_TARS) for name in files):
        tars = [name for name in files if name.lower().endswith(_COMPRESSED_TARS)]
    if tars:
        _refuse(options, "tars", "label", "captions", "kind", "columns", "root")
        return TarCollection([folder / name for name in tars], group=group)
    _refuse(options, "a folder", "columns", "root")
    return FolderCollection(
        folder, group=group, label=options["label"], captions=options["captions"], kind=options["kind"]
    )


def _open_split(
    folder: Path, split: str | None, splits: Mapping[str, str | None], group: str | None, options: dict[str, Any]
) -> Collection:
    named = [name for name, meaning in splits.items() if meaning]
    if split is None:
        raise InputError(f"{folder} has the splits {', '.join(named)}: choose one with split=, or split='all'")
    if split == "all":
        if not named:
            return _open_folder(folder, None, group, options)
        return Joined([_open_folder(folder / name, None, group, options) for name in named], name=str(folder))
    chosen = [name for name in splits if name == split] or [
        name for name in named if splits[name] == split_name(split) is not None
    ]
    if not chosen:
        raise InputError(f"{folder} has no folder for split {split!r}; it has {', '.join(splits) or 'no folders'}")
    return _open_folder(folder / chosen[0], None, group, options)


def _open_file(path: Path, split: str | None, group: str | None, options: dict[str, Any]) -> Collection:
    suffix, name = path.suffix.lower(), path.name.lower()
    if suffix in TABLE_SUFFIXES:
        _refuse(options, "a table", "label", "captions", "kind")
        return TableCollection(path, split=split, columns=options["columns"], root=options["root"], group=group)
    if suffix == ".npz":
        _refuse(options, "npz", "label", "captions", "kind", "columns", "root")
        return NpzCollection(path, split=split, group=group)
    if suffix == ".parquet" and is_pixel_shard(path):
        return _pixels(path, split, group, options)
    _refuse_split(split, path)
    if suffix == ".tar" or name.endswith(_COMPRESSED_TARS):
        _refuse(options, "tars", "label", "captions", "kind", "columns", "root")
        return TarCollection([path], group=group)
    if suffix == ".parquet":
        _refuse(options, "token shards", "label", "captions", "columns", "root")
        return _shards(path, group)
    if suffix in MEDIA_SUFFIXES or suffix == ".tokens":
        _refuse(options, "one file", "columns", "root")
        return FolderCollection(path, group=group, label=options["label"], captions=options["captions"])
    raise InputError(
        f"{path} is of no kind that examples are read from; give a folder, .csv, .jsonl, .npz, .tar, .parquet, "
        ".tokens, or a picture or video"
    )


def _shards(path: Path, group: str | None) -> Collection:
    from .records import ShardCollection

    return ShardCollection(path, group=group)


def _pixels(path: Path, split: str | None, group: str | None, options: Mapping[str, Any]) -> Collection:
    from .pixel_shards import PixelCollection

    _refuse(options, "pixel shards", "label", "captions", "kind", "columns", "root")
    return PixelCollection(path, split=split, group=group)


def _refuse(options: Mapping[str, Any], what: str, *names: str) -> None:
    usual = {"label": "folder", "captions": "sidecar"}
    given = [name for name in names if options[name] != usual.get(name)]
    if given:
        raise InputError(f"{given[0]}={options[given[0]]!r} does not go with {what}; leave it out")


def _refuse_split(split: str | None, path: AnyPath) -> None:
    if split not in (None, "all"):
        raise InputError(f"{path} has no splits, so split={split!r} cannot be chosen; name the files of the split")


def _is_pattern(text: str) -> bool:
    return bool(re.search(r"[*?\[]|\{\d+\.\.\d+\}", text))


def _expanded(pattern: str) -> list[str]:
    """Paths of a pattern: ``{000..099}`` counts with its zeros, ``*``, ``?`` and ``[]`` match what is there."""
    pieces = re.split(r"\{(\d+)\.\.(\d+)\}", pattern)
    choices: list[list[str]] = [[pieces[0]]]
    for low, high, rest in zip(pieces[1::3], pieces[2::3], pieces[3::3]):
        choices.append([f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1)])
        choices.append([rest])
    counted = ["".join(parts) for parts in product(*choices)]
    paths = [path for one in counted for path in (sorted(glob.glob(one)) if re.search(r"[*?\[]", one) else [one])]
    wrong = next((path for path in paths if not path.lower().endswith((".tar", *_COMPRESSED_TARS))), None)
    if not paths:
        raise InputError(f"no file matches {pattern}; check the name (the current folder is {Path.cwd()})")
    if wrong is not None:
        raise InputError(f"{pattern} matches {wrong}, which is no tar; patterns are for tars, give a folder otherwise")
    return paths
