"""Encoders that go through PyAV: H.264, FFV1, VP9 and animated png in their containers, and gif.

Letters: H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from tokenreel.errors import InputError, MediaError

__all__ = ["GifEncoder", "VideoEncoder"]

Pixels = npt.NDArray[np.uint8]
_TICKS = 90_000  # a second, the MPEG clock: exact for all common rates, and short of overflow for any length
_AVCOL_SPC_BT709 = 1
_CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("mp4", {"movflags": "+faststart"}),
    ".mov": ("mov", {"movflags": "+faststart"}),
    ".mkv": ("matroska", {}),
    ".webm": ("webm", {}),
    ".png": ("apng", {"plays": "0"}),
    ".apng": ("apng", {"plays": "0"}),
}


class VideoEncoder:
    """H.264 (mp4, mov), FFV1 (mkv), VP9 (webm) or PNG (apng). Lossy streams are BT.709 limited range, and say so.

    Odd sizes cannot be 4:2:0 and are coded 4:4:4, so that the size stays what it was.
    """

    def __init__(
        self, path: Path, suffix: str, height: int, width: int, *, fps: float, lossless: bool, quality: int
    ) -> None:
        self.path = path
        codec, self._format, options = _codec(suffix, height, width, lossless=lossless, quality=quality)
        self._is_yuv = self._format.startswith("yuv")
        self._reformatter = VideoReformatter()
        self._base = Fraction(1, 1000 if suffix in (".mkv", ".webm", ".apng", ".png") else _TICKS)
        self._period = max(1, round(1 / (fps * self._base)))
        self._last = -1
        name, container_options = _CONTAINERS[suffix]
        try:
            self._container = av.open(str(path), "w", format=name, options=container_options)
        except (av.error.FFmpegError, OSError) as error:
            raise _write_error(error) from error
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = cast(Any, self._container.add_stream(codec, rate=rate, options=options))
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = self._format
        self._stream.thread_type = "AUTO"
        context = self._stream.codec_context
        context.time_base = self._base
        context.sample_aspect_ratio = Fraction(1)
        if self._is_yuv:
            context.colorspace, context.color_range = _AVCOL_SPC_BT709, int(ColorRange.MPEG)
            context.color_primaries, context.color_trc = int(ColorPrimaries.BT709), int(ColorTrc.BT709)

    def add(self, pixels_HWC: Pixels, pts_seconds: float) -> None:
        """Encode one frame."""
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HWC), format="rgb24")
        if self._is_yuv:
            frame = self._reformatter.reformat(
                frame,
                format=self._format,
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                dst_color_trc=ColorTrc.UNSPECIFIED,
                threads=1,
            )
        elif self._format != "rgb24":
            frame = self._reformatter.reformat(frame, format=self._format, threads=1)
        self._last = max(self._last + 1, round(pts_seconds / self._base))
        frame.pts, frame.time_base, frame.duration = self._last, self._base, self._period
        self._mux(frame)

    def finish(self) -> None:
        """Flush the encoder and close the file."""
        self._mux(None)
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise _write_error(error) from error

    def abandon(self) -> None:
        """Close what is open."""
        _close_quietly(self._container)

    def _mux(self, frame: VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            raise _write_error(error) from error


def _codec(suffix: str, height: int, width: int, *, lossless: bool, quality: int) -> tuple[str, str, dict[str, str]]:
    chroma = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
    if suffix in (".png", ".apng"):
        return "apng", "rgb24", {"pred": "mixed", "compression_level": "3"}
    if suffix == ".mkv":
        slices = {"slices": "12"} if min(height, width) >= 16 else {}
        return "ffv1", "bgr0", {"level": "3", "slicecrc": "1", "g": "1", **slices}
    if suffix == ".webm":
        shared = {"row-mt": "1", "cpu-used": "4", "deadline": "good", "b": "0"}
        if lossless:
            return "libvpx-vp9", "gbrp", shared | {"lossless": "1"}
        return "libvpx-vp9", chroma, shared | {"crf": str(round(63 - quality * 0.55))}
    if lossless:
        return "libx264rgb", "rgb24", {"qp": "0", "preset": "ultrafast"}
    return "libx264", chroma, {"crf": str(round(43 - quality * 0.33)), "preset": "medium"}


class GifEncoder:
    """A gif with one palette for the whole clip (ffmpeg's palettegen and paletteuse), unchanged parts left out.

    The palette is learned from the first ``_LEARN_BYTES`` of frames, spread evenly where there are fewer; memory is
    bounded by that.
    """

    _LEARN_BYTES = 192 << 20

    def __init__(self, path: Path, height: int, width: int, *, fps: float) -> None:
        try:
            self._container = av.open(str(path), "w", format="gif")
        except (av.error.FFmpegError, OSError) as error:
            raise _write_error(error) from error
        self._stream = cast(Any, self._container.add_stream("gif", rate=Fraction(fps).limit_denominator(100)))
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "pal8"
        self._stream.codec_context.time_base = Fraction(1, 100)
        self._height, self._width = height, width
        self._held: list[tuple[Pixels, float]] = []
        self._room = max(2, self._LEARN_BYTES // (height * width * 3))
        self._mapper: Any = None  # (the filter graph, where frames go in)
        self._last = -1

    def add(self, pixels_HWC: Pixels, pts_seconds: float) -> None:
        """Hold the frame until the palette is learned, then encode it."""
        if self._mapper is None:
            self._held.append((pixels_HWC.copy(), pts_seconds))
            if len(self._held) >= self._room:
                self._learn()
            return
        self._encode(pixels_HWC, pts_seconds)

    def finish(self) -> None:
        """Encode what is held and close the file."""
        if self._mapper is None:
            self._learn()
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise _write_error(error) from error

    def abandon(self) -> None:
        """Close what is open."""
        _close_quietly(self._container)

    def _learn(self) -> None:
        step = max(1, len(self._held) // 32)
        palette = _palette([pixels for pixels, _ in self._held[::step]], self._height, self._width)
        self._mapper = _mapper(self._height, self._width, palette)
        held, self._held = self._held, []
        for pixels, seconds in held:
            self._encode(pixels, seconds)

    def _encode(self, pixels: Pixels, seconds: float) -> None:
        graph, entry = self._mapper
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = self._last = max(self._last + 1, round(seconds * 100))
        frame.time_base = Fraction(1, 100)
        entry.push(frame)
        for mapped in _pulled(graph):
            mapped.time_base = Fraction(1, 100)
            try:
                self._container.mux(self._stream.encode(mapped))
            except (av.error.FFmpegError, OSError) as error:
                raise _write_error(error) from error


def _palette(frames: list[Pixels], height: int, width: int) -> VideoFrame:
    graph = Graph()
    source = _rgb_buffer(graph, height, width)
    learn = graph.add("palettegen", "stats_mode=full:reserve_transparent=1")
    sink = graph.add("buffersink")
    source.link_to(learn)
    learn.link_to(sink)
    graph.configure()
    for index, pixels in enumerate(frames):
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, 100)
        source.push(frame)
    source.push(None)
    palette = next(iter(_pulled(graph)), None)
    if palette is None:
        raise MediaError("ffmpeg's palettegen gave no palette; this build of PyAV cannot write gif")
    return palette


def _rgb_buffer(graph: Graph, height: int, width: int) -> Any:
    return graph.add_buffer(width=width, height=height, format=VideoFormat("rgb24"), time_base=Fraction(1, 100))


def _mapper(height: int, width: int, palette: VideoFrame) -> tuple[Graph, Any]:
    graph = Graph()
    frames = _rgb_buffer(graph, height, width)
    colours = graph.add_buffer(
        width=palette.width, height=palette.height, format=palette.format, time_base=Fraction(1, 100)
    )
    use = graph.add("paletteuse", "dither=sierra2_4a:diff_mode=rectangle")
    sink = graph.add("buffersink")
    frames.link_to(use, 0, 0)
    colours.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    palette.pts, palette.time_base = 0, Fraction(1, 100)
    colours.push(palette)
    colours.push(None)
    return graph, frames


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.pull()  # type: ignore[misc]
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _write_error(error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return MediaError(f"the video could not be written: {reason}")


def _close_quietly(container: Any) -> None:
    try:
        container.close()
    except (av.error.FFmpegError, OSError):
        return  # the file is thrown away; why it cannot be finished was told by the first error
