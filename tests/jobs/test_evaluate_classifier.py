"""A labelled source and a classifier to figures and a page: the numbers are those of predict on the same examples."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "classify"))

from small_vivit import CONFIG, HEADS, TOKEN_CONFIG, clip_of, saved, tokens_of

from tokenreel.classify import ViViTConfig
from tokenreel.data.labelled_rendered import rendered_set
from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.jobs.evaluate_classifier import evaluate_classifier
from tokenreel.jobs.report_classifier import reliability_plot
from tokenreel.measure.classification import reliability
from tokenreel.measure.classification_scores import classification_scores
from tokenreel.media.pixels import resize
from tokenreel.media.write import write
from tokenreel.render import HEADS as SCENE_HEADS
from tokenreel.tokens.file import save

torch.set_num_threads(1)

MOTIONS = HEADS[0][1]
PLACES = [("right", 0), ("left", 1), ("left", 2), ("still", 3), ("right", 4), ("left", 5)]
"""Folder and seed of each clip."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return saved(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class."""
    root = tmp_path_factory.mktemp("clips")
    for name, seed in PLACES:
        write(root / name / f"p{seed % 3}_{seed}.mkv", clip_of(4, seed))
    return root


def probabilities(model: Any, seeds: list[int], head: str) -> np.ndarray[Any, Any]:
    videos = [np.moveaxis(resize(clip_of(4, seed).frames_THWC, (16, 24)), -1, 0) for seed in seeds]
    return np.concatenate([model.predict([video]).probabilities()[head].double().numpy() for video in videos])


