"""The list of shards in a directory, what they all share, and their checksums: ``_manifest.json``.

The name begins with an underscore so that readers of a whole directory (``pandas.read_parquet("corpus")``, Spark,
``pyarrow.dataset``), which skip such names, take the Parquet files alone.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, cast, get_args

import numpy as np

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.files import whole_file
from tokenreel.types import Layout, smallest_unsigned

from .shards_columns import COLUMNS

__all__ = ["MANIFEST_NAME", "Manifest", "ShardEntry", "ShardSpec", "checksum", "examine", "rebuild_manifest"]

FORMAT = "tokenreel shards"
VERSION = 1
MANIFEST_NAME = "_manifest.json"
METADATA_KEY = "tokenreel"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpec:
    """What all records of a directory share.

    Attributes:
        tokenizer: name of the tokenizer's class in ``TOKENIZERS``.
        fingerprint: hash of the tokenizer's configuration and weights.
        codebook_size: ids lie in [0, codebook_size).
        layout: ``grid``, ``queries`` or ``bytes``.
    """

    tokenizer: str
    fingerprint: str
    codebook_size: int
    layout: Layout

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise InputError(f"layout must be one of {', '.join(get_args(Layout))}, got {self.layout!r}")
        smallest_unsigned(self.codebook_size)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the ids in the file: the smallest unsigned one, little-endian."""
        return smallest_unsigned(self.codebook_size).newbyteorder("<")

    def differences(self, other: Any) -> str:
        """What ``other`` (a spec or Tokens) has otherwise: ``"codebook_size 512, not 256"``; empty if nothing."""
        pairs = ((field.name, getattr(other, field.name), getattr(self, field.name)) for field in fields(self))
        return "; ".join(f"{name} {theirs!r}, not {ours!r}" for name, theirs, ours in pairs if theirs != ours)

    def header(self) -> dict[str, Any]:
        """The beginning of the manifest, and the Parquet key ``tokenreel`` of every file."""
        return {"format": FORMAT, "version": VERSION, **asdict(self), "dtype": self.dtype.name}

    @classmethod
    def parse(cls, header: Mapping[str, Any], where: Path) -> Self:
        """The inverse of ``header``; a foreign, newer or damaged one is refused by name."""
        if header.get("format") != FORMAT:
            raise FormatError(f"{where} is not a tokenreel shard: its format is {header.get('format')!r}")
        if header.get("version") != VERSION:
            raise FormatError(
                f"{where} is in version {header.get('version')} of the shard format, and this tokenreel reads version "
                f"{VERSION}; install a newer tokenreel"
            )
        try:
            spec = cls(**{field.name: header[field.name] for field in fields(cls)})
        except (KeyError, TypeError, InputError) as error:
            raise FormatError(f"{where} has a damaged tokenreel header: {error}") from error
        if header.get("dtype") != spec.dtype.name:
            raise FormatError(
                f"{where} stores ids as {header.get('dtype')!r}; {spec.codebook_size} ids need {spec.dtype.name}"
            )
        return spec


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One file of a directory; ``crc32`` is that of the whole file (None when nobody recorded it)."""

    name: str
    num_records: int
    num_tokens: int
    num_bytes: int
    crc32: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The shards of a directory in the order of their records; ``complete`` once the writer came to its end."""

    spec: ShardSpec
    shards: tuple[ShardEntry, ...] = ()
    complete: bool = False

    @property
    def num_records(self) -> int:
        """Records in all shards."""
        return sum(shard.num_records for shard in self.shards)

    def write(self, directory: Path) -> None:
        """Replace ``_manifest.json`` in one step."""
        lines = ",\n    ".join(json.dumps(asdict(shard)) for shard in self.shards)
        head = json.dumps({**self.spec.header(), "complete": self.complete, "num_records": self.num_records}, indent=2)
        text = head.removesuffix("\n}") + ',\n  "shards": [' + (f"\n    {lines}\n  " if lines else "") + "]\n}\n"
        with whole_file(directory / MANIFEST_NAME) as path:
            path.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The manifest of ``directory``.

        Raises:
            FormatError: there is none, or it is damaged, foreign or newer.
        """
        path = directory / MANIFEST_NAME
        if not path.is_file():
            cure = (
                f"it has Parquet files; tokenreel.tokens.shards.rebuild_manifest({str(directory)!r}) lists them"
                if any(directory.glob("*.parquet"))
                else "is it the right folder?"
            )
            raise FormatError(f"{directory} has no {MANIFEST_NAME}: {cure}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            header: Mapping[str, Any] = dict(values)
        except (ValueError, TypeError) as error:
            raise FormatError(
                f"{path} is damaged: {error}; rebuild_manifest({str(directory)!r}) makes it anew"
            ) from error
        spec = ShardSpec.parse(header, path)
        try:
            shards = tuple(ShardEntry(**shard) for shard in header["shards"])
            complete = bool(header["complete"])
        except (KeyError, TypeError) as error:
            raise FormatError(
                f"{path} is damaged: {error}; rebuild_manifest({str(directory)!r}) makes it anew"
            ) from error
        for shard in shards:
            if Path(shard.name).name != shard.name:
                raise FormatError(f"{path} lists {shard.name!r}, which is not the name of a file beside it")
        return cls(spec=spec, shards=shards, complete=complete)


def examine(path: Path) -> tuple[ShardSpec, Any]:
    """The spec and the ``pyarrow.parquet.ParquetFile`` of one shard, memory-mapped.

    Raises:
        FormatError: damaged, cut off, foreign or newer; the message names the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).split("\n")[0]
        raise FormatError(f"{path} cannot be read as Parquet, it is cut off or damaged ({reason})") from error
    header = (file.metadata.metadata or {}).get(METADATA_KEY.encode())
    if header is None:
        raise FormatError(f"{path} is a Parquet file, but no tokenreel shard: it lacks the key {METADATA_KEY!r}")
    try:
        values = dict(json.loads(header))
    except (ValueError, TypeError) as error:
        raise FormatError(f"{path} has a damaged tokenreel header: {error}") from error
    spec = ShardSpec.parse(values, path)
    if missing := [name for name in COLUMNS if name not in file.schema_arrow.names]:
        raise FormatError(f"{path} lacks the columns {', '.join(missing)} of a tokenreel shard; was it rewritten?")
    return spec, file


