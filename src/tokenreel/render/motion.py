"""Motions as pure functions of time: where a thing is, how large, how turned, relative to where it began.

Every motion begins at rest: at time 0 it moves nothing, so motions join one after another (``Then``) and add up
(``Both``) without a jump. Positions are in stage units: the shorter side of the picture spans [-1, 1], x runs right, y
runs down.

Letters: T times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = ["MOTIONS", "STILL", "Both", "Motion", "Move", "Pose", "Then", "extent", "home"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pose:
    """Where something is at each of T times, relative to its beginning.

    Attributes:
        x, y: float64 (T,), displacement in stage units, right and down.
        scale: float64 (T,), factor on the size, above 0.
        angle: float64 (T,), clockwise, in radians.
    """

    x: Floats
    y: Floats
    scale: Floats
    angle: Floats

    @classmethod
    def at_rest(cls, num_times: int) -> Pose:
        """The pose of something that does not move: (T,) zeros, scale 1."""
        zero = np.zeros(num_times)
        return cls(x=zero, y=zero, scale=np.ones(num_times), angle=zero)

    def then(self, other: Pose) -> Pose:
        """Both displacements, one on top of the other, time by time."""
        return Pose(
            x=self.x + other.x, y=self.y + other.y, scale=self.scale * other.scale, angle=self.angle + other.angle
        )


Motion = Callable[[Floats], Pose]
"""Times in [0, 1], float64 (T,) -> Pose of T. Frozen values (``Move``, ``Then``, ``Both``) that can be pickled."""

_Parts = dict[str, Floats]


def _still(t: Floats, move: Move) -> _Parts:
    return {}


def _left(t: Floats, move: Move) -> _Parts:
    return {"x": -move.reach * t}


def _right(t: Floats, move: Move) -> _Parts:
    return {"x": move.reach * t}


def _up(t: Floats, move: Move) -> _Parts:
    return {"y": -move.reach * t}


def _down(t: Floats, move: Move) -> _Parts:
    return {"y": move.reach * t}


def _circle(t: Floats, move: Move) -> _Parts:
    start = 2 * math.pi * move.phase
    around = 2 * math.pi * move.turns * t + start
    return {"x": move.reach * (np.cos(around) - math.cos(start)), "y": move.reach * (np.sin(around) - math.sin(start))}


def _bounce(t: Floats, move: Move) -> _Parts:
    """Thrown up to ``reach`` above the floor and falling back under gravity, ``turns`` times."""
    start = move.phase % 1.0
    s = (move.turns * t + start) % 1.0
    return {"y": -4 * move.reach * (s * (1 - s) - start * (1 - start))}


def _grow(t: Floats, move: Move) -> _Parts:
    return {"scale": 1 + move.reach * t}


def _shrink(t: Floats, move: Move) -> _Parts:
    return {"scale": 1 / (1 + move.reach * t)}


def _pulse(t: Floats, move: Move) -> _Parts:
    start = math.cos(2 * math.pi * move.phase)
    wave = np.cos(2 * math.pi * (move.turns * t + move.phase))
    return {"scale": (1 + move.reach * (1 - wave) / 2) / (1 + move.reach * (1 - start) / 2)}


def _spin(t: Floats, move: Move) -> _Parts:
    return {"angle": 2 * math.pi * move.turns * t}


MOTIONS: dict[str, Callable[[Floats, Move], _Parts]] = {
    "still": _still,
    "left": _left,
    "right": _right,
    "up": _up,
    "down": _down,
    "circle": _circle,
    "bounce": _bounce,
    "grow": _grow,
    "shrink": _shrink,
    "pulse": _pulse,
    "spin": _spin,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One simple motion over times [0, 1].

    Attributes:
        kind: a name in ``MOTIONS``.
        reach: how far in stage units (left, right, up, down), the radius (circle), the height (bounce), or by which
            part of itself a thing gets larger (grow, shrink, pulse: 1 doubles or halves it).
        turns: rounds of a circle, a bounce, a pulse or a spin; negative turns run backwards.
        phase: where on its round a circle, a bounce or a pulse begins, in turns.

    >>> Move(kind="right", reach=0.5)(np.array([0.0, 1.0])).x.tolist()
    [0.0, 0.5]
    """

    kind: str
    reach: float = 1.0
    turns: float = 1.0
    phase: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in MOTIONS:
            raise InputError(f"Move.kind must be one of {', '.join(MOTIONS)}, got {self.kind!r}")
        if not self.reach >= 0:
            raise InputError(f"Move.reach must be at least 0, got {self.reach}; to turn round take the opposite kind")

    def __call__(self, t: Floats) -> Pose:
        """The pose at times ``t`` (T,) in [0, 1]."""
        rest = Pose.at_rest(len(t))
        parts = MOTIONS[self.kind](t, self)
        return Pose(
            x=parts.get("x", rest.x),
            y=parts.get("y", rest.y),
            scale=parts.get("scale", rest.scale),
            angle=parts.get("angle", rest.angle),
        )


STILL = Move(kind="still")
"""The motion that moves nothing."""


@dataclass(frozen=True, slots=True)
class Both:
    """Two motions at the same time: a ball that bounces and goes right."""

    first: Motion
    second: Motion

    def __call__(self, t: Floats) -> Pose:
        """The pose at times ``t`` (T,) in [0, 1]."""
        return self.first(t).then(self.second(t))


@dataclass(frozen=True, slots=True)
class Then:
    """Two motions one after the other; the second takes over at time ``at``, in (0, 1), where the first has ended."""

    first: Motion
    second: Motion
    at: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.at < 1:
            raise InputError(f"Then.at must lie between 0 and 1, got {self.at}")

    def __call__(self, t: Floats) -> Pose:
        """The pose at times ``t`` (T,) in [0, 1]."""
        before, after = np.minimum(t / self.at, 1), np.maximum((t - self.at) / (1 - self.at), 0)
        return self.first(before).then(self.second(after))


def extent(motion: Motion, size: float, *, num_times: int = 65) -> tuple[float, float, float, float]:
    """The box that a thing of radius ``size`` sweeps from the origin: (left, top, right, bottom) in stage units."""
    pose = motion(np.linspace(0, 1, num_times))
    radius = size * pose.scale
    return (
        float((pose.x - radius).min()),
        float((pose.y - radius).min()),
        float((pose.x + radius).max()),
        float((pose.y + radius).max()),
    )


def home(rng: np.random.Generator, motion: Motion, size: float, *, height: int, width: int) -> tuple[float, float]:
    """A random starting point (x, y) from which a thing of radius ``size`` stays in the picture all the time.

    Raises:
        InputError: the motion sweeps more than the picture.
    """
    left, top, right, bottom = extent(motion, size)
    half_width, half_height = width / min(height, width), height / min(height, width)
    free_x, free_y = 2 * half_width - (right - left), 2 * half_height - (bottom - top)
    if min(free_x, free_y) < 0:
        raise InputError(
            f"a motion that sweeps {right - left:.2f} x {bottom - top:.2f} does not fit a picture of "
            f"{2 * half_width:.2f} x {2 * half_height:.2f}; take a smaller size or reach"
        )
    return -half_width - left + free_x * rng.random(), -half_height - top + free_y * rng.random()
