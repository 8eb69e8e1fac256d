"""All files below a folder, fast: names only, nothing opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tokenreel.errors import InputError

__all__ = ["Found", "visible_names", "walk"]

_SIDECARS = (".txt", ".json")
_NO_DATA = frozenset({"__MACOSX", "lost+found"})


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below a folder.

    Attributes:
        files: paths of the wanted files relative to the folder, with ``/``, in order.
        sidecars: ``.txt`` and ``.json`` files by their relative path.
        others: how many files there are of every other suffix.
    """

    files: list[str]
    sidecars: frozenset[str]
    others: Counter[str]

    def sidecar(self, file: str) -> list[str]:
        """The text files beside ``file`` that have its name up to the suffix."""
        stem = str(PurePosixPath(file).with_suffix(""))
        return [stem + suffix for suffix in _SIDECARS if stem + suffix in self.sidecars]


def walk(root: Path, suffixes: Collection[str]) -> Found:
    """Search ``root`` and the folders below it for files of these suffixes (lower case, with the dot).

    Hidden files and folders are passed over. Links to folders are followed, once each.

    Raises:
        InputError: a folder cannot be read.
    """
    files: list[str] = []
    sidecars: set[str] = set()
    others: Counter[str] = Counter()
    for name in _names(root, "", {os.path.realpath(root)}):
        suffix = os.path.splitext(name)[1].lower()
        if suffix in suffixes:
            files.append(name)
        elif suffix in _SIDECARS:
            sidecars.add(name)
        else:
            others[suffix or "(no suffix)"] += 1
    return Found(sorted(files), frozenset(sidecars), others)


def visible_names(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files directly in ``folder``, hidden ones left out, each in order."""
    entries = list(_entries(str(folder)))
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    return folders, sorted(entry.name for entry in entries if not entry.is_dir())


def _names(folder: str | Path, prefix: str, seen: set[str]) -> Iterator[str]:
    below = []
    for entry in _entries(str(folder)):
        if not entry.is_dir():
            yield prefix + entry.name
        elif not entry.is_symlink():
            below.append(entry)
        elif (real := os.path.realpath(entry.path)) not in seen:
            seen.add(real)
            below.append(entry)
    for entry in below:
        yield from _names(entry.path, f"{prefix}{entry.name}/", seen)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if entry.name[0] != "." and entry.name not in _NO_DATA)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from error
