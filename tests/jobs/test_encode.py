from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokenreel.errors import InputError, MismatchError
from tokenreel.jobs import encode as job
from tokenreel.jobs.encode import decode_file, encode_file
from tokenreel.media.frames import Selection
from tokenreel.media.read import read
from tokenreel.media.write import write
from tokenreel.samples import SAMPLE_CLIP
from tokenreel.tokenizers import load
from tokenreel.tokens.file import load as load_tokens
from tokenreel.types import Clip


@pytest.mark.parametrize("name", ["raw", "raw:4,16,16"])
def test_a_clip_goes_round_exactly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_CHUNK_BYTES", 500_000)  # many parts
    result = encode_file(
        SAMPLE_CLIP, tmp_path / "a.tokens", tokenizer=name, selection=Selection(max_frames=10), caption="a wall"
    )
    clip = read(SAMPLE_CLIP, Selection(max_frames=10))
    tokens = load_tokens(result.path)
    np.testing.assert_array_equal(tokens.ids_L, load(name).encode([clip.frames_THWC.transpose(3, 0, 1, 2)])[0].ids_L)
    assert tokens.meta["caption"] == "a wall"
    assert (tokens.fps, tokens.size) == (15.0, (10, 180, 320))
    np.testing.assert_array_equal(tokens.pts_seconds, clip.pts_seconds)
    path, frames = decode_file(result.path, tmp_path / "a.mkv")
    again = read(path)
    assert frames == 10
    np.testing.assert_array_equal(again.frames_THWC, clip.frames_THWC)
    np.testing.assert_allclose(again.pts_seconds, clip.pts_seconds, atol=1e-3)


def test_true_times_are_kept(tmp_path: Path) -> None:
    times = np.array([0.0, 0.04, 0.2, 0.25, 1.0])
    frames = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    source = write(tmp_path / "v.mkv", Clip(frames_THWC=frames, pts_seconds=times))
    result = encode_file(source, tmp_path / "a.tokens", tokenizer="raw:2,8,8")
    assert result.header.fps is None
    path, _ = decode_file(result.path, tmp_path / "b.mkv")
    np.testing.assert_allclose(read(path).pts_seconds, times, atol=1e-3)


def test_errors_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.tokens"):
        encode_file(SAMPLE_CLIP, tmp_path / "a.bin")
    with pytest.raises(InputError, match="known names"):
        encode_file(SAMPLE_CLIP, tmp_path / "a.tokens", tokenizer="nothing")
    assert list(tmp_path.iterdir()) == []
    encode_file(SAMPLE_CLIP, tmp_path / "a.tokens", selection=Selection(max_frames=1))
    with pytest.raises(MismatchError, match="load the tokenizer"):
        decode_file(tmp_path / "a.tokens", tmp_path / "b.mp4", tokenizer="raw:1,8,8")
    with pytest.raises(InputError, match="cannot write"):
        decode_file(tmp_path / "a.tokens", tmp_path / "b.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tokens"]
