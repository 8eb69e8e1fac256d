from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from tokenreel.data import medmnist
from tokenreel.data.labelled_medmnist import FINDING, medmnist_set
from tokenreel.data.labelled_open import open_labelled
from tokenreel.data.medmnist import MEDMNIST, fetch, known_as, medmnist_file
from tokenreel.errors import InputError

COUNTS = {"train": 12, "val": 5, "test": 7}


def official(path: Path, *, shape: tuple[int, ...] = (28, 28), num_classes: int = 2, marks: int = 1) -> dict:
    """An npz in MedMNIST's layout: uint8 images and labels (N, 1), or (N, marks) of 0 and 1."""
    rng = np.random.default_rng(3)
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), np.uint8)
        one = np.arange(count)[:, None] % num_classes
        arrays[f"{split}_labels"] = (one if marks == 1 else rng.integers(0, 2, (count, marks))).astype(np.uint8)
    np.savez_compressed(path, **arrays)
    return arrays


def test_the_table_is_whole() -> None:
    assert len(MEDMNIST) == 18
    assert sum(entry.is_volume for entry in MEDMNIST.values()) == 6
    assert len({entry.md5 for entry in MEDMNIST.values()}) == 18
    for name, entry in MEDMNIST.items():
        assert name == entry.name
        assert re.fullmatch(r"[0-9a-f]{32}", entry.md5)
        assert entry.address == f"https://zenodo.org/records/10519652/files/{name}.npz?download=1"
        assert len(entry.classes) >= 2
        assert len(set(entry.classes)) == len(entry.classes)
        assert (len(entry.classes) == 2) == (entry.task == "binary-class")
    organs = MEDMNIST["organmnist3d"]
    assert (organs.num_channels, len(organs.classes), organs.counts) == (1, 11, (971, 161, 610))
    assert {name for name, entry in MEDMNIST.items() if entry.num_channels == 3} == {
        "pathmnist", "dermamnist", "retinamnist", "bloodmnist"
    }  # fmt: skip


def test_files_are_known_by_their_names() -> None:
    assert known_as("a/OrganMNIST3D.npz") is MEDMNIST["organmnist3d"]
    assert known_as("organmnist3d_64.npz") is MEDMNIST["organmnist3d"]
    assert known_as("organmnist3d_new.npz") is None


@pytest.mark.parametrize(
    ("name", "shape", "frames"),
    [
        ("pneumoniamnist", (28, 28), (1, 28, 28, 1)),
        ("bloodmnist", (28, 28, 3), (1, 28, 28, 3)),
        ("organmnist3d", (28, 28, 28), (28, 28, 28, 1)),
    ],
)
def test_the_official_layout(tmp_path: Path, name: str, shape: tuple[int, ...], frames: tuple[int, ...]) -> None:
    path, entry = tmp_path / f"{name}.npz", MEDMNIST[name]
    arrays = official(path, shape=shape, num_classes=len(entry.classes))
    whole = medmnist_set(path)
    assert (len(whole), whole.heads) == (24, {"label": entry.classes})
    for split, count in COUNTS.items():
        part = whole.part(split)
        assert len(part) == count
        np.testing.assert_array_equal(part.targets(), arrays[f"{split}_labels"][:, 0])
        example = part[count - 1]
        assert (example.key, example.split, example.frames().shape) == (f"{split}/{count - 1}", split, frames)
        np.testing.assert_array_equal(example.frames().squeeze(), arrays[f"{split}_images"][count - 1])
        assert example.label == entry.classes[example.target]
    assert open_labelled(path, split="validation").splits == ("val",) * 5
    folder = tmp_path / "kept"
    folder.mkdir()
    shutil.copy(path, folder)
    assert len(open_labelled(folder)) == 24


