from __future__ import annotations

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenreel.data.tar_index import members, read_at
from tokenreel.data.tars import TarCollection
from tokenreel.errors import FormatError, InputError, MediaError, TokenReelWarning


def pack(path, files, *, form=tarfile.PAX_FORMAT, mode="w"):
    with tarfile.open(path, mode, format=form) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def png(make_media):
    return make_media("one.png", value=77).read_bytes()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_keys_and_suffixes_make_examples(tmp_path, make_media, png):
    video = make_media("v.mp4", count=5).read_bytes()
    gif = make_media("v.gif", count=3).read_bytes()
    path = pack(
        tmp_path / "shard-000.tar",
        {
            "./a/k1.png": png,
            "./a/k1.txt": b"a caption\n",
            "./a/k1.cls": b"3",
            "k2.mp4": video,
            "k2.json": json.dumps({"caption": "j", "label": "dog", "group": "g", "start": 0.1, "x": 1}).encode(),
            "k2.caption": b"wins",
            "k3.cls": b"cat",
            "k3.anim.GIF": gif,
            "k4.npy": npy(np.full((2, 4, 4), 9, np.uint8)),
            "k4.txt": b"",
        },
    )
    first, second, third, fourth = tar = TarCollection([path])
    assert [example.key for example in tar] == [f"shard-000/{key}" for key in ("a/k1", "k2", "k3", "k4")]
    assert (first.caption, first.label, first.clip().frames_THWC[0, 0, 0, 0]) == ("a caption", 3, 77)
    assert first.source == f"{path}:a/k1.png"
    assert (second.caption, second.label, second.group, second.meta) == ("wins", "dog", "g", {"x": 1})
    assert second.clip().num_frames == 4
    assert (third.label, third.clip().num_frames) == ("cat", 3)
    assert fourth.array().shape == (2, 4, 4, 1)
    assert tar.labels == [3, "dog", "cat", None]
    again = pickle.loads(pickle.dumps(tar))
    assert pickle.loads(pickle.dumps(again[0])).clip().size == (1, 16, 16)


def test_several_tars_and_groups(tmp_path, png):
    paths = [pack(tmp_path / f"{name}.tar", {f"k{i}.png": png for i in range(3)}) for name in ("x", "y")]
    tar = TarCollection(paths, group=r"^(\w)/")
    assert len(tar) == 6
    assert tar.groups == ["x"] * 3 + ["y"] * 3
    assert tar[5].key == "y/k2"


@settings(max_examples=40, deadline=None)
@given(
    files=st.dictionaries(
        st.text("abcdefg/äé.", min_size=1, max_size=300).map(lambda text: f"r/{text}x.png"),
        st.binary(max_size=1500),
        max_size=6,
    ),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_the_index_is_what_tarfile_finds(tmp_path_factory, files, form):
    path = pack(tmp_path_factory.mktemp("t") / "x.tar", files, form=form)
    found, problem = members(path)
    assert problem is None
    with tarfile.open(path) as tar:
        assert [(m.name, m.offset, m.size) for m in found] == [(m.name, m.offset_data, m.size) for m in tar]
    assert [read_at(path, m.offset, m.size) for m in found] == list(files.values())


def test_folders_links_and_ustar_prefixes_are_passed_over(tmp_path, png):
    path = tmp_path / "x.tar"
    deep = "d" * 90 + "/" + "e" * 60 + ".png"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "k.png"
        tar.addfile(link)
        info = tarfile.TarInfo(deep)
        info.size = len(png)
        tar.addfile(info, io.BytesIO(png))
    found, problem = members(path)
    assert problem is None
    assert [member.name for member in found] == [deep]


@pytest.mark.parametrize(("mode", "method"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_compressed_tars_are_refused(tmp_path, png, mode, method):
    path = pack(tmp_path / "x.tar.z", {"k.png": png}, mode=mode)
    with pytest.raises(FormatError, match=f"compressed with {method}.*unpack it"):
        TarCollection([path])


def test_no_tar_at_all(tmp_path):
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        TarCollection([tmp_path / "gone.tar"])
    path = tmp_path / "x.tar"
    path.write_bytes(b"text " * 300)
    with pytest.raises(FormatError, match="not a tar file"):
        TarCollection([path])
    with pytest.raises(InputError, match="at least one tar"):
        TarCollection([])
    pack(path, {})
    with pytest.raises(InputError, match="none of its 0 keys"):
        TarCollection([path])


def test_a_cut_off_tar_gives_what_is_whole(tmp_path, png):
    big = png + bytes(3000)
    path = pack(tmp_path / "x.tar", {"a.png": png, "b.png": big})
    path.write_bytes(path.read_bytes()[: 512 + -(-len(png) // 512) * 512 + 512 + 700])
    with pytest.warns(TokenReelWarning, match=r"cut off inside b\.png"):
        tar = TarCollection([path])
    assert tar[0].clip().num_frames == 1
    with pytest.raises(FormatError, match="is cut off"):
        tar[1].clip()


def test_damage_in_the_middle_and_broken_members(tmp_path, png):
    path = pack(tmp_path / "x.tar", {"a.png": png, "b.png": b"no picture", "c.png": png})
    with tarfile.open(path) as tar:
        offset = tar.getmember("c.png").offset
    content = bytearray(path.read_bytes())
    content[offset + 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.warns(TokenReelWarning, match=f"damaged at byte {offset}; the 2 files before it"):
        tar = TarCollection([path])
    with pytest.raises(MediaError, match=r"x\.tar:b\.png"):
        tar[1].clip()


def test_keys_without_pixels_are_counted(tmp_path, png):
    path = pack(tmp_path / "x.tar", {"a.png": png, "b.txt": b"alone", "README": b"", ".hidden.png": png})
    with pytest.warns(TokenReelWarning, match="1 of 2 keys have no picture, video or npy .* 'b'"):
        tar = TarCollection([path])
    assert (len(tar), tar.num_without_pixels) == (1, 1)


def test_a_broken_json_breaks_its_example_only(tmp_path, png):
    path = pack(tmp_path / "x.tar", {"a.png": png, "a.json": b"{", "b.png": png, "b.txt": b"\xff"})
    tar = TarCollection([path])
    with pytest.raises(InputError, match=r"x\.tar:a\.json is not JSON"):
        tar[0]
    with pytest.raises(InputError, match=r"x\.tar:b\.txt is not UTF-8"):
        tar[1]
    assert tar.labels == [None, None]
