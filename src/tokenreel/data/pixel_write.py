"""Write pixel shards: pictures are gathered to row groups, row groups to files of a bounded size.

A file takes its name when it is whole and is listed in the manifest after that, so whatever kills the process leaves
whole shards only. Letters: T frames.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError, MismatchError
from tokenreel.files import whole_file

from .pixel_manifest import (
    CLIPS_KEY,
    HEADER_KEY,
    MANIFEST_NAME,
    ClipEntry,
    PixelManifest,
    PixelShard,
    PixelSpec,
    examine_pixels,
    sha256_of,
)

__all__ = ["PixelWriter", "encode_picture"]

# Reading any frame reads its row group. At 1 MiB that is a fifth of a millisecond, a hundredth of decoding 17 frames.
_GROUP_BYTES = 1 << 20
# What a frame and a row group cost in the file beside the pictures, measured and rounded up.
_FRAME_BYTES, _ROW_GROUP_BYTES, _FOOTER_BYTES = 40, 1536, 8192
# libwebp's method 1: two thirds of the time of method 2 and a third of method 4, for 5 % more bytes at equal PSNR.
# Lossless, effort 0 of method 0 takes 8 ms a frame where the default takes 166, for 22 % more bytes.
_WEBP_METHOD = 1


def encode_picture(frame_HWC: npt.NDArray[np.uint8], spec: PixelSpec) -> bytes:
    """One uint8 RGB frame as the bytes of a webp or jpeg file."""
    from PIL import Image

    out = io.BytesIO()
    image = Image.fromarray(frame_HWC)
    if spec.codec == "jpeg":
        image.save(out, "JPEG", quality=spec.quality)
    elif spec.quality is None:
        image.save(out, "WEBP", lossless=True, quality=0, method=0)
    else:
        image.save(out, "WEBP", quality=spec.quality, method=_WEBP_METHOD)
    return out.getvalue()


class PixelWriter:
    """Writes clips of encoded pictures into ``directory``; a context manager, one a directory.

    Args:
        directory: a new or empty folder; with ``resume`` also one that a writer with the same options left.
        spec: how the frames are made.
        sources: what the manifest says of the sources.
        shard_bytes: no shard is larger.
        resume: go on after the last whole shard.

    Raises:
        InputError: ``directory`` is not empty and ``resume`` is not set, or is no folder of pixel shards.
        MismatchError: ``resume`` with other options or sources.

    Attributes:
        last: the last clip in the shards of the folder when it was opened, or None.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        spec: PixelSpec,
        *,
        sources: Sequence[Mapping[str, Any]] = (),
        shard_bytes: int = 20 << 20,
        resume: bool = False,
    ) -> None:
        if shard_bytes < 4 * _FOOTER_BYTES:
            raise InputError(f"shard_bytes must be at least {4 * _FOOTER_BYTES}, got {shard_bytes}")
        self.directory, self.spec = Path(directory), spec
        self.last: ClipEntry | None = None
        self._manifest = PixelManifest(spec=spec, sources=tuple(sources))
        self._shard_bytes, self._resume = shard_bytes, resume
        self._next_index = 0
        self._shard: _NewShard | None = None

    def __enter__(self) -> Self:
        directory = self.directory
        if directory.exists() and not directory.is_dir():
            raise InputError(f"cannot write shards to {directory}: it is a file; give a folder")
        if directory.exists() and any(directory.iterdir()):
            if not self._resume:
                raise InputError(
                    f"cannot write shards to {directory}: it is not empty; choose another folder, or resume to add to "
                    "the shards in it"
                )
            self._take_up()
        self._manifest = replace(self._manifest, complete=False)
        self._manifest.write(directory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or not issubclass(kind, OSError):
                self.finish_shard()
            if kind is None:
                self._manifest = replace(self._manifest, complete=True)
                self._manifest.write(self.directory)
        finally:
            if self._shard is not None:
                self._shard.discard()

    @property
    def room_bytes(self) -> int:
        """Most bytes that the pictures of one clip may have, all its frames and facts counted."""
        return self._shard_bytes - _FOOTER_BYTES - 2 * _ROW_GROUP_BYTES

    def cost(self, picture: bytes) -> int:
        """What one frame takes of ``room_bytes``, at most."""
        return len(picture) + _FRAME_BYTES + -(-2 * _ROW_GROUP_BYTES * len(picture) // _GROUP_BYTES)

    def write(self, entry: ClipEntry, pictures: Sequence[bytes], pts_seconds: Sequence[float]) -> None:
        """Append one clip; ``entry.first_row`` is set here.

        Raises:
            InputError: it does not fit into a shard, or is of another length than its times.
        """
        if not len(pictures) == len(pts_seconds) == entry.num_frames > 0:
            raise InputError(
                f"{entry.source}: {len(pictures)} pictures and {len(pts_seconds)} times for {entry.num_frames} frames"
            )
        facts = json.dumps(asdict(entry), ensure_ascii=False)
        needed = sum(map(self.cost, pictures)) + 2 * _ROW_GROUP_BYTES + len(facts.encode())
        if needed > self._shard_bytes - _FOOTER_BYTES:
            raise InputError(
                f"{entry.source}: {len(pictures)} frames take {needed} bytes, more than a shard of "
                f"{self._shard_bytes} has room for; allow larger shards"
            )
        if self._shard is not None and self._shard.num_bytes + needed > self._shard_bytes - _FOOTER_BYTES:
            self.finish_shard()
        if self._shard is None:
            self._shard = _NewShard(self.directory / f"shard-{self._next_index:05d}.parquet", self.spec)
        self._shard.add(entry, pictures, pts_seconds, needed)

    def skip(self, source: str, why: str) -> None:
        """Note a broken example in the manifest."""
        note = {"source": source, "why": why}
        if note not in self._manifest.skipped:
            self._manifest = replace(self._manifest, skipped=(*self._manifest.skipped, note))

    def describe_sources(self, sources: Sequence[Mapping[str, Any]]) -> None:
        """What the manifest says of the sources from now on."""
        self._manifest = replace(self._manifest, sources=tuple(sources))

    def finish_shard(self) -> None:
        """Close the shard being written: all clips so far are then safe and listed."""
        if self._shard is not None:
            shard, self._shard = self._shard, None
            self._manifest = replace(self._manifest, shards=(*self._manifest.shards, shard.finish()))
            self._next_index += 1
        self._manifest.write(self.directory)

    def _take_up(self) -> None:
        """Read what an earlier writer left: its manifest, a whole shard not yet listed, its temporary files."""
        for pattern in (".shard-*.part.parquet", f".{Path(MANIFEST_NAME).stem}.*.part.json"):
            for path in self.directory.glob(pattern):
                path.unlink(missing_ok=True)
        if not any(self.directory.iterdir()):
            return
        if not (self.directory / MANIFEST_NAME).exists():
            raise InputError(f"cannot resume in {self.directory}: it has no {MANIFEST_NAME}; it holds something else")
        manifest = PixelManifest.read(self.directory)
        if different := self.spec.differences(manifest.spec):
            raise MismatchError(f"cannot resume in {self.directory} with other options: it has {different}")
        theirs, ours = (_identity(sources) for sources in (manifest.sources, self._manifest.sources))
        if theirs != ours:
            raise MismatchError(f"cannot resume in {self.directory} with other sources: it was made of {theirs}")
        shards = list(manifest.shards)
        for path in sorted(self.directory.glob("shard-*.parquet")):
            if path.name not in {shard.name for shard in shards}:  # renamed, and killed before it was listed
                _, clips, file = examine_pixels(path)
                shards.append(_listed(path, len(clips), file.metadata.num_rows))
        if shards:
            self.last = examine_pixels(self.directory / shards[-1].name)[1][-1]
        self._next_index = 1 + max((int(Path(shard.name).stem[6:]) for shard in shards), default=-1)
        self._manifest = replace(manifest, shards=tuple(shards))


class _NewShard:
    """One Parquet file under its temporary name."""

    def __init__(self, path: Path, spec: PixelSpec) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self.num_bytes = 0  # at most this many, once it is closed
        self._clips: list[ClipEntry] = []
        self._num_frames = 0
        self._rows: list[tuple[int, int, float, bytes]] = []
        self._row_bytes = 0
        columns = [("clip", pa.int32()), ("frame", pa.int32()), ("pts_seconds", pa.float64()), ("picture", pa.binary())]
        self._schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])
        with ExitStack() as stack:
            temporary = stack.enter_context(whole_file(path))
            self._writer = pq.ParquetWriter(
                temporary,
                self._schema.with_metadata({HEADER_KEY: json.dumps(spec.header())}),
                compression={"clip": "zstd", "frame": "zstd", "pts_seconds": "zstd", "picture": "none"},
                use_dictionary=False,
                write_statistics=False,
            )
            self._stack = stack.pop_all()

    def add(self, entry: ClipEntry, pictures: Sequence[bytes], times: Sequence[float], num_bytes: int) -> None:
        """Append one clip that takes at most ``num_bytes``."""
        number = len(self._clips)
        self._clips.append(replace(entry, first_row=self._num_frames))
        self._num_frames += len(pictures)
        self.num_bytes += num_bytes
        for index, (picture, seconds) in enumerate(zip(pictures, times, strict=True)):
            if self._rows and self._row_bytes + len(picture) > _GROUP_BYTES:
                self._flush()
            self._rows.append((number, index, float(seconds), picture))
            self._row_bytes += len(picture)

    def finish(self) -> PixelShard:
        """Write the footer and give the file its name."""
        with self._stack:
            self._flush()
            clips = json.dumps([asdict(clip) for clip in self._clips], ensure_ascii=False)
            self._writer.add_key_value_metadata({CLIPS_KEY: clips})
            self._writer.close()
        return _listed(self.path, len(self._clips), self._num_frames)

    def discard(self) -> None:
        """Remove the temporary file."""
        self._writer.close()
        self._stack.__exit__(InputError, InputError("discarded"), None)

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            arrays = [pa.array(column, field.type) for column, field in zip(zip(*self._rows), self._schema)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=len(self._rows))
        self._rows, self._row_bytes = [], 0


def _listed(path: Path, num_clips: int, num_frames: int) -> PixelShard:
    return PixelShard(
        name=path.name,
        num_clips=num_clips,
        num_frames=num_frames,
        num_bytes=path.stat().st_size,
        sha256=sha256_of(path),
    )


def _identity(sources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What decides which example has which number."""
    return [{name: source.get(name) for name in ("path", "split", "examples", "keys_crc32")} for source in sources]
