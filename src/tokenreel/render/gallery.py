"""A contact sheet of captioned clips: some frames of each in a row, its caption beside them. Pillow draws the words.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tokenreel.errors import InputError
from tokenreel.types import Clip

__all__ = ["gallery"]

Pixels = npt.NDArray[np.uint8]

_PAPER, _INK = (250, 249, 245), (38, 40, 56)
_GAP, _LINE = 8, 19


def gallery(
    clips: Sequence[Clip], captions: Sequence[str], *, num_frames: int = 5, cell: int = 96, text_width: int = 260
) -> Pixels:
    """Clips and their captions, a row each: uint8 (H, W, 3).

    Args:
        num_frames: shown of each clip, spread evenly from the first to the last.
        cell: width of a frame on the sheet, in pixels.
        text_width: width of the captions, in pixels.

    Raises:
        InputError: there are no clips, or not one caption a clip.
    """
    if not clips or len(clips) != len(captions):
        raise InputError(f"gallery needs one caption a clip and at least one, got {len(clips)} and {len(captions)}")
    strips = [_strip(clip, num_frames, cell) for clip in clips]
    told = [textwrap.wrap(words, max(8, text_width // 7)) for words in captions]
    heights = [max(strip.shape[0], _LINE * len(lines)) for strip, lines in zip(strips, told)]
    left = _GAP + num_frames * (cell + _GAP)
    sheet = Image.new("RGB", (left + text_width + _GAP, _GAP + sum(height + _GAP for height in heights)), _PAPER)
    pen, face = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    top = _GAP
    for strip, lines, height in zip(strips, told, heights):
        sheet.paste(Image.fromarray(strip), (_GAP, top + (height - strip.shape[0]) // 2))
        first = top + (height - _LINE * len(lines)) // 2
        for number, line in enumerate(lines):
            pen.text((left + _GAP, first + _LINE * number), line, _INK, face)
        top += height + _GAP
    return np.asarray(sheet)


def _strip(clip: Clip, num_frames: int, cell: int) -> Pixels:
    """Frames side by side, scaled to ``cell`` pixels of width."""
    chosen = np.linspace(0, clip.num_frames - 1, num_frames).round().astype(int)
    _, height, width = clip.size
    size = cell, max(1, round(cell * height / width))
    strip = np.full((size[1], num_frames * (cell + _GAP) - _GAP, 3), _PAPER, np.uint8)
    for column, index in enumerate(chosen):
        picture = Image.fromarray(clip.frames_THWC[index]).resize(size, Image.Resampling.BICUBIC)
        strip[:, column * (cell + _GAP) :][:, :cell] = np.asarray(picture)
    return strip