def test_findings_are_heads_of_two_classes(tmp_path: Path) -> None:
    arrays = official(tmp_path / "chestmnist.npz", marks=14)
    chest = medmnist_set(tmp_path / "chestmnist.npz")
    assert list(chest.heads) == list(MEDMNIST["chestmnist"].classes)
    assert set(chest.heads.values()) == {FINDING}
    np.testing.assert_array_equal(chest.part("test").targets("hernia"), arrays["test_labels"][:, 13])
    assert chest[2].classes["mass"] == arrays["train_labels"][2, 4]
    with pytest.raises(InputError, match=r"has the heads atelectasis"):
        chest.targets()
    official(tmp_path / "chestmnist_64.npz", marks=3)
    with pytest.raises(InputError, match="needs 14 marks"):
        medmnist_set(tmp_path / "chestmnist_64.npz")


def test_a_file_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    official(tmp_path / "organmnist3d.npz")
    with pytest.raises(InputError, match="has volumes of 1 channels, this file has 1 slices"):
        medmnist_set(tmp_path / "organmnist3d.npz")
    official(tmp_path / "pneumoniamnist.npz", num_classes=3)
    with pytest.raises(InputError, match=r"labels in \[0, 2\), found 2"):
        medmnist_set(tmp_path / "pneumoniamnist.npz")
    official(tmp_path / "mine.npz", num_classes=3)  # another data set in the same layout
    assert medmnist_set(tmp_path / "mine.npz").heads == {"label": ("0", "1", "2")}


class Server:
    """Stands for the network: writes a file, and counts."""

    def __init__(self, source: Path) -> None:
        self.source, self.asked = source, []

    def __call__(self, address: str, path: Path) -> None:
        self.asked.append(address)
        shutil.copy(self.source, path)


def test_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official(tmp_path / "served.npz")
    server, cache = Server(tmp_path / "served.npz"), tmp_path / "cache"
    with pytest.raises(InputError, match=r"has MD5 [0-9a-f]{32}, the official file has 28209eda62fe"):
        medmnist_set("pneumoniamnist", folder=cache, fetch=server)
    assert list(cache.iterdir()) == []  # nothing half-done, nothing foreign
    md5 = hashlib.md5((tmp_path / "served.npz").read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(MEDMNIST, "pneumoniamnist", replace(MEDMNIST["pneumoniamnist"], md5=md5))
    for _ in range(2):
        assert len(medmnist_set("PneumoniaMNIST", folder=cache, fetch=server)) == 24
    assert server.asked == ["https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1"] * 2
    assert [path.name for path in cache.iterdir()] == ["pneumoniamnist.npz"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    kept = medmnist_file("pneumoniamnist", fetch=server)
    assert kept == tmp_path / "home" / "tokenreel" / "medmnist" / "pneumoniamnist.npz"


def test_without_a_connection(tmp_path: Path) -> None:
    def offline(address: str, path: Path) -> None:
        raise URLError("no route to host")

    with pytest.raises(InputError, match=r"cannot be fetched from https://zenodo.org.* give its path"):
        medmnist_file("organmnist3d", folder=tmp_path, fetch=offline)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="neither a file nor a MedMNIST data set; those are pathmnist"):
        medmnist_file("organmnist4d", folder=tmp_path, fetch=offline)
    with pytest.raises(InputError, match="it has no such file"):
        medmnist_file(tmp_path)


def test_fetch_reads_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medmnist, "_BLOCK_BYTES", 7)
    (tmp_path / "from").write_bytes(bytes(range(50)))
    fetch((tmp_path / "from").as_uri(), tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == bytes(range(50))
    with pytest.raises(URLError):
        fetch((tmp_path / "none").as_uri(), tmp_path / "to")


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    official(tmp_path / "pneumoniamnist.npz")
    with pytest.raises(InputError, match="has its own classes"):
        open_labelled(tmp_path / "pneumoniamnist.npz", classes=["a", "b"])


def test_the_real_file(data_dir: Path) -> None:
    folder = data_dir / "pneumoniamnist"
    if not (folder / "pneumoniamnist.npz").exists():
        pytest.skip("no pneumoniamnist")
    chest = open_labelled(folder)
    entry = MEDMNIST["pneumoniamnist"]
    assert tuple(len(chest.part(split)) for split in ("train", "val", "test")) == entry.counts
    assert chest.part("test").counts().tolist() == [234, 390]
    assert chest.part("train").counts().tolist() == [1214, 3494]
    assert chest[0].frames().shape == (1, 28, 28, 1)
