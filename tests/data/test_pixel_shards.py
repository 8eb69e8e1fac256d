from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenreel.data.opening import open_collection
from tokenreel.data.pixel_manifest import ClipEntry, PixelManifest, PixelSpec, examine_pixels
from tokenreel.data.pixel_shards import PixelCollection, PixelReader
from tokenreel.data.pixel_write import PixelWriter, encode_picture
from tokenreel.errors import FormatError, InputError, MediaError, MismatchError
from tokenreel.media.frames import Selection
from tokenreel.media.read import read
from tokenreel.media.write import write
from tokenreel.types import Clip

EXACT = PixelSpec(quality=None)


def noise(count: int, height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def add(writer: PixelWriter, frames: np.ndarray, key: str = "k", fps: float = 10.0, **facts: object) -> None:
    count, height, width, _ = frames.shape
    entry = ClipEntry(key=key, source=f"src/{key}", num_frames=count, height=height, width=width, fps=fps, **facts)
    pictures = [encode_picture(frame, writer.spec) for frame in frames]
    writer.write(entry, pictures, (np.arange(count) / fps).tolist())


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Clips of 40, 1 and 7 frames of noise; clip i has seed i."""
    folder = tmp_path / "packed"
    with PixelWriter(folder, EXACT) as writer:
        for seed, (count, split) in enumerate([(40, "train"), (1, "train"), (7, "val")]):
            facts = {"caption": f"noise {seed}", "label": seed % 2, "group": f"g{seed}", "split": split}
            add(writer, noise(count, seed=seed), f"c{seed}", **facts)
    return folder


def test_every_frame_comes_back_exactly(packed):
    clips = open_collection(packed, split="all")
    assert isinstance(clips, PixelCollection)
    assert [(one.key, one.kind, one.caption, one.label, one.group) for one in clips] == [
        ("c0", "pixels", "noise 0", 0, "g0"),
        ("c1", "pixels", "noise 1", 1, "g1"),
        ("c2", "pixels", "noise 2", 0, "g2"),
    ]
    assert clips[2].meta == {"origin": "src/c2", "split": "val"}
    assert (clips.labels, clips.groups, clips.label_names) == ([0, 1, 0], ["g0", "g1", "g2"], (0, 1))
    for seed, count in enumerate([40, 1, 7]):
        clip = clips[seed].clip()
        np.testing.assert_array_equal(clip.frames_THWC, noise(count, seed=seed))
        np.testing.assert_allclose(clip.pts_seconds, np.arange(count) / 10)
        np.testing.assert_array_equal(clips[seed].array(), clip.frames_THWC)
    assert clips[0].clip().fps == 10.0
    assert clips[0].clip(size=10).size == (40, 10, 15)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(every=3),
        Selection(every=2, max_frames=5, start_seconds=0.35),
        Selection(fps=4.0),
        Selection(fps=25.0, end_seconds=1.0),
        Selection(uniform=7),
        Selection(uniform=60, start_seconds=1.0),
        Selection(start_seconds=0.95, end_seconds=1.55),
    ],
)
def test_a_selection_takes_the_frames_that_it_takes_of_the_video(packed, tmp_path, selection):
    source = Clip(frames_THWC=noise(40), pts_seconds=np.arange(40) / 10, fps=10.0)
    want = read(write(tmp_path / "c0.mkv", source), selection)
    got = open_collection(packed, split="all")[0].clip(selection)
    np.testing.assert_array_equal(got.frames_THWC, want.frames_THWC)
    np.testing.assert_allclose(got.pts_seconds, want.pts_seconds, atol=1e-3)
    assert got.fps == want.fps


def test_only_the_frames_that_are_wanted_are_decoded_and_only_their_groups_read(tmp_path, monkeypatch):
    with PixelWriter(tmp_path / "p", EXACT) as writer:
        add(writer, noise(300, 40, 60))  # 7 kB a frame: two row groups and a bit
    clip = open_collection(tmp_path / "p")[0]
    _, _, file = examine_pixels(tmp_path / "p/shard-00000.parquet")
    assert file.metadata.num_row_groups == 3
    assert max(file.metadata.row_group(group).total_byte_size for group in range(3)) < 1.1 * (1 << 20)
    opened, groups = [], []
    real_open, real_read = Image.open, type(file).read_row_group
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(1) or real_open(*a, **k))
    monkeypatch.setattr(
        type(file), "read_row_group", lambda self, group, **k: groups.append(group) or real_read(self, group, **k)
    )
    got = clip.clip(Selection(start_seconds=20.0, max_frames=17))
    np.testing.assert_array_equal(got.frames_THWC, noise(300, 40, 60)[200:217])
    assert (len(opened), groups) == (17, [1])
    assert len(clip.payload.images([3, 3, 5])) == 3
    assert len(opened) == 19
    with pytest.raises(InputError, match=r"has the frames 0\.\.299"):
        clip.payload.images([300])


def test_no_shard_is_larger_than_allowed_and_all_is_listed(tmp_path):
    limit = 300_000
    with PixelWriter(tmp_path / "p", EXACT, shard_bytes=limit) as writer:
        for seed in range(12):
            add(writer, noise(20 + 9 * seed, seed=seed), str(seed))
        with pytest.raises(InputError, match="allow larger shards"):
            add(writer, noise(200))
    reader = PixelReader(tmp_path / "p")
    sizes = [path.stat().st_size for path in sorted((tmp_path / "p").glob("*.parquet"))]
    assert sizes == [shard.num_bytes for shard in reader.manifest.shards]
    assert len(sizes) > 3
    assert max(sizes) <= limit
    assert sum(sizes) > 0.6 * limit * len(sizes)
    assert (len(reader), reader.manifest.num_frames, reader.verify()) == (12, sum(20 + 9 * s for s in range(12)), [])
    for seed in (11, 0, 5):
        frame = np.asarray(Image.open(_file(reader.pictures(seed, [19])[0])))
        np.testing.assert_array_equal(frame, noise(20 + 9 * seed, seed=seed)[19])


def _file(data: bytes):
    import io

    return io.BytesIO(data)


def test_lossy_pictures_are_near(tmp_path):
    ramp = np.broadcast_to(np.arange(0, 128, 2, dtype=np.uint8)[:, None, None], (2, 64, 64, 3)).copy()
    for codec in ("webp", "jpeg"):
        with PixelWriter(tmp_path / codec, PixelSpec(codec=codec)) as writer:
            add(writer, ramp)
        got = open_collection(tmp_path / codec)[0].array()
        assert np.abs(got.astype(int) - ramp).mean() < 2


def test_splits_groups_and_single_shards(packed):
    with pytest.raises(InputError, match="has the splits train, val: choose one"):
        open_collection(packed)
    assert [one.key for one in open_collection(packed, split="train")] == ["c0", "c1"]
    assert open_collection(packed, split="val").groups == ["g2"]
    with pytest.raises(InputError, match="no clips of split 'test'; it has train, val"):
        open_collection(packed, split="test")
    alone = open_collection(packed / "shard-00000.parquet", split="all")
    np.testing.assert_array_equal(alone[2].array(), noise(7, seed=2))
    with pytest.raises(InputError, match="label='parent' does not go with pixel shards"):
        open_collection(packed, label="parent")
    with pytest.raises(InputError, match="holds no tokens"):
        alone[0].tokens()


def test_readers_pickle(packed):
    example = pickle.loads(pickle.dumps(open_collection(packed, split="all")[2]))
    np.testing.assert_array_equal(example.array(), noise(7, seed=2))


def test_reading_needs_no_video_codec_and_no_torch(packed):
    code = (
        "import sys\nfrom tokenreel.data.opening import open_collection\n"
        f"clip = open_collection({str(packed)!r}, split='all')[0].clip()\n"
        "print(clip.num_frames, 'av' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["40", "False", "False"]


def test_damage_is_named(packed):
    path = packed / "shard-00000.parquet"
    whole = path.read_bytes()
    at = PixelReader(packed).pictures(2, [3])[0]
    path.write_bytes(whole.replace(at, bytes(len(at))))
    assert "has SHA-256" in PixelReader(packed).verify()[0]
    with pytest.raises(MediaError, match="the picture of frame 3 is damaged"):
        open_collection(packed, split="val")[0].clip()
    path.write_bytes(whole[:-100])
    with pytest.raises(FormatError, match="is cut off or was changed"):
        open_collection(packed, split="val")
    with pytest.raises(FormatError, match="cut off or damaged"):
        PixelReader(path)
    path.unlink()
    with pytest.raises(FormatError, match="is missing"):
        PixelReader(packed)


def test_foreign_and_newer_folders_are_refused(packed, tmp_path):
    manifest = packed / "_manifest.json"
    values = json.loads(manifest.read_text())
    assert (values["format"], values["version"], values["num_clips"], values["num_frames"]) == (
        "tokenreel pixels", 1, 3, 48,
    )  # fmt: skip
    manifest.write_text(json.dumps({**values, "version": 2}))
    with pytest.raises(FormatError, match="install a newer tokenreel"):
        open_collection(packed)
    manifest.write_text(json.dumps({**values, "shards": [{"name": "../x"}]}))
    with pytest.raises(FormatError, match="is damaged"):
        open_collection(packed)
    with pytest.raises(InputError, match="there is no folder"):
        PixelReader(tmp_path / "none")


def test_a_writer_goes_on_behind_whole_shards(packed, tmp_path):
    with pytest.raises(InputError, match="it is not empty"), PixelWriter(packed, EXACT):
        pass
    with pytest.raises(MismatchError, match=r"fps 15\.0, not 10\.0"):
        PixelWriter(packed, replace(EXACT, fps=10.0), resume=True).__enter__()
    manifest = PixelManifest.read(packed)
    replace(manifest, shards=()).write(packed)  # killed between the shard's name and the manifest
    (packed / ".shard-00001.x.part.parquet").write_bytes(b"left")
    with PixelWriter(packed, EXACT, resume=True) as writer:
        assert writer.last is not None
        assert writer.last.key == "c2"
        add(writer, noise(2, seed=9), "c3")
    assert sorted(path.name for path in packed.iterdir()) == [
        "_manifest.json", "shard-00000.parquet", "shard-00001.parquet",
    ]  # fmt: skip
    clips = open_collection(packed, split="all")
    assert [one.key for one in clips] == ["c0", "c1", "c2", "c3"]
    np.testing.assert_array_equal(clips[3].array(), noise(2, seed=9))


def test_an_error_leaves_whole_shards_and_says_incomplete(tmp_path):
    with pytest.raises(KeyError), PixelWriter(tmp_path / "p", EXACT) as writer:
        add(writer, noise(3))
        raise KeyError
    assert [path.name for path in sorted((tmp_path / "p").iterdir())] == ["_manifest.json", "shard-00000.parquet"]
    manifest = PixelManifest.read(tmp_path / "p")
    assert (manifest.complete, manifest.num_clips) == (False, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": 0}, "short_side must be at least 1"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"codec": "png"}, "codec must be one of webp, jpeg"),
        ({"codec": "jpeg", "quality": None}, "jpeg cannot be lossless"),
        ({"quality": 101}, r"quality must lie in 0\.\.100"),
        ({"max_seconds": 0}, "max_seconds must be above 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PixelSpec(**options)
