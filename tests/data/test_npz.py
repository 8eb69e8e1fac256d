from __future__ import annotations

import pickle

import numpy as np
import pytest

from tokenreel.data.npz import NpzCollection
from tokenreel.errors import FormatError, InputError

SHAPES = {"grey": (8, 8), "rgb": (8, 8, 3), "volume": (5, 8, 8), "rgb volume": (5, 8, 8, 3)}


def medmnist(path, shape, rng, *, compressed=True, labels=None):
    """A file in MedMNIST's layout; 6 train, 2 val, 3 test images."""
    arrays = {}
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2 if labels is None else labels[:count]
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return arrays


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("name", list(SHAPES))
def test_the_official_layout(tmp_path, rng, name, compressed):
    path = tmp_path / "x.npz"
    arrays = medmnist(path, SHAPES[name], rng, compressed=compressed)
    for split in ("train", "val", "test"):
        images = NpzCollection(path, split=split)
        assert len(images) == len(arrays[f"{split}_images"])
        assert images.labels == arrays[f"{split}_labels"][:, 0].tolist()
        example = images[1]
        num_slices = 5 if "volume" in name else 1
        assert example.array().shape == (num_slices, 8, 8, 3 if "rgb" in name else 1)
        np.testing.assert_array_equal(example.array().squeeze(), arrays[f"{split}_images"][1])
        assert (example.key, example.label, example.kind) == (f"{split}/1", 1, "array")
        assert example.clip().size == (num_slices, 8, 8)
        again = pickle.loads(pickle.dumps(images))
        np.testing.assert_array_equal(again[1].array(), example.array())


def test_uncompressed_arrays_are_mapped(tmp_path, rng):
    medmnist(tmp_path / "x.npz", (8, 8), rng, compressed=False)
    assert isinstance(NpzCollection(tmp_path / "x.npz", split="val")._read_images(), np.memmap)


def test_pickling_leaves_the_images_behind(tmp_path, rng):
    medmnist(tmp_path / "x.npz", (64, 64), rng)
    assert len(pickle.dumps(NpzCollection(tmp_path / "x.npz", split="train"))) < 2000


def test_several_attributes_and_no_labels(tmp_path, rng):
    path = tmp_path / "x.npz"
    medmnist(path, (8, 8), rng, labels=np.eye(6, 4, dtype=np.uint8))
    images = NpzCollection(path, split="train")
    assert images[1].label is None
    assert images[1].meta["labels"] == [0, 1, 0, 0]
    assert images.label_names == ()
    np.savez(path, test_images=np.zeros((2, 8, 8), np.uint8))
    assert NpzCollection(path).labels == [None, None]  # one split need not be said


def test_splits_must_be_said(tmp_path, rng):
    path = tmp_path / "x.npz"
    medmnist(path, (8, 8), rng)
    assert len(NpzCollection(path, split="validation")) == 2
    with pytest.raises(InputError, match="splits train, val, test: choose one"):
        NpzCollection(path)
    with pytest.raises(InputError, match="no split 'all'; it has train, val, test"):
        NpzCollection(path, split="all")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(InputError, match="does not exist"):
        NpzCollection(path)
    path.write_bytes(b"PK nonsense")
    with pytest.raises(FormatError, match="not an npz file"):
        NpzCollection(path)
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(InputError, match=r"not in MedMNIST's layout: .* has weights"):
        NpzCollection(path)
    np.savez(path, train_images=np.zeros((2, 8, 8)))
    with pytest.raises(InputError, match=r"must be uint8 .* got float64 \(2, 8, 8\)"):
        NpzCollection(path)
    np.savez(path, train_images=np.zeros((2, 8, 8), np.uint8), train_labels=np.zeros((3, 1), np.uint8))
    with pytest.raises(InputError, match=r"whole numbers .* for 2 images, got uint8 \(3, 1\)"):
        NpzCollection(path)
    np.savez(path, train_images=np.array([{}, {}]))
    with pytest.raises(FormatError, match="train_images cannot be read"):
        NpzCollection(path)


def test_the_real_file(data_dir):
    path = data_dir / "pneumoniamnist" / "pneumoniamnist.npz"
    if not path.exists():
        pytest.skip("no pneumoniamnist")
    sizes = {split: len(NpzCollection(path, split=split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 4708, "val": 524, "test": 624}
    train = NpzCollection(path, split="train")
    assert train.label_names == (0, 1)
    assert train[0].array().shape == (1, 28, 28, 1)
