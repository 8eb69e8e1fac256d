from __future__ import annotations

import json
import os
import pickle

import pytest

from tokenreel.data.folder import FolderCollection
from tokenreel.errors import FormatError, InputError, TokenReelWarning
from tokenreel.tokens.file import save


def test_nested_mixed_folder_with_a_class_a_folder(make_media, tmp_path):
    make_media("dog/deep/one.mp4", value=10, count=3)
    make_media("cat/two.png", value=20)
    make_media("cat/three.JPG".replace("JPG", "jpg"), value=30)
    make_media("root.gif", value=50, count=2)
    (tmp_path / "README.md").write_text("no example")
    (tmp_path / ".hidden").mkdir()
    make_media(".hidden/x.png")
    folder = FolderCollection(tmp_path)
    assert [example.key for example in folder] == ["cat/three.jpg", "cat/two.png", "dog/deep/one.mp4", "root.gif"]
    assert folder.labels == ["cat", "cat", "dog", None]
    assert folder.label_names == ("cat", "dog")
    assert FolderCollection(tmp_path, label="parent").labels == ["cat", "cat", "deep", None]
    assert FolderCollection(tmp_path, label=r"/(\w+)\.").labels == ["three", "two", "one", None]
    assert FolderCollection(tmp_path, label=None).label_names == ()
    assert folder[2].clip().size == (3, 16, 16)
    assert folder[-1].key == "root.gif"
    assert folder[1].clip().frames_THWC[0, 0, 0, 0] == 20
    assert "4 examples" in folder.describe()
    assert "2 labels (cat, dog)" in folder.describe()
    assert len(pickle.loads(pickle.dumps(folder))) == 4
    with pytest.raises(IndexError, match="4 examples"):
        folder[4]


def test_groups_by_expression(make_media, tmp_path):
    for name in ("run/anna1.png", "run/bert1.png", "walk/anna2.png", "walk/7.png"):
        make_media(name)
    folder = FolderCollection(tmp_path, group=r"/([a-z]+)\d")
    assert folder.groups == ["anna", "bert", None, "anna"]
    assert folder[0].group == "anna"
    assert "2 groups" in folder.describe()
    with pytest.raises(InputError, match="no regular expression"):
        FolderCollection(tmp_path, group="(")
    with pytest.raises(InputError, match="needs one bracket"):
        FolderCollection(tmp_path, group="anna")


