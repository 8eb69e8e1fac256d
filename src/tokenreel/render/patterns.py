"""Patterns painted on things: how much of a second tone each point of a shape takes.

Patterns are functions of the shape's own coordinates (the unit circle around it), so they move, turn and grow with it.

Letters: T frames, h w the box around a thing in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["PATTERNS", "Pattern"]

Floats = npt.NDArray[np.float32]
Pattern = Callable[[Floats, Floats, Floats], Floats]
"""(u, v, radius in pixels), shapes that broadcast to (T, h, w) -> share of the second tone, float32 in [0, 1]."""

_STRIPE, _STRIPE_SHARE = 0.62, 0.42  # period of the stripes, and how much of it is the second tone
_CHECK, _CHECK_SIDE = 1.0, 0.9  # two fields of the board, and how wide one of the second tone is
_DOT, _DOT_RADIUS = 0.68, 0.21


def _wave(x: Floats, period: float) -> Floats:
    """How far x is from the middle of its period, in units of x: float32 in [0, period / 2]."""
    turns = x * np.float32(1 / period)
    turns -= np.floor(turns)
    turns -= np.float32(0.5)
    np.abs(turns, out=turns)
    turns *= np.float32(period)
    return turns


def _inside(distance: Floats, radius: Floats) -> Floats:
    """1 where a distance, in units of the shape, is below 0; edges one pixel wide."""
    edge = np.float32(0.5) - distance * radius
    return np.clip(edge, np.float32(0), np.float32(1), out=edge)


def _striped(u: Floats, v: Floats, radius: Floats) -> Floats:
    """Diagonal stripes."""
    across = (u + v) * np.float32(0.70710678)
    return _inside(_wave(across, _STRIPE) - np.float32(_STRIPE * _STRIPE_SHARE / 2), radius)


def _checkered(u: Floats, v: Floats, radius: Floats) -> Floats:
    """A checkerboard whose corners meet at the centre; fields of the second tone are a little smaller."""
    half, quarter = np.float32(_CHECK / 2), np.float32(_CHECK / 4)
    reach = np.float32(_CHECK / 4 * _CHECK_SIDE)
    across, down = (_wave(axis + quarter, _CHECK) for axis in (u, v))
    share = _inside(across - reach, radius) * _inside(down - reach, radius)
    share += _inside(half - across - reach, radius) * _inside(half - down - reach, radius)
    return share


def _dotted(u: Floats, v: Floats, radius: Floats) -> Floats:
    """Round dots on a square lattice, one at the centre."""
    du, dv = (_wave(axis + np.float32(_DOT / 2), _DOT) for axis in (u, v))
    return _inside(np.sqrt(du * du + dv * dv) - np.float32(_DOT_RADIUS), radius)


PATTERNS: dict[str, Pattern] = {"striped": _striped, "checkered": _checkered, "dotted": _dotted}
