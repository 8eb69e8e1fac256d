"""Damaged files through ``patchify`` and ``encode``: a clear error or a stated partial result, never anything else.

The files are damaged and read in a process of their own, so that its memory is measured alone.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent / "media"))
from rendered import encode, moving_frames

from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.jobs.encode import encode_file
from tokenreel.jobs.patchify import patchify_file
from tokenreel.media.frames import Selection
from tokenreel.media.read import read

NUM_DAMAGED = 300
MAX_RSS_BYTES = 500_000_000
FFMPEG = shutil.which("ffmpeg")


def render_bases(folder: Path) -> list[Path]:
    """One small clip for each container and codec."""
    frames, small = moving_frames(16), moving_frames(12, 64, 64)
    faststart = {"movflags": "+faststart"}
    bases = [
        encode(folder / "h264.mp4", frames, options={"bf": "2", "g": "8"}, container=faststart),
        encode(folder / "tail.mp4", frames),
        encode(folder / "h265.mp4", small, "libx265", container=faststart),
        encode(folder / "h264.mkv", frames, options={"bf": "2"}),
        encode(folder / "vp9.webm", frames, "libvpx-vp9"),
        encode(folder / "av1.mp4", small, "libsvtav1", container=faststart),
        encode(folder / "h264.ts", frames, options={"bf": "2", "g": "8"}),
        encode(folder / "mpeg4.avi", frames, "mpeg4"),
    ]
    images = [Image.fromarray(frame) for frame in frames]
    for name, options in (("a.gif", {}), ("a.webp", {"lossless": True}), ("a.apng", {"format": "PNG"})):
        images[0].save(folder / name, save_all=True, append_images=images[1:], duration=40, **options)
        bases.append(folder / name)
    for name in ("still.png", "still.jpg"):
        images[0].save(folder / name)
        bases.append(folder / name)
    return bases


def damaged(data: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Cut at every tenth, with bytes flipped, with spans of zeros; the same for the same generator."""
    for tenth in range(1, 10):
        yield f"cut{tenth}", data[: len(data) * tenth // 10]
    for number in range(8):
        spoiled = np.frombuffer(data, np.uint8).copy()
        at = rng.integers(0, len(spoiled), 1 + number * 3)
        spoiled[at] ^= rng.integers(1, 256, len(at), dtype=np.uint8)
        yield f"flip{number}", spoiled.tobytes()
    for number in range(7):
        spoiled = np.frombuffer(data, np.uint8).copy()
        start = int(rng.integers(0, len(spoiled)))
        spoiled[start : start + int(rng.integers(4, 600))] = 0
        yield f"zero{number}", spoiled.tobytes()


def all_damaged(folder: Path) -> Iterator[tuple[Path, Path]]:
    """(sound file, damaged file) in turn; the damaged one is gone when the next comes."""
    rng = np.random.default_rng(7)
    streams = [(base, damaged(base.read_bytes(), rng)) for base in render_bases(folder)]
    made = 0
    while made < NUM_DAMAGED:
        for base, stream in streams:
            if (one := next(stream, None)) is None or made == NUM_DAMAGED:
                continue
            path = folder / f"{base.stem}-{one[0]}{base.suffix}"
            path.write_bytes(one[1])
            yield base, path
            path.unlink()
            made += 1


def gigantic(folder: Path) -> Iterator[Path]:
    """Headers that claim 16,000 x 16,000 pixels and more."""
    frames = moving_frames(3)
    images = [Image.fromarray(frame) for frame in frames]
    side = 16_000
    for name in ("huge.gif", "huge.jpg"):
        images[0].save(folder / name)
    encode(folder / "huge.webm", frames, "libvpx")
    for name, marker, skip, order in (
        ("huge.gif", b"GIF87a", 6, "little"),
        ("huge.jpg", b"\xff\xc0", 5, "big"),
        ("huge.webm", b"\x9d\x01\x2a", 3, "little"),
    ):
        data = bytearray((folder / name).read_bytes())
        at = data.index(marker) + skip
        data[at : at + 4] = side.to_bytes(2, order) * 2
        (folder / name).write_bytes(data)
        yield folder / name


def outcome(path: Path, output: Path, job: Any) -> str:
    """``ok``, ``partial`` or ``error``; anything else that happens comes through."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            job(path, output)
        except InputError as error:
            if not str(error) or "\n" in str(error):
                raise AssertionError(f"not one sentence: {error}") from error
            refused = True
        else:
            refused = False
    if refused:
        assert not list(output.parent.iterdir()), "something was left behind"
        return "error"
    assert all(issubclass(one.category, TokenReelWarning) for one in caught), [str(one.message) for one in caught]
    assert [left.name for left in output.parent.iterdir()] == [output.name], "something was left behind"
    output.unlink()
    return "partial" if caught else "ok"


def patchify_some(path: Path, output: Path) -> None:
    """Chosen frames take another way through the reader: packet times, seeking, frames left out."""
    choice = Selection(uniform=5) if len(path.name) % 2 else Selection(every=3)
    patchify_file(path, output, selection=choice)


JOBS = (("a.safetensors", patchify_file), ("b.tokens", encode_file), ("c.safetensors", patchify_some))


def peak_bytes() -> int:
    """Peak memory of this process alone; ``ru_maxrss`` would hold that of the process that started it, too."""
    kilobytes = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert kilobytes is not None
    return int(kilobytes[1]) * 1024


def main() -> None:
    """Run all jobs on all files; one JSON line with the counts and the peak memory."""
    counts = {"ok": 0, "partial": 0, "error": 0}
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as written:
        for _, path in all_damaged(Path(made)):
            for output, job in JOBS:
                try:
                    counts[outcome(path, Path(written) / output, job)] += 1
                except BaseException:
                    print(f"{job.__name__}({path.name})", file=sys.stderr)
                    raise
        for path in gigantic(Path(made)):
            assert outcome(path, Path(written) / "out.tokens", encode_file) == "error", path.name
    print(json.dumps({**counts, "rss_bytes": peak_bytes()}))


def test_damaged_files_end_in_an_error_or_a_stated_result() -> None:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["ok"] + report["partial"] + report["error"] == len(JOBS) * NUM_DAMAGED
    assert report["partial"] > NUM_DAMAGED // 2
    assert report["rss_bytes"] < MAX_RSS_BYTES


def ffmpeg_frames(path: Path, size: tuple[int, int]) -> np.ndarray:
    """What the command line gives of a file: RGB frames, perhaps none."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v:0", "-vsync", "0"]
    scale = ["-vf", f"scale={size[1]}:{size[0]}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run([*command, *scale], capture_output=True).stdout
    return np.frombuffer(raw[: len(raw) // (size[0] * size[1] * 3) * size[0] * size[1] * 3], np.uint8).reshape(
        -1, *size, 3
    )


def our_frames(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TokenReelWarning)
        try:
            return read(path).frames_THWC
        except InputError:
            return np.zeros((0, 0, 0, 3), np.uint8)


def lost_frames(path: Path, sound: np.ndarray) -> str | None:
    """Where ffmpeg delivers frames before the damage and we do not, in words.

    What comes after the first damaged frame is not compared: newer decoders (dav1d, FFmpeg's hevc and vp9) refuse
    frames that the command line of an older release makes up.
    """
    theirs, ours = ffmpeg_frames(path, sound.shape[1:3]), our_frames(path)
    shared = min(len(theirs), len(sound))
    equal = np.abs(theirs[:shared].astype(int) - sound[:shared]).max(axis=(1, 2, 3), initial=0) <= 2
    before = shared if equal.all() else int(np.argmin(equal))
    if len(ours) < before or (before and np.abs(ours[:before].astype(int) - sound[:before]).max() > 2):
        return f"{path.name}: ffmpeg gives {before} frames before the damage, we have {len(ours)} in all"
    return None


def compared(tmp_path: Path, every: int) -> list[str]:
    sound: dict[Path, np.ndarray] = {}
    lost = []
    for number, (base, path) in enumerate(all_damaged(tmp_path)):
        if base.suffix == ".webp" or base.name.startswith("still") or number % every:
            continue  # ffmpeg 5 reads no animated webp; of a still, part of the picture is no frame
        if base not in sound:
            sound[base] = our_frames(base)
        if text := lost_frames(path, sound[base]):
            lost.append(text)
    return lost


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg on PATH")
def test_frames_before_the_damage_are_delivered(tmp_path: Path) -> None:
    assert compared(tmp_path, every=4) == []


@pytest.mark.slow
@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg on PATH")
def test_frames_before_the_damage_are_delivered_of_all(tmp_path: Path) -> None:
    assert compared(tmp_path, every=1) == []


if __name__ == "__main__":
    main()
