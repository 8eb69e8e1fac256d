"""Named backgrounds of the captioned world, and which colours stand out from each.

A background spans few shades, so that a thing of most colours is seen everywhere on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .colours import COLOURS, Colour, ramp
from .textures import Paint, Solid, Texture

__all__ = ["BACKGROUNDS", "Background", "contrast", "paint", "second_tone", "stands_out"]

_CONTRAST = 58.0  # least distance of a thing's own colour from every shade of the background
_PATTERN_CONTRAST = 28.0  # least distance of the second tone from them and from the first


@dataclass(frozen=True, slots=True)
class Background:
    """A background's kind in ``TEXTURES`` (or plain), and the shades that it runs through."""

    kind: str
    palette: tuple[Colour, ...]


BACKGROUNDS: dict[str, Background] = {
    "white": Background("plain", (COLOURS["white"],)),
    "gray": Background("plain", (COLOURS["gray"],)),
    "black": Background("plain", (COLOURS["black"],)),
    "navy": Background("plain", ((22, 34, 84),)),
    "cream": Background("plain", ((250, 236, 200),)),
    "pale green": Background("plain", ((190, 224, 190),)),
    "pale blue": Background("plain", ((184, 212, 242),)),
    "night sky": Background("gradient", ((6, 8, 24), (44, 40, 96))),
    "morning sky": Background("gradient", ((140, 190, 240), (246, 240, 230))),
    "sunset": Background("gradient", ((238, 150, 110), (252, 214, 150))),
    "mist": Background("gradient", ((152, 160, 166), (216, 222, 226))),
    "clouds": Background("value_noise", ((116, 168, 226), (180, 208, 240), (250, 250, 252))),
    "grass": Background("value_noise", ((28, 74, 30), (60, 112, 44), (104, 150, 66))),
    "sand": Background("fractal_noise", ((196, 166, 116), (222, 198, 150), (240, 226, 190))),
    "brick wall": Background("bricks", ((176, 150, 140), (120, 62, 50), (172, 98, 78))),
    "stone wall": Background("bricks", ((58, 58, 62), (96, 98, 102), (142, 144, 148))),
    "checkerboard": Background("checker", ((206, 206, 206), (240, 240, 240))),
    "pebbles": Background("dead_leaves", ((74, 70, 68), (120, 116, 112), (158, 154, 148))),
}


def paint(name: str, seed: int) -> Paint:
    """The background of this name as something that can be drawn at any size; the seed places what is on it."""
    background = BACKGROUNDS[name]
    if background.kind == "plain":
        return Solid(background.palette[0])
    return Texture(kind=background.kind, palette=background.palette, seed=seed)


def contrast(colour: Colour, shades: npt.NDArray[np.uint8]) -> float:
    """The least distance of a colour from shades (n, 3): RGB weighted 2 : 4 : 3, about as the eye does; 0 to 255."""
    apart = shades.astype(np.float64) - np.asarray(colour, np.float64)
    squares = (apart * apart) @ np.array([2, 4, 3]) / 9
    return float(np.sqrt(squares.min()))


@lru_cache(maxsize=1024)
def stands_out(colour: str, background: str) -> bool:
    """Whether a thing of this colour, and a pattern on it, is well seen everywhere on this background.

    >>> stands_out("red", "white"), stands_out("white", "white")
    (True, False)
    """
    shades, own, tone = _shades(background), COLOURS[colour], second_tone(colour, background)
    told = min(contrast(tone, shades), contrast(tone, np.array([own], np.uint8)))
    return contrast(own, shades) >= _CONTRAST and told >= _PATTERN_CONTRAST


@lru_cache(maxsize=1024)
def second_tone(colour: str, background: str) -> Colour:
    """What stripes, checks and dots on a thing of this colour are painted in: its colour made lighter or darker.

    Of several, the one that is told best from both the colour and the background: a tone like the background would
    look like holes.
    """
    shades, own = _shades(background), COLOURS[colour]
    tones = [_mixed(own, share, end) for end in (0, 255) for share in (0.45, 0.55, 0.65, 0.75)]

    def told(tone: Colour) -> float:
        return min(contrast(tone, np.array([own], np.uint8)), contrast(tone, shades))

    return max(tones, key=told)


def _shades(background: str) -> npt.NDArray[np.uint8]:
    """The colours that a background runs through: (n, 3)."""
    return ramp(BACKGROUNDS[background].palette)[::31]


def _mixed(colour: Colour, share: float, end: int) -> Colour:
    r, g, b = (round(channel + (end - channel) * share) for channel in colour)
    return r, g, b
