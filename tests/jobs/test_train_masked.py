"""Runs of generators: killed and resumed to the bit, with critics, and what a run leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokened import TINY, shards_in, tokenizer_in

import tokenreel as tr
from tokenreel.data.pixel_manifest import PixelSpec
from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.generate import MaskGIT, TokenCritic, Vocabulary
from tokenreel.generate.sample import sample
from tokenreel.jobs.encode_many import encode_many
from tokenreel.jobs.generate import generate_video
from tokenreel.jobs.prepare import prepare_pixels
from tokenreel.jobs.train import train
from tokenreel.jobs.train_masked import _codes
from tokenreel.tokenizers import load
from tokenreel.tokens.shards import ShardReader
from tokenreel.train.log import read_log

torch.set_num_threads(1)

STACK = "{dim: 32, depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 32}"
SMALL = [
    *TINY,
    *["data.batches.batch_size=2", "data.batches.image_share=0.3", "loop.steps=6", "loop.log_every=1"],
    *["loop.checkpoint_every=3", "loop.look_every=0", "optim.lr=2e-3", "optim.warmup_steps=2", "optim.ema_decay=0.9"],
]
TOKEN = f"critic={{kind: token, changes: {{stack: {STACK}, context_dim: 16}}}}"
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    shards_in(folder, num_clips=4)
    return folder


def run(root: Path, folder: Path, *changes: str, **options: Any) -> dict[str, Any]:
    overrides = [*SMALL, *changes]
    data = [str(root / "shards")]
    return train("tiny-maskgit", folder=folder, overrides=overrides, data=data, device="cpu", **options)


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_log(folder / "metrics.jsonl")]


def weights(folder: Path, name: str = "generator") -> dict[str, torch.Tensor]:
    return load_file(folder / name / "model.safetensors")


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tokenreel.jobs.generate import generate_video
from tokenreel.jobs.train import train
from tokenreel.jobs.train_masked import _codes

folder, data, *changes = sys.argv[1:]

def die(values):
    if values["step"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)

train("tiny-maskgit", folder=Path(folder), overrides=changes, data=[data], device="cpu", on_line=die)
"""


