"""The job and the command: folders in, figures and a page out."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "measure"))

from coarse import CoarseTokenizer, coarse

from tokenreel.cli.evaluate import evaluate
from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.jobs.evaluate import evaluate_clips, lpips_of
from tokenreel.measure.protocol import Protocol
from tokenreel.media.write import write
from tokenreel.samples import SAMPLE_CLIP, SAMPLE_IMAGE
from tokenreel.types import Clip

SMALL = Protocol(frames=3, size=32)


@pytest.fixture
def clips(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three lossless clips of 32x48, 3 frames; number 2 is the noisiest."""
    folder = tmp_path / "clips"
    for index in range(3):
        ramp = np.linspace(20, 200, 48)[None, None, :, None].repeat(32, 1)
        pixels = ramp + rng.uniform(-20 * index, 20 * index + 1, (3, 32, 48, 3))
        frames = pixels.clip(0, 255).astype(np.uint8)
        write(folder / f"{index}.mkv", Clip(frames_THWC=frames, pts_seconds=np.arange(3) / 10, fps=10.0))
    return folder


def run(*words: object) -> Result:
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_json_has_every_field_and_its_protocol(clips: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int | None]] = []
    report = tmp_path / "out" / "report.html"
    result = evaluate_clips(
        [clips],
        tokenizer=CoarseTokenizer(),
        protocol=SMALL,
        codecs=["jpeg"],
        report=report,
        progress=lambda n, total: done.append((n, total)),
    )
    values: dict[str, Any] = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert values["protocol"] == {
        "frames": 3, "size": 32, "fps": "native", "start": "first", "crop": "centre",
        "token_count": None, "split": "all", "sources": [str(clips)], "clips": 3,
    }  # fmt: skip
    assert (values["clips"], values["frames"], values["tokens"]) == (3, 9, 9 * 32 * 32 * 3)
    assert values["bits_per_pixel"] == 12
    assert 0.5 < values["ssim"] < 1
    assert values["ms_ssim"] is None
    assert len(values["per_clip"]) == 3
    assert values["byte_pairs"]["counted_on_clips"] == 1
    for way in ("encode", "decode"):
        assert set(values["speed"][way]) == {
            "wall_seconds", "cpu_seconds", "frames_per_second", "video_seconds_per_second"
        }  # fmt: skip
    assert values["codecs_at_these_bits"]["jpeg"] == {"psnr_db": None, "ssim": None}  # 12 bits: more than any jpeg
    assert [len(curve["points"]) for curve in values["codecs"]] == [6]
    assert values["report"] == str(report)
    assert report.read_text().startswith("<!doctype html>")
    assert done == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_levels_are_means_of_plain_ones(clips: Path) -> None:
    from tokenreel.media.read import read

    levels = []
    for path in sorted(clips.glob("*.mkv")):
        frames = read(path).frames_THWC[:, :, 8:40]
        levels.append(-10 * math.log10(((frames / 255 - coarse(frames)) ** 2).mean()))
    result = evaluate_clips([clips], tokenizer=CoarseTokenizer(), protocol=SMALL)
    assert result.scores.mean(lambda clip: clip.psnr_db) == pytest.approx(np.mean(levels), abs=1e-4)
    assert result.curves == ()
    assert result.report is None
    some = evaluate_clips([clips], tokenizer=CoarseTokenizer(), protocol=SMALL, num_clips=2)
    assert [row.psnr_db for row in some.scores.clips] == pytest.approx(levels[:2], abs=1e-4)


def test_features_and_splits(clips: Path, tmp_path: Path) -> None:
    import warnings

    class MeanColour(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(2).mean(2)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(MeanColour()), str(tmp_path / "net.pt"))
    (clips / "train").mkdir()
    (clips / "2.mkv").rename(clips / "train" / "2.mkv")
    (clips / "test").mkdir()
    for index in (0, 1):
        (clips / f"{index}.mkv").rename(clips / "test" / f"{index}.mkv")
    feature = f"rfvd={tmp_path / 'net.pt'}"
    result = run(clips, "--size", 32, "--frames", 3, "--split", "test", "--features", feature, "--json", "-t", "raw")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert (values["clips"], values["protocol"]["split"]) == (2, "test")
    assert values["rfvd"] == pytest.approx(0, abs=1e-9)
    assert values["features"][0]["few"] is True


