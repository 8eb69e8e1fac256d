"""Textures: valid, seeded, fast, and with the statistics they promise."""

from __future__ import annotations

import pickle
import time
from itertools import pairwise

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.colours import PALETTES
from tokenreel.render.textures import TEXTURES, Solid, Texture, bricks, noise_field, woven

GRAY = PALETTES["gray"]


def draw(kind: str, seed: int = 0, height: int = 96, width: int = 128, palette=PALETTES["dusk"]) -> np.ndarray:
    return TEXTURES[kind](np.random.default_rng(seed), height, width, palette)


@pytest.mark.parametrize("kind", TEXTURES)
def test_same_seed_same_bytes(kind):
    image = draw(kind)
    assert image.shape == (96, 128, 3)
    assert image.dtype == np.uint8
    assert image.tobytes() == draw(kind).tobytes()
    assert image.tobytes() != draw(kind, seed=1).tobytes()
    assert image.std() > 5, "something is to be seen"


@pytest.mark.parametrize("kind", TEXTURES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 2), (16, 200)])
def test_any_size(kind, size):
    assert draw(kind, 0, *size).shape == (*size, 3)


@pytest.mark.parametrize("kind", TEXTURES)
def test_gray_palette_gives_gray(kind):
    image = draw(kind, palette=GRAY).astype(int)
    assert np.abs(image[..., 0] - image[..., 2]).max() <= 1


@pytest.mark.parametrize("kind", TEXTURES)
def test_one_colour_is_enough(kind):
    assert draw(kind, palette=((90, 80, 70),)).shape == (96, 128, 3)


@pytest.mark.parametrize("kind", TEXTURES)
def test_fast(kind):
    def seconds() -> float:
        start = time.perf_counter()
        draw(kind, 0, 256, 256)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.08, "about 1 to 6 ms alone on its core"


def test_texture_is_a_value():
    texture = Texture(kind="bricks", palette=PALETTES["paper"], seed=3)
    assert texture == pickle.loads(pickle.dumps(texture))
    assert hash(texture) == hash(Texture(kind="bricks", palette=PALETTES["paper"], seed=3))
    np.testing.assert_array_equal(texture.draw(40, 50), draw("bricks", 3, 40, 50, PALETTES["paper"]))


def test_solid():
    assert np.unique(Solid((1, 2, 3)).draw(4, 5).reshape(-1, 3), axis=0).tolist() == [[1, 2, 3]]


def test_unknown_kind():
    with pytest.raises(InputError, match=r"dead_leaves.*'marble'"):
        Texture(kind="marble")


def test_noise_field_range_and_spread():
    field = noise_field(np.random.default_rng(0), 120, 160)
    assert field.shape == (120, 160)
    assert field.dtype == np.float32
    assert 0 <= field.min() < 0.25
    assert 0.75 < field.max() <= 1


@pytest.mark.parametrize("kind", ["fractal_noise", "dead_leaves"])
def test_spectrum_falls_as_in_natural_pictures(kind):
    """Power falls about as 1 / f**2: the slope of log power over log frequency lies between -1.5 and -3."""
    power = np.zeros((256, 256))
    for seed in range(4):
        gray = draw(kind, seed, 256, 256, ((0, 0, 0), (255, 255, 255)))[..., 0].astype(float)
        power += np.abs(np.fft.fft2((gray - gray.mean()) * np.outer(np.hanning(256), np.hanning(256)))) ** 2
    f = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    edges = np.geomspace(0.02, 0.2, 9)
    bands = [power[(f >= low) & (f < high)].mean() for low, high in pairwise(edges)]
    slope = np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(bands), 1)[0]
    assert -3 < slope < -1.5


def test_given_sizes_are_kept():
    def dark_rows(course: float) -> int:
        wall = bricks(np.random.default_rng(0), 200, 200, GRAY, course=course).mean(axis=(1, 2))
        joints = wall < wall.mean() - wall.std()
        return int((np.diff(joints.astype(int)) == 1).sum())

    assert dark_rows(0.05) > 1.5 * dark_rows(0.1) > 0
    assert woven(np.random.default_rng(0), 50, 50, GRAY, thread=0.1).shape == (50, 50, 3)
