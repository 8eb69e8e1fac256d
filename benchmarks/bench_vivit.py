"""ViViT: multiply-adds beside the paper's, time and memory by number of frames, and steps beside transformers.

    python benchmarks/bench_vivit.py [--part operations|frames|steps] [--repeats 9] [--json results/vivit.json]

Operations are those of torch's counter on the meta device, where attention is two matrix products and is counted too;
beside the whole stack, as the paper counts, what runs: with a class token the last block computes that token alone.
Frames: the four models at one width, 112x112, one clip; each count in a process of its own, so that its peak memory is
its own. Steps: the same weights in transformers' Vivit and here, logits compared first, then timed turn by turn in CPU
seconds; batch 32, one thread, AdamW for both. Its default GELU is written out in Python ("gelu_fast"); the exact one
("gelu") is timed as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from clock import cpu_name, cpu_seconds, race
from tokenreel.classify import ViViT, from_hf
from tokenreel.classify.vivit_config import SIZES
from tokenreel.classify.vivit_encoders import PooledStack
from tokenreel.tokenizers.configs import Stack

# arXiv 2103.15691, table 2: ViViT-B/16x2 on 32 frames of 224x224, 10^9 FLOPs (multiply-adds).
PAPER = {"b-16x2": 455.2, "b-16x2-fe": 284.4, "b-16x2-fsa": 372.3, "b-16x2-fdp": 277.1}
FRAMES = (8, 16, 32, 64, 128)
SHRUNK = Stack(dim=192, depth=4, num_heads=4, head_dim=48, mlp_dim=768)


def operations() -> dict[str, Any]:
    found = {}
    for name, paper in PAPER.items():
        with torch.device("meta"):
            model, video = ViViT(SIZES[name]).eval(), torch.empty(1, 3, 32, 224, 224)
        whole, run = (counted(model, video, every_token) for every_token in (True, False))
        found[name] = {"paper": paper, "whole": whole, "run": run, "parameters": model.num_parameters}
        print(f"{name}: {whole:.1f} G multiply-adds, paper {paper} ({whole / paper - 1:+.1%}); {run:.1f} are run")
        assert abs(whole / paper - 1) < 0.05, name
    return found


@torch.inference_mode()
def counted(model: ViViT, video: Tensor, every_token: bool) -> float:
    for module in model.modules():
        if isinstance(module, PooledStack):
            module.every_token = every_token
    with FlopCounterMode(display=False) as counter:
        model(video)
    return counter.get_total_flops() / 2e9


def frames(repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in PAPER:
        for count in FRAMES:
            words = [sys.executable, __file__, "--one", f"{name}:{count}", "--repeats", str(repeats)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            row = found.setdefault(name, {})[count] = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{SIZES[name].model}, {count} frames: {row['infer'] * 1e3:.0f} ms, {row['infer_mib']:.0f} MiB; "
                f"training step {row['train'] * 1e3:.0f} ms, {row['train_mib']:.0f} MiB"
            )
    return found


def one(name: str, count: int, repeats: int) -> dict[str, float]:
    """Seconds, and MiB over those of the model and torch, in a fresh process."""
    model = ViViT.untrained(replace(SIZES[name], encoder=SHRUNK, num_frames=count, size=(112, 112)))
    video = torch.rand(1, 3, count, 112, 112) * 2 - 1
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    @torch.inference_mode()
    def infer() -> None:
        model(video)

    def train() -> None:
        F.cross_entropy(model(video)["label"], torch.zeros(1, dtype=torch.int64)).backward()

    ViViT.untrained("tiny").predict([torch.zeros(3, 2, 8, 8)])  # what torch loads when it first computes
    found: dict[str, float] = {}
    before = peak_mib()
    for way, call in (("infer", infer), ("train", train)):
        found[way] = statistics.median(cpu_seconds(call, repeats))
        found[f"{way}_mib"] = peak_mib() - before
    return found


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def steps(repeats: int) -> dict[str, Any]:
    found = {}
    for activation in ("gelu_fast", "gelu"):
        theirs, ours = pair(activation)
        video = torch.rand(32, 1, 28, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
        pixels = video.transpose(1, 2).contiguous()
        with torch.inference_mode():
            difference = float((theirs(pixels).logits - ours(video)["label"]).abs().max())
        assert difference < 1e-4, difference
        found[activation] = {"largest_difference": difference}
        for way in ("infer", "train"):
            for model in (theirs, ours):
                model.train(way == "train")
            calls = {
                "transformers": call_of(way, theirs, lambda: theirs(pixels).logits),
                "tokenreel": call_of(way, ours, lambda: ours(video)["label"]),
            }
            times = {name: sorted(seconds) for name, seconds in race(calls, repeats).items()}
            medians = {name: statistics.median(seconds) for name, seconds in times.items()}
            ratio = medians["transformers"] / medians["tokenreel"]
            found[activation][way] = {"cpu_seconds": times, "ratio": ratio}
            shown = ", ".join(
                f"{name} {medians[name] * 1e3:.0f} ms ({times[name][0] * 1e3:.0f} to {times[name][-1] * 1e3:.0f})"
                for name in times
            )
            print(f"{activation} {way}: {shown}; {ratio:.2f} x")
        found[activation]["bf16"] = half(theirs, ours, pixels, video, repeats)
    return found


def half(theirs: Any, ours: ViViT, pixels: Tensor, video: Tensor, repeats: int) -> dict[str, Any]:
    """Both under bf16 autocast."""

    def autocast(call: Any) -> Any:
        def run() -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return call().float()

        return run

    logits = {
        "transformers": autocast(lambda: theirs(pixels).logits),
        "tokenreel": autocast(lambda: ours(video)["label"]),
    }
    with torch.inference_mode():
        difference = float((logits["transformers"]() - logits["tokenreel"]()).abs().max())
    found: dict[str, Any] = {"largest_difference": difference}
    for way in ("infer", "train"):
        for model in (theirs, ours):
            model.train(way == "train")
        calls = {name: call_of(way, model, logits[name]) for name, model in zip(logits, (theirs, ours))}
        times = {name: sorted(seconds) for name, seconds in race(calls, repeats).items()}
        medians = {name: statistics.median(seconds) for name, seconds in times.items()}
        ratio = medians["transformers"] / medians["tokenreel"]
        shown = ", ".join(f"{name} {1e3 * median:.0f} ms" for name, median in medians.items())
        print(f"bf16 {way}: {shown}; {ratio:.2f} x, logits differ by {difference:.3f} at most")
        found[way] = {"cpu_seconds": times, "ratio": ratio}
    return found


def pair(activation: str) -> tuple[Any, ViViT]:
    """The Keras example's stack with a class token, in both packages with the same weights."""
    from transformers import VivitConfig, VivitForVideoClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = VivitConfig(
        image_size=28,
        num_frames=28,
        tubelet_size=[8, 8, 8],
        num_channels=1,
        hidden_size=128,
        num_hidden_layers=8,
        num_attention_heads=8,
        intermediate_size=512,
        num_labels=11,
        hidden_act=activation,
    )
    theirs = VivitForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, from_hf(folder)


def call_of(way: str, model: Any, logits: Any) -> Any:
    if way == "infer":

        @torch.inference_mode()
        def infer() -> None:
            logits()

        return infer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    labels = torch.arange(32) % 11

    def train() -> None:
        optimizer.zero_grad()
        F.cross_entropy(logits(), labels).backward()
        optimizer.step()

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["operations", "frames", "steps"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.one:
        name, _, count = arguments.one.partition(":")
        print(json.dumps(one(name, int(count), arguments.repeats)))
        return
    found: dict[str, Any] = {"machine": f"torch {torch.__version__}, {cpu_name()}, 1 thread"}
    print(found["machine"])
    parts = {
        "operations": operations,
        "frames": lambda: frames(min(arguments.repeats, 3)),
        "steps": lambda: steps(arguments.repeats),
    }
    for part in [arguments.part] if arguments.part else parts:
        found[part] = parts[part]()
    if arguments.json:
        kept = json.loads(arguments.json.read_text()) if arguments.part and arguments.json.exists() else {}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({**kept, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
