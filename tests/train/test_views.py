from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tokenreel.train.batch_config import BatchConfig, Shape
from tokenreel.train.films import Film
from tokenreel.train.views import View, centre_view, random_view

CONFIG = BatchConfig(shape="stacked", batch_size=1, num_frames=5, size=16)


class Numbered(Film):
    """Frame i is filled with the number i; remembers which were asked for."""

    def __init__(self, count: int, fps: float | None = 10.0, size: tuple[int, int] = (32, 40)) -> None:
        self.num_frames, self.fps, self.size = count, fps, size
        self.asked: list[int] = []

    def images(self, start: int, step: float, count: int) -> list[Image.Image]:
        numbers = [start + int(index * step + 0.5) for index in range(count)]
        self.asked = [number for number in numbers if number < self.num_frames]
        return [Image.fromarray(np.full((*self.size, 3), number, np.uint8)) for number in self.asked]


class Ramp(Film):
    """One picture: red is the column, green the row."""

    def __init__(self, height: int, width: int) -> None:
        rows, columns = np.mgrid[:height, :width]
        self.pixels = np.stack([columns, rows, 0 * rows], -1).astype(np.uint8)
        self.num_frames, self.fps = 1, None

    def images(self, start: int, step: float, count: int) -> list[Image.Image]:
        return [Image.fromarray(self.pixels)]


def numbers(view: View, film: Film) -> list[int]:
    frames = view.frames(film)
    assert frames.shape == (view.num_frames, view.height, view.width, 3)
    assert (frames == frames[:, :1, :1, :1]).all()
    return frames[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("count", "options", "want"),
    [
        (20, {}, [0, 1, 2, 3, 4]),
        (20, {"start": 0.999}, [15, 16, 17, 18, 19]),
        (20, {"start": 0.5}, [8, 9, 10, 11, 12]),
        (20, {"stride": 3}, [0, 3, 6, 9, 12]),
        (20, {"stride": 3, "start": 0.999}, [7, 10, 13, 16, 19]),
        (20, {"fps": 4.0}, [0, 3, 5, 8, 10]),
        (20, {"fps": 99.0}, [0, 1, 2, 3, 4]),
        (9, {"stride": 3}, [0, 2, 4, 6, 8]),
        (6, {"stride": 3, "start": 0.9}, [1, 2, 3, 4, 5]),
        (3, {"stride": 2}, [0, 1, 2, 1, 0]),
        (2, {}, [0, 1, 0, 1, 0]),
    ],
)
def test_which_frames_are_seen(count, options, want):
    film = Numbered(count)
    assert numbers(View(num_frames=5, height=8, width=8, **options), film) == want
    assert film.asked == sorted(set(want))  # and no other frame is decoded


def test_every_beginning_is_as_likely():
    view = View(num_frames=5, height=8, width=8)
    starts = [numbers(replace(view, start=share), Numbered(8))[0] for share in np.arange(0, 1, 0.05).tolist()]
    assert np.bincount(starts).tolist() == [5, 5, 5, 5]


def test_a_film_that_ends_early_goes_to_and_fro():
    film = Numbered(10)
    film.images = lambda start, step, count: Numbered(3).images(0, 1.0, count)  # type: ignore[method-assign]
    assert numbers(View(num_frames=5, height=8, width=8), film) == [0, 1, 2, 1, 0]


def test_a_native_crop_is_cut_out_exactly():
    film = Ramp(32, 40)
    view = View(num_frames=1, height=16, width=16, boxes=((0.5, 1.0, 0.5), (1.0, 0.5, 0.5)))
    np.testing.assert_array_equal(view.frames(film)[0], film.pixels[8:24, 24:40])
    np.testing.assert_array_equal(replace(view, is_mirrored=True).frames(film)[0], film.pixels[8:24, 24:40][:, ::-1])
    small = replace(view, boxes=((0.1, 1.0, 0.5), (0.1, 1.0, 0.5)))  # never smaller than the view
    np.testing.assert_array_equal(small.frames(film), view.frames(film))


