"""One open shard: where each record's ids lie in the file, and its other columns, block by block.

The writer makes the ids of a row group one uncompressed PLAIN page, which in Parquet is ``(length, bytes)`` after
``(length, bytes)``. With the lengths from the ``num_tokens`` column every record has a known place, and reading it is
a copy out of the memory map. A row group that is not of this form (compressed, or rewritten by another tool) is
decoded by pyarrow as a whole and kept.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, MismatchError

from .shards_columns import SIDE_COLUMNS
from .shards_manifest import ShardEntry, ShardSpec, examine

__all__ = ["Cache", "IdsGroup", "ShardFile"]

_BLOCK_ROWS = 16384  # other columns are decoded for about this many records at once: 4 ms, then 20 us a record


class Cache:
    """What was decoded; the least recently used is dropped. One lock: pyarrow's readers are not for two threads."""

    def __init__(self, limit_bytes: int) -> None:
        self.lock = RLock()
        self._limit_bytes = limit_bytes
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._num_bytes = 0

    def get(self, key: Hashable, load: Callable[[], tuple[Any, int]]) -> Any:
        """The value of ``key``; ``load`` gives it and its bytes when it is not at hand."""
        with self.lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
            value, num_bytes = load()
            self._values[key] = value, num_bytes
            self._num_bytes += num_bytes
            while self._num_bytes > self._limit_bytes and len(self._values) > 1:
                self._num_bytes -= self._values.popitem(last=False)[1][1]
            return value


@dataclass(frozen=True, slots=True)
class IdsGroup:
    """The ids of one row group: record r is ``lengths[r]`` bytes from ``starts[r]`` on, ``gap`` bytes between two."""

    bytes_U8: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    gap: int

    def record(self, row: int) -> npt.NDArray[np.uint8]:
        """A copy of the bytes of one record."""
        start = int(self.starts[row])
        return self.bytes_U8[start : start + int(self.lengths[row])].copy()

    def copy_rows(self, first: int, stop: int, out: npt.NDArray[np.uint8]) -> int:
        """Copy the bytes of records ``first .. stop`` to the start of ``out``; the number of bytes copied."""
        lengths = self.lengths[first:stop]
        length, rows = int(lengths[0]), stop - first
        if not (lengths != length).any():
            start, stride = int(self.starts[first]) - self.gap, length + self.gap
            block = self.bytes_U8[start : start + rows * stride].reshape(rows, stride)
            out[: rows * length].reshape(rows, length)[:] = block[:, self.gap :]
            return rows * length
        at = 0
        for start, length in zip(self.starts[first:stop].tolist(), lengths.tolist()):
            out[at : at + length] = self.bytes_U8[start : start + length]
            at += length
        return at


