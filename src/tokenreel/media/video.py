"""Video files through PyAV: decoded frame by frame, in order of time, in bounded memory."""

from __future__ import annotations

import functools
import itertools
import struct
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import MediaError, TokenReelWarning
from .colour import RgbConverter, describe
from .cutoff import is_cut_off
from .info import MediaInfo, TimedFrame
from .source import Source

__all__ = ["VideoReader"]

# Only containers that hold their own pictures: no playlists, which could name other files or addresses.
_DEMUXERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,h264,hevc,m4v,ivf,obu,av1,yuv4mpegpipe,nut,mxf,dv,"
    "swf,rm,gxf,wtv,vc1,apng,gif,mjpeg,mlv,roq,nsv,film_cpk,smk,bink"
)
_SEEKABLE = ("mov", "matroska")  # containers whose index makes seeking exact
_MAX_PIXELS = 1 << 27  # 134 megapixels a frame: beyond 16K; a damaged header must not take all memory
_SEEK_WORTH_FRAMES = 12  # seeking empties the decoder's threads; below this many skipped frames decoding on is faster
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # ffmpeg's own VP8/9 decoders drop alpha


class VideoReader:
    """Streams the frames of one video. Rotation is applied; colour is converted as the stream declares.

    Raises:
        MediaError: the source is no video, holds no video stream, or no frame can be decoded.
    """

    def __init__(self, source: Source, background: tuple[int, int, int]) -> None:
        self.source = source
        self._convert = RgbConverter(source.name, background)
        self._container, self._stream = _open(source)
        self._errors = 0
        self._counted = 0
        decoded = self._frames_from_here()
        first = next(decoded, None)
        if first is None:
            self.close()
            raise MediaError(f"{source.name} holds a video stream, but no frame of it can be decoded; it is damaged")
        self._origin = self._stream.start_time if self._stream.start_time is not None else (first.pts or 0)
        self._from_start: Iterator[VideoFrame] | None = itertools.chain([first], decoded)
        self.info = self._described(first)

    def close(self) -> None:
        """Let the file go."""
        self._container.close()

    def decoded(self, *, start_seconds: float = 0.0) -> Iterator[TimedFrame]:
        """Frames in order of time; with ``start_seconds``, from the last keyframe before it where seeking is exact.

        Warns at the end if the file is damaged or cut off.
        """
        frames = self._seeked(start_seconds) if start_seconds > 0 and self._can_seek else self._rewound()
        yield from self._timed(frames)
        self._warn_of_damage()

    def times(self) -> npt.NDArray[np.float64] | None:
        """Seconds of all frames, from the packets alone (nothing is decoded); None if they carry no usable times."""
        if self._packet_times is None:
            return None
        base = self._stream.time_base
        assert base is not None
        return (self._packet_times[0] - self._origin) * base.numerator / base.denominator

    def decoded_at(self, indices: Sequence[int]) -> Iterator[TimedFrame]:
        """The frames of these numbers (ascending, no repeats), seeking over the gaps where that is faster.

        Numbers count frames in order of time, as ``times`` does.
        """
        assert self._packet_times is not None
        pts_T, is_key_T = self._packet_times
        key_indices = np.flatnonzero(is_key_T)
        position, frames = 0, self._timed(self._rewound())
        for wanted in indices:
            key = int(key_indices[np.searchsorted(key_indices, wanted, side="right") - 1]) if len(key_indices) else 0
            if self._can_seek and key - position > _SEEK_WORTH_FRAMES:
                frames = self._timed(self._seeked(self._seconds(int(pts_T[key]))))
            target = self._seconds(int(pts_T[wanted]))
            found = next((frame for frame in frames if frame.pts >= target - 1e-9), None)
            if found is None:
                break
            position = wanted + 1
            yield found
        self._warn_of_damage()

    # -- decoding ---------------------------------------------------------------------------------------------

    @property
    def _can_seek(self) -> bool:
        return self.info.container.split(",")[0] in _SEEKABLE

    def _frames_from_here(self) -> Iterator[VideoFrame]:
        """Decode on; a packet that fails is counted and passed over, as ffmpeg does."""
        decode = self._stream.codec_context.decode
        alpha = _ALPHA_DECODERS.get(self._stream.codec_context.name.removeprefix("lib").split("-")[0])
        if alpha and self._stream.metadata.get("alpha_mode") == "1":
            decode = av.CodecContext.create(alpha, "r").decode
        for packet in self._packets():
            try:
                yield from decode(packet)
            except (av.error.FFmpegError, MemoryError):
                self._errors += 1
        while True:  # the frames still in the decoder's threads
            try:
                yield from decode(None)
                return
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, MemoryError):
                self._errors += 1

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except av.error.FFmpegError:
                self._errors += 1
                return
            if packet.size:  # the empty packet at the end would flush; that is done in one place, above
                yield packet

    def _rewound(self) -> Iterator[VideoFrame]:
        frames, self._from_start = self._from_start, None
        if frames is None:
            self._reopen()
            frames = self._frames_from_here()
        return frames

    def _seeked(self, seconds: float) -> Iterator[VideoFrame]:
        self._from_start = None
        if self._errors:  # a decoder that met damage starts afresh
            self._reopen()
        assert self._stream.time_base is not None
        self._container.seek(self._origin + int(seconds / self._stream.time_base + 1e-6), stream=self._stream)
        return self._frames_from_here()

    def _reopen(self) -> None:
        self._container.close()
        self._container, self._stream = _open(self.source)
        self._errors = 0

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[TimedFrame]:
        """Frames with seconds; missing or backward times continue from the frame before."""
        period = 1 / self.info.fps if self.info.fps else 0.04
        last = None
        self._counted = 0
        for frame in frames:
            pts = self._seconds(frame.pts) if frame.pts is not None else None
            if pts is None or (last is not None and pts <= last):
                pts = 0.0 if last is None else last + period
            duration = self._seconds(frame.duration + self._origin) if frame.duration else period
            self._counted += 1
            yield TimedFrame(functools.partial(self._pixels, frame), pts, duration)
            last = pts

    def _seconds(self, pts: int) -> float:
        base = self._stream.time_base
        assert base is not None
        return (pts - self._origin) * base.numerator / base.denominator

    def _pixels(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        pixels = self._convert(frame)
        matrix = _display_matrix(frame)
        return pixels if matrix is None else _oriented(pixels, matrix)

    # -- description ------------------------------------------------------------------------------------------

    @functools.cached_property
    def _packet_times(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None:
        """pts and keyframe flag of all shown frames, in order of time; None where packets carry no usable times."""
        if self.source.file is not None:  # one file object cannot be read in two places at once
            self._container.close()
        container, stream = _open(self.source)
        with container:
            rows = []
            try:
                for packet in container.demux(stream):
                    if packet.size and not packet.is_discard:
                        rows.append((packet.pts, packet.is_keyframe))
            except av.error.FFmpegError:
                self._errors += 1
        if self.source.file is not None:
            self._from_start = None
            self._reopen()
        if not rows or any(pts is None for pts, _ in rows) or len({pts for pts, _ in rows}) != len(rows):
            return None
        rows.sort()
        return np.array([pts for pts, _ in rows], np.int64), np.array([key for _, key in rows], np.bool_)

    def _described(self, first: VideoFrame) -> MediaInfo:
        stream, context = self._stream, self._stream.codec_context
        width, height = first.width, first.height
        matrix = _display_matrix(first)
        if matrix is not None and matrix[0] == 0:
            width, height = height, width
        rate = stream.average_rate or stream.guessed_rate
        duration = None
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        elif self._container.duration:
            duration = self._container.duration / av.time_base
        return MediaInfo(
            name=self.source.name,
            kind="video",
            width=width,
            height=height,
            fps=float(rate) if rate else None,
            num_frames=stream.frames or None,
            duration_seconds=duration,
            codec=context.name,
            pixel_format=first.format.name,
            colour=describe(first.colorspace, first.color_range, first.color_trc),
            container=self._container.format.name,
        )

    def _warn_of_damage(self) -> None:
        text = None
        if self._errors:
            text = (
                f"{self.source.name} is damaged: {self._errors} places could not be decoded; frames that could are used"
            )
        elif is_cut_off(self.source):
            text = f"{self.source.name} is cut off: it ends before its header says; the frames that are there are used"
        if text:
            warnings.warn(text, TokenReelWarning, stacklevel=2)


def _open(source: Source) -> tuple[InputContainer, VideoStream]:
    try:
        container = av.open(source.open(), mode="r", metadata_errors="replace", options={"format_whitelist": _DEMUXERS})
    except (av.error.FFmpegError, OSError, MemoryError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{source.name} is not a picture or video that can be read ({reason})") from error
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    readable = [s for s in streams if getattr(s, "codec_context", None) is not None]
    if not readable:
        container.close()
        raise MediaError(f"{source.name} holds no video that can be decoded; streams: {_streams(container) or 'none'}")
    stream = readable[0]
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
    return container, stream


def _streams(container: InputContainer) -> str:
    return ", ".join(s.type for s in container.streams)


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """(a, b, c, d), each -1, 0 or 1, of the display matrix: (x, y) is shown at (ax + cy, bx + dy). None if upright."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = struct.unpack("<5i", bytes(data)[:20])
    signs = tuple(0 if abs(value) < 1 << 12 else (1 if value > 0 else -1) for value in (a, b, c, d))
    if signs == (1, 0, 0, 1) or signs not in _ORIENTATIONS:
        return None
    return signs  # type: ignore[return-value]


_ORIENTATIONS = {(a, 0, 0, d) for a in (1, -1) for d in (1, -1)} | {(0, b, c, 0) for b in (1, -1) for c in (1, -1)}


def _oriented(pixels_HWC: npt.NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    a, b, c, d = matrix
    if a:
        turned = pixels_HWC[::d, ::a]
    else:
        turned = pixels_HWC.transpose(1, 0, 2)[::b, ::c]
    return np.ascontiguousarray(turned)
