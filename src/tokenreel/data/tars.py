"""Webdataset tars: members of one name and several suffixes are one example, ``key.mp4 key.txt key.json key.cls``.

Each tar's headers are read once when it is opened; after that a member is read at its place, without the others.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tokenreel.errors import InputError, TokenReelWarning

from .collection import Collection
from .example import Example
from .facts import facts_of_json, parse_label
from .payload import MEDIA_SUFFIXES, ArrayPayload, MediaPayload, NamedBytes, Payload, Pixels, read_npy
from .tar_index import Member, members, read_at

__all__ = ["TarCollection"]

_TEXTS = ("txt", "caption")
_FACTS = (*_TEXTS, "json", "cls")
_CONTENT = frozenset(suffix.removeprefix(".") for suffix in MEDIA_SUFFIXES) | {"npy"}


@dataclass(frozen=True, slots=True)
class _Place:
    """A member that is opened when it is called."""

    path: Path
    offset: int
    size: int
    name: str

    def __call__(self) -> NamedBytes:
        return NamedBytes(read_at(self.path, self.offset, self.size), self.name)

    def text(self) -> str:
        try:
            return read_at(self.path, self.offset, self.size).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name} is not UTF-8 text: {error.reason}") from error


class _Entry(NamedTuple):
    """One example in a tar: its key, the member with the pixels, and the small ones beside it by suffix."""

    tar: int
    key: str
    content: Member
    facts: tuple[tuple[str, Member], ...]


class TarCollection(Collection):
    """The examples of some tars, in the order of the tars and of their first members.

    ``txt`` or ``caption`` is the caption, ``cls`` the label (a number, or a name), ``json`` an object with the usual
    names (``facts.NAMES``), over which ``txt`` and ``cls`` win. Pixels are in any picture or video, or in ``npy``
    (uint8); where an example has several, in the first.

    Args:
        paths: uncompressed tars.
        group: a regular expression on the key (``shard-000/clip17``) whose first bracket is the group.

    Raises:
        InputError: a tar is missing, compressed or none (FormatError); no example has pixels.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], *, group: str | None = None) -> None:
        if not paths:
            raise InputError("give at least one tar file")
        self.paths = [Path(path) for path in paths]
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        super().__init__(f"{self.paths[0]}{more}", group=group)
        self._entries: list[_Entry] = []
        self.num_without_pixels = 0
        for number in range(len(self.paths)):
            self._take(number)
        if not self._entries:
            raise InputError(f"{self.name}: none of its {self.num_without_pixels} keys has a picture, a video or npy")

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, index: int) -> str:
        """Name of the tar without its suffix, and the key in it: ``shard-000/clip17``."""
        entry = self._entries[index]
        return f"{self.paths[entry.tar].stem}/{entry.key}"

    def _example(self, index: int) -> Example:
        entry = self._entries[index]
        content = self._place(entry.tar, entry.content)
        return Example(key=self.key(index), source=content.name, payload=_payload(content), **self._facts(index))

    def _facts(self, index: int) -> dict[str, Any]:
        entry = self._entries[index]
        facts: dict[str, Any] = {}
        beside = dict(entry.facts)
        if "json" in beside:
            place = self._place(entry.tar, beside["json"])
            facts |= facts_of_json(place.text(), place.name)
        for suffix in _TEXTS:
            if suffix in beside and (text := self._place(entry.tar, beside[suffix]).text().strip()):
                facts["caption"] = text
        if "cls" in beside and (text := self._place(entry.tar, beside["cls"]).text().strip()):
            facts["label"] = parse_label(text)
        return facts

    def _place(self, tar: int, member: Member) -> _Place:
        path = self.paths[tar]
        return _Place(path, member.offset, member.size, f"{path}:{member.name}")

    def _take(self, number: int) -> None:
        path = self.paths[number]
        found, problem = members(path)
        if problem:
            warnings.warn(problem, TokenReelWarning, stacklevel=4)
        grouped: dict[str, list[tuple[str, Member]]] = {}
        for member in found:
            folder, _, base = member.name.rpartition("/")
            stem, dot, suffixes = base.partition(".")
            if dot and stem:
                grouped.setdefault(f"{folder}/{stem}" if folder else stem, []).append((suffixes.lower(), member))
        without = []
        for key, parts in grouped.items():
            content = next((member for suffix, member in parts if suffix.rpartition(".")[2] in _CONTENT), None)
            if content is None:
                without.append(key)
            else:
                facts = tuple((suffix, member) for suffix, member in parts if suffix in _FACTS)
                self._entries.append(_Entry(number, key, content, facts))
        if without:
            self.num_without_pixels += len(without)
            text = (
                f"{path}: {len(without)} of {len(grouped)} keys have no picture, video or npy and are left out, such as"
            )
            warnings.warn(f"{text} {without[0]!r}", TokenReelWarning, stacklevel=4)


def _payload(place: _Place) -> Payload:
    if place.name.lower().endswith(".npy"):
        return ArrayPayload(partial(_npy, place), place.name)
    return MediaPayload(place)


def _npy(place: _Place) -> Pixels:
    return read_npy(place(), place.name)
