"""Frames to files, streaming: mp4, mov, mkv, webm, gif, webp, apng, png, and folders of png.

The suffix chooses the format. Every file is written beside its place and renamed when it is complete.

Letters: T frames, H W pixels, C channels.
"""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError
from tokenreel.files import whole_directory, whole_file
from tokenreel.types import Clip

__all__ = ["FORMATS", "Writer", "open_writer", "write"]

Pixels = npt.NDArray[np.uint8]

FORMATS: dict[str, str] = {
    ".mp4": "H.264, plays everywhere; lossless: H.264 RGB",
    ".mov": "H.264, as mp4",
    ".mkv": "FFV1, always lossless",
    ".webm": "VP9; lossless: VP9 in RGB",
    ".gif": "256 colours chosen for the clip, dithered",
    ".webp": "animated WebP (still for one frame); equal frames are joined",
    ".png": "animated PNG (still for one frame), lossless",
    ".apng": "animated PNG, lossless",
    "folder": "one png a frame: 000000.png, 000001.png, ... and times.json",
}


class Encoder(Protocol):
    """What each format offers to ``Writer``."""

    def add(self, pixels_HWC: Pixels, pts_seconds: float) -> None:
        """One more frame; all of one size, times ascending."""

    def finish(self) -> None:
        """Write what is left and close the file."""

    def abandon(self) -> None:
        """Close without finishing; the file is thrown away."""


class Writer:
    """A context manager that takes frames one by one. Nothing appears at ``path`` unless the block ends well.

    Args:
        path: the suffix chooses the format (``FORMATS``); no suffix or a trailing slash means a folder of png.
        fps: frames a second, where frames come without times.
        lossless: bit-exact pixels (mp4, mov, webm); mkv and png are always so, gif cannot be.
        quality: 0 (worst) to 100 (best) for lossy formats.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fps: float = 25.0, lossless: bool = False, quality: int = 85
    ) -> None:
        self.path = Path(path)
        self.format = _format_of(path)
        if not (fps > 0 and math.isfinite(fps)):
            raise InputError(f"fps must be above 0, got {fps}")
        if not 0 <= quality <= 100:
            raise InputError(f"quality must be between 0 and 100, got {quality}")
        if lossless and self.format == ".gif":
            raise InputError(f"{self.path.name}: gif cannot be lossless (256 colours); use png, mkv or --lossless mp4")
        self.fps, self.lossless, self.quality = fps, lossless, quality
        self.num_frames = 0
        self._size: tuple[int, ...] | None = None
        self._encoder: Encoder | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        make = whole_directory if self.format == "folder" else whole_file
        self._temporary = self._stack.enter_context(make(self.path))
        return self

    def write(self, pixels_HWC: Pixels, pts_seconds: float | None = None) -> None:
        """One more frame, uint8 (H, W, 3), shown at ``pts_seconds`` (default: the next tick of ``fps``)."""
        if pixels_HWC.dtype != np.uint8 or pixels_HWC.ndim != 3 or pixels_HWC.shape[2] != 3:
            raise InputError(f"a frame must be uint8 (H, W, 3), got {pixels_HWC.dtype} {pixels_HWC.shape}")
        if self._size is None:
            self._size = pixels_HWC.shape
            self._encoder = self._open_encoder(*pixels_HWC.shape[:2])
        elif pixels_HWC.shape != self._size:
            raise InputError(
                f"all frames of a video must have one size; the first is {self._size}, got {pixels_HWC.shape}"
            )
        assert self._encoder is not None
        self._encoder.add(pixels_HWC, self.num_frames / self.fps if pts_seconds is None else pts_seconds)
        self.num_frames += 1

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            try:
                if self._encoder is None:
                    raise InputError(f"no frame was written to {self.path.name}; a video needs at least one")
                self._encoder.finish()
            except BaseException as error:
                if self._encoder is not None:
                    self._encoder.abandon()
                self._stack.__exit__(type(error), error, error.__traceback__)
                raise
        elif self._encoder is not None:
            self._encoder.abandon()
        self._stack.__exit__(kind, value, tb)

    def _open_encoder(self, height: int, width: int) -> Encoder:
        if self.format in (".webp", "folder"):
            from .write_pictures import FolderEncoder, WebpEncoder

            if self.format == "folder":
                return FolderEncoder(self._temporary)
            return WebpEncoder(self._temporary, fps=self.fps, lossless=self.lossless, quality=self.quality)
        from .write_video import GifEncoder, VideoEncoder

        if self.format == ".gif":
            return GifEncoder(self._temporary, height, width, fps=self.fps)
        return VideoEncoder(
            self._temporary, self.format, height, width, fps=self.fps, lossless=self.lossless, quality=self.quality
        )


def _format_of(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    suffix = Path(text).suffix.lower()
    if text.endswith(("/", os.sep)) or not suffix or Path(text).is_dir():
        return "folder"
    if suffix not in FORMATS:
        raise InputError(f"cannot write {suffix!r} files; choose one of {', '.join(FORMATS)}")
    return suffix


def open_writer(
    path: str | os.PathLike[str], *, fps: float = 25.0, lossless: bool = False, quality: int = 85
) -> Writer:
    """A ``Writer``; see there."""
    return Writer(path, fps=fps, lossless=lossless, quality=quality)


def write(path: str | os.PathLike[str], clip: Clip, *, lossless: bool = False, quality: int = 85) -> Path:
    """Write a whole clip with its own times; returns the path."""
    with Writer(path, fps=clip.fps or 25.0, lossless=lossless, quality=quality) as writer:
        for frame, seconds in zip(clip.frames_THWC, clip.pts_seconds - clip.pts_seconds[0]):
            writer.write(frame, float(seconds))
    return writer.path
