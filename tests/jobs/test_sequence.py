from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.jobs.check import check_file
from tokenreel.jobs.patchify import patchify_file, restore_file
from tokenreel.jobs.sequence import PatchSequence, SequenceConfig
from tokenreel.media.frames import Selection
from tokenreel.media.read import read
from tokenreel.media.write import write
from tokenreel.patches.embed import TubeletEmbed
from tokenreel.patches.patchify import patchify
from tokenreel.patches.positions import index_positions, sincos_3d
from tokenreel.samples import SAMPLE_CLIP, SAMPLE_IMAGE
from tokenreel.types import Clip


def test_the_file_holds_what_patchify_gives(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    result = patchify_file(SAMPLE_CLIP, path, selection=Selection(every=10))
    clip = read(SAMPLE_CLIP, Selection(every=10))
    loaded = safetensors.torch.load_file(path)
    assert loaded["patches"].dtype == torch.uint8
    np.testing.assert_array_equal(loaded["patches"].numpy(), patchify(clip.frames_THWC, (1, 16, 16)))
    np.testing.assert_array_equal(loaded["positions"].numpy(), index_positions(result.header.grid))
    np.testing.assert_array_equal(loaded["pts_seconds"].numpy(), clip.pts_seconds)
    assert result.as_json()["patches"] == 6 * 12 * 20
    assert result.header.fps == pytest.approx(1.5)


CONFIGS = {
    "plain": SequenceConfig(),
    "tubelets": SequenceConfig(patch_size=(4, 7, 9)),
    "float16": SequenceConfig(dtype="float16"),
    "float32": SequenceConfig(dtype="float32", position="none"),
    "sincos": SequenceConfig(dtype="float32", position="sincos"),
    "linear": SequenceConfig(embed="linear", dim=768, dtype="float32", seed=5),
    "wide sincos": SequenceConfig(embed="linear", dim=800, dtype="float32", position="sincos"),
    "linear tubelets": SequenceConfig(
        patch_size=(2, 8, 8), embed="linear", dim=384, dtype="float32", position="sincos"
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_invertible_sequence_checks_exact(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    patchify_file(SAMPLE_CLIP, path, CONFIGS[name], Selection(uniform=7), size="101x77")
    checked = check_file(path)
    assert checked.exact
    assert len(checked.squared_errors) == 7
    assert checked.as_json()["psnr_db"] is None
    if CONFIGS[name].dtype == "float32":
        assert checked.embedding_error is not None
        assert checked.embedding_error < 1e-4


def test_a_narrow_embedding_says_how_much_it_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    config = SequenceConfig(embed="linear", dim=192, dtype="float32")
    patchify_file(SAMPLE_CLIP, path, config, Selection(uniform=2))
    checked = check_file(path)
    assert not checked.exact
    frames = np.stack(list(PatchSequence(path).frames())).astype(float)
    original = read(SAMPLE_CLIP, Selection(uniform=2)).frames_THWC
    expected = -10 * np.log10(((frames - original) ** 2).mean() / 255**2)
    assert checked.psnr_db == pytest.approx(expected, abs=1e-3)
    assert checked.embedding_error is not None
    assert checked.embedding_error > 0.1


def test_torch_embeds_to_the_same_vectors(tmp_path: Path) -> None:
    """The written vectors are what TubeletEmbed gives with the written weights."""
    path = tmp_path / "a.safetensors"
    config = SequenceConfig(patch_size=(2, 16, 16), embed="linear", dim=96, dtype="float32", position="sincos")
    result = patchify_file(SAMPLE_CLIP, path, config, Selection(max_frames=3))
    loaded = safetensors.torch.load_file(path)
    embed = TubeletEmbed(in_channels=3, dim=96, patch_size=(2, 16, 16))
    embed.load_state_dict({"proj.weight": loaded["embed.weight"], "proj.bias": loaded["embed.bias"]})
    clip = read(SAMPLE_CLIP, Selection(max_frames=3))
    video = torch.from_numpy(clip.frames_THWC).permute(3, 0, 1, 2)[None] / 127.5 - 1
    vectors = embed(video).reshape(-1, 96) + torch.from_numpy(sincos_3d(result.header.grid, 96))
    torch.testing.assert_close(loaded["patches"], vectors, rtol=1e-4, atol=1e-4)


def test_an_image_is_a_sequence_too(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    result = patchify_file(SAMPLE_IMAGE, path)
    assert result.header.size == (1, 256, 256)
    assert check_file(path).exact
    restored, frames = restore_file(path, tmp_path / "b.png")
    assert frames == 1
    np.testing.assert_array_equal(read(restored).frames_THWC, read(SAMPLE_IMAGE).frames_THWC)


@pytest.mark.parametrize("target", ["a.mkv", "a.mp4", "frames/"])
def test_restore_is_lossless_where_asked(target: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    patchify_file(SAMPLE_CLIP, path, SequenceConfig(patch_size=(2, 8, 8)), Selection(max_frames=5))
    restored, frames = restore_file(path, f"{tmp_path}/{target}", lossless=True)
    assert frames == 5
    original = read(SAMPLE_CLIP, Selection(max_frames=5))
    if restored.is_dir():
        pictures = [read(picture).frames_THWC[0] for picture in sorted(restored.glob("*.png"))]
        np.testing.assert_array_equal(np.stack(pictures), original.frames_THWC)
        times = json.loads((restored / "times.json").read_text())["pts_seconds"]
    else:
        clip = read(restored)
        np.testing.assert_array_equal(clip.frames_THWC, original.frames_THWC)
        times = clip.pts_seconds
    np.testing.assert_allclose(times, original.pts_seconds, atol=1e-3)


def test_check_finds_a_changed_byte_and_a_changed_video(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    patchify_file(SAMPLE_CLIP, path, selection=Selection(max_frames=4))
    data = bytearray(path.read_bytes())
    data[8 + int.from_bytes(data[:8], "little") + 3 * 240 * 768 + 5] ^= 1
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(data)
    checked = check_file(changed)
    assert [error == 0 for error in checked.squared_errors] == [True, True, True, False]
    values = checked.as_json()
    assert values["exact_frames"] == 3
    assert values["psnr_db_per_frame"][:3] == [None, None, None]
    black = Clip(frames_THWC=np.zeros((4, 180, 320, 3), np.uint8), pts_seconds=np.arange(4) / 15)
    other = write(tmp_path / "black.mkv", black)
    assert not check_file(path, other).exact
    for size, words in (((3, 180, 320), "fewer frames"), ((4, 20, 30), "frames of 30x20")):
        clip = Clip(frames_THWC=np.zeros((*size, 3), np.uint8), pts_seconds=np.arange(size[0]) / 15)
        with pytest.raises(MismatchError, match=words):
            check_file(path, write(tmp_path / "other.mkv", clip))
    five = Clip(frames_THWC=np.zeros((5, 180, 320, 3), np.uint8), pts_seconds=np.arange(5) / 15)
    long = tmp_path / "long.safetensors"
    patchify_file(write(tmp_path / "five.mkv", five), long)
    check_file(long)
    with pytest.raises(MismatchError, match=r"more frames|fewer frames"):
        check_file(long, other)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"embed": "linear"}, "--dim"),
        ({"dim": 8}, "--embed linear"),
        ({"embed": "linear", "dim": 8}, "uint8 cannot hold"),
        ({"position": "sincos"}, "uint8 cannot hold"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"position": "rope"}, "position must be one of"),
        ({"patch_size": (1, 0, 4)}, "patch_size"),
    ],
)
def test_configs_that_make_no_sense_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SequenceConfig(**values)  # type: ignore[arg-type]


def test_errors_leave_nothing_behind(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for video, output, words in (
        (text, "a.safetensors", "not a picture or video"),
        (tmp_path / "none.mp4", "a.safetensors", "does not exist"),
        (SAMPLE_CLIP, "a.bin", r"must be a \.safetensors"),
    ):
        with pytest.raises(InputError, match=words):
            patchify_file(video, tmp_path / output)
    with pytest.raises(InputError, match="no frame lies"):
        patchify_file(SAMPLE_CLIP, tmp_path / "a.safetensors", selection=Selection(start_seconds=100))
    assert [path.name for path in tmp_path.iterdir()] == ["text.mp4"]


def test_check_needs_its_source(tmp_path: Path) -> None:
    copy = tmp_path / "clip.mp4"
    copy.write_bytes(SAMPLE_CLIP.read_bytes())
    path = tmp_path / "a.safetensors"
    patchify_file(copy, path, selection=Selection(max_frames=2))
    copy.unlink()
    with pytest.raises(InputError, match="is not there"):
        check_file(path)
    assert check_file(path, SAMPLE_CLIP).exact


def test_a_damaged_sequence_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    patchify_file(SAMPLE_CLIP, path, selection=Selection(max_frames=2))
    data = path.read_bytes()
    for old, new, words in (
        (b'\\"size\\": [2, 180, 320]', b'\\"size\\": [3, 180, 320]', "the file is damaged"),
        (b'\\"dtype\\": \\"uint8\\"', b'\\"dtype\\": \\"uint9\\"', "dtype must be one of"),
        (b'"format":"tokenreel.patches"', b'"format":"tokenreel.potches"', "expected tokenreel.patches"),
    ):
        assert old in data
        path.write_bytes(data.replace(old, new))
        with pytest.raises((FormatError, InputError), match=words):
            PatchSequence(path)
