"""What is in a file: any file of ours, a folder of shards, or a picture or video."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError
from tokenreel.jobs.encode import as_frames
from tokenreel.jobs.sequence import FORMAT as SEQUENCE_FORMAT
from tokenreel.jobs.sequence import PatchSequence
from tokenreel.media.frames import Selection, uniform_indices
from tokenreel.media.read import open_media
from tokenreel.tokenizers import Tokenizer, load
from tokenreel.tokenizers.base import check_fingerprint
from tokenreel.tokens.file import FORMAT as TOKENS_FORMAT
from tokenreel.tokens.file import TokenFile
from tokenreel.tokens.shards import MANIFEST_NAME, ShardReader
from tokenreel.tokens.tensors import TensorReader

BPE_FORMAT = "tokenreel.bpe"

__all__ = ["inspect_file", "kind_of", "sheet_of"]

Pixels = npt.NDArray[np.uint8]
_THUMBNAILS = 12


def inspect_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Facts about one file, as plain JSON values; ``kind`` says what it is.

    Raises:
        InputError: the file is missing, damaged, or nothing that tokenreel knows.
    """
    path = Path(path)
    kind = kind_of(path)
    facts = _KINDS[kind][0](path)
    return {"file": str(path), "kind": kind, **facts, "bytes": facts.get("bytes", path.stat().st_size)}


def sheet_of(path: str | os.PathLike[str], output: str | os.PathLike[str], *, tokenizer: str | None = None) -> Path:
    """Write a sheet of up to twelve frames, evenly spread, of a video, a patch sequence, a token file or shards.

    Args:
        path: what to show.
        output: a .png file.
        tokenizer: of tokens, where it is not where they say.
    """
    from tokenreel.jobs.sheet import contact_sheet, save_picture

    if Path(output).suffix.lower() != ".png":
        raise InputError(f"the picture must be a .png file, got {os.fspath(output)}")
    path = Path(path)
    kind = kind_of(path)
    if tokenizer is not None and kind not in ("tokens", "shards"):
        raise InputError(f"{path} holds no tokens, so it takes no --tokenizer")
    coder = None if tokenizer is None else load(tokenizer)
    frames = list(_KINDS[kind][1](path) if coder is None else _WITH_TOKENIZER[kind](path, coder))
    labels = [label for label, _ in frames]
    return save_picture(contact_sheet([pixels for _, pixels in frames], labels), output)


def kind_of(path: Path) -> str:
    """``tokens``, ``patches``, ``bpe``, ``shards``, ``tokenizer``, or ``media`` (anything else), by content.

    Raises:
        InputError: there is no such file. FormatError: it is a safetensors file of somebody else.
    """
    if path.suffix == ".parquet" or (path / MANIFEST_NAME).is_file():
        return "shards"
    if (path / "config.json").is_file():
        return "tokenizer"
    if not path.is_file():
        what = "is a folder that holds nothing of ours" if path.is_dir() else "does not exist; check the name"
        raise InputError(f"{path} {what}")
    with path.open("rb") as file:
        head = file.read(9)
    is_safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    if not is_safetensors:
        return "media"
    name = TensorReader(path).metadata.get("format")
    kinds = {TOKENS_FORMAT: "tokens", SEQUENCE_FORMAT: "patches", BPE_FORMAT: "bpe"}
    if name in kinds:
        return kinds[name]
    raise FormatError(f"{path} is a safetensors file, but not one of ours (format {name!r})")


def _tokens_facts(path: Path) -> dict[str, Any]:
    opened = TokenFile(path)
    header = opened.header
    frames, height, width = header.size
    bits = opened.num_tokens * float(np.log2(header.codebook_size))
    meta = {key: value for key, value in header.meta.items() if key != "tokenizer_config"}
    return {
        "tokenizer": header.tokenizer,
        "tokenizer_config": header.meta.get("tokenizer_config"),
        "fingerprint": header.fingerprint,
        "layout": header.layout,
        "tokens": opened.num_tokens,
        "codebook_size": header.codebook_size,
        "grid": [header.grid.t, header.grid.h, header.grid.w],
        "frames": frames,
        "height": height,
        "width": width,
        "fps": header.fps,
        "bits_per_pixel": round(bits / (frames * height * width), 6),
        "meta": meta,
    }


def _patches_facts(path: Path) -> dict[str, Any]:
    opened = PatchSequence(path)
    header = opened.header
    grid, (frames, height, width) = header.grid, header.size
    config = {key: value for key, value in header.config.as_json().items() if key != "dtype"}
    return {
        "patches": [grid.num_cells, header.config.width],
        "dtype": header.config.dtype,
        **config,
        "grid": [grid.t, grid.h, grid.w],
        "frames": frames,
        "height": height,
        "width": width,
        "fps": header.fps,
        "reading": header.reading,
    }