def test_sidecars_win_over_lines_and_folders(make_media, tmp_path):
    for name in ("c/a.png", "c/b.png", "c/d.png"):
        make_media(name)
    (tmp_path / "c/a.txt").write_text("\ufeffa red ball\n", encoding="utf-8")
    (tmp_path / "c/b.json").write_text(json.dumps({"text": "a box", "label": 3, "end": 1.5, "who": "me"}))
    lines = [
        {"file_name": "c/a.png", "caption": "from the lines"},
        {"file_name": "c/d.png", "caption": "d", "label": "x"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    a, b, d = FolderCollection(tmp_path)
    assert (a.caption, a.label) == ("a red ball", "c")
    assert (b.caption, b.label, b.end_seconds, b.meta) == ("a box", 3, 1.5, {"who": "me"})
    assert (d.caption, d.label) == ("d", "x")
    assert FolderCollection(tmp_path).label_names == (3, "c", "x")
    assert [example.caption for example in FolderCollection(tmp_path, captions=None)] == [None] * 3


def test_lines_elsewhere_and_lines_that_fit_nothing(make_media, tmp_path):
    make_media("d/a.png")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"path": "./a.png", "text": "one"}\n\n{"path": "b.png", "text": "two"}\n')
    with pytest.warns(TokenReelWarning, match=r"1 of 2 files that are not .* such as b\.png"):
        folder = FolderCollection(tmp_path / "d", captions=lines)
    assert folder[0].caption == "one"
    lines.write_text('{"path": "b.png"}\n')
    with (
        pytest.warns(TokenReelWarning, match="1 of 1"),
        pytest.raises(InputError, match="names no file"),
    ):
        FolderCollection(tmp_path / "d", captions=lines)
    for text, message in [("{", "line 1 is not JSON"), ("[1]", "JSON object"), ('{"x": 1}', "names no file")]:
        lines.write_text(text)
        with pytest.raises(InputError, match=message):
            FolderCollection(tmp_path / "d", captions=lines)


def test_a_broken_sidecar_breaks_its_example_only(make_media, tmp_path):
    make_media("a/1.png")
    make_media("a/2.png")
    (tmp_path / "a/1.json").write_text("{broken")
    folder = FolderCollection(tmp_path)
    with pytest.raises(InputError, match=r"1\.json is not JSON"):
        folder[0]
    assert folder.labels == [None, "a"]
    assert folder[1].label == "a"


def test_token_files_keep_what_they_carry(make_tokens, tmp_path):
    (tmp_path / "k").mkdir()
    save(tmp_path / "k/a.tokens", make_tokens(0, caption="hello", label=4, source="film.mp4", start_seconds=3.0))
    save(tmp_path / "k/b.tokens", make_tokens(8, group="g"))
    folder = FolderCollection(tmp_path)
    a, b = folder
    assert (a.kind, a.caption, a.label, a.start_seconds) == ("tokens", "hello", 4, None)
    assert a.meta == {"origin": "film.mp4", "start_seconds": 3.0}
    assert a.source == str(tmp_path / "k/a.tokens")
    assert (b.label, b.group, b.tokens().ids_L[0]) == ("k", "g", 8)
    (tmp_path / "k/a.tokens").write_bytes(b"damaged")
    with pytest.raises(FormatError, match=r"a\.tokens"):
        folder[0]


def test_empty_missing_and_double_folders(make_media, make_tokens, tmp_path):
    with pytest.raises(InputError, match=r"no pictures, videos or \.tokens files .*it is empty"):
        FolderCollection(tmp_path)
    (tmp_path / "x.pdf").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 \.pdf"):
        FolderCollection(tmp_path)
    with pytest.raises(InputError, match="there is no folder or file"):
        FolderCollection(tmp_path / "gone")
    make_media("a.png")
    save(tmp_path / "a.tokens", make_tokens())
    with pytest.raises(InputError, match=r"both 1 pictures or videos and 1 \.tokens"):
        FolderCollection(tmp_path)
    assert FolderCollection(tmp_path, kind="media")[0].key == "a.png"
    assert FolderCollection(tmp_path, kind="tokens")[0].key == "a.tokens"
    with pytest.raises(InputError, match="kind must be"):
        FolderCollection(tmp_path, kind="books")


def test_one_file_and_its_sidecar(make_media, tmp_path):
    path = make_media("a.png")
    (tmp_path / "a.txt").write_text("alone")
    make_media("b.png")
    (example,) = FolderCollection(path)
    assert (example.key, example.caption, example.label) == ("a.png", "alone", None)


def test_links_are_followed_once(make_media, tmp_path):
    make_media("data/c/a.png")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    make_media("other/o.png")
    (tmp_path / "data/linked").symlink_to(tmp_path / "other")
    assert [example.key for example in FolderCollection(tmp_path / "data")] == ["c/a.png", "linked/o.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_named(make_media, tmp_path):
    make_media("a.png")
    (tmp_path / "shut").mkdir(mode=0)
    with pytest.raises(InputError, match="shut cannot be read"):
        FolderCollection(tmp_path)


def test_real_actions_are_classes_with_performers(data_dir):
    root = data_dir / "actions-weizmann"
    if not root.is_dir():
        pytest.skip("no actions-weizmann")
    folder = FolderCollection(root, group=r"(performer\d+)")
    assert len(folder) == 36
    assert folder.label_names == ("bend", "jack", "wave1", "wave2")
    assert sorted(set(folder.groups)) == [f"performer{number}" for number in range(9)]
    assert folder[0].clip().size[1:] == (64, 64)
