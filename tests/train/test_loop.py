"""The loop: exact resume, bad steps, averages, interrupts, full disks, several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tokenreel.errors import FormatError, TokenReelWarning, TrainingError
from tokenreel.train.checkpoint import latest
from tokenreel.train.loop import LoopConfig, Trainer
from tokenreel.train.objective import Step
from tokenreel.train.optim import Average, OptimConfig, factor_at, make_optimizers
from tokenreel.train.runtime import Runtime, has_bf16

torch.set_num_threads(1)

CPU = Runtime(device=torch.device("cpu"))
OPTIM = OptimConfig(lr=1e-2, warmup_steps=2, ema_decay=0.9)


class Numbers:
    """Batches of random vectors; the one of a number is a function of it."""

    def __init__(self) -> None:
        self.index = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            self.index += 1
            yield torch.randn(4, 8, generator=torch.Generator().manual_seed(self.index))

    def state_dict(self) -> dict[str, Any]:
        return {"index": self.index}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.index = state["index"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.norm = nn.LayerNorm(8)
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        for block in self.blocks:
            x = x + torch.tanh(block(self.norm(x)))
        return x


class Copy:
    """Learn to give the input back with noise added; at ``bad`` steps the loss is NaN."""

    def __init__(self, bad: tuple[int, ...] = (), critic: nn.Module | None = None) -> None:
        self.bad, self.critic = bad, critic

    def __call__(self, model: nn.Module, batch: Any, *, step: int, generator: torch.Generator) -> Step:
        noise = torch.randn(batch.shape, generator=generator)
        loss = (model(batch + 0.1 * noise) - batch).square().mean()
        if step in self.bad:
            loss = loss * torch.nan
        return Step(loss, {"mse": loss.detach()}, batch, len(batch), batch.numel())

    def critic_step(self, critic: nn.Module, seen: Any, *, step: int, generator: torch.Generator) -> Any:
        loss = critic(seen).square().mean()
        return loss, {"critic_loss": loss.detach()}


def trainer(folder: Path, steps: int = 12, *, objective: Copy | None = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    optim = options.pop("optim", OPTIM)
    lines: list[dict[str, float]] = []
    config = LoopConfig(**{"steps": steps, "log_every": 1, "checkpoint_every": 4, "look_every": 0, **options})
    made = Trainer(
        Net(),
        objective or Copy(),
        Numbers(),
        config=config,
        optim=optim,
        folder=folder,
        runtime=CPU,
        on_log=lines.append,
    )
    made.lines = lines  # type: ignore[attr-defined]
    return made


def losses(made: Trainer) -> list[float]:
    return [line["loss"] for line in made.lines]  # type: ignore[attr-defined]


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path: Path, kind: Any) -> None:
    optim = OptimConfig(lr=1e-2, kind=kind, warmup_steps=2, ema_decay=0.9)
    objective = Copy(critic=nn.Linear(8, 1))
    torch.manual_seed(1)
    objective.critic.reset_parameters()  # type: ignore[union-attr]
    whole = trainer(tmp_path / "whole", optim=optim, objective=objective)
    assert not whole.resume()
    whole.run()
    for stop in (3, 4, 9):  # before, at and after a checkpoint
        folder = tmp_path / f"cut-{stop}"
        torch.manual_seed(1)
        objective = Copy(critic=nn.Linear(8, 1))
        torch.manual_seed(1)
        objective.critic.reset_parameters()  # type: ignore[union-attr]
        first = trainer(folder, optim=optim, objective=objective)
        source = iter(first.batches)
        from tokenreel.train.loop import _Rates

        for _ in range(stop):  # killed: no farewell
            values = first._one_step(source, _Rates())
            first.step += 1
            first._after(values, _Rates())
        second = trainer(folder, optim=optim, objective=Copy(critic=nn.Linear(8, 1)))
        if second.resume():
            assert second.step == stop // 4 * 4
        else:
            assert stop < 4
            second = trainer(folder, optim=optim, objective=first.objective)  # type: ignore[arg-type]
            second.objective.critic.load_state_dict(objective_start())  # type: ignore[union-attr]
        second.run()
        assert losses(second) == losses(whole)[-len(losses(second)) :]
        assert_same(weights(second.bare), weights(whole.bare))
        assert whole.average is not None
        assert second.average is not None
        assert_same(second.average.weights, whole.average.weights)
        assert_same(weights(second.objective.critic), weights(whole.objective.critic))  # type: ignore[arg-type]


def objective_start() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    critic = nn.Linear(8, 1)
    torch.manual_seed(1)
    critic.reset_parameters()
    return critic.state_dict()


def test_a_bad_step_changes_nothing_and_is_counted(tmp_path: Path) -> None:
    made = trainer(tmp_path, 1, objective=Copy(bad=(0,)))
    before = weights(made.bare)
    made.run()
    assert_same(weights(made.bare), before)  # running means included
    assert made.bad_steps == 1
    assert made.lines[-1]["bad_steps"] == 1  # type: ignore[attr-defined]


def test_many_bad_steps_stop_the_run_with_advice(tmp_path: Path) -> None:
    made = trainer(tmp_path, 40, objective=Copy(bad=tuple(range(6, 40))), max_bad_steps=5)
    with pytest.raises(TrainingError, match="not finite"):
        made.run()
    assert latest(tmp_path / "checkpoints") is not None


def test_accumulated_batches_are_one_large_one(tmp_path: Path) -> None:
    class Pairs(Numbers):
        def __iter__(self) -> Iterator[torch.Tensor]:
            source = super().__iter__()
            while True:
                yield torch.cat([next(source), next(source)])

    class Quiet(Copy):
        def __call__(self, model: nn.Module, batch: Any, **options: Any) -> Step:
            loss = (model(batch) - batch).square().mean()
            return Step(loss, {}, None, len(batch), 0)

    twice, once = trainer(tmp_path / "a", 4, objective=Quiet(), accumulate=2), trainer(tmp_path / "b", 4)
    once.objective, once.batches = Quiet(), Pairs()
    twice.run()
    once.run()
    for a, b in zip(twice.bare.parameters(), once.bare.parameters()):
        torch.testing.assert_close(a, b)


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    trainer(tmp_path, 14, keep=2).run()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-0000012", "step-0000014"]


def test_an_interrupt_ends_with_a_checkpoint(tmp_path: Path) -> None:
    class Interrupted(Copy):
        def __call__(self, model: nn.Module, batch: Any, *, step: int, generator: torch.Generator) -> Step:
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(model, batch, step=step, generator=generator)

    before = signal.getsignal(signal.SIGINT)
    assert trainer(tmp_path, 12, objective=Interrupted()).run() == 3
    assert signal.getsignal(signal.SIGINT) is before
    again = trainer(tmp_path, 12)
    assert again.resume()
    assert again.step == 3


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(tmp_path, 12)
    import tokenreel.train.checkpoint as checkpoint

    real, calls = checkpoint.state_dict_saver.save, []

    def full(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    monkeypatch.setattr(checkpoint.state_dict_saver, "save", full)
    with pytest.warns(TokenReelWarning, match="No space left"):
        assert made.run() == 12
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-0000004", "step-0000012"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    trainer(tmp_path, 4).run()
    path = latest(tmp_path / "checkpoints")
    assert path is not None
    for file in path.glob("*.distcp"):
        file.unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        trainer(tmp_path, 4).resume()


def test_the_average_is_the_exponential_mean() -> None:
    module = nn.Linear(1, 1, bias=False)
    average, expected = Average(module, 0.9), module.weight.item()
    for step in range(30):
        with torch.no_grad():
            module.weight.fill_(float(step))
        decay = min(0.9, (1 + step) / (10 + step))
        average.update(module, step)
        expected = decay * expected + (1 - decay) * step
    with average.swapped(module):
        assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert module.weight.item() == 29


def test_only_matrices_decay_and_muon_takes_those_of_blocks() -> None:
    net = Net()
    adamw, muon = make_optimizers(net, OptimConfig(lr=1e-3, kind="muon"))
    assert [p.shape for group in muon.param_groups for p in group["params"]] == [(8, 8), (8, 8)]
    assert all(p.ndim == 1 for group in adamw.param_groups for p in group["params"])
    (plain,) = make_optimizers(net, OptimConfig(lr=1e-3, weight_decay=0.1))
    decays = {p.ndim: group["weight_decay"] for group in plain.param_groups for p in group["params"]}
    assert decays == {2: 0.1, 1: 0.0}


def test_the_rate_warms_up_and_falls() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=5, final_share=0.0)
    values = [factor_at(step, 50, config) for step in range(51)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a >= b for a, b in pairwise(values[5:]))
    assert values[50] == pytest.approx(0)


TWO = """
import sys, torch
sys.path.insert(0, sys.argv[2])
torch.set_num_threads(1)
from pathlib import Path
import test_loop as t
from tokenreel.train.loop import LoopConfig, Trainer
from tokenreel.train.objective import Step
from tokenreel.train.runtime import started

