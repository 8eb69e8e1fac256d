"""The classifier that ships: found where none is named, small, and as good as its card says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

import tokenreel
from tokenreel.classify import ViViT, load
from tokenreel.cli.main import run as main
from tokenreel.data.labelled_rendered import SCENES_OF, rendered_set
from tokenreel.jobs.classify import DEFAULT_CLASSIFIER, classify_files
from tokenreel.jobs.evaluate_classifier import evaluate_classifier
from tokenreel.media.write import write
from tokenreel.render import HEADS, is_held_out, labels, render_clip
from tokenreel.render.draw import draw_scene
from tokenreel.tokenizers.hub import pretrained_names

torch.set_num_threads(1)

FOLDER = Path(tokenreel.__file__).parent / "pretrained" / DEFAULT_CLASSIFIER
CARD = (FOLDER / "README.md").read_text()


def test_it_ships_and_is_small() -> None:
    assert pretrained_names("classifier") == [DEFAULT_CLASSIFIER]
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 3 * 2**20
    model = load(DEFAULT_CLASSIFIER)
    assert isinstance(model, ViViT)
    assert dict(model.heads) == HEADS
    assert model.fingerprint == json.loads((FOLDER / "config.json").read_text())["fingerprint"]


def test_the_card_says_all() -> None:
    for word in ("## Figures", "## Data", "## Recipe", "## Limits", "## Attribution", "tokenreel train", "held out"):
        assert word in CARD, word


def figures(place: str) -> dict[str, float]:
    """Head -> share that is right, as the card says of a set."""
    (row,) = re.findall(rf"^\| {place}[^|]*\|(.*)\|$", CARD, re.MULTILINE)
    return dict(zip(HEADS, (float(cell) for cell in row.split("|"))))


def test_scenes_never_trained_on_are_told_as_the_card_says() -> None:
    first, held_out = SCENES_OF["test"]
    scenes = rendered_set(200, first=first, held_out=held_out)
    assert all(is_held_out(*example.group.rsplit(" ", 2)) for example in (scenes[0], scenes[1]))
    found = evaluate_classifier(scenes, model=DEFAULT_CLASSIFIER, num_draws=0)
    for head, share in figures("200 scenes").items():
        assert found.scores[head].accuracy == pytest.approx(share / 100, abs=0.006), head


@pytest.mark.slow
def test_a_thousand_scenes_are_told_as_the_card_says() -> None:
    found = evaluate_classifier("rendered:1000", model=DEFAULT_CLASSIFIER, num_draws=0)
    for head, share in figures("1,000 scenes").items():
        assert found.scores[head].accuracy == pytest.approx(share / 100, abs=0.002), head


def test_it_answers_where_no_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = draw_scene(3, num_objects=1, is_story=False)
    write(tmp_path / "clip.mp4", render_clip(scene))
    [told] = classify_files([tmp_path / "clip.mp4"]).predictions
    assert {head: told.label(head) for head in HEADS} == labels(scene)
    monkeypatch.setattr(sys, "argv", ["tokenreel", "classify", str(tmp_path / "clip.mp4"), "--top", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    out = capsys.readouterr().out
    assert all(name in out for name in labels(scene).values())
