"""Clips and pictures with natural statistics, to train tokenizers on: a textured place, a camera, things that pass.

Nothing in them has a name; what matters is that light, edges, sizes and motions come as they do in photographs and
films. Equal arguments give equal bytes.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from tokenreel.errors import InputError
from tokenreel.types import Clip

from .path import Path, random_path, still_path
from .plates import PLATES, leaves, noise, smooth
from .shapes import SHAPES, coverage

__all__ = ["natural_clip"]

Pixels = npt.NDArray[np.uint8]

_KINDS = {"leaves": 0.5, "noise": 0.12, "smooth": 0.06, "page": 0.08, "mixture": 0.24}
_STILL_CAMERA = 0.15  # how often only the things move
_RADII = (0.1, 0.45)  # of things, in parts of the shorter side
_BORDER = 3  # pixels around what is seen of a picture, for the filter


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """A picture on its way.

    Attributes:
        picture: RGB.
        outline: L, 255 where the layer is; None where it is everywhere.
        x, y: the point of the picture, in its pixels, that goes along the path.
        path: of that point, from the middle of the frame.
        filter: how it is resampled.
    """

    picture: Image.Image
    outline: Image.Image | None
    x: float
    y: float
    path: Path
    filter: Image.Resampling

    def seen(self, of: Image.Image, index: int, left: float, top: float, width: int, height: int) -> Image.Image:
        """The picture or the outline in a window of the frame whose corner is ``left``, ``top`` from its middle.

        While nothing turns, the window must lie inside the picture.
        """
        scale, angle = float(self.path.scale[index]), float(self.path.angle[index])
        right, down = left - float(self.path.x[index]), top - float(self.path.y[index])
        if angle == 0:  # rows and columns apart: several times as fast
            x, y = self.x + right / scale, self.y + down / scale
            return of.resize((width, height), self.filter, (x, y, x + width / scale, y + height / scale))
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        rows = (cos, sin, self.x + right * cos + down * sin, -sin, cos, self.y - right * sin + down * cos)
        return of.transform((width, height), Image.Transform.AFFINE, rows, self.filter)


def natural_clip(
    seed: int | np.random.Generator, num_frames: int = 16, height: int = 64, width: int = 64, fps: float = 8.0
) -> Clip:
    """A clip with natural statistics: uint8 frames (T, H, W, 3). ``num_frames=1`` gives a picture.

    The mean power spectrum of many falls about as 1 / frequency**2. The camera pans, turns and zooms along a smooth
    random path, or stands still while things pass; no clip stands still altogether.

    Args:
        seed: a seed or a generator.

    Raises:
        InputError: a size is below 1, or fps is not above 0.
    """
    for name, value in (("num_frames", num_frames), ("height", height), ("width", width)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if not fps > 0:
        raise InputError(f"fps must be above 0, got {fps}")
    rng = np.random.default_rng(seed)
    stands = bool(rng.random() < _STILL_CAMERA)
    place = _place(rng, num_frames, height, width, stands)
    things = [_thing(rng, num_frames, height, width) for _ in range(int(rng.integers(1 if stands else 0, 5)))]
    frames_THWC = np.empty((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        frame = place.seen(place.picture, index, -width / 2, -height / 2, width, height)
        for thing in things:
            _put(frame, thing, index)
        frames_THWC[index] = np.asarray(frame)
    return Clip(frames_THWC=frames_THWC, pts_seconds=np.arange(num_frames) / fps, fps=fps, source="tokenreel natural")


def _place(rng: np.random.Generator, num_frames: int, height: int, width: int, stands: bool) -> _Layer:
    """The ground that the camera looks at, just large enough for what it will see."""
    path = still_path(num_frames) if stands else random_path(rng, num_frames, unit=min(height, width) / 64)
    cos, sin = np.cos(path.angle) / path.scale, np.sin(path.angle) / path.scale
    corners = [
        (right * cos + down * sin, down * cos - right * sin)
        for right in (-width / 2 - path.x, width / 2 - path.x)
        for down in (-height / 2 - path.y, height / 2 - path.y)
    ]
    xs, ys = np.array(corners).transpose(1, 0, 2)
    left, top = float(xs.min()) - _BORDER, float(ys.min()) - _BORDER
    wide, tall = math.ceil(float(xs.max()) - left) + _BORDER, math.ceil(float(ys.max()) - top) + _BORDER
    kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    return _Layer(
        picture=Image.fromarray(PLATES[kind](rng, tall, wide)),
        outline=None,
        x=-left,
        y=-top,
        path=path,
        filter=Image.Resampling.BICUBIC,
    )


def _thing(rng: np.random.Generator, num_frames: int, height: int, width: int) -> _Layer:
    """Something that passes before the ground: one of the shapes, with texture or light on it."""
    side = min(height, width)
    low, high = _RADII
    radius = side * low * (high / low) ** float(rng.random())
    size = math.ceil(2 * radius) + 2 * _BORDER
    kind = rng.random()
    colour = leaves(rng, size, size, count=150) if kind < 0.4 else (noise if kind < 0.75 else smooth)(rng, size, size)
    names = list(SHAPES)
    alpha = coverage(
        names[int(rng.integers(len(names)))],
        height=size,
        width=size,
        x=size / 2,
        y=size / 2,
        radius=radius,
        angle=float(rng.uniform(0, 2 * math.pi)),
        softness=float(rng.choice([0.0, 0.0, 0.06])) * radius,
    )
    path = random_path(rng, num_frames, unit=side / 64)
    x, y = rng.uniform(-0.45, 0.45, 2) * (width, height)
    return _Layer(
        picture=Image.fromarray(colour),
        outline=Image.fromarray((alpha * np.float32(255) + np.float32(0.5)).astype(np.uint8)),
        x=size / 2,
        y=size / 2,
        path=Path(x=path.x + x, y=path.y + y, angle=path.angle, scale=path.scale),
        filter=Image.Resampling.BILINEAR,
    )


def _put(frame: Image.Image, thing: _Layer, index: int) -> None:
    """Pastes the thing onto the frame in place, touching only the box around it."""
    reach = (thing.x - _BORDER + 1) * float(thing.path.scale[index])  # with a pixel for the edge
    x, y = frame.width / 2 + float(thing.path.x[index]), frame.height / 2 + float(thing.path.y[index])
    left, top = max(0, math.floor(x - reach)), max(0, math.floor(y - reach))
    right, bottom = min(frame.width, math.ceil(x + reach)), min(frame.height, math.ceil(y + reach))
    if left < right and top < bottom:
        window = (index, left - frame.width / 2, top - frame.height / 2, right - left, bottom - top)
        assert thing.outline is not None
        frame.paste(thing.seen(thing.picture, *window), (left, top), thing.seen(thing.outline, *window))
