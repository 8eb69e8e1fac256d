from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rendered import moving_frames

from tokenreel.errors import InputError
from tokenreel.media.pixels import (
    center_crop,
    from_float,
    pad_to_multiple,
    parse_size,
    random_crop,
    resize,
    resized_size,
    to_float,
    to_frames,
    to_video,
)

LEVELS = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
RANGES = {"signed": (-1.0, 1.0), "unit": (0.0, 1.0)}


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_all_levels_come_back_through_numpy(kind: str, dtype: type) -> None:
    values = to_float(LEVELS, range=kind, dtype=dtype)
    assert values.dtype == dtype
    assert (values.min(), values.max()) == RANGES[kind]
    assert np.array_equal(from_float(values, range=kind), LEVELS)


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_all_levels_come_back_through_torch(kind: str, dtype: torch.dtype) -> None:
    video = to_video(LEVELS, range=kind)
    assert video.shape == (3, 1, 16, 16)
    assert video.dtype == torch.float32
    assert video.is_contiguous()
    assert (video.min().item(), video.max().item()) == RANGES[kind]
    assert np.array_equal(to_frames(video.to(dtype), range=kind), LEVELS)


@pytest.mark.parametrize("kind", RANGES)
def test_torch_and_numpy_agree(kind: str) -> None:
    ours = to_video(LEVELS, range=kind).permute(1, 2, 3, 0).numpy()
    assert np.abs(ours - to_float(LEVELS, range=kind)).max() <= 1.2e-7


def test_values_outside_are_clamped_and_rounded() -> None:
    assert from_float(np.array([-5.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [0, 0, 128, 255, 255]
    assert from_float(np.array([0.4, 0.6]) / 255, range="unit").tolist() == [0, 1]
    video = torch.tensor([-5.0, -1.0, 1.0, 9.0]).reshape(1, 1, 2, 2).repeat(3, 1, 1, 1)
    assert to_frames(video)[0, :, :, 0].tolist() == [[0, 0], [255, 255]]


def test_a_wrong_range_is_refused_everywhere() -> None:
    for call in (to_float, to_video):
        with pytest.raises(InputError, match="range must be"):
            call(LEVELS, range="full")
    for call, value in ((from_float, np.zeros(3)), (to_frames, torch.zeros(3, 1, 2, 2))):
        with pytest.raises(InputError, match="range must be"):
            call(value, range="full")
    with pytest.raises(InputError, match="C, T, H, W"):
        to_frames(torch.zeros(3, 2, 2))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 200))
def test_resized_size_keeps_the_aspect(height: int, width: int, short: int) -> None:
    new = resized_size(height, width, short)
    assert min(new) == short
    assert (new[0] >= new[1]) == (height >= width) or min(new) == max(new)
    assert abs(max(new) - max(height, width) * short / min(height, width)) <= 0.5


def test_resize_is_antialiased_and_leaves_equal_sizes_alone() -> None:
    frames = moving_frames(2, 40, 60)
    assert resize(frames, None) is frames
    assert resize(frames, (40, 60)) is frames
    assert resize(frames, 20).shape == (2, 20, 30, 3)
    assert resize(frames, (10, 12)).shape == (2, 10, 12, 3)
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    assert np.abs(resize(stripes, 16).astype(int) - 127).max() < 20  # point sampling would give 0 or 255
    assert (resize(np.full((1, 31, 17, 3), 77, np.uint8), 8) == 77).all()


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_crops_are_windows(height: int, width: int, data: st.DataObject) -> None:
    frames = np.arange(2 * height * width * 3, dtype=np.uint32).reshape(2, height, width, 3).astype(np.uint8)
    h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = (height - h) // 2, (width - w) // 2
    assert np.array_equal(center_crop(frames, h, w), frames[:, top : top + h, left : left + w])
    seed = data.draw(st.integers(0, 99))
    one, two = (random_crop(frames, h, w, rng=np.random.default_rng(seed)) for _ in range(2))
    assert one.shape == (2, h, w, 3)
    assert np.array_equal(one, two)
    assert np.shares_memory(one, frames)


def test_random_crops_reach_every_window() -> None:
    frames = np.arange(4 * 3, dtype=np.uint8).reshape(1, 4, 1, 3)
    rng = np.random.default_rng(0)
    seen = {int(random_crop(frames, 2, 1, rng=rng)[0, 0, 0, 0]) for _ in range(100)}
    assert seen == {0, 3, 6}


def test_a_crop_larger_than_the_frame_is_refused() -> None:
    with pytest.raises(InputError, match="resize first"):
        center_crop(LEVELS, 17, 16)


@given(*(st.integers(1, 7),) * 6)
def test_padding_repeats_the_edge(t: int, h: int, w: int, mt: int, mh: int, mw: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (t, h, w, 3), np.uint8)
    padded = pad_to_multiple(frames, (mt, mh, mw))
    assert [size % step for size, step in zip(padded.shape, (mt, mh, mw))] == [0, 0, 0]
    assert all(size - old < step for size, old, step in zip(padded.shape, (t, h, w), (mt, mh, mw)))
    assert np.array_equal(padded[:t, :h, :w], frames)
    assert np.array_equal(padded[-1, -1, -1], frames[-1, -1, -1])
    if padded.shape == frames.shape:
        assert padded is frames


@pytest.mark.parametrize(
    ("text", "size"), [("256", 256), (64, 64), ("320x180", (180, 320)), (None, None), ((5, 6), (5, 6))]
)
def test_sizes_as_people_write_them(text: object, size: object) -> None:
    assert parse_size(text) == size  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "x", "0", "10x0", "axb", "1x2x3", -4, "1.5", (0, 4), (1, 2, 3)])
def test_sizes_that_mean_nothing(text: object) -> None:
    with pytest.raises(InputError, match="size must be"):
        parse_size(text)  # type: ignore[arg-type]
