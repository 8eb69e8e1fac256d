"""Runs of classifiers: killed and resumed to the bit, scored on validation; the best weights are those that stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tokenreel.classify import ViViT, load
from tokenreel.data.labelled_rendered import rendered_set
from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.jobs.train import train
from tokenreel.jobs.train_classify import BEST_NAME, SCORES_NAME, ClassifyParts, examined
from tokenreel.measure.classification import accuracy
from tokenreel.render import HEADS
from tokenreel.train.classify_clips import ClipReader, ClipView
from tokenreel.train.log import read_log
from tokenreel.train.recipes import load_recipe
from tokenreel.train.runtime import Runtime

torch.set_num_threads(1)

SMALL = [
    "model.changes.encoder={dim: 32, depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 32}",
    *["model.changes.num_frames=4", "model.changes.size=[16, 16]", "data.batches.batch_size=4"],
    *["data.sources.0.data=rendered:24,8,16,16", "data.val_share=0.4", "data.clips.video={flip: 0.5, time_crop: 0.4}"],
    *["loop.steps=6", "loop.log_every=1", "loop.checkpoint_every=3", "loop.look_every=2", "loss.mixup=0.3"],
    *["model.changes.blocks.drop_path=0.2", "optim.lr=3e-3", "optim.warmup_steps=2", "optim.ema_decay=0.5"],
    "loop.half=false",
]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(folder: Path, *changes: str, **options: Any) -> dict[str, Any]:
    return train("vivit-motions", folder=folder, overrides=[*SMALL, *changes], device="cpu", **options)


def lines(folder: Path) -> list[dict[str, Any]]:
    timed = ("clips_per_second", "tokens_per_second", "data_wait_share")
    return [{k: v for k, v in line.items() if k not in timed} for line in read_log(folder / "metrics.jsonl")]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tokenreel.jobs.train import train

folder, *changes = sys.argv[1:]

def die(values):
    if values["step"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)

train("vivit-motions", folder=Path(folder), overrides=changes, device="cpu", on_line=die)
"""


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    given = [sys.executable, "-c", KILLED, str(tmp_path / "cut"), *SMALL]
    done = subprocess.run(given, env=ENV, capture_output=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    result = run(tmp_path / "cut", resume=True)
    assert (result["resumed_from"], result["steps"]) == (3, 6)
    whole = run(tmp_path / "whole", "data.num_workers=0", "data.batches.cache_bytes=0")
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    ours, theirs = (load_file(Path(one["classifier"]) / "model.safetensors") for one in (result, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert result["scores"] == whole["scores"]
    for change, message in (
        ("model.changes.encoder.mlp_dim=64", r"model\.config\.encoder\.mlp_dim"),
        ("data.clips.video.flip=0", "the batches would be others"),
        ("data.sources.0.data=rendered:25,8,16,16", "the batches would be others"),
    ):
        with pytest.raises(MismatchError, match=message):
            run(tmp_path / "whole", change, resume=True)


def test_the_best_weights_on_validation_are_exported(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run(folder, "scores.by=loss")
    looked = [line for line in lines(folder) if "val_loss" in line]
    assert [line["step"] for line in looked] == [2, 4, 6]
    best = min(looked, key=lambda line: line["val_loss"])
    assert kept_step(folder) == best["step"]
    kept, stays = load_file(folder / BEST_NAME), load_file(folder / "classifier" / "model.safetensors")
    assert kept.keys() == stays.keys()
    assert all(torch.equal(kept[name], stays[name]) for name in kept)
    assert result["scores"]["val"]["loss"] == pytest.approx(best["val_loss"], rel=1e-4)
    # A finished run stays as it is, and weights that another score chose are not taken for the best.
    assert run(folder, "scores.by=loss", resume=True)["scores"] == result["scores"]
    parts = ClassifyParts(load_recipe("vivit-motions", overrides=SMALL), Runtime(device=torch.device("cpu")))
    with torch.no_grad(), parts.stream:
        parts.measured(scaled(parts, 0), 10, folder)
        assert kept_step(folder) == 10


def test_in_half_precision_the_best_weights_are_rounded(tmp_path: Path) -> None:
    result = run(tmp_path / "run", "loop.half=true")
    kept, stays = (load_file(tmp_path / "run" / name) for name in (BEST_NAME, "classifier/model.safetensors"))
    assert all(torch.equal(kept[name].half(), stays[name]) for name in kept)
    parts = ClassifyParts(load_recipe("vivit-motions", overrides=SMALL), Runtime(device=torch.device("cpu")))
    assert parts.data.val is not None
    with parts.stream:
        found = examined(load(result["classifier"]), parts.data.val, parts._reader(is_random=False), batch_size=8)
    assert found.loss == pytest.approx(result["scores"]["val"]["loss"], rel=1e-6)


def test_weights_that_other_examples_chose_are_not_the_best(tmp_path: Path) -> None:
    run(tmp_path / "run", "scores.by=loss")
    changed = [*SMALL, "scores.by=loss", "data.sources.0.data=rendered:25,8,16,16"]
    parts = ClassifyParts(load_recipe("vivit-motions", overrides=changed), Runtime(device=torch.device("cpu")))
    with torch.no_grad(), parts.stream:
        parts.measured(scaled(parts, 300), 9, tmp_path / "run")  # far worse than what was kept
    assert kept_step(tmp_path / "run") == 9


def test_weights_stay_until_others_do_as_well(tmp_path: Path) -> None:
    plan = load_recipe("vivit-motions", overrides=[*SMALL, "scores.by=loss"])
    parts = ClassifyParts(plan, Runtime(device=torch.device("cpu")))
    with torch.no_grad(), parts.stream:
        steps = []
        for step, factor in enumerate((0, 300, 0, 300), start=1):
            found = parts.measured(scaled(parts, factor), step, tmp_path)
            steps.append(kept_step(tmp_path))
            assert (found["val_loss"] > 3) == (factor == 300)
        assert steps == [1, 1, 3, 3]


def scaled(parts: ClassifyParts, factor: float) -> Any:
    """The classifier with its answers drawn out; 0 takes all classes for equally likely."""
    model = type(parts.classifier).untrained(parts.classifier.config, seed=0)
    model.out.out.weight.mul_(factor)
    return model


def kept_step(folder: Path) -> int:
    with safe_open(folder / BEST_NAME, framework="pt") as file:
        return int(file.metadata()["step"])


def test_a_run_leaves_a_classifier_with_figures_and_a_card(tmp_path: Path) -> None:
    result = run(tmp_path / "run", "scores.keep_best=false")
    model = load(result["classifier"])
    assert model.heads == tuple(HEADS.items())
    assert isinstance(model, ViViT)
    card = (Path(result["classifier"]) / "README.md").read_text()
    for words in (
        "| recipe | vivit-motions, 6 steps of 4, seed 0 |",
        "`rendered:24,8,16,16`: 24 train, 10 val, 10 test",
        f"`{model.fingerprint}`",
        "| test | shape: ",
    ):
        assert words in card
    scores = json.loads((Path(result["classifier"]) / SCORES_NAME).read_text())
    assert [one["head"] for one in scores["parts"]["test"]] == list(HEADS)
    assert scores["examples"] == {"train": 24, "val": 10, "test": 10}
    mean = np.mean([one["accuracy"] for one in scores["parts"]["test"]])
    assert result["scores"]["test"]["accuracy"] == pytest.approx(mean)
    pictures = sorted((tmp_path / "run" / "pictures").iterdir())
    assert [path.name for path in pictures] == [f"step-000000{step}.png" for step in (2, 4, 6)]
    assert np.asarray(Image.open(pictures[0])).std() > 10
    about = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (about["objective"], about["model"]["family"]) == ("classify", "vivit")
    assert about["model"]["config"]["heads"][4] == ["motion", list(HEADS["motion"])]


def test_what_is_examined_is_what_the_model_predicts() -> None:
    labelled = rendered_set(5, num_frames=8, height=16, width=16, seed=2)
    config = load_config()
    model = ViViT.untrained(config, seed=1)
    reader = ClipReader(config, ClipView(), is_random=False)
    found = examined(model, labelled, reader, batch_size=2)
    videos = [torch.from_numpy(example.frames().copy()).permute(3, 0, 1, 2) for example in labelled]
    wanted = model.predict(videos).probabilities()
    assert found.numbers == list(range(5))
    loss = []
    for head, _ in model.heads:
        assert np.abs(found.probs[head] - wanted[head].double().numpy()).max() < 1e-6
        targets = labelled.targets(head)
        assert found.scores[head].accuracy == accuracy(found.probs[head], targets)
        loss.append(-np.log(found.probs[head][np.arange(5), targets]).mean())
    assert found.loss == pytest.approx(np.mean(loss), rel=1e-5)
    assert found.accuracy == pytest.approx(np.mean([one.accuracy for one in found.scores.values()]))
    assert found.auc is None  # 18 backgrounds are not among 5 scenes
    assert "auc" not in found.figures()
    assert {"motion_accuracy", "loss", "accuracy"} <= found.figures().keys()


def load_config() -> Any:
    return load_recipe("vivit-motions", overrides=SMALL).model.config(tuple(HEADS.items()))  # type: ignore[attr-defined]


def test_a_score_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scores\.by=auc needs an example of every class"):
        run(tmp_path / "run", "scores.by=auc", "loop.steps=2", "data.val_share=0.1")


@pytest.mark.slow
def test_a_class_that_can_be_seen_is_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(rng.normal(level, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    result = train(
        "tiny-vivit",
        folder=tmp_path / "run",
        overrides=[*SMALL[:4], "loop.steps=60", "loop.look_every=30", "optim.warmup_steps=5", "data.val_share=0.25"],
        data=[str(tmp_path / "data")],
        device="cpu",
    )
    assert result["scores"]["val"]["accuracy"] == 1
    assert load(result["classifier"]).heads == (("label", ("dark", "light")),)


def test_a_run_on_what_is_no_labelled_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "one.png")
    with pytest.raises(InputError, match="have no label"):
        train("tiny-vivit", folder=tmp_path / "run", data=[str(tmp_path / "data")], device="cpu")


def test_a_part_that_cannot_be_measured_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    for part, content in (("train", None), ("val", b"torn"), ("test", None)):
        for name in ("a", "b"):
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                if content is None:
                    Image.fromarray(np.full((16, 16, 3), 9 * number, np.uint8)).save(folder / f"{number}.png")
                else:
                    (folder / f"{number}.png").write_bytes(content)
    changes = [*SMALL[:2], "model.changes.size=[16, 16]", "model.changes.temporal_depth=1", "loop.steps=1"]
    with (
        pytest.warns(TokenReelWarning, match="left out"),
        pytest.raises(InputError, match="can be read"),
    ):
        train("tiny-vivit", folder=tmp_path / "run", overrides=changes, data=[str(tmp_path / "set")], device="cpu")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_from_before_an_option_goes_on_where_the_option_has_its_default(tmp_path: Path) -> None:
    run(tmp_path / "run", "loop.steps=2")
    told = tmp_path / "run" / "recipe.json"
    values = json.loads(told.read_text())
    del values["model"]["config"]["fit"], values["model"]["config_defaults"]
    told.write_text(json.dumps(values))
    assert run(tmp_path / "run", "loop.steps=3", resume=True)["steps"] == 3
    told.write_text(json.dumps(values))
    with pytest.raises(MismatchError, match="this one has 'stretch'"):
        run(tmp_path / "run", "loop.steps=4", "model.changes.fit=stretch", resume=True)
