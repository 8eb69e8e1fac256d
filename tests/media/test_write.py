from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from rendered import moving_frames

from tokenreel.errors import InputError, MediaError
from tokenreel.media.read import read
from tokenreel.media.write import FORMATS, Writer, open_writer, write
from tokenreel.types import Clip

FILES = [suffix for suffix in FORMATS if suffix != "folder"]
ALWAYS_LOSSLESS = (".mkv", ".png", ".apng")
CAN_BE_LOSSLESS = (".mp4", ".mov", ".webm", ".webp", *ALWAYS_LOSSLESS)
SIZES = [(48, 64), (47, 61), (1, 1), (2, 3), (33, 16)]
CLOCK = {".gif": 0.01}  # seconds a tick


def clip_of(frames: np.ndarray, pts: np.ndarray | None = None, fps: float | None = 25.0) -> Clip:
    times = np.arange(len(frames)) / 25 if pts is None else pts
    return Clip(frames_THWC=frames, pts_seconds=times, fps=fps)


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_read_again(suffix: str, size: tuple[int, int], tmp_path: Path) -> None:
    frames = moving_frames(8, *size)
    frames[:, -1, -1] = np.arange(8)[:, None] * 30  # all differ, however small
    path = write(tmp_path / f"out{suffix}", clip_of(frames))
    clip = read(path)
    assert clip.size == (8, *size)
    assert np.allclose(clip.pts_seconds, np.arange(8) / 25, atol=CLOCK.get(suffix, 1.1e-3) / 2 + 1e-9)
    if suffix in ALWAYS_LOSSLESS:
        assert np.array_equal(clip.frames_THWC, frames)
    elif size == (48, 64):
        assert np.abs(clip.frames_THWC[:, :20].astype(int) - frames[:, :20]).mean() < 8
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", CAN_BE_LOSSLESS)
@pytest.mark.parametrize("size", SIZES)
def test_lossless_is_exact(suffix: str, size: tuple[int, int], tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, *size, 3), np.uint8)
    clip = read(write(tmp_path / f"out{suffix}", clip_of(frames), lossless=True))
    assert np.array_equal(clip.frames_THWC, frames)


def test_all_levels_of_grey_and_of_each_channel_survive_lossless(tmp_path: Path) -> None:
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frames[0] = ramp[..., None]
    for channel in range(3):
        frames[1 + channel, ..., channel] = ramp
    for suffix in CAN_BE_LOSSLESS:
        assert np.array_equal(read(write(tmp_path / f"o{suffix}", clip_of(frames), lossless=True)).frames_THWC, frames)


@pytest.mark.parametrize("suffix", FILES)
def test_variable_times_are_kept(suffix: str, tmp_path: Path) -> None:
    times = np.array([0, 0.04, 0.08, 0.3, 0.34, 1.0, 1.2, 1.24])
    clip = read(write(tmp_path / f"out{suffix}", clip_of(moving_frames(8), times, None)))
    assert np.allclose(clip.pts_seconds, times, atol=1e-3)
    assert clip.fps is None


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("rate", [10.0, 24000 / 1001, 30.0, 50.0])
def test_steady_rates_are_kept(suffix: str, rate: float, tmp_path: Path) -> None:
    with open_writer(tmp_path / f"out{suffix}", fps=rate) as writer:
        for frame in moving_frames(24):
            writer.write(frame)
    clip = read(writer.path)
    assert len(clip) == 24
    assert np.allclose(clip.pts_seconds, np.arange(24) / rate, atol=5.1e-3 if suffix == ".gif" else 1.1e-3)
    assert clip.fps == pytest.approx(rate, rel=0.02)


def test_a_clip_that_starts_late_starts_at_zero(tmp_path: Path) -> None:
    for suffix in FILES:
        clip = read(write(tmp_path / f"out{suffix}", clip_of(moving_frames(4), np.arange(4) / 25 + 7.48)))
        assert np.allclose(clip.pts_seconds, np.arange(4) / 25, atol=1e-3)


@pytest.mark.parametrize("suffix", FILES)
def test_a_single_frame(suffix: str, tmp_path: Path) -> None:
    frames = moving_frames(1)
    clip = read(write(tmp_path / f"out{suffix}", clip_of(frames)))
    assert clip.size == (1, 48, 64)
    if suffix in (".png", ".webp"):
        with Image.open(tmp_path / f"out{suffix}") as image:
            assert getattr(image, "n_frames", 1) == 1