class Halves(t.Numbers):
    def __init__(self, rank, size): super().__init__(); self.rank, self.size = rank, size
    def __iter__(self):
        for batch in super().__iter__():
            yield batch.chunk(self.size)[self.rank]

class Quiet(t.Copy):
    def __call__(self, model, batch, **options):
        loss = (model(batch) - batch).square().mean()
        return Step(loss, {"mse": loss.detach()}, batch, len(batch), 0)

with started("cpu") as runtime:
    torch.manual_seed(0)
    net = t.Net()
    net.mean = None
    net.forward = lambda x: [x := x + torch.tanh(b(net.norm(x))) for b in net.blocks][-1]
    made = Trainer(net, Quiet(), Halves(runtime.rank, runtime.world_size),
                   config=LoopConfig(steps=6, checkpoint_every=3, look_every=0, parallel=sys.argv[3]),
                   optim=t.OPTIM, folder=Path(sys.argv[1]), runtime=runtime)
    if len(sys.argv) > 4:
        assert made.resume()
    made.run()
    full = {k: (v.full_tensor() if hasattr(v, "full_tensor") else v) for k, v in net.state_dict().items()}
    if runtime.is_main:
        torch.save({k: v for k, v in full.items() if v is not None}, sys.argv[1] + "/weights.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_are_one_with_the_whole_batch(tmp_path: Path, parallel: str) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    here = str(Path(__file__).parent)
    one = [sys.executable, str(script), str(tmp_path / "one"), here, parallel]
    two = [
        *[sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        *[str(script), str(tmp_path / "two"), here, parallel],
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for command in (one, two):
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    expected, found = (torch.load(tmp_path / name / "weights.pt") for name in ("one", "two"))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
    again = subprocess.run([*two, "resume"], env=env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr[-3000:]


@pytest.mark.parametrize(
    ("precision", "has_units", "is_half"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("bf16", False, True),
        ("fp32", True, False),
    ],
)
def test_auto_is_half_precision_where_the_device_has_units_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any, has_units: bool, is_half: bool
) -> None:
    monkeypatch.setattr("tokenreel.train.loop.has_bf16", lambda device: has_units)
    made, seen = trainer(tmp_path, steps=1, precision=precision), []
    made.bare.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    made.run()
    assert seen == [is_half]


def test_a_processor_says_whether_it_has_units_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for units in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda units=units: units)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert has_bf16(torch.device("cpu")) is units
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert has_bf16(torch.device("cpu")) is False
