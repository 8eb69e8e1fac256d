"""Codecs: bytes are those of real files and packets, and curves are read off where they have points."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from tokenreel.errors import InputError
from tokenreel.measure.codecs import CODECS, CodecCurve, CodecMeter, CodecPoint
from tokenreel.measure.psnr import psnr_db


def frames(count: int = 5, side: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side]
    texture = np.random.default_rng(0).integers(0, 60, (side, side, 1))  # grey: chroma is halved by video
    clip = [np.stack([x * 3, y * 3, (x + y) * 2], axis=-1) + np.roll(texture, t, axis=1) for t in range(count)]
    return np.clip(clip, 0, 255).astype(np.uint8)


def test_jpeg_is_the_plain_file_of_each_frame() -> None:
    clip = frames(2)
    num_bytes, decoded = CODECS["jpeg"].code(clip, 50)
    total = 0
    for index, frame in enumerate(clip):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=50, optimize=True)
        total += len(file.getvalue())
        np.testing.assert_array_equal(decoded[index], np.asarray(Image.open(file)))
    assert num_bytes == total


@pytest.mark.parametrize("name", list(CODECS))
def test_more_bits_are_better_and_frames_keep_their_order(name: str) -> None:
    clip, codec = frames(), CODECS[name]
    ends = [codec.code(clip, quality) for quality in (codec.qualities[0], codec.qualities[-1])]
    (small, poor), (large, good) = sorted(ends, key=lambda end: end[0])
    assert 0 < small < large
    assert poor.shape == good.shape == clip.shape
    assert psnr_db(clip, good) > psnr_db(clip, poor) + 3
    for index in range(len(clip)):
        errors = [np.abs(good[index].astype(int) - other).mean() for other in clip]
        assert int(np.argmin(errors)) == index


def test_packets_of_x264_are_counted_without_its_note() -> None:
    """As a stream file holds them: the bytes are those of the units that are no user data."""
    from tokenreel.measure.codecs import _needed_bytes, _packets

    packets = _packets("libx264", frames(), {"preset": "medium", "crf": "30"})
    stream = b"".join(bytes(packet) for packet in packets)
    units = [unit for unit in stream.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
    notes = [unit for unit in units if unit[0] & 31 == 6]
    assert len(notes) == 1
    assert b"x264" in notes[0]
    counted = sum(_needed_bytes(packet) for packet in packets)
    assert 0 <= len(stream) - len(notes[0]) - counted <= 4  # the start code
    assert _needed_bytes(b"\0\0\1\x65plain") == 9


def test_odd_sizes_and_single_frames() -> None:
    for name in ("h264", "av1"):
        if name == "av1":
            clip = frames(1)
        else:
            clip = frames(3)[:, :63, :61]
        num_bytes, decoded = CODECS[name].code(clip, 32)
        assert decoded.shape == clip.shape
        assert psnr_db(clip, decoded) > 20
        assert num_bytes > 0


def test_a_meter_adds_up() -> None:
    meter = CodecMeter(["jpeg", "jpeg"])
    a, b = frames(1), frames(2)[1:, ::-1, :32]
    meter.add(a)
    meter.add(b)
    (curve,) = meter.curves()
    point = next(point for point in curve.points if point.quality == 50)
    coded = [CODECS["jpeg"].code(clip, 50) for clip in (a, b)]
    assert point.bits_per_pixel == pytest.approx(8 * (coded[0][0] + coded[1][0]) / (64 * 64 + 64 * 32))
    assert point.psnr_db == pytest.approx(np.mean([psnr_db(a, coded[0][1]), psnr_db(b, coded[1][1])]), abs=1e-5)
    rates = [point.bits_per_pixel for point in curve.points]
    assert rates == sorted(rates)
    assert CodecMeter([]).curves() == []
    with pytest.raises(InputError, match="known are h264"):
        CodecMeter(["divx"])


def test_between_points_the_logarithm_of_bits_counts() -> None:
    points = (CodecPoint(40, 0.01, 20.0, 0.5), CodecPoint(30, 0.04, 30.0, None), CodecPoint(20, 0.16, 34.0, 0.9))
    curve = CodecCurve("h264", "H.264", points)
    assert curve.at(0.02) == pytest.approx(25)
    assert curve.at(0.08) == pytest.approx(32)
    assert curve.at(0.16) == 34
    assert curve.at(0.009) is None
    assert curve.at(0.2) is None
    assert curve.at(0) is None
    assert curve.at(0.02, "ssim") is None
    assert math.isclose(curve.as_json()["points"][0]["bits_per_pixel"], 0.01)
