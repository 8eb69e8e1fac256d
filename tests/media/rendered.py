"""Small clips drawn for the tests and encoded with PyAV, so that every machine has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder talks to stderr

import av
import numpy as np
from av.video.frame import VideoFrame

X264 = {"preset": "veryfast", "crf": "18"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}
VPX = {"deadline": "realtime", "cpu-used": "8"}
AV1 = {"preset": "12", "svtav1-params": "lp=1"}


def moving_frames(num_frames: int = 12, height: int = 48, width: int = 64, *, seed: int = 0) -> np.ndarray:
    """uint8 (T, H, W, 3): a coloured gradient, a patch of texture, and a square that moves; every frame differs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) * 3 % 256], axis=-1)
    base[height // 2 :, : width // 3] = rng.integers(0, 256, (height - height // 2, width // 3, 3))
    frames = np.repeat(base[None], num_frames, axis=0).astype(np.uint8)
    for index in range(num_frames):
        left, top = (index * 5) % max(1, width - 8), (index * 3) % max(1, height - 8)
        frames[index, top : top + 8, left : left + 8] = (255, 255, 0) if index % 2 else (200, 0, 255)
    return frames


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    *,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    base: Fraction = Fraction(1, 1000),
    rate: int = 25,
    rotation: tuple[Any, ...] | None = None,
    colour: tuple[int, int, int, int] | None = None,
    metadata: dict[str, str] | None = None,
    fmt: str | None = None,
) -> Path:
    """Write RGB or RGBA frames; ``colour`` is (matrix, range, primaries, transfer), ``pts`` count in ``base``."""
    defaults = {"libx264": X264, "libx265": X265, "libvpx-vp9": VPX, "libvpx": VPX, "libsvtav1": AV1}
    with av.open(str(path), "w", format=fmt, options=container or {}) as out:
        stream: Any = out.add_stream(codec, rate=rate, options={**defaults.get(codec, {}), **(options or {})})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.time_base = base if pts is not None else Fraction(1, rate)
        if colour is not None:
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = colour
        if rotation is not None:
            stream.set_display_rotation(*rotation)
        stream.metadata.update(metadata or {})
        for index, pixels in enumerate(frames):
            kind = "rgba" if pixels.shape[-1] == 4 else "rgb24"
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=kind).reformat(format=pix_fmt)
            frame.pts, frame.time_base = (index if pts is None else pts[index]), context.time_base
            if colour is not None:
                frame.colorspace, frame.color_range = colour[:2]
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
