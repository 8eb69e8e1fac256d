"""A random view of a film: which frames, which part of them, how large, mirrored or not; and a camera over pictures.

All draws of a view are made before its film is opened, so that a clip which stands in for a broken one is seen the
same way. Letters: T frames, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from .batch_config import BatchConfig, Shape
from .films import Film

__all__ = ["View", "centre_view", "random_view"]

Numbers = tuple[float, float, float]
Pixels = npt.NDArray[np.uint8]
_NATIVE = 0.02  # a crop within 2 % of the size of the view is cut out as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a clip is seen; ``frames`` makes it.

    Attributes:
        num_frames, height, width: of the clip that comes out.
        start: where it begins, as a share of the possible beginnings.
        stride: frames of the film from one frame of the view to the next; or
        fps: frames a second of the view.
        boxes: (scale, right, down) of the crop at the first and at the last frame: its side as a share of the largest
            crop, and where it lies as shares of the room there is. They differ only for a camera over a picture.
        is_mirrored: left is right.
        moves: whether the camera moves over a picture that stands for several frames.
    """

    num_frames: int
    height: int
    width: int
    start: float = 0.0
    stride: int = 1
    fps: float | None = None
    boxes: tuple[Numbers, Numbers] = ((1.0, 0.5, 0.5), (1.0, 0.5, 0.5))
    is_mirrored: bool = False
    moves: bool = False

    def frames(self, film: Film) -> Pixels:
        """uint8 (T, H, W, 3); only the frames that are seen are decoded."""
        if film.num_frames == 1:
            return self._of_picture(film.images(0, 1.0, 1)[0])
        start, step = self._pace(film)
        images = film.images(start, step, self.num_frames)
        crop = self._crop(images[0], self.boxes[0], snaps=True)
        seen = np.stack([self._cut(image, crop) for image in images])
        return self._turned(seen[to_and_fro(len(seen), self.num_frames)])

    def _pace(self, film: Film) -> tuple[int, float]:
        """The first frame and the step in frames; a film that is too short is seen at a smaller step."""
        step = float(self.stride) if self.fps is None or film.fps is None else max(1.0, film.fps / self.fps)
        last, gaps = film.num_frames - 1, self.num_frames - 1
        if gaps and gaps * step > last:
            step = max(1.0, math.floor(last / gaps) if step == int(step) else last / gaps)
        room = max(0, last - math.ceil(gaps * step))
        return min(room, int(self.start * (room + 1))), step

    def _of_picture(self, image: Image.Image) -> Pixels:
        if not self.moves or self.num_frames == 1:
            still = self._cut(image, self._crop(image, self.boxes[0], snaps=True))
            return self._turned(np.repeat(still[None], self.num_frames, axis=0))
        first, last = (np.array(self._crop(image, box, snaps=False)) for box in self.boxes)
        path = first + np.linspace(0.0, 1.0, self.num_frames)[:, None] * (last - first)
        return self._turned(np.stack([self._cut(image, (left, top, width)) for left, top, width in path.tolist()]))

    def _crop(self, image: Image.Image, box: Numbers, *, snaps: bool) -> Numbers:
        """(left, top, width) of the crop in pixels of the film; it ``snaps`` to whole pixels at the view's own size."""
        largest = min(image.width, image.height * self.width / self.height)
        scale, right, down = box
        width = max(scale * largest, min(largest, self.width))
        is_native = snaps and abs(width / self.width - 1) < _NATIVE
        is_native = is_native and image.width >= self.width and image.height >= self.height
        width = float(self.width) if is_native else width
        left, top = right * (image.width - width), down * (image.height - width * self.height / self.width)
        return (float(round(left)), float(round(top)), width) if is_native else (left, top, width)

    def _cut(self, image: Image.Image, crop: Numbers) -> Pixels:
        """One frame of the view. Pillow's filters average over what a pixel covers where they shrink."""
        left, top, width = crop
        if width == self.width and left == int(left) and top == int(top):
            return np.asarray(image.crop((int(left), int(top), int(left) + self.width, int(top) + self.height)))
        right, bottom = left + width, top + width * self.height / self.width
        box = (max(0.0, left), max(0.0, top), min(right, image.width), min(bottom, image.height))  # but for rounding
        # Hamming costs what bilinear costs, half of bicubic, and is nearly as sharp as that where it shrinks.
        resample = Image.Resampling.HAMMING if width >= self.width else Image.Resampling.BICUBIC
        return np.asarray(image.resize((self.width, self.height), resample, box=box))

    def _turned(self, frames_THWC: Pixels) -> Pixels:
        return frames_THWC[:, :, ::-1] if self.is_mirrored else frames_THWC


def random_view(config: BatchConfig, shape: Shape, rng: np.random.Generator) -> View:
    """A view of this shape; a function of the state of ``rng``."""
    start, pace, mirror, move = rng.random(4)
    low, high = config.low("crop_scale"), config.high("crop_scale")
    places = rng.random((2, 3))
    first, last = ((float(low + scale * (high - low)), float(right), float(down)) for scale, right, down in places)
    moves = bool(move < config.image_motion)
    fps = None if config.fps is None else config.low("fps") * (config.high("fps") / config.low("fps")) ** float(pace)
    low_stride, high_stride = int(config.low("stride")), int(config.high("stride"))
    return View(
        num_frames=shape.num_frames,
        height=shape.height,
        width=shape.width,
        start=float(start),
        stride=low_stride + int(pace * (high_stride - low_stride + 1)),
        fps=fps,
        boxes=(first, last),
        is_mirrored=bool(mirror < config.flip),
        moves=moves,
    )


def centre_view(config: BatchConfig, shape: Shape) -> View:
    """The view that validation uses: the first frames at the slowest stride (or highest rate), the largest crop."""
    fps = None if config.fps is None else config.high("fps")
    return View(
        num_frames=shape.num_frames,
        height=shape.height,
        width=shape.width,
        stride=int(config.low("stride")),
        fps=fps,
    )


def to_and_fro(count: int, wanted: int) -> npt.NDArray[np.int64]:
    """Indices of ``wanted`` frames out of ``count``: forth, back, forth ...; a clip that is too short goes on so.

    >>> to_and_fro(3, 8).tolist()
    [0, 1, 2, 1, 0, 1, 2, 1]
    """
    if count == 1:
        return np.zeros(wanted, np.int64)
    place = np.arange(wanted) % (2 * count - 2)
    return np.minimum(place, 2 * count - 2 - place)
