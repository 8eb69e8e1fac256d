"""The clips that a report shows: original, decoded and error side by side in one animation, so that they run together.

Letters: C channels, T frames, H W pixels.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from tokenreel.measure.scores import ClipScore
from tokenreel.media.pixels import resize, to_frames

__all__ = ["ERROR_GAIN", "Gallery", "Shown", "animation", "error_map"]

Frames = npt.NDArray[np.uint8]

ERROR_GAIN = 8
"""An error of 1 / ERROR_GAIN of the range, 32 levels of 255, has the brightest colour."""

_MOST_FRAMES = 17
_LARGEST_SIDE = 256
_QUALITY = 62
_STOPS = np.array([(12, 10, 34), (76, 20, 110), (178, 44, 104), (240, 112, 54), (252, 240, 178)], np.float64)
_RAMP = np.stack([np.interp(np.linspace(0, 4, 256), range(5), _STOPS[:, c]) for c in range(3)], axis=1).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One clip, uint8 (T, H, W, 3), perhaps made smaller and cut to its first frames."""

    row: ClipScore
    original_THWC: Frames
    decoded_THWC: Frames

    @property
    def fps(self) -> float:
        """Frames a second as it plays."""
        return self.row.size[0] / self.row.seconds if self.row.seconds else 12.0


class Gallery:
    """Keeps the worst and the best clips that came, and no others, so that memory does not grow with their number.

    Args:
        each: how many worst ones, and how many best ones.
    """

    def __init__(self, each: int = 4) -> None:
        self.each = each
        self._kept: list[Shown] = []

    def add(self, row: ClipScore, frames_THWC: Frames, decoded_CTHW: Tensor) -> None:
        """One more clip; ``decoded_CTHW`` lies in [0, 1]."""
        kept = sorted([*self._kept, Shown(row, frames_THWC, np.empty(0, np.uint8))], key=_worst_first)
        if len(kept) > 2 * self.each:
            del kept[self.each]  # neither among the worst nor among the best
        place = next((i for i, shown in enumerate(kept) if shown.row is row), None)
        if place is not None:
            original = _small(frames_THWC[:_MOST_FRAMES])
            decoded = _small(to_frames(decoded_CTHW[:, :_MOST_FRAMES], range="unit"))
            kept[place] = Shown(row, original.copy(), decoded)
        self._kept = kept

    def worst(self) -> list[Shown]:
        """Worst first; never a clip that is among the best too."""
        return self._kept[: min(self.each, (len(self._kept) + 1) // 2)]

    def best(self) -> list[Shown]:
        """Best first."""
        return self._kept[: len(self.worst()) - 1 : -1][: self.each]


def animation(shown: Shown) -> str:
    """Original, decoded and error map in one row, as the ``data:`` address of a WebP (animated where T > 1)."""
    errors = error_map(shown.original_THWC, shown.decoded_THWC)
    rows = np.concatenate([shown.original_THWC, shown.decoded_THWC, errors], axis=2)
    pictures = [Image.fromarray(row) for row in rows]
    more = {}
    if len(pictures) > 1:
        more = {
            "save_all": True,
            "append_images": pictures[1:],
            "duration": max(20, round(1000 / shown.fps)),
            "loop": 0,
        }
    file = io.BytesIO()
    pictures[0].save(file, "WEBP", quality=_QUALITY, method=3, **more)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def error_map(a_THWC: Frames, b_THWC: Frames) -> Frames:
    """The mean absolute error over channels as colour: dark for none, bright from 1 / ERROR_GAIN of the range on."""
    error = np.abs(a_THWC.astype(np.int16) - b_THWC.astype(np.int16)).mean(axis=-1)
    colours: Frames = _RAMP[np.minimum(255, np.rint(error * ERROR_GAIN)).astype(np.uint8)]
    return colours


def _small(frames_THWC: Frames) -> Frames:
    height, width = frames_THWC.shape[1:3]
    scale = _LARGEST_SIDE / max(height, width)
    return frames_THWC if scale >= 1 else resize(frames_THWC, (round(height * scale) or 1, round(width * scale) or 1))


def _worst_first(shown: Shown) -> tuple[float, str]:
    return -shown.row.squared_error, shown.row.key
