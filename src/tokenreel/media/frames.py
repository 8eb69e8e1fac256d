"""Which frames of a source are wanted: all, every n, a target rate, n uniform ones, strided clips, a time range.

Pure numbers, no pixels. ``Selection`` says what is wanted; ``Chooser`` answers it frame by frame while a source
streams; ``uniform_indices`` and ``strided_clips`` answer it where the number of frames is known.

Letters: T frames.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = ["Chooser", "Selection", "strided_clips", "uniform_indices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which frames to take. ``every``, ``fps`` and ``uniform`` exclude each other; the time range goes with any.

    Attributes:
        every: take the first frame and every ``every``-th after it.
        fps: take the frame nearest to each tick of this rate (frames repeat where the source is slower).
        uniform: take this many frames, each the middle of one of as many equal parts (repeating where there are fewer).
        start_seconds, end_seconds: only frames with ``start <= pts < end``, counted from the first frame of the source.
        max_frames: stop after this many.
    """

    every: int = 1
    fps: float | None = None
    uniform: int | None = None
    start_seconds: float = 0.0
    end_seconds: float = math.inf
    max_frames: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"every must be at least 1 (every frame), got {self.every}")
        if self.fps is not None and not (self.fps > 0 and math.isfinite(self.fps)):
            raise InputError(f"fps must be above 0, got {self.fps}")
        if self.uniform is not None and self.uniform < 1:
            raise InputError(f"uniform must be at least 1 frame, got {self.uniform}")
        if (self.every > 1) + (self.fps is not None) + (self.uniform is not None) > 1:
            raise InputError("choose one of every, fps and uniform: they exclude each other")
        if not self.start_seconds >= 0:
            raise InputError(f"the time range must start at 0 s or later, got {self.start_seconds:g}")
        if not self.end_seconds > self.start_seconds:
            raise InputError(
                f"the time range must end after it starts, got {self.start_seconds:g} to {self.end_seconds:g} s"
            )
        if self.max_frames is not None and self.max_frames < 1:
            raise InputError(f"max_frames must be at least 1, got {self.max_frames}")

    @property
    def is_everything(self) -> bool:
        """True if no frame is left out."""
        return self == Selection()

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; only what differs from the default."""
        default = asdict(Selection())
        return {key: value for key, value in asdict(self).items() if value != default[key]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Inverse of ``as_json``."""
        unknown = set(values) - set(cls.__slots__)
        if unknown:
            raise InputError(f"unknown frame selection {sorted(unknown)}; known are {', '.join(cls.__slots__)}")
        return cls(**values)


class Chooser:
    """Answers a ``Selection`` online: for each frame, the times (seconds) at which it is wanted, often none or one.

    Frames come in order of time. The caller looks one frame ahead, so that the nearest frame to a tick is known.
    ``uniform`` needs the number of frames and is answered by ``uniform_indices``, not here.
    """

    def __init__(self, selection: Selection) -> None:
        if selection.uniform is not None:
            raise InputError("uniform frames need the number of frames; use uniform_indices")
        self.selection = selection
        self.is_done = False
        self._seen = 0  # frames inside the time range so far
        self._tick = 0  # next tick of the target rate
        self._chosen = 0

    def wanted(self, pts: float, next_pts: float | None, duration: float) -> list[float]:
        """Times at which the frame at ``pts`` is wanted; ``next_pts`` is None for the last, ``duration`` its length."""
        want = self.selection
        if want.fps is not None:
            until = pts + duration / 2 if next_pts is None else (pts + next_pts) / 2
            times = self._ticks_until(until)
        elif want.start_seconds - 1e-9 <= pts < want.end_seconds:
            times = [pts] if self._seen % want.every == 0 else []
            self._seen += 1
        else:
            times = []
        if want.max_frames is not None:
            times = times[: want.max_frames - self._chosen]
        self._chosen += len(times)
        over = pts >= want.end_seconds or self._chosen == want.max_frames
        self.is_done = self.is_done or over
        return times

    def _ticks_until(self, until: float) -> list[float]:
        want = self.selection
        assert want.fps is not None
        times = []
        # Half way between two frames belongs to the earlier one; the tolerance absorbs the rounding of time bases.
        while (tick := want.start_seconds + self._tick / want.fps) <= until + 1e-6 and tick < want.end_seconds:
            times.append(tick)
            self._tick += 1
        return times


def uniform_indices(num_frames: int, count: int) -> npt.NDArray[np.int64]:
    """``count`` frame indices, the middle of each of ``count`` equal parts of ``num_frames``.

    The uniform frame sampling of ViViT (arXiv 2103.15691, section 3.2).

    >>> uniform_indices(10, 5).tolist()
    [1, 3, 5, 7, 9]
    """
    if num_frames < 1 or count < 1:
        raise InputError(f"uniform sampling needs at least one frame and one index, got {num_frames} and {count}")
    return (np.arange(count, dtype=np.int64) * 2 + 1) * num_frames // (2 * count)


def strided_clips(
    num_frames: int, *, clip_frames: int, stride: int = 1, hop: int | None = None
) -> npt.NDArray[np.int64]:
    """Indices of clips of ``clip_frames`` frames, ``stride`` apart, a clip starting every ``hop`` frames.

    Returns (num_clips, clip_frames); a source too short for one clip gives one clip whose last frame repeats.
    ``hop`` defaults to the span of a clip, so that clips do not overlap.

    >>> strided_clips(8, clip_frames=2, stride=2, hop=4).tolist()
    [[0, 2], [4, 6]]
    """
    if min(num_frames, clip_frames, stride) < 1 or (hop is not None and hop < 1):
        raise InputError(
            f"strided clips need whole numbers of at least 1, got num_frames={num_frames}, "
            f"clip_frames={clip_frames}, stride={stride}, hop={hop}"
        )
    span = (clip_frames - 1) * stride + 1
    starts = np.arange(0, max(num_frames - span, 0) + 1, clip_frames * stride if hop is None else hop)
    clips = starts[:, None] + np.arange(clip_frames)[None, :] * stride
    indices: npt.NDArray[np.int64] = np.minimum(clips, num_frames - 1).astype(np.int64)
    return indices
