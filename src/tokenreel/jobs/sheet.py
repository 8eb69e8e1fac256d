"""Pictures that show what a job did: sheets of thumbnails, and the demo's picture. Pillow only.

Letters: H W pixels, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tokenreel.files import whole_file
from tokenreel.types import PatchSize

__all__ = ["INK", "PAPER", "contact_sheet", "font", "save_picture", "scenes_picture", "tour_picture"]

Pixels = npt.NDArray[np.uint8]
INK, PAPER, _FAINT = (38, 40, 56), (250, 249, 245), (120, 122, 138)
_GRID = (255, 214, 10)
_GAP = 12


def contact_sheet(
    frames: Sequence[Pixels], labels: Sequence[str], *, columns: int = 4, width: int = 1200
) -> Image.Image:
    """Frames in rows with a label under each."""
    columns = min(columns, len(frames))
    cell = (width - _GAP * (columns + 1)) // columns
    pictures = [_fitted(frame, cell) for frame in frames]
    row_height = max(picture.height for picture in pictures) + 30
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (width, rows * row_height + _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, label) in enumerate(zip(pictures, labels)):
        left, top = _GAP + index % columns * (cell + _GAP), _GAP + index // columns * row_height
        sheet.paste(picture, (left, top))
        draw.text((left, top + picture.height + 3), label, _FAINT, font(15))
    return sheet


def tour_picture(
    originals: Sequence[Pixels],
    restored: Sequence[Pixels],
    patch_size: PatchSize,
    facts: Sequence[str],
    learned: Sequence[Pixels] = (),
) -> Image.Image:
    """Rows (frames, the same cut into patches, restored, decoded from learned tokens) and lines of numbers below."""
    columns, width = len(originals), 1200
    cell = (width - 120 - _GAP * (columns + 1)) // columns
    rows = [
        ("frames", [_fitted(frame, cell) for frame in originals]),
        ("patches", [_cut(frame, patch_size, cell) for frame in originals]),
        ("restored", [_fitted(frame, cell) for frame in restored]),
    ]
    if learned:
        rows.append(("from tokens", [_fitted(frame, cell) for frame in learned]))
    heights = [max(picture.height for picture in pictures) for _, pictures in rows]
    sheet = Image.new("RGB", (width, sum(heights) + _GAP * (len(rows) + 1) + 26 * len(facts) + 12), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for (name, pictures), height in zip(rows, heights):
        draw.text((12, top + height // 2 - 10), name, INK, font(20))
        for index, picture in enumerate(pictures):
            sheet.paste(picture, (120 + _GAP + index * (cell + _GAP), top))
        top += height + _GAP
    for line in facts:
        draw.text((16, top), line, INK, font(18))
        top += 26
    return sheet


def scenes_picture(scenes: Sequence[tuple[str, Sequence[Pixels]]], *, width: int = 1200) -> Image.Image:
    """Prompts, and under each the frames that were made of it, in order."""
    most = max(len(frames) for _, frames in scenes)
    cell = (width - _GAP * (most + 1)) // most
    rows = [(prompt, [_fitted(frame, cell) for frame in frames]) for prompt, frames in scenes]
    heights = [32 + max(picture.height for picture in pictures) + _GAP for _, pictures in rows]
    sheet = Image.new("RGB", (width, sum(heights) + _GAP), PAPER)
    draw, top = ImageDraw.Draw(sheet), _GAP
    for (prompt, pictures), height in zip(rows, heights):
        draw.text((_GAP, top), prompt, INK, font(20))
        for index, picture in enumerate(pictures):
            sheet.paste(picture, (_GAP + index * (cell + _GAP), top + 32))
        top += height
    return sheet


def save_picture(picture: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Write a picture; it appears whole or not at all."""
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return Path(path)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which needs no file of the system."""
    return ImageFont.load_default(size)


def _fitted(frame_HWC: Pixels, width: int) -> Image.Image:
    height = max(1, round(frame_HWC.shape[0] * width / frame_HWC.shape[1]))
    is_larger = width > 2 * frame_HWC.shape[1]
    how = Image.Resampling.NEAREST if is_larger else Image.Resampling.LANCZOS
    return Image.fromarray(np.ascontiguousarray(frame_HWC)).resize((width, height), how)


def _cut(frame_HWC: Pixels, patch_size: PatchSize, width: int) -> Image.Image:
    """The frame with lines at the borders of its patches; where they are many, at every n-th."""
    _, ph, pw = patch_size
    step = max(1, round(frame_HWC.shape[1] / (pw * 20)))  # at most about 20 columns, or lines hide the picture
    picture = _fitted(frame_HWC, width)
    draw = ImageDraw.Draw(picture)
    scale = width / frame_HWC.shape[1]
    for x in range(0, frame_HWC.shape[1], pw * step):
        draw.line([(x * scale, 0), (x * scale, picture.height)], _GRID, 1)
    for y in range(0, frame_HWC.shape[0], ph * step):
        draw.line([(0, y * scale), (width, y * scale)], _GRID, 1)
    return picture
