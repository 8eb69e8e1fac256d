"""The command line, in process through typer's runner and, where it matters, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tokenreel import __version__
from tokenreel.cli.main import app
from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.media.read import read
from tokenreel.samples import SAMPLE_CLIP

runner = CliRunner()
CLIP = str(SAMPLE_CLIP)


def run(*words: object) -> Result:
    return runner.invoke(app, [str(word) for word in words])


def result_of(*words: object) -> dict[str, object]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    values: dict[str, object] = json.loads(result.stdout)
    return values


def process(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tokenreel.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


COMMANDS = [
    "demo",
    "patchify",
    "check",
    "restore",
    "encode",
    "decode",
    "inspect",
    "eval",
    "prepare",
    "train",
    "classify",
    "generate",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: tokenreel {command}" in result.output
    for option in ("--json", "--quiet"):
        assert option in result.output


def test_version_and_bare_call() -> None:
    assert run("--version").output.strip() == f"tokenreel {__version__}"
    assert "patchify" in run().output


def test_patchify_check_restore(tmp_path: Path) -> None:
    sequence = tmp_path / "a.safetensors"
    made = result_of("patchify", CLIP, "-o", sequence, "--every", 10, "--patch-size", "2,16,16")
    assert made["grid"] == [3, 12, 20]
    assert result_of("check", sequence) == {
        "exact": True,
        "frames": 6,
        "psnr_db": None,
        "exact_frames": 6,
        "path": str(sequence),
        "video": CLIP,
    }
    assert result_of("restore", sequence, "-o", tmp_path / "a.mkv")["frames"] == 6
    np.testing.assert_array_equal(read(tmp_path / "a.mkv").frames_THWC, read(CLIP).frames_THWC[::10])
    assert "exact, all 6 frames" in run("check", sequence).output
    assert run("check", sequence, "-q").output == ""


def test_check_exits_1_where_it_differs(tmp_path: Path) -> None:
    sequence = tmp_path / "a.safetensors"
    result_of("patchify", CLIP, "-o", sequence, "--frames", 2, "--embed", "linear", "--dim", 192)
    result = run("check", sequence, "--json")
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    assert values["exact"] is False
    assert run("check", sequence, "--at-least", values["psnr_db"] - 1).exit_code == 0
    assert run("check", sequence, "--at-least", values["psnr_db"] + 1).exit_code == 1
    assert "PSNR" in run("check", sequence).output


def test_encode_decode_inspect(tmp_path: Path) -> None:
    tokens = tmp_path / "a.tokens"
    made = result_of("encode", CLIP, "-o", tokens, "--range", "1:2", "--size", "64", "--caption", "a wall", "-t", "raw")
    assert (made["frames"], made["height"], made["width"]) == (15, 64, 114)
    facts = result_of("inspect", tokens, "--picture", tmp_path / "sheet.png")
    assert facts["kind"] == "tokens"
    assert facts["tokenizer"] == "raw"
    assert facts["meta"] == {"source": "sample.mp4", "caption": "a wall"}
    assert read(tmp_path / "sheet.png").size[0] == 1
    assert result_of("decode", tokens, "-o", tmp_path / "a.gif")["frames"] == 15
    assert "1x" not in run("inspect", tokens, "-q").output
    assert "fingerprint" in run("inspect", tokens).output


def test_inspect_knows_every_kind(tmp_path: Path) -> None:
    sequence = tmp_path / "a.safetensors"
    result_of("patchify", CLIP, "-o", sequence, "--max-frames", 2)
    assert result_of("inspect", sequence, "--picture", tmp_path / "s.png")["kind"] == "patches"
    facts = result_of("inspect", CLIP, "--picture", tmp_path / "m.png")
    assert (facts["kind"], facts["media"], facts["width"], facts["fps"]) == ("media", "video", 320, 15.0)


def test_bpe_goes_round(tmp_path: Path) -> None:
    tokens, merges, merged = tmp_path / "a.tokens", tmp_path / "m.json", tmp_path / "b.tokens"
    result_of("encode", CLIP, "-o", tokens, "--max-frames", 2, "--size", 32, "-t", "raw")
    made = result_of("bpe", "train", tokens, "-o", merges, "--vocab-size", 300, "--no-boundaries")
    assert (made["merges"], made["interrupted"]) == (44, False)
    assert result_of("bpe", "encode", tokens, "-m", merges, "-o", merged)["merged_ids"] < made["ids"]  # type: ignore[operator]
    result_of("bpe", "decode", merged, "-m", merges, "-o", tmp_path / "c.tokens")
    assert (tmp_path / "c.tokens").read_bytes() == tokens.read_bytes()
    facts = result_of("bpe", "inspect", merges, tokens, "--picture", tmp_path / "m.png")
    assert set(facts["bits_per_pixel"]) >= {"fixed", "merged", "png", "ffv1", "zstd"}  # type: ignore[arg-type]
    assert "bits a pixel" in run("bpe", "inspect", merges, tokens).output
    result_of("bpe", "export", merges, "-o", tmp_path / "tokenizer.json")
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    for command in ("train", "encode", "decode", "inspect", "export"):
        assert f"Example: tokenreel bpe {command}" in run("bpe", command, "--help").output


def test_encode_many_files(tmp_path: Path) -> None:
    broken = tmp_path / "clips" / "broken.mp4"
    broken.parent.mkdir()
    broken.write_text("no video")
    (tmp_path / "clips" / "good.mp4").write_bytes(SAMPLE_CLIP.read_bytes())
    with pytest.warns(TokenReelWarning, match="skipped"):
        made = result_of(
            "encode", tmp_path / "clips", CLIP, "-o", tmp_path / "shards", "--frames", 2, "--size", 32, "-t", "raw"
        )
    assert made["records"] == 2
    assert [Path(item["source"]).name for item in made["skipped"]] == ["broken.mp4"]  # type: ignore[index,union-attr]
    facts = result_of("inspect", tmp_path / "shards", "--picture", tmp_path / "s.png")
    assert (facts["kind"], facts["records"]) == ("shards", 2)


def test_demo_leaves_its_files(tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "exact: all 60 frames" in result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"demo.png", "patches.safetensors", "embedded.safetensors", "clip.tokens", "restored.mp4"} <= names
    assert {"story.yaml", "story.mp4", "story.png"} <= names
    assert read(tmp_path / "out" / "story.mp4").frames_THWC.shape == (46, 64, 64, 3)
    values = result_of("demo", CLIP, "-o", tmp_path / "again")
    assert values["exact"] is True
    assert values["patches"] == 14400
    assert values["story_frames"] == 46


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["patchify", "none.mp4", "-o", "a.safetensors"], "none.mp4 does not exist"),
        (["patchify", CLIP, "-o", "a.safetensors", "--patch-size", "16"], "--patch-size must be"),
        (["patchify", CLIP, "-o", "a.safetensors", "--size", "big"], "size must be"),
        (["patchify", CLIP, "-o", "a.safetensors", "--every", "2", "--fps", "3"], "exclude each other"),
        (["patchify", CLIP, "-o", "a.safetensors", "--range", "5"], "--range must be"),
        (["patchify", CLIP, "-o", "a.safetensors", "--embed", "linear"], "--dim"),
        (["check", "none.safetensors"], "does not exist"),
        (["check", CLIP], "not a safetensors file"),
        (["restore", CLIP, "-o", "a.mp4"], "not a safetensors file"),
        (["encode", CLIP, "-o", "a.tokens", "-t", "what"], "video-titok, world-codes, raw"),
        (["decode", "none.tokens", "-o", "a.mp4"], "does not exist"),
        (["encode", CLIP, CLIP, "-o", "a.tokens"], "holds one clip"),
        (["encode", CLIP, "-o", "shards", "--caption", "x"], "--caption is for one file"),
        (["bpe", "train", "none", "-o", "m.json", "--vocab-size", "300"], "does not exist"),
        (["bpe", "train", CLIP, "-o", "m.json", "--vocab-size", "100"], "vocab_size"),
        (["bpe", "inspect", "none.json"], "none.json"),
        (["inspect", "none"], "does not exist"),
        (["inspect", CLIP, "--picture", "a.jpg"], "must be a .png"),
        (["demo", "none.mp4"], "does not exist"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert isinstance(result.exception, InputError)
    assert text in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_as_a_process(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    failed = process("patchify", text, "-o", tmp_path / "a.safetensors")
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(SAMPLE_CLIP.read_bytes()[:150_000])
    partial = process("patchify", cut, "-o", tmp_path / "a.safetensors", "--json")
    assert partial.returncode == 0, partial.stderr
    assert "warning" in partial.stderr
    assert 0 < json.loads(partial.stdout)["frames"] < 60
    assert process("patchify", CLIP).returncode == 2  # no output named
    full = process("patchify", CLIP, "-o", "/dev/full/a.safetensors")
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
