"""The generator that ships: found where none is named, small, with its tokenizer, and as good as its card says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tokenreel
from tokenreel.cli.main import run as main
from tokenreel.generate import MaskGIT
from tokenreel.jobs.generate import generate_video
from tokenreel.jobs.generate_models import tokenizer_for, trained_on
from tokenreel.media.read import read
from tokenreel.tokenizers.hub import GENERATOR, pretrained_folder, pretrained_names

torch.set_num_threads(1)

FOLDER = Path(tokenreel.__file__).parent / "pretrained" / GENERATOR
CARD = (FOLDER / "README.md").read_text()
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STORY = "a red circle moves left, then a blue square bounces"


def test_it_ships_and_is_small() -> None:
    assert pretrained_names("generator") == [GENERATOR]
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 10 * 2**20
    model = MaskGIT.from_pretrained(GENERATOR)
    assert model.fingerprint == json.loads((FOLDER / "config.json").read_text())["fingerprint"]
    tokenizer = tokenizer_for(model.vocab, beside=pretrained_folder(GENERATOR))
    assert getattr(tokenizer, "source", None) == "world-codes"
    assert tokenizer.codebook_size <= 4096
    about = trained_on(FOLDER)
    assert (about.size, about.num_frames, about.fps) == ((64, 64), 16, 8.0)


def test_the_card_says_all() -> None:
    for word in ("## Figures", "## Data", "## Recipe", "## Limits", "## Attribution", "tokenreel train", "held out"):
        assert word in CARD, word


def test_a_prompt_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tokenreel", "generate", STORY, "-o", str(tmp_path / "out.mp4"), "-q"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    clip = read(tmp_path / "out.mp4")
    assert (clip.frames_THWC.shape, clip.fps) == ((16, 64, 64, 3), 8.0)


def test_prompts_are_followed(tmp_path: Path) -> None:
    """The background is what the prompt says, to the eye of a mean."""
    for colour, wanted in (("white", (245, 243, 238)), ("navy", (22, 34, 84))):
        path = tmp_path / f"{colour}.png"
        generate_video(f"a small red circle moves left on a {colour} background", path, model=GENERATOR, seconds=0.125)
        corner = read(path).frames_THWC[0, :4].reshape(-1, 3)
        assert abs(corner.mean(0) - torch.tensor(wanted).numpy()).max() < 40, colour


def quality() -> Any:
    """The benchmark's own functions."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import bench_generate_quality
    finally:
        sys.path.remove(str(BENCHMARKS))
    return bench_generate_quality


@pytest.mark.slow
@pytest.mark.parametrize("place", ["seen", "held out"])
def test_prompts_of_one_thing_are_followed_as_the_card_says(place: str) -> None:
    """The first 40 of the 200 prompts that stand in the card, same seed."""
    from tokenreel.classify import load

    bench = quality()
    (row,) = re.findall(rf"^\| one thing, {place}, the first 40 \|(.*)\|$", CARD, re.MULTILINE)
    said = dict(zip(("shape", "colour", "texture", "background", "motion"), (float(cell) for cell in row.split("|"))))
    name = f"one thing, {place}"
    scenes = bench.scenes_of(name, 40)
    prompts = [bench.caption(scene, number, is_full=True) for number, scene in enumerate(scenes)]
    maker = bench.loaded(GENERATOR, "fp32")
    found = bench.judged(load("vivit-motions"), bench.made(maker, prompts, maker.asked, 0, "fp32"), scenes)
    for head, share in said.items():
        assert found[head].mean() == pytest.approx(share / 100, abs=0.051), head
