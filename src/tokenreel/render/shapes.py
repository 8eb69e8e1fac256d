"""Shapes as signed distances, and their anti-aliased coverage.

Every shape lies inside the circle of radius 1 about its origin; x runs right, y runs down, the tip of the triangle and
of the star point up. A distance is negative inside and exact near the outline (outside a corner it is mitred), which
gives a one-pixel edge without supersampling and soft shadows for nothing.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

from .colours import Colour

__all__ = ["AREAS", "SHAPES", "Distance", "blend", "composite", "cover", "coverage", "per_channel"]

Floats = npt.NDArray[np.float32]
Distance = Callable[[Floats, Floats], Floats]
"""Points ``(u, v)`` of any shape -> signed distance to the outline of the unit shape."""

_RING_INNER = 0.5
_SQUARE_HALF = math.sqrt(0.5)
_STAR_INNER = 0.45
_CROSS_HALF = 0.33  # half the width of an arm
_CROSS_REACH = math.sqrt(1 - _CROSS_HALF**2)
# A square standing on its corner with half a disc on each upper side; its tip and both lobes touch the unit circle.
_HEART_SIDE = 3 / math.sqrt(2) - 1


def _circle(u: Floats, v: Floats) -> Floats:
    return np.sqrt(u * u + v * v) - np.float32(1)


def _ring(u: Floats, v: Floats) -> Floats:
    middle, half = np.float32((1 + _RING_INNER) / 2), np.float32((1 - _RING_INNER) / 2)
    return np.abs(np.sqrt(u * u + v * v) - middle) - half


def _square(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(_SQUARE_HALF)


def _triangle(u: Floats, v: Floats) -> Floats:
    half = np.float32(0.5)
    sides = np.abs(u) * np.float32(math.sqrt(0.75)) - v * half
    return np.maximum(v, sides) - half


def _cross(u: Floats, v: Floats) -> Floats:
    a, b = np.abs(u), np.abs(v)
    along, across = np.maximum(a, b), np.minimum(a, b)
    return np.maximum(along - np.float32(_CROSS_REACH), across - np.float32(_CROSS_HALF))


def _fold(u: Floats, w: Floats, degrees: float) -> tuple[Floats, Floats]:
    """Mirrors what lies clockwise of the line at ``degrees`` from straight up (w runs up) onto its other side."""
    normal_u, normal_w = np.float32(math.cos(math.radians(degrees))), np.float32(-math.sin(math.radians(degrees)))
    beyond = np.float32(2) * np.maximum(u * normal_u + w * normal_w, np.float32(0))
    return u - beyond * normal_u, w - beyond * normal_w


def _star(u: Floats, v: Floats) -> Floats:
    u, w = _fold(np.abs(u), -v, 72)
    u, w = _fold(np.abs(u), w, 36)  # now one edge is left: from the tip (0, 1) to the notch at 36 degrees
    notch_u, notch_w = _STAR_INNER * math.sin(math.radians(36)), _STAR_INNER * math.cos(math.radians(36))
    length = math.hypot(notch_u, 1 - notch_w)
    normal_u, normal_w = np.float32((1 - notch_w) / length), np.float32(notch_u / length)
    return u * normal_u + (w - np.float32(1)) * normal_w


def _heart(u: Floats, v: Floats) -> Floats:
    u, w = np.abs(u), np.float32(1) - v  # w runs up from the tip
    half, diagonal = np.float32(_HEART_SIDE / 2), np.float32(math.sqrt(0.5))
    lobe_u, lobe_w = u - half * diagonal, w - np.float32(3) * half * diagonal
    lobe = np.sqrt(lobe_u * lobe_u + lobe_w * lobe_w) - half
    body = np.maximum((u - w) * diagonal, (u + w) * diagonal - np.float32(_HEART_SIDE))
    distance: Floats = np.minimum(lobe, body)
    return distance


SHAPES: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
}

AREAS: dict[str, float] = {
    "circle": math.pi,
    "square": (2 * _SQUARE_HALF) ** 2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 5 * _STAR_INNER * math.sin(math.radians(36)),
    "ring": math.pi * (1 - _RING_INNER**2),
    "cross": 8 * _CROSS_HALF * _CROSS_REACH - 4 * _CROSS_HALF**2,
    "heart": _HEART_SIDE**2 * (1 + math.pi / 4),
}
"""The area of each shape at radius 1."""


def cover(distance_pixels: Floats, softness_pixels: Floats | float = 0.0) -> Floats:
    """The share of each pixel that is covered, float32 [0, 1]; ``softness_pixels`` widens the one-pixel edge."""
    edge = np.float32(0.5) - distance_pixels / (np.float32(1) + np.float32(softness_pixels))
    alpha: Floats = np.clip(edge, np.float32(0), np.float32(1))
    if np.any(softness_pixels):
        alpha = alpha * alpha * (np.float32(3) - np.float32(2) * alpha)  # no visible end of the blur
    return alpha


def coverage(
    shape: str,
    *,
    height: int,
    width: int,
    x: float,
    y: float,
    radius: float,
    angle: float = 0.0,
    softness: float = 0.0,
) -> Floats:
    """The anti-aliased mask of one shape: float32 (H, W) in [0, 1].

    Args:
        shape: a name in ``SHAPES``.
        height, width: of the mask, in pixels.
        x, y: the centre, in pixels from the upper left corner of the picture.
        radius: of the circle around the shape, in pixels.
        angle: clockwise, in radians.
        softness: width of the blurred edge, in pixels.

    Raises:
        InputError: the shape is unknown or the radius is not positive.
    """
    if shape not in SHAPES:
        raise InputError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    if not radius > 0:
        raise InputError(f"radius must be above 0 pixels, got {radius}")
    right = (np.arange(width, dtype=np.float32) + np.float32(0.5 - x)) / np.float32(radius)
    down = (np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5 - y)) / np.float32(radius)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    distance = SHAPES[shape](right * cos + down * sin, down * cos - right * sin)
    return cover(distance * np.float32(radius), softness)


def per_channel(values: Floats) -> Floats:
    """``values`` (...) said once for each of three channels: (..., 3), contiguous, so much faster than [..., None]."""
    return np.repeat(values, 3, axis=-1).reshape(*values.shape, 3)


def blend(under: npt.NDArray[np.uint8], over: Floats, alpha: Floats) -> npt.NDArray[np.uint8]:
    """``over`` [0, 255] on ``under`` where ``alpha`` is 1, rounded; all three of one shape."""
    mixed = under.astype(np.float32)
    mixed += (over - mixed) * alpha
    mixed += np.float32(0.5)
    return mixed.astype(np.uint8)


def composite(
    image_HWC: npt.NDArray[np.uint8], alpha_HW: Floats, paint: Colour | npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """``paint``, one colour or a picture of the same size, over ``image_HWC`` where alpha is 1: uint8 (H, W, 3)."""
    over = np.broadcast_to(np.asarray(paint, np.float32), image_HWC.shape)
    return blend(image_HWC, over, per_channel(alpha_HW))
