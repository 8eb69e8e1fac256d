"""The sample: seeded, moving, textured, with text that can be read, at any size."""

from __future__ import annotations

import numpy as np
import pytest

from tokenreel.render import sample_clip, sample_image


@pytest.fixture(scope="module")
def clip():
    return sample_clip()


def test_shape_and_times(clip):
    assert clip.size == (60, 180, 320)
    assert clip.fps == 15
    assert clip.pts_seconds[-1] == pytest.approx(59 / 15)


def test_same_seed_same_bytes():
    first, again, other = (sample_clip(4, 90, 160, seed=seed).frames_THWC for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_frames_differ_and_the_clip_loops(clip):
    steps = [np.abs(a.astype(int) - b).mean() for a, b in zip(clip.frames_THWC, np.roll(clip.frames_THWC, -1, axis=0))]
    assert min(steps) > 1
    assert steps[-1] < 2 * np.median(steps), "from the last frame to the first is a step like any other"


def test_full_range_of_light_and_colour(clip):
    frame = clip.frames_THWC[0].astype(int)
    assert frame.min() < 40
    assert frame.max() > 220
    assert (frame.max(axis=-1) - frame.min(axis=-1)).mean() > 20


def test_every_part_of_the_background_has_texture(clip):
    gray = clip.frames_THWC[0].astype(float).mean(axis=-1)
    blocks = gray.reshape(9, 20, 16, 20).std(axis=(1, 3))
    assert (blocks > 1).mean() > 0.97


def test_text_region_is_dark_ink_on_light_ground(clip):
    gray = clip.frames_THWC[0].astype(float).mean(axis=-1)
    sign = gray[48:78, 68:184]
    assert 0.1 < (sign < 110).mean() < 0.45
    assert (sign > 190).mean() > 0.45


def test_the_counter_counts(clip):
    corner = clip.frames_THWC[:, 164:178, 296:312].astype(float).mean(axis=-1)
    assert (corner.max(axis=(1, 2)) > 170).all(), "light letters"


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (64, 64), (120, 60), (48, 300)])
def test_any_size(size):
    assert sample_image(*size).shape == (*size, 3)
    assert sample_clip(2, *size).size == (2, *size)


def test_image_is_rich_and_seeded():
    image = sample_image()
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    assert image.std() > 40
    assert image.tobytes() == sample_image().tobytes() != sample_image(seed=5).tobytes()
