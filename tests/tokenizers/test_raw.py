from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.tokenizers import RawTokenizer, load


def test_ids_are_the_bytes_of_the_patches(rng: np.random.Generator) -> None:
    video = rng.integers(0, 256, (3, 2, 4, 6), dtype=np.uint8)
    (tokens,) = RawTokenizer(patch_size=(1, 2, 2)).encode([video])
    assert tokens.layout == "bytes"
    assert tokens.num_tokens == 2 * 4 * 6 * 3
    first_patch = video[:, 0, :2, :2].transpose(1, 2, 0).reshape(-1)
    np.testing.assert_array_equal(tokens.ids_L[:12], first_patch)


def test_float_and_uint8_give_the_same_tokens(rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (3, 3, 5, 7), dtype=np.uint8)
    floats = torch.from_numpy(frames).float() / 127.5 - 1
    tokenizer = RawTokenizer(patch_size=(2, 4, 4))
    for video in (torch.from_numpy(frames), floats, floats.numpy(), floats.double()):
        np.testing.assert_array_equal(tokenizer.encode([video])[0].ids_L, tokenizer.encode([frames])[0].ids_L)


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(3, 4, 4),
        torch.zeros(1, 2, 4, 4),
        torch.zeros(3, 0, 4, 4),
        torch.full((3, 1, 2, 2), float("nan")),
        "x",
    ],
)
def test_what_is_no_video_is_refused(bad: object) -> None:
    with pytest.raises(InputError, match="video"):
        RawTokenizer().encode([bad])


def test_foreign_tokens_are_refused(rng: np.random.Generator) -> None:
    video = rng.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    (tokens,) = RawTokenizer(patch_size=(1, 4, 4)).encode([video])
    with pytest.raises(MismatchError, match="load the tokenizer that made them"):
        RawTokenizer(patch_size=(1, 8, 8)).decode([tokens])


def test_frames_of_one_stream_have_one_size() -> None:
    stream = RawTokenizer(patch_size=(2, 4, 4)).encoder()
    assert stream.push(np.zeros((3, 1, 8, 8), np.uint8)) == []
    with pytest.raises(MismatchError, match="one size"):
        stream.push(np.zeros((3, 1, 8, 9), np.uint8))


def test_load_by_name_options_and_folder(tmp_path: Path) -> None:
    assert load("raw").config == {"patch_size": [1, 16, 16]}
    made = load("raw:2,8,8")
    assert isinstance(made, RawTokenizer)
    made.save(tmp_path / "t")
    again = load(tmp_path / "t")
    assert again.fingerprint == made.fingerprint != load("raw").fingerprint
    for name, words in (
        ("raww", "video-titok, world-codes, raw"),
        ("raw:1,2", "such as raw:1,16,16"),
        ("raw:a", "such as raw:1,16,16"),
    ):
        with pytest.raises(InputError, match=words):
            load(name)
    (tmp_path / "t" / "config.json").write_text('{"tokenizer": "later"}')
    with pytest.raises(FormatError, match="describe"):
        load(tmp_path / "t")
