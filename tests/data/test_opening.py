from __future__ import annotations

import tarfile

import numpy as np
import pytest

from tokenreel.data.folder import FolderCollection
from tokenreel.data.npz import NpzCollection
from tokenreel.data.opening import open_collection
from tokenreel.data.records import ShardCollection
from tokenreel.data.table import TableCollection
from tokenreel.data.tars import TarCollection
from tokenreel.errors import FormatError, InputError
from tokenreel.media.frames import Selection
from tokenreel.tokens.file import save
from tokenreel.tokens.shards import ShardWriter


@pytest.fixture
def make_tar(make_media, tmp_path):
    def make(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
            tar.add(make_media("tmp/k.png", root=tmp_path.parent), "k.png")
        return path

    return make


def write_shards(path, make_tokens):
    with ShardWriter(path, tokenizer="raw", fingerprint="f" * 16, codebook_size=1000, layout="grid") as writer:
        writer.write(make_tokens())


def test_it_sees_what_is_there(make_media, make_tar, make_tokens, tmp_path):
    make_media("media/a/1.png")
    make_tar("tars/x-0.tar")
    make_tar("tars/x-1.tar")
    write_shards(tmp_path / "shards", make_tokens)
    (tmp_path / "ids").mkdir()
    save(tmp_path / "ids/a.tokens", make_tokens())
    (tmp_path / "t.csv").write_text("path\na.png\n")
    (tmp_path / "t.jsonl").write_text('{"path": "a.png"}\n')
    np.savez(tmp_path / "m.npz", train_images=np.zeros((2, 4, 4), np.uint8))
    for name, kind, count in [
        ("media", FolderCollection, 1),
        ("media/a/1.png", FolderCollection, 1),
        ("ids", FolderCollection, 1),
        ("ids/a.tokens", FolderCollection, 1),
        ("tars", TarCollection, 2),
        ("tars/x-0.tar", TarCollection, 1),
        ("tars/x-*.tar", TarCollection, 2),
        ("tars/x-{0..1}.tar", TarCollection, 2),
        ("shards", ShardCollection, 1),
        ("shards/shard-00000.parquet", ShardCollection, 1),
        ("t.csv", TableCollection, 1),
        ("t.jsonl", TableCollection, 1),
        ("m.npz", NpzCollection, 2),
    ]:
        found = open_collection(tmp_path / name)
        assert (type(found), len(found)) == (kind, count), name
    joined = open_collection([tmp_path / "media", tmp_path / "tars", tmp_path / "m.npz"])
    assert [example.key for example in joined] == ["a/1.png", "x-0/k", "x-1/k", "train/0", "train/1"]
    assert joined.labels == ["a", None, None, None, None]
    assert joined.groups == [None] * 5
    assert joined.label_names == ("a",)


def test_folders_named_for_splits(make_media, tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "Valid/cat/3.png"):
        make_media(name)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="splits Valid, train: choose one with split=, or split='all'"):
        open_collection(tmp_path)
    assert open_collection(tmp_path, split="train").labels == ["cat", "dog"]
    assert open_collection(tmp_path, split="val")[0].key == "cat/3.png"
    assert len(open_collection(tmp_path, split="all")) == 3
    with pytest.raises(InputError, match="no folder for split 'test'; it has Valid, train"):
        open_collection(tmp_path, split="test")
    assert open_collection(tmp_path / "train", split="cat").labels == [None]
    assert len(open_collection(tmp_path / "train", split="all")) == 2


def test_a_pattern_counts_with_its_zeros(make_tar, tmp_path):
    for name in ("s-008.tar", "s-009.tar", "s-010.tar"):
        make_tar(name)
    tars = open_collection(f"{tmp_path}/s-{{008..010}}.tar")
    assert [example.key for example in tars] == ["s-008/k", "s-009/k", "s-010/k"]
    with pytest.raises(FormatError, match=r"s-011\.tar cannot be read"):
        open_collection(f"{tmp_path}/s-{{010..011}}.tar")
    with pytest.raises(InputError, match="no file matches"):
        open_collection(f"{tmp_path}/q-*.tar")
    with pytest.raises(InputError, match="which is no tar"):
        open_collection(f"{tmp_path.parent}/tmp/*.png")


def test_compressed_tars_are_refused_in_folders_too(make_tar, tmp_path):
    make_tar("z/x.tar.gz")
    for path in (tmp_path / "z", tmp_path / "z/x.tar.gz"):
        with pytest.raises(FormatError, match="compressed with gzip"):
            open_collection(path)


def test_unknown_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_collection(tmp_path / "gone")
    (tmp_path / "x.pdf").write_bytes(b"")
    with pytest.raises(InputError, match="of no kind that examples are read from"):
        open_collection(tmp_path / "x.pdf")
    with pytest.raises(InputError, match="is it the right folder"):
        open_collection(tmp_path)
    with pytest.raises(InputError, match="at least one collection"):
        open_collection([])


def test_options_that_do_not_fit_are_refused(make_media, make_tar, tmp_path):
    make_media("m/1.png")
    make_tar("x.tar")
    (tmp_path / "t.csv").write_text("path\na.png\n")
    for name, options, message in [
        ("m", {"columns": {"path": "x"}}, "columns=.* does not go with a folder"),
        ("x.tar", {"label": "parent"}, "label='parent' does not go with tars"),
        ("x.tar", {"split": "train"}, "has no splits"),
        ("t.csv", {"captions": None}, "captions=None does not go with a table"),
    ]:
        with pytest.raises(InputError, match=message):
            open_collection(tmp_path / name, **options)


def test_drawn_scenes_open_where_a_folder_would(tmp_path, monkeypatch):
    scenes = open_collection("rendered:3,5,16,24")
    assert len(scenes) == 3
    example = scenes[1]
    assert example.caption
    assert example.clip(Selection()).frames_THWC.shape == (5, 16, 24, 3)
    assert len(open_collection(["rendered:3", "rendered:2"], split="all")) == 5
    with pytest.raises(InputError, match="no splits"):
        open_collection("rendered:3", split="val")
    with pytest.raises(InputError, match="rendered:COUNT"):
        open_collection("rendered:few")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rendered:3").mkdir()
    with pytest.raises(InputError, match="no "):
        open_collection("rendered:3")
