"""Leave-one-group-out: every group is measured by a run that never saw it, sums are sums, and stopped runs go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenreel.cli.main import run as main
from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.jobs import train_folds as job
from tokenreel.jobs.train_folds import FOLDS_NAME, train_folds
from tokenreel.train.loop import Trainer

torch.set_num_threads(1)

SMALL = [
    "model.changes.encoder={dim: 32, depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 32}",
    *["model.changes.num_frames=4", "model.changes.size=[16, 16]", "model.changes.stem_channels=8"],
    *["data.batches.batch_size=4", "data.num_workers=0", "loop.steps=2", "loop.checkpoint_every=1"],
]


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("actions")
    rng = np.random.default_rng(0)
    for action in ("bend", "wave"):
        (folder / action).mkdir()
        for performer in range(3):
            frames = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)) for _ in range(4)]
            frames[0].save(folder / action / f"performer{performer}.gif", save_all=True, append_images=frames[1:])
    return folder


def test_every_group_is_held_out_once_and_the_sum_is_of_all(actions: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    told = train_folds(
        "vivit-weizmann",
        folder=tmp_path,
        overrides=SMALL,
        data=[str(actions)],
        device="cpu",
        on_fold=lambda *fold: seen.append(fold),
    )
    assert seen == [(f"performer{number}", number, 3) for number in range(3)]
    assert told["finished"]
    assert json.loads((tmp_path / FOLDS_NAME).read_text()) == json.loads(json.dumps(told))
    sums = told["heads"]["label"]
    assert sums["classes"] == ["bend", "wave"]
    assert sums["examples"] == 6 == sum(map(sum, sums["confusion"]))
    assert sums["mistakes"] == sum(fold["mistakes"]["label"] for fold in told["folds"])
    assert sums["mistakes"] == 6 - sum(sums["confusion"][place][place] for place in range(2))
    low, high = sums["interval"]
    assert 0 <= low < sums["accuracy"] < high <= 1 or sums["accuracy"] in (low, high)
    for number, fold in enumerate(told["folds"]):
        recipe = json.loads((tmp_path / f"{number:02d}-performer{number}" / "recipe.json").read_text())
        assert recipe["data"]["hold_out"] == fold["group"] == f"performer{number}"
        assert fold["examples"] == 2
        assert len(fold["wrong"]) == fold["mistakes"]["label"]


def test_it_goes_on_where_it_was_stopped(
    actions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tokenreel", "train", "vivit-weizmann", *SMALL, "--data", str(actions), "--device", "cpu", "--folds"]
    whole = train_folds("vivit-weizmann", folder=tmp_path / "whole", overrides=SMALL, data=[str(actions)], device="cpu")
    real, count = job.train, 0

    def twice(*args: object, **options: object) -> object:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "train", twice)
    with pytest.raises(KeyboardInterrupt):
        train_folds("vivit-weizmann", folder=tmp_path / "cut", overrides=SMALL, data=[str(actions)], device="cpu")
    assert not (tmp_path / "cut" / FOLDS_NAME).exists()
    monkeypatch.setattr(job, "train", real)
    monkeypatch.setattr(sys, "argv", [*words, "-o", str(tmp_path / "cut")])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    assert "without performer1 (2 of 3)" in err
    assert f"label: {whole['heads']['label']['mistakes']} of 6 wrong" in out
    after = json.loads((tmp_path / "cut" / FOLDS_NAME).read_text())
    assert after["heads"] == json.loads(json.dumps(whole["heads"]))


def test_a_fold_killed_before_its_first_checkpoint_begins_anew(
    actions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"folder": tmp_path, "overrides": SMALL, "data": [str(actions)], "device": "cpu"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "run", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        train_folds("vivit-weizmann", **told)  # type: ignore[arg-type]
    assert (tmp_path / "00-performer0" / "metrics.jsonl").exists()
    with pytest.warns(TokenReelWarning, match="holds no checkpoint yet"):
        assert train_folds("vivit-weizmann", **told)["finished"]  # type: ignore[arg-type]


def test_names_of_groups_may_be_anything(actions: Path, tmp_path: Path) -> None:
    for action in ("bend", "wave"):
        (tmp_path / "set" / action).mkdir(parents=True)
        for number, name in enumerate(("\U0001f600 a", "no: 'b'")):
            content = (actions / action / f"performer{number}.gif").read_bytes()
            (tmp_path / "set" / action / f"{name}.gif").write_bytes(content)
    told = train_folds(
        "vivit-weizmann",
        folder=tmp_path / "runs",
        overrides=[*SMALL, "data.group=/(.*).gif"],
        data=[str(tmp_path / "set")],
        device="cpu",
    )
    assert sorted(fold["group"] for fold in told["folds"]) == sorted(("\U0001f600 a", "no: 'b'"))


def test_what_has_no_groups_is_refused(actions: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least two groups, got 0"):
        train_folds("vivit-weizmann", folder=tmp_path, overrides=[*SMALL, "data.group=null"], data=[str(actions)])
    with pytest.raises(InputError, match="got 0"):
        train_folds("vivit-motions", folder=tmp_path)
    with pytest.raises(InputError, match="tiny-cvivit trains something else"):
        train_folds("tiny-cvivit", folder=tmp_path, data=["rendered"])
    assert not list(tmp_path.iterdir())
