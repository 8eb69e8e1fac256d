from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from rendered import encode, moving_frames

from tokenreel.errors import TokenReelWarning
from tokenreel.media.cutoff import is_cut_off
from tokenreel.media.read import open_media, read
from tokenreel.media.source import open_source

FASTSTART = {"movflags": "+faststart"}
NAMES = ["a.mp4", "f.mp4", "a.mov", "a.mkv", "a.webm", "a.avi", "a.ts", "a.gif", "a.webp", "a.apng"]


def render(path: Path) -> Path:
    frames = moving_frames(16)
    images = [Image.fromarray(frame) for frame in frames]
    if path.suffix in (".gif", ".webp", ".apng"):
        kind = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"}[path.suffix]
        options = {"lossless": True} if kind == "WEBP" else {}
        images[0].save(path, format=kind, save_all=True, append_images=images[1:], duration=40, **options)
        return path
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(path.suffix, "libx264")
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    container = fragments if path.name == "f.mp4" else FASTSTART if path.suffix in (".mp4", ".mov") else None
    return encode(path, frames, codec, options={"g": "4"}, container=container)


@pytest.fixture(scope="module", params=NAMES)
def clip_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("cutoff") / request.param)


def test_a_whole_file_is_not_cut_off(clip_path: Path) -> None:
    assert not is_cut_off(open_source(clip_path))
    assert not is_cut_off(open_source(clip_path.read_bytes()))
    assert len(read(clip_path)) == 16  # and no warning


def test_a_cut_off_file_is_told_anywhere(clip_path: Path) -> None:
    data = clip_path.read_bytes()
    for part in (0.35, 0.6, 0.85, 0.97):
        cut = data[: int(len(data) * part)]
        cut += b"x" if clip_path.suffix == ".ts" and len(cut) % 188 == 0 else b""
        assert is_cut_off(open_source(cut))


@pytest.mark.parametrize("part", [0.7, 0.9])
def test_the_frames_that_are_there_come_with_one_warning(clip_path: Path, part: float) -> None:
    data, whole = clip_path.read_bytes(), read(clip_path).frames_THWC
    cut = data[: int(len(data) * part)]
    with open_media(cut) as reader:
        with pytest.warns(TokenReelWarning, match="damaged|cut off") as caught:
            frames = [frame.pixels_HWC for frame in reader]
        again = sum(1 for _ in reader)  # warns no more
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert 1 <= len(frames) < 17
    assert again == len(frames)
    sound = sum((frame == expected).all() for frame, expected in zip(frames, whole))
    assert sound >= len(frames) - 3