@pytest.mark.parametrize("changes", [[f"{TOKEN[:-1]}, fooling: 0.2, start_step: 2}}"]], ids=["critic"])
def test_a_killed_run_goes_on_as_if_nothing_had_been(root: Path, tmp_path: Path, changes: list[str]) -> None:
    given = [str(tmp_path / "cut"), str(root / "shards"), *SMALL, *changes]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *given], env=ENV, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    assert not (tmp_path / "cut" / "generator").exists()
    result = run(root, tmp_path / "cut", *changes, resume=True)
    assert (result["resumed_from"], result["steps"]) == (3, 6)
    run(root, tmp_path / "whole", *changes, "data.num_workers=0")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    for name in ("generator", "critic"):
        ours, theirs = weights(tmp_path / "cut", name), weights(tmp_path / "whole", name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    learned_from = ["fooling_loss" in line for line in read_log(tmp_path / "whole" / "metrics.jsonl")]
    assert learned_from == [False, False, True, True, True, True]


def test_a_critics_head_that_does_not_learn_keeps_no_run_from_going_on(root: Path, tmp_path: Path) -> None:
    head = "model.changes.self_critic=true"
    run(root, tmp_path / "run", head, "loop.steps=3")
    assert run(root, tmp_path / "run", head, "loop.steps=4", resume=True)["resumed_from"] == 3
    after = [f"model.init={tmp_path / 'run' / 'generator'}", "critic={kind: self, after: true}", "loop.steps=2"]
    before = weights(tmp_path / "run")
    run(root, tmp_path / "critic", *after)
    now = weights(tmp_path / "critic")
    changed = {key for key in now if not torch.equal(now[key], before[key])}
    assert changed == {"critic_head.weight", "critic_head.bias"}


def test_a_run_leaves_a_folder_that_suffices(root: Path, tmp_path: Path) -> None:
    result = run(root, tmp_path / "run", "loop.look_every=3", "critic={kind: self}")
    assert result["trained"] == "generator"
    model = MaskGIT.from_pretrained(result["generator"])
    assert model.critic_head is not None
    kept = load(tmp_path / "run" / "generator" / "tokenizer")
    assert kept.fingerprint == ShardReader(root / "shards").fingerprint == model.vocab.fingerprint
    pictures = sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir())
    assert pictures == ["step-0000003.png", "step-0000006.png"]
    assert np.asarray(Image.open(tmp_path / "run" / "pictures" / pictures[0])).std() > 10
    made = generate_video("a circle", tmp_path / "a.mkv", model=result["generator"], changes={"steps": 2})
    assert (made.num_frames, made.storyboard.size, made.storyboard.fps) == (9, (32, 32), 8.0)
    about = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (about["objective"], about["model"]["config"]["stack"]["dim"]) == ("masked", 32)
    line = read_log(tmp_path / "run" / "metrics.jsonl")[-1]
    assert {"guess_loss", "accuracy", "factor_accuracy", "critic_loss", "recall", "fake_share"} <= line.keys()
    for change, message in (
        ("model.changes.stack.mlp_dim=64", r"model\.config\.stack\.mlp_dim"),
        ("critic={kind: self, after: true}", r"critic\.after"),
        ("critic=null", "critic"),
        ("data.batches.image_share=0", "the batches would be others"),
    ):
        fields = ["critic={kind: self}", change]
        if "after" in change:
            fields.append(f"model.init={result['generator']}")
        with pytest.raises(MismatchError, match=message):
            run(root, tmp_path / "run", "loop.steps=8", *fields, resume=True)


def test_a_generator_can_start_as_the_codes_of_its_tokenizer(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "drawn", "loop.steps=1", "optim.lr=1e-9", "optim.ema_decay=null")
    run(root, tmp_path / "codes", "loop.steps=1", "optim.lr=1e-9", "optim.ema_decay=null", "model.from_codes=true")
    drawn, started = weights(tmp_path / "drawn"), weights(tmp_path / "codes")
    changed = {key for key in drawn if not torch.allclose(drawn[key], started[key], atol=1e-6)}
    assert changed == {"head.weight", "network.embed.weight"}
    with pytest.raises(InputError, match=r"the ids of raw stand for no codes; leave model\.from_codes out"):
        _codes(Vocabulary.of(load("raw")))


def test_a_damaged_record_stops_neither_pictures_nor_the_end(root: Path, tmp_path: Path) -> None:
    for number, record in enumerate(ShardReader(root / "shards")):
        tr.save_tokens(tmp_path / "files" / f"{number}.tokens", record)
    whole = (tmp_path / "files" / "0.tokens").read_bytes()
    (tmp_path / "files" / "0.tokens").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(TokenReelWarning, match="replaced the broken record"):
        result = train(
            "tiny-maskgit",
            folder=tmp_path / "run",
            overrides=[*SMALL, "loop.steps=2", "loop.look_every=2"],
            data=[str(tmp_path / "files")],
            device="cpu",
        )
    assert (tmp_path / "run" / "pictures" / "step-0000002.png").is_file()
    assert json.loads((Path(result["generator"]) / "trained_on.json").read_text())["size"] == [32, 32]


def test_a_tokenizer_that_ships_is_named_and_not_copied(tmp_path: Path) -> None:
    prepare_pixels(["rendered:2,5,16,16"], tmp_path / "scenes", spec=PixelSpec(quality=None), num_threads=1)
    encode_many([tmp_path / "scenes"], tmp_path / "shards", tokenizer="video-fsq")
    result = run(tmp_path, tmp_path / "run", "loop.steps=1")
    assert not (Path(result["generator"]) / "tokenizer").exists()
    made = generate_video("a circle", tmp_path / "a.mkv", model=result["generator"], changes={"steps": 1})
    assert (made.num_frames, made.storyboard.size) == (5, (16, 16))


