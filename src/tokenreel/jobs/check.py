"""Proof by comparison: every frame is put together from the file alone and compared with the decoded source."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.errors import InputError, MismatchError
from tokenreel.measure.psnr import squared_error
from tokenreel.media.frames import Selection
from tokenreel.media.pixels import to_float
from tokenreel.media.read import open_media

from .ahead import ahead
from .progress import Progress, silent
from .sequence import PatchSequence

__all__ = ["Checked", "check_file", "recorded_source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the comparison found.

    Attributes:
        squared_errors: mean squared error of each frame on [0, 1]; 0 where the frame is exact.
        embedding_error: largest difference of a pixel value (on [-1, 1]) before rounding, for float sequences.
    """

    path: Path
    video: Path
    squared_errors: tuple[float, ...]
    embedding_error: float | None

    @property
    def exact(self) -> bool:
        """True if every pixel of every frame is equal."""
        return not any(self.squared_errors)

    @property
    def psnr_db(self) -> float | None:
        """PSNR of all frames together, None (infinite) where they are exact."""
        return None if self.exact else _db(sum(self.squared_errors) / len(self.squared_errors))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; ``psnr_db`` is null where exact, since JSON has no infinity."""
        values: dict[str, Any] = {
            "exact": self.exact,
            "frames": len(self.squared_errors),
            "psnr_db": self.psnr_db,
            "exact_frames": sum(error == 0 for error in self.squared_errors),
            "path": str(self.path),
            "video": str(self.video),
        }
        if not self.exact:
            values["psnr_db_per_frame"] = [_db(error) if error else None for error in self.squared_errors]
        if self.embedding_error is not None:
            values["embedding_error"] = self.embedding_error
        return values


def check_file(
    sequence: str | os.PathLike[str], video: str | os.PathLike[str] | None = None, *, progress: Progress = silent
) -> Checked:
    """Reconstruct every frame of a patch sequence and compare it with the source, read as it was read then.

    Args:
        video: the source; by default the one the sequence was made from.

    Raises:
        InputError: a file cannot be read, the source is gone, or its frames differ in number or size.
    """
    opened = PatchSequence(sequence)
    header = opened.header
    source = Path(video) if video is not None else recorded_source(opened)
    if video is None and not source.is_file():
        raise InputError(
            f"{source} , the source of {opened.path}, is not there; name it: tokenreel check {opened.path} VIDEO"
        )
    size = header.reading.get("size")
    selection = Selection.from_json(header.reading.get("selection", {}))
    errors: list[float] = []
    worst: float | None = None
    with open_media(source, selection, size=None if size is None else (size[0], size[1])) as reader:
        frames = iter(ahead(reader))
        for pixels, values in opened.reconstructed():
            for index, frame in enumerate(pixels):
                original = next(frames, None)
                if original is None or original.pixels_HWC.shape != frame.shape:
                    raise MismatchError(
                        _mismatch(opened, source, None if original is None else original.pixels_HWC.shape)
                    )
                is_equal = np.array_equal(frame, original.pixels_HWC)
                errors.append(0.0 if is_equal else squared_error(frame, original.pixels_HWC))
                if values is not None:
                    difference = float(np.abs(values[index] - to_float(original.pixels_HWC)).max())
                    worst = max(worst or 0.0, difference)
                progress(len(errors), header.size[0])
        if next(frames, None) is not None:
            raise MismatchError(
                f"{source} has more frames than the {header.size[0]} of {opened.path}; is it the same video?"
            )
    return Checked(path=opened.path, video=source, squared_errors=tuple(errors), embedding_error=worst)


def recorded_source(opened: PatchSequence) -> Path:
    """The video that a sequence was made from; the file names it relative to its own folder."""
    return Path(os.path.normpath(opened.path.resolve().parent / opened.header.reading.get("source", "")))


def _db(squared_error: float) -> float:
    return round(-10 * math.log10(squared_error), 4)


def _mismatch(opened: PatchSequence, source: Path, shape: tuple[int, ...] | None) -> str:
    frames, height, width = opened.header.size
    what = "fewer frames" if shape is None else f"frames of {shape[1]}x{shape[0]}"
    return f"{source} has {what}, {opened.path} holds {frames} frames of {width}x{height}; is it the same video?"
