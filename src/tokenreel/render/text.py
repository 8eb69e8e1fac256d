"""Text drawn with the typeface that Pillow brings along, so that it looks the same on every machine.

Letters: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from .colours import Colour
from .shapes import composite

__all__ = ["Label", "text_mask", "write"]

Anchor = Literal["left", "middle", "right"]

_ANCHORS: dict[Anchor, str] = {"left": "lm", "middle": "mm", "right": "rm"}


@lru_cache(maxsize=32)
def _typeface(size_pixels: float) -> ImageFont.FreeTypeFont:
    face = ImageFont.load_default(size_pixels)
    assert isinstance(face, ImageFont.FreeTypeFont), "Pillow is built without FreeType"
    return face


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A line of text fixed to the picture (the camera does not move it).

    Attributes:
        text: what it says; ``{frame}`` is the frame's index, as in ``str.format``.
        x, y: where its anchor is, in stage units.
        size: height of the letters, in stage units.
        anchor: which part of the line stands at x: left, middle or right. The line is centred on y.
        opacity: [0, 1].
    """

    text: str
    x: float
    y: float
    size: float
    colour: Colour = (255, 255, 255)
    anchor: Anchor = "left"
    opacity: float = 1.0


def text_mask(text: str, *, size_pixels: float, anchor: Anchor = "left") -> tuple[npt.NDArray[np.float32], int, int]:
    """One line of text as an anti-aliased mask.

    Returns:
        The mask, float32 (h, w) in [0, 1], no larger than the text; and its left and top edge relative to the anchor
        point, in pixels.
    """
    face = _typeface(max(1.0, size_pixels))  # FreeType knows no smaller letters
    left, top, right, bottom = (int(edge) for edge in face.getbbox(text, anchor=_ANCHORS[anchor]))
    left, top, right, bottom = left - 1, top - 1, right + 1, bottom + 1
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=face, anchor=_ANCHORS[anchor])
    return np.asarray(image, np.float32) / np.float32(255), left, top


def write(image_HWC: npt.NDArray[np.uint8], label: Label, frame: int = 0) -> None:
    """Puts the label on the picture, uint8 (H, W, 3), in place; what does not fit is cut off."""
    height, width = image_HWC.shape[:2]
    unit = min(height, width) / 2
    mask, left, top = text_mask(label.text.format(frame=frame), size_pixels=label.size * unit, anchor=label.anchor)
    left, top = left + round(width / 2 + label.x * unit), top + round(height / 2 + label.y * unit)
    mask = mask[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
    top, left = max(0, top), max(0, left)
    region = image_HWC[top : top + mask.shape[0], left : left + mask.shape[1]]
    region[:] = composite(region, mask * np.float32(label.opacity), label.colour)