def _media_facts(path: Path) -> dict[str, Any]:
    with open_media(path) as reader:
        facts = reader.info.as_json()
    del facts["name"]
    return {("media" if key == "kind" else key): value for key, value in facts.items()}


def _media_frames(path: Path) -> Iterator[tuple[str, Pixels]]:
    with open_media(path) as reader:
        count = min(_THUMBNAILS, reader.info.num_frames or _THUMBNAILS)
    with open_media(path, Selection(uniform=count)) as reader:
        for frame in reader:
            yield f"{frame.pts_seconds:.2f} s", frame.pixels_HWC


def _patches_frames(path: Path) -> Iterator[tuple[str, Pixels]]:
    opened = PatchSequence(path)
    yield from _spread(opened.frames(), opened.header.size[0], opened.pts_seconds)


def _tokens_frames(path: Path, coder: Tokenizer | None = None) -> Iterator[tuple[str, Pixels]]:
    from tokenreel.jobs.encode import decoded_frames, tokenizer_of

    opened = TokenFile(path)
    parts = (frames for frames, _ in decoded_frames(opened, coder or tokenizer_of(opened.header, path)))
    frames = (frame for part in parts for frame in part)
    yield from _spread(frames, opened.header.size[0], opened.pts_seconds)


def _shards_facts(path: Path) -> dict[str, Any]:
    reader = ShardReader(path)
    shards = reader.manifest.shards
    return {
        "tokenizer": reader.tokenizer,
        "fingerprint": reader.fingerprint,
        "layout": reader.layout,
        "codebook_size": reader.codebook_size,
        "records": len(reader),
        "tokens": sum(shard.num_tokens for shard in shards),
        "shards": [shard.name for shard in shards],
        "complete": reader.manifest.complete,
        "bytes": sum(shard.num_bytes for shard in shards),
    }


def _shards_frames(path: Path, coder: Tokenizer | None = None) -> Iterator[tuple[str, Pixels]]:
    """The middle frame of up to twelve records."""
    from tokenreel.jobs.encode import tokenizer_of

    reader = ShardReader(path)
    for index in uniform_indices(len(reader), min(_THUMBNAILS, len(reader))).tolist():
        tokens = reader[index]
        coder = coder or tokenizer_of(tokens, path)
        check_fingerprint(coder, tokens)
        (video,) = coder.decode([tokens])
        frame = as_frames(video[:, video.shape[1] // 2][:, None])[0]
        yield str(tokens.meta.get("caption") or Path(str(tokens.meta.get("source", index))).name), frame


def _tokenizer_facts(path: Path) -> dict[str, Any]:
    coder = load(path)
    size = (150, 256, 256)
    bits = coder.num_tokens_of(size) * float(np.log2(coder.codebook_size))
    return {
        "tokenizer": coder.name,
        "tokenizer_config": coder.reference["tokenizer_config"],
        "fingerprint": coder.fingerprint,
        "parameters": getattr(coder, "num_parameters", 0),
        "codebook_size": coder.codebook_size,
        "patch_size": list(coder.patch_size),
        "bits_per_pixel": round(bits / (size[0] * size[1] * size[2]), 6),
        "bytes": sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
    }


def _tokenizer_frames(path: Path) -> Iterator[tuple[str, Pixels]]:
    raise InputError(f"{path} is a tokenizer, which holds no frames; encode something with it and look at that")


def _spread(
    frames: Iterator[Pixels], total: int, times: npt.NDArray[np.float64] | None
) -> Iterator[tuple[str, Pixels]]:
    wanted = set(uniform_indices(total, min(_THUMBNAILS, total)).tolist())
    for index, frame in enumerate(frames):
        if index in wanted:
            yield f"frame {index}" if times is None else f"{times[index]:.2f} s", frame.copy()


_KINDS: dict[str, tuple[Callable[[Path], dict[str, Any]], Callable[[Path], Iterator[tuple[str, Pixels]]]]] = {
    "tokens": (_tokens_facts, _tokens_frames),
    "patches": (_patches_facts, _patches_frames),
    "shards": (_shards_facts, _shards_frames),
    "tokenizer": (_tokenizer_facts, _tokenizer_frames),
    "media": (_media_facts, _media_frames),
}
_WITH_TOKENIZER = {"tokens": _tokens_frames, "shards": _shards_frames}
