"""Pictures, animations and video to frames: ``open_media`` streams, ``read`` gives a whole ``Clip``.

Letters: T frames, H W pixels, C channels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from types import TracebackType
from typing import IO, TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tokenreel.errors import MediaError
from tokenreel.types import Clip

from .alpha import WHITE, check_background
from .frames import Chooser, Selection, uniform_indices
from .info import MediaInfo, TimedFrame, steady_fps
from .pictures import PictureReader
from .pixels import parse_size, resize, resized_size
from .source import Source, open_source

__all__ = ["Frame", "Reader", "open_media", "read"]

if TYPE_CHECKING:
    from .video import VideoReader

AnySource = str | os.PathLike[str] | bytes | IO[bytes]


class Frame(NamedTuple):
    """One chosen frame: uint8 RGB (H, W, 3) and the time it is shown, seconds from the first frame of the source."""

    pixels_HWC: npt.NDArray[np.uint8]
    pts_seconds: float


class Reader:
    """Streams the chosen frames of one source; iterate it, once or again. Memory does not grow with length.

    Attributes:
        info: what the source's header says.
        selection: which frames come.
        height, width: of the frames that come, after rotation and resizing.
    """

    def __init__(
        self,
        source: AnySource,
        selection: Selection | None = None,
        *,
        size: int | tuple[int, int] | str | None = None,
        background: tuple[int, int, int] = WHITE,
    ) -> None:
        self.selection = selection or Selection()
        self._size = parse_size(size)
        check_background(background)
        self._source = open_source(source)
        try:
            self._reader = _reader(self._source, background)
        except BaseException:
            self._source.close()
            raise
        self.info: MediaInfo = self._reader.info
        self.height, self.width = resized_size(self.info.height, self.info.width, self._size)

    def __iter__(self) -> Iterator[Frame]:
        """The chosen frames in order of time.

        Raises:
            MediaError: the selection leaves no frame, or the source's colours cannot be converted.
        """
        is_empty = True
        for frame, times in self._chosen():
            pixels = frame.pixels()
            if self._size is not None:
                pixels = resize(pixels[None], (self.height, self.width))[0]
            for seconds in times:
                is_empty = False
                yield Frame(pixels, seconds)
        if is_empty:
            raise MediaError(f"{self.info.name}: no frame lies in the chosen range ({self.selection.as_json()})")

    def estimated_frames(self) -> int | None:
        """How many frames will come, for progress bars; None if the source does not say."""
        want, total = self.selection, self.info.num_frames
        if want.uniform is not None:
            return want.uniform
        duration = self.info.duration_seconds
        if total is None and duration and self.info.fps:
            total = round(duration * self.info.fps)
        if total is None:
            return None
        rate = self.info.fps or 25.0
        span = min(total / rate, want.end_seconds) - want.start_seconds
        chosen = span * want.fps if want.fps else span * rate / want.every
        return max(1, min(round(chosen), want.max_frames or round(chosen)))

    def rate(self, pts_seconds: npt.NDArray[np.float64]) -> float | None:
        """Frames a second of the frames that came at these times, None where they have no steady rate."""
        clock = 10.1e-3 if self.info.kind == "animation" else 1.1e-3  # a gif counts in hundredths of a second
        return self.selection.fps or steady_fps(pts_seconds, tolerance_seconds=clock)

    def close(self) -> None:
        """Let the source go; safe while another thread iterates, which then gets an error."""
        self._reader.close()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _chosen(self) -> Iterator[tuple[TimedFrame, list[float]]]:
        if self.selection.uniform is not None:
            yield from self._uniform(self.selection.uniform)
            return
        want = self.selection
        if want.every > 1 and want.max_frames is None and want.end_seconds == math.inf:
            known = self._reader.times()  # a look at all packets pays where frames all over the source are wanted
            if known is not None:
                yield from self._every(np.flatnonzero(known >= want.start_seconds - 1e-9)[:: want.every])
                return
        chooser = Chooser(self.selection)
        held: TimedFrame | None = None  # one frame of look-ahead, not yet converted
        for frame in self._reader.decoded(start_seconds=self.selection.start_seconds):
            if held is not None:
                times = chooser.wanted(held.pts, frame.pts, held.duration)
                if times:
                    yield held, times
                if chooser.is_done:
                    return
            held = frame
        if held is not None and (times := chooser.wanted(held.pts, None, held.duration)):
            yield held, times

    def _uniform(self, count: int) -> Iterator[tuple[TimedFrame, list[float]]]:
        start, end = self.selection.start_seconds, self.selection.end_seconds
        first, total = self._range(start, end)
        if total == 0:
            return
        indices = first + uniform_indices(total, count)
        unique, repeats = np.unique(indices, return_counts=True)
        last: TimedFrame | None = None
        given = 0
        for frame, repeat in zip(self._numbered(unique), repeats):
            yield frame, [frame.pts] * int(repeat)
            last, given = frame, given + int(repeat)
        if last is not None and given < count:  # damaged at the end: the last frame that decodes stands in
            yield last, [last.pts] * (count - given)

    def _every(self, indices: npt.NDArray[np.int64]) -> Iterator[tuple[TimedFrame, list[float]]]:
        last = -math.inf
        for frame in self._reader.decoded_at(indices.tolist()):
            if frame.pts > last:  # over damage, one frame may stand for several that were wanted
                yield frame, [frame.pts]
            last = frame.pts

    def _range(self, start: float, end: float) -> tuple[int, int]:
        """Number of the first frame in the time range, and how many there are."""
        times = self._reader.times()
        if times is None:  # nothing short of decoding tells
            times = np.array([frame.pts for frame in self._reader.decoded()])
        inside = np.flatnonzero((times >= start - 1e-9) & (times < end))
        return (int(inside[0]), len(inside)) if len(inside) else (0, 0)

    def _numbered(self, indices: npt.NDArray[np.int64]) -> Iterator[TimedFrame]:
        if self._reader.times() is not None:
            yield from self._reader.decoded_at(indices.tolist())
            return
        wanted = iter(indices.tolist())
        target = next(wanted)
        for number, frame in enumerate(self._reader.decoded()):
            if number == target:
                yield frame
                target = next(wanted, None)
                if target is None:
                    return


def _reader(source: Source, background: tuple[int, int, int]) -> PictureReader | VideoReader:
    if source.kind == "picture":
        return PictureReader(source, background)
    from .video import VideoReader  # brings PyAV, which pictures do not need

    return VideoReader(source, background)


def open_media(
    source: AnySource,
    selection: Selection | None = None,
    *,
    size: int | tuple[int, int] | str | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Reader:
    """Open a picture, animation or video for streaming.

    Args:
        source: path, bytes or an open binary file.
        selection: which frames; all by default.
        size: short side, ``"WxH"`` or (height, width); native by default.
        background: RGB under transparent pixels.

    Raises:
        MediaError: missing, empty, unreadable or no picture at all.
    """
    return Reader(source, selection, size=size, background=background)


def read(
    source: AnySource,
    selection: Selection | None = None,
    *,
    size: int | tuple[int, int] | str | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Clip:
    """Read the chosen frames whole; arguments and errors as ``open_media``. A picture gives T = 1."""
    with open_media(source, selection, size=size, background=background) as reader:
        frames, times = [], []
        for frame in reader:
            frames.append(frame.pixels_HWC)
            times.append(frame.pts_seconds)
        pts = np.array(times, np.float64)
        return Clip(frames_THWC=np.stack(frames), pts_seconds=pts, fps=reader.rate(pts), source=reader.info.name)
