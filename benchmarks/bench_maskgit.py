"""Time of the 94.6 M-parameter generator of phenaki's README: one forward pass, and one training step.

    python benchmarks/bench_maskgit.py [--size phenaki] [--repeats 5] [--json benchmarks/results/maskgit.json]

One thread, process CPU seconds, median and spread; random weights, 288 tokens on the grid 9x8x4, 32 text states of 768.
``forward`` is every token masked, with all logits, as phenaki's figure is measured (0.334 s where the peak
is 150 GFLOP/s). ``train step`` is batch 1: forward, loss, backward, AdamW on all weights, gradients cleared (1.36 s
there); it is timed with a share of 2 / pi of the tokens masked, the mean of the cosine schedule, and with all of them.
Output layer and loss are one operation on the masked positions; before anything is timed, its gradients are compared
with those of logits and torch's cross-entropy. ``plain loss`` is the step with these, ``bf16`` autocast to bfloat16.
Freed memory is kept, as ``tokenreel train`` does it for generators.

Floors are FLOPs (attention included) over the matmul peak of the precision, measured turn by turn; a step also reads
and writes every weight, its gradient and AdamW's two averages once: 28 bytes a weight over the measured copy bandwidth.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from clock import PEAK_SIDE, cpu_name, flops_of, peak_call, race, told
from tokenreel.generate.condition import Condition
from tokenreel.generate.loss import masked_cross_entropy, picked
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.nn.kept_memory import keep_freed_memory
from tokenreel.types import Grid

GRID = Grid(t=9, h=8, w=4)
NUM_TEXT = 32
COPIED = 1 << 25  # floats
STEP_BYTES = 28  # weight, gradient and two averages read; weight and two averages written: seven floats


class Case:
    """A model, one video's ids, what it is told, and its optimizer."""

    def __init__(self, size: str) -> None:
        self.model = MaskGIT.untrained(size).train()
        generator = torch.Generator().manual_seed(0)
        vocabulary = self.model.vocab
        width = self.model.config.context_dim or 1
        self.ids_BL = torch.randint(0, vocabulary.codebook_size, (1, GRID.num_cells), generator=generator)
        self.told = Condition(
            torch.randn(1, NUM_TEXT, width, generator=generator), torch.ones(1, NUM_TEXT, dtype=torch.bool)
        )
        self.order_L = torch.randperm(GRID.num_cells, generator=generator)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def masked(self, share: float) -> Tensor:
        """(1, L) bool of this share."""
        is_masked_BL = torch.zeros_like(self.ids_BL, dtype=torch.bool)
        is_masked_BL[0, self.order_L[: math.ceil(share * GRID.num_cells)]] = True
        return is_masked_BL

    def forward(self) -> Tensor:
        """Features of all tokens, every one masked, and all logits."""
        ids_BL = torch.full_like(self.ids_BL, self.model.vocab.mask_id)
        with torch.inference_mode():
            prepared = self.model.prepare(self.told, num=1)
            features_BLD = self.model.features(ids_BL, grid=GRID, prepared=prepared)
            return self.model.logits(features_BLD[0])[0]

    def loss(self, is_masked_BL: Tensor, *, plain: bool = False) -> Tensor:
        """Cross-entropy of the masked tokens; ``plain`` makes their logits first."""
        ids_BL = torch.where(is_masked_BL, self.model.vocab.mask_id, self.ids_BL)
        features_BLD = self.model(ids_BL, grid=GRID, condition=self.told, is_null=torch.zeros(1, dtype=torch.bool))
        real_N = self.ids_BL[is_masked_BL]
        if plain:
            logits = self.model.logits(picked(features_BLD, is_masked_BL))
            return masked_cross_entropy(logits, self.model.vocab.split(real_N))
        return self.model.loss(picked(features_BLD, is_masked_BL), real_N).loss

    def step(self, share: float, *, plain: bool = False, is_low: bool = False) -> Callable[[], object]:
        """One training step with this share masked."""

        def call() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=is_low):
                loss = self.loss(self.masked(share), plain=plain)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

        return call


def compare(case: Case) -> float:
    """Largest difference of gradients of the two losses, relative to the largest."""
    found = []
    for plain in (False, True):
        case.loss(case.masked(0.5), plain=plain).backward()
        found.append([parameter.grad.clone() for parameter in case.model.parameters() if parameter.grad is not None])
        case.optimizer.zero_grad()
    worst = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in zip(*found, strict=True))
    assert worst < 1e-3, worst
    return worst


def copy_call() -> Callable[[], object]:
    source, target = torch.zeros(COPIED), torch.empty(COPIED)
    return lambda: target.copy_(source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="phenaki", choices=list(MaskGIT.sizes))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    case = Case(args.size)
    print(
        f"{args.size}: {case.model.num_parameters:,} parameters; gradients agree within {compare(case):.1e}", flush=True
    )
    steps = {"train step, 2/pi masked": 2 / math.pi, "train step, all masked": 1.0}
    calls = {
        "matmul peak": peak_call(),
        "copy": copy_call(),
        "forward": case.forward,
        **{name: case.step(share) for name, share in steps.items()},
        "train step, 2/pi masked, plain loss": case.step(2 / math.pi, plain=True),
        "matmul peak, bf16": peak_call(torch.bfloat16),
        "train step, 2/pi masked, bf16": case.step(2 / math.pi, is_low=True),
    }
    flops = {"forward": flops_of(case.forward)[1]}
    for name, share in steps.items():
        flops[name] = flops_of(lambda: case.loss(case.masked(share), plain=True).backward())[1]
        case.optimizer.zero_grad()
    for name in ("plain loss", "bf16"):
        flops[f"train step, 2/pi masked, {name}"] = flops["train step, 2/pi masked"]
    times = race(calls, args.repeats)
    peaks = {name: 2 * PEAK_SIDE**3 / statistics.median(times[f"matmul peak{name}"]) for name in ("", ", bf16")}
    bandwidth = 8 * COPIED / statistics.median(times["copy"])
    shown = " and ".join(f"{peak / 1e9:.0f} GFLOP/s{name}" for name, peak in peaks.items())
    print(f"matmul peak {shown}, copy {bandwidth / 1e9:.1f} GB/s")
    result: dict[str, object] = {"size": args.size, "parameters": case.model.num_parameters}
    for name, count in flops.items():
        peak = peaks[", bf16" if name.endswith("bf16") else ""]
        floor = count / peak + (STEP_BYTES * case.model.num_parameters / bandwidth if "step" in name else 0)
        spread = sorted(times[name])
        told(name, spread, f"; {count / 1e9:.1f} GFLOP, floor {floor:.3f} s")
        result[name] = {
            "median_seconds": round(statistics.median(spread), 4),
            "least_seconds": round(spread[0], 4),
            "most_seconds": round(spread[-1], 4),
            "gflop": round(count / 1e9, 1),
            "floor_seconds": round(floor, 4),
        }
    result["machine"] = {
        "processor": cpu_name(),
        "gflop_per_second": round(peaks[""] / 1e9, 1),
        "gflop_per_second_bf16": round(peaks[", bf16"] / 1e9, 1),
        "gigabytes_per_second": round(bandwidth / 1e9, 1),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
