"""Still pictures and animations (png, apng, jpg, gif, webp, avif, bmp, tiff) through Pillow, frame by frame."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import InputError, MediaError, TokenReelWarning
from .info import MediaInfo, TimedFrame

if TYPE_CHECKING:
    from PIL import Image

    from .source import Source

__all__ = ["PictureReader"]

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
_ANIMATED = ("PNG", "GIF", "WEBP", "AVIF")
# Browsers show a frame of 10 ms or less for 100 ms; so do we, or a gif without times would have no duration.
_SHORTEST_MS, _SHORTEST_SHOWN_MS = 10, 100


class PictureReader:
    """Reads one picture (T = 1) or the frames of one animation. EXIF orientation is applied, alpha is composited."""

    def __init__(self, source: Source, background: tuple[int, int, int]) -> None:
        from PIL import Image

        self.source = source
        self.background = background
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
                self._image = Image.open(source.open(), formats=_FORMATS)
                num_frames = getattr(self._image, "n_frames", 1) if self._image.format in _ANIMATED else 1
        except Image.DecompressionBombError as error:
            raise MediaError(f"{source.name} is too large to decode safely: {error}") from error
        except Exception as error:  # Pillow's plugins raise many kinds on damaged files; each means unreadable
            raise MediaError(f"{source.name} is not a picture that can be read: {_plain(error)}") from error
        self._num_frames = num_frames
        width, height = self._image.size
        if self._image.getexif().get(0x0112, 1) >= 5:  # the camera lay on its side
            width, height = height, width
        self.info = MediaInfo(
            name=source.name,
            kind="animation" if num_frames > 1 else "picture",
            width=width,
            height=height,
            fps=None,
            num_frames=num_frames,
            duration_seconds=None,
            codec=(self._image.format or "").lower(),
            pixel_format=self._image.mode,
            colour="RGB",
        )

    def decoded(self, *, start_seconds: float = 0.0) -> Iterator[TimedFrame]:
        """All frames in order, as (pixels, seconds, duration); a cut-off animation gives what there is and warns."""
        milliseconds = 0.0
        for index in range(self._num_frames):
            try:
                self._image.seek(index)
                pixels = self._rgb(self._image)
            except Exception as error:  # as above: a plugin's way of saying that the file is damaged
                if index == 0:
                    raise MediaError(f"{self.source.name} cannot be decoded: {_plain(error)}") from error
                warnings.warn(
                    f"{self.source.name} is damaged or cut off: {index} of {self._num_frames} frames could be read",
                    TokenReelWarning,
                    stacklevel=2,
                )
                return
            shown = self._image.info.get("duration", 0) if self._num_frames > 1 else 0
            if self._num_frames > 1 and shown <= _SHORTEST_MS:
                shown = _SHORTEST_SHOWN_MS
            yield TimedFrame(lambda pixels=pixels: pixels, milliseconds / 1000, shown / 1000)
            milliseconds += shown

    def times(self) -> npt.NDArray[np.float64] | None:
        """Unknown before decoding."""
        return None

    def decoded_at(self, indices: Sequence[int]) -> Iterator[TimedFrame]:
        """Never asked, since ``times`` knows nothing."""
        raise NotImplementedError

    def close(self) -> None:
        """Let the file go."""
        self._image.close()

    def _rgb(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        from PIL import ImageOps

        from .alpha import composite

        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16") or upright.mode == "I":  # 16-bit grey: to 8 bit by value, not by clipping
            grey = np.asarray(upright).astype(np.uint32)
            grey8 = np.minimum((grey * 255 + 32767) // 65535, 255).astype(np.uint8)
            return np.repeat(grey8[..., None], 3, axis=2)
        if upright.mode == "F":
            raise InputError(
                f"{self.source.name} holds floating-point pixels, whose range is unknown; convert to 8 bit"
            )
        if upright.has_transparency_data:
            return composite(np.asarray(upright.convert("RGBA")), self.background)
        return np.array(upright.convert("RGB"))


def _plain(error: BaseException) -> str:
    """The first line of an error's text without the addresses of open files."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.split(" <_io")[0].split(" '<_io")[0] or type(error).__name__
