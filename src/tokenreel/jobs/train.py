"""A recipe to a trained model in a folder: checkpoints, logs, pictures, and the model itself.

What is trained, and on what, is one file an objective: ``train_autoencode``, ``train_masked``,
``train_classify``.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tokenreel.errors import InputError, TokenReelWarning, TrainingError
from tokenreel.files import whole_file
from tokenreel.tokenizers.saved import SavedModel
from tokenreel.train.checkpoint import latest
from tokenreel.train.log import RunLog
from tokenreel.train.loop import Trainer
from tokenreel.train.recipes import Recipe, load_recipe
from tokenreel.train.runtime import Runtime, started

from .train_autoencode import AutoencodeParts
from .train_classify import ClassifyParts
from .train_masked import MaskedParts
from .train_parts import Parts
from .train_resume import about_run, check_folder, check_same

__all__ = ["PARTS", "dry_run", "train"]

PARTS: dict[str, Callable[..., Parts]] = {
    "autoencode": AutoencodeParts,
    "masked": MaskedParts,
    "classify": ClassifyParts,
}
"""What each objective (``train.recipes.OBJECTIVES``) brings: ``(recipe, runtime, lpips=, num_workers=) -> Parts``."""

OnLine = Callable[[dict[str, float]], None]
_TRIAL_STEPS, _TRIAL_SECONDS = 5, 10.0  # of a dry run: at most so many, none begun later


def train(
    recipe: str,
    *,
    folder: Path | None = None,
    overrides: Sequence[str] = (),
    data: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
    lpips: str | None = None,
    on_line: OnLine | None = None,
) -> dict[str, Any]:
    """Train to the end, or on from the last checkpoint; gives a summary with the folder of the trained model.

    Args:
        recipe: name of one that ships, or a YAML file.
        folder: of the run; ``runs/NAME`` by default.
        overrides: ``field=value``.
        data: folders and files to learn from.
        resume: go on in a folder that holds a run; more steps, another rate and other weights of losses are taken,
            another model, critic, optimizer or other data are not.
        device: ``auto``, ``cpu``, ``cuda``.
        lpips: weights of LPIPS, where the recipe asks for it.
        on_line: called with every line of the log.

    Raises:
        InputError: recipe or data cannot be used. TrainingError: the run cannot go on.
    """
    plan = load_recipe(recipe, overrides=overrides, data=data)
    folder = Path("runs") / plan.name if folder is None else folder
    with started(device) as runtime:
        check_folder(folder, resume)
        run = _Run(plan, folder, runtime, resume=resume, lpips=lpips, on_line=on_line)
        try:
            return run.go(resume)
        finally:
            run.close()


class _Run:
    """All parts of one run, wired together."""

    def __init__(
        self,
        plan: Recipe,
        folder: Path,
        runtime: Runtime,
        *,
        resume: bool,
        lpips: str | None,
        on_line: OnLine | None,
    ) -> None:
        self.plan, self.folder, self.runtime, self.on_line = plan, folder, runtime, on_line
        self.parts = PARTS[plan.objective](plan, runtime, lpips=lpips)
        self.about = about_run(plan, self.parts)
        if resume:
            check_same(folder, self.about, self.parts.fixed, warn=runtime.is_main)
        if latest(folder / "checkpoints") is None:
            self.parts.start()
        self.is_sharded = plan.loop.parallel == "fsdp" and runtime.world_size > 1
        self.trainer = _trainer(
            plan,
            self.parts,
            folder,
            runtime,
            on_log=self._log_line,
            on_look=None if self.is_sharded else self._look,  # no process has all weights
        )
        self.log: RunLog | None = None
        self.told: Mapping[str, Any] = {}

    def go(self, resume: bool) -> dict[str, Any]:
        began = self.trainer.resume() if resume else False
        if self.runtime.is_main:
            if resume and not began:
                text = f"{self.folder} holds no checkpoint yet; the run begins at its first step"
                warnings.warn(text, TokenReelWarning, stacklevel=3)
            self.log = RunLog(self.folder, step=self.trainer.step)
            with whole_file(self.folder / "recipe.json") as path:
                path.write_text(json.dumps(self.about, indent=1) + "\n")
        start, before = time.perf_counter(), self.trainer.step
        done = self.trainer.run()
        seconds = time.perf_counter() - start
        exported = self._export()
        return {
            "recipe": self.plan.name,
            "folder": str(self.folder),
            "trained": next(iter(exported)),
            **exported,
            "steps": done,
            "finished": done >= self.plan.loop.steps,
            "resumed_from": before if began else None,
            "bad_steps": self.trainer.bad_steps,
            "broken": [one.key for one in self.parts.stream.broken],
            "seconds": round(seconds, 1),
            "rank": self.runtime.rank,
            **self.told,
        }

    def _export(self) -> dict[str, str]:
        """What was trained, with averaged weights: each name of an export and its folder."""
        found: dict[str, str] = {}
        with self.trainer.averaged() as model:
            for name, one in self.parts.exports(model).items():
                whole = _gathered(one, self.runtime) if self.is_sharded else one
                path = self.folder / name
                found[name] = str(path)
                try:
                    if self.runtime.is_main:
                        whole.save_pretrained(path, half=self.plan.loop.half)
                except OSError as error:
                    raise TrainingError(
                        f"the {name} could not be written to {path} ({error.strerror or error}); the last checkpoint "
                        "is whole: free the disk and say --resume"
                    ) from error
        if self.runtime.is_main:
            self.told = self.parts.complete(self.folder) or {}
        self.runtime.wait()
        return found

    def close(self) -> None:
        self.parts.stream.close()
        if self.log is not None:
            self.log.close()

    def _log_line(self, values: dict[str, float]) -> None:
        if self.log is not None:
            self.log.write(values)
        if self.on_line is not None:
            self.on_line({**values, "steps": self.plan.loop.steps})

    def _look(self, step: int, model: nn.Module) -> None:
        """Scores and a picture; training goes on without where they cannot be made."""
        try:
            values = self.parts.measured(model, step, self.folder)
            if values and self.log is not None:
                self.log.write({"step": step, **values})
            self._picture(step, model)
        except (InputError, OSError) as error:
            warnings.warn(f"no picture of step {step}: {error}", TokenReelWarning, stacklevel=3)

    def _picture(self, step: int, model: nn.Module) -> None:
        from tokenreel.jobs.sheet import save_picture

        sheet = self.parts.picture(model, step)
        if sheet is None:
            return
        (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
        save_picture(sheet, self.folder / "pictures" / f"step-{step:07d}.png")
        if self.log is not None:
            self.log.picture("reconstructions", np.asarray(sheet), step)


def _trainer(plan: Recipe, parts: Parts, folder: Path, runtime: Runtime, **told: Any) -> Trainer:
    return Trainer(
        parts.model,
        parts.objective,
        parts.stream,
        config=plan.loop,
        optim=plan.optim,
        critic_optim=plan.critic_optim,
        folder=folder,
        runtime=runtime,
        frozen=parts.frozen,
        **told,
    )


def dry_run(
    recipe: str,
    *,
    overrides: Sequence[str] = (),
    data: Sequence[str] = (),
    device: str = "auto",
    lpips: str | None = None,
) -> dict[str, Any]:
    """What a run costs here: parameters, FLOPs and seconds a step, memory, hours. A few steps run; nothing is kept.

    They run as the last step would, so that the critic and all terms take part. The first is counted and not timed.
    """
    plan = load_recipe(recipe, overrides=overrides, data=data)
    with started(device) as runtime:
        parts = PARTS[plan.objective](plan, runtime, lpips=lpips, num_workers=0)
        with parts.stream:
            return _cost(plan, parts, _trainer(plan, parts, Path("nowhere"), runtime))


def _cost(plan: Recipe, parts: Parts, trainer: Trainer) -> dict[str, Any]:
    critic = parts.objective.critic
    batches, last = iter(parts.stream), plan.loop.steps - 1
    with _flop_counter() as counter:
        trainer.try_step(batches, last)
    times: list[float] = []
    waits: list[float] = []
    clips = tokens = 0
    began = time.perf_counter()
    while not times or (len(times) < _TRIAL_STEPS and time.perf_counter() - began < _TRIAL_SECONDS):
        start = time.perf_counter()
        found = trainer.try_step(batches, last)
        _finish(trainer.runtime.device)
        times.append(time.perf_counter() - start - found.waited_seconds)
        waits.append(found.waited_seconds)
        clips, tokens = clips + found.num_clips, tokens + found.num_tokens
    seconds = float(np.median(times))
    return {
        "recipe": plan.name,
        "parameters": sum(p.numel() for p in parts.model.parameters()),
        "learned_parameters": sum(p.numel() for p in parts.model.parameters() if p.requires_grad),
        "critic_parameters": sum(p.numel() for p in critic.parameters()) if critic else 0,
        "clips_per_step": round(clips / len(times), 1),
        "tokens_per_step": round(tokens / len(times)),
        "gflop_per_step": round(counter.get_total_flops() / 1e9, 2),
        "seconds_per_step": round(seconds, 4),
        "steps_per_second": round(1 / seconds, 3),
        "data_seconds_per_step": round(float(np.median(waits)), 4),
        "peak_memory_bytes": _peak_memory(trainer.runtime.device),
        "steps": plan.loop.steps,
        "hours": round(seconds * plan.loop.steps / 3600, 2),
        "device": str(trainer.runtime.device),
        "threads": torch.get_num_threads(),
    }


def _flop_counter() -> Any:
    """Torch's counter, and the attention kernel of the CPU, which it leaves out."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    def forward(q: Any, k: Any, v: Any, *rest: Any, **named: Any) -> int:
        return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]

    def backward(grad: Any, q: Any, k: Any, v: Any, *rest: Any, **named: Any) -> int:
        return int(sdpa_backward_flop_count(grad, q, k, v))  # type: ignore[no-untyped-call]

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    kernels = {kernel: forward, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward}
    return FlopCounterMode(display=False, custom_mapping=kernels)


def _finish(device: torch.device) -> None:
    """What was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _gathered(model: SavedModel, runtime: Runtime) -> SavedModel:
    """A model whose weights are spread over processes, whole on the first; all must ask for it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import FSDPModule

    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    family = next(one for one in type(model).__mro__ if issubclass(one, SavedModel) and not issubclass(one, FSDPModule))
    whole = family.untrained(model.config)
    if runtime.is_main:
        whole.load_state_dict(state)
    return whole


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").is_file() else []:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
