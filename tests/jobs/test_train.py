"""Whole runs: killed and resumed to the bit, refused, interrupted, out of disk or memory, on several processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tokenreel.train.checkpoint as checkpoint
from tokenreel.errors import InputError, MismatchError, TokenReelWarning, TrainingError
from tokenreel.jobs.train import train
from tokenreel.media.write import write
from tokenreel.render import natural_clip
from tokenreel.tokenizers import load
from tokenreel.train.adversarial_pair import AdversarialPair
from tokenreel.train.log import RunLog, read_log
from tokenreel.train.losses import Losses
from tokenreel.train.recipes import load_recipe

torch.set_num_threads(1)

STACK = "{dim: 32, spatial_depth: 1, temporal_depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 64}"
TINY = [
    *[f"model.changes.encoder={STACK}", f"model.changes.decoder={STACK}"],
    *["data.batches.size=16", "data.batches.num_frames=5", "data.batches.batch_size=2", "data.num_workers=0"],
    *["loop.steps=8", "loop.log_every=1", "loop.checkpoint_every=4", "loop.look_every=0"],
    *["optim.kind=adamw", "optim.lr=2e-3", "optim.warmup_steps=2", "optim.ema_decay=0.9"],
    "model.changes.linear_path=false",
]
CRITIC = [
    "model.changes.quantizer={kind: vq, codebook_size: 32, codebook_dim: 8, learning: ema, revive_every: 3}",
    "losses.adversarial={generator: {weight: 0.1, start_step: 3}, r1: 1, lecam: 0.1, "
    "discriminator: {kind: patch, dim: 8, depth: 1}}",
]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips and two pictures, larger than what is seen of them."""
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(3):
        write(folder / f"{seed}.mp4", natural_clip(seed, 9, 24, 32))
    for seed in range(2):
        Image.fromarray(natural_clip(9 + seed, 1, 24, 32).frames_THWC[0]).save(folder / f"{seed}.png")
    return folder


def run(folder: Path, data: Path | str, *changes: str, **options: Any) -> dict[str, Any]:
    overrides = [*TINY, *changes]
    return train("tiny-cvivit", folder=folder, overrides=overrides, data=[str(data)], device="cpu", **options)


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_log(folder / "metrics.jsonl")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "tokenizer" / "model.safetensors")


def assert_same_run(found: Path, wanted: Path) -> None:
    assert losses(found) == losses(wanted)
    assert (found / "tokenizer" / "model.safetensors").read_bytes() == (
        wanted / "tokenizer" / "model.safetensors"
    ).read_bytes()


def steps_kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


KILLED = """
import json, os, signal, sys, traceback
from pathlib import Path
import torch
torch.set_num_threads(1)
import tokenreel.jobs.train as jobs
import tokenreel.train.checkpoint as checkpoint
import torch.utils.tensorboard, torch._dynamo, pydantic, av
from tokenreel.train.loop import Trainer

root, data, changes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def between(values):
    if values["step"] == 7:
        die()

def save_half(*args, saved=[], real=checkpoint.state_dict_saver.save, **options):
    real(*args, **options)
    saved.append(1)
    if len(saved) == 2:  # files are there, the checkpoint has no name yet
        die()

def save_and_die(self, real=Trainer.save):
    done = real(self)
    if self.step == 8:
        die()
    return done

def child(folder, place="", resume=False):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        if place == "during":
            checkpoint.state_dict_saver.save = save_half
        if place == "after":
            Trainer.save = save_and_die
        jobs.train("tiny-cvivit", folder=root / folder, overrides=changes, data=[data], resume=resume, device="cpu",
                   on_line=between if place == "between" else None)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

assert child("whole") == 0
for place in sys.argv[4:]:
    last = {"between": 4, "during": 4, "after": 8}[place]
    assert child(place, place) == -signal.SIGKILL, place
    names = sorted(path.name for path in (root / place / "checkpoints").iterdir() if path.name[0] != ".")
    assert names[-1] == f"step-{last:07d}", names
    assert not (root / place / "tokenizer").exists()
    assert child(place, resume=True) == 0, place
"""


