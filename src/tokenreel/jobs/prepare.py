"""Pictures and videos to pixel shards: frames small enough to train on, packed so that no video decoder is needed.

Letters: T frames, H W pixels, C channels.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tokenreel.data.collection import Collection
from tokenreel.data.example import Example
from tokenreel.data.facts import split_name
from tokenreel.data.opening import open_collection
from tokenreel.data.pixel_manifest import ClipEntry, PixelManifest, PixelSpec
from tokenreel.data.pixel_shards import PixelReader
from tokenreel.data.pixel_write import PixelWriter, encode_picture
from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.media.frames import Selection
from tokenreel.media.info import steady_fps
from tokenreel.media.pixels import resize

from .ahead import ahead
from .progress import Progress, silent

__all__ = ["Prepared", "prepare_pixels"]

T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is in the shards now, and what could not be read.

    Attributes:
        clips, frames, shards, num_bytes: those of a resumed run included.
        skipped: (source, why) of each broken example.
    """

    path: Path
    clips: int
    frames: int
    shards: int
    num_bytes: int
    skipped: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "clips": self.clips,
            "frames": self.frames,
            "shards": self.shards,
            "bytes": self.num_bytes,
            "skipped": [{"source": source, "why": why} for source, why in self.skipped],
        }


def prepare_pixels(
    sources: Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    *,
    spec: PixelSpec | None = None,
    split: str = "all",
    shard_bytes: int = 20 << 20,
    resume: bool = False,
    num_threads: int | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Pack every example of these sources; a broken one is skipped, named and counted.

    Frames are shrunk to ``spec.short_side`` and thinned to ``spec.fps``; nothing is enlarged and no frame is repeated.
    A clip longer than ``spec.max_seconds``, or than a shard has room for, becomes several of one group.

    Args:
        sources: what ``open_collection`` opens: files, folders, tables, tars, npz; or ``rendered:1000``, that many
            captioned scenes drawn by the project (``rendered:1000,17,64,64``: frames, height, width of each).
        spec: how the frames are made; 256 pixels, 15 frames a second, webp of quality 90 by default.
        split: which split of the sources; with ``all`` each clip keeps the split whose folder it came from.
        shard_bytes: no file is larger.
        resume: go on after the last whole shard of an interrupted run with the same sources and options.
        num_threads: that encode pictures; as many as there are processors by default.

    Raises:
        InputError: a source cannot be opened, all examples are broken, or the directory is not empty.
    """
    spec = spec or PixelSpec()
    collections = [_opened(source, split) for source in sources]
    if not collections:
        raise InputError("nothing to prepare: give at least one source")
    told = [
        {"path": str(source), "split": split, "examples": len(part), "keys_crc32": _keys_crc32(part)}
        for source, part in zip(sources, collections)
    ]
    total, skipped = sum(map(len, collections)), 0
    writer = PixelWriter(directory, spec, sources=told, shard_bytes=shard_bytes, resume=resume)
    with ThreadPoolExecutor(num_threads or os.cpu_count() or 1, "encode") as pool, writer:
        last = writer.last
        start, pieces = (0, 0) if last is None else (last.example + last.is_last, 0 if last.is_last else last.piece + 1)
        for number, origin, example in _examples(collections, told, start):
            progress(number, total)
            try:
                if isinstance(example, Exception):
                    raise example
                _pack(example, number, _split_of(example, str(origin), split), writer, pool, pieces)
            except (InputError, OSError) as error:
                skipped += 1
                writer.skip(example.source if isinstance(example, Example) else str(origin), str(error))
                warnings.warn(f"skipped: {error}", TokenReelWarning, stacklevel=2)
            pieces = 0
        progress(total, total)
        writer.finish_shard()
        writer.describe_sources(_described(told, PixelReader(directory)))
    result = _summary(Path(directory))
    if not result.clips and total:
        first = result.skipped[0][1] if result.skipped else "it is empty"
        raise InputError(f"none of the {total} examples could be prepared; the first: {first}")
    return result


def _opened(source: str | os.PathLike[str], split: str) -> Collection:
    is_npz = str(source).lower().endswith(".npz")  # the one kind that cannot give all its splits
    return open_collection(source, split=None if is_npz and split == "all" else split)


def _examples(
    collections: Sequence[Collection], told: Sequence[dict[str, Any]], start: int
) -> Iterator[tuple[int, str, Example | Exception]]:
    """``(number over all sources, source, example)``; what stands beside an example may be broken, then the error."""
    first = 0
    for collection, source in zip(collections, told):
        for at in range(max(0, start - first), len(collection)):
            try:
                yield first + at, source["path"], collection[at]
            except (InputError, OSError) as error:
                yield first + at, f"{collection.name}:{collection.key(at)}", error
        first += len(collection)


class _Packed(NamedTuple):
    picture: bytes
    pts_seconds: float
    size: tuple[int, int]


def _pack(
    example: Example, number: int, split: str | None, writer: PixelWriter, pool: ThreadPoolExecutor, first_piece: int
) -> None:
    """Encode one example and write it, whole or in pieces; pieces before ``first_piece`` are in the shards already."""
    held: list[tuple[_Packed, ...]] = []
    count = 0
    with closing(_pieces(_encoded(example, writer.spec, pool), writer)) as pieces:
        for piece in pieces:
            held.append(tuple(piece))
            if len(held) == 2:
                _write(writer, example, number, split, count, held.pop(0), first_piece, is_last=False)
                count += 1
    _write(writer, example, number, split, count, held.pop(), first_piece, is_last=True)


def _write(
    writer: PixelWriter,
    example: Example,
    number: int,
    split: str | None,
    piece: int,
    frames: Sequence[_Packed],
    first_piece: int,
    *,
    is_last: bool,
) -> None:
    if piece < first_piece:
        return
    is_whole = is_last and piece == 0
    begin = frames[0].pts_seconds
    pts = np.array([frame.pts_seconds for frame in frames], np.float64) - begin
    height, width = frames[0].size
    entry = ClipEntry(
        key=example.key if piece == 0 else f"{example.key}#{piece}",
        source=example.source,
        num_frames=len(frames),
        height=height,
        width=width,
        fps=steady_fps(pts),
        caption=example.caption,
        label=example.label,
        group=example.group if is_whole or example.group is not None else example.key,
        split=split,
        meta=dict(example.meta) | ({"start_seconds": begin} if begin else {}),
        example=number,
        piece=piece,
        is_last=is_last,
    )
    writer.write(entry, [frame.picture for frame in frames], pts.tolist())


def _pieces(frames: Iterator[_Packed], writer: PixelWriter) -> Generator[list[_Packed], None, None]:
    """Frames cut where a piece is ``max_seconds`` long or a shard would be full."""
    room = writer.room_bytes - 8192  # what the facts of a clip take
    longest = writer.spec.max_seconds or float("inf")
    piece: list[_Packed] = []
    used = 0
    for frame in frames:
        cost = writer.cost(frame.picture)
        is_full = piece and (used + cost > room or frame.pts_seconds - piece[0].pts_seconds > longest - 1e-6)
        if is_full:
            yield piece
            piece, used = [], 0
        piece.append(frame)
        used += cost
    if piece:
        yield piece


def _encoded(example: Example, spec: PixelSpec, pool: ThreadPoolExecutor) -> Iterator[_Packed]:
    """Frames shrunk and encoded on the threads of ``pool``, in order, while the source is decoded on another."""
    line: deque[Future[_Packed]] = deque()
    # The thread that decodes must have ended before the frames are closed.
    with closing(_frames(example, spec)) as frames, closing(_generator(ahead(frames))) as coming:
        for pixels, seconds in coming:
            line.append(pool.submit(_shrunk, pixels, seconds, spec))
            if len(line) > 16:
                yield line.popleft().result()
        while line:
            yield line.popleft().result()


def _generator(items: Iterator[T]) -> Generator[T, None, None]:
    assert isinstance(items, Generator)
    return items


def _shrunk(frame_HWC: Pixels, seconds: float, spec: PixelSpec) -> _Packed:
    if min(frame_HWC.shape[:2]) > spec.short_side:
        frame_HWC = resize(frame_HWC[None], spec.short_side)[0]
    height, width = frame_HWC.shape[:2]
    return _Packed(encode_picture(np.ascontiguousarray(frame_HWC), spec), seconds, (height, width))


def _frames(example: Example, spec: PixelSpec) -> Generator[tuple[Pixels, float], None, None]:
    """The frames of an example at no more than ``spec.fps``, none twice."""
    if example.kind != "media":
        clip = example.clip()
        if example.kind == "pixels" and spec.fps is not None and (clip.fps or 0) > spec.fps * 1.01:
            clip = example.clip(Selection(fps=spec.fps))
        yield from zip(clip.frames_THWC, clip.pts_seconds.tolist())
        return
    with example.open() as reader:
        rate = reader.info.fps
        if spec.fps is not None and reader.info.kind != "picture" and (rate is None or rate > spec.fps * 1.01):
            reader.selection = replace(reader.selection, fps=spec.fps)
        last: Pixels | None = None
        for frame in reader:
            if frame.pixels_HWC is not last:  # a slow source would come with frames repeated
                yield frame.pixels_HWC, frame.pts_seconds
            last = frame.pixels_HWC


def _split_of(example: Example, source: str, asked: str) -> str | None:
    """The split that was asked for, or the first folder on the way to the example that is named as one."""
    if asked != "all":
        return split_name(asked) or asked
    if "split" in example.meta:
        return str(example.meta["split"])
    root = PurePath(source)
    path = PurePath(example.source)
    inside = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return next((name for part in (root.name, *inside[:-1]) if (name := split_name(part))), None)


def _keys_crc32(collection: Collection) -> str:
    keys = "\n".join(collection.key(index) for index in range(len(collection)))
    return f"{crc32(keys.encode('utf-8', 'surrogateescape')):08x}"


def _described(told: Sequence[dict[str, Any]], reader: PixelReader) -> list[dict[str, Any]]:
    """What the manifest says of each source once all is written."""
    entries = [reader.entry(number) for number in range(len(reader))]
    described, first = [], 0
    for source in told:
        own = [entry for entry in entries if first <= entry.example < first + source["examples"]]
        first += source["examples"]
        described.append(
            {
                **source,
                "clips": len(own),
                "frames": sum(entry.num_frames for entry in own),
                "captions": sum(entry.caption is not None for entry in own),
                "groups": len({entry.group for entry in own} - {None}),
                "labels": len({entry.label for entry in own} - {None}),
                "splits": dict(Counter(entry.split for entry in own if entry.split is not None)),
            }
        )
    return described


def _summary(directory: Path) -> Prepared:
    manifest = PixelManifest.read(directory)
    return Prepared(
        path=directory,
        clips=manifest.num_clips,
        frames=manifest.num_frames,
        shards=len(manifest.shards),
        num_bytes=manifest.num_bytes,
        skipped=tuple((str(one["source"]), str(one["why"])) for one in manifest.skipped),
    )
