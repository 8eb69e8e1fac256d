"""Natural clips: seeded, of any size, with the spectrum of photographs, and moving."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.natural import natural_clip
from tokenreel.render.path import random_path, still_path
from tokenreel.render.plates import PLATES, leaves, natural_colours, smooth


def slope(images: list[np.ndarray]) -> float:
    """The exponent of the mean power spectrum of the luminance between 1/32 and 1/4 cycles a pixel."""
    height, width, _ = images[0].shape
    window = np.hanning(height)[:, None] * np.hanning(width)[None]
    power = np.zeros((height, width))
    for image in images:
        light = image.astype(float) @ [0.299, 0.587, 0.114]
        light -= (light * window).sum() / window.sum()
        power += np.abs(np.fft.fft2(light * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    edges = np.geomspace(1 / 32, 1 / 4, 9)
    rings = [(frequency >= low) & (frequency < high) for low, high in pairwise(edges)]
    points = [(np.log(frequency[ring].mean()), np.log(power[ring].mean())) for ring in rings]
    return float(np.polyfit(*np.transpose(points), 1)[0])


def test_the_measure_of_slopes(rng):
    white = [rng.integers(0, 256, (96, 96, 3)).astype(np.uint8) for _ in range(12)]
    assert slope(white) == pytest.approx(0, abs=0.1)


def test_power_falls_as_in_photographs():
    assert -2.4 < slope([natural_clip(seed, 1, 96, 96).frames_THWC[0] for seed in range(50)]) < -1.8


def test_frames_inside_a_clip_have_the_same_spectrum():
    assert -2.5 < slope([natural_clip(seed, 3, 96, 96).frames_THWC[2] for seed in range(40)]) < -1.7


@pytest.mark.parametrize(("name", "low", "high"), [("leaves", -2.6, -1.8), ("noise", -2.8, -1.8), ("page", -2, -0.8)])
def test_slopes_of_the_plates(name, low, high):
    assert low < slope([PLATES[name](np.random.default_rng(seed), 96, 96) for seed in range(16)]) < high


def test_equal_seeds_give_equal_bytes():
    one, again, other = (natural_clip(seed, 4, 40, 56) for seed in (0, 0, 1))
    assert one.size == (4, 40, 56)
    assert one.fps == 8
    assert one.frames_THWC.tobytes() == again.frames_THWC.tobytes()
    assert one.frames_THWC.tobytes() == natural_clip(np.random.default_rng(0), 4, 40, 56).frames_THWC.tobytes()
    assert one.frames_THWC.tobytes() != other.frames_THWC.tobytes()


@pytest.mark.parametrize("size", [(1, 64, 64), (17, 48, 32), (2, 1, 1), (2, 5, 120), (1, 2, 2)])
def test_any_size(size):
    for seed in range(5):
        assert natural_clip(seed, *size).size == size


def test_consecutive_frames_move_but_not_too_far():
    steps, across = [], []
    for seed in range(40):
        frames = natural_clip(seed, 6, 48, 48).frames_THWC.astype(float)
        steps.append(np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)))
        across.append(np.abs(frames[1:] - frames.mean(axis=(1, 2), keepdims=True)[1:]).mean())
    assert (np.mean(steps, axis=1) > 0).all()
    assert np.median(np.mean(steps, axis=1)) > 4
    assert np.mean(steps) < 0.8 * np.mean(across), "the next frame looks more like this one than like a flat one"


def test_the_plate_covers_all_that_the_camera_sees():
    """Pillow leaves black what lies outside."""
    from tokenreel.render import natural

    for seed in range(30):
        rng = np.random.default_rng(seed)
        place = natural._place(rng, 9, 32, 48, stands=False)
        white = natural.Image.new("RGB", place.picture.size, (200, 200, 200))
        for index in range(9):
            assert (np.asarray(place.seen(white, index, -24, -16, 48, 32)) == 200).all()


@pytest.mark.parametrize("name", PLATES)
def test_plates(name):
    plates = [PLATES[name](np.random.default_rng(seed), 40, 64) for seed in (0, 0, 1)]
    assert plates[0].shape == (40, 64, 3)
    assert plates[0].dtype == np.uint8
    assert plates[0].tobytes() == plates[1].tobytes() != plates[2].tobytes()


def test_leaves_come_in_all_sizes():
    fine, coarse = (leaves(np.random.default_rng(1), 96, 96, count=count).astype(float) for count in (900, 30))
    edges = [np.abs(np.diff(image, axis=1)).mean() for image in (fine, coarse)]
    assert edges[0] > 1.3 * edges[1]
    assert np.abs(np.diff(smooth(np.random.default_rng(1), 96, 96).astype(int), axis=1)).max() < 12


def test_colours_keep_together(rng):
    colours = natural_colours(rng, 500)
    assert colours.shape == (500, 3)
    assert colours.min() >= 0
    assert colours.max() <= 255
    light = colours.mean(axis=1)
    assert light.std() > 30, "light and dark"
    assert (np.ptp(colours, axis=1) / (light + 1)).mean() < 1.2, "mostly dull"


def test_paths(rng):
    path = random_path(rng, 17, unit=1.0)
    assert (path.x[8], path.y[8], path.angle[8]) == (0, 0, 0)
    assert path.scale.min() == pytest.approx(1 / 1.1)
    fast, slow = (random_path(np.random.default_rng(4), 17, unit=unit) for unit in (2.0, 1.0))
    np.testing.assert_allclose(fast.x, 2 * slow.x)
    bends = np.abs(np.diff(path.x, 2)).max()
    assert bends < np.abs(np.diff(path.x)).max(), "smooth"
    assert not still_path(3).x.any()


def test_refusals():
    with pytest.raises(InputError, match="height must be at least 1, got 0"):
        natural_clip(0, 1, 0, 4)
    with pytest.raises(InputError, match="fps must be above 0"):
        natural_clip(0, fps=-1)
