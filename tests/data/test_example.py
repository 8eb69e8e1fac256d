from __future__ import annotations

import pickle

import numpy as np
import pytest

from tokenreel.data.example import Example
from tokenreel.data.payload import ArrayPayload, payload_of, volume_of
from tokenreel.errors import FormatError, InputError, MediaError
from tokenreel.media.frames import Selection


def stack() -> np.ndarray:
    return np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4, 1)


def of_array() -> Example:
    return Example(key="v", source="v", payload=ArrayPayload(stack, "v"))


def test_media_is_read_when_asked_for(make_media):
    path = make_media("a.mp4", count=6)
    example = Example(key="a", source=str(path), payload=payload_of(path))
    assert example.kind == "media"
    assert example.clip().size == (6, 16, 16)
    assert example.clip(Selection(uniform=2), size=(8, 8)).size == (2, 8, 8)
    assert example.array().shape == (6, 16, 16, 3)
    with example.open(Selection(every=3)) as reader:
        assert len(list(reader)) == 2


def test_part_of_a_source_bounds_every_selection(make_media):
    path = make_media("a.mp4", count=10)
    example = Example(key="a", source="a", payload=payload_of(path), start_seconds=0.2, end_seconds=0.7)
    np.testing.assert_allclose(example.clip().pts_seconds, [0.2, 0.3, 0.4, 0.5, 0.6])
    inner = example.clip(Selection(start_seconds=0.1, end_seconds=0.3))
    np.testing.assert_allclose(inner.pts_seconds, [0.3, 0.4])
    beyond = example.clip(Selection(start_seconds=0.3, end_seconds=9.0))
    np.testing.assert_allclose(beyond.pts_seconds, [0.5, 0.6])
    assert example.clip(Selection(uniform=5)).num_frames == 5
    assert example.array().shape[0] == 5
    with pytest.raises(InputError, match="no frame of this example"):
        example.clip(Selection(start_seconds=0.5))


def test_array_slices_and_grey_to_rgb():
    example = of_array()
    np.testing.assert_array_equal(example.array(), stack())
    clip = example.clip()
    assert clip.size == (6, 4, 4)
    np.testing.assert_array_equal(clip.frames_THWC[..., 1], stack()[..., 0])
    np.testing.assert_array_equal(example.clip(Selection(uniform=3)).pts_seconds, [1, 3, 5])
    np.testing.assert_array_equal(example.clip(Selection(every=2, max_frames=2)).pts_seconds, [0, 2])
    np.testing.assert_array_equal(example.clip(Selection(start_seconds=2, end_seconds=4)).pts_seconds, [2, 3])
    assert example.clip(size="8x8").size == (6, 8, 8)


def test_array_has_no_rate_and_a_range_must_meet_it():
    with pytest.raises(InputError, match="slices, not seconds"):
        of_array().clip(Selection(fps=5))
    with pytest.raises(InputError, match="none in the range"):
        of_array().clip(Selection(start_seconds=9))


def test_kinds_say_what_they_cannot_give(make_media, tmp_path):
    path = make_media("a.png")
    with pytest.raises(InputError, match="encode it first"):
        Example(key="a", source="a", payload=payload_of(path)).tokens()
    with pytest.raises(InputError, match="encode it first"):
        of_array().tokens()
    with pytest.raises(InputError, match="cannot be streamed"):
        of_array().open()
    tokens = Example(key="t", source="t", payload=payload_of(tmp_path / "t.tokens"))
    for ask in (tokens.clip, tokens.array):
        with pytest.raises(InputError, match="decode it with its tokenizer"):
            ask()


def test_missing_and_damaged_files_are_named(tmp_path):
    (tmp_path / "bad.npy").write_bytes(b"not numpy")
    (tmp_path / "bad.tokens").write_bytes(b"not tokens")
    with pytest.raises(MediaError, match=r"gone\.mp4"):
        Example(key="g", source="g", payload=payload_of(tmp_path / "gone.mp4")).clip()
    with pytest.raises(FormatError, match=r"bad\.npy"):
        Example(key="b", source="b", payload=payload_of(tmp_path / "bad.npy")).array()
    with pytest.raises(FormatError, match=r"gone\.npy"):
        Example(key="b", source="b", payload=payload_of(tmp_path / "gone.npy")).array()
    with pytest.raises(FormatError, match=r"bad\.tokens"):
        Example(key="b", source="b", payload=payload_of(tmp_path / "bad.tokens")).tokens()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 6), (1, 5, 6, 1)),
        ((5, 6, 3), (1, 5, 6, 3)),
        ((5, 6, 1), (1, 5, 6, 1)),
        ((7, 5, 6), (7, 5, 6, 1)),
        ((7, 5, 6, 3), (7, 5, 6, 3)),
    ],
)
def test_shapes_of_arrays(shape, expected):
    assert volume_of(np.zeros(shape, np.uint8), "x").shape == expected


@pytest.mark.parametrize("array", [np.zeros((4, 4)), np.zeros(4, np.uint8), np.zeros((2, 2, 2, 2, 2), np.uint8)])
def test_wrong_arrays_are_refused(array):
    with pytest.raises(InputError, match="x must"):
        volume_of(array, "x")


def test_npy_file(tmp_path):
    np.save(tmp_path / "v.npy", stack())
    example = Example(key="v", source="v", payload=payload_of(tmp_path / "v.npy"))
    np.testing.assert_array_equal(example.array(), stack())


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (2.0, 2.0), (3.0, 1.0), (float("nan"), None)])
def test_empty_parts_are_refused(start, end):
    with pytest.raises(InputError, match="part from"):
        Example(key="v", source="v", payload=ArrayPayload(stack, "v"), start_seconds=start, end_seconds=end)


def test_facts_hold_what_is_known_and_examples_pickle():
    example = Example(key="v", source="s", payload=ArrayPayload(stack, "v"), label=0, caption="a")
    assert example.facts() == {"source": "s", "label": 0, "caption": "a"}
    again = pickle.loads(pickle.dumps(example))
    np.testing.assert_array_equal(again.array(), stack())
