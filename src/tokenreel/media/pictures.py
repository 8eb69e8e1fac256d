"""Still pictures and animations (png, apng, jpg, gif, webp, avif, bmp, tiff) through Pillow, frame by frame."""

from __future__ import annotations

import functools
import io
import itertools
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokenreel.errors import MediaError, TokenReelWarning

from .alpha import composite
from .cutoff import is_cut_off, mended_webp
from .info import MediaInfo, TimedFrame

if TYPE_CHECKING:
    from PIL import Image

    from .source import Source

__all__ = ["PictureReader"]

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
_ANIMATED = ("PNG", "GIF", "WEBP", "AVIF")
_UNTIMED_MS = 100  # how long players show a frame that does not say
_GIF_SHORTEST_MS = 10  # players take gif frames up to this as untimed
_MAX_PIXELS = 1 << 27  # 134 megapixels; a damaged header must not take all memory


class PictureReader:
    """Reads one picture (T = 1) or the frames of one animation. EXIF orientation is applied, alpha is composited."""

    def __init__(self, source: Source, background: tuple[int, int, int]) -> None:
        self.source = source
        self.background = background
        self._lock = threading.Lock()
        self._is_closed = self._is_warned = False
        self._image, count, is_sideways = _opened(source)
        # A png may carry a still for programs that know no animation; it is not part of the animation.
        self._first = 1 if count != 1 and getattr(self._image, "default_image", False) else 0
        self._num_frames = None if count is None else count - self._first
        width, height = self._image.size
        if is_sideways:
            width, height = height, width
        self.info = MediaInfo(
            name=source.name,
            kind="picture" if self._num_frames == 1 else "animation",
            width=width,
            height=height,
            fps=None,
            num_frames=self._num_frames,
            duration_seconds=None,
            codec=(self._image.format or "").lower(),
            pixel_format=self._image.mode,
            colour="RGB",
        )

    def decoded(self, *, start_seconds: float = 0.0) -> Iterator[TimedFrame]:
        """All frames in order, as (pixels, seconds, duration); a cut-off animation gives what there is and warns."""
        milliseconds = 0.0
        for index in itertools.count() if self._num_frames is None else range(self._num_frames):
            try:
                pixels, shown = self._frame(index + self._first)
            except MediaError:
                raise
            except Exception as error:  # as in _opened: a plugin's way of saying that the file is damaged
                if index == 0:
                    raise MediaError(f"{self.source.name} cannot be decoded: {_plain(error)}") from error
                self._warn(f"is damaged or cut off: {index} of {self._num_frames or 'its'} frames could be read")
                return
            yield TimedFrame(functools.partial(np.asarray, pixels), milliseconds / 1000, shown / 1000)
            milliseconds += shown
        if is_cut_off(self.source):
            self._warn("is cut off; the frames that are there are used")

    def times(self) -> npt.NDArray[np.float64] | None:
        """Unknown before decoding."""
        return None

    def decoded_at(self, indices: Sequence[int]) -> Iterator[TimedFrame]:
        """Never asked, since ``times`` knows nothing."""
        raise NotImplementedError

    def close(self) -> None:
        """Let the file go; safe while another thread reads, which then gets an error."""
        with self._lock:
            self._is_closed = True
            _close(self._image, self.source)

    def _frame(self, number: int) -> tuple[npt.NDArray[np.uint8], float]:
        """Pixels and milliseconds of one frame."""
        with self._lock:
            if self._is_closed:
                raise MediaError(f"{self.source.name} was closed before this reading ended")
            self._image.seek(number)
            pixels = self._rgb(self._image)
            shown = float(self._image.info.get("duration", 0))
        if self.info.kind == "picture":
            return pixels, 0.0
        is_untimed = shown <= (_GIF_SHORTEST_MS if self.info.codec == "gif" else 0)
        return pixels, _UNTIMED_MS if is_untimed else shown

    def _warn(self, text: str) -> None:
        if not self._is_warned:
            self._is_warned = True
            warnings.warn(f"{self.source.name} {text}", TokenReelWarning, stacklevel=3)

    def _rgb(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        from PIL import ImageOps

        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16") or upright.mode == "I":  # 16-bit grey: to 8 bit by value, not by clipping
            grey = np.maximum(np.asarray(upright).astype(np.int64), 0)
            grey8 = np.minimum((grey * 255 + 32767) // 65535, 255).astype(np.uint8)
            return np.repeat(grey8[..., None], 3, axis=2)
        if upright.mode == "F":
            raise MediaError(
                f"{self.source.name} holds floating-point pixels, whose range is unknown; convert to 8 bit"
            )
        if upright.has_transparency_data:
            return composite(np.asarray(upright.convert("RGBA")), self.background)
        return np.array(upright.convert("RGB"))


def _opened(source: Source) -> tuple[Image.Image, int | None, bool]:
    """The open picture, how many frames it has if that can be told, and whether the camera lay on its side."""
    from PIL import Image

    image: Image.Image | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
            mended = mended_webp(source)  # Pillow reads nothing of a cut-off one
            image = Image.open(source.open() if mended is None else io.BytesIO(mended), formats=_FORMATS)
            if image.width * image.height > _MAX_PIXELS:
                raise MediaError(f"{source.name} claims {image.width}x{image.height} pixels, too many to decode")
            count = _count(image)
            if count is None:  # counting ran into damage, and left the reader there
                _close(image, source)
                image = Image.open(source.open(), formats=_FORMATS)
            return image, count, image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files; each means unreadable
        if image is not None:
            _close(image, source)
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{source.name} cannot be read as a picture: {_plain(error)}") from error


def _close(image: Image.Image, source: Source) -> None:
    if source.path is not None:  # Pillow would close a caller's file too
        image.close()


def _count(image: Image.Image) -> int | None:
    if image.format not in _ANIMATED:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a gif is counted by walking it, which damage ends in many ways
        return None


def _plain(error: BaseException) -> str:
    """The first line of an error's text without the addresses of open files."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.split(" <_io")[0].split(" '<_io")[0] or type(error).__name__
