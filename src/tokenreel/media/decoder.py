"""One pass through the video stream of a container: packets in, decoded frames out, damage counted and passed over."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Set

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from tokenreel.errors import MediaError

from .source import Source

__all__ = ["Decoding"]

# Only containers that hold their own pictures: no playlists, which could name other files or addresses.
_DEMUXERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,h264,hevc,m4v,ivf,obu,av1,yuv4mpegpipe,nut,mxf,dv,"
    "swf,rm,gxf,wtv,vc1,apng,gif,mjpeg,mlv,roq,nsv,film_cpk,smk,bink"
)
_MAX_PIXELS = 1 << 26  # 67 megapixels a frame, twice 8K; a damaged header must not take all memory
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # ffmpeg's own VP8/9 decoders drop alpha
_FORGETFUL = ("libdav1d",)  # decoders that drop the sound frames they hold when they meet damage
_TAIL_PACKETS = 64  # more than any decoder holds back in its threads and its reordering


class Decoding:
    """One pass. ``close`` may come from another thread; reading on after it is an error, not a crash.

    Attributes:
        errors: places so far that could not be decoded, or that the decoder had to make up.
        wanted: pts of the frames that are needed, if not all are; others may be left out where that saves work.

    Raises:
        MediaError: the source is no container that may be read, or holds no video that can be decoded.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.errors = 0
        self.wanted: Set[int] | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._dts: deque[int] = deque()  # of packets whose frames have not come yet, where those are the times
        self.container, self.stream = _open(source)
        self._has_pts = self.container.format.name != "avi"
        self._decode = _decoder(self.stream)

    def close(self) -> None:
        """Let the file go, once a packet that is being decoded is through."""
        with self._lock:
            self._is_closed = True
            self.container.close()

    def seek(self, pts: int) -> None:
        """Go to the last keyframe at or before ``pts``. Raises FFmpegError where the index is damaged."""
        with self._lock:
            self._check_open()
            self.container.seek(pts, stream=self.stream)

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets that hold data, up to the end of the file or to damage that stops the container."""
        packets = self.container.demux(self.stream)
        while True:
            with self._lock:
                self._check_open()
                try:
                    packet = next(packets, None)
                except av.error.EOFError:
                    return
                except (av.error.FFmpegError, MemoryError):
                    self.errors += 1
                    return
            if packet is None:
                return
            if packet.size:  # the empty packet at the end would flush; that is done in one place, below
                yield packet

    def frames(self) -> Iterator[VideoFrame]:
        """Decode on from here; a packet that fails is counted and passed over, as ffmpeg does."""
        context, tail = self.stream.codec_context, _Tail()
        for packet in self._packets_and_end():
            if packet is not None and is_shown(packet) and not self._leaves_out(packet):
                tail.sent(packet.pts if self._has_pts else packet.dts)
            for frame in self._decoded(packet):
                tail.given(frame)
                yield frame
            if self.errors and context.name in _FORGETFUL:
                break
        is_missing = tail.is_missing or (self.errors and context.name in _FORGETFUL)
        if is_missing and context.thread_count != 1:
            yield from self._frames_after(tail.last_pts)

    def _leaves_out(self, packet: Packet[VideoStream]) -> bool:
        """Tell the decoder whether it may pass over this packet: H.264 marks frames that no other refers to."""
        if self.wanted is None or self.stream.codec_context.name != "h264":
            return False
        is_wanted = packet.pts in self.wanted
        self.stream.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
        return not is_wanted

    def _frames_after(self, last_pts: int) -> Iterator[VideoFrame]:
        """The frames after ``last_pts``, decoded again from the start on one thread.

        Where the last packets are damaged, PyAV stops emptying the decoder's threads at the first of them, and sound
        frames stay inside; dav1d forgets what its threads hold at any damage. One thread holds nothing back. Only
        damaged files come here, so the time does not matter.
        """
        errors = self.errors
        with self._lock:
            self._check_open()
            self.container.close()
            self.container, self.stream = _open(self.source)
            self.stream.codec_context.thread_count = 1
            self._decode = _decoder(self.stream)
        self.errors = 0
        self._dts.clear()
        for packet in self._packets_and_end():
            for frame in self._decoded(packet):
                if frame.pts is not None and frame.pts > last_pts:
                    yield frame
        self.errors = max(1, errors, self.errors)

    def _packets_and_end(self) -> Iterator[Packet[VideoStream] | None]:
        yield from self.packets()
        yield None

    def _decoded(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        with self._lock:
            self._check_open()
            try:
                frames = self._decode(packet)
            except av.error.EOFError:
                return []
            except (av.error.FFmpegError, MemoryError):
                self.errors += 1
                return []
        self.errors += sum(frame.is_corrupt for frame in frames)
        return frames if self._has_pts else self._in_dts_order(packet, frames)

    def _in_dts_order(self, packet: Packet[VideoStream] | None, frames: list[VideoFrame]) -> list[VideoFrame]:
        """Frames with the times of the packets in turn: avi holds no others, and what FFmpeg guesses is wrong."""
        if packet is not None and packet.dts is not None:
            self._dts.append(packet.dts)
        for frame in frames:
            frame.pts = self._dts.popleft() if self._dts else None
        return frames

    def _check_open(self) -> None:
        if self._is_closed:
            raise MediaError(f"{self.source.name} was closed, or read anew from the start, before this reading ended")


class _Tail:
    """Notes the last packets and frames, to tell whether frames stayed inside the decoder when it was emptied."""

    def __init__(self) -> None:
        self._sent: deque[int] = deque(maxlen=_TAIL_PACKETS)
        self._given: deque[int] = deque(maxlen=2 * _TAIL_PACKETS)
        self._first_pts: int | None = None
        self.last_pts = -(1 << 63)

    def sent(self, pts: int | None) -> None:
        if pts is not None:
            self._sent.append(pts)

    def given(self, frame: VideoFrame) -> None:
        if frame.pts is None:
            return
        if self._first_pts is None:
            self._first_pts = frame.pts
        self._given.append(frame.pts)
        self.last_pts = max(self.last_pts, frame.pts)

    @property
    def is_missing(self) -> bool:
        """True if a packet of the tail gave no frame; what comes before the first frame given does not count."""
        first = self.last_pts if self._first_pts is None else self._first_pts
        return any(pts >= first for pts in set(self._sent) - set(self._given))


def is_shown(packet: Packet[VideoStream]) -> bool:
    """False for packets outside the edit list, and for VP8's that only prepare others (alternate references)."""
    if packet.is_discard:
        return False
    name = packet.stream.codec_context.name
    return name not in ("vp8", "libvpx") or bool(bytes(memoryview(packet)[:1])[0] & 0x10)


