"""Decoding against the ffmpeg command line: the decoder's planes bit for bit, our RGB within 2 of 255.

Measured with ffmpeg 5.1 against PyAV 18.1 (FFmpeg 8.1): the RGB is equal everywhere, too.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "media"))
from rendered import encode, moving_frames

from tokenreel.media.frames import Selection, uniform_indices
from tokenreel.media.read import read
from tokenreel.media.source import open_source
from tokenreel.media.video import VideoReader

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on PATH")

FRAMES, BOXES = moving_frames(24), moving_frames(24, 64, 64)
ODD = FRAMES[:, :47, :61]
WHITE = (255, 255, 255)

CLIPS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264-bframes.mp4": {"options": {"bf": "3", "g": "12"}},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.avi": {},
    "h264-interlaced.mp4": {"options": {"x264-params": "tff=1"}},
    "h264-10bit.mp4": {"pix_fmt": "yuv420p10le"},
    "h264-422-10bit.mp4": {"pix_fmt": "yuv422p10le"},
    "h264-444-odd.mp4": {"pix_fmt": "yuv444p", "frames": ODD},
    "h265.mp4": {"codec": "libx265"},
    "h265-10bit.mkv": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "h265-bt2020-10bit.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "colour": (9, 1, 9, 14)},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp9-odd.webm": {"codec": "libvpx-vp9", "frames": ODD},
    "av1.mp4": {"codec": "libsvtav1", "frames": BOXES},
    "av1-10bit.mkv": {"codec": "libsvtav1", "pix_fmt": "yuv420p10le", "frames": BOXES},
    "bt709.mp4": {"colour": (1, 1, 1, 1)},
    "bt601.mp4": {"colour": (6, 1, 6, 6)},
    "smpte240m.mp4": {"colour": (7, 1, 7, 7)},
    "full-range.mp4": {"colour": (1, 2, 1, 1)},
    "full-range-10bit.mkv": {"codec": "libx265", "pix_fmt": "yuv420p10le", "colour": (1, 2, 1, 1)},
    "yuvj420p.mp4": {"pix_fmt": "yuvj420p"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "yuv411p.mkv": {"codec": "ffv1", "pix_fmt": "yuv411p"},
    "grey.mkv": {"codec": "ffv1", "pix_fmt": "gray"},
    "grey10.mkv": {"codec": "ffv1", "pix_fmt": "gray10le"},
    "vfr.mp4": {"pts": [0, 40, 80, 200, 240, 500, 520, 540, 900, 1000, 1040, 1080, *range(1100, 1700, 50)]},
    "rotated-90.mp4": {"rotation": (90,)},
    "rotated-180.mp4": {"rotation": (180,)},
    "rotated-270.mp4": {"rotation": (270,)},
    "mirrored.mp4": {"rotation": (0, True)},
    "upside-down.mp4": {"rotation": (0, False, True)},
    "rotated-90-mirrored.mp4": {"rotation": (90, True)},
}


def ffmpeg(path: Path, pixel_format: str, *before: str) -> bytes:
    """The raw frames of a file, as the command line decodes them; ``before`` stands before the input."""
    command = ["ffmpeg", "-v", "error", *before, "-i", str(path), "-map", "0:v:0", "-vsync", "0"]
    done = subprocess.run([*command, "-pix_fmt", pixel_format, "-f", "rawvideo", "-"], capture_output=True, check=True)
    return done.stdout


def assert_same_planes(path: Path) -> int:
    """Every plane of every frame, bit for bit; returns how many frames."""
    reader = VideoReader(open_source(path), WHITE)
    theirs = memoryview(ffmpeg(path, reader.info.pixel_format, "-noautorotate"))
    position = count = 0
    for frame in reader.planes():
        for plane in frame.planes:
            wide = 2 if plane.line_size >= plane.width * 2 and frame.format.components[0].bits > 8 else 1
            lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            ours = lines[: plane.height, : plane.width * wide]
            expected = np.frombuffer(theirs[position : position + ours.size], np.uint8).reshape(ours.shape)
            assert np.array_equal(ours, expected), f"{path.name}: frame {count} differs"
            position += ours.size
        count += 1
    reader.close()
    assert position == len(theirs)
    return count


def assert_close_rgb(path: Path) -> None:
    clip = read(path)
    theirs = np.frombuffer(ffmpeg(path, "rgb24"), np.uint8).reshape(clip.frames_THWC.shape)
    for ours, expected in zip(clip.frames_THWC, theirs):
        assert np.abs(ours.astype(np.int16) - expected).max() <= 2


@pytest.mark.parametrize("name", CLIPS)
def test_rendered_clips(name: str, tmp_path: Path) -> None:
    values = dict(CLIPS[name])
    path = encode(tmp_path / name, values.pop("frames", FRAMES), **values)
    assert assert_same_planes(path) == 24
    assert_close_rgb(path)


def test_vp9_of_ten_bits(tmp_path: Path) -> None:
    """PyAV's libvpx writes 8 bits only; the command line's may write more."""
    path = tmp_path / "vp9-10bit.webm"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-r", "25", "-i", "-"]
    coded = ["-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p10le", "-deadline", "realtime", "-cpu-used", "8", str(path)]
    done = subprocess.run(["ffmpeg", "-v", "error", *source, *coded], input=FRAMES.tobytes(), capture_output=True)
    if done.returncode:
        pytest.skip("this ffmpeg cannot write VP9 of 10 bits")
    assert assert_same_planes(path) == 24
    assert_close_rgb(path)


@pytest.mark.parametrize("name", ["a.gif", "a.apng", "still.webp", "still.png", "still.bmp"])
def test_animations_and_pictures_without_loss_are_equal(name: str, tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in FRAMES[:6]]
    path = tmp_path / name
    kind = {".gif": "GIF", ".apng": "PNG"}.get(path.suffix)
    if kind:
        images[0].save(path, kind, save_all=True, append_images=images[1:], duration=40)
    else:
        images[0].save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    clip = read(path)
    assert len(clip) == (6 if kind else 1)
    assert np.array_equal(np.frombuffer(ffmpeg(path, "rgb24"), np.uint8), clip.frames_THWC.ravel())


def test_lossy_pictures_are_near(tmp_path: Path) -> None:
    """libwebp and libjpeg smooth the chroma that ffmpeg repeats; on smooth pictures that is little."""
    y, x = np.mgrid[0:64, 0:96]
    image = Image.fromarray(np.stack([x * 2, y * 3, (x + y)], axis=-1).astype(np.uint8))
    for name in ("a.jpg", "a.webp"):
        path = tmp_path / name
        image.save(path, quality=95)
        ours = read(path).frames_THWC.astype(int)
        theirs = np.frombuffer(ffmpeg(path, "rgb24"), np.uint8).reshape(ours.shape)
        assert np.abs(ours - theirs).mean() < 2


# -- filmed clips ---------------------------------------------------------------------------------------------


def assert_like_ffmpeg(path: Path) -> None:
    count = assert_same_planes(path)
    assert_close_rgb(path)
    whole = read(path)
    assert len(whole) == count
    reader = VideoReader(open_source(path), WHITE)
    times = reader.times()
    assert times is not None
    assert np.allclose(times, whole.pts_seconds, atol=1e-9)
    assert sum(1 for _ in reader.decoded_at(range(count))) == count
    reader.close()
    assert np.array_equal(read(path, Selection(uniform=5)).frames_THWC, whole.frames_THWC[uniform_indices(count, 5)])
    assert np.array_equal(read(path, Selection(every=7)).frames_THWC, whole.frames_THWC[::7])
    start = count * 2 // 3
    late = read(path, Selection(start_seconds=float(whole.pts_seconds[start]), max_frames=3))
    assert np.array_equal(late.frames_THWC, whole.frames_THWC[start : start + 3])


def test_three_filmed_clips(data_dir: Path) -> None:
    found = sorted((data_dir / "clips" / "eval").glob("*.mp4"), key=lambda path: path.stat().st_size)
    for path in found[:3]:
        assert_like_ffmpeg(path)


@pytest.mark.slow
def test_all_filmed_clips(data_dir: Path) -> None:
    for path in sorted((data_dir / "clips").rglob("*.mp4")):
        assert_like_ffmpeg(path)