@pytest.mark.parametrize("suffix", FILES)
def test_frames_that_do_not_change_are_all_there(suffix: str, tmp_path: Path) -> None:
    frames = np.repeat(moving_frames(1), 6, axis=0)
    frames[4:] = moving_frames(2)[1]
    clip = read(write(tmp_path / f"out{suffix}", clip_of(frames)))
    if suffix == ".webp":  # libwebp joins equal frames into one that is shown longer
        assert clip.pts_seconds.tolist() == [0.0, 0.16]
    else:
        assert len(clip) == 6


def test_a_folder_of_png(tmp_path: Path) -> None:
    frames = moving_frames(40)
    path = write(tmp_path / "frames", clip_of(frames))
    names = sorted(file.name for file in path.iterdir())
    assert names == [f"{index:06d}.png" for index in range(40)] + ["times.json"]
    assert all(np.array_equal(read(path / f"{i:06d}.png").frames_THWC[0], frames[i]) for i in (0, 17, 39))
    assert json.loads((path / "times.json").read_text())["pts_seconds"] == pytest.approx((np.arange(40) / 25).tolist())
    with pytest.raises(InputError, match="not empty"):
        write(path, clip_of(frames))


def test_colours_are_declared(tmp_path: Path) -> None:
    for suffix in (".mp4", ".webm", ".mov"):
        with av.open(str(write(tmp_path / f"out{suffix}", clip_of(moving_frames(3))))) as container:
            frame = next(container.decode(video=0))
            assert (frame.colorspace, frame.color_range) == (1, 1)


def test_quality_makes_a_difference(tmp_path: Path) -> None:
    for suffix in (".mp4", ".webm", ".webp"):
        low, high = (write(tmp_path / f"q{q}{suffix}", clip_of(moving_frames(8)), quality=q) for q in (10, 95))
        assert low.stat().st_size < high.stat().st_size


def test_gif_keeps_few_colours_exactly(tmp_path: Path) -> None:
    frames = np.zeros((6, 32, 32, 3), np.uint8)
    for index in range(6):
        frames[index, :, index * 4 : index * 4 + 8] = (250, 200, 20)
        frames[index, index * 4 : index * 4 + 8] = (10, 120, 220)
    clip = read(write(tmp_path / "a.gif", clip_of(frames)))
    assert np.abs(clip.frames_THWC.astype(int) - frames).max() <= 4


def write_all(path: Path, frames: list[np.ndarray], then: Exception | None = None) -> None:
    with Writer(path) as writer:
        for frame in frames:
            writer.write(frame)
        if then is not None:
            raise then


@pytest.mark.parametrize("suffix", [*FILES, ""])
def test_an_error_on_the_way_leaves_nothing_and_keeps_the_old_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    if suffix:
        path.write_bytes(b"the old one")
    with pytest.raises(RuntimeError, match="stop"):
        write_all(path, list(moving_frames(6)), RuntimeError("stop"))
    with pytest.raises(InputError, match="one size"):
        write_all(path, [moving_frames(1)[0], moving_frames(1, 32, 32)[0]])
    with pytest.raises(InputError, match="at least one"):
        write_all(path, [])
    assert [left.name for left in tmp_path.iterdir()] == ([path.name] if suffix else [])
    assert not suffix or path.read_bytes() == b"the old one"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("suffix", [suffix for suffix in FILES if suffix not in (".mp4", ".mov")])
def test_a_full_disk_is_one_sentence(suffix: str, tmp_path: Path) -> None:
    full = tmp_path / f"full{suffix}"
    full.symlink_to("/dev/full")
    writer = Writer(tmp_path / f"out{suffix}")
    writer._temporary = full
    with pytest.raises(MediaError) as caught:
        write_to(writer, moving_frames(8))
    assert "\n" not in str(caught.value)
    assert [left.name for left in tmp_path.iterdir()] == [full.name]


def write_to(writer: Writer, frames: np.ndarray) -> None:
    try:
        for frame in frames:
            writer.write(frame)
        writer.__exit__(None, None, None)
    except BaseException as error:
        writer.__exit__(type(error), error, error.__traceback__)
        raise


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("out.xyz", {}, "cannot write '.xyz'"),
        ("out.mp4", {"fps": 0.0}, "fps must be above 0"),
        ("out.mp4", {"fps": float("nan")}, "fps must be above 0"),
        ("out.mp4", {"quality": 101}, "quality must be"),
        ("out.gif", {"lossless": True}, "gif cannot be lossless"),
    ],
)
def test_what_cannot_be_written_is_refused(name: str, options: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        open_writer(tmp_path / name, **options)  # type: ignore[arg-type]


def test_frames_must_be_rgb_bytes(tmp_path: Path) -> None:
    for frame in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(InputError, match="uint8"), Writer(tmp_path / "out.mp4") as writer:
            writer.write(frame)
    assert list(tmp_path.iterdir()) == []
