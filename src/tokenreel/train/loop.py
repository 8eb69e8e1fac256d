"""The training loop: it knows steps, optimizers and checkpoints, and nothing of any system.

One step: batches -> objective -> gradients -> clip -> optimizers -> average. A step whose loss or gradients are not
finite changes nothing but the count of such steps.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from tokenreel.errors import InputError, TrainingError

from .checkpoint import latest, load_checkpoint, save_checkpoint
from .objective import Objective, Step
from .optim import Average, OptimConfig, factor_at, make_optimizers, set_rate
from .runtime import Runtime, generator_of, has_bf16

__all__ = ["Batches", "LoopConfig", "Trainer", "Tried", "wrapped"]

_RECENT = 100  # steps among which bad ones are counted


class Batches(Protocol):
    """A stream of batches that can be taken up again."""

    def __iter__(self) -> Iterator[Any]:
        """Batches without end."""

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long a run is, and what it leaves behind.

    Attributes:
        steps: of the optimizer.
        seed: of weights, data order, views and noise.
        accumulate: batches a step.
        precision: ``bf16`` runs the model under autocast; losses, norms and quantizers stay in float32. ``auto`` is
            bf16 where the device has units for it, and fp32 elsewhere, where bf16 takes many times as long.
        checkpoint_every: steps between checkpoints.
        keep: checkpoints that stay.
        log_every: steps between lines of the log.
        look_every: steps between pictures of reconstructions; 0: none.
        compile: whether the model goes through ``torch.compile``.
        parallel: ``ddp``, or ``fsdp`` (sharded weights, for models too large for one device), with several processes.
        max_bad_steps: so many bad steps among the last 100 stop the run with advice.
        half: what was trained is written as float16, half the bytes; classifiers are then measured as they are written.
    """

    steps: int
    seed: int = 0
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    checkpoint_every: int = 500
    keep: int = 3
    log_every: int = 10
    look_every: int = 500
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    max_bad_steps: int = 20
    half: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "checkpoint_every", "keep", "log_every", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"LoopConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0 or self.look_every < 0:
            raise InputError(f"LoopConfig.seed and look_every must be at least 0, got {self.seed}, {self.look_every}")
        for name, choices in (("precision", ("fp32", "bf16", "auto")), ("parallel", ("ddp", "fsdp"))):
            if getattr(self, name) not in choices:
                raise InputError(f"LoopConfig.{name} must be one of {choices}, got {getattr(self, name)!r}")


class Tried(NamedTuple):
    """What a step that was tried had in it, and how long it waited for data."""

    num_clips: int
    num_tokens: int
    waited_seconds: float


def wrapped(module: nn.Module, config: LoopConfig, runtime: Runtime) -> nn.Module:
    """The module on its device, for several processes where there are several."""
    module = module.to(runtime.device)
    if runtime.world_size == 1:
        return module
    if config.parallel == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(runtime.device.type, (runtime.world_size,))
        for stack in [m for m in module.modules() if isinstance(m, nn.ModuleList)]:
            for block in stack:
                fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module
    from torch.nn.parallel import DistributedDataParallel

    ids = [runtime.device.index] if runtime.device.type == "cuda" else None
    # A batch of pictures does not use the weights of later frames.
    return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True, broadcast_buffers=False)


