"""Colours: the named ones that captions will speak of, palettes that go together, and ramps between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = ["COLOURS", "PALETTES", "Colour", "colourise", "ramp"]

Colour = tuple[int, int, int]
"""RGB, each [0, 255]."""

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 57),
    "orange": (243, 129, 50),
    "yellow": (246, 200, 68),
    "green": (64, 160, 90),
    "cyan": (62, 190, 200),
    "blue": (46, 98, 206),
    "purple": (128, 78, 180),
    "pink": (236, 130, 168),
    "brown": (134, 88, 58),
    "white": (245, 243, 238),
    "gray": (138, 140, 145),
    "black": (28, 29, 33),
}
"""Every name is told from every other by eye."""

PALETTES: dict[str, tuple[Colour, ...]] = {
    "dusk": ((24, 32, 62), (56, 64, 108), (109, 89, 122), (181, 101, 118), (229, 137, 110), (246, 196, 140)),
    "coast": ((38, 70, 83), (42, 157, 143), (138, 177, 125), (233, 196, 106), (244, 162, 97), (231, 111, 81)),
    "paper": ((92, 76, 66), (160, 136, 112), (205, 184, 154), (232, 217, 190), (250, 242, 224)),
    "forest": ((22, 38, 32), (44, 78, 60), (92, 126, 74), (168, 172, 96), (226, 214, 160)),
    "gray": ((12, 12, 12), (70, 70, 70), (128, 128, 128), (186, 186, 186), (244, 244, 244)),
}
"""From dark to light, so that a ramp over one is smooth."""

_RAMP_STEPS = 1024  # finer than 256, so that a ramp across several colours shows no bands


def ramp(palette: Sequence[Colour]) -> npt.NDArray[np.uint8]:
    """A table of 1024 colours that runs evenly through ``palette``: uint8 (1024, 3), read-only.

    Raises:
        InputError: the palette is empty.

    >>> ramp([(0, 0, 0), (255, 255, 255)])[[0, 512, 1023], 0].tolist()
    [0, 128, 255]
    """
    if not len(palette):
        raise InputError("palette must hold at least one colour, got none; take one of PALETTES")
    return _ramp(tuple(palette))


@lru_cache(maxsize=256)
def _ramp(palette: tuple[Colour, ...]) -> npt.NDArray[np.uint8]:
    stops = np.linspace(0, 1, len(palette))
    steps = np.linspace(0, 1, _RAMP_STEPS)
    channels = [np.interp(steps, stops, [colour[c] for colour in palette]) for c in range(3)]
    table = (np.stack(channels, axis=-1) + 0.5).astype(np.uint8)
    table.flags.writeable = False  # one table for all who ask
    return table


def colourise(field_HW: npt.NDArray[np.float32], palette: Sequence[Colour]) -> npt.NDArray[np.uint8]:
    """Values in [0, 1] as colours of the ramp over ``palette``: (H, W) -> uint8 (H, W, 3)."""
    steps = (field_HW * (_RAMP_STEPS - 1) + 0.5).astype(np.int32)
    return ramp(palette).take(steps, axis=0, mode="clip")
