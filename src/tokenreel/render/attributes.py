"""What the captioned world is made of: shapes, colours, sizes, textures, motions; and which combinations are held out.

A combination is (shape, colour, motion). One in eight is kept from training, so that a model can be asked for something
that it has only seen in parts: every value, and every pair of values, stands in many combinations that are seen.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

from tokenreel.errors import InputError

from .backgrounds import BACKGROUNDS
from .colours import COLOURS
from .patterns import PATTERNS
from .shapes import SHAPES

__all__ = [
    "COMBINATIONS",
    "DIRECTIONS",
    "HEADS",
    "OBJECT_COLOURS",
    "SIZES",
    "Combination",
    "Combinations",
    "allowed_combinations",
    "is_held_out",
]

Combination = tuple[str, str, str]
"""(shape, colour, motion)."""

Combinations = Literal["seen", "held_out", "all"]

OBJECT_COLOURS: tuple[str, ...] = tuple(name for name in COLOURS if name != "gray")
"""Gray is left to backgrounds: a striped gray thing cannot be told from a striped white or black one."""

SIZES: dict[str, float] = {"small": 0.22, "medium": 0.31, "large": 0.42}
"""Radius in stage units (half the shorter side of the picture)."""

DIRECTIONS: tuple[str, ...] = ("still", "left", "right", "up", "down", "circle", "bounce", "grow", "spin")
"""The motions of the world, each a name in ``MOTIONS``."""

HEADS: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "colour": OBJECT_COLOURS,
    "texture": ("plain", *PATTERNS),
    "background": tuple(BACKGROUNDS),
    "motion": DIRECTIONS,
}
"""Every attribute that a judge can be asked for, with its classes in order."""


def is_held_out(shape: str, colour: str, motion: str) -> bool:
    """Whether this combination is kept from training: where 3 s + 5 c + 7 m is a multiple of 8, s, c and m the indices.

    All three factors are odd, so to any two values at most two of the third are held out.

    Raises:
        InputError: a name is not in ``HEADS``.

    >>> is_held_out("circle", "red", "still"), is_held_out("circle", "red", "left")
    (True, False)
    """
    total = 0
    for factor, head, name in ((3, "shape", shape), (5, "colour", colour), (7, "motion", motion)):
        if name not in HEADS[head]:
            raise InputError(f"{head} must be one of {', '.join(HEADS[head])}, got {name!r}")
        total += factor * HEADS[head].index(name)
    return total % 8 == 0


_ALL: tuple[Combination, ...] = tuple(product(HEADS["shape"], HEADS["colour"], HEADS["motion"]))

COMBINATIONS: dict[Combinations, tuple[Combination, ...]] = {
    "seen": tuple(combination for combination in _ALL if not is_held_out(*combination)),
    "held_out": tuple(combination for combination in _ALL if is_held_out(*combination)),
    "all": _ALL,
}


def allowed_combinations(combinations: Combinations) -> tuple[Combination, ...]:
    """The combinations of this part of the world.

    Raises:
        InputError: ``combinations`` is not one of seen, held_out, all.
    """
    if combinations not in COMBINATIONS:
        raise InputError(f"combinations must be one of {', '.join(COMBINATIONS)}, got {combinations!r}")
    return COMBINATIONS[combinations]