def test_shrinking_averages_over_what_a_pixel_covers():
    stripes = Numbered(1, size=(32, 32))
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::2] = 200
    stripes.images = lambda *_: [Image.fromarray(pixels)]  # type: ignore[method-assign]
    seen = View(num_frames=1, height=8, width=8).frames(stripes)
    assert np.abs(seen.astype(int) - 100).max() <= 12


def test_the_largest_crop_keeps_the_aspect_and_the_middle():
    film = Ramp(60, 100)
    seen = View(num_frames=1, height=20, width=10).frames(film)[0].astype(float)
    assert np.allclose(seen[..., 0].mean(), 49.5, atol=0.6)
    assert np.allclose(np.diff(seen[0, :, 0]), 3, atol=1)  # 30 of 100 columns to 10
    assert np.allclose(np.diff(seen[:, 0, 1]), 3, atol=1)  # 60 rows to 20


def test_a_camera_moves_over_a_picture_steadily():
    film = Ramp(100, 200)
    view = View(num_frames=9, height=16, width=16, boxes=((0.5, 0.0, 0.0), (0.5, 1.0, 1.0)), moves=True)
    frames = view.frames(film).astype(float)
    middles = frames[:, :, :, :2].mean((1, 2))
    np.testing.assert_allclose(middles[0], [24.5, 24.5], atol=1)
    np.testing.assert_allclose(middles[-1], [174.5, 74.5], atol=1)
    np.testing.assert_allclose(np.diff(middles, axis=0), [[150 / 8, 50 / 8]] * 8, atol=1)
    still = replace(view, moves=False).frames(film)
    assert (still == still[:1]).all()
    assert still.shape == frames.shape
    zoom = replace(view, boxes=((1.0, 0.5, 0.5), (0.5, 0.5, 0.5))).frames(film).astype(float)
    spans = np.ptp(zoom[..., 1], axis=(1, 2))
    assert (np.diff(spans) < 0).all()
    np.testing.assert_allclose([spans[0], spans[-1]], [94, 47], atol=2)


def test_a_view_of_any_picture_is_of_its_size():
    rng = np.random.default_rng(0)
    config = replace(CONFIG, crop_scale=(0.1, 1.0))
    for height, width in ((5, 9), (16, 16), (17, 300), (400, 16), (1, 1)):
        for shape in (Shape(1, 16, 16, None), Shape(3, 24, 8, None)):
            for _ in range(5):
                view = random_view(config, shape, rng)
                assert view.frames(Ramp(height, width)).shape == (*shape[:3], 3)
                assert view.frames(Numbered(4, size=(height, width))).shape == (*shape[:3], 3)


def test_random_views_follow_the_config():
    rng = np.random.default_rng(0)
    shape = Shape(5, 16, 16, None)
    config = replace(CONFIG, stride=(2, 4), crop_scale=(0.3, 0.7), flip=0.25, image_motion=0.75)
    views = [random_view(config, shape, rng) for _ in range(2000)]
    assert {view.stride for view in views} == {2, 3, 4}
    scales = np.array([box[0] for view in views for box in view.boxes])
    assert (scales.min(), scales.max()) == pytest.approx((0.3, 0.7), abs=0.01)
    assert np.mean([view.is_mirrored for view in views]) == pytest.approx(0.25, abs=0.05)
    assert np.mean([view.moves for view in views]) == pytest.approx(0.75, abs=0.05)
    rates = [random_view(replace(CONFIG, fps=(2.0, 8.0)), shape, rng).fps for _ in range(500)]
    assert np.median(rates) == pytest.approx(4.0, rel=0.15)
    assert random_view(config, shape, np.random.default_rng(3)) == random_view(config, shape, np.random.default_rng(3))


def test_the_view_for_validation_is_plain():
    view = centre_view(replace(CONFIG, stride=(2, 4)), Shape(5, 16, 16, None))
    assert numbers(view, Numbered(30)) == [0, 2, 4, 6, 8]
    assert not view.moves
    assert not view.is_mirrored