PLACES = ("between", "during", "after")  # checkpoints, the writing of one, one


def check_kills(tmp_path: Path, clips: Path, *changes: str, places: tuple[str, ...] = PLACES) -> None:
    # A worker outlives its killed process by seconds: what it holds open must not be what we wait for.
    with (tmp_path / "said.txt").open("w") as said:
        given = json.dumps([*TINY, "loop.steps=11", "data.num_workers=1", *changes])
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(clips), given, *places]
        done = subprocess.run(command, env=ENV, stdout=said, stderr=said, timeout=300, check=False)
    assert done.returncode == 0, (tmp_path / "said.txt").read_text()[-3000:]
    for place in places:
        assert_same_run(tmp_path / place, tmp_path / "whole")
        assert not [name for name in steps_kept(tmp_path / place) if name.startswith(".")]
    assert [step for step, _ in losses(tmp_path / "whole")] == list(range(1, 12))


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path, clips: Path) -> None:
    check_kills(tmp_path, clips, places=("during",))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        ["model.changes.linear_path=true"],
        CRITIC,
        ["optim.kind=muon", "loop.accumulate=2"],
        ["loop.precision=bf16", "data.batches.num_frames=[1, 5]", "data.batches.one_frame_share=0.3", *CRITIC],
    ],
    ids=["linear", "critic", "muon", "bf16"],
)
def test_kills_at_all_places_of_other_runs(tmp_path: Path, clips: Path, changes: list[str]) -> None:
    check_kills(tmp_path, clips, *changes)


def test_a_run_leaves_all_that_it_should(tmp_path: Path, clips: Path) -> None:
    result = run(tmp_path, clips, "loop.look_every=4", *CRITIC)
    assert (result["steps"], result["finished"], result["resumed_from"], result["broken"]) == (8, True, None, [])
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["step-0000004.png", "step-0000008.png"]
    assert np.asarray(Image.open(tmp_path / "pictures" / "step-0000008.png")).std() > 10
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert steps_kept(tmp_path) == ["step-0000004", "step-0000008"]
    about = json.loads((tmp_path / "recipe.json").read_text())
    assert about["model"]["config"]["encoder"]["dim"] == 32
    tokenizer = load(result["tokenizer"])
    (tokens,) = tokenizer.encode([torch.rand(3, 6, 17, 20) * 2 - 1])
    assert tokens.fingerprint == tokenizer.fingerprint
    assert tokenizer.decode([tokens])[0].shape == (3, 6, 17, 20)
    line = read_log(tmp_path / "metrics.jsonl")[-1]
    assert {"critic_loss", "r1_loss", "commit_loss", "psnr_db", "usage", "lr", "data_wait_share"} <= line.keys()


def test_what_is_exported_is_the_average(tmp_path: Path, clips: Path) -> None:
    run(tmp_path / "average", clips, "loop.steps=1")
    run(tmp_path / "plain", clips, "loop.steps=1", "optim.ema_decay=null")
    first = load_recipe("tiny-cvivit", overrides=TINY, data=["x"]).model.build(seed=0).state_dict()
    average, plain = weights(tmp_path / "average"), weights(tmp_path / "plain")
    assert any(not torch.equal(plain[name], first[name]) for name in first)
    for name in first:  # the average begins at 0.1: see optim.Average
        torch.testing.assert_close(average[name], 0.1 * first[name] + 0.9 * plain[name])


def test_half_precision_is_written_where_it_is_asked_for(tmp_path: Path, clips: Path) -> None:
    run(tmp_path / "full", clips, "loop.steps=2")
    run(tmp_path / "half", clips, "loop.steps=2", "loop.half=true")
    full, half = (load_file(tmp_path / name / "tokenizer" / "model.safetensors") for name in ("full", "half"))
    whole = {name for name in full if load(tmp_path / "half" / "tokenizer").is_kept_whole(name)}
    assert 0 < len(whole) < len(full)
    for name, tensor in full.items():
        wanted = tensor.half() if tensor.is_floating_point() and name not in whole else tensor
        assert half[name].dtype == wanted.dtype
        torch.testing.assert_close(half[name], wanted, rtol=0, atol=0)


