"""Video to tokens and tokens to video, by any tokenizer, streaming."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from einops import rearrange

from tokenreel.errors import InputError
from tokenreel.media.frames import Selection
from tokenreel.media.pixels import to_frames, to_video
from tokenreel.media.read import Frame, open_media
from tokenreel.media.write import open_writer
from tokenreel.tokenizers import RawTokenizer, Tokenizer, load
from tokenreel.tokenizers.base import StreamEncoder, check_fingerprint
from tokenreel.tokenizers.hub import is_hub_id, pretrained_folder
from tokenreel.tokens.file import TokenFile, TokenHeader, TokenWriter
from tokenreel.types import Tokens

from .ahead import ahead
from .progress import Progress, silent

if TYPE_CHECKING:
    from tokenreel.tokenizers.learned import Precision

__all__ = [
    "Encoded",
    "as_frames",
    "decode_file",
    "decoded_frames",
    "encode_file",
    "pixels_for",
    "stacks",
    "stream_of",
    "tokenizer_of",
]

_CHUNK_BYTES = 4 << 20
"""Of frames handed to the tokenizer at once. As floats, and again behind those that were held back, they take nine
times as much; and tokenizers cut finer than this, so more at once is no faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What was written."""

    path: Path
    header: TokenHeader
    num_tokens: int

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        frames, height, width = self.header.size
        bits = self.num_tokens * float(np.log2(self.header.codebook_size))
        return {
            "path": str(self.path),
            "tokenizer": self.header.tokenizer,
            "tokens": self.num_tokens,
            "codebook_size": self.header.codebook_size,
            "grid": [self.header.grid.t, self.header.grid.h, self.header.grid.w],
            "frames": frames,
            "height": height,
            "width": width,
            "fps": self.header.fps,
            "bits_per_pixel": round(bits / (frames * height * width), 6),
            "compression_ratio": round(24 * frames * height * width / bits, 2) if bits else None,
            "bytes": self.path.stat().st_size,
        }


def encode_file(
    video: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    tokenizer: str | Tokenizer = "raw",
    selection: Selection | None = None,
    size: int | tuple[int, int] | str | None = None,
    token_count: int | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    caption: str | None = None,
    progress: Progress = silent,
) -> Encoded:
    """Write the tokens of a video's chosen frames as a ``.tokens`` file; memory does not grow with length.

    Args:
        token_count: tokens a frame or clip, for tokenizers that leave the choice.
        device: where a learned tokenizer runs, ``auto`` for CUDA where there is one.
        precision: ``fp32``, or ``bf16``: faster where the processor has it, and some ids change.

    Raises:
        InputError: the video cannot be read, the tokenizer is unknown, or the output cannot be written.
    """
    if Path(output).suffix != ".tokens":
        raise InputError(f"the token file must end in .tokens, got {os.fspath(output)}")
    coder = load(tokenizer, device=device, precision=precision) if isinstance(tokenizer, str) else tokenizer
    meta: dict[str, Any] = {"source": Path(video).name, **coder.reference}
    if caption is not None:
        meta["caption"] = caption
    times: list[float] = []
    with open_media(video, selection, size=size) as reader, TokenWriter(output) as writer:
        stream, written = stream_of(coder, token_count), 0
        total = reader.estimated_frames()
        for frames in stacks(ahead(reader), coder.patch_size[0], times):
            for part in stream.push(pixels_for(frames, coder)):
                written = _append(writer, part, times, written, meta)
            progress(len(times), total)
        for part in stream.finish():
            written = _append(writer, part, times, written, meta)
        writer.set(fps=reader.rate(np.array(times)))
    assert writer.header is not None
    return Encoded(path=writer.path, header=writer.header, num_tokens=writer.num_tokens)


def decode_file(
    tokens: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    tokenizer: str | Tokenizer | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    lossless: bool = False,
    quality: int = 85,
    progress: Progress = silent,
) -> tuple[Path, int]:
    """Write the video that a token file stands for; returns the path and the number of frames.

    Args:
        tokenizer: by default the one that the file names, with the configuration that it names.
        device, precision: as in ``encode_file``.

    Raises:
        InputError: a file cannot be read, or the tokens were made by another tokenizer.
    """
    opened = TokenFile(tokens)
    if opened.header.layout == "merged":
        raise InputError(
            f"{opened.path} holds byte-pair merged ids; undo that first: tokenreel bpe decode {opened.path} ..."
        )
    if tokenizer is None:
        coder = tokenizer_of(opened.header, opened.path, device=device, precision=precision)
    else:
        coder = load(tokenizer, device=device, precision=precision) if isinstance(tokenizer, str) else tokenizer
    total, done, start = opened.header.size[0], 0, None
    with open_writer(output, fps=opened.header.fps or 25.0, lossless=lossless, quality=quality) as writer:
        for frames, pts in decoded_frames(opened, coder):
            for index, frame in enumerate(frames):
                if pts is not None and start is None:
                    start = float(pts[0])
                writer.write(frame, None if pts is None else float(pts[index]) - (start or 0.0))
                done += 1
                progress(done, total)
    return writer.path, done


def tokenizer_of(
    tokens: Tokens | TokenHeader,
    where: str | os.PathLike[str],
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> Tokenizer:
    """The tokenizer that made these tokens, as they name it themselves; nothing is fetched from a network.

    A learned one is looked for where it was when they were made, then in that place beside the token file.

    Raises:
        InputError: it is not known here. MismatchError: another one is there now.
    """
    config, source = tokens.meta.get("tokenizer_config"), tokens.meta.get("tokenizer_source")
    if tokens.tokenizer == RawTokenizer.name and isinstance(config, dict):
        return RawTokenizer.from_config(config)
    if not isinstance(source, str):
        raise InputError(
            f"{os.fspath(where)} does not say where its tokenizer ({tokens.tokenizer!r}) is, or how it was configured; "
            "name it with --tokenizer"
        )
    places = [str(place) for place in (Path(source), Path(where).parent / source) if place.is_dir()]
    if pretrained_folder(source) is not None and source not in places:
        places.append(source)
    if not places and is_hub_id(source):
        places = [source]
    first = None
    for place in places:
        coder = load(place, device=device, precision=precision, local_files_only=True)
        if coder.fingerprint == tokens.fingerprint:
            return coder
        first = coder if first is None else first
    if first is not None:
        check_fingerprint(first, tokens)
    raise InputError(
        f"{os.fspath(where)} was made by the tokenizer {source!r}, which is neither here nor beside it; "
        "name it with --tokenizer"
    )


def decoded_frames(
    opened: TokenFile, coder: Tokenizer
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64] | None]]:
    """The frames that a token file stands for, uint8 (T', H, W, 3) part by part, each with its times if there are."""
    pt = coder.patch_size[0]
    pixel_bytes = opened.header.size[1] * opened.header.size[2] * 3
    steps = max(1, _CHUNK_BYTES // (pixel_bytes * pt))
    stream, given = coder.decoder(), 0
    for part in opened.slabs(steps, first_frames=coder.first_frames, step_frames=pt, segment_steps=coder.segment_steps):
        check_fingerprint(coder, part)
        for frames in map(as_frames, stream.push(part)):
            yield frames, None if opened.pts_seconds is None else opened.pts_seconds[given : given + len(frames)]
            given += len(frames)
    for frames in map(as_frames, stream.finish()):
        yield frames, None if opened.pts_seconds is None else opened.pts_seconds[given : given + len(frames)]
        given += len(frames)


def stream_of(coder: Tokenizer, token_count: int | None) -> StreamEncoder:
    """The stream that encodes a clip; InputError if a token count is asked of a tokenizer that has no such choice."""
    if token_count is None:
        return coder.encoder()
    if getattr(coder, "token_count", None) is None:
        raise InputError(f"the tokenizer {coder.name!r} does not leave the choice of a token count; leave it out")
    stream: StreamEncoder = coder.encoder(token_count=token_count)  # type: ignore[call-arg]
    return stream


def stacks(frames: Iterator[Frame], multiple: int, times: list[float]) -> Iterator[npt.NDArray[np.uint8]]:
    """Stacks of frames, about ``_CHUNK_BYTES`` each and a multiple of ``multiple`` long; appends to ``times``."""
    held: list[npt.NDArray[np.uint8]] = []
    for frame in frames:
        held.append(frame.pixels_HWC)
        times.append(frame.pts_seconds)
        if len(held) % multiple == 0 and sum(f.nbytes for f in held) >= _CHUNK_BYTES:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


def pixels_for(frames_THWC: npt.NDArray[np.uint8], coder: Tokenizer) -> Any:
    """uint8 (T, H, W, C) as this tokenizer reads it: (C, T, H, W), uint8 or float in [-1, 1]."""
    return rearrange(frames_THWC, "T H W C -> C T H W") if coder.pixels == "uint8" else to_video(frames_THWC)


def as_frames(video_CTHW: Any) -> npt.NDArray[np.uint8]:
    """What a tokenizer decodes, (C, T, H, W), as uint8 (T, H, W, C)."""
    return rearrange(video_CTHW, "C T H W -> T H W C") if isinstance(video_CTHW, np.ndarray) else to_frames(video_CTHW)


def _append(writer: TokenWriter, part: Tokens, times: list[float], written: int, meta: dict[str, Any]) -> int:
    count = part.size[0]
    writer.append(replace(part, pts_seconds=np.array(times[written : written + count]), meta=meta))
    return written + count
