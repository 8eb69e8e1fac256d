"""What a folder of pixel shards says of itself: how its frames were made, its files with their hashes, its clips.

``_manifest.json`` lists the files. What is known of each clip stands in the footer of its own shard, so that a shard
can be read alone and the manifest does not grow with the number of clips.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from tokenreel.errors import FormatError, InputError
from tokenreel.files import whole_file

from .example import Label

__all__ = [
    "MANIFEST_NAME",
    "ClipEntry",
    "Codec",
    "PixelManifest",
    "PixelShard",
    "PixelSpec",
    "examine_pixels",
    "is_pixel_shard",
]

FORMAT = "tokenreel pixels"
VERSION = 1
MANIFEST_NAME = "_manifest.json"
HEADER_KEY, CLIPS_KEY = "tokenreel", "tokenreel.clips"
COLUMNS = ("clip", "frame", "pts_seconds", "picture")

Codec = Literal["webp", "jpeg"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSpec:
    """How all frames of a folder were made.

    Attributes:
        short_side: frames with a longer short side were shrunk to this many pixels; smaller ones are as they were.
        fps: at most this many frames a second; None for the rate of each source.
        codec: of each picture, ``webp`` or ``jpeg``.
        quality: of the codec, 0 to 100; None for lossless (webp only).
        max_seconds: longer clips were cut into pieces of this length; None for no bound but the size of a shard.
    """

    short_side: int = 256
    fps: float | None = 15.0
    codec: Codec = "webp"
    quality: int | None = 90
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.short_side < 1:
            raise InputError(f"short_side must be at least 1 pixel, got {self.short_side}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise InputError(f"fps must be above 0 (or None for the rate of each source), got {self.fps}")
        if self.codec not in get_args(Codec):
            raise InputError(f"codec must be one of {', '.join(get_args(Codec))}, got {self.codec!r}")
        if self.quality is None and self.codec != "webp":
            raise InputError(f"{self.codec} cannot be lossless; choose webp, or a quality from 0 to 100")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise InputError(f"quality must lie in 0..100, got {self.quality}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InputError(f"max_seconds must be above 0, got {self.max_seconds}")

    def header(self) -> dict[str, Any]:
        """The beginning of the manifest, and the Parquet key ``tokenreel`` of every file."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def parse(cls, header: Mapping[str, Any], where: Path) -> Self:
        """The inverse of ``header``; a foreign, newer or damaged one is refused by name."""
        if header.get("format") != FORMAT:
            raise FormatError(f"{where} is not a tokenreel pixel shard: its format is {header.get('format')!r}")
        if header.get("version") != VERSION:
            raise FormatError(
                f"{where} is in version {header.get('version')} of the pixel shards, and this tokenreel reads version "
                f"{VERSION}; install a newer tokenreel"
            )
        try:
            return cls(**{one.name: header[one.name] for one in fields(cls)})
        except (KeyError, TypeError, InputError) as error:
            raise FormatError(f"{where} has a damaged tokenreel header: {error}") from error

    def differences(self, other: Self) -> str:
        """What ``other`` has otherwise: ``"fps 10.0, not 15.0"``; empty if nothing."""
        pairs = ((one.name, getattr(other, one.name), getattr(self, one.name)) for one in fields(self))
        return "; ".join(f"{name} {theirs!r}, not {ours!r}" for name, theirs, ours in pairs if theirs != ours)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipEntry:
    """What the footer of a shard says of one clip; its frames are the rows ``first_row .. first_row + num_frames``.

    Attributes:
        key, source, caption, label, group, meta: as of the ``Example`` it was made from; ``meta["start_seconds"]`` is
            where in the source the clip begins, if not at its start.
        split: ``train``, ``val`` ..., where the source had one.
        example, piece, is_last: the number of that example in the run, the number of this piece of it, and whether
            it is the last piece; a resumed run goes on behind it.
    """

    key: str
    source: str
    num_frames: int
    height: int
    width: int
    fps: float | None = None
    first_row: int = 0
    caption: str | None = None
    label: Label | None = None
    group: str | None = None
    split: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    example: int = 0
    piece: int = 0
    is_last: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelShard:
    """One file of a folder."""

    name: str
    num_clips: int
    num_frames: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelManifest:
    """The shards of a folder in the order of their clips; ``complete`` once the writer came to its end.

    Attributes:
        sources: one object a source: ``path``, ``split``, ``examples`` and ``keys_crc32`` of their names; when
            complete also how many clips, frames, captions, groups and labels came of it, and its splits.
        skipped: one object a broken example: ``source`` and ``why``.
    """

    spec: PixelSpec
    sources: Sequence[Mapping[str, Any]] = ()
    skipped: Sequence[Mapping[str, Any]] = ()
    shards: tuple[PixelShard, ...] = ()
    complete: bool = False

    @property
    def num_clips(self) -> int:
        """Clips in all shards."""
        return sum(shard.num_clips for shard in self.shards)

    @property
    def num_frames(self) -> int:
        """Frames in all shards."""
        return sum(shard.num_frames for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    def write(self, directory: Path) -> None:
        """Replace ``_manifest.json`` in one step; its lists have an entry a line."""
        totals = {name: getattr(self, name) for name in ("complete", "num_clips", "num_frames", "num_bytes")}
        text = json.dumps({**self.spec.header(), **totals}, indent=2).removesuffix("\n}")
        lists = {"sources": self.sources, "skipped": self.skipped, "shards": [asdict(one) for one in self.shards]}
        for name, entries in lists.items():
            lines = ",\n    ".join(json.dumps(dict(entry), ensure_ascii=False) for entry in entries)
            text += f',\n  "{name}": [' + (f"\n    {lines}\n  " if lines else "") + "]"
        with whole_file(directory / MANIFEST_NAME) as path:
            path.write_text(text + "\n}\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The manifest of ``directory``.

        Raises:
            FormatError: there is none, or it is damaged, foreign or newer.
        """
        path = directory / MANIFEST_NAME
        try:
            header: Mapping[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise FormatError(f"{directory} has no {MANIFEST_NAME}; is it the right folder?") from None
        except (OSError, ValueError, TypeError) as error:
            raise FormatError(f"{path} is damaged: {error}; prepare the folder anew") from error
        spec = PixelSpec.parse(header, path)
        try:
            shards = tuple(PixelShard(**shard) for shard in header["shards"])
            lists = {name: tuple(dict(entry) for entry in header[name]) for name in ("sources", "skipped")}
            complete = bool(header["complete"])
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path} is damaged: {error}; prepare the folder anew") from error
        for shard in shards:
            if Path(shard.name).name != shard.name:
                raise FormatError(f"{path} lists {shard.name!r}, which is not the name of a file beside it")
        return cls(spec=spec, shards=shards, complete=complete, **lists)


def examine_pixels(path: Path) -> tuple[PixelSpec, list[ClipEntry], Any]:
    """The spec, the clips and the ``pyarrow.parquet.ParquetFile`` of one shard, memory-mapped.

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
    texts = file.metadata.metadata or {}
    if HEADER_KEY.encode() not in texts:
        raise FormatError(f"{path} is a Parquet file, but no tokenreel shard: it lacks the key {HEADER_KEY!r}")
    try:
        spec = PixelSpec.parse(dict(json.loads(texts[HEADER_KEY.encode()])), path)
        clips = [ClipEntry(**entry) for entry in json.loads(texts[CLIPS_KEY.encode()])]
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} has a damaged tokenreel header: {error}") from error
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing or sum(clip.num_frames for clip in clips) != file.metadata.num_rows:
        what = f"lacks the columns {', '.join(missing)}" if missing else "has other frames than its footer lists"
        raise FormatError(f"{path} {what}; was it rewritten?")
    return spec, clips, file


def is_pixel_shard(path: Path) -> bool:
    """Whether a folder (by its manifest, or its first file) or a Parquet file holds pixels; False for all else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_dir():
        try:
            text = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
            return isinstance(text, dict) and text.get("format") == FORMAT
        except (OSError, ValueError):
            first = next(iter(sorted(path.glob("[!._]*.parquet"))), None)
            return first is not None and is_pixel_shard(first)
    try:
        header = (pq.read_metadata(path).metadata or {}).get(HEADER_KEY.encode())
        return header is not None and json.loads(header).get("format") == FORMAT
    except (pa.ArrowInvalid, OSError, ValueError, AttributeError):
        return False


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
