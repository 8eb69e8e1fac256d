"""A folder of pictures and videos, or of ``.tokens`` files: nested, a class a folder, captions beside the files.

An example's facts come from, the later winning: its folder (label), its token file's metadata, a JSON lines file
(``metadata.jsonl`` or ``captions.jsonl`` in the folder, one object a file, named by ``file_name``), and the sidecars
``clip.txt`` (the caption) and ``clip.json`` beside ``clip.mp4``.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError, TokenReelWarning

from .collection import Collection, capture, pattern_of
from .example import Example
from .facts import facts_from, facts_of_json, field_names, json_lines
from .payload import MEDIA_SUFFIXES, payload_of
from .walk import Found, walk

__all__ = ["FolderCollection", "token_facts"]

_CAPTION_FILES = ("metadata.jsonl", "captions.jsonl")
_TOKEN_SUFFIXES = frozenset({".tokens"})


class FolderCollection(Collection):
    """The pictures and videos below a folder, or its ``.tokens`` files, in the order of their paths.

    Args:
        root: the folder, or one file of the kind.
        kind: ``media`` or ``tokens``; found out where only one is there.
        label: ``folder`` (the first folder below ``root``), ``parent`` (the one that holds the file), a regular
            expression on the relative path whose first bracket is the label, or None. A ``.tokens`` file that carries
            a label keeps it.
        captions: ``sidecar`` (files beside, and ``metadata.jsonl``), the path of a JSON lines file, or None.
        group: a regular expression on the relative path whose first bracket is the group.

    Raises:
        InputError: nothing is there, both kinds are, or the captions fit no file.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        kind: str | None = None,
        label: str | None = "folder",
        captions: str | os.PathLike[str] | None = "sidecar",
        group: str | None = None,
    ) -> None:
        super().__init__(str(root), group=group)
        path = Path(root)
        if kind not in (None, "media", "tokens"):
            raise InputError(f"kind must be 'media' or 'tokens', got {kind!r}")
        self.root = path if path.is_dir() else path.parent
        self._found = (
            _of_kind(walk(path, MEDIA_SUFFIXES | _TOKEN_SUFFIXES), kind, path) if path.is_dir() else _one(path)
        )
        self._files = self._found.files
        self._label_by = label if label in ("folder", "parent", None) else pattern_of("label", label)
        self._use_sidecars = captions == "sidecar"
        self._lines = self._read_lines(captions)

    def __len__(self) -> int:
        return len(self._files)

    def key(self, index: int) -> str:
        """Path relative to the folder, with ``/``."""
        return self._files[index]

    def _example(self, index: int) -> Example:
        path = self.root / self._files[index]
        return Example(key=self._files[index], source=str(path), payload=payload_of(path), **self._facts(index))

    def _facts(self, index: int) -> dict[str, Any]:
        name = self._files[index]
        facts: dict[str, Any] = {"label": self._label(name)}
        if name.lower().endswith(".tokens"):
            facts |= token_facts(_token_meta(self.root / name))
        facts |= self._lines.get(name, {})
        if self._use_sidecars and self._found.sidecars:
            for sidecar in self._found.sidecar(name):
                facts |= _sidecar_facts(self.root / sidecar)
        return facts

    def _label(self, name: str) -> str | None:
        if isinstance(self._label_by, re.Pattern):
            return capture(self._label_by, name)
        folders = name.split("/")[:-1]
        if self._label_by is None or not folders:
            return None
        return folders[0 if self._label_by == "folder" else -1]

    def _read_lines(self, captions: str | os.PathLike[str] | None) -> dict[str, dict[str, Any]]:
        if captions is None:
            return {}
        if captions == "sidecar":
            present = [self.root / name for name in _CAPTION_FILES if (self.root / name).is_file()]
            return self._line_facts(present[0]) if present else {}
        lines = self._line_facts(Path(captions))
        if not lines.keys() & set(self._files):
            raise InputError(f"{captions} names no file of {self.root}; its file names are relative to the folder")
        return lines

    def _line_facts(self, path: Path) -> dict[str, dict[str, Any]]:
        facts = {}
        for number, values in json_lines(path):
            where = f"{path}, line {number}"
            names = field_names(values, None, where)
            if "path" not in names:
                raise InputError(f"{where} names no file; it has {', '.join(values) or 'nothing'}, expected file_name")
            name = str(values[names["path"]]).replace("\\", "/").removeprefix("./")
            facts[name] = facts_from(values, names, where)
        unknown = sorted(facts.keys() - set(self._files))
        if unknown:
            text = (
                f"{path} names {len(unknown)} of {len(facts)} files that are not in {self.root}, such as {unknown[0]}"
            )
            warnings.warn(text, TokenReelWarning, stacklevel=5)
        return facts


def token_facts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an example that ``Tokens.meta`` holds; all else is ``meta``, its ``source`` as ``origin``."""
    renamed = {("origin" if name == "source" else name): value for name, value in meta.items()}
    fields = ("caption", "label", "group", "start_seconds", "end_seconds")
    facts = facts_from(renamed, {name: name for name in fields}, "the metadata of the tokens")
    # The times say which part of the origin the tokens cover; they are no part of the tokens to be chosen.
    times = {name: facts.pop(name) for name in ("start_seconds", "end_seconds") if name in facts}
    return facts | ({"meta": {**facts.get("meta", {}), **times}} if times else {})


def _one(path: Path) -> Found:
    if not path.is_file():
        raise InputError(f"there is no folder or file {path}; check the name")
    return Found([path.name], frozenset(_beside(path)), _no_others())


def _beside(path: Path) -> Iterable[str]:
    return (name for suffix in (".txt", ".json") if (path.parent / (name := path.stem + suffix)).is_file())


def _no_others() -> Any:
    from collections import Counter

    return Counter()


def _of_kind(found: Found, kind: str | None, root: Path) -> Found:
    tokens = [name for name in found.files if name.lower().endswith(".tokens")]
    media = [name for name in found.files if not name.lower().endswith(".tokens")]
    if tokens and media and kind is None:
        raise InputError(
            f"{root} holds both {len(media)} pictures or videos and {len(tokens)} .tokens files; "
            "say which with kind='media' or kind='tokens'"
        )
    chosen = tokens if kind == "tokens" or (kind is None and tokens) else media
    if not chosen:
        what = {"media": "pictures or videos", "tokens": ".tokens files", None: "pictures, videos or .tokens files"}[
            kind
        ]
        others = ", ".join(f"{count} {suffix}" for suffix, count in found.others.most_common(5))
        there = f"it holds {others}" if others else "it is empty"
        raise InputError(f"{root} has no {what} in it or below it ({there}); is it the right folder?")
    return Found(chosen, found.sidecars, found.others)


def _token_meta(path: Path) -> dict[str, Any]:
    from tokenreel.tokens.file import TokenFile

    return TokenFile(path).header.meta


def _sidecar_facts(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the caption file {path} cannot be read: {error}") from error
    if path.suffix.lower() == ".json":
        return facts_of_json(text, str(path))
    return {"caption": text.strip()} if text.strip() else {}
