"""Which positions a generator should have: rotary, a continuous bias on the scores, or rotary without the added place.

    python benchmarks/bench_positions.py [--steps 400] [--seeds 2] [--json benchmarks/results/positions.json]

A small generator learns the ids that ``video-fsq`` gives to drawn, captioned scenes of 9 x 48 x 48, the same batches
and masks whatever its positions are. Then scenes that it never saw: nats a hidden token at the cosine schedule's
shares, with all tokens hidden, and on a grid that it never saw, of 17 x 64 x 64; and the CPU seconds of a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clock import cpu_name
from tokenreel.data.scenes import CaptionedScenes
from tokenreel.generate import MaskGIT, MaskGITConfig
from tokenreel.generate.loss import picked
from tokenreel.generate.maskgit_config import tied
from tokenreel.generate.schedule import mask_for_training
from tokenreel.generate.text import ByteTextConfig
from tokenreel.generate.vocabulary import grouped
from tokenreel.media.pixels import to_video
from tokenreel.tokenizers import load
from tokenreel.tokenizers.configs import BlockOptions, Stack
from tokenreel.types import Grid

TRAINED, LARGER = (9, 48, 48), (17, 64, 64)
NUM_TRAIN, NUM_TEST, BATCH = 600, 48, 8
VARIANTS = ("rotary", "bias", "rotary, no place")


@dataclass(frozen=True)
class Records:
    """Ids (N, L) on a grid, with captions."""

    ids_NL: Tensor
    grid: Grid
    captions: list[str]


def records(tokenizer: Any, size: tuple[int, int, int], first: int, count: int) -> Records:
    """Scenes by number, encoded."""
    scenes = CaptionedScenes(first + count, *size)
    examples = [scenes[number] for number in range(first, first + count)]
    tokens = [tokenizer.encode([to_video(example.array())])[0] for example in examples]
    ids_NL = torch.stack([torch.from_numpy(one.ids_L.astype("int64")) for one in tokens])
    return Records(ids_NL, tokens[0].grid, [example.caption or "" for example in examples])


def config_of(tokenizer: Any, variant: str) -> MaskGITConfig:
    """A million weights beside its tables."""
    free = MaskGIT.sizes["tiny"]
    text = ByteTextConfig(stack=Stack(dim=64, depth=1, num_heads=2, head_dim=32, mlp_dim=128))
    small = replace(
        free,
        stack=Stack(dim=128, depth=4, num_heads=4, head_dim=32, mlp_dim=352),
        extents=(3, 6, 6),
        context_dim=64,
        text=text,
        positions="bias" if variant == "bias" else "rotary",
        blocks=BlockOptions(mlp="swiglu", norm="rms", qk_norm=True, bias=False),
    )
    return tied(small, tokenizer, levels=grouped(tokenizer.config.quantizer.levels, most=512))


def loss_of(model: MaskGIT, of: Records, rows: Tensor, is_masked: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy of the hidden tokens of some records."""
    ids_BL = of.ids_NL[rows]
    told = model.condition([of.captions[row] for row in rows.tolist()])
    hidden = ids_BL.masked_fill(is_masked, model.vocab.mask_id)
    features = model(hidden, grid=of.grid, condition=told, generator=generator)
    return model.loss(picked(features, is_masked), ids_BL[is_masked]).loss


def trained(tokenizer: Any, data: Records, variant: str, steps: int, seed: int) -> tuple[MaskGIT, float]:
    """A generator, and the median of a step's CPU seconds."""
    model = MaskGIT.untrained(config_of(tokenizer, variant), seed=seed).train()
    if variant.endswith("no place"):
        torch.nn.init.zeros_(model.network.place.weight)
        model.network.place.weight.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    generator, seconds = torch.Generator().manual_seed(seed), []
    for step in range(steps):
        start = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 50) * min(1, 2 * (1 - step / steps))
        rows = torch.randint(0, len(data.ids_NL), (BATCH,), generator=generator)
        every = torch.ones(BATCH, data.grid.num_cells, dtype=torch.bool)
        loss_of(model, data, rows, mask_for_training(every, generator=generator), generator).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - start)
    return model.eval(), statistics.median(seconds)


@torch.no_grad()
def scored(model: MaskGIT, of: Records, *, all_hidden: bool) -> float:
    """Mean nats a hidden token, masks of a fixed seed."""
    generator, found = torch.Generator().manual_seed(9), []
    for rows in torch.arange(len(of.ids_NL)).split(BATCH):
        every = torch.ones(len(rows), of.grid.num_cells, dtype=torch.bool)
        is_masked = every if all_hidden else mask_for_training(every, generator=generator)
        found.append(float(loss_of(model, of, rows, is_masked, generator)))
    return statistics.mean(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = load("video-fsq")
    data = records(tokenizer, TRAINED, 0, NUM_TRAIN)
    unseen, larger = (records(tokenizer, size, NUM_TRAIN, NUM_TEST) for size in (TRAINED, LARGER))
    print(f"trained on {data.grid}, larger {larger.grid}", flush=True)
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        for variant in VARIANTS:
            model, seconds = trained(tokenizer, data, variant, args.steps, seed)
            row = {
                "positions": variant,
                "seed": seed,
                "nats": round(scored(model, unseen, all_hidden=False), 4),
                "nats_all_hidden": round(scored(model, unseen, all_hidden=True), 4),
                "nats_larger_grid": round(scored(model, larger, all_hidden=False), 4),
                "step_cpu_seconds": round(seconds, 4),
            }
            rows.append(row)
            print(row, flush=True)
    if args.json:
        machine = f"{cpu_name()}, torch {torch.__version__}, 1 thread"
        args.json.write_text(json.dumps({"machine": machine, "steps": args.steps, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
