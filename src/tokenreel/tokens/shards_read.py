"""Read shards: one record by its number, many as one array, whole columns; and check the files against the manifest.

Letters: B records asked for, N tokens of all of them end to end, L tokens of one record.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import index as as_index
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError
from tokenreel.types import Layout, Tokens

from .shards_columns import COLUMNS, tokens_of
from .shards_file import Cache, ShardFile
from .shards_manifest import Manifest, checksum, entry_of, examine

__all__ = ["ShardReader"]

Ids = npt.NDArray[np.unsignedinteger[Any]]

_OPEN_FILES = 64  # each holds a memory map and its file descriptors; a process may have about a thousand


class ShardReader:
    """The records of a directory of shards, or of one shard file, in the order in which they were written.

    Opening reads the manifest and looks that every file is there and of its size; the files are opened when needed.
    Readers pickle (a worker process opens the files anew) and may be read by several threads.

    Args:
        path: a directory with a manifest, or one shard.
        cache_bytes: memory for decoded columns; a million records with short captions take about 150 MB.

    Raises:
        InputError: nothing is there.
        FormatError: no manifest, or a shard is missing, cut off, foreign or newer; the message names the file.

    Attributes:
        manifest: the shards, and in ``manifest.spec`` what all records share.
    """

    def __init__(self, path: str | os.PathLike[str], *, cache_bytes: int = 512 << 20) -> None:
        self.path = Path(path)
        self._cache_bytes = cache_bytes
        if self.path.is_dir():
            self._directory, self.manifest = self.path, Manifest.read(self.path)
        elif self.path.exists():
            spec, file = examine(self.path)
            self._directory = self.path.parent
            self.manifest = Manifest(spec=spec, shards=(entry_of(self.path, file, None),), complete=True)
        else:
            raise InputError(f"there is no folder or file {self.path}")
        for shard in self.manifest.shards:
            self._check_size(shard.name, shard.num_bytes)
        self._open()

    def _open(self) -> None:
        self._starts = [0, *accumulate(shard.num_records for shard in self.manifest.shards)]
        self._cache = Cache(self._cache_bytes)
        self._files: OrderedDict[int, ShardFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("path", "manifest", "_directory", "_cache_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    @property
    def tokenizer(self) -> str:
        """Name of the tokenizer's class in ``TOKENIZERS``."""
        return self.manifest.spec.tokenizer

    @property
    def fingerprint(self) -> str:
        """Hash of the tokenizer's configuration and weights."""
        return self.manifest.spec.fingerprint

    @property
    def codebook_size(self) -> int:
        """Ids lie in [0, codebook_size)."""
        return self.manifest.spec.codebook_size

    @property
    def layout(self) -> Layout:
        """``grid``, ``queries`` or ``bytes``."""
        return self.manifest.spec.layout

    def __len__(self) -> int:
        return self._starts[-1]

    def __repr__(self) -> str:
        return (
            f"ShardReader({len(self)} records in {len(self.manifest.shards)} shards, {self.layout} ids of "
            f"{self.codebook_size}, {self.tokenizer} {self.fingerprint[:12]}, {str(self.path)!r})"
        )

    def __getitem__(self, index: int) -> Tokens:
        """Record ``index`` as it was written; negative numbers count from the end."""
        file, row = self._place(index)
        group = file.group_of(row)
        ids = file.ids_group(group).record(row - file.group_starts[group])
        first, columns = file.side_block(row)
        values = {name: column[row - first].as_py() for name, column in columns}
        return tokens_of(values, self._as_ids(ids), self.manifest.spec)

    def __iter__(self) -> Iterator[Tokens]:
        return self.iter()

    def iter(self, start: int = 0, stop: int | None = None) -> Iterator[Tokens]:
        """Records ``start .. stop`` one by one. ``iter_ids`` is some ten times faster where ids are enough."""
        for file, first, last in self._groups(start, stop):
            group = file.ids_group(file.group_of(first))
            block_first, columns = file.side_block(first)
            part = [column.slice(first - block_first, last - first).to_pylist() for _, column in columns]
            names = [name for name, _ in columns]
            offset = file.group_starts[file.group_of(first)]
            for row, values in zip(range(first, last), zip(*part)):
                yield tokens_of(dict(zip(names, values)), self._as_ids(group.record(row - offset)), self.manifest.spec)

    def ids(self, index: int) -> Ids:
        """The ids of one record, ``(L,)``, without its other columns."""
        file, row = self._place(index)
        group = file.group_of(row)
        return self._as_ids(file.ids_group(group).record(row - file.group_starts[group]))

    def ids_batch(self, indices: Iterable[int]) -> tuple[Ids, npt.NDArray[np.int32]]:
        """The ids of some records end to end ``(N,)`` and how many each has ``(B,)``.

        Of records of equal length, ``ids_N.reshape(len(token_counts_B), -1)`` is the batch.
        """
        parts = []
        for index in indices:
            file, row = self._place(index)
            group = file.group_of(row)
            parts.append(file.ids_group(group).record(row - file.group_starts[group]))
        itemsize = self.manifest.spec.dtype.itemsize
        counts = np.array([len(part) // itemsize for part in parts], np.int32)
        return self._as_ids(np.concatenate(parts) if parts else np.empty(0, np.uint8)), counts

    def iter_ids(
        self, start: int = 0, stop: int | None = None, *, batch_records: int = 1024
    ) -> Iterator[tuple[Ids, npt.NDArray[np.int32]]]:
        """Like ``ids_batch``, over records ``start .. stop`` in batches; the fast way to read everything in order."""
        if batch_records < 1:
            raise InputError(f"batch_records must be at least 1, got {batch_records}")
        start, stop, _ = slice(start, stop).indices(len(self))
        for first in range(start, stop, batch_records):
            yield self._ids_range(first, min(first + batch_records, stop))

    def columns(self, *names: str, start: int = 0, stop: int | None = None) -> Any:
        """Columns of records ``start .. stop`` as a ``pyarrow.Table``: ``reader.columns("caption").to_pydict()``."""
        import pyarrow as pa

        if unknown := [name for name in names if name not in COLUMNS]:
            raise InputError(f"shards have no column {unknown[0]!r}; they have {', '.join(COLUMNS)}")
        start, stop, _ = slice(start, stop).indices(len(self))
        tables = [
            self._file(shard).table(list(names))
            for shard in range(len(self.manifest.shards))
            if self._starts[shard] < stop and self._starts[shard + 1] > start
        ]
        if not tables:
            from .shards_columns import arrow_schema

            return arrow_schema().empty_table().select(list(names))
        first = self._starts[bisect_right(self._starts, start) - 1]
        return pa.concat_tables(tables).slice(start - first, stop - start)

    def verify(self) -> None:
        """Read every byte and compare with the checksums of the manifest.

        Raises:
            FormatError: files that differ or are gone, by name; or there are no checksums (one file without manifest).
        """
        broken = []
        for shard in self.manifest.shards:
            if shard.crc32 is None:
                raise FormatError(f"{self.path} was opened without a manifest, so there is no checksum to compare with")
            self._check_size(shard.name, shard.num_bytes)
            found = checksum(self._directory / shard.name)
            if found != shard.crc32:
                broken.append(f"{shard.name} (CRC-32 {found}, not {shard.crc32})")
        if broken:
            raise FormatError(f"{self.path} has damaged shards: {', '.join(broken)}; write or copy them again")

    def _check_size(self, name: str, num_bytes: int) -> None:
        path = self._directory / name
        try:
            found = path.stat().st_size
        except OSError:
            raise FormatError(
                f"{path} is missing, but the manifest lists it; put it back, or rebuild_manifest() without it"
            ) from None
        if found != num_bytes:
            how = "cut off" if found < num_bytes else "longer than it was"
            raise FormatError(f"{path} is {how}: it has {found} bytes, the manifest says {num_bytes}")

    def _place(self, index: int) -> tuple[ShardFile, int]:
        index = as_index(index)
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"record {index} of {self.path}, which has {len(self)} records")
        shard = bisect_right(self._starts, at) - 1
        return self._file(shard), at - self._starts[shard]

    def _file(self, shard: int) -> ShardFile:
        file = self._files.get(shard)
        if file is None:
            with self._cache.lock:
                entry = self.manifest.shards[shard]
                file = ShardFile(self._directory / entry.name, entry, self.manifest.spec, self._cache)
                self._files[shard] = file
                while len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
        return file

    def _groups(self, start: int, stop: int | None) -> Iterator[tuple[ShardFile, int, int]]:
        """``(file, first row, last row + 1)`` of each row group, or part of one, that covers records start .. stop."""
        start, stop, _ = slice(start, stop).indices(len(self))
        while start < stop:
            file, row = self._place(start)
            last = min(file.group_starts[file.group_of(row) + 1], row + stop - start)
            yield file, row, last
            start += last - row

    def _ids_range(self, start: int, stop: int) -> tuple[Ids, npt.NDArray[np.int32]]:
        parts = list(self._groups(start, stop))
        lengths = np.concatenate([file.lengths[first:last] for file, first, last in parts])
        out = np.empty(int(lengths.sum()), np.uint8)
        at = 0
        for file, first, last in parts:
            number = file.group_of(first)
            offset = file.group_starts[number]
            at += file.ids_group(number).copy_rows(first - offset, last - offset, out[at:])
        return self._as_ids(out), (lengths // self.manifest.spec.dtype.itemsize).astype(np.int32)

    def _as_ids(self, ids_bytes: npt.NDArray[np.uint8]) -> Ids:
        dtype = self.manifest.spec.dtype
        return ids_bytes.view(dtype).astype(dtype.newbyteorder("="), copy=False)
