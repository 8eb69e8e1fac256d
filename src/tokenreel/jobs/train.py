"""A recipe to a trained tokenizer in a folder: checkpoints, logs, pictures, and the tokenizer itself."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError, MismatchError, TokenReelWarning, TrainingError
from tokenreel.files import whole_file
from tokenreel.media.pixels import to_frames
from tokenreel.tokenizers.configs import to_values
from tokenreel.tokenizers.learned import LearnedTokenizer
from tokenreel.tokenizers.table import LEARNED
from tokenreel.train.adversarial_pair import AdversarialPair
from tokenreel.train.autoencode import Autoencode, start_linear_path
from tokenreel.train.batches import BatchStream, validation_batches
from tokenreel.train.checkpoint import latest
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
_TRIAL_STEPS, _TRIAL_SECONDS = 5, 10.0  # of a dry run: at most so many, none begun later

_FIXED = ("name", "model.family", "model.config", "model.frozen", "optim.kind", "critic_optim.kind")
_FIXED_WITHIN = ("model.config.", "losses.adversarial.discriminator.")
_FIXED_PRESENCE = ("optim.ema_decay", "losses.adversarial", "losses.adversarial.lecam")
_FREE = ("loop.steps", "loop.keep", "loop.log_every", "loop.look_every", "loop.checkpoint_every", "model.", "data.")


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
        _check_folder(folder, resume)
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
        self.model, objective = _parts(plan, runtime, lpips)
        self.about = _about(plan, self.model)
        if resume:
            _check_same(folder, self.about, warn=runtime.is_main)
        self.stream = _stream(plan, runtime)
        if plan.model.init is None and latest(folder / "checkpoints") is None:
            start_linear_path(self.model.to(runtime.device), self.stream, runtime)
        self.is_sharded = plan.loop.parallel == "fsdp" and runtime.world_size > 1
        self.trainer = Trainer(
            self.model,
            objective,
            self.stream,
            config=plan.loop,
            optim=plan.optim,
            critic_optim=plan.critic_optim,
            folder=folder,
            runtime=runtime,
            frozen=_freeze(self.model, plan),
            on_log=self._log_line,
            on_look=None if self.is_sharded else self._look,  # no process has all weights
        )
        self.log: RunLog | None = None
        self._shown: list[Tensor] | None = None

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
        return {
            "recipe": self.plan.name,
            "folder": str(self.folder),
            "tokenizer": str(self._export()),
            "steps": done,
            "finished": done >= self.plan.loop.steps,
            "resumed_from": before if began else None,
            "bad_steps": self.trainer.bad_steps,
            "broken": [one.key for one in self.stream.broken],
            "seconds": round(seconds, 1),
            "rank": self.runtime.rank,
        }

    def _export(self) -> Path:
        """The averaged weights as a tokenizer."""
        path = self.folder / "tokenizer"
        with self.trainer.averaged() as model:
            whole = _gathered(model, self.runtime) if self.is_sharded else model
            try:
                if self.runtime.is_main and isinstance(whole, LearnedTokenizer):
                    whole.save_pretrained(path)
            except OSError as error:
                raise TrainingError(
                    f"the tokenizer could not be written to {path} ({error.strerror or error}); the last checkpoint is "
                    "whole: free the disk and say --resume"
                ) from error
        self.runtime.wait()
        return path

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
        """A picture; training goes on without it where it cannot be made."""
        try:
            self._picture(step, model)
        except (InputError, OSError) as error:
            warnings.warn(f"no picture of step {step}: {error}", TokenReelWarning, stacklevel=3)

    def _picture(self, step: int, model: nn.Module) -> None:
        """Originals beside reconstructions, a few frames of a few clips."""
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
    """What a run costs here: parameters, FLOPs and seconds a step, memory, hours. A few steps run; nothing is kept.

    They run as the last step would, so that the critic and all terms take part. The first is counted and not timed.
    """
    plan = load_recipe(recipe, overrides=overrides, data=data)
    with started(device) as runtime, _stream(plan, runtime, num_workers=0) as stream:
        model, objective = _parts(plan, runtime, lpips)
        trainer = Trainer(
            model,
            objective,
            stream,
            config=plan.loop,
            optim=plan.optim,
            critic_optim=plan.critic_optim,
            folder=Path("nowhere"),
            runtime=runtime,
            frozen=_freeze(model, plan),
        )
        batches, last = iter(stream), plan.loop.steps - 1
        with _flop_counter() as counter:
            trainer.try_step(batches, last)
        times: list[float] = []
        waits: list[float] = []
        clips = tokens = 0
        began = time.perf_counter()
        while not times or (len(times) < _TRIAL_STEPS and time.perf_counter() - began < _TRIAL_SECONDS):
            start = time.perf_counter()
            found = trainer.try_step(batches, last)
            _finish(runtime.device)
            times.append(time.perf_counter() - start - found.waited_seconds)
            waits.append(found.waited_seconds)
            clips, tokens = clips + found.num_clips, tokens + found.num_tokens
        seconds = float(np.median(times))
        return {
            "recipe": plan.name,
            "parameters": model.num_parameters,
            "learned_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "critic_parameters": sum(p.numel() for p in objective.critic.parameters()) if objective.critic else 0,
            "clips_per_step": round(clips / len(times), 1),
            "tokens_per_step": round(tokens / len(times)),
            "gflop_per_step": round(counter.get_total_flops() / 1e9, 2),
            "seconds_per_step": round(seconds, 4),
            "steps_per_second": round(1 / seconds, 3),
            "data_seconds_per_step": round(float(np.median(waits)), 4),
            "peak_memory_bytes": _peak_memory(runtime.device),
            "steps": plan.loop.steps,
            "hours": round(seconds * plan.loop.steps / 3600, 2),
            "device": str(runtime.device),
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


def _stream(plan: Recipe, runtime: Runtime, num_workers: int | None = None) -> BatchStream:
    return BatchStream(
        [choice.source() for choice in plan.data.sources],
        plan.data.batches,
        seed=plan.loop.seed,
        rank=runtime.rank,
        world_size=runtime.world_size,
        num_workers=plan.data.num_workers if num_workers is None else num_workers,
    )


def _parts(plan: Recipe, runtime: Runtime, lpips: str | None) -> tuple[LearnedTokenizer, Autoencode]:
    from tokenreel.quantize import VQ
    from tokenreel.quantize.cluster import Group

    model = plan.model.build(seed=plan.loop.seed)
    if isinstance(model.quantizer, VQ) and runtime.world_size > 1:
        model.quantizer.group = Group(runtime.rank, runtime.world_size, runtime.all_reduce)
    weights: LPIPS | None = None
    if plan.losses.needs("lpips"):
        if lpips is None:
            raise InputError(
                "this recipe asks for LPIPS; name its weights with --lpips FILE.safetensors, or do without: "
                "losses.lpips=null losses.random=0.1"
            )
        weights = load_lpips(lpips)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.loop.seed + 1)
        critic = None if plan.losses.adversarial is None else AdversarialPair(plan.losses.adversarial)
        losses = Losses(plan.losses, lpips=weights).to(runtime.device)
    return model, Autoencode(losses, critic)


def _freeze(model: LearnedTokenizer, plan: Recipe) -> list[nn.Module]:
    if plan.model.frozen is None:
        return []
    named = [getattr(model, name) for name in model.encoder_parts]
    parts: list[nn.Module] = [part for part in named if part is not None]
    for part in parts:
        part.requires_grad_(False)
    return parts


def _check_folder(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the run with -o")
    has_run = (folder / "checkpoints").is_dir() or (folder / "metrics.jsonl").is_file()
    if has_run and not resume:
        raise InputError(f"{folder} holds a run; say --resume to go on with it, or -o for another folder")


def _about(plan: Recipe, model: LearnedTokenizer) -> dict[str, Any]:
    """The whole recipe as JSON values, with the model's configuration and what the critic is trained with."""
    values = asdict(plan)
    values["model"] |= {"family": model.name, "config": to_values(model.config)}
    values["critic_optim"] = asdict(plan.critic_optim or plan.optim)
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def _check_same(folder: Path, ours: dict[str, Any], *, warn: bool) -> None:
    """MismatchError if the run in the folder cannot become ours; what else differs is named in a warning.

    Data and seed are for the stream of batches to judge.
    """
    try:
        theirs = json.loads((folder / "recipe.json").read_text())
    except (OSError, ValueError):  # killed before it was written
        return
    old, new = _flat(theirs), _flat(ours)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name, ...) != new.get(name, ...))
    for name in names:
        is_fixed = name in _FIXED or name.startswith(_FIXED_WITHIN)
        if is_fixed or (name in _FIXED_PRESENCE and None in (old.get(name, ...), new.get(name, ...))):
            raise MismatchError(
                f"{folder} holds a run with {name}={old.get(name)!r}, this one has {new.get(name)!r}; a run keeps its "
                "recipe, model, critic and optimizer: give the same, or -o for another folder"
            )
    changed = [name for name in names if not name.startswith(_FREE)]
    if changed and warn:
        listed = ", ".join(f"{name} ({old.get(name)!r} -> {new.get(name)!r})" for name in changed)
        warnings.warn(f"the run goes on with other values than before: {listed}", TokenReelWarning, stacklevel=4)


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


def _gathered(model: nn.Module, runtime: Runtime) -> nn.Module:
    """A model whose weights are spread over processes, whole on the first; all must ask for it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    assert isinstance(model, LearnedTokenizer)
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    family = LEARNED[model.name]
    whole = family.untrained(model.config)
    if runtime.is_main:
        whole.load_state_dict(state)
    return whole


def _validation(plan: Recipe) -> list[Tensor]:
    """A few clips that are looked at again and again, some of every source."""
    each = -(-_SHOWN // len(plan.data.sources))
    found = validation_batches([one.source() for one in plan.data.sources], plan.data.batches, num_clips=each)
    return list(islice((video for batch in found for video in batch.videos), _SHOWN))


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
