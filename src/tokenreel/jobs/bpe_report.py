"""What merges do to a file: the longest and most used ones, as a picture too, and bits beside PNG, FFV1 and zstd.

Letters: N merged ids, T H W frames and pixels.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tokenreel.errors import InputError
from tokenreel.jobs.bpe import material_of
from tokenreel.jobs.inspect import kind_of
from tokenreel.jobs.sheet import INK, PAPER, font, save_picture
from tokenreel.tokens.bpe import Merges

__all__ = ["BpeReport", "draw_report", "report_on"]

_SHOWN = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class BpeReport:
    """Merges, and what they do to one file if one is given.

    Attributes:
        longest: (id, how many base ids it stands for), longest first.
        most_used: (id, how often it stands in the file), most used first.
        bits: size of the file's ids in bits under several codes: ``fixed`` (log2 of the codebook an id), ``merged``
            (log2 of the vocabulary a merged id), ``merged_entropy`` (order-0 entropy of the merged ids), and ``zstd``,
            ``png``, ``ffv1`` where they apply.
        num_pixels: T * H * W, None where the file holds no pixels.
    """

    merges: Merges
    longest: list[tuple[int, int]]
    most_used: list[tuple[int, int]] = field(default_factory=list)
    num_ids: int = 0
    num_merged: int = 0
    num_pixels: int | None = None
    bits: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = {
            "axes": self.merges.axes,
            "base_size": self.merges.base_size,
            "vocab_size": self.merges.vocab_size,
            "longest": [{"id": i, "ids": n} for i, n in self.longest],
        }
        if self.num_ids:
            values |= {
                "ids": self.num_ids,
                "merged_ids": self.num_merged,
                "most_used": [{"id": i, "count": n} for i, n in self.most_used],
                "bits": {name: round(bits) for name, bits in self.bits.items()},
            }
        if self.num_pixels:
            per_pixel = {name: round(bits / self.num_pixels, 4) for name, bits in self.bits.items()}
            values["bits_per_pixel"] = per_pixel
        return values


def report_on(merges: Merges, file: str | os.PathLike[str] | None = None, *, boundaries: bool = True) -> BpeReport:
    """Look at merges, and at what they make of a file.

    Raises:
        InputError: the file cannot be read or its ids are of another codebook.
    """
    lengths = {i: int(merges.extents_VA[i].prod()) for i in range(merges.base_size, merges.vocab_size)}
    longest = sorted(lengths.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    if file is None:
        return BpeReport(merges=merges, longest=longest)
    material = material_of(file, axes=merges.axes, boundaries=boundaries)
    if material.base_size != merges.base_size:
        raise InputError(f"{os.fspath(file)} has {material.base_size} codes, the merges are over {merges.base_size}")
    sequences = material.sequences
    if not boundaries and merges.axes == "flat":
        sequences = [np.concatenate(sequences)]
    merged = np.concatenate(merges.encode_many(sequences))
    counts = np.bincount(merged, minlength=merges.vocab_size)
    used = Counter({i: int(counts[i]) for i in range(merges.base_size, merges.vocab_size) if counts[i]})
    frequency = counts[counts > 0] / merged.size
    bits = {
        "fixed": material.num_ids * float(np.log2(max(2, merges.base_size))),
        "merged": merged.size * float(np.log2(merges.vocab_size)),
        "merged_entropy": float(-(frequency * np.log2(frequency)).sum() * merged.size),
    }
    pixels = _pixels_of(Path(file))
    bits |= _other_codes(sequences, pixels)
    return BpeReport(
        merges=merges,
        longest=longest,
        most_used=used.most_common(_SHOWN),
        num_ids=material.num_ids,
        num_merged=int(merged.size),
        num_pixels=None if pixels is None else pixels.shape[0] * pixels.shape[1] * pixels.shape[2],
        bits=bits,
    )


def _pixels_of(path: Path) -> npt.NDArray[np.uint8] | None:
    """uint8 (T, H, W, 3) where the ids are pixels themselves; else None."""
    kind = kind_of(path)
    if kind == "patches":
        from tokenreel.jobs.sequence import PatchSequence

        return np.stack(list(PatchSequence(path).frames()))
    if kind == "tokens":
        from tokenreel.jobs.encode import tokenizer_of
        from tokenreel.tokens.file import TokenFile

        tokens = TokenFile(path).tokens()
        if tokens.layout == "bytes":
            (video,) = tokenizer_of(tokens, path).decode([tokens])
            return np.ascontiguousarray(np.moveaxis(video, 0, -1))
    return None


def _other_codes(sequences: list[npt.NDArray[Any]], pixels: npt.NDArray[np.uint8] | None) -> dict[str, float]:
    import pyarrow

    data = np.concatenate([sequence.reshape(-1) for sequence in sequences])
    codes = {"zstd": 8.0 * len(pyarrow.Codec("zstd", compression_level=10).compress(data.tobytes()))}
    if pixels is None:
        return codes
    png = 0
    for frame in pixels:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG", compress_level=6)
        png += file.tell()
    return codes | {"png": 8.0 * png, "ffv1": 8.0 * _ffv1_bytes(pixels)}


def _ffv1_bytes(pixels_THWC: npt.NDArray[np.uint8]) -> int:
    import tempfile

    from tokenreel.media.write import open_writer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mkv"
        with open_writer(path) as writer:
            for frame in pixels_THWC:
                writer.write(frame)
        return path.stat().st_size


# -- the picture ----------------------------------------------------------------------------------------------------


def draw_report(report: BpeReport, output: str | os.PathLike[str]) -> Path:
    """The longest and the most used merges, each as the ids it stands for: grey for bytes, colours for other ids."""
    if Path(output).suffix.lower() != ".png":
        raise InputError(f"the picture must be a .png file, got {os.fspath(output)}")
    columns = [("longest", report.longest, "ids"), ("most used", report.most_used, "times")]
    columns = [column for column in columns if column[1]]
    rows = max(len(items) for _, items, _ in columns)
    width, row_height, top = 600, 34, 44
    sheet = Image.new("RGB", (width * len(columns), top + rows * row_height + 12), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (title, items, unit) in enumerate(columns):
        left = index * width + 16
        draw.text((left, 12), f"{title} of {report.merges.vocab_size - report.merges.base_size} merges", INK, font(20))
        for row, (merge, number) in enumerate(items):
            y = top + row * row_height
            draw.text((left, y + 4), f"{merge}", INK, font(14))
            draw.text((left + 60, y + 4), f"{number} {unit}", INK, font(14))
            strip = _strip(report.merges.expansion(merge), report.merges.base_size)
            scale = max(1, min(14, 400 // strip.shape[1], (row_height - 6) // strip.shape[0]))
            picture = Image.fromarray(strip).resize(
                (min(400, strip.shape[1] * scale), min(row_height - 6, strip.shape[0] * scale)),
                Image.Resampling.NEAREST,
            )
            sheet.paste(picture, (left + 170, y + 2))
            box = (left + 169, y + 1, left + 170 + picture.width, y + 2 + picture.height)
            draw.rectangle(box, outline=(190, 190, 200))
    return save_picture(sheet, output)


def _strip(expansion: npt.NDArray[Any], base_size: int) -> npt.NDArray[np.uint8]:
    """uint8 (h, w, 3): 1-D as a strip two cells high, blocks (t, h, w) frame beside frame."""
    ids = np.asarray(expansion)
    flat = np.repeat(ids[None], 2, axis=0) if ids.ndim == 1 else np.concatenate(list(ids), axis=1)
    if base_size == 256:
        return np.repeat(flat.astype(np.uint8)[..., None], 3, axis=2)
    hashed = (flat.astype(np.uint64) * np.uint64(2654435761)) & np.uint64(0xFFFFFF)
    return np.stack([(hashed >> np.uint64(shift)) & np.uint64(255) for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
