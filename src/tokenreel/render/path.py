"""Smooth random paths: how a camera or a thing drifts, turns and zooms when nobody planned it.

Letters: T frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Path", "random_path", "still_path"]

Floats = npt.NDArray[np.float64]

_WAVES = 3
_STEPS = (0.15, 4.0)  # pixels a frame, from slow to fast
_TURNS = (0.002, 0.05)  # radians a frame
_ZOOMS = (0.002, 0.03)  # logarithm of the scale, a frame
_LEVEL = 0.6  # how often nothing turns
_FAR = 0.3  # and at most so far from the middle frame
_FINEST = 1.1  # a picture is never made smaller than this, or it would flicker


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Path:
    """A path of T frames; at its middle frame it has no offset and no turn.

    Attributes:
        x, y: float64 (T,), in pixels, right and down.
        angle: float64 (T,), clockwise, in radians.
        scale: float64 (T,), above 0.
    """

    x: Floats
    y: Floats
    angle: Floats
    scale: Floats


def still_path(num_frames: int) -> Path:
    """The path of something that stays where it is."""
    zero = np.zeros(num_frames)
    return Path(x=zero, y=zero, angle=zero, scale=np.ones(num_frames))


def random_path(rng: np.random.Generator, num_frames: int, *, unit: float) -> Path:
    """A drift at a random speed in a random direction, with slow waves on it, a zoom and, in two of five, a turn.

    Args:
        unit: pixels that count as one: speeds are meant for pictures of 64 pixels and grow with ``unit``.
    """
    speed = _log_uniform(rng, _STEPS) * unit
    direction = rng.uniform(0, 2 * math.pi)
    times = np.arange(num_frames, dtype=np.float64) - num_frames // 2
    x = speed * math.cos(direction) * times + speed * _waves(rng, num_frames)
    y = speed * math.sin(direction) * times + speed * _waves(rng, num_frames)
    turn, zoom = (_sign(rng) * _log_uniform(rng, limits) for limits in (_TURNS, _ZOOMS))
    if rng.random() < _LEVEL:
        turn = 0.0
    scale = np.exp(np.clip(zoom * times, -_FAR, _FAR))
    return Path(x=x, y=y, angle=turn * times, scale=scale / (_FINEST * scale.min()))


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    low, high = limits
    drawn: float = low * (high / low) ** float(rng.random())
    return drawn


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _waves(rng: np.random.Generator, num_frames: int) -> Floats:
    """A sum of slow waves, about as large as two steps, that is 0 at the middle frame."""
    times = np.arange(num_frames)
    total = np.zeros(num_frames)
    for _ in range(_WAVES):
        period, phase = rng.uniform(8, 40), rng.uniform(0, 2 * math.pi)
        total += rng.uniform(0, 0.15) * period * np.sin(2 * math.pi * times / period + phase) / _WAVES
    shifted: Floats = total - total[num_frames // 2]
    return shifted
