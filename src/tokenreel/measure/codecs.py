"""Rate and distortion of picture and video codecs on the same clips, to hold a tokenizer's figures against.

Bits of video codecs are those of their packets, without a container and without the settings that x264 and x265 write
into the stream; bits of picture codecs are those of a whole file a frame. Video goes through YUV 4:2:0 (BT.709, limited
range) and back, as such video does: that loss is part of it.

Letters: C channels, T frames, H W pixels.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from tokenreel.errors import InputError

from .fidelity import db, squared_error, ssim
from .roundtrip import unit_video

__all__ = ["CODECS", "Codec", "CodecCurve", "CodecMeter", "CodecPoint"]

Frames = npt.NDArray[np.uint8]
_EXACT_DB = 100.0  # where all clips are exact, so that curves stay finite
_X264_NOTE = bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef")  # identifies the user data of libx264


@dataclass(frozen=True, slots=True)
class Codec:
    """One codec: ``code(frames_THWC, quality)`` gives (bytes, decoded frames)."""

    title: str
    code: Callable[[Frames, int], tuple[int, Frames]]
    qualities: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CodecPoint:
    """One quality over all clips: all bits over all pixels, and means over clips."""

    quality: int
    bits_per_pixel: float
    psnr_db: float
    ssim: float | None


@dataclass(frozen=True, slots=True)
class CodecCurve:
    """The points of one codec, from few bits to many."""

    name: str
    title: str
    points: tuple[CodecPoint, ...]

    def at(self, bits_per_pixel: float, what: str = "psnr_db") -> float | None:
        """A figure at this rate, linear in the logarithm of bits between two points; None outside the curve."""
        rates = [math.log2(point.bits_per_pixel) for point in self.points]
        values = [getattr(point, what) for point in self.points]
        rate = math.log2(bits_per_pixel) if bits_per_pixel > 0 else -math.inf
        if not rates or None in values or not rates[0] <= rate <= rates[-1]:
            return None
        return float(np.interp(rate, rates, values))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        points = [
            {"quality": p.quality, "bits_per_pixel": p.bits_per_pixel, "psnr_db": p.psnr_db, "ssim": p.ssim}
            for p in self.points
        ]
        return {"codec": self.name, "title": self.title, "points": points}


class CodecMeter:
    """Codes each clip at every quality of the chosen codecs, and adds up."""

    def __init__(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in CODECS]
        if unknown:
            raise InputError(f"no codec is called {unknown[0]!r}; known are {', '.join(CODECS)}")
        self.names = tuple(dict.fromkeys(names))
        self._found: dict[tuple[str, int], list[tuple[int, float, float | None]]] = {}
        self._pixels = 0

    def add(self, frames_THWC: Frames) -> None:
        """One more clip."""
        self._pixels += math.prod(frames_THWC.shape[:3])
        original = unit_video(np.moveaxis(frames_THWC, 3, 0))
        for name in self.names:
            for quality in CODECS[name].qualities:
                num_bytes, decoded = CODECS[name].code(frames_THWC, quality)
                video = unit_video(np.moveaxis(decoded, 3, 0))
                level = db(squared_error(original, video))
                self._found.setdefault((name, quality), []).append((num_bytes, level, ssim(original, video)))

    def curves(self) -> list[CodecCurve]:
        """Of all clips so far."""
        return [CodecCurve(name, CODECS[name].title, self._points(name)) for name in self.names if self._found]

    def _points(self, name: str) -> tuple[CodecPoint, ...]:
        points = []
        for quality in CODECS[name].qualities:
            found = self._found[name, quality]
            levels = [level for _, level, _ in found if level != math.inf]  # exact clips are not averaged, as in Scores
            similarities = [similarity for _, _, similarity in found if similarity is not None]
            points.append(
                CodecPoint(
                    quality=quality,
                    bits_per_pixel=8 * sum(num_bytes for num_bytes, _, _ in found) / self._pixels,
                    psnr_db=math.fsum(levels) / len(levels) if levels else _EXACT_DB,
                    ssim=math.fsum(similarities) / len(similarities) if similarities else None,
                )
            )
        return tuple(sorted(points, key=lambda point: point.bits_per_pixel))


# -- pictures -------------------------------------------------------------------------------------------------------


def _pictures(kind: str, **options: Any) -> Callable[[Frames, int], tuple[int, Frames]]:
    def code(frames_THWC: Frames, quality: int) -> tuple[int, Frames]:
        total, decoded = 0, np.empty_like(frames_THWC)
        for index, frame in enumerate(frames_THWC):
            file = io.BytesIO()
            Image.fromarray(frame).save(file, kind, quality=quality, **options)
            total += file.tell()
            decoded[index] = np.asarray(Image.open(file).convert("RGB"))
        return total, decoded

    return code


# -- video ----------------------------------------------------------------------------------------------------------


def _video(encoder: str, decoder: str, **options: str) -> Callable[[Frames, int], tuple[int, Frames]]:
    def code(frames_THWC: Frames, quality: int) -> tuple[int, Frames]:
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 tells its settings on stderr, and listens to nothing else
        packets = _packets(encoder, frames_THWC, {**options, "crf": str(quality)})
        return sum(map(_needed_bytes, packets)), _decoded(decoder, packets, frames_THWC.shape)

    return code


def _packets(encoder: str, frames_THWC: Frames, options: dict[str, str]) -> list[Any]:
    from av.codec.context import CodecContext
    from av.video.frame import VideoFrame
    from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

    height, width = frames_THWC.shape[1:3]
    context = cast(Any, CodecContext.create(encoder, "w"))
    context.width, context.height = width, height
    context.pix_fmt = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.thread_count = 1  # equal bytes on every machine
    context.options = options
    reformatter, packets = VideoReformatter(), []
    for index, pixels in enumerate(frames_THWC):
        frame = reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
            format=context.pix_fmt,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        frame.pts, frame.time_base = index, context.time_base
        packets += context.encode(frame)
    return [*packets, *context.encode(None)]


def _needed_bytes(packet: Any) -> int:
    """Size of a packet without the note in which x264 tells its settings: 700 bytes that no decoder reads."""
    data = bytes(packet)
    at = data.find(_X264_NOTE)
    start = data.rfind(b"\0\0\1", 0, at) if at >= 0 else -1
    if start < 0:
        return len(data)
    end = data.find(b"\0\0\1", at)
    return start if end < 0 else len(data) - (end - start)


def _decoded(decoder: str, packets: list[Any], shape: tuple[int, ...]) -> Frames:
    from av.codec.context import CodecContext
    from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

    context = cast(Any, CodecContext.create(decoder, "r"))
    context.thread_count = 1
    reformatter = VideoReformatter()
    frames = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    if len(frames) != shape[0]:
        raise InputError(f"{decoder} gave {len(frames)} of {shape[0]} frames; leave this codec out with --codecs")
    decoded = np.empty(shape, np.uint8)
    for index, frame in enumerate(sorted(frames, key=lambda frame: frame.pts)):
        rgb = reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        decoded[index] = rgb.to_ndarray()
    return decoded


CODECS: dict[str, Codec] = {
    "h264": Codec("H.264 (x264 medium)", _video("libx264", "h264", preset="medium"), (12, 18, 25, 32, 38, 44, 51)),
    "h265": Codec(
        "H.265 (x265 medium)",
        _video(
            "libx265", "hevc", preset="medium", **{"x265-params": "log-level=none:info=0:pools=none:frame-threads=1"}
        ),
        (12, 18, 25, 32, 38, 44, 51),
    ),
    "av1": Codec("AV1 (SVT-AV1 preset 8)", _video("libsvtav1", "libdav1d", preset="8"), (10, 20, 30, 40, 50, 57, 63)),
    "jpeg": Codec("JPEG, each frame", _pictures("JPEG", optimize=True), (5, 15, 30, 50, 75, 90)),
    "webp": Codec("WebP, each frame", _pictures("WEBP", method=4), (1, 10, 30, 50, 75, 90)),
}
"""Name: codec. H.264, H.265 and AV1 take a constant rate factor, the others a quality."""
