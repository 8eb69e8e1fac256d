"""Safetensors files that are written before their length is known, and read part by part.

The safetensors library writes whole tensors from memory; a video does not fit. ``TensorWriter`` reserves room for the
header, lets one tensor grow row by row, and fills the header in at the end. What it leaves is an ordinary file
(https://huggingface.co/docs/safetensors) that every reader opens. Reading goes through the library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError
from tokenreel.files import whole_file

__all__ = ["TensorReader", "TensorWriter"]

_NAMES = {
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "int8": "I8", "int16": "I16", "int32": "I32",
    "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL",
}  # fmt: skip
_TYPES = {short: np.dtype(name) for name, short in _NAMES.items()}
_ROWS_AT_MOST = 10**15
_ALIGN = 8


class TensorWriter:
    """A context manager: ``append`` rows to the growing tensor, ``add`` the others, and the file appears at the end.

    Args:
        path: where the file appears.
        name, dtype, row_shape: of the tensor that grows along its first axis.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, name: str, dtype: npt.DTypeLike, row_shape: tuple[int, ...] = ()
    ) -> None:
        self.path = Path(path)
        self.name, self.dtype, self.row_shape = name, np.dtype(dtype), row_shape
        self.num_rows = 0
        self._others: dict[str, _Part] = {}
        self._metadata: dict[str, str] = {}
        self._reserved = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(whole_file(self.path))
            self._file = stack.enter_context(temporary.open("wb", buffering=0))
            self._stack = stack.pop_all()
        return self

    def reserve(self, metadata: Mapping[str, str], tensors: Mapping[str, tuple[str, int]] | None = None) -> None:
        """Keep room for a header with metadata as long as this and these other tensors (dtype, ndim); call it first."""
        largest = {
            name: (np.dtype(kind).name, (_ROWS_AT_MOST,) * ndim) for name, (kind, ndim) in (tensors or {}).items()
        }
        header = self._header(largest, metadata, _ROWS_AT_MOST, worst=True)
        self._reserved = len(header) + 256
        self._file.write(b" " * (8 + self._reserved))

    def append(self, rows: npt.NDArray[Any]) -> None:
        """More rows of the growing tensor: contiguous, of its dtype and row shape."""
        if rows.dtype != self.dtype or rows.shape[1:] != self.row_shape:
            raise InputError(
                f"{self.name} grows by rows of {self.dtype} {self.row_shape}, got {rows.dtype} {rows.shape[1:]}"
            )
        assert self._reserved, "reserve() comes before append()"
        _write_all(self._file, np.ascontiguousarray(rows))
        self.num_rows += len(rows)

    def add(self, name: str, array: npt.NDArray[Any]) -> None:
        """Another tensor, written whole at the end."""
        self._others[name] = _Part(array.dtype, array.shape, (array,))

    def add_blocks(
        self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]]
    ) -> None:
        """Another tensor, written at the end from blocks that together fill ``shape`` and never stand together."""
        self._others[name] = _Part(np.dtype(dtype), shape, blocks)

    def finish(self, metadata: Mapping[str, str]) -> None:
        """The metadata as it is to stand; call it last."""
        self._metadata = dict(metadata)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self._stack.__exit__(kind, value, tb)
            return
        try:
            with self._stack:
                self._close_well()
        except OSError as error:
            raise InputError(f"{self.path} could not be written: {error.strerror}") from error

    def _close_well(self) -> None:
        grown = self.num_rows * self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))
        ordered = dict(sorted(self._others.items(), key=lambda item: -item[1].dtype.itemsize))
        if grown % _ALIGN:  # readers view each tensor in place, so each must start at a multiple of its item size
            padding = np.zeros(-grown % _ALIGN, np.uint8)
            ordered = {"_align": _Part(padding.dtype, padding.shape, (padding,)), **ordered}
        for name, part in ordered.items():
            written = sum(_write_all(self._file, np.ascontiguousarray(block)) for block in part.blocks)
            if written != part.num_bytes:
                raise InputError(f"the blocks of {name} have {written} bytes, its shape {part.shape} {part.num_bytes}")
        shapes = {name: (part.dtype.name, part.shape) for name, part in ordered.items()}
        header = self._header(shapes, self._metadata, self.num_rows)
        if len(header) > self._reserved:
            raise InputError(f"the metadata of {self.path.name} grew past the room kept for it; make it shorter")
        self._file.seek(0)
        self._file.write(self._reserved.to_bytes(8, "little") + header.ljust(self._reserved))

    def _header(
        self,
        others: Mapping[str, tuple[str, tuple[int, ...]]],
        metadata: Mapping[str, str],
        num_rows: int,
        *,
        worst: bool = False,
    ) -> bytes:
        position, entries = 0, {}
        tensors = {self.name: (self.dtype.name, (num_rows, *self.row_shape)), **others}
        for name, (kind, shape) in tensors.items():
            size = 10**17 if worst else np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64))
            offsets = [position, position + size]
            entries[name] = {"dtype": _NAMES[kind], "shape": list(shape), "data_offsets": offsets}
            position += size
        text = json.dumps({"__metadata__": dict(metadata), **entries}, ensure_ascii=False, separators=(",", ":"))
        encoded = text.encode()
        return encoded.ljust(len(encoded) + (-len(encoded)) % _ALIGN)


