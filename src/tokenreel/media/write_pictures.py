"""Encoders that go through Pillow: animated WebP, and folders of png."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tokenreel.errors import MediaError

__all__ = ["FolderEncoder", "WebpEncoder"]

Pixels = npt.NDArray[np.uint8]


class WebpEncoder:
    """Animated WebP; one frame gives a still picture. Pillow wants all frames, so they are held in memory.

    libwebp joins frames that are equal into one that is shown longer.
    """

    def __init__(self, path: Path, *, fps: float, lossless: bool, quality: int) -> None:
        self._path = path
        self._options = {"lossless": lossless, "quality": 60 if lossless else quality, "method": 3}
        self._period_ms = 1000 / fps
        self._images: list[Image.Image] = []
        self._times: list[float] = []

    def add(self, pixels_HWC: Pixels, pts_seconds: float) -> None:
        """Keep one frame."""
        self._images.append(Image.fromarray(pixels_HWC.copy()))
        self._times.append(pts_seconds * 1000)

    def finish(self) -> None:
        """Encode all frames."""
        more: dict[str, Any] = {}
        if len(self._images) > 1:
            times = np.rint([*self._times, self._times[-1] + self._period_ms])
            more = {"save_all": True, "append_images": self._images[1:], "loop": 0}
            more["duration"] = np.maximum(1, np.diff(times)).astype(int).tolist()
        try:
            self._images[0].save(self._path, format="WEBP", **self._options, **more)
        except (OSError, ValueError) as error:
            raise MediaError(f"the picture could not be written: {error}") from error

    def abandon(self) -> None:
        """Nothing is open."""


class FolderEncoder:
    """One png a frame, named by number, compressed on two threads; ``times.json`` holds the seconds of each."""

    _WAITING = 16  # frames in flight, which bounds memory

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._times: list[float] = []
        self._pool = ThreadPoolExecutor(2)
        self._jobs: list[Future[None]] = []

    def add(self, pixels_HWC: Pixels, pts_seconds: float) -> None:
        """Hand one frame to the threads."""
        if len(self._jobs) >= self._WAITING:
            self._done(self._jobs.pop(0))
        name = self._folder / f"{len(self._times):06d}.png"
        self._jobs.append(self._pool.submit(_save_png, pixels_HWC.copy(), name))
        self._times.append(pts_seconds)

    def finish(self) -> None:
        """Wait for all frames and write their times."""
        for job in self._jobs:
            self._done(job)
        self._pool.shutdown()
        (self._folder / "times.json").write_text(json.dumps({"pts_seconds": self._times}))

    def abandon(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _done(self, job: Future[None]) -> None:
        try:
            job.result()
        except OSError as error:
            raise MediaError(f"a frame could not be written: {error}") from error


def _save_png(pixels: Pixels, path: Path) -> None:
    Image.fromarray(pixels).save(path, compress_level=3)
