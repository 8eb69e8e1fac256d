"""A recipe to a trained tokenizer in a folder: checkpoints, logs, pictures, and the tokenizer itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.files import whole_file
from tokenreel.media.pixels import to_frames
from tokenreel.tokenizers.learned import LearnedTokenizer
from tokenreel.train.adversarial_pair import AdversarialPair
from tokenreel.train.autoencode import Autoencode
from tokenreel.train.batches import BatchStream
from tokenreel.train.log import RunLog
from tokenreel.train.loop import Trainer
from tokenreel.train.losses import Losses
from tokenreel.train.lpips import LPIPS, load_lpips
from tokenreel.train.recipes import Recipe, load_recipe
from tokenreel.train.runtime import Runtime, started

__all__ = ["dry_run", "train"]

OnLine = Callable[[dict[str, float]], None]
_SHOWN = 4  # clips in a picture
_FRAMES = 4  # frames of each


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
    """Train to the end, or on from the last checkpoint; gives a summary with the folder of the trained tokenizer.

    Args:
        recipe: name of one that ships, or a YAML file.
        folder: of the run; ``runs/NAME`` by default.
        overrides: ``field=value``.
        data: folders and files to learn from.
        resume: go on in a folder that holds a run.
        device: ``auto``, ``cpu``, ``cuda``.
        lpips: weights of LPIPS, where the recipe asks for it.
        on_line: called with every line of the log.

    Raises:
        InputError: recipe or data cannot be used. TrainingError: the run cannot go on.
    """
    plan = load_recipe(recipe, overrides=overrides, data=data)
    folder = Path("runs") / plan.name if folder is None else folder
    with started(device) as runtime:
        _check_folder(folder, resume)
        run = _Run(plan, folder, runtime, lpips=lpips, on_line=on_line)
        try:
            return run.go(resume)
        finally:
            run.close()


class _Run:
    """All parts of one run, wired together."""

    def __init__(
        self, plan: Recipe, folder: Path, runtime: Runtime, *, lpips: str | None, on_line: OnLine | None
    ) -> None:
        self.plan, self.folder, self.runtime, self.on_line = plan, folder, runtime, on_line
        self.model, self.objective = _parts(plan, runtime, lpips)
        self.stream = BatchStream(
            [choice.source() for choice in plan.data.sources],
            plan.data.batches,
            seed=plan.loop.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
            num_workers=plan.data.num_workers,
        )
        self.trainer = Trainer(
            self.model,
            self.objective,
            self.stream,
            config=plan.loop,
            optim=plan.optim,
            critic_optim=plan.critic_optim,
            folder=folder,
            runtime=runtime,
            frozen=_freeze(self.model, plan),
            on_log=self._log_line,
            on_look=self._look,
        )
        self.log: RunLog | None = None
        self._shown: list[Tensor] | None = None

    def go(self, resume: bool) -> dict[str, Any]:
        began = self.trainer.resume() if resume else False
        if self.runtime.is_main:
            self.log = RunLog(self.folder, step=self.trainer.step)
            with whole_file(self.folder / "recipe.json") as path:
                path.write_text(json.dumps(_as_json(self.plan), indent=1, default=str) + "\n")
        start, before = time.perf_counter(), self.trainer.step
        done = self.trainer.run()
        seconds = time.perf_counter() - start
        path = self.folder / "tokenizer"
        with self.trainer.averaged() as model:
            if self.runtime.is_main and isinstance(model, LearnedTokenizer):
                model.save_pretrained(path)
        self.runtime.wait()
        return {
            "recipe": self.plan.name,
            "folder": str(self.folder),
            "tokenizer": str(path),
            "steps": done,
            "finished": done == self.plan.loop.steps,
            "resumed_from": before if began else None,
            "bad_steps": self.trainer.bad_steps,
            "broken": [one.key for one in self.stream.broken],
            "seconds": round(seconds, 1),
        }

    def close(self) -> None:
        self.stream.close()
        if self.log is not None:
            self.log.close()

    def _log_line(self, values: dict[str, float]) -> None:
        if self.log is not None:
            self.log.write(values)
        if self.on_line is not None:
            self.on_line({**values, "steps": self.plan.loop.steps})

    def _look(self, step: int, model: nn.Module) -> None:
        """Originals above reconstructions, a few frames of a few clips."""
        from tokenreel.jobs.sheet import contact_sheet, save_picture

        assert isinstance(model, LearnedTokenizer)
        if self._shown is None:
            self._shown = _validation(self.plan)
        decoded = model.decode(model.encode(self._shown))
        strips = [_strip(video) for pair in zip(self._shown, decoded) for video in pair]
        names = [name for index in range(len(decoded)) for name in (f"clip {index}", f"step {step}")]
        sheet = contact_sheet(strips, names, columns=2, width=1400)
        (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
        save_picture(sheet, self.folder / "pictures" / f"step-{step:07d}.png")
        if self.log is not None:
            self.log.picture("reconstructions", np.asarray(sheet), step)


def dry_run(
    recipe: str,
    *,
    overrides: Sequence[str] = (),
    data: Sequence[str] = (),
    device: str = "auto",
    lpips: str | None = None,
) -> dict[str, Any]:
    """What a run costs here: parameters, FLOPs and seconds a step, memory, hours. Two steps run; nothing is kept."""
    from torch.utils.flop_counter import FlopCounterMode

    from tokenreel.train.optim import make_optimizers
    from tokenreel.train.runtime import generator_of

    plan = load_recipe(recipe, overrides=overrides, data=data)
    with started(device) as runtime:
        model, objective = _parts(plan, runtime, lpips)
        _freeze(model, plan)
        model.to(runtime.device).train()
        optimizers = make_optimizers(model, plan.optim)
        with BatchStream([one.source() for one in plan.data.sources], plan.data.batches, seed=plan.loop.seed) as stream:
            batches = iter(stream)
            seconds, flops, clips, tokens = 0.0, 0, 0, 0
            for turn in range(2):
                batch = next(batches)
                start = time.perf_counter()
                generator = generator_of(plan.loop.seed, turn, 0, runtime.device)
                with FlopCounterMode(display=False) as counter:
                    with torch.autocast(runtime.device.type, torch.bfloat16, enabled=plan.loop.precision == "bf16"):
                        step = objective(model, batch, step=turn, generator=generator)
                    step.loss.backward()  # type: ignore[no-untyped-call]
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
                seconds, flops = time.perf_counter() - start, counter.get_total_flops()
                clips, tokens = step.num_clips, step.num_tokens
        per_step = seconds * plan.loop.accumulate
        return {
            "recipe": plan.name,
            "parameters": model.num_parameters,
            "learned_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "clips_per_step": clips * plan.loop.accumulate,
            "tokens_per_step": tokens * plan.loop.accumulate,
            "gflop_per_step": round(flops * plan.loop.accumulate / 1e9, 2),
            "seconds_per_step": round(per_step, 3),
            "peak_memory_bytes": _peak_memory(runtime.device),
            "steps": plan.loop.steps,
            "hours": round(per_step * plan.loop.steps / 3600, 2),
            "device": str(runtime.device),
        }


def _parts(plan: Recipe, runtime: Runtime, lpips: str | None) -> tuple[LearnedTokenizer, Autoencode]:
    from tokenreel.quantize import VQ
    from tokenreel.quantize.cluster import Group

    model = plan.model.build(seed=plan.loop.seed)
    if isinstance(model.quantizer, VQ) and runtime.world_size > 1:
        model.quantizer.group = Group(runtime.rank, runtime.world_size, runtime.all_reduce)
    weights: LPIPS | None = None
    if plan.losses.needs("lpips"):
        if lpips is None:
            raise InputError("this recipe asks for LPIPS; name its weights: --lpips FILE.safetensors")
        weights = load_lpips(lpips)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.loop.seed + 1)
        critic = None if plan.losses.adversarial is None else AdversarialPair(plan.losses.adversarial)
        losses = Losses(plan.losses, lpips=weights).to(runtime.device)
    return model, Autoencode(losses, critic)


def _freeze(model: LearnedTokenizer, plan: Recipe) -> list[nn.Module]:
    if plan.model.frozen is None:
        return []
    parts: list[nn.Module] = [getattr(model, name) for name in model.encoder_parts]
    for part in parts:
        part.requires_grad_(False)
    return parts


def _check_folder(folder: Path, resume: bool) -> None:
    has_run = (folder / "checkpoints").is_dir() or (folder / "metrics.jsonl").is_file()
    if has_run and not resume:
        raise InputError(f"{folder} holds a run; say --resume to go on with it, or -o for another folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the run with -o")


def _validation(plan: Recipe) -> list[Tensor]:
    from itertools import islice

    from tokenreel.train.batches import validation_batches

    found = validation_batches([one.source() for one in plan.data.sources], plan.data.batches)
    videos = [video for batch in islice(found, _SHOWN) for video in batch.videos]
    return videos[:_SHOWN]


def _strip(video_CTHW: Tensor) -> Any:
    """A few frames side by side, uint8."""
    frames = to_frames(video_CTHW)
    index = np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)
    return rearrange(frames[index], "n H W C -> H (n W) C")


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").is_file() else []:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _as_json(plan: Recipe) -> dict[str, Any]:
    from dataclasses import asdict

    values = asdict(plan)
    values["model"]["config"] = None if plan.model.init else _config_values(plan)
    return values


def _config_values(plan: Recipe) -> dict[str, Any]:
    from tokenreel.tokenizers.configs import to_values

    return to_values(plan.model.config())