@dataclass(frozen=True, slots=True)
class _Part:
    """A tensor that is written at the end: what it is, and the arrays that fill it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    blocks: Iterable[npt.NDArray[Any]]

    @property
    def num_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


def _write_all(file: Any, array: npt.NDArray[Any]) -> int:
    view = array.reshape(-1).view(np.uint8).data
    while view:
        view = view[file.write(view) :]
    return array.nbytes


class TensorReader:
    """A safetensors file opened for reading part by part.

    The library checks the file; rows are then read with ordinary reads, since pages of a memory map count as memory
    of the process and would grow with the file.

    Raises:
        FormatError: it is missing, damaged or no safetensors file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = Path(path)
        if self.path.is_dir():
            raise FormatError(f"{self.path} is a folder, not a file of ours")
        try:
            with safe_open(str(self.path), framework="numpy"):
                pass
            with self.path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header: dict[str, Any] = json.loads(file.read(length))
        except FileNotFoundError:
            raise FormatError(f"{self.path} does not exist; check the name") from None
        except (SafetensorError, OSError, ValueError) as error:
            raise FormatError(f"{self.path} is not a safetensors file, or it is damaged ({error})") from error
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self._entries = header
        self._start = 8 + length

    @property
    def names(self) -> list[str]:
        """The tensors in the file."""
        return [name for name in self._entries if name != "_align"]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return tuple(self._entry(name)["shape"])

    def dtype(self, name: str) -> np.dtype[Any]:
        """dtype of a tensor, from the header."""
        kind = self._entry(name)["dtype"]
        if kind not in _TYPES:
            raise FormatError(f"{self.path}: the tensor {name!r} has the type {kind}, which numpy does not know")
        return _TYPES[kind]

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [start, stop) of a tensor."""
        total, *rest = self.shape(name)
        if not 0 <= start <= stop <= total:
            raise InputError(f"rows {start} to {stop} of {name} are not among its {total}")
        dtype = self.dtype(name)
        row_items = int(np.prod(rest, dtype=np.int64))
        offset = self._start + self._entry(name)["data_offsets"][0] + start * row_items * dtype.itemsize
        array = np.fromfile(self.path, dtype, (stop - start) * row_items, offset=offset)
        if array.size != (stop - start) * row_items:
            raise FormatError(f"{self.path} ends inside the tensor {name!r}; it changed while it was read")
        return array.reshape(stop - start, *rest)

    def whole(self, name: str) -> npt.NDArray[Any]:
        """A whole tensor."""
        return self.rows(name, 0, self.shape(name)[0])

    def json(self, key: str) -> dict[str, Any]:
        """A metadata value that holds a JSON object."""
        try:
            values = json.loads(self.metadata[key])
        except (KeyError, ValueError):
            values = None
        if not isinstance(values, dict):
            raise FormatError(
                f"{self.path}: the metadata entry {key!r} is missing or damaged; was it written by tokenreel?"
            )
        return values

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._entries:
            raise FormatError(f"{self.path} holds no tensor {name!r} (it has {', '.join(self.names) or 'none'})")
        entry: dict[str, Any] = self._entries[name]
        return entry

    def check_format(self, name: str, version: int) -> None:
        """Refuse a file of another kind, or of a version newer than ``version``."""
        found = self.metadata.get("format")
        if found != name:
            what = f"a {found} file" if found else "not one of ours"
            raise FormatError(f"{self.path} is {what}, expected {name}")
        text = self.metadata.get("version", "")
        if not text.isdigit():
            raise FormatError(f"{self.path} does not say its version; it is damaged")
        if int(text) > version:
            raise FormatError(
                f"{self.path} has version {text} of {name}; this tokenreel reads up to {version}; upgrade it"
            )