def _open(source: Source) -> tuple[InputContainer, VideoStream]:
    # max_pixels goes to the probing here, and below to the decoder itself.
    options = {"format_whitelist": _DEMUXERS, "max_pixels": str(_MAX_PIXELS)}
    try:
        container = av.open(source.open(), mode="r", metadata_errors="replace", options=options)
    except (av.error.FFmpegError, OSError, MemoryError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{source.name} is not a picture or video that can be read ({reason})") from error
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    readable = [s for s in streams if getattr(s, "codec_context", None) is not None]
    if not readable:
        held = ", ".join(s.type for s in container.streams) or "none"
        container.close()
        raise MediaError(f"{source.name} holds no video that can be decoded; its streams: {held}")
    stream = readable[0]
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
    return container, stream


def _decoder(stream: VideoStream) -> Callable[[Packet[VideoStream] | None], list[VideoFrame]]:
    context: av.CodecContext = stream.codec_context
    alpha = _ALPHA_DECODERS.get(context.name.removeprefix("lib").split("-")[0])
    if alpha and stream.metadata.get("alpha_mode") == "1":
        context = av.CodecContext.create(alpha, "r")
        context.options = {"max_pixels": str(_MAX_PIXELS)}
    return context.decode  # type: ignore[no-any-return, attr-defined]
