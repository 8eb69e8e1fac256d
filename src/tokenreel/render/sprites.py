"""A flat or patterned shape drawn on all frames of a clip at once: the inner loop of the captioned world.

Only the box around the shape is touched. Coordinates stay (T, 1, w) and (T, h, 1) until a shape or a pattern joins
them, and colours are blended channel by channel: one plane of alpha serves three.

Letters: T frames, H W pixels, h w the box around the shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .colours import Colour
from .patterns import PATTERNS
from .shapes import SHAPES

__all__ = ["Sprite", "draw_sprite"]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sprite:
    """A shape on its way through T frames, in pixels.

    Attributes:
        shape: a name in ``SHAPES``.
        texture: a name in ``PATTERNS``, or plain.
        colour, second: its colour, and that of its pattern.
        x, y: float32 (T,), centre, in pixels from the upper left corner of the picture.
        radius: float32 (T,), of the circle around it, in pixels.
        angle: float64 (T,), clockwise, in radians.
    """

    shape: str
    texture: str
    colour: Colour
    second: Colour
    x: Floats
    y: Floats
    radius: Floats
    angle: npt.NDArray[np.float64]


def draw_sprite(frames_THWC: Pixels, sprite: Sprite) -> None:
    """Draws the shape on frames (T, H, W, 3), in place; what does not fit is cut off."""
    _, height, width, _ = frames_THWC.shape
    reach = float(sprite.radius.max()) + 1
    h, w = min(height, math.ceil(2 * reach) + 1), min(width, math.ceil(2 * reach) + 1)
    left = np.clip(np.floor(sprite.x - np.float32(reach)), 0, width - w).astype(np.intp)
    top = np.clip(np.floor(sprite.y - np.float32(reach)), 0, height - h).astype(np.intp)
    radius = sprite.radius[:, None, None]
    u = _from_centre(w, left, sprite.x, sprite.radius)[:, None, :]
    v = _from_centre(h, top, sprite.y, sprite.radius)[:, :, None]
    if sprite.angle.any():
        cos = np.cos(sprite.angle).astype(np.float32)[:, None, None]
        sin = np.sin(sprite.angle).astype(np.float32)[:, None, None]
        u, v = u * cos + v * sin, v * cos - u * sin
    alpha = SHAPES[sprite.shape](u, v)
    alpha *= -radius
    alpha += np.float32(0.5)
    np.clip(alpha, np.float32(0), np.float32(1), out=alpha)
    share = None if sprite.texture == "plain" else PATTERNS[sprite.texture](u, v, radius)
    corners = list(zip(frames_THWC, top.tolist(), left.tolist()))
    box = np.stack([frame[r : r + h, c : c + w] for frame, r, c in corners])
    _blend(box, alpha, share, sprite)
    for (frame, r, c), drawn in zip(corners, box):
        frame[r : r + h, c : c + w] = drawn


def _from_centre(side: int, first: npt.NDArray[np.intp], centre: Floats, radius: Floats) -> Floats:
    """Pixel centres of a box along one axis, from the centre of the shape, in radii: float32 (T, side)."""
    pixels: Floats = np.arange(side).astype(np.float32)
    offset: Floats = (first.astype(np.float32) + np.float32(0.5) - centre)[:, None]
    away: Floats = (pixels + offset) / radius[:, None]
    return away


def _blend(box: Pixels, alpha: Floats, share: Floats | None, sprite: Sprite) -> None:
    """The colours over a box (T, h, w, 3), in place, where alpha (T, h, w) is 1."""
    for channel, (first, second) in enumerate(zip(sprite.colour, sprite.second)):
        plane = box[..., channel].astype(np.float32)
        if share is None:
            over: Floats | np.float32 = np.float32(first)
        else:
            over = share * np.float32(second - first)
            over += np.float32(first)
        step = over - plane
        step *= alpha
        plane += step
        plane += np.float32(0.5)
        box[..., channel] = plane
