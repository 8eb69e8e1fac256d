"""One record of a shard: which columns there are, and how a ``Tokens`` becomes a row and a row a ``Tokens`` again.

Letters: L tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError
from tokenreel.types import Grid, Tokens

if TYPE_CHECKING:
    from .shards_manifest import ShardSpec

__all__ = ["COLUMNS", "COMPRESSED", "SIDE_COLUMNS", "arrow_schema", "row_of", "tokens_of"]

# name -> (Arrow type, may be null). The order is the order in the file; ids come first.
COLUMNS: dict[str, tuple[str, bool]] = {
    "ids": ("binary", False),
    "num_tokens": ("int32", False),
    "grid_t": ("int32", False),
    "grid_h": ("int32", False),
    "grid_w": ("int32", False),
    "num_frames": ("int32", False),
    "height": ("int32", False),
    "width": ("int32", False),
    "fps": ("float64", True),
    "caption": ("string", True),
    "label": ("string", True),
    "label_id": ("int64", True),
    "source": ("string", True),
    "start_seconds": ("float64", True),
    "end_seconds": ("float64", True),
    "pts_seconds": ("list<float64>", True),
    "meta": ("string", True),
}
SIDE_COLUMNS = tuple(name for name in COLUMNS if name != "ids")
# Columns that zstd makes smaller; the others are numbers whose dictionary already is a few bytes a row group.
COMPRESSED = ("caption", "label", "source", "start_seconds", "end_seconds", "pts_seconds.list.element", "meta")


@cache
def arrow_schema() -> Any:
    """The ``pyarrow.Schema`` of a shard, without its key-value metadata."""
    import pyarrow as pa

    types = {name: getattr(pa, name)() for name in ("binary", "int32", "int64", "float64", "string")}
    types["list<float64>"] = pa.list_(pa.field("element", pa.float64(), nullable=False))
    return pa.schema([pa.field(name, types[kind], nullable=null) for name, (kind, null) in COLUMNS.items()])


def _column_for(key: str, value: Any) -> str | None:
    """The column that holds ``meta[key]`` without loss, or None: then it goes into the ``meta`` column as JSON."""
    if isinstance(value, str) and key in ("caption", "label", "source"):
        return key if value.isascii() or _is_utf8(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer):
        return None
    if key == "label" and not isinstance(value, float) and -(2**63) <= value < 2**63:
        return "label_id"
    if key in ("start_seconds", "end_seconds") and (isinstance(value, float) or abs(int(value)) < 2**53):
        return key
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name in another encoding carries lone surrogates
        return False
    return True


def row_of(tokens: Tokens) -> dict[str, Any]:
    """Every column of the record but ``ids``; columns that are null are left out.

    Raises:
        InputError: ``tokens.meta`` holds something that JSON cannot.
    """
    row: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in tokens.meta.items():
        column = _column_for(key, value)
        if column is None:
            rest[key] = value
        else:
            row[column] = value
    if rest:
        try:
            row["meta"] = json.dumps(rest, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"Tokens.meta must hold JSON values to be written to a shard: {error}") from None
    if tokens.pts_seconds is not None:
        row["pts_seconds"] = tokens.pts_seconds.astype(np.float64, copy=False)
    if tokens.fps is not None:
        row["fps"] = float(tokens.fps)
    return row | shape_row(tokens.num_tokens, tokens.grid, tokens.size)


def shape_row(num_tokens: int, grid: Grid, size: tuple[int, int, int]) -> dict[str, int]:
    """The columns that say how long a record is and which clip it covers."""
    num_frames, height, width = size
    if max(grid.t, grid.h, grid.w, *size) >= 2**31:
        raise InputError(f"a shard holds sizes below 2**31, got grid {grid} and size {size}")
    return {
        "num_tokens": num_tokens,
        "grid_t": grid.t,
        "grid_h": grid.h,
        "grid_w": grid.w,
        "num_frames": num_frames,
        "height": height,
        "width": width,
    }


def tokens_of(row: Mapping[str, Any], ids_L: npt.NDArray[np.unsignedinteger[Any]], spec: ShardSpec) -> Tokens:
    """The inverse of ``row_of``: what was written, equal in every field."""
    meta = {
        key: row[key] for key in ("caption", "label", "source", "start_seconds", "end_seconds") if row[key] is not None
    }
    if row["label_id"] is not None:
        meta.setdefault("label", row["label_id"])
    if row["meta"] is not None:
        try:
            meta.update(json.loads(row["meta"]))
        except ValueError as error:
            raise FormatError(f"the meta column holds {row['meta'][:60]!r}, which is not a JSON object") from error
    pts_seconds = row["pts_seconds"]
    return Tokens(
        ids_L=ids_L,
        layout=spec.layout,
        grid=Grid(t=row["grid_t"], h=row["grid_h"], w=row["grid_w"]),
        size=(row["num_frames"], row["height"], row["width"]),
        codebook_size=spec.codebook_size,
        tokenizer=spec.tokenizer,
        fingerprint=spec.fingerprint,
        fps=row["fps"],
        pts_seconds=None if pts_seconds is None else np.asarray(pts_seconds, np.float64),
        meta=meta,
    )