def checksum(path: Path) -> str:
    """CRC-32 of a file (zlib's, the one of gzip and zip), eight hexadecimal digits."""
    crc, buffer = 0, memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            crc = zlib.crc32(buffer[:count], crc)
    return f"{crc:08x}"


def entry_of(path: Path, file: Any, crc32: str | None) -> ShardEntry:
    """The manifest's line for a shard that ``examine`` opened."""
    import pyarrow.compute as pc

    num_tokens = cast(int | None, pc.sum(file.read(columns=["num_tokens"])["num_tokens"]).as_py())
    return ShardEntry(
        name=path.name,
        num_records=file.metadata.num_rows,
        num_tokens=num_tokens or 0,
        num_bytes=path.stat().st_size,
        crc32=crc32,
    )


def rebuild_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """Write ``_manifest.json`` anew from the ``*.parquet`` files in ``directory``, in the order of their names.

    For a lost or damaged manifest, and to join the shards of several writers that were moved into one folder.

    Raises:
        FormatError: a file is damaged, foreign or newer (named); there is none.
        MismatchError: two files are of different tokenizers.
    """
    directory = Path(directory)
    paths = sorted(directory.glob("[!._]*.parquet"))
    if not paths:
        raise FormatError(f"{directory} has no Parquet files to list")
    first: ShardSpec | None = None
    shards = []
    for path in paths:
        spec, file = examine(path)
        first = first or spec
        if different := first.differences(spec):
            raise MismatchError(f"{path} does not belong to {paths[0].name}: it has {different}")
        shards.append(entry_of(path, file, checksum(path)))
    assert first is not None
    manifest = Manifest(spec=first, shards=tuple(shards), complete=True)
    manifest.write(directory)
    return manifest
