from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from tokenreel.data.opening import open_collection
from tokenreel.data.pixel_manifest import PixelSpec
from tokenreel.errors import InputError
from tokenreel.jobs.prepare import prepare_pixels
from tokenreel.media.write import write
from tokenreel.train.films import open_film
from tokenreel.types import Clip, Grid, Tokens


def frames(count: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    clip = Clip(frames_THWC=frames(30), pts_seconds=np.arange(30) / 10, fps=10.0)
    return write(tmp_path / "v" / "a.mkv", clip)


def seen(collection, start, step, count):
    with open_film(collection[0]) as film:
        return film.num_frames, film.fps, np.stack([np.asarray(image) for image in film.images(start, step, count)])


@pytest.mark.parametrize(
    ("start", "step", "count", "want"),
    [
        (0, 1.0, 4, [0, 1, 2, 3]),
        (11, 1.0, 3, [11, 12, 13]),
        (5, 3.0, 4, [5, 8, 11, 14]),
        (2, 2.4, 4, [2, 4, 7, 9]),
        (28, 1.0, 5, [28, 29]),
        (29, 1.0, 1, [29]),
    ],
)
def test_videos_tars_shards_and_arrays_show_the_same_frames(video, tmp_path, start, step, count, want):
    prepare_pixels([video], tmp_path / "packed", spec=PixelSpec(quality=None))
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(video, "k.mkv")
    np.savez(tmp_path / "n.npz", train_images=frames(30)[None])
    for name in ("v", "packed", "t.tar", "n.npz"):
        total, fps, pixels = seen(open_collection(tmp_path / name), start, step, count)
        assert (total, fps) == (30, None if name == "n.npz" else 10.0), name
        np.testing.assert_array_equal(pixels, frames(30)[want], err_msg=name)


def test_the_part_of_an_example_is_a_film_of_its_own(video, tmp_path):
    (tmp_path / "t.csv").write_text("path,start_seconds,end_seconds\nv/a.mkv,1.0,2.0\n")
    total, _, pixels = seen(open_collection(tmp_path / "t.csv"), 0, 1.0, 99)
    assert total == 10
    np.testing.assert_array_equal(pixels, frames(30)[10:20])
    _, _, pixels = seen(open_collection(tmp_path / "t.csv"), 4, 2.0, 2)
    np.testing.assert_array_equal(pixels, frames(30)[[14, 16]])


def test_pictures_and_animations(tmp_path):
    write(tmp_path / "p" / "a.png", Clip(frames_THWC=frames(1), pts_seconds=np.zeros(1)))
    total, _, pixels = seen(open_collection(tmp_path / "p"), 0, 1.0, 9)
    assert (total, len(pixels)) == (1, 1)
    np.testing.assert_array_equal(pixels, frames(1))
    write(tmp_path / "w" / "a.webp", Clip(frames_THWC=frames(6), pts_seconds=np.arange(6) / 10), lossless=True)
    total, _, pixels = seen(open_collection(tmp_path / "w"), 1, 2.0, 9)
    assert total == 6
    np.testing.assert_array_equal(pixels, frames(6)[1::2])


def test_a_header_that_promises_too_much_is_met_from_the_start(video):
    with open_film(open_collection(video)[0]) as film:
        film.num_frames = 99
        pixels = np.stack([np.asarray(image) for image in film.images(80, 1.0, 3)])
    np.testing.assert_array_equal(pixels, frames(30)[:3])


def test_tokens_are_no_film(tmp_path):
    from tokenreel.tokens.file import save

    ids, grid = np.zeros(1, np.uint8), Grid(t=1, h=1, w=1)
    options = {"codebook_size": 2, "tokenizer": "raw", "fingerprint": "f"}
    save(tmp_path / "a.tokens", Tokens(ids_L=ids, layout="grid", grid=grid, size=(1, 4, 4), **options))
    with pytest.raises(InputError, match="holds tokens"), open_film(open_collection(tmp_path / "a.tokens")[0]):
        pass