def test_figures_are_those_of_predict(model: Any, folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    result = evaluate_classifier(
        folder, model=model, head="motion", num_draws=50, progress=lambda *now: seen.append(now)
    )
    ordered = sorted(PLACES, key=lambda place: f"{place[0]}/p{place[1] % 3}_{place[1]}")
    probs = probabilities(model, [seed for _, seed in ordered], "motion")
    labels = [MOTIONS.index(name) for name, _ in ordered]
    expected = classification_scores(probs, labels, MOTIONS, head="motion", num_draws=50)
    [(head, scores)] = result.scores.items()
    assert head == "motion"
    for (name, value), (other, wanted) in zip(scores.named(), expected.named(), strict=True):
        assert name == other
        assert value == pytest.approx(wanted, abs=1e-6)
    assert scores.confusion == expected.confusion
    assert scores.accuracy_interval == expected.accuracy_interval
    assert 0 < scores.accuracy < 1, "the test would not see labels that are mixed up"
    assert result.keys == tuple(f"{name}/p{seed % 3}_{seed}.mkv" for name, seed in ordered)
    assert seen[0] == (0, 6)
    assert seen[-1] == (6, 6)
    values = json.loads(json.dumps(result.as_json(), allow_nan=False))
    told = values["heads"]["motion"]
    assert [told[name] for name in ("accuracy", "macro_f1")] == [scores.accuracy, scores.macro_f1]
    assert told["auc"] is None  # three of six classes have no example
    assert values["examples"] == 6
    for mistake in told["confident_mistakes"]:
        assert mistake["key"].startswith(f"{mistake['truth']}/")
    assert told["mistakes"] == len(told["confident_mistakes"]) == 6 - round(6 * scores.accuracy)


def test_intervals_are_over_groups_where_all_have_one(model: Any, folder: Path) -> None:
    single = evaluate_classifier(folder, model=model, head="motion", num_draws=5)
    grouped = evaluate_classifier(folder, model=model, head="motion", group=r"^(\w+)/", num_draws=5)
    assert (single.by_group, grouped.by_group) == (False, True)
    [seeds, groups] = zip(*[(int(key[-5]), key.split("/")[0]) for key in grouped.keys])
    labels = [MOTIONS.index(name) for name in groups]
    probs = probabilities(model, list(seeds), "motion")
    expected = classification_scores(probs, labels, MOTIONS, num_draws=5, groups=groups)
    assert grouped.scores["motion"].accuracy_interval == expected.accuracy_interval
    assert single.scores["motion"].accuracy == grouped.scores["motion"].accuracy
    assert single.scores["motion"].accuracy_interval != grouped.scores["motion"].accuracy_interval


def test_tables_have_a_column_a_head_and_splits(model: Any, folder: Path, tmp_path: Path) -> None:
    rows = ["path,motion,colour,split"]
    rows += [
        f"{folder / name / f'p{seed % 3}_{seed}.mkv'},{name},{'red' if seed % 2 else 'blue'},"
        f"{'train' if seed < 3 else 'test'}"
        for name, seed in PLACES
    ]
    table = tmp_path / "all.csv"
    table.write_text("\n".join(rows))
    with pytest.raises(InputError, match=r"has the splits test, train: choose one with --split, or --split all"):
        evaluate_classifier(table, model=model)
    result = evaluate_classifier(table, model=model, split="test", num_draws=0)
    assert list(result.scores) == ["motion", "colour"]
    probs = probabilities(model, [3, 4, 5], "colour")
    assert result.scores["colour"].accuracy == pytest.approx(float((probs.argmax(1) == [0, 1, 0]).mean()))
    assert evaluate_classifier(table, model=model, split="all", num_draws=0).scores["colour"].num_examples == 6
    [head] = evaluate_classifier(table, model=model, split="train", head="colour", num_draws=0).scores
    assert head == "colour"


def test_rendered_scenes(tmp_path: Path) -> None:
    names = SCENE_HEADS["motion"]
    config = replace(CONFIG, heads=(("motion", tuple(reversed(names))), ("size", ("small", "large"))))
    model = saved(tmp_path / "model", config)
    result = evaluate_classifier("rendered:12", model=model, num_draws=0)
    [(head, scores)] = result.scores.items()
    assert head == "motion"  # the other is no question that scenes answer
    scenes = rendered_set(12, first=1 << 41, held_out=True, num_frames=4, height=16, width=24)
    right = 0
    for example in scenes:
        answer = model.predict([np.moveaxis(example.frames(), -1, 0)]).predicted()["motion"][0]
        right += answer == names[example.classes["motion"]]
    assert scores.accuracy == pytest.approx(right / 12)
    assert [part.name for part in scores.classes] == list(reversed(names))
    sized = evaluate_classifier("rendered:2,3,20,20", model=model, split="val", num_draws=0)
    assert sized.source.startswith(f"rendered scenes {1 << 40}")
    for text in ("rendered:x", "rendered:1,2"):
        with pytest.raises(InputError, match="rendered scenes are asked for as"):
            evaluate_classifier(text, model=model)
    with pytest.raises(InputError, match="have the splits train, val, test"):
        evaluate_classifier("rendered:2", model=model, split="other")


def npz(path: Path, rng: np.random.Generator) -> dict[str, Any]:
    arrays = {}
    for split, count in (("train", 6), ("val", 3), ("test", 5)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez(path, **arrays)
    return arrays


def grey_config(*labels: str) -> ViViTConfig:
    return replace(
        CONFIG, num_frames=1, size=(28, 28), in_channels=1, patch_size=(1, 7, 7), heads=(("finding", labels),)
    )


def test_medmnist_has_its_own_classes(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = npz(tmp_path / "pneumoniamnist.npz", rng)
    model = saved(tmp_path / "model", grey_config("pneumonia", "normal"))  # in the other order
    result = evaluate_classifier(tmp_path / "pneumoniamnist.npz", model=model, split="test", num_draws=20)
    scores = result.scores["finding"]
    probs = model.predict([image[None, None] for image in arrays["test_images"]]).probabilities()["finding"]
    is_right = probs.argmax(1).numpy() == 1 - arrays["test_labels"][:, 0]
    assert scores.accuracy == pytest.approx(float(is_right.mean()))
    assert scores.num_examples == 5
    assert scores.auc is not None
    other = saved(tmp_path / "other", grey_config("cat", "dog"))
    with pytest.raises(MismatchError, match="has the label 'normal', which this classifier does not know; it tells"):
        evaluate_classifier(tmp_path / "pneumoniamnist.npz", model=other, split="test")


def test_ids(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", TOKEN_CONFIG)
    right = 0
    for index, name in enumerate(["red", "blue", "red", "blue"]):
        tokens = tokens_of(2, index)
        save(tmp_path / "ids" / name / f"{index}.tokens", tokens)
        right += model.predict([tokens]).predicted()["colour"][0] == name
    report = tmp_path / "r.html"
    result = evaluate_classifier(tmp_path / "ids", model=tmp_path / "model", head="colour", report=report)
    assert result.scores["colour"].accuracy == pytest.approx(right / 4)
    assert "data:image/png" in report.read_text()  # the confusion; ids have no pictures
    with pytest.raises(MismatchError, match="rendered scenes are pixels, and a token_vivit reads tokens"):
        evaluate_classifier("rendered:3", model=model)


def test_the_page_shows_confusion_reliability_and_mistakes(model: Any, folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "out" / "page.html"
    result = evaluate_classifier(folder, model=model, head="motion", num_draws=20, report=report)
    text = report.read_text()
    assert result.report == report
    assert text.startswith("<!doctype html>")
    assert "<script" not in text
    assert set(re.findall(r"(?:src|href)=.(.{10})", text)) == {"data:image"}
    pictures = [Image.open(io.BytesIO(base64.b64decode(found))) for found in re.findall(r"png;base64,([^\"]+)", text)]
    assert len(pictures) == 2
    assert pictures[1].width == 1200  # the sheet of mistakes
    assert text.count('<circle class="dot') == sum(part.count > 0 for part in result.scores["motion"].reliability)
    for mistake in result.scores["motion"].mistakes:
        assert result.keys[mistake.index] in text
    with pytest.raises(InputError, match=r"must end in \.html"):
        evaluate_classifier(folder, model=model, head="motion", report=tmp_path / "page.pdf")


def test_points_of_reliability_stand_where_they_belong() -> None:
    probs = np.array([[0.9, 0.1]] * 4 + [[0.3, 0.7]] * 2)
    plot = reliability_plot(reliability(probs, np.array([0, 0, 0, 1, 1, 1]), num_bins=10))
    points = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', plot)
    places = [((float(x) - 46) / 358, (420 - 44 - float(y)) / 350) for x, y, _ in points]
    assert places == [pytest.approx((0.7, 1.0), abs=1e-3), pytest.approx((0.9, 0.75), abs=1e-3)]
    assert float(points[0][2]) < float(points[1][2]) == 10.0


def test_broken_examples_are_counted(model: Any, folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "clips")
    broken = tmp_path / "clips" / "left" / "p1_1.mkv"
    broken.write_bytes(b"no video")
    with pytest.warns(TokenReelWarning, match="skipped"):
        result = evaluate_classifier(tmp_path / "clips", model=model, head="motion", num_draws=0)
    assert [key for key, _ in result.skipped] == ["left/p1_1.mkv"]
    assert result.scores["motion"].num_examples == len(result.keys) == 5
    with pytest.warns(TokenReelWarning, match="skipped"):
        first = evaluate_classifier(tmp_path / "clips", model=model, head="motion", num_examples=2, num_draws=0)
    assert first.keys == ("left/p2_2.mkv",)


def test_what_does_not_fit_is_one_sentence(model: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one label an example, this classifier the heads motion, colour; say which"):
        evaluate_classifier(folder, model=model)
    with pytest.raises(InputError, match="no head 'size'; its heads are motion, colour"):
        evaluate_classifier(folder, model=model, head="size")
    with pytest.raises(InputError, match="none of the 2 classes red, blue"):
        evaluate_classifier(folder, model=model, head="colour")
    with pytest.raises(InputError, match="number of examples must be at least 1"):
        evaluate_classifier(folder, model=model, head="motion", num_examples=0)
    with pytest.raises(InputError, match="nowhere"):
        evaluate_classifier(tmp_path / "nowhere", model=model, head="motion")
    scenes = rendered_set(2, num_frames=4, height=16, width=24)
    strange = saved(tmp_path / "strange", replace(CONFIG, heads=(("size", ("a", "b")), ("sound", ("c", "d")))))
    with pytest.raises(MismatchError, match="where the source has one label, say which head is asked"):
        evaluate_classifier(scenes, model=strange)