def test_bf16_runs(tmp_path: Path, clips: Path) -> None:
    result = run(tmp_path, clips, "loop.precision=bf16", "loop.steps=3", *CRITIC)
    assert result["bad_steps"] == 0
    assert all(np.isfinite(loss) for _, loss in losses(tmp_path))


def test_rendered_scenes_and_pictures_of_them(tmp_path: Path) -> None:
    run(tmp_path, "rendered", "loop.steps=2", "loop.look_every=2")
    assert (tmp_path / "pictures" / "step-0000002.png").is_file()


# What goes wrong on the way.


def poison(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """``act(step, total)`` has a say in every loss."""
    real = Losses.forward

    def forward(self: Losses, *args: Any, step: int, **options: Any) -> Any:
        total, metrics = real(self, *args, step=step, **options)
        return act(step, total), metrics

    monkeypatch.setattr(Losses, "forward", forward)


def test_a_loss_that_is_not_finite_is_skipped_and_counted(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda step, total: total * torch.nan if step in (2, 5) else total)
    result = run(tmp_path, clips)
    assert (result["bad_steps"], result["finished"]) == (2, True)
    found = losses(tmp_path)
    assert [step for step, loss in found if loss is None] == [3, 6]
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


def test_a_bad_step_of_the_critic_does_not_spoil_its_averages(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AdversarialPair.forward

    def forward(self: AdversarialPair, ours: torch.Tensor, theirs: torch.Tensor, *, step: int, **options: Any) -> Any:
        return real(self, ours * torch.nan if step == 5 else ours, theirs, step=step, **options)

    monkeypatch.setattr(AdversarialPair, "forward", forward)
    result = run(tmp_path, clips, *CRITIC)
    assert result["bad_steps"] == 1
    found = [line.get("critic_loss") for line in read_log(tmp_path / "metrics.jsonl")]
    assert found[5] is None
    assert None not in (found[4], found[6], found[7])


def test_many_of_them_end_the_run_with_advice(tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda step, total: total * torch.inf if step > 4 else total)
    with pytest.raises(TrainingError, match=r"lower optim\.lr"):
        run(tmp_path, clips, "loop.steps=20", "loop.max_bad_steps=3")
    assert steps_kept(tmp_path)[0] == "step-0000004"
    assert not (tmp_path / "tokenizer").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("alloc: can't allocate memory: 9 bytes"),
    ],
    ids=["cuda", "python", "cpu"],
)
def test_out_of_memory(tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def act(step: int, total: torch.Tensor) -> torch.Tensor:
        if step == 5:
            raise error
        return total

    with monkeypatch.context() as patch:
        poison(patch, act)
        with pytest.raises(TrainingError, match=r"out of memory at step 5; take smaller batches"):
            run(tmp_path / "cut", clips)
    assert steps_kept(tmp_path / "cut") == ["step-0000004"]


def test_other_errors_keep_their_names(tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(step: int, total: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a mistake of ours")

    poison(monkeypatch, act)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run(tmp_path, clips)


def full(*args: Any, **options: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_a_full_disk(tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_line(values: dict[str, float]) -> None:
        if values["step"] == 5:
            patch.setattr(checkpoint.state_dict_saver, "save", full)
            patch.setattr(RunLog, "_append", full)

    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(TrainingError, match="the last checkpoint, of step 8, could not be written; free the disk"):
            run(tmp_path / "cut", clips, on_line=on_line)
    assert sum("could not be written" in str(one.message) for one in told) == 2  # the log and the checkpoint, once each
    assert steps_kept(tmp_path / "cut") == ["step-0000004"]
    run(tmp_path / "cut", clips, resume=True)
    run(tmp_path / "whole", clips)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_no_room_for_the_tokenizer(tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(TrainingError, match="could not be written"):
            run(tmp_path, clips)
    assert run(tmp_path, clips, resume=True)["resumed_from"] == 8
    assert weights(tmp_path)


def test_an_unreadable_clip_is_named_and_replaced(tmp_path: Path, clips: Path) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    (folder / "broken.mp4").write_bytes(b"no video at all" * 100)
    with pytest.warns(TokenReelWarning, match=r"replaced the broken example .*broken\.mp4"):
        result = run(tmp_path / "run", folder, "data.num_workers=1")
    assert result["finished"]
    assert len(result["broken"]) == 1
    assert "broken" in result["broken"][0]


def test_no_data_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(InputError, match=name):
            run(tmp_path / "run", tmp_path / name)
    assert not (tmp_path / "run").exists()


def test_folders_that_cannot_be_taken(tmp_path: Path, clips: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file; name a folder"):
        run(tmp_path / "file", clips)
    run(tmp_path / "run", clips, "loop.steps=1")
    with pytest.raises(InputError, match="say --resume to go on"):
        run(tmp_path / "run", clips)
    with pytest.warns(TokenReelWarning, match="holds no checkpoint yet"):
        assert run(tmp_path / "new", clips, "loop.steps=1", resume=True)["resumed_from"] is None


# Going on.


def test_only_what_can_change_may_change(tmp_path: Path, clips: Path) -> None:
    run(tmp_path, clips, "loop.steps=4", *CRITIC)
    more = "loop.steps=6"
    for change, message in (
        ("model.changes.encoder.mlp_dim=96", r"model\.config\.encoder\.mlp_dim=64, this one has 96"),
        ("model.frozen=encoder", r"model\.frozen=None"),
        ("name=other", "name='tiny-cvivit'"),
        ("optim.kind=muon", r"optim\.kind='adamw'"),
        ("optim.ema_decay=null", r"optim\.ema_decay=0\.9"),
        ("losses.adversarial=null", r"losses\.adversarial"),
        ("losses.adversarial.lecam=null", r"losses\.adversarial\.lecam"),
        ("losses.adversarial.discriminator.depth=2", r"discriminator\.depth=1"),
        ("data.batches.size=24", "the batches would be others"),
        ("loop.seed=1", "the batches would be others"),
    ):
        with pytest.warns() if change == "loop.seed=1" else warnings.catch_warnings():  # noqa: SIM117
            with pytest.raises(MismatchError, match=message):
                run(tmp_path, clips, more, *CRITIC, change, resume=True)
    assert steps_kept(tmp_path) == ["step-0000004"]
    with pytest.warns(TokenReelWarning, match=r"optim\.lr \(0\.002 -> 0\.001\)"):
        result = run(tmp_path, clips, more, *CRITIC, "optim.lr=1e-3", "loop.log_every=2", resume=True)
    assert (result["resumed_from"], result["steps"], result["finished"]) == (4, 6, True)
    assert [step for step, _ in losses(tmp_path)] == [1, 2, 3, 4, 6]
    again = run(tmp_path, clips, more, *CRITIC, "optim.lr=1e-3", resume=True)  # now nothing differs, nothing is left
    assert (again["resumed_from"], again["steps"], again["finished"]) == (6, 6, True)


def test_a_run_begun_when_there_was_one_objective_goes_on(tmp_path: Path, clips: Path) -> None:
    run(tmp_path, clips, "loop.steps=4")
    path = tmp_path / "recipe.json"
    about = json.loads(path.read_text())
    assert about.pop("objective") == "autoencode"
    path.write_text(json.dumps(about))
    assert run(tmp_path, clips, "loop.steps=5", resume=True)["resumed_from"] == 4  # a warning would be an error
    path.write_text(json.dumps({**about, "objective": "masked"}))
    with pytest.raises(MismatchError, match="objective='masked'"):
        run(tmp_path, clips, "loop.steps=6", resume=True)


def test_an_interrupt_ends_with_a_checkpoint(tmp_path: Path, clips: Path) -> None:
    def on_line(values: dict[str, float]) -> None:
        if values["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    result = run(tmp_path / "cut", clips, on_line=on_line)
    assert (result["steps"], result["finished"]) == (3, False)
    assert weights(tmp_path / "cut")
    run(tmp_path / "cut", clips, resume=True)
    run(tmp_path / "whole", clips)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_an_interrupt_at_the_terminal_reaches_workers_too(tmp_path: Path, clips: Path) -> None:
    command = [sys.executable, "-m", "tokenreel.cli.main", "train", "tiny-cvivit", "-d", str(clips), "--device", "cpu"]
    command += ["-o", str(tmp_path / "run"), *TINY, "loop.steps=100000", "data.num_workers=2"]
    with (tmp_path / "said.txt").open("w") as said:
        running = subprocess.Popen(command, env=ENV, stdout=said, stderr=said, start_new_session=True)
        log = tmp_path / "run" / "metrics.jsonl"
        for _ in range(600):
            if len(read_log(log)) > 5 or running.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(timeout=60) == 0
    text = (tmp_path / "said.txt").read_text()
    assert "stopped after" in text
    assert "--resume goes on" in text
    assert "Traceback" not in text
    assert steps_kept(tmp_path / "run")[-1] == f"step-{losses(tmp_path / 'run')[-1][0]:07d}"


# Going on from another tokenizer.


def test_a_frozen_encoder_keeps_its_weights_and_ids(tmp_path: Path, clips: Path) -> None:
    run(tmp_path / "first", clips, *CRITIC)
    start = tmp_path / "first" / "tokenizer"
    result = run(tmp_path / "second", clips, f"model.init={start}", "model.frozen=encoder", CRITIC[1])
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert before.keys() == after.keys()
    parts = load(start).encoder_parts  # type: ignore[union-attr]
    for name, tensor in before.items():
        if name.startswith(parts):
            assert torch.equal(after[name], tensor), name
    assert sum(not torch.equal(after[n], before[n]) for n in before if not n.startswith(parts)) > 10
    video = torch.rand(3, 5, 16, 16) * 2 - 1
    ids = [load(one).encode([video])[0].ids_L for one in (start, result["tokenizer"])]
    assert np.array_equal(*ids)


def test_another_tokenizer_is_started_from_at_another_size(tmp_path: Path, clips: Path) -> None:
    run(tmp_path / "first", clips)
    start = tmp_path / "first" / "tokenizer"
    options = (f"model.init={start}", "data.batches.size=24", "loop.steps=1", "optim.ema_decay=null")
    run(tmp_path / "second", clips, *options, "optim.lr=1e-12")
    for name, tensor in weights(tmp_path / "first").items():
        torch.testing.assert_close(weights(tmp_path / "second")[name], tensor, rtol=0, atol=1e-9)
    with pytest.raises(InputError, match="without weights"):
        run(tmp_path / "third", clips, "model.init=raw")
    with pytest.raises(InputError, match="nowhere"):
        run(tmp_path / "third", clips, "model.init=nowhere")


# Several processes.


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [CRITIC, ["loop.parallel=fsdp"], ["loop.accumulate=2", CRITIC[1]]],
    ids=["ddp", "fsdp", "accumulated"],
)
def test_two_processes_train_and_go_on(tmp_path: Path, clips: Path, changes: list[str]) -> None:
    folder = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "tokenreel.cli.main", "train", "tiny-cvivit", "-d", str(clips), "--device", "cpu"]
    command += ["-o", str(folder), *TINY, "data.num_workers=1", "loop.look_every=4", *changes, "--json"]

    def go(*more: str) -> dict[str, Any]:
        done = subprocess.run([*command, *more], env=ENV, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout)  # one process speaks
        return found

    assert go()["finished"]
    tokens = load(folder / "tokenizer").encode([torch.rand(3, 5, 16, 16) * 2 - 1])
    assert tokens[0].num_tokens == 2 * 2 * 2
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    for path in (folder / "tokenizer", folder / "checkpoints" / "step-0000008"):
        shutil.rmtree(path)
    assert go("--resume")["resumed_from"] == 4
    assert_same_run(folder, whole)
    with pytest.raises(InputError, match="written by 2 processes"):
        run(folder, clips, *changes, "data.num_workers=1", resume=True)
