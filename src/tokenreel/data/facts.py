"""What tables, JSON lines and sidecar files say about an example, in whatever words they use for it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError

from .example import Label

__all__ = ["NAMES", "facts_from", "facts_of_json", "field_names", "json_lines", "parse_label", "split_name"]

NAMES: dict[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "video", "image"),
    "caption": ("caption", "text", "prompt"),
    "label": ("label", "class", "cls"),
    "group": ("group",),
    "start_seconds": ("start_seconds", "start", "start_time"),
    "end_seconds": ("end_seconds", "end", "end_time"),
    "split": ("split",),
}
"""Field -> the column names taken for it, the first that is there; ``columns=`` names others."""

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "eval": ("eval", "evaluation"),
}


def split_name(text: str) -> str | None:
    """``train``, ``val``, ``test`` or ``eval`` where ``text`` is one of their usual names, else None."""
    return next((name for name, words in _SPLITS.items() if text.lower() in words), None)


def field_names(present: Iterable[str], columns: Mapping[str, str] | None, where: str) -> dict[str, str]:
    """Field -> the column that holds it, among those present (their case does not matter).

    Raises:
        InputError: ``columns`` names an unknown field or an absent column.
    """
    by_lower = {name.strip().lower(): name for name in reversed(list(present))}
    found = {}
    for field, words in NAMES.items():
        word = next((word for word in words if word in by_lower), None)
        if word is not None:
            found[field] = by_lower[word]
    for field, column in (columns or {}).items():
        if field not in NAMES:
            raise InputError(f"columns={{{field!r}: ...}}: unknown field; known are {', '.join(NAMES)}")
        if column.strip().lower() not in by_lower:
            raise InputError(f"{where} has no column {column!r}; it has {', '.join(by_lower.values())}")
        found[field] = by_lower[column.strip().lower()]
    return found


def facts_from(values: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, Any]:
    """Fields of ``Example`` from one row; empty values are left out, unknown columns go to ``meta``.

    Raises:
        InputError: a time is no number; ``where`` names the row.
    """
    facts: dict[str, Any] = {}
    for field, column in names.items():
        value = values.get(column)
        if field in ("path", "split") or value is None or value == "":
            continue
        if field.endswith("_seconds"):
            facts[field] = _seconds(value, column, where)
        elif field == "label":
            facts[field] = _label(value, where)
        else:
            facts[field] = str(value)
    used = set(names.values())
    rest = {name: value for name, value in values.items() if name not in used and value not in (None, "")}
    return facts | ({"meta": rest} if rest else {})


def facts_of_json(text: str, where: str) -> dict[str, Any]:
    """Facts from a JSON sidecar: an object with the usual names, or a text, which is the caption."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    if isinstance(values, str):
        return {"caption": values}
    if not isinstance(values, dict):
        raise InputError(f"{where} must hold a JSON object or a text, got {type(values).__name__}")
    return facts_from(values, field_names(values, None, where), where)


def json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSON lines file with their line numbers; blank lines are passed over.

    Raises:
        InputError: missing, or a line is no JSON object (named).
    """
    rows = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    rows.append((number, _object(line, f"{path}, line {number}")))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return rows


def parse_label(text: str) -> Label:
    """A whole number as int, anything else as the name of a class."""
    text = text.strip()
    digits = text[1:] if text[:1] == "-" else text
    return int(text) if digits.isascii() and digits.isdigit() else text


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{where} must be a JSON object, got {type(values).__name__}")
    return values


def _seconds(value: Any, column: str, where: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if math.isnan(seconds):
        raise InputError(f"{where}: {column} must be a number of seconds, got {value!r}")
    return seconds


def _label(value: Any, where: str) -> Label:
    if isinstance(value, str):
        return value
    if isinstance(value, int | bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise InputError(f"{where}: a label must be a name or a whole number, got {value!r}")