class Trainer:
    """One run in one folder: ``run()`` trains to the end, from the last checkpoint if there is one.

    Args:
        model: to train; on the CPU or its device.
        objective: its loss.
        batches: endless.
        config: the loop's.
        optim: of the model; ``critic_optim`` of the objective's critic.
        folder: of the run; checkpoints go to ``checkpoints/``.
        runtime: device and processes.
        frozen: parts of the model that stay in eval mode (their parameters take no gradient).
        on_log: called with the values of a line of the log (main process).
        on_look: called with (step, model holding the averaged weights) every ``look_every`` steps (main process).

    Attributes:
        step: steps done.
        is_half: whether the model runs in bfloat16.
        bad_steps: steps that were skipped, in all.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batches: Batches,
        *,
        config: LoopConfig,
        optim: OptimConfig,
        folder: Path,
        runtime: Runtime,
        critic_optim: OptimConfig | None = None,
        frozen: Sequence[nn.Module] = (),
        on_log: Callable[[dict[str, float]], None] | None = None,
        on_look: Callable[[int, nn.Module], None] | None = None,
    ) -> None:
        self.config, self.optim, self.runtime, self.folder = config, optim, runtime, Path(folder)
        self.objective, self.batches = objective, batches
        self.model = wrapped(model, config, runtime)
        self.bare = model
        self.called: nn.Module = torch.compile(self.model) if config.compile else self.model  # type: ignore[assignment]
        self.optimizers = make_optimizers(model, optim)
        self.average = None if optim.ema_decay is None else Average(model, optim.ema_decay)
        self.critic_optim = critic_optim or optim
        self.critic: nn.Module | None = None
        self.critic_optimizers: list[torch.optim.Optimizer] = []
        if objective.critic is not None:
            self.critic = wrapped(objective.critic, config, runtime)
            self.critic_optimizers = make_optimizers(objective.critic, self.critic_optim)
        self.frozen = frozen
        self.on_log, self.on_look = on_log, on_look
        self.is_half = config.precision == "bf16" or (config.precision == "auto" and has_bf16(runtime.device))
        self.step = self.bad_steps = 0
        self._recent: deque[bool] = deque(maxlen=_RECENT)
        self._stop = False
        self._saved_step = 0

    def resume(self) -> bool:
        """Go on from the last checkpoint of the folder; False if there is none."""
        path = latest(self.folder / "checkpoints")
        if path is None:
            return False
        tensors = self._tensors()
        self.step, values = load_checkpoint(path, tensors, runtime=self.runtime)
        self._take(tensors)
        self.batches.load_state_dict(values["batches"])
        self.bad_steps = values["bad_steps"]
        self._recent.extend(values["recent"])
        self._saved_step = self.step
        return True

    def run(self) -> int:
        """Train to the end; gives the steps done. A first interrupt or SIGTERM ends the run after a checkpoint.

        Raises:
            TrainingError: too many steps in a row were not finite, or memory ran out.
        """
        rates = _Rates()
        with self._catching_signals():
            source = iter(self.batches)
            try:
                while self.step < self.config.steps and not self._is_stopped():
                    values = self._one_step(source, rates)
                    self.step += 1
                    self._after(values, rates)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
                    raise
                raise TrainingError(
                    f"out of memory at step {self.step}; take smaller batches (data.batches), accumulate more of them, "
                    "or say loop.precision=bf16; the last checkpoint is whole"
                ) from error
            if self._saved_step != self.step and not self.save():
                raise TrainingError(f"the last checkpoint, of step {self.step}, could not be written; free the disk")
        return self.step

    def try_step(self, source: Iterator[Any], step: int) -> Tried:
        """One step done as number ``step``, without log, picture or checkpoint: to see what it costs."""
        rates, self.step = _Rates(), step
        self._one_step(source, rates)
        return Tried(rates.clips, rates.tokens, rates.waited)

    def save(self) -> bool:
        """Write a checkpoint of the present step; False if the disk would not take it."""
        values = {
            "batches": self.batches.state_dict(),
            "bad_steps": self.bad_steps,
            "recent": list(self._recent),
        }
        is_saved = save_checkpoint(
            self.folder / "checkpoints",
            self.step,
            self._tensors(),
            values,
            keep=self.config.keep,
            runtime=self.runtime,
        )
        self._saved_step = self.step if is_saved else self._saved_step
        return is_saved

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The bare model, in eval mode, holding the averaged weights where there are any."""
        training = self.bare.training
        self.bare.eval()
        with nullcontext() if self.average is None else self.average.swapped(self.bare):
            yield self.bare
        self.bare.train(training)

    def _one_step(self, source: Iterator[Any], rates: _Rates) -> dict[str, Tensor]:
        config, runtime = self.config, self.runtime
        generator = generator_of(config.seed, self.step, runtime.rank, runtime.device)
        self.model.train()
        for part in self.frozen:
            part.eval()
        set_rate(self.optimizers, factor_at(self.step, config.steps, self.optim))
        kept = _float_buffers(self.bare)
        done: list[Step] = []
        for turn in range(config.accumulate):
            with rates.waiting():
                batch = next(source)
            with self._sharing(self.model, turn):
                with torch.autocast(runtime.device.type, torch.bfloat16, enabled=self.is_half):
                    step = self.objective(self.called, batch, step=self.step, generator=generator)
                (step.loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
            done.append(step)
            rates.add(step)
        values = {name: torch.stack([s.metrics[name].float() for s in done]).mean() for name in done[0].metrics}
        values["loss"] = torch.stack([s.loss.detach().float() for s in done]).mean()
        if self._moved_on(self.model, self.optimizers, self.optim, values, "grad_norm"):
            if self.average is not None:
                self.average.update(self.bare, self.step)
            self._critic_step(done, values, generator)
        else:
            _put_back(kept)
        return values

    def _critic_step(self, done: list[Step], values: dict[str, Tensor], generator: torch.Generator) -> None:
        if self.critic is None:
            return
        self.critic.train()
        kept = _float_buffers(self.critic)
        set_rate(self.critic_optimizers, factor_at(self.step, self.config.steps, self.critic_optim))
        for turn, step in enumerate(done):
            with self._sharing(self.critic, turn):
                found = self.objective.critic_step(self.critic, step.seen, step=self.step, generator=generator)
                if found is None:
                    return
                (found[0] / len(done)).backward()  # type: ignore[no-untyped-call]
            values |= {name: value.float() for name, value in found[1].items()}
        if not self._moved_on(self.critic, self.critic_optimizers, self.critic_optim, values, "critic_grad_norm"):
            _put_back(kept)
        self.runtime.average(buffer for buffer, _ in kept)  # LeCam's, of which a checkpoint holds one

    def _moved_on(
        self,
        module: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        optim: OptimConfig,
        values: dict[str, Tensor],
        name: str,
    ) -> bool:
        """Clip and step if loss and gradients are finite, on all processes alike; gradients are spent either way."""
        limit = float("inf") if optim.clip_norm is None else optim.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        values[name] = norm.detach()
        is_bad = ~(torch.isfinite(norm) & torch.isfinite(values["loss"]))
        is_good = not bool(self.runtime.all_reduce(is_bad.float().reshape(1)).item())
        if is_good:
            for optimizer in optimizers:
                optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self._count(is_good)
        return is_good

    def _count(self, is_good: bool) -> None:
        self._recent.append(not is_good)
        self.bad_steps += not is_good
        if sum(self._recent) > self.config.max_bad_steps:
            raise TrainingError(
                f"{sum(self._recent)} of the last {len(self._recent)} steps had a loss or gradient that is not finite "
                f"(step {self.step}); lower optim.lr, take a longer warm-up, loop.precision=fp32, or smaller loss "
                "weights; the last checkpoint is from before"
            )

    def _after(self, values: dict[str, Tensor], rates: _Rates) -> None:
        config = self.config
        is_last = self.step == config.steps
        if self.step % config.log_every == 0 or is_last:
            line = self.runtime.means(values)
            if self.on_log is not None and self.runtime.is_main:
                lr = self.optim.lr * factor_at(self.step - 1, config.steps, self.optim)
                line |= {"step": self.step, "lr": lr, "bad_steps": self.bad_steps, **rates.read()}
                self.on_log(line)
        if config.look_every and self.on_look is not None and (self.step % config.look_every == 0 or is_last):
            with self.averaged() as model:
                if self.runtime.is_main:
                    self.on_look(self.step, model)
            self.runtime.wait()
        if self.step % config.checkpoint_every == 0 and not is_last:  # the last one is written when all is done
            self.save()

    def _is_stopped(self) -> bool:
        """Whether any process was told to stop: all must leave at the same step, wherever the signal found them."""
        if self.runtime.world_size == 1:
            return self._stop
        flag = torch.tensor([float(self._stop)], device=self.runtime.device)
        return bool(self.runtime.all_reduce(flag).item())

    def _tensors(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "model": get_model_state_dict(self.model),
            "optimizers": [get_optimizer_state_dict(self.model, [one]) for one in self.optimizers],
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        if self.critic is not None:
            state["critic"] = get_model_state_dict(self.critic)
            state["critic_optimizers"] = [
                get_optimizer_state_dict(self.critic, [one]) for one in self.critic_optimizers
            ]
        return state

    def _take(self, state: dict[str, Any]) -> None:
        partly = StateDictOptions(strict=False)
        set_model_state_dict(self.model, state["model"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            set_optimizer_state_dict(self.model, [optimizer], optim_state_dict=values, options=partly)
        if self.critic is not None:
            set_model_state_dict(self.critic, state["critic"])
            for optimizer, values in zip(self.critic_optimizers, state["critic_optimizers"], strict=True):
                set_optimizer_state_dict(self.critic, [optimizer], optim_state_dict=values, options=partly)

    def _sharing(self, module: nn.Module, turn: int) -> AbstractContextManager[Any]:
        """Gradients are exchanged at the last batch of a step only."""
        is_last = turn == self.config.accumulate - 1
        if hasattr(module, "no_sync") and not is_last:
            return module.no_sync()  # type: ignore[operator, no-any-return]
        return nullcontext()

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        def stop(number: int, frame: object) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        try:
            before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread, where no signal arrives
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _float_buffers(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Running averages (an EMA codebook, LeCam's logits) and their values now, for a step that turns out bad."""
    return [(b, b.clone()) for b in module.buffers() if b.is_floating_point()]


@torch.no_grad()
def _put_back(kept: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, old in kept:
        buffer.copy_(old)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """The CPU's allocator has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class _Rates:
    """Clips and tokens a second, and the share of time spent waiting for data, since they were last read."""

    def __init__(self) -> None:
        self._reset()

    def add(self, step: Step) -> None:
        self.clips += step.num_clips
        self.tokens += step.num_tokens

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        seconds = max(time.perf_counter() - self.start, 1e-9)
        values = {
            "clips_per_second": self.clips / seconds,
            "tokens_per_second": self.tokens / seconds,
            "data_wait_share": self.waited / seconds,
        }
        self._reset()
        return values

    def _reset(self) -> None:
        self.start, self.waited, self.clips, self.tokens = time.perf_counter(), 0.0, 0, 0
