from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from tokenreel.cli.prepare import prepare
from tokenreel.data.opening import open_collection
from tokenreel.data.pixel_manifest import PixelManifest, PixelSpec
from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.jobs import prepare as job
from tokenreel.jobs.prepare import prepare_pixels
from tokenreel.media.frames import Selection
from tokenreel.media.pixels import resize
from tokenreel.media.read import read
from tokenreel.media.write import write
from tokenreel.render import caption, draw_scene, labels, render_clip
from tokenreel.types import Clip

EXACT = PixelSpec(quality=None)


def video(path: Path, count: int, *, height: int = 24, width: int = 36, fps: float = 10.0, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return write(path, Clip(frames_THWC=pixels, pts_seconds=np.arange(count) / fps, fps=fps))


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Two splits; a class a folder; a caption; a picture."""
    folder = tmp_path / "media"
    for index, name in enumerate(["train/a/one.mkv", "train/b/two.mkv", "val/a/three.mkv"]):
        video(folder / name, 5 + index, seed=index)
    (folder / "train/a/one.txt").write_text("first of all")
    Image.fromarray(np.full((30, 20, 3), 77, np.uint8)).save(folder / "train/b/still.png")
    return folder


def test_all_frames_and_facts_are_kept(media, tmp_path):
    result = prepare_pixels([media], tmp_path / "out", spec=EXACT)
    assert (result.clips, result.frames, result.shards, result.skipped) == (4, 5 + 6 + 1 + 7, 1, ())
    clips = open_collection(tmp_path / "out", split="all")
    assert [(one.key, one.label, one.caption, one.meta["split"]) for one in clips] == [
        ("a/one.mkv", "a", "first of all", "train"),
        ("b/still.png", "b", None, "train"),
        ("b/two.mkv", "b", None, "train"),
        ("a/three.mkv", "a", None, "val"),
    ]
    for one in clips:
        want = read(one.meta["origin"])
        got = one.clip()
        np.testing.assert_array_equal(got.frames_THWC, want.frames_THWC)
        np.testing.assert_allclose(got.pts_seconds, want.pts_seconds)
    manifest = PixelManifest.read(tmp_path / "out")
    (source,) = manifest.sources
    assert manifest.complete
    assert {name: source[name] for name in ("path", "examples", "clips", "frames", "captions", "labels", "splits")} == {
        "path": str(media), "examples": 4, "clips": 4, "frames": 19, "captions": 1, "labels": 2,
        "splits": {"train": 3, "val": 1},
    }  # fmt: skip


def test_frames_are_shrunk_and_thinned_never_enlarged_or_repeated(tmp_path):
    fast = video(tmp_path / "in/fast.mkv", 30, height=48, width=64, fps=30.0)
    slow = video(tmp_path / "in/slow.mkv", 6, height=12, width=16, fps=5.0, seed=1)
    prepare_pixels([tmp_path / "in"], tmp_path / "out", spec=PixelSpec(short_side=24, fps=10.0, quality=None))
    shrunk, kept = open_collection(tmp_path / "out")
    np.testing.assert_array_equal(shrunk.array(), resize(read(fast).frames_THWC[::3], 24))
    np.testing.assert_allclose(shrunk.clip().pts_seconds, np.arange(10) / 10)
    assert shrunk.clip().fps == 10.0
    np.testing.assert_array_equal(kept.array(), read(slow).frames_THWC)
    assert kept.clip().fps == 5.0


def test_long_clips_become_pieces_of_one_group(tmp_path):
    path = video(tmp_path / "long.mkv", 25)
    prepare_pixels([path], tmp_path / "out", spec=PixelSpec(quality=None, max_seconds=1.0))
    pieces = open_collection(tmp_path / "out")
    assert [(one.key, one.group, len(one.array())) for one in pieces] == [
        ("long.mkv", "long.mkv", 10), ("long.mkv#1", "long.mkv", 10), ("long.mkv#2", "long.mkv", 5),
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([one.array() for one in pieces]), read(path).frames_THWC)
    np.testing.assert_allclose(pieces[1].clip().pts_seconds, np.arange(10) / 10)
    assert [one.meta.get("start_seconds") for one in pieces] == [None, 1.0, 2.0]
    np.testing.assert_array_equal(pieces[1].clip(Selection(fps=5.0)).frames_THWC, read(path).frames_THWC[10:20:2])


def test_a_clip_larger_than_a_shard_is_cut_where_it_is_full(tmp_path):
    path = video(tmp_path / "long.mkv", 60)
    result = prepare_pixels([path], tmp_path / "out", spec=EXACT, shard_bytes=80_000)
    assert result.shards > 2
    assert max(file.stat().st_size for file in (tmp_path / "out").glob("*.parquet")) <= 80_000
    pieces = open_collection(tmp_path / "out")
    np.testing.assert_array_equal(np.concatenate([one.array() for one in pieces]), read(path).frames_THWC)


def test_broken_files_are_skipped_named_and_counted(media, tmp_path):
    (media / "train/b/broken.mp4").write_bytes(b"nothing")
    with pytest.warns(TokenReelWarning, match=r"skipped: .*broken\.mp4"):
        result = prepare_pixels([media], tmp_path / "out", spec=EXACT)
    assert result.clips == 4
    assert [Path(source).name for source, _ in result.skipped] == ["broken.mp4"]
    assert "broken.mp4" in PixelManifest.read(tmp_path / "out").skipped[0]["source"]
    with pytest.warns(TokenReelWarning), pytest.raises(InputError, match="none of the 1 examples"):
        prepare_pixels([media / "train/b/broken.mp4"], tmp_path / "none")


@pytest.mark.parametrize("stop", [(1, 4), (2, 30), (2, 55)])
def test_an_interrupted_run_goes_on_to_the_same_clips(tmp_path, monkeypatch, stop):
    for index, count in enumerate((9, 12, 60)):
        video(tmp_path / f"in/{index}.mkv", count, seed=index)
    options = {"spec": EXACT, "shard_bytes": 80_000, "num_threads": 2}
    whole = prepare_pixels([tmp_path / "in"], tmp_path / "whole", **options)
    frames = job._frames

    def stopping(example, spec):
        for number, frame in enumerate(frames(example, spec)):
            if (int(example.key[0]), number) == stop:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(job, "_frames", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare_pixels([tmp_path / "in"], tmp_path / "parts", **options)
    monkeypatch.setattr(job, "_frames", frames)
    assert not PixelManifest.read(tmp_path / "parts").complete
    with pytest.raises(InputError, match="not empty"):
        prepare_pixels([tmp_path / "in"], tmp_path / "parts", **options)
    for _ in range(2):  # the second time there is nothing to do
        parts = prepare_pixels([tmp_path / "in"], tmp_path / "parts", resume=True, **options)
        assert (parts.clips, parts.frames) == (whole.clips, whole.frames)
    both = [open_collection(tmp_path / name) for name in ("whole", "parts")]
    for one, other in zip(*both, strict=True):
        assert (one.key, one.group) == (other.key, other.group)
        np.testing.assert_array_equal(one.array(), other.array())
    with pytest.raises(MismatchError, match="with other sources"):
        prepare_pixels([tmp_path / "in/1.mkv"], tmp_path / "parts", resume=True, **options)


def test_arrays_and_packed_clips_are_packed_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "m.npz", train_images=images, train_labels=np.arange(3))
    prepare_pixels([tmp_path / "m.npz"], tmp_path / "once", spec=EXACT)
    prepare_pixels([tmp_path / "once"], tmp_path / "twice", spec=EXACT)
    clips = open_collection(tmp_path / "twice")
    assert clips.labels == [0, 1, 2]
    np.testing.assert_array_equal(np.stack([one.array()[0, :, :, 1] for one in clips]), images)


def test_the_command_says_what_it_did(media, tmp_path):
    app = typer.Typer()
    app.command()(prepare)
    words = [str(media), "-o", str(tmp_path / "out"), "--lossless", "--short-side", "16", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert (values["clips"], values["frames"], values["skipped"]) == (4, 19, [])
    assert values["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.parquet"))
    assert PixelManifest.read(tmp_path / "out").spec == PixelSpec(short_side=16, quality=None)
    done = CliRunner().invoke(app, [str(media), "-o", str(tmp_path / "more"), "--fps", "0"])
    assert "4 clips, 19 frames in 1 shards" in done.stdout


def test_rendered_scenes_have_captions_and_attributes(tmp_path):
    result = prepare_pixels(["rendered:3,5,16,24"], tmp_path / "out", spec=EXACT)
    assert (result.clips, result.frames) == (3, 15)
    for number, one in enumerate(open_collection(tmp_path / "out")):
        scene = draw_scene(number)
        assert one.caption == caption(scene, number)
        assert {name: one.meta[name] for name in labels(scene)} == labels(scene)
        clip = one.clip()
        assert clip.fps == 8.0
        np.testing.assert_array_equal(clip.frames_THWC, render_clip(scene, 5, 16, 24).frames_THWC)
    for wrong in ("rendered", "rendered:", "rendered:0", "rendered:2,3,4,5,6", "rendered:many"):
        with pytest.raises(InputError, match="rendered:COUNT,FRAMES,HEIGHT,WIDTH"):
            prepare_pixels([wrong], tmp_path / "more")


def test_the_page_on_preparing_data_runs(capsys):
    page = (Path(__file__).parents[2] / "docs/prepare.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), "docs/prepare.md", "exec"), {})
    assert "Batch(0: 3x" in capsys.readouterr().out
