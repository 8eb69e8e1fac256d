"""Video files through PyAV: frames in order of time, in bounded memory, by number or from a time on."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Iterator, Sequence, Set
from contextlib import closing

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from tokenreel.errors import MediaError, TokenReelWarning

from .colour import RgbConverter, describe
from .cutoff import is_cut_off
from .decoder import Decoding, is_shown
from .info import MediaInfo, TimedFrame
from .orient import display_matrix, oriented
from .source import Source

__all__ = ["VideoReader"]

_INDEXED = ("mov", "matroska")  # containers whose packets tell all times, and in which seeking is exact
_SEEK_WORTH_FRAMES = 12  # seeking empties the decoder's threads; below this many skipped frames decoding on is faster


class VideoReader:
    """Streams the frames of one video. Rotation is applied; colour is converted as the stream declares.

    One pass at a time: a new one ends the one before.

    Raises:
        MediaError: the source is no video, holds no video stream, or no frame can be decoded.
    """

    def __init__(self, source: Source, background: tuple[int, int, int]) -> None:
        self.source = source
        self._convert = RgbConverter(source.name, background)
        self._is_closed = self._is_warned = False
        self._pass = Decoding(source)
        decoded = self._pass.frames()
        try:
            first = next(decoded, None)
            if first is None:
                raise MediaError(
                    f"{source.name} holds a video stream, but no frame of it can be decoded; it is damaged"
                )
            base = self._pass.stream.time_base
            assert base is not None
            self._tick, self._per_second = base.numerator, base.denominator
            self._origin = first.pts or 0
            # Once for all frames: PyAV's side data refers back to its frame, and frames in such rings pile up.
            self._matrix = display_matrix(first)
            self.info = self._described(first)
        except BaseException:
            self.close()
            raise
        self._from_start: Iterator[VideoFrame] | None = itertools.chain([first], decoded)

    def close(self) -> None:
        """Let the file go; safe while another thread reads, which then gets an error."""
        self._is_closed = True
        self._pass.close()

    def planes(self) -> Iterator[VideoFrame]:
        """All frames as the decoder gives them, before rotation and colour: for comparing with another decoder."""
        yield from self._rewound()

    def decoded(self, *, start_seconds: float = 0.0) -> Iterator[TimedFrame]:
        """Frames in order of time; with ``start_seconds``, from the last keyframe before it where seeking is exact.

        Warns at the end if the file is damaged or cut off.
        """
        yield from self._timed(self._from(start_seconds))
        self._warn_of_damage()

    def times(self) -> npt.NDArray[np.float64] | None:
        """Seconds of all frames, from the packets alone (nothing is decoded); None if they do not tell surely."""
        if self._packet_times is None:
            return None
        return (self._packet_times[0] - self._origin) * self._tick / self._per_second

    def decoded_at(self, indices: Sequence[int]) -> Iterator[TimedFrame]:
        """The frames of these numbers (ascending, no repeats), seeking over the gaps where that is faster.

        Numbers count frames in order of time, as ``times`` does. Where a frame is lost to damage, the next one comes.
        """
        assert self._packet_times is not None
        pts_T, is_key_T = self._packet_times
        key_indices = np.flatnonzero(is_key_T)
        wanted_pts: Set[int] | None = frozenset(pts_T[list(indices)].tolist())
        position, frames, held = 0, self._timed(self._rewound(wanted_pts)), None
        for wanted in indices:
            before = key_indices[: np.searchsorted(key_indices, wanted, side="right")]
            if len(before) and before[-1] - position > _SEEK_WORTH_FRAMES:
                frames, held = self._timed(self._from(self._seconds(int(pts_T[before[-1]])), wanted_pts)), None
            target = self._seconds(int(pts_T[wanted]))
            held = _reached(held, frames, target)
            if self._pass.wanted and (held is None or held.pts > target + 1e-9):  # lost by leaving others out, perhaps
                wanted_pts = None
                frames = self._timed(self._from(target))
                held = _reached(None, frames, target)
            if held is None:
                break
            yield held
            position = wanted + 1
        self._warn_of_damage()

    # -- passes -----------------------------------------------------------------------------------------------

    def _rewound(self, wanted_pts: Set[int] | None = None) -> Iterator[VideoFrame]:
        frames, self._from_start = self._from_start, None
        if frames is None:
            frames = self._anew().frames()
        self._pass.wanted = wanted_pts
        return frames

    def _from(self, seconds: float, wanted_pts: Set[int] | None = None) -> Iterator[VideoFrame]:
        """Frames from the last keyframe at or before this time, or from the start where seeking does not get there."""
        if seconds <= 0 or self.info.container.split(",")[0] not in _INDEXED:
            return self._rewound(wanted_pts)
        self._from_start = None
        pts = self._origin + int(seconds * self._per_second / self._tick + 1e-6)
        try:
            self._anew().seek(pts)
        except (av.error.FFmpegError, OverflowError):
            return self._rewound(wanted_pts)
        frames = self._pass.frames()
        first = next(frames, None)
        if first is None or first.pts is None or first.pts > pts:
            return self._rewound(wanted_pts)
        self._pass.wanted = wanted_pts
        return itertools.chain([first], frames)

    def _anew(self) -> Decoding:
        self._pass.close()
        if not self._is_closed:
            self._pass = Decoding(self.source)
        if self._is_closed:  # perhaps meanwhile, by another thread
            self._pass.close()
        return self._pass

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[TimedFrame]:
        """Frames with seconds; missing or backward times continue from the frame before."""
        period = 1 / self.info.fps if self.info.fps else 0.04
        last = None
        for frame in frames:
            pts = self._seconds(frame.pts) if frame.pts is not None else None
            if pts is None or (last is not None and pts <= last):
                pts = 0.0 if last is None else last + period
            duration = frame.duration * self._tick / self._per_second if frame.duration else period
            yield TimedFrame(functools.partial(self._pixels, frame), pts, duration)
            last = pts

    def _seconds(self, pts: int) -> float:
        return (pts - self._origin) * self._tick / self._per_second

    def _pixels(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        pixels = self._convert(frame)
        matrix = self._matrix
        return pixels if matrix is None else oriented(pixels, matrix)

    # -- description ------------------------------------------------------------------------------------------

    @functools.cached_property
    def _packet_times(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None:
        """pts and keyframe flag of all shown frames, in order of time; None where packets do not tell."""
        if self.info.container.split(",")[0] not in _INDEXED:
            return None
        if self.source.path is None:  # one file object cannot be read in two places at once
            self._from_start = None
            scanned = self._anew()
        else:
            scanned = Decoding(self.source)
        with closing(scanned):
            rows = [(packet.pts, packet.is_keyframe) for packet in scanned.packets() if is_shown(packet)]
        shown = sorted((pts, is_key) for pts, is_key in rows if pts is not None)
        if len({pts for pts, _ in shown}) != len(rows):  # some have no time, or share one
            return None
        shown = [row for row in shown if row[0] >= self._origin]  # before it: what no decoder can show
        if not shown:
            return None
        return np.array([pts for pts, _ in shown], np.int64), np.array([key for _, key in shown], np.bool_)

    def _described(self, first: VideoFrame) -> MediaInfo:
        container, stream = self._pass.container, self._pass.stream
        width, height = first.width, first.height
        matrix = self._matrix
        if matrix is not None and matrix[0] == 0:
            width, height = height, width
        rate = stream.average_rate or stream.guessed_rate
        duration = None
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        elif container.duration:
            duration = container.duration / av.time_base
        return MediaInfo(
            name=self.source.name,
            kind="video",
            width=width,
            height=height,
            fps=float(rate) if rate else None,
            num_frames=stream.frames or None,
            duration_seconds=duration,
            codec=stream.codec_context.name,
            pixel_format=first.format.name,
            colour=describe(first.colorspace, first.color_range, first.color_trc),
            container=container.format.name,
        )

    def _warn_of_damage(self) -> None:
        if self._is_warned:
            return
        name, errors, text = self.source.name, self._pass.errors, None
        if errors:
            places = "1 place" if errors == 1 else f"{errors} places"
            text = f"{name} is damaged: {places} could not be decoded; the frames that could be are used"
        elif is_cut_off(self.source):
            text = f"{name} is cut off: it ends before its header says; the frames that are there are used"
        if text:
            self._is_warned = True
            warnings.warn(text, TokenReelWarning, stacklevel=2)


def _reached(held: TimedFrame | None, frames: Iterator[TimedFrame], seconds: float) -> TimedFrame | None:
    """The first frame at this time or after it: the one that is held, or the next that serves."""
    if held is not None and held.pts >= seconds - 1e-9:
        return held
    return next((frame for frame in frames if frame.pts >= seconds - 1e-9), None)
