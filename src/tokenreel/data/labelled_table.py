"""Tables of labelled files: CSV and JSON lines (by ``table``) and Parquet; their splits, and labels of other sources.

Columns: path, label, group, split by their usual names (``facts.NAMES``); others are heads or ``Example.meta``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tokenreel.errors import FormatError, InputError

from .collection import Collection
from .example import Example
from .facts import facts_from, field_names, json_lines, split_name
from .payload import payload_of
from .table import TABLE_SUFFIXES, TableCollection, csv_rows

__all__ = ["ParquetTable", "facts_by_table", "is_parquet_table", "open_table"]

AnyPath = str | os.PathLike[str]
Splits = list[str | None]


class ParquetTable(Collection):
    """The rows of a Parquet file that names files, in their order; see ``TableCollection``.

    Raises:
        InputError: no column for the path, no row, or an empty path.
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        columns: Mapping[str, str] | None = None,
        root: AnyPath | None = None,
        group: str | None = None,
    ) -> None:
        super().__init__(str(path), group=group)
        self._root = Path(root) if root is not None else Path(path).parent
        rows = _parquet_rows(Path(path))
        names = field_names(list(rows[0]) if rows else [], columns, str(path))
        if "path" not in names:
            raise InputError(f"{path} has no rows or no column for the files (path, file_name, video ...)")
        self._paths = [str(row[names["path"]] or "") for row in rows]
        if "" in self._paths:
            raise InputError(f"{path}, row {self._paths.index('')}: the path is empty; every row must name a file")
        self._rows = [facts_from(row, names, f"{path}, row {number}") for number, row in enumerate(rows)]

    def __len__(self) -> int:
        return len(self._paths)

    def key(self, index: int) -> str:
        """The path as the table has it."""
        return self._paths[index]

    def _example(self, index: int) -> Example:
        path = self._root / self._paths[index]
        return Example(key=self.key(index), source=str(path), payload=payload_of(path), **self._rows[index])

    def _facts(self, index: int) -> dict[str, Any]:
        return self._rows[index]


def is_parquet_table(path: Path) -> bool:
    """Whether this is a Parquet file whose rows name files; shards of tokens or pixels are not."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        names = parquet.read_schema(path).names
    except (OSError, pa.ArrowInvalid) as error:
        raise FormatError(f"{path} is not a Parquet file, or it is damaged ({error})") from error
    return "ids" not in names and "path" in field_names(names, None, str(path))


def open_table(
    path: Path, *, columns: Mapping[str, str] | None = None, root: AnyPath | None = None, group: str | None = None
) -> tuple[Collection, Splits]:
    """All rows of a table, and the split of each (None where the table has no such column).

    Raises:
        InputError: it cannot be read, or has no column for the files.
    """
    table: Collection
    if path.suffix.lower() in TABLE_SUFFIXES:
        table = TableCollection(path, split="all", columns=columns, root=root, group=group)
        rows = _text_rows(path)
    else:
        table = ParquetTable(path, columns=columns, root=root, group=group)
        rows = _parquet_rows(path)
    present = list(dict.fromkeys(name for row in rows for name in row))
    column = field_names(present, columns, str(path)).get("split")
    if column is None:
        return table, [None] * len(table)
    texts = [str(row.get(column) or "").strip() for row in rows]
    return table, [(split_name(text) or text) or None for text in texts]


def facts_by_table(
    collection: Collection, path: AnyPath, *, columns: Mapping[str, str] | None = None
) -> tuple[list[dict[str, Any]], Splits]:
    """What a table says about each example of another source, and the split of each.

    A row belongs to the example whose key, or whose origin (of tokens: the file that they were made of), is the row's
    path; suffixes do not count, and folders may be missing in front of the shorter one.

    Raises:
        InputError: an example without a row, or with several.
    """
    table, splits = open_table(Path(path), columns=columns)
    rows, tails = _by_path([table.key(index) for index in range(len(table))])
    facts, found_splits = [], []
    for index, own in enumerate(collection._readable()):
        key, origin = collection.key(index), str(own.get("meta", {}).get("origin", ""))
        names = [origin] if origin and key.isdigit() else [key, origin]  # records of shards have numbers for keys
        found = next((some for some in (_rows_of(_parts(name), rows, tails) for name in names) if some), set())
        if len(found) != 1:
            raise InputError(
                f"{path} has {len(found) or 'no'} row{'s' * (len(found) > 1)} for {names[-1] or key} of "
                f"{collection.name}; it needs one, with the path as it is there"
            )
        [row] = found
        said = table._facts(row)
        facts.append({**own, **said, "meta": {**own.get("meta", {}), **said.get("meta", {})}})
        found_splits.append(splits[row])
    return facts, found_splits


Parts = tuple[str, ...]


def _by_path(paths: Sequence[str]) -> tuple[dict[Parts, set[int]], dict[Parts, set[int]]]:
    """Rows by their whole path, and by each end of it."""
    whole: dict[Parts, set[int]] = {}
    tails: dict[Parts, set[int]] = {}
    for row, path in enumerate(paths):
        parts = _parts(path)
        whole.setdefault(parts, set()).add(row)
        for start in range(len(parts)):
            tails.setdefault(parts[start:], set()).add(row)
    return whole, tails


def _rows_of(parts: Parts, whole: Mapping[Parts, set[int]], tails: Mapping[Parts, set[int]]) -> set[int]:
    """Rows whose path is the longest end of this one; else rows whose path ends with this one."""
    own = (parts[start:] for start in range(len(parts)))
    return next((whole[end] for end in own if end in whole), set()) or tails.get(parts, set())


def _parts(text: str) -> Parts:
    path = PurePosixPath(text.replace("\\", "/"))
    return tuple(part for part in path.with_suffix("").parts if part != "/") if path.name else ()


def _text_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    """The rows as they stand; ``TableCollection`` has checked them."""
    rows = csv_rows(path) if path.suffix.lower() in (".csv", ".tsv") else json_lines(path)
    return [values for _, values in rows]


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read as Parquet ({error})") from error
    return rows
