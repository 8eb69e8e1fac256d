from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenreel.errors import InputError, MismatchError
from tokenreel.jobs import encode as job
from tokenreel.jobs.encode import decode_file, encode_file, stacks
from tokenreel.jobs.inspect import inspect_file, sheet_of
from tokenreel.jobs.tokenizers import init_tokenizer, list_tokenizers
from tokenreel.media.frames import Selection
from tokenreel.media.pixels import to_video
from tokenreel.media.read import Frame, read
from tokenreel.media.write import write
from tokenreel.samples import SAMPLE_CLIP
from tokenreel.tokenizers import load, untrained
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


@pytest.mark.parametrize("num_frames", [1, 5, 40, 400])
def test_what_is_handed_over_at_once_does_not_grow_with_the_clip(num_frames: int) -> None:
    frame = Frame(np.zeros((256, 256, 3), np.uint8), 0.0)
    times: list[float] = []
    sizes = [len(part) for part in stacks(iter([frame] * num_frames), 4, times)]
    assert sum(sizes) == len(times) == num_frames
    assert all(size % 4 == 0 for size in sizes[:-1])
    assert max(sizes) * frame.pixels_HWC.nbytes < 5 << 20


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


@pytest.mark.parametrize("name", ["cvivit:tiny", "titok:tiny", "titok_video:tiny"])
def test_learned_tokenizers_go_round_by_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written untrained, found again by the token file itself, wherever the commands are run from."""
    init_tokenizer(name, tmp_path / "model", seed=1)
    monkeypatch.chdir(tmp_path)
    result = encode_file(
        SAMPLE_CLIP, tmp_path / "a.tokens", tokenizer="model", selection=Selection(max_frames=6), size=(60, 40)
    )
    tokens = load_tokens(result.path)
    (expected,) = load("model").encode(
        [to_video(read(SAMPLE_CLIP, Selection(max_frames=6), size=(60, 40)).frames_THWC)]
    )
    np.testing.assert_array_equal(tokens.ids_L, expected.ids_L)
    assert tokens.meta["tokenizer_source"] == "model"
    monkeypatch.chdir("/")  # the folder stands beside the token file
    path, frames = decode_file(result.path, tmp_path / "a.mkv")
    assert (frames, read(path).size) == (6, (6, 60, 40))
    (tmp_path / "model").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="name it with --tokenizer"):
        decode_file(result.path, tmp_path / "b.mkv")
    assert decode_file(result.path, tmp_path / "b.mkv", tokenizer=str(tmp_path / "moved"))[1] == 6
    with pytest.raises(InputError, match="name it with --tokenizer"):
        sheet_of(result.path, tmp_path / "a.png")
    assert sheet_of(result.path, tmp_path / "a.png", tokenizer=str(tmp_path / "moved")).is_file()
    facts = inspect_file(tmp_path / "moved")
    assert (facts["kind"], facts["fingerprint"]) == ("tokenizer", tokens.fingerprint)
    with pytest.raises(InputError, match="holds no frames"):
        sheet_of(tmp_path / "moved", tmp_path / "b.png")
    with pytest.raises(InputError, match="takes no --tokenizer"):
        sheet_of(SAMPLE_CLIP, tmp_path / "b.png", tokenizer=str(tmp_path / "moved"))
    init_tokenizer(name, tmp_path / "model", seed=2)
    with pytest.raises(MismatchError, match="load the tokenizer that made them"):
        decode_file(result.path, tmp_path / "c.mkv")
    assert not (tmp_path / "c.mkv").exists()


def test_token_counts_are_for_those_that_have_them(tmp_path: Path) -> None:
    init_tokenizer("titok:tiny", tmp_path / "model")
    options: dict[str, Any] = {"selection": Selection(max_frames=3), "size": (48, 32)}
    path = tmp_path / "a.tokens"
    result = encode_file(SAMPLE_CLIP, path, tokenizer=str(tmp_path / "model"), token_count=5, **options)
    assert result.num_tokens == 15
    with pytest.raises(InputError, match="does not leave the choice"):
        encode_file(SAMPLE_CLIP, tmp_path / "b.tokens", token_count=5, **options)


def test_the_list_of_tokenizers_counts_what_encode_gives() -> None:
    rows = {f"{row['family']}:{row['size']}": row for row in list_tokenizers()}
    assert rows["raw:"]["bits_per_pixel"] == 24
    video = np.zeros((3, 15, 256, 256), np.uint8)
    (tokens,) = untrained("titok:tiny").encode([video])
    row = rows["titok:tiny"]
    assert row["tokens_per_second"] == tokens.num_tokens
    assert row["bits_per_second"] == round(tokens.num_bits)
    assert row["compression_ratio"] == pytest.approx(tokens.compression_ratio, abs=0.1)
    assert row["parameters"] == untrained("titok:tiny").num_parameters


def test_a_folder_in_use_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init_tokenizer("cvivit", tmp_path / "model")
    with pytest.raises(InputError, match="not an empty folder"):
        init_tokenizer("cvivit", tmp_path / "model")
    with pytest.raises(InputError, match="no learned tokenizer family"):
        init_tokenizer("vqgan", tmp_path / "other")
    with pytest.raises(InputError, match="no folder of that name"):
        load(tmp_path / "modle")
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(InputError, match="there is no file"):  # no network is asked
        load(f"{tmp_path.name}/modle")
    with pytest.raises(InputError, match="tokenizers init cvivit:tiny"):
        load("cvivit:tiny")
