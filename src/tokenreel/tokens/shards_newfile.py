"""One shard being written: its Parquet file under a temporary name, summed up as it grows.

Nothing here knows of directories or manifests; ``shards_write`` does.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError
from tokenreel.files import whole_file

from .shards_columns import COLUMNS, COMPRESSED, arrow_schema
from .shards_manifest import METADATA_KEY, ShardEntry, ShardSpec

__all__ = ["MAX_RECORD_BYTES", "NewShard", "arrow_column", "row_group"]

MAX_RECORD_BYTES = (1 << 31) - 1024  # Parquet counts the bytes of a page in 31 bits
_CHUNK_BYTES = 1 << 20


class NewShard:
    """One Parquet file under its temporary name."""

    def __init__(self, path: Path, spec: ShardSpec, compression: str) -> None:
        self._path = path
        self.num_records = 0
        self._num_tokens = 0
        with ExitStack() as stack:
            temporary = stack.enter_context(whole_file(path))
            # "r+b", not "wb": after a truncation ext4 writes the file to the disk at once when it is closed.
            self._sink = _Sink(stack.enter_context(temporary.open("r+b")))
            self._writer = _parquet_writer(self._sink, spec, compression)
            self._stack = stack.pop_all()

    @property
    def num_bytes(self) -> int:
        """Size of the file so far."""
        return self._sink.num_bytes

    def write(self, table: Any, num_tokens: int) -> None:
        """Append ``table`` as one row group."""
        self._writer.write_table(table, row_group_size=len(table))
        self.num_records += len(table)
        self._num_tokens += num_tokens

    def finish(self) -> ShardEntry:
        """Write the footer and give the file its name."""
        self._writer.close()
        self._sink.finish()
        self._stack.close()
        return ShardEntry(
            name=self._path.name,
            num_records=self.num_records,
            num_tokens=self._num_tokens,
            num_bytes=self._sink.num_bytes,
            crc32=f"{self._sink.crc:08x}",
        )

    def discard(self) -> None:
        """Remove the temporary file; pyarrow's writer still wants to be closed, into nothing."""
        self._sink.discard()
        with suppress(Exception):  # it already failed once, and that error is on its way
            self._writer.close()
        self._stack.__exit__(InputError, InputError("discarded"), None)


def _parquet_writer(sink: Any, spec: ShardSpec, compression: str) -> Any:
    import pyarrow.parquet as pq

    integers = [name for name, (kind, _) in COLUMNS.items() if kind.startswith("int")]
    return pq.ParquetWriter(
        sink,
        arrow_schema().with_metadata({METADATA_KEY: json.dumps(spec.header())}),
        compression={"ids": compression} | dict.fromkeys(COMPRESSED, "zstd"),
        use_dictionary=[*integers, "fps", "label", "source"],  # captions and meta differ: zstd alone is smaller
        column_encoding={"ids": "PLAIN"},
        write_statistics=["num_tokens", "label", "label_id", "start_seconds", "end_seconds"],
        data_page_size=MAX_RECORD_BYTES,
    )


class _Sink:
    """The file under pyarrow: a thread of its own sums up and writes what passes, while pyarrow encodes the next.

    Encoding takes about as long as checksum and copying to the file together: one after the other they came to
    440 MB/s where this came to 600 (row groups of 2 MiB; docs/formats.md has the figures of today).
    """

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, "shard")
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._under_way: deque[Future[None]] = deque()
        self._swallow = False
        self.num_bytes = 0
        self.crc = 0

    def write(self, data: bytes) -> int:
        if not self._swallow:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self.num_bytes += len(data)
            if self._waiting_bytes >= _CHUNK_BYTES:
                self._hand_over()
        return len(data)

    def finish(self) -> None:
        """Wait until everything is in the file."""
        self._hand_over()
        while self._under_way:
            self._under_way.popleft().result()
        self._thread.shutdown()

    def discard(self) -> None:
        """Take no more."""
        self._swallow = True
        self._thread.shutdown(cancel_futures=True)

    def _hand_over(self) -> None:
        if len(self._under_way) >= 2:
            self._under_way.popleft().result()
        self._under_way.append(self._thread.submit(self._put, self._waiting))
        self._waiting, self._waiting_bytes = [], 0

    def _put(self, parts: list[bytes]) -> None:
        for data in parts:
            self.crc = zlib.crc32(data, self.crc)
            self._file.write(data)

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def row_group(ids: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], columns: Mapping[str, Any]) -> Any:
    """One row group as a ``pyarrow.Table``; the bytes of the ids are not copied."""
    import pyarrow as pa

    schema = arrow_schema()
    rows = len(offsets) - 1
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(ids)]
    arrays = [pa.Array.from_buffers(pa.binary(), rows, buffers)]
    for field in list(schema)[1:]:
        values = columns.get(field.name)
        arrays.append(pa.nulls(rows, field.type) if values is None else arrow_column(field.name, values))
    return pa.Table.from_arrays(arrays, schema=schema)


def arrow_column(name: str, values: Any) -> Any:
    """``values`` as the ``pyarrow.Array`` of a column.

    Raises:
        InputError: the column cannot hold them.
    """
    import pyarrow as pa

    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, arrow_schema().field(name).type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the column {name} cannot hold what was given: {error}") from error
