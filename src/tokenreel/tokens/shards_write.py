"""Write shards: records are gathered to row groups, row groups to files, and a file takes its name when it is whole.

Letters: N records, L tokens of one record.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError, MismatchError
from tokenreel.types import Grid, Layout, Tokens

from .shards_columns import row_of, shape_row
from .shards_manifest import MANIFEST_NAME, Manifest, ShardSpec, checksum, entry_of, examine
from .shards_newfile import MAX_RECORD_BYTES, NewShard, arrow_column, row_group

__all__ = ["ShardWriter"]

# A row group's ids are one page. Smaller groups pay for 17 column headers too often, larger ones leave the processor's
# cache between encoding, checksum and copying to the file: of 1, 2, 4 and 8 MiB the third was the fastest.
_GROUP_BYTES = 4 << 20
_MAX_GROUP_ROWS = 16384  # pyarrow cuts a page at 20,000 rows; one page a row group is what random access builds on

Texts = Sequence[str | None]
Numbers = Sequence[float | None] | npt.NDArray[np.floating[Any]]
Labels = Sequence[str | int | None] | npt.NDArray[np.integer[Any]]


class ShardWriter:
    """Writes the ids of many clips into ``directory``; a context manager.

    A shard is written under a hidden temporary name, renamed when whole and then listed in the manifest: whatever
    kills the process leaves whole shards only. When the block ends, with an error or without, what was written so far
    is made a shard too (a smaller one); after an error the manifest stays ``complete: false``. One writer a directory.

    Args:
        directory: a new or empty folder; with ``resume`` also one that a writer of the same tokenizer left.
        tokenizer, fingerprint, codebook_size, layout: what all records share.
        shard_bytes: a shard is closed when it has reached this size.
        row_group_rows: most records in a row group, which also ends at about 4 MiB of ids; at most 16,384.
        compression: of the ids. ``none`` is what makes random access fast; the other columns are always compressed.
        resume: go on after the last whole shard, and remove temporary files of the writer that was killed.

    Raises:
        InputError: ``directory`` is not empty and ``resume`` is not set, or is no shard folder.
        MismatchError: ``resume`` into shards of another tokenizer.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        tokenizer: str,
        fingerprint: str,
        codebook_size: int,
        layout: Layout,
        shard_bytes: int = 256 << 20,
        row_group_rows: int = 8192,
        compression: Literal["none", "zstd"] = "none",
        resume: bool = False,
    ) -> None:
        if shard_bytes < 1:
            raise InputError(f"shard_bytes must be at least 1, got {shard_bytes}")
        if not 1 <= row_group_rows <= _MAX_GROUP_ROWS:
            raise InputError(f"row_group_rows must lie in 1..{_MAX_GROUP_ROWS}, got {row_group_rows}")
        if compression not in ("none", "zstd"):
            raise InputError(f"compression must be none or zstd, got {compression!r}")
        self.directory = Path(directory)
        self.spec = ShardSpec(tokenizer=tokenizer, fingerprint=fingerprint, codebook_size=codebook_size, layout=layout)
        self._shard_bytes = shard_bytes
        self._group_rows = row_group_rows
        self._group_bytes = min(_GROUP_BYTES, shard_bytes)
        self._compression = compression
        self._resume = resume
        self._manifest = Manifest(spec=self.spec)
        self._next_index = 0
        self._shard: NewShard | None = None
        self._pending: list[tuple[bytes, Mapping[str, Any]]] = []
        self._pending_bytes = 0
        self._state: Literal["new", "open", "broken", "closed"] = "new"

    def __enter__(self) -> Self:
        if self._state != "new":
            raise InputError("a ShardWriter opens once; make a new one, with resume=True to go on")
        directory = self.directory
        if directory.exists() and not directory.is_dir():
            raise InputError(f"cannot write shards to {directory}: it is a file; give a folder")
        if directory.exists() and any(directory.iterdir()):
            if not self._resume:
                raise InputError(
                    f"cannot write shards to {directory}: it is not empty; choose another folder, or resume=True to "
                    "add to the shards in it"
                )
            self._take_up()
        self._manifest = replace(self._manifest, complete=False)
        self._manifest.write(directory)
        self._state = "open"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._state == "open":
                self.finish_shard()
                self._manifest = replace(self._manifest, complete=kind is None)
                self._manifest.write(self.directory)
        finally:
            self._state = "closed"
            if self._shard is not None:
                self._shard.discard()

    @property
    def num_records(self) -> int:
        """Records so far, those of a resumed directory included."""
        return self._manifest.num_records + (self._shard.num_records if self._shard else 0) + len(self._pending)

    def write(self, tokens: Tokens) -> None:
        """Append one clip.

        Caption, label, source, start_seconds and end_seconds of ``tokens.meta`` become columns, the rest one JSON text.

        Raises:
            MismatchError: ``tokens`` are of another tokenizer, fingerprint, codebook or layout.
            InputError: the meta is not JSON, or the record has 2 GiB or more.
        """
        self._check_open()
        if different := self.spec.differences(tokens):
            raise MismatchError(f"these tokens do not belong into {self.directory}: they have {different}")
        self._check_record_bytes(tokens.num_tokens * self.spec.dtype.itemsize)
        self._append(tokens.ids_L.astype(self.spec.dtype, copy=False).tobytes(), row_of(tokens))

    def write_batch(
        self,
        ids_NL: npt.NDArray[np.integer[Any]],
        *,
        grid: Grid,
        size: tuple[int, int, int],
        fps: float | None = None,
        captions: Texts | None = None,
        labels: Labels | None = None,
        sources: Texts | None = None,
        start_seconds: Numbers | None = None,
        end_seconds: Numbers | None = None,
    ) -> None:
        """Append N records of equal length, grid, size and rate; the fast way in (no Python object a record).

        Raises:
            InputError: an id out of range, a length that the grid does not have, not one caption a record ...
        """
        self._check_open()
        ids_NL = self._checked_ids(ids_NL, grid)
        num_records, num_tokens = ids_NL.shape
        values = {"caption": captions, "source": sources, "start_seconds": start_seconds, "end_seconds": end_seconds}
        columns = _arrow_columns(values | _label_columns(labels), num_records)
        shared: dict[str, Any] = {**shape_row(num_tokens, grid, size), **({} if fps is None else {"fps": float(fps)})}
        group = max(1, min(self._group_rows, self._group_bytes // max(1, num_tokens * ids_NL.itemsize)))
        repeated = {name: arrow_column(name, np.full(group, value)) for name, value in shared.items()}
        start = 0
        while num_records - start >= group:
            self._write_pending()
            self._write_group(
                ids_NL[start : start + group].reshape(-1).view(np.uint8),
                np.arange(group + 1, dtype=np.int64) * (num_tokens * ids_NL.itemsize),
                repeated | {name: column[start : start + group] for name, column in columns.items()},
            )
            start += group
        for index in range(start, num_records):
            row = {name: column[index].as_py() for name, column in columns.items()}
            self._append(ids_NL[index].tobytes(), shared | row)

    def finish_shard(self) -> None:
        """Close the shard being written: all records so far are then safe and listed, whatever happens next."""
        self._check_open()
        self._write_pending()
        if self._shard is None:
            return
        try:
            entry = self._shard.finish()
        except BaseException:
            self._state = "broken"
            raise
        self._shard = None
        self._next_index += 1
        self._manifest = replace(self._manifest, shards=(*self._manifest.shards, entry))
        self._manifest.write(self.directory)

    def _take_up(self) -> None:
        """Read what an earlier writer left: its manifest, a whole shard not yet listed, its temporary files."""
        for pattern in (".shard-*.part.parquet", f".{Path(MANIFEST_NAME).stem}.*.part.json"):
            for path in self.directory.glob(pattern):
                path.unlink(missing_ok=True)
        if not any(self.directory.iterdir()):
            return
        if not (self.directory / MANIFEST_NAME).exists():
            raise InputError(
                f"cannot resume in {self.directory}: it has no {MANIFEST_NAME}, so it holds something else"
            )
        manifest = Manifest.read(self.directory)
        if different := manifest.spec.differences(self.spec):
            raise MismatchError(f"cannot resume in {self.directory} with another tokenizer: this one has {different}")
        shards = list(manifest.shards)
        listed = {shard.name for shard in shards}
        paths = sorted(self.directory.glob("shard-*.parquet"))
        for path in paths:
            if path.name not in listed:  # renamed, and killed before the manifest was written
                spec, file = examine(path)
                if different := self.spec.differences(spec):
                    raise MismatchError(f"{path} does not belong into {self.directory}: it has {different}")
                shards.append(entry_of(path, file, checksum(path)))
        self._next_index = 1 + max((int(path.stem[6:]) for path in paths if path.stem[6:].isdigit()), default=-1)
        self._manifest = replace(manifest, shards=tuple(shards))

    def _check_open(self) -> None:
        if self._state != "open":
            what = {"new": "not open yet; use it in a with block", "broken": "broken by an earlier error"}
            raise InputError(f"the ShardWriter of {self.directory} is {what.get(self._state, 'closed')}")

    def _checked_ids(self, ids_NL: npt.NDArray[np.integer[Any]], grid: Grid) -> npt.NDArray[np.unsignedinteger[Any]]:
        if not isinstance(ids_NL, np.ndarray) or ids_NL.ndim != 2 or ids_NL.dtype.kind not in "ui":
            raise InputError(
                f"ids_NL must be a whole-number array (N, L), got {getattr(ids_NL, 'dtype', '')} {np.shape(ids_NL)}"
            )
        if self.spec.layout == "grid" and ids_NL.shape[1] != grid.num_cells:
            raise InputError(f"ids_NL has {ids_NL.shape[1]} ids a record, its grid {grid} has {grid.num_cells}")
        dtype, size = self.spec.dtype, self.spec.codebook_size
        self._check_record_bytes(ids_NL.shape[1] * dtype.itemsize)
        if ids_NL.size and not (ids_NL.dtype == dtype and size - 1 == np.iinfo(dtype).max):
            low, high = int(ids_NL.min()), int(ids_NL.max())
            if low < 0 or high >= size:
                raise InputError(f"ids_NL must lie in [0, {size}), found {low if low < 0 else high}")
        return np.ascontiguousarray(ids_NL, dtype)

    def _check_record_bytes(self, num_bytes: int) -> None:
        if num_bytes >= MAX_RECORD_BYTES:
            raise InputError(
                f"a record of {num_bytes} bytes of ids is too long for a shard (2 GiB); cut the clip in parts"
            )

    def _append(self, ids: bytes, row: Mapping[str, Any]) -> None:
        if self._pending_bytes + len(ids) > self._group_bytes:
            self._write_pending()
        self._pending.append((ids, row))
        self._pending_bytes += len(ids)
        if len(self._pending) >= self._group_rows:
            self._write_pending()

    def _write_pending(self) -> None:
        if not self._pending:
            return
        ids, rows = zip(*self._pending)
        self._pending, self._pending_bytes = [], 0
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum([len(part) for part in ids], out=offsets[1:])
        joined = np.frombuffer(ids[0] if len(ids) == 1 else b"".join(ids), np.uint8)
        names = {name for row in rows for name in row}
        self._write_group(joined, offsets, {name: [row.get(name) for row in rows] for name in names})

    def _write_group(self, ids: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], columns: dict[str, Any]) -> None:
        table = row_group(ids, offsets, columns)
        try:
            if self._shard is None:
                path = self.directory / f"shard-{self._next_index:05d}.parquet"
                self._shard = NewShard(path, self.spec, self._compression)
            self._shard.write(table, int(offsets[-1]) // self.spec.dtype.itemsize)
        except BaseException:
            self._state = "broken"
            raise
        if self._shard.num_bytes >= self._shard_bytes:
            self.finish_shard()


def _label_columns(labels: Labels | None) -> dict[str, Any]:
    """Names go to ``label``, numbers to ``label_id``."""
    if labels is None:
        return {}
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "ui":
        return {"label_id": labels}
    names = [value if isinstance(value, str) else None for value in labels]
    numbers = [None if isinstance(value, str) else value for value in labels]
    return {"label": names} | ({"label_id": numbers} if any(number is not None for number in numbers) else {})


def _arrow_columns(columns: Mapping[str, Any], num_records: int) -> dict[str, Any]:
    """The columns that were given, converted (and so refused) before anything of the batch is written."""
    given = {name: values for name, values in columns.items() if values is not None}
    for name, values in given.items():
        if len(values) != num_records:
            raise InputError(f"write_batch got {num_records} records and {len(values)} values for {name}")
    return {name: arrow_column(name, values) for name, values in given.items()}
