"""A table of files: CSV (comma, semicolon or tab) or JSON lines; a row is an example.

Columns are known by their usual names (``facts.NAMES``: path, caption, label, group, start, end, split) or by
``columns=``; all others go to ``Example.meta``. Whether the files exist shows when they are read.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError

from .collection import Collection
from .example import Example
from .facts import facts_from, field_names, json_lines, parse_label, split_name
from .payload import payload_of

__all__ = ["TABLE_SUFFIXES", "TableCollection", "csv_rows"]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")


class TableCollection(Collection):
    """The rows of a CSV or JSON lines file, in their order.

    Args:
        path: the table; ``.csv``, ``.tsv``, ``.jsonl`` or ``.ndjson``.
        split: rows of this split only, where the table has the column.
        columns: field -> column, where the names are not the usual ones: ``{"group": "patient"}``.
        root: folder that relative paths start from; the table's own by default.
        group: a regular expression on the path whose first bracket is the group, for rows that name none.

    Raises:
        InputError: no column for the path, no row, a time that is no number, or an unknown split; rows are named.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        split: str | None = None,
        columns: Mapping[str, str] | None = None,
        root: str | os.PathLike[str] | None = None,
        group: str | None = None,
    ) -> None:
        super().__init__(str(path), group=group)
        self.path = Path(path)
        self._root = Path(root) if root is not None else self.path.parent
        is_csv = self.path.suffix.lower() in (".csv", ".tsv")
        rows = csv_rows(self.path) if is_csv else json_lines(self.path)
        if not rows:
            raise InputError(f"{path} has no rows; nothing can be read from it")
        names = field_names(list(dict.fromkeys(name for _, row in rows for name in row)), columns, str(path))
        if "path" not in names:
            raise InputError(
                f"{path} has no column for the files (path, file_name, video ...); it has "
                f"{', '.join(rows[0][1])}; name it with columns={{'path': ...}}"
            )
        rows = _of_split(rows, names.get("split"), split, str(path))
        self._paths = [str(values.get(names["path"]) or "") for _, values in rows]
        self._rows = [self._checked(number, values, names) for number, values in rows]
        if is_csv:
            _number_labels(self._rows)

    def __len__(self) -> int:
        return len(self._paths)

    def key(self, index: int) -> str:
        """The path as the table has it, with the times where there are some."""
        facts = self._rows[index]
        if "start_seconds" not in facts and "end_seconds" not in facts:
            return self._paths[index]
        return f"{self._paths[index]}#{facts.get('start_seconds', 0.0):g}-{facts.get('end_seconds', float('inf')):g}"

    def _example(self, index: int) -> Example:
        path = self._root / self._paths[index]
        return Example(key=self.key(index), source=str(path), payload=payload_of(path), **self._rows[index])

    def _facts(self, index: int) -> dict[str, Any]:
        return self._rows[index]

    def _checked(self, number: int, values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        where = f"{self.path}, line {number}"
        if not values.get(names["path"]):
            raise InputError(f"{where}: the column {names['path']!r} is empty; every row must name a file")
        facts = facts_from(values, names, where)
        start, end = facts.get("start_seconds", 0.0), facts.get("end_seconds", float("inf"))
        if not 0 <= start < end:
            raise InputError(f"{where}: the part from {start:g} to {end:g} s is empty; it must end after it starts")
        return facts


def csv_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a CSV file, separated by tab, semicolon or comma, and the line each ends on."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            separator = max("\t;,", key=head.count)
            reader = csv.DictReader(file, delimiter=separator, restval="")
            rows = []
            for row in reader:
                if None in row:
                    raise InputError(
                        f"{path}, line {reader.line_num}: it has more values than the first line has names"
                    )
                rows.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return rows


def _of_split(
    rows: list[tuple[int, dict[str, Any]]], column: str | None, split: str | None, where: str
) -> list[tuple[int, dict[str, Any]]]:
    if column is None:
        if split not in (None, "all"):
            raise InputError(f"{where} has no column named split, so split={split!r} cannot be chosen")
        return rows
    found = list(dict.fromkeys(str(values.get(column, "")) for _, values in rows))
    if split is None and len(found) > 1:
        raise InputError(f"{where} has the splits {', '.join(found)}: choose one with split=, or split='all'")
    if split in (None, "all"):
        return rows
    wanted = {split} | {name for name in found if split_name(name) and split_name(name) == split_name(split)}
    chosen = [(number, values) for number, values in rows if str(values.get(column, "")) in wanted]
    if not chosen:
        raise InputError(f"{where} has no rows of split {split!r}; it has {', '.join(found)}")
    return chosen


def _number_labels(facts: list[dict[str, Any]]) -> None:
    """Labels of a CSV are text; where all are whole numbers, they become numbers."""
    parsed = {text: parse_label(text) for text in {fact["label"] for fact in facts if "label" in fact}}
    if all(isinstance(label, int) for label in parsed.values()):
        for fact in facts:
            if "label" in fact:
                fact["label"] = parsed[fact["label"]]
