from __future__ import annotations

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.types import Clip, Grid, Tokens, check_patch_size, smallest_unsigned


def tokens(**changes: object) -> Tokens:
    values = {
        "ids_L": np.arange(6),
        "layout": "grid",
        "grid": Grid(t=1, h=2, w=3),
        "size": (1, 32, 48),
        "codebook_size": 300,
        "tokenizer": "x",
        "fingerprint": "f" * 64,
    }
    return Tokens(**(values | changes))  # type: ignore[arg-type]


def test_grid_covers_sizes_that_do_not_divide() -> None:
    assert Grid.of(5, 17, 16, (2, 16, 16)) == Grid(t=3, h=2, w=1)
    with pytest.raises(InputError, match=r"Grid\.t"):
        Grid(t=0, h=1, w=1)


@pytest.mark.parametrize("bad", [(1, 16), (0, 1, 1), "abc", None, (1.5, 16, 16), (1, 16, "x")])
def test_patch_size_is_three_whole_numbers(bad: object) -> None:
    with pytest.raises(InputError, match="patch_size"):
        check_patch_size(bad)


@pytest.mark.parametrize(
    ("size", "name"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_smallest_unsigned(size: int, name: str) -> None:
    assert smallest_unsigned(size) == np.dtype(name)


def test_tokens_narrow_their_ids() -> None:
    assert tokens().ids_L.dtype == np.uint16
    assert tokens(codebook_size=256).ids_L.dtype == np.uint8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids_L": np.array([0, 1, 2, 3, 4, 300])}, "found 300"),
        ({"ids_L": np.array([0, 1, 2, 3, 4, 300], np.uint16)}, "found 300"),
        ({"ids_L": np.array([0, 1, 2, 3, 4, -1])}, "found -1"),
        ({"ids_L": np.zeros((2, 3), np.uint16)}, "1-D"),
        ({"ids_L": np.zeros(6)}, "whole numbers"),
        ({"ids_L": np.arange(5)}, "5 ids"),
        ({"layout": "rows"}, "layout"),
        ({"size": (1, 0, 4)}, "size"),
        ({"pts_seconds": np.zeros(2)}, "times"),
        ({"codebook_size": 0}, "codebook_size"),
    ],
)
def test_tokens_refuse_what_does_not_fit(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tokens(**change)


def test_values_say_what_they_are() -> None:
    clip = Clip(frames_THWC=np.zeros((2, 4, 6, 3), np.uint8), pts_seconds=np.array([0.0, 0.5]), fps=2.0, source="a.mp4")
    assert repr(clip) == "Clip(2 frames 6x4, 2 fps, 0.000..0.500 s, source='a.mp4')"
    assert "6 grid ids of 300, grid 1x2x3" in repr(tokens())
    assert tokens().num_bits == pytest.approx(6 * np.log2(300))
    assert tokens().with_meta(caption="a dog").meta == {"caption": "a dog"}
    with pytest.raises(AttributeError):
        clip.fps = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("frames", "times"),
    [
        (np.zeros((2, 4, 6, 3), np.float32), np.zeros(2)),
        (np.zeros((2, 4, 6, 4), np.uint8), np.zeros(2)),
        (np.zeros((0, 4, 6, 3), np.uint8), np.zeros(0)),
        (np.zeros((2, 4, 6, 3), np.uint8), np.zeros(3)),
        ([[1]], np.zeros(1)),
    ],
)
def test_clip_refuses_what_is_no_clip(frames: object, times: np.ndarray) -> None:
    with pytest.raises(InputError, match="Clip"):
        Clip(frames_THWC=frames, pts_seconds=times)  # type: ignore[arg-type]
