"""A confusion matrix as a picture. Pillow only.

Letters: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tokenreel.errors import InputError

__all__ = ["confusion_picture"]

Colour = tuple[int, int, int]
_INK, _PAPER, _FAINT = (38, 40, 56), (250, 249, 245), (120, 122, 138)
_RIGHT, _WRONG = (28, 125, 115), (214, 76, 56)  # of the diagonal and beside it
_EDGE, _GAP = 28, 10
_NAME_LETTERS = 24
_SIDE_PIXELS = 620  # of the matrix, about


def confusion_picture(confusion_KK: npt.ArrayLike, class_names: Sequence[str], *, title: str = "") -> Image.Image:
    """Rows are true classes, columns what they were taken for; cells have counts, and their share of the row as colour.

    Raises:
        InputError: no square matrix of counts, or another number of names.
    """
    confusion = np.asarray(confusion_KK)
    num_classes = len(class_names)
    if confusion.shape != (num_classes, num_classes) or not num_classes or confusion.min() < 0:
        raise InputError(f"a confusion matrix of {num_classes} classes must be counts (K, K), got {confusion.shape}")
    names = [_short(str(name)) for name in class_names]
    cell = max(16, min(96, _SIDE_PIXELS // num_classes))
    face = _font(max(9, min(17, cell * 0.5)))
    longest = int(max(face.getlength(name) for name in names)) + 1
    top = _EDGE + (38 if title else 0)
    left, side = _EDGE + 26 + longest + _GAP, cell * num_classes
    below = longest if _is_upright(names, face, cell) else int(face.size) + 4
    width = max(left + side, _EDGE + int(_font(21).getlength(title))) + _EDGE
    sheet = Image.new("RGB", (width, top + side + _GAP + below + 34 + _EDGE), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_EDGE, _EDGE - 6), title, _INK, _font(21))
    _draw_cells(draw, confusion, left, top, cell)
    for index, name in enumerate(names):
        middle = cell * index + cell // 2
        draw.text((left - _GAP, top + middle), name, _INK, face, anchor="rm")
        if below == longest:
            _draw_upright(sheet, name, face, left + middle, top + side + _GAP)
        else:
            draw.text((left + middle, top + side + _GAP), name, _INK, face, anchor="mt")
    draw.text((left + side // 2, sheet.height - _EDGE), "taken for", _FAINT, _font(15), anchor="mb")
    _draw_upright(sheet, "true class", _font(15), _EDGE + 4, top + side // 2, colour=_FAINT, is_middle=True)
    return sheet


def _draw_cells(
    draw: ImageDraw.ImageDraw, confusion_KK: npt.NDArray[np.integer], left: int, top: int, cell: int
) -> None:
    sums = confusion_KK.sum(axis=1)
    digits = len(str(int(confusion_KK.max())))
    face = _font(min(20.0, cell * 0.42, cell * 0.86 / (0.6 * digits)))
    for row, counts in enumerate(confusion_KK.tolist()):
        for column, count in enumerate(counts):
            share = count / sums[row] if sums[row] else 0.0
            colour = _mixed(_RIGHT if row == column else _WRONG, share**0.6)
            x, y = left + cell * column, top + cell * row
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), colour)
            if (count or row == column) and face.size >= 7:
                ink = _PAPER if sum(colour) < 430 else _INK
                draw.text((x + cell / 2 - 1, y + cell / 2 - 1), str(count), ink, face, anchor="mm")


def _draw_upright(
    sheet: Image.Image,
    text: str,
    face: ImageFont.FreeTypeFont,
    x: int,
    y: int,
    *,
    colour: Colour = _INK,
    is_middle: bool = False,
) -> None:
    """Text that reads upwards: it ends at y, or has its middle there; its line is centred on x."""
    box = face.getbbox(text)
    width, height = int(box[2]) + 2, int(face.size * 1.4)
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).text((1, height / 2), text, 255, face, anchor="lm")
    turned = mask.rotate(90, expand=True)
    place = (x - turned.width // 2, y - turned.height // 2 if is_middle else y)
    sheet.paste(Image.new("RGB", turned.size, colour), place, turned)


def _is_upright(names: Sequence[str], face: ImageFont.FreeTypeFont, cell: int) -> bool:
    return any(face.getlength(name) > cell - 6 for name in names)


def _mixed(colour: Colour, share: float) -> Colour:
    """From a tint of the paper to the colour."""
    ground = (240, 239, 233)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(ground, colour))
    return red, green, blue


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1].rstrip(" ,(") + "\u2026"


def _font(size_pixels: float) -> ImageFont.FreeTypeFont:
    face = ImageFont.load_default(size_pixels)
    assert isinstance(face, ImageFont.FreeTypeFont), "Pillow is built without FreeType"
    return face
