"""What is known of a source before its frames are read, and one frame as a reader hands it on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["MediaInfo", "TimedFrame", "steady_fps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """A source as its own header describes it.

    Attributes:
        width, height: of the pictures as shown, rotation applied.
        fps: average frames a second, None for pictures and animations.
        num_frames: as declared, None where the container does not say.
    """

    name: str
    kind: Literal["picture", "animation", "video"]
    width: int
    height: int
    fps: float | None
    num_frames: int | None
    duration_seconds: float | None
    codec: str
    pixel_format: str
    colour: str
    container: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class TimedFrame(NamedTuple):
    """A decoded frame that is converted to RGB only if it is wanted.

    ``pixels()`` gives uint8 (H, W, 3); ``pts`` and ``duration`` are seconds from the first frame of the source.
    """

    pixels: Callable[[], npt.NDArray[np.uint8]]
    pts: float
    duration: float


def steady_fps(pts_seconds: npt.NDArray[np.float64], *, tolerance_seconds: float = 1.1e-3) -> float | None:
    """Frames a second if all times lie on one even line, to the rounding of the container's clock; else None.

    >>> steady_fps(np.array([0.0, 0.04, 0.08, 0.12]))
    25.0
    """
    steps = len(pts_seconds) - 1
    if steps < 1 or pts_seconds[-1] <= pts_seconds[0]:
        return None
    line = np.linspace(pts_seconds[0], pts_seconds[-1], steps + 1)
    if np.abs(pts_seconds - line).max() > tolerance_seconds:
        return None
    span = float(pts_seconds[-1] - pts_seconds[0])
    fps = steps / span
    for rate in (round(fps), round(fps * 1001 / 1000) * 1000 / 1001):  # 29.97 and its kin
        if rate and abs(steps / rate - span) <= tolerance_seconds * 1.01:
            return float(rate)
    return round(fps, 6)