def test_lpips_is_the_mean_over_frames(clips: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from tokenreel.train.lpips import load_lpips

    generator, width, state = torch.Generator().manual_seed(0), 3, {}
    for stage, places in enumerate([(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)]):
        for place in places:
            state[f"features.{place}.weight"] = torch.randn(4, width, 3, 3, generator=generator) / width
            state[f"features.{place}.bias"] = torch.zeros(4)
            width = 4
        state[f"lin{stage}.model.1.weight"] = torch.rand(1, 4, 1, 1, generator=generator)
    save_file(state, tmp_path / "vgg.safetensors")
    distance = lpips_of([tmp_path / "vgg.safetensors"])
    result = evaluate_clips(
        [clips], tokenizer=CoarseTokenizer(), protocol=SMALL, lpips=[tmp_path / "vgg.safetensors"], num_clips=1
    )
    a = torch.rand(3, 3, 32, 32, generator=generator) * 2 - 1
    network = load_lpips(tmp_path / "vgg.safetensors")
    whole = network.loss(list(zip(network(a[None]), network(a.flip(3)[None]))), None)
    assert distance(a, a.flip(3)) == pytest.approx(float(whole), rel=1e-5)
    assert distance(a, a) == 0
    assert result.as_json()["lpips"] > 0
    with pytest.raises(InputError, match="no LPIPS weights"):
        lpips_of([tmp_path / "nothing.safetensors"])


def test_command_in_words_and_silent() -> None:
    words = (SAMPLE_CLIP, "--tokenizer", "raw", "--size", 32, "--frames", 2)
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "raw on 1 clip: the first 2 frames of each clip at its own rate, short side resized to 32" in result.stdout
    assert "PSNR                  exact" in result.stdout
    assert "Bits a pixel          24" in result.stdout
    assert run(*words, "-q").stdout == ""


def test_pictures(tmp_path: Path) -> None:
    result = run(SAMPLE_IMAGE, "--size", "64", "--frames", "1", "--report", tmp_path / "r.html", "--json")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["per_clip"][0]["frames"] == 1
    assert values["temporal_psnr_db"] is None
    assert [curve["codec"] for curve in values["codecs"]] == ["jpeg", "webp"]


def test_codecs_by_name(clips: Path) -> None:
    result = run(clips, "--size", 32, "--clips", 1, "--codecs", "webp", "--json")
    assert [curve["codec"] for curve in json.loads(result.stdout)["codecs"]] == ["webp"]
    assert isinstance(run(clips, "--codecs", "divx").exception, InputError)


def test_broken_clips_are_counted_and_all_broken_is_an_error(clips: Path) -> None:
    (clips / "1.mkv").write_bytes(b"no video")
    with pytest.warns(TokenReelWarning, match="skipped"):
        result = run(clips, "--size", 32)
    assert "1 broken clip skipped" in result.stdout
    for path in clips.glob("*.mkv"):
        path.write_bytes(b"no video")
    with pytest.warns(TokenReelWarning), pytest.raises(InputError, match="none of the 3 clips"):
        evaluate_clips([clips], tokenizer="raw")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "big"), "--size must be a whole number"),
        (("--frames", "0"), "--frames must be a whole number"),
        (("--fps", "fast"), "--fps must be a number"),
        (("--precision", "fp8"), "--precision must be"),
        (("--token-count", "4", "--size", "16"), "does not leave the choice"),
        (("--clips", "0"), "number of clips must be at least 1"),
        (("--report", "page.pdf"), "must end in .html"),
        (("--tokenizer", "nothing"), "no tokenizer is called"),
    ],
)
def test_wrong_options_are_named(words: tuple[str, ...], message: str) -> None:
    result = run(SAMPLE_CLIP, *words)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_help_has_an_example() -> None:
    assert "Example: tokenreel eval" in run("--help").output
