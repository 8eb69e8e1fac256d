from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tokenreel.classify import ViViT
from tokenreel.cli.main import run as main
from tokenreel.data.augment import VideoAugment
from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.jobs import encode_many as job
from tokenreel.jobs.encode_many import encode_many
from tokenreel.jobs.evaluate_classifier import labelled_for
from tokenreel.jobs.inspect import inspect_file, sheet_of
from tokenreel.media.frames import Selection
from tokenreel.media.read import read
from tokenreel.media.write import write
from tokenreel.tokenizers import load
from tokenreel.tokens.shards import ShardReader
from tokenreel.train.classify_data import LabelledChoice
from tokenreel.train.recipes_base import SourceChoice
from tokenreel.types import Clip


@pytest.fixture
def clips(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "clips"
    for index, (name, frames) in enumerate([("a/one", 3), ("a/two", 5), ("b/three", 1), ("b/four", 4)]):
        pixels = rng.integers(0, 256, (frames, 20 + index, 30, 3), dtype=np.uint8)
        write(folder / f"{name}.mkv", Clip(frames_THWC=pixels, pts_seconds=np.arange(frames) / 10))
    (folder / "a" / "one.txt").write_text("a noisy clip")
    return folder


def test_every_clip_becomes_a_record(clips: Path, tmp_path: Path) -> None:
    result = encode_many([clips], tmp_path / "shards", tokenizer="raw:2,8,8")
    reader = ShardReader(tmp_path / "shards")
    assert (result.records, result.skipped, len(reader)) == (4, (), 4)
    assert result.tokens == sum(tokens.num_tokens for tokens in reader)
    seen = {}
    for tokens in reader:
        clip = read(clips / Path(str(tokens.meta["source"])).relative_to(clips))
        (video,) = load("raw:2,8,8").decode([tokens])
        np.testing.assert_array_equal(video.transpose(1, 2, 3, 0), clip.frames_THWC)
        np.testing.assert_allclose(tokens.pts_seconds, clip.pts_seconds)
        seen[Path(str(tokens.meta["source"])).stem] = (tokens.meta.get("label"), tokens.meta.get("caption"))
    assert seen == {"one": ("a", "a noisy clip"), "two": ("a", None), "three": ("b", None), "four": ("b", None)}
    facts = inspect_file(tmp_path / "shards")
    assert (facts["kind"], facts["records"], facts["complete"]) == ("shards", 4, True)
    assert read(sheet_of(tmp_path / "shards", tmp_path / "sheet.png")).size[0] == 1


def test_broken_files_are_skipped_named_and_counted(clips: Path, tmp_path: Path) -> None:
    (clips / "b" / "broken.mp4").write_bytes(b"nothing")
    with pytest.warns(TokenReelWarning, match=r"skipped: .*broken\.mp4"):
        result = encode_many([clips], tmp_path / "shards")
    assert result.records == 4
    assert [Path(source).name for source, _ in result.skipped] == ["broken.mp4"]
    with pytest.warns(TokenReelWarning), pytest.raises(InputError, match="none of the 1 examples"):
        encode_many([clips / "b" / "broken.mp4"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_interrupted_run_goes_on(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode_many([clips], tmp_path / "whole", selection=Selection(max_frames=2))
    encoded = job._encoded

    def stopping(*arguments: object) -> object:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return encoded(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "_encoded", stopping)
    with pytest.raises(KeyboardInterrupt):
        encode_many([clips], tmp_path / "parts", selection=Selection(max_frames=2))
    monkeypatch.setattr(job, "_encoded", encoded)
    with pytest.raises(InputError, match="not empty"):
        encode_many([clips], tmp_path / "parts", selection=Selection(max_frames=2))
    result = encode_many([clips], tmp_path / "parts", selection=Selection(max_frames=2), resume=True)
    assert result.records == whole.records
    for a, b in zip(ShardReader(tmp_path / "whole"), ShardReader(tmp_path / "parts")):
        np.testing.assert_array_equal(a.ids_L, b.ids_L)
        assert a.meta == b.meta
    again = encode_many([clips], tmp_path / "parts", selection=Selection(max_frames=2), resume=True)
    assert again.records == whole.records


def test_drawn_scenes_become_shards_without_pixels_on_disk(tmp_path):
    made = encode_many(["rendered:3,5,16,16"], tmp_path / "shards")
    assert made.records == 3
    reader = ShardReader(tmp_path / "shards")
    tokens = reader[1]
    assert tokens.size == (5, 16, 16)
    assert tokens.fps == 8.0
    assert tokens.meta["caption"]


def test_views_are_records_of_their_own_and_only_the_first_is_measured(tmp_path, monkeypatch):
    for action in ("bend", "wave"):
        for performer in range(4):
            clip = Clip(
                frames_THWC=np.random.default_rng(performer).integers(0, 256, (6, 16, 16, 3), np.uint8),
                pts_seconds=np.arange(6) / 6,
                fps=6.0,
            )
            (tmp_path / "clips" / action).mkdir(parents=True, exist_ok=True)
            write(tmp_path / "clips" / action / f"performer{performer}.mkv", clip)
    made = encode_many([tmp_path / "clips"], tmp_path / "shards", views=3, changes=VideoAugment(contrast=0.9))
    assert made.records == 24
    reader = ShardReader(tmp_path / "shards")
    assert [record.meta.get("changed_view") for record in reader] == [None, 1, 2] * 8
    assert [record.meta["label"] for record in reader] == ["bend"] * 12 + ["wave"] * 12
    assert (np.asarray(reader[0].ids_L) != np.asarray(reader[1].ids_L)).any()
    choice = LabelledChoice(
        sources=(SourceChoice(data=str(tmp_path / "shards")),),
        group=r"(performer\d+)",
        hold_out="performer1",
        val_share=0.0,
    )
    parts = choice.parts(seed=0)
    assert (len(parts.train), len(parts.test)) == (18, 2)
    alone = LabelledChoice(sources=choice.sources, val_share=0.5).parts(seed=0)  # no group is told
    assert 3 * len(alone.val) + len(alone.train) == 24
    assert len(alone.val) >= 2
    assert not {example.meta["origin"] for example in alone.val} & {example.meta["origin"] for example in alone.train}
    model = ViViT.untrained(replace(ViViT.sizes["tiny"], heads=(("label", ("bend", "wave")),)))
    assert len(labelled_for(tmp_path / "shards", model)[0]) == 8


def test_a_column_of_that_name_is_no_mark(tmp_path):
    write(tmp_path / "a.mkv", Clip(frames_THWC=np.zeros((2, 16, 16, 3), np.uint8), pts_seconds=np.arange(2.0), fps=1.0))
    (tmp_path / "table.csv").write_text("path,changed_view\na.mkv,PLAX\n")
    encode_many([tmp_path / "table.csv"], tmp_path / "shards")
    assert "changed_view" not in ShardReader(tmp_path / "shards")[0].meta


def test_views_of_the_command(tmp_path, monkeypatch, capsys):
    def say(*words):
        monkeypatch.setattr("sys.argv", ["tokenreel", "encode", "rendered:2,5,16,16", "-t", "raw", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().err

    assert say("-o", str(tmp_path / "a"), "--views", "2", "--changes", "flip: 1.0")[0] == 0
    reader = ShardReader(tmp_path / "a")
    assert len(reader) == 4
    for words, message in (
        (["-o", str(tmp_path / "b"), "--changes", "flip: 1.0"], "say how many: --views 16"),
        (["-o", str(tmp_path / "b"), "--views", "2", "--changes", "flip: ["], "must be named numbers"),
        (["-o", str(tmp_path / "b"), "--views", "2", "--changes", "flop: 1.0"], "did you mean 'flip'"),
        (["-o", str(tmp_path / "b"), "--views", "2", "--changes", ""], "must be named numbers"),
        (["-o", str(tmp_path / "b.tokens")], "drawn scenes become a folder of shards; name it: -o shards/"),
        ([], "drawn scenes become a folder of shards"),
    ):
        code, err = say(*words)
        assert code == 2
        assert message in err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("selection", "fps", "times"),
    [
        (Selection(), 8.0, np.arange(10) / 8),
        (Selection(every=2), 4.0, np.arange(5) / 4),
        (Selection(uniform=5), 4.0, (np.arange(5) * 2 + 1) / 8),
        (Selection(start_seconds=0.5, end_seconds=1.0), 8.0, np.arange(4, 8) / 8),
        (Selection(fps=4.0), 4.0, np.arange(5) / 4),
    ],
)
def test_drawn_scenes_have_a_rate_and_seconds(tmp_path, selection, fps, times):
    encode_many(["rendered:1,10,16,16"], tmp_path / "shards", selection=selection)
    [record] = ShardReader(tmp_path / "shards")
    assert record.fps == pytest.approx(fps)
    np.testing.assert_allclose(record.pts_seconds, times, atol=1e-6)
