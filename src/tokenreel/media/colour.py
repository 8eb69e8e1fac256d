"""A decoded frame of any pixel format to uint8 RGB, by the matrix, range and transfer that the stream declares.

Where a stream declares nothing, BT.601 and limited range are taken (what ffmpeg takes). HDR (PQ, HLG) is tone-mapped
with a warning; matrices that swscale does not know are refused. Alpha is composited on a stated background. As in
ffmpeg's own ``-pix_fmt rgb24`` (release 5), colour primaries are not converted (except for HDR), chroma is taken where
the converter for 8 bit takes it, wherever the stream sites it, and interlaced lines are not told apart.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from tokenreel.errors import MediaError, TokenReelWarning

from .alpha import composite

__all__ = ["RgbConverter", "describe", "tone_map"]

Frame = npt.NDArray[np.uint8]

# AVColorSpace (ISO 23091-2 MatrixCoefficients) -> what swscale calls it. 0 (RGB) on a YUV stream is a common
# mistake of encoders and is read as undeclared.
_MATRICES = {
    0: Colorspace.ITU601,
    1: Colorspace.ITU709,
    2: Colorspace.ITU601,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
_MATRIX_NAMES = {
    0: "RGB", 1: "BT.709", 2: "undeclared (BT.601 taken)", 3: "reserved", 4: "FCC", 5: "BT.601", 6: "BT.601",
    7: "SMPTE 240M", 8: "YCgCo", 9: "BT.2020", 10: "BT.2020 constant luminance", 11: "SMPTE 2085",
    12: "chromaticity-derived", 13: "chromaticity-derived constant luminance", 14: "ICtCp", 15: "IPT-C2",
    16: "YCgCo-Re", 17: "YCgCo-Ro",
}  # fmt: skip
_RANGE_NAMES = {0: "limited range (undeclared)", 1: "limited range", 2: "full range"}
_PQ, _HLG = 16, 18
_FAST = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p")  # formats for which swscale has a converter of its own


def describe(colorspace: int, color_range: int, color_trc: int) -> str:
    """The colour description of a stream in words."""
    words = f"{_MATRIX_NAMES.get(colorspace, f'matrix {colorspace}')}, {_RANGE_NAMES.get(color_range, 'limited range')}"
    return words + {_PQ: ", PQ (HDR)", _HLG: ", HLG (HDR)"}.get(color_trc, "")


class RgbConverter:
    """Converts the frames of one stream; keeps swscale's context between them.

    Args:
        name: stands in messages.
        background: RGB under transparent pixels.
    """

    def __init__(self, name: str, background: tuple[int, int, int]) -> None:
        self.name = name
        self.background = background
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._warned: set[str] = set()

    def __call__(self, frame: VideoFrame) -> Frame:
        """uint8 (H, W, 3). Raises MediaError for a matrix that cannot be converted."""
        if self._size is None:
            self._size = frame.width, frame.height
        elif self._size != (frame.width, frame.height):
            self._warn(
                f"{self.name} changes its size from {self._size[0]}x{self._size[1]} to {frame.width}x{frame.height} "
                "on the way; later frames are scaled to the first size"
            )
        if frame.color_trc in (_PQ, _HLG):
            return self._tone_mapped(frame)
        if _has_alpha(frame):
            return composite(self._reformat(frame, "rgba"), self.background)
        return self._reformat(frame, "rgb24")

    def _reformat(self, frame: VideoFrame, pixel_format: str) -> npt.NDArray[Any]:
        assert self._size is not None
        matrix = _MATRICES.get(frame.colorspace)
        if matrix is None:
            raise MediaError(
                f"{self.name} uses the colour matrix {_MATRIX_NAMES.get(frame.colorspace, frame.colorspace)}, "
                "which cannot be converted here; convert the file to BT.709 first"
            )
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj") or frame.format.is_rgb
        is_fast = frame.format.name in _FAST and frame.height % 2 == 0 and not frame.interlaced_frame
        plain = frame if is_fast or not frame.format.name.startswith("yuv") else _untagged(frame)
        return self._reformatter.reformat(
            plain,
            width=self._size[0],
            height=self._size[1],
            format=pixel_format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BICUBIC,
            threads=1,
        ).to_ndarray()

    def _tone_mapped(self, frame: VideoFrame) -> Frame:
        kind = "PQ" if frame.color_trc == _PQ else "HLG"
        self._warn(f"{self.name} is HDR ({kind}); it is tone-mapped to standard range (BT.709, 203 cd/m2 white)")
        coded = self._reformat(frame, "rgb48le")
        return tone_map(coded, is_pq=kind == "PQ")

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, TokenReelWarning, stacklevel=2)


def _untagged(frame: VideoFrame) -> VideoFrame:
    """The same planes without the tags by which swscale 9 shifts chroma and splits fields in its general converter."""
    plain = VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, plain.planes):
        lines = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        copied = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
        width = min(source.line_size, target.line_size)
        copied[:, :width] = lines[: len(copied), :width]
    return plain


def _has_alpha(frame: VideoFrame) -> bool:
    return frame.format.name.startswith(("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya", "pal8"))


# BT.2020 to BT.709 primaries, linear light (ITU-R BT.2087, the inverse direction).
_2020_TO_709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)
_WHITE_NITS = 203.0  # diffuse white, ITU-R BT.2408
_PEAK_NITS = 1000.0


@cache
def _light_table(is_pq: bool) -> npt.NDArray[np.float32]:
    """Code value (16 bit) to linear light, 1 = diffuse white: ST 2084 EOTF, or BT.2100's inverse HLG OETF."""
    code = np.linspace(0, 1, 65536)
    if is_pq:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = code ** (1 / m2)
        nits = 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
        return (nits / _WHITE_NITS).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


def tone_map(coded_HWC: npt.NDArray[np.uint16], *, is_pq: bool) -> Frame:
    """HDR R'G'B' (16 bit, BT.2020) to uint8 BT.709: extended Reinhard on the largest channel, peak 1,000 cd/m2.

    E. Reinhard et al., "Photographic tone reproduction for digital images", 2002, equation 4.
    """
    light: npt.NDArray[Any] = _light_table(is_pq)[coded_HWC]
    if not is_pq:  # BT.2100 HLG OOTF at 1,000 cd/m2: gamma 1.2 on luminance
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light = light * (np.maximum(luminance, 1e-6) ** 0.2)[..., None] * np.float32(_PEAK_NITS / _WHITE_NITS)
    light = np.maximum(light @ _2020_TO_709.T, 0)
    peak = np.float32(_PEAK_NITS / _WHITE_NITS)
    top = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    light = light * ((1 + top / peak**2) / (1 + top))
    light = np.clip(light, 0, 1)
    signal = np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)  # BT.709 OETF
    return cast(Frame, np.rint(signal * 255).astype(np.uint8))
