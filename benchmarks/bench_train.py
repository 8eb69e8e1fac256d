"""What the training loop costs beside bare training, and how long it waits for its data.

    python benchmarks/bench_train.py [--recipe tiny-cvivit] [--steps 8] [--json benchmarks/results/train.json]

Both sides take the same batch, model and optimizer. The bare side is forward, loss, backward and optimizer; the loop
adds clipping, the watch for steps that are not finite, the average of the weights, the schedule and its metrics. Their
weights are compared first: without clipping and average, both must be equal to the bit. Then they are timed turn by
turn, process CPU seconds, median and spread. The second part trains from pixel shards made of rendered clips, with one
worker process, and tells the share of wall time that the loop stood waiting, for each codec. One thread each; on a
machine that is busy with other work that share is an upper bound.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tokenreel.data.pixel_manifest import PixelSpec
from tokenreel.jobs.prepare import prepare_pixels
from tokenreel.media.write import write
from tokenreel.render import natural_clip
from tokenreel.train.autoencode import Autoencode
from tokenreel.train.batches import Batch, BatchStream, Source
from tokenreel.train.loop import Trainer
from tokenreel.train.losses import Losses
from tokenreel.train.optim import factor_at, make_optimizers, set_rate
from tokenreel.train.recipes import Recipe, load_recipe
from tokenreel.train.runtime import Runtime, generator_of

CPU = Runtime(device=torch.device("cpu"))
CODECS = {"jpeg 90": PixelSpec(codec="jpeg", short_side=144), "webp 90": PixelSpec(short_side=144)}


class Same:
    """One batch again and again."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        return itertools.repeat(self.batch)

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Nothing."""


class Bare:
    """The least that learns: no more than a notebook would have."""

    def __init__(self, plan: Recipe, batch: Batch) -> None:
        self.plan, self.batch = plan, batch
        self.model = plan.model.build(seed=0).train()
        self.objective = Autoencode(Losses(plan.losses))
        self.optimizers = make_optimizers(self.model, plan.optim)

    def step(self, number: int) -> None:
        """Number ``number``, counted from 0."""
        generator = generator_of(0, number, 0, CPU.device)
        out = self.model(self.batch.videos, generator=generator)
        loss = self.objective.losses(out.video, self.batch.videos, step=number)[0] + sum(out.aux.values())
        loss.backward()
        set_rate(self.optimizers, factor_at(number, self.plan.loop.steps, self.plan.optim))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


def trainer_of(plan: Recipe, batches: Any, folder: Path, **optim: Any) -> Trainer:
    return Trainer(
        plan.model.build(seed=0),
        Autoencode(Losses(plan.losses)),
        batches,
        config=plan.loop,
        optim=replace(plan.optim, **optim),
        folder=folder,
        runtime=CPU,
    )


def compare(plan: Recipe, batch: Batch, folder: Path) -> None:
    """Two steps of both, weights to the bit."""
    bare = Bare(plan, batch)
    loop = trainer_of(plan, Same(batch), folder, clip_norm=None, ema_decay=None)
    source = iter(loop.batches)
    for number in range(2):
        bare.step(number)
        loop.try_step(source, number)
    for (name, ours), theirs in zip(loop.bare.named_parameters(), bare.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def used_seconds(work: Any, *args: Any) -> float:
    start = time.process_time()
    work(*args)
    return time.process_time() - start


def race(plan: Recipe, batch: Batch, steps: int, folder: Path) -> dict[str, Any]:
    """The loop's step, all included, against the bare one."""
    bare, loop = Bare(plan, batch), trainer_of(plan, Same(batch), folder)
    source = iter(loop.batches)
    bare.step(0)
    loop.try_step(source, 0)
    times: dict[str, list[float]] = {"bare": [], "loop": []}
    for number in range(1, steps + 1):
        times["bare"].append(used_seconds(bare.step, number))
        times["loop"].append(used_seconds(loop.try_step, source, number))
    ratio = statistics.median(a / b for a, b in zip(times["loop"], times["bare"]))
    return {**{name: spread(values) for name, values in times.items()}, "loop_over_bare": round(ratio, 3)}


def waiting(plan: Recipe, folder: Path, spec: PixelSpec, clips: Path, steps: int) -> dict[str, Any]:
    """The share of wall time that steps stand waiting for one worker, its start left out."""
    made = prepare_pixels([clips], folder, spec=spec)
    with BatchStream([Source(data=folder, split="all")], plan.data.batches, num_workers=1) as stream:
        loop = trainer_of(plan, stream, folder)
        source = iter(stream)
        loop.try_step(source, 0)
        start, waited, most = time.perf_counter(), 0.0, 0.0
        for number in range(1, steps + 1):
            found = loop.try_step(source, number)
            waited, most = waited + found.waited_seconds, max(most, found.waited_seconds)
        wall = time.perf_counter() - start
    return {
        "megabytes": round(made.num_bytes / 1e6, 2),
        "seconds_per_step": round(wall / steps, 3),
        "wait_share": round(waited / wall, 4),
        "longest_wait_seconds": round(most, 4),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {name: round(way(values), 4) for name, way in (("median", statistics.median), ("min", min), ("max", max))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="tiny-cvivit")
    parser.add_argument("--kind", choices=["adamw", "muon"], help="another optimizer than the recipe's")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    plan = load_recipe(args.recipe, data=["rendered"])
    if plan.losses.adversarial is not None or plan.losses.needs("lpips"):
        sys.exit("choose a recipe without critic and LPIPS: the bare side has neither")
    if args.kind:
        plan = replace(plan, optim=replace(plan.optim, kind=args.kind))
    result: dict[str, Any] = {"recipe": plan.name, "optimizer": plan.optim.kind, "steps": args.steps}
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        root = Path(place)
        with BatchStream([Source(data="rendered")], plan.data.batches) as stream:
            batch = stream.batch(0)
        compare(plan, batch, root)
        result["step"] = race(plan, batch, args.steps, root)
        print(result["step"], flush=True)
        clips = root / "clips"
        clips.mkdir()
        for seed in range(args.clips):
            write(clips / f"{seed}.mp4", natural_clip(seed, 33, 144, 192))
        for name, spec in CODECS.items():
            result[name] = waiting(plan, root / name.replace(" ", "-"), spec, clips, args.steps)
            print(name, result[name], flush=True)
    result["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
