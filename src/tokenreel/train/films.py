"""An example as something to film: some of its frames, by number, as Pillow images; no other frame is decoded.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from tokenreel.data.example import Example
from tokenreel.data.pixel_shards import PixelPayload
from tokenreel.errors import InputError, MediaError

if TYPE_CHECKING:
    from tokenreel.media.read import Reader

__all__ = ["Film", "open_film"]


class Film(ABC):
    """The frames of one example.

    Attributes:
        num_frames: how many there are, as far as the source's header tells.
        fps: frames a second; None where slices or pictures have no rate.
    """

    num_frames: int
    fps: float | None

    @abstractmethod
    def images(self, start: int, step: float, count: int) -> list[Image.Image]:
        """Frames ``start, start + step ...`` (the nearest to each), at most ``count``; fewer where the film ends."""


class _Packed(Film):
    """Of pixel shards."""

    def __init__(self, payload: PixelPayload) -> None:
        self._payload = payload
        self.num_frames, self.fps = payload.entry.num_frames, payload.entry.fps

    def images(self, start: int, step: float, count: int) -> list[Image.Image]:
        return self._payload.images(_numbers(start, step, count, self.num_frames))


class _Array(Film):
    """Of pictures, volumes and rendered clips: all frames lie in memory."""

    def __init__(self, frames_THWC: npt.NDArray[np.uint8], fps: float | None = None) -> None:
        self._frames = frames_THWC
        self.num_frames, self.fps = len(frames_THWC), fps

    def images(self, start: int, step: float, count: int) -> list[Image.Image]:
        return [_image(self._frames[number]) for number in _numbers(start, step, count, self.num_frames)]


class _Video(Film):
    """Of a video file: decoding begins at the key frame before the first frame that is wanted."""

    def __init__(self, reader: Reader, num_frames: int, fps: float) -> None:
        self._reader, self._whole = reader, reader.selection
        self.num_frames, self.fps = num_frames, fps

    def images(self, start: int, step: float, count: int) -> list[Image.Image]:
        try:
            return self._read(start, step, count)
        except MediaError:
            if not start:
                raise
            return self._read(0, step, count)  # the header promised more frames than there are

    def _read(self, start: int, step: float, count: int) -> list[Image.Image]:
        assert self.fps is not None
        is_whole = step == int(step)
        begin = self._whole.start_seconds + max(0.0, (start - 0.5 * is_whole) / self.fps)
        rate = {"every": int(step)} if is_whole else {"fps": self.fps / step}
        self._reader.selection = replace(self._whole, start_seconds=begin, max_frames=count, **rate)
        return [_image(frame.pixels_HWC) for frame in self._reader]


@contextmanager
def open_film(example: Example) -> Iterator[Film]:
    """The film of an example that holds pixels; its file is closed when the block ends.

    Raises:
        InputError: the file is broken (MediaError), or the example holds tokens.
    """
    if isinstance(example.payload, PixelPayload):
        yield _Packed(example.payload)
    elif example.kind == "media":
        with example.open() as reader:
            yield _of_media(reader)
    elif example.kind == "array":
        yield _Array(_rgb(example.array()))
    else:
        raise InputError(f"{example.source} holds tokens, and batches of pixels cannot be made of them")


def _of_media(reader: Reader) -> Film:
    info, want = reader.info, reader.selection
    count = info.num_frames
    if count is None and info.duration_seconds and info.fps:
        count = round(info.duration_seconds * info.fps)
    if info.kind != "video" or not info.fps or not count:
        return _Array(np.stack([frame.pixels_HWC for frame in reader]), info.fps)
    end = min(count, round(want.end_seconds * info.fps)) if want.end_seconds < count / info.fps else count
    return _Video(reader, max(1, end - round(want.start_seconds * info.fps)), info.fps)


def _numbers(start: int, step: float, count: int, num_frames: int) -> Sequence[int]:
    numbers = (start + int(index * step + 0.5) for index in range(count))
    return [number for number in numbers if number < num_frames]


def _image(frame_HWC: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(frame_HWC))


def _rgb(frames_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return frames_THWC if frames_THWC.shape[-1] == 3 else np.repeat(frames_THWC, 3, axis=-1)
