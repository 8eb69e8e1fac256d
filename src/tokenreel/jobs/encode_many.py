"""Many pictures and videos to token shards: folders, tables, tars and single files in, one directory out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenreel.data.coarse import COARSE, CoarseToFine
from tokenreel.data.collection import Collection
from tokenreel.data.example import VIEW, Example
from tokenreel.data.opening import open_collection
from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.jobs.encode import pixels_for, stacks, stream_of
from tokenreel.media.frames import Selection
from tokenreel.tokenizers import Tokenizer, load
from tokenreel.tokens.file import join
from tokenreel.tokens.shards import ShardReader, ShardWriter
from tokenreel.types import Tokens

from .ahead import ahead
from .progress import Progress, silent

if TYPE_CHECKING:
    from tokenreel.data.augment import VideoAugment
    from tokenreel.tokenizers.learned import Precision

__all__ = ["ManyEncoded", "encode_many"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyEncoded:
    """What was written, and what could not be.

    Attributes:
        records, tokens: in the shards now, those of a resumed run included.
        skipped: (source, why) of each example that is broken.
    """

    path: Path
    records: int
    tokens: int
    shards: int
    num_bytes: int
    skipped: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "records": self.records,
            "tokens": self.tokens,
            "shards": self.shards,
            "bytes": self.num_bytes,
            "skipped": [{"source": source, "why": why} for source, why in self.skipped],
        }


def encode_many(
    sources: Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    *,
    tokenizer: str | Tokenizer = "raw",
    selection: Selection | None = None,
    size: int | tuple[int, int] | str | None = None,
    token_count: int | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    split: str = "all",
    views: int = 1,
    changes: VideoAugment | None = None,
    coarse: Sequence[int] = (),
    resume: bool = False,
    progress: Progress = silent,
) -> ManyEncoded:
    """Encode every example of these sources into shards; a broken file is skipped, named and counted.

    A record stands in memory while it is encoded, so one clip should not be hours long.

    Args:
        sources: what ``open_collection`` opens: files, folders, tables, tars.
        token_count, device, precision: as in ``encode_file``.
        split: which split of the sources, where they have several; all of them by default.
        views: every clip so many times: as it is, then changed at random, for classifiers of few clips' tokens.
        changes: how; shift, contrast and a stretch of time by default.
        coarse: in place of every clip its first frame, averaged to so many cells along its shorter side, and whole:
            pictures from coarse to fine, for generators.
        resume: go on after the last whole shard of an interrupted run with the same sources and options.

    Raises:
        InputError: a source cannot be opened, all examples are broken, or the directory is not empty.
    """
    coder = load(tokenizer, device=device, precision=precision) if isinstance(tokenizer, str) else tokenizer
    collection: Collection = open_collection(list(sources), split=split)
    if views != 1:
        collection = _viewed(collection, views, changes)
    if coarse:
        collection = CoarseToFine(collection, coarse)
    stream_of(coder, token_count)  # wrong options are told before any file is read
    skipped: list[tuple[str, str]] = []
    start = _next_index(Path(directory)) if resume else 0
    writer: ShardWriter | None = None
    with ExitStack() as stack:
        for index in range(start, len(collection)):
            progress(index, len(collection))
            source = collection.key(index)
            try:
                example = collection[index]
                source = example.source
                tokens = _encoded(example, coder, selection or Selection(), size, token_count, index)
            except (InputError, OSError) as error:
                skipped.append((source, str(error)))
                warnings.warn(f"skipped: {error}", TokenReelWarning, stacklevel=2)
                continue
            if writer is None:
                writer = stack.enter_context(_writer(directory, tokens, resume))
            writer.write(tokens)
        progress(len(collection), len(collection))
    if writer is None and skipped and not start:
        raise InputError(f"none of the {len(collection)} examples could be encoded; the first: {skipped[0][1]}")
    return _summary(Path(directory), skipped)


def _viewed(collection: Collection, views: int, changes: VideoAugment | None) -> Collection:
    from tokenreel.data.augment import VideoAugment
    from tokenreel.data.changed import ChangedViews

    usual = VideoAugment(shift=0.06, contrast=0.3, brightness=0.2, time_crop=0.5)
    return ChangedViews(collection, views, usual if changes is None else changes)


def _writer(directory: str | os.PathLike[str], tokens: Tokens, resume: bool) -> ShardWriter:
    return ShardWriter(
        directory,
        tokenizer=tokens.tokenizer,
        fingerprint=tokens.fingerprint,
        codebook_size=tokens.codebook_size,
        layout=tokens.layout,
        resume=resume,
    )


def _next_index(directory: Path) -> int:
    """The example after the last one in the shards: each record keeps its number in the collection."""
    if not directory.exists() or not any(directory.iterdir()):
        return 0
    reader = ShardReader(directory)
    return int(reader[-1].meta.get("example", -1)) + 1 if len(reader) else 0


def _encoded(
    example: Example,
    coder: Tokenizer,
    selection: Selection,
    size: int | tuple[int, int] | str | None,
    token_count: int | None,
    index: int,
) -> Tokens:
    meta = {**example.facts(), "example": index, **coder.reference}
    for key, name in ((VIEW, "view"), (COARSE, "coarse")):
        if (value := getattr(example.payload, name, None)) is not None:
            meta[key] = value
    if example.kind != "media":
        clip = example.clip(selection, size=size)
        stream = stream_of(coder, token_count)
        parts = [*stream.push(pixels_for(clip.frames_THWC, coder)), *stream.finish()]
        return replace(join(parts), fps=clip.fps, pts_seconds=clip.pts_seconds, meta=meta)
    times: list[float] = []
    stream, parts = stream_of(coder, token_count), []
    with example.open(selection, size=size) as reader:
        for frames in stacks(ahead(reader), coder.patch_size[0], times):
            parts += stream.push(pixels_for(frames, coder))
        parts += stream.finish()
        pts = np.array(times, np.float64)
        return replace(join(parts), fps=reader.rate(pts), pts_seconds=pts, meta=meta)


def _summary(directory: Path, skipped: list[tuple[str, str]]) -> ManyEncoded:
    reader = ShardReader(directory)
    shards = reader.manifest.shards
    return ManyEncoded(
        path=directory,
        records=len(reader),
        tokens=sum(shard.num_tokens for shard in shards),
        shards=len(shards),
        num_bytes=sum(shard.num_bytes for shard in shards),
        skipped=tuple(skipped),
    )