@pytest.mark.parametrize("kind", ["token", "self"])
def test_a_critic_learns_after_its_generator(root: Path, tmp_path: Path, kind: str) -> None:
    run(root, tmp_path / "first", "loop.steps=2")
    start = tmp_path / "first" / "generator"
    choice = f"{TOKEN[:-1]}, after: true}}" if kind == "token" else "critic={kind: self, after: true}"
    result = run(root, tmp_path / "second", f"model.init={start}", choice, "loop.steps=4")
    assert result["trained"] == ("critic" if kind == "token" else "generator")
    run(root, tmp_path / "other", "loop.steps=1")
    another = f"model.init={tmp_path / 'other' / 'generator'}"
    with pytest.raises(MismatchError, match=r"model\.judges"):
        run(root, tmp_path / "second", another, choice, "loop.steps=5", resume=True)
    before = weights(tmp_path / "first")
    if kind == "token":
        assert not (tmp_path / "second" / "generator").exists()
        critic = TokenCritic.from_pretrained(result["critic"])
        assert critic.vocab == MaskGIT.from_pretrained(start).vocab
        assert bool(critic.head.bias.abs().sum() > 0)
        return
    after = weights(tmp_path / "second")
    assert after.keys() - before.keys() == {"critic_head.weight", "critic_head.bias"}
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert bool(after["critic_head.bias"].abs().sum() > 0)


@pytest.mark.slow
def test_two_processes_train_and_go_on(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "tokenreel.cli.main", "train", "tiny-maskgit", "-d", str(root / "shards")]
    command += ["--device", "cpu", "-o", str(folder), *SMALL, f"{TOKEN[:-1]}, fooling: 0.1}}", "--json"]

    def go(*more: str) -> dict[str, Any]:
        done = subprocess.run([*command, *more], env=ENV, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    spread = subprocess.run([*command, "loop.parallel=fsdp"], env=ENV, capture_output=True, text=True, check=False)
    assert "say loop.parallel=ddp" in spread.stderr
    assert go()["finished"]
    whole, told = weights(folder), losses(folder)
    shutil.rmtree(folder / "checkpoints" / "step-0000006")
    assert go("--resume")["resumed_from"] == 3
    assert losses(folder) == told
    assert all(torch.equal(weights(folder)[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_captions_of_eight_clips_give_their_ids_back(tmp_path: Path) -> None:
    tokenizer_in(tmp_path / "tok", num_clips=8)
    shards_in(tmp_path, num_clips=8)
    changes = [
        *["model.changes.stack={dim: 96, depth: 2, num_heads: 3, head_dim: 32, mlp_dim: 192}"],
        *["model.changes.text.stack={dim: 48, depth: 2, num_heads: 2, head_dim: 24, mlp_dim: 96}"],
        *["model.changes.context_dim=48", "data.batches.batch_size=8", "data.batches.image_share=0", "loop.steps=350"],
        *["optim.lr=3e-3", "optim.warmup_steps=20", "optim.ema_decay=null", "loop.checkpoint_every=1000"],
        "masking.primed_share=0",
    ]
    result = run(tmp_path, tmp_path / "run", *changes)
    model, records = MaskGIT.from_pretrained(result["generator"]), list(ShardReader(tmp_path / "shards"))
    captions = [record.meta["caption"] for record in records]
    assert len(set(captions)) == 8
    for order in ("confidence", "halton"):
        ids = sample(
            model,
            grid=records[0].grid,
            condition=model.condition(captions),
            steps=12,
            temperature=0.0,
            order=order,
            generator=torch.Generator().manual_seed(0),
        )
        for row, record in zip(ids.numpy(), records):
            assert np.array_equal(row, record.ids_L), (order, record.meta["caption"])
