from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from rendered import encode, moving_frames

from tokenreel.errors import MediaError, TokenReelWarning
from tokenreel.media.colour import RgbConverter, describe, tone_map
from tokenreel.media.read import open_media, read

WHITE = (255, 255, 255)
LUMA = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593), "smpte240m": (0.212, 0.087)}
CODES = {"bt709": 1, "bt601": 6, "bt2020": 9, "smpte240m": 7, "undeclared": 2}
COLOURS = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [37, 180, 99]], np.uint8)


def coded(rgb: np.ndarray, matrix: str, full: bool, bits: int) -> np.ndarray:
    """Y'CbCr of one colour by the textbook (ITU-R BT.601, 709, 2020)."""
    red, blue = LUMA["bt601" if matrix == "undeclared" else matrix]
    r, g, b = rgb / 255
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    scale = 1 << (bits - 8)
    if full:
        top = (1 << bits) - 1
        return np.rint([y * top, cb * top + (1 << (bits - 1)), cr * top + (1 << (bits - 1))])
    return np.rint(np.array([16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr]) * scale)


def flat_frame(yuv: np.ndarray, pixel_format: str, matrix: int, full: bool | None, trc: int = 2) -> VideoFrame:
    frame = VideoFrame(16, 16, pixel_format)
    kind = np.dtype("<u2") if "10le" in pixel_format else np.dtype(np.uint8)
    for plane, value in zip(frame.planes, yuv):
        plane.update(np.full(plane.buffer_size // kind.itemsize, min(value, 1023 if kind.itemsize == 2 else 255), kind))
    frame.colorspace, frame.color_trc = matrix, trc
    frame.color_range = 0 if full is None else 2 if full else 1
    return frame


@pytest.mark.parametrize("matrix", CODES)
@pytest.mark.parametrize("full", [True, False, None])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"])
def test_colours_are_those_of_the_textbook(matrix: str, full: bool | None, pixel_format: str) -> None:
    for rgb in COLOURS:
        yuv = coded(rgb, matrix, bool(full), 10 if "10le" in pixel_format else 8)
        pixels = RgbConverter("x", WHITE)(flat_frame(yuv, pixel_format, CODES[matrix], full))
        assert np.abs(pixels.astype(int) - rgb).max() <= 3, (rgb, pixels[0, 0])
        assert (pixels == pixels[0, 0]).all()


@pytest.mark.parametrize("matrix", [8, 14, 10, 11, 15])
def test_matrices_that_cannot_be_converted_are_refused_in_one_sentence(matrix: int) -> None:
    with pytest.raises(MediaError, match="colour matrix") as caught:
        RgbConverter("film.mp4", WHITE)(flat_frame(np.array([90, 100, 110]), "yuv420p", matrix, False))
    assert "\n" not in str(caught.value)


def test_a_stream_in_ycgco_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "ycgco.mp4", moving_frames(3), colour=(8, 1, 1, 1))
    with pytest.raises(MediaError, match="YCgCo"):
        read(path)


def test_description_in_words(tmp_path: Path) -> None:
    assert describe(1, 1, 1) == "BT.709, limited range"
    assert describe(9, 2, 16) == "BT.2020, full range, PQ (HDR)"
    assert "undeclared" in describe(2, 0, 2)
    assert describe(99, 9, 18) == "matrix 99, limited range, HLG (HDR)"
    path = encode(tmp_path / "a.mp4", moving_frames(3), colour=(1, 2, 1, 1))
    with open_media(path) as reader:
        assert reader.info.colour == "BT.709, full range"


def test_a_frame_that_changes_size_is_scaled_with_a_warning() -> None:
    convert = RgbConverter("x", WHITE)
    assert convert(flat_frame(np.array([90, 100, 110]), "yuv420p", 1, False)).shape == (16, 16, 3)
    with pytest.warns(TokenReelWarning, match="changes its size"):
        assert convert(VideoFrame(32, 24, "yuv420p")).shape == (16, 16, 3)


def pq(nits: float) -> float:
    """Inverse EOTF of SMPTE ST 2084."""
    y = (nits / 10000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)


def grey(signal: float) -> np.ndarray:
    return np.full((2, 2, 3), round(signal * 65535), np.uint16)


def test_pq_white_is_light_and_more_light_is_never_darker() -> None:
    levels = [int(tone_map(grey(pq(nits)), is_pq=True)[0, 0, 0]) for nits in (0, 1, 10, 50, 100, 203, 400, 1000)]
    assert levels == sorted(levels)
    assert levels[0] == 0
    assert 175 <= levels[5] <= 245
    assert levels[-1] == 255
    assert tone_map(grey(1.0), is_pq=True).min() == 255


def test_hlg_white_is_light_and_more_signal_is_never_darker() -> None:
    levels = [int(tone_map(grey(signal / 100), is_pq=False)[0, 0, 0]) for signal in range(0, 101, 5)]
    assert levels == sorted(levels)
    assert levels[0] == 0
    assert 175 <= levels[15] <= 245  # 75 % is diffuse white, ITU-R BT.2408
    assert levels[-1] >= 250


def test_grey_stays_grey_and_hue_stays() -> None:
    for is_pq in (True, False):
        mapped = tone_map(grey(0.5), is_pq=is_pq).astype(int)
        assert np.ptp(mapped) <= 1
        red = np.array([[[40000, 20000, 20000]]], np.uint16)
        r, g, b = tone_map(red, is_pq=is_pq)[0, 0].astype(int)
        assert r > g + 20
        assert abs(g - b) < 25


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize(("codec", "suffix"), [("libx265", ".mp4"), ("libsvtav1", ".mkv")])
def test_an_hdr_stream_is_tone_mapped_with_one_warning(
    transfer: int, name: str, codec: str, suffix: str, tmp_path: Path
) -> None:
    frames = moving_frames(4, 64, 64)
    path = encode(tmp_path / f"hdr{suffix}", frames, codec, "yuv420p10le", colour=(9, 1, 9, transfer))
    with open_media(path) as reader:
        assert name in reader.info.colour
        with pytest.warns(TokenReelWarning, match=rf"HDR \({name}\)") as caught:
            hdr = np.stack([frame.pixels_HWC for frame in reader])
    assert len(caught) == 1
    assert hdr.shape == frames.shape
    plain = read(encode(tmp_path / f"sdr{suffix}", frames, codec, "yuv420p10le", colour=(9, 1, 9, 1))).frames_THWC
    assert np.corrcoef(hdr.ravel(), plain.ravel())[0, 1] > 0.8
    assert np.abs(hdr.astype(int) - plain).mean() > 3


def test_frames_keep_their_tags() -> None:
    frame = flat_frame(np.array([90, 100, 110]), "yuv420p10le", 9, False, 1)
    RgbConverter("x", WHITE)(frame)
    assert (frame.colorspace, frame.color_range, frame.color_trc) == (9, ColorRange.MPEG, 1)
    assert Colorspace.ITU601 == 5  # the tables in colour.py name swscale's numbers


def test_an_hdr_avif_is_tone_mapped_too(tmp_path: Path) -> None:
    frames = moving_frames(1, 64, 64)
    for transfer in (16, 1):
        path = encode(
            tmp_path / f"{transfer}.avif", frames, "libsvtav1", "yuv420p10le", colour=(9, 1, 9, transfer), fmt="avif"
        )
        if transfer == 16:
            with pytest.warns(TokenReelWarning, match="HDR"):
                assert read(path).size == (1, 64, 64)
        else:
            assert read(path).size == (1, 64, 64)