class ShardFile:
    """An open shard; rows are counted from 0 within the file.

    Raises:
        FormatError: the file is damaged, foreign or newer, or is not what the manifest lists.
        MismatchError: it is of another tokenizer than its manifest.
    """

    def __init__(self, path: Path, entry: ShardEntry, spec: ShardSpec, cache: Cache) -> None:
        self.path = path
        self._spec = spec
        self._cache = cache
        own_spec, self._parquet = examine(path)
        if different := spec.differences(own_spec):
            raise MismatchError(f"{path} does not belong to its manifest: it has {different}")
        metadata = self._parquet.metadata
        if metadata.num_rows != entry.num_records:
            raise FormatError(f"{path} has {metadata.num_rows} records, its manifest says {entry.num_records}")
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.group_starts: list[int] = [0, *np.cumsum(rows).tolist()]
        self.lengths = self._read_lengths()
        self._blocks = self._make_blocks()
        leaves = self._parquet.schema
        self._ids_leaf = next(leaf for leaf in range(len(leaves)) if leaves.column(leaf).path == "ids")
        self._mapped: dict[int, IdsGroup] = {}
        with open(path, "rb") as file:
            self._map = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def _read_lengths(self) -> npt.NDArray[np.int64]:
        column = self._parquet.read(columns=["num_tokens"], use_threads=False)["num_tokens"]
        if column.null_count:
            raise FormatError(f"{self.path} has records whose num_tokens is null")
        counts: npt.NDArray[np.int32] = column.to_numpy()
        return counts.astype(np.int64) * self._spec.dtype.itemsize

    def _make_blocks(self) -> list[int]:
        """Group numbers at which a block begins, and the number of groups at the end."""
        blocks = [0]
        for group, start in enumerate(self.group_starts):
            if start - self.group_starts[blocks[-1]] >= _BLOCK_ROWS:
                blocks.append(group)
        last = len(self.group_starts) - 1
        return blocks if blocks[-1] == last else [*blocks, last]

    def group_of(self, row: int) -> int:
        """The row group that holds ``row``."""
        return bisect_right(self.group_starts, row) - 1

    def ids_group(self, group: int) -> IdsGroup:
        """Where the ids of a row group lie."""
        found = self._mapped.get(group)
        if found is not None:
            return found
        lengths = self.lengths[self.group_starts[group] : self.group_starts[group + 1]]
        page = self._page_start(group, int(lengths.sum()) + 4 * len(lengths))
        if page is None:
            decoded: IdsGroup = self._cache.get(
                (self.path.name, "ids", group), lambda: self._decode_ids(group, lengths)
            )
            return decoded
        found = IdsGroup(self._map, page + np.cumsum(lengths + 4) - lengths, lengths, 4)
        self._mapped[group] = found
        return found

    def side_block(self, row: int) -> tuple[int, list[tuple[str, Any]]]:
        """``(first row, [(column, Arrow array)])`` of the block of records that holds ``row``; all columns but ids."""
        block = bisect_right(self._blocks, self.group_of(row)) - 1
        first = self.group_starts[self._blocks[block]]
        return first, self._cache.get((self.path.name, "side", block), lambda: self._load_side(block))

    def table(self, names: list[str]) -> Any:
        """Whole columns as a ``pyarrow.Table``."""
        with self._cache.lock:
            return self._parquet.read(columns=names, use_threads=False).select(names)

    def _load_side(self, block: int) -> tuple[list[tuple[str, Any]], int]:
        groups = range(self._blocks[block], self._blocks[block + 1])
        table = self._parquet.read_row_groups(groups, columns=list(SIDE_COLUMNS), use_threads=False).combine_chunks()
        return [(name, table[name].chunk(0)) for name in SIDE_COLUMNS], table.nbytes

    def _page_start(self, group: int, num_bytes: int) -> int | None:
        """Where the one page of a row group's ids begins in the file, or None if it is not stored so."""
        column = self._parquet.metadata.row_group(group).column(self._ids_leaf)
        if (
            column.compression != "UNCOMPRESSED"
            or column.has_dictionary_page
            or set(column.encodings) - {"PLAIN", "RLE"}
        ):
            return None
        # A page header (Thrift, compact): field 1 = 0, a data page of version 1; fields 2 and 3 its sizes, zigzag
        # varints. If both are what all records of the group take, the page is the only one and has no null levels.
        expected = b"\x15\x00" + 2 * (b"\x15" + _varint(2 * num_bytes))
        start = column.data_page_offset
        if self._map[start : start + len(expected)].tobytes() != expected:
            return None
        return int(start + column.total_compressed_size - num_bytes)

    def _decode_ids(self, group: int, lengths: npt.NDArray[np.int64]) -> tuple[IdsGroup, int]:
        import pyarrow as pa

        column = self._parquet.read_row_group(group, columns=["ids"], use_threads=False)["ids"].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # pyarrow before 20 keeps the chunk
            column = column.chunk(0)
        column = column.cast(pa.large_binary())
        offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
        if column.null_count or (np.diff(offsets) != lengths).any():
            raise FormatError(f"{self.path}: the ids of row group {group} are not as long as num_tokens says")
        data = column.buffers()[2]
        values = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
        return IdsGroup(values, offsets[:-1], lengths, 0), values.nbytes


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
