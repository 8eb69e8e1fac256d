"""Sampling: 18 guided steps with and without a critic, the draw alone against Gumbel noise, memory of long storyboards.

    python benchmarks/bench_sample.py [--threads 1] [--repeats 5] [--only NAME] [--json FILE] [--storyboards]

The generator of phenaki-pytorch's README: 94.6 M parameters (dim 512, depth 6, 8 heads of 64, text 32 x 768), 288
tokens on a grid of 9x8x4, 65,536 ids; 18 steps, guidance 3. One thread, process CPU seconds, medians with the spread,
random weights. The floor is torch's count of FLOPs, with attention, over the core's own matmul peak in the same
precision, timed between the repeats. Outputs are compared first: guidance in one batch with two passes, logits of open
positions with all logits, features in bfloat16 with those in float32, equal seeds, and the frequencies of draws with
their probabilities. ``--storyboards`` measures the peak memory of 10 s and 60 s made into mp4 as ``tokenreel generate``
does, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clock import PEAK_SIDE, cpu_name, flops_of, peak_call, race
from tokenreel.generate import Condition, MaskGIT, TokenCritic
from tokenreel.generate.maskgit_config import tied
from tokenreel.generate.sample import sample
from tokenreel.generate.sample_draw import draw
from tokenreel.jobs.generate import generate_video
from tokenreel.nn.kept_memory import keep_freed_memory
from tokenreel.tokenizers import CViViT
from tokenreel.types import Grid

GRID, STEPS, SCALE = Grid(t=9, h=8, w=4), 18, 3.0
LENGTHS = (10, 60)  # seconds of storyboards
# name, order, precision, what phenaki-pytorch takes on a core of 150 GFLOP/s (seconds), what is wanted
CASES = (
    ("confidence", "confidence", "fp32", 21.9, 8.0),
    ("confidence, bf16", "confidence", "bf16", None, 3.5),
    ("critic", "critic", "fp32", 26.9, 11.0),
    ("critic, bf16", "critic", "bf16", None, None),
    ("halton", "halton", "fp32", None, None),
    ("halton, bf16", "halton", "bf16", None, None),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def condition() -> Condition:
    return Condition(torch.randn(1, 32, 768, generator=generator()), torch.ones(1, 32, dtype=torch.bool))


def check_guidance(model: MaskGIT) -> None:
    """One batch of both branches, combined before the output layer, against two passes combined after it; and bf16."""
    told, ids_BL = condition(), torch.randint(0, model.vocab.vocab_size, (1, GRID.num_cells), generator=generator())
    with torch.no_grad():
        is_wanted = torch.arange(GRID.num_cells)[None] < 9
        prepared = model.prepare(told, num=1, guided=True)
        both = model.features(ids_BL, grid=GRID, prepared=prepared, wanted=is_wanted)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = model.features(ids_BL, grid=GRID, prepared=model.prepare(told, num=1, guided=True), wanted=is_wanted)
        off = float((low - both).square().mean().sqrt() / both.square().mean().sqrt())
        print(f"  features in bfloat16 differ by {off:.1%} (root mean square) from those in float32")
        assert off < 0.02, off
        one = (both[1:] + SCALE * (both[:1] - both[1:]))[0, 5:9]
        (quick,) = model.logits(one)
        is_null = torch.tensor([True])
        passes = [model(ids_BL, grid=GRID, condition=told, is_null=flag) for flag in (~is_null, is_null)]
        (told_logits,), (null_logits,) = (model.logits(features[0]) for features in passes)
    slow = (null_logits + SCALE * (told_logits - null_logits))[5:9]
    assert torch.allclose(quick, slow, atol=2e-4, rtol=1e-4), float((quick - slow).abs().max())


def check_draws() -> None:
    """Frequencies of 40,000 draws from 1,000 ids."""
    logits = torch.randn(1, 1000, generator=generator(1)) * 2
    ids = draw((logits.expand(40_000, -1),), generator=generator(2)).ids_NF[:, 0]
    expected = logits[0].softmax(-1) * len(ids)
    found = torch.bincount(ids, minlength=1000)
    often = expected > 20
    chi_square = float(((found - expected).square() / expected)[often].sum() / often.sum())
    assert 0.6 < chi_square < 1.4, f"chi square a degree of freedom is {chi_square:.2f}"


def gumbel_draw(logits_NV: Tensor, source: torch.Generator) -> Tensor:
    """As phenaki-pytorch draws: noise on every logit."""
    noise = torch.rand(logits_NV.shape, generator=source).clamp_(min=1e-20)
    return (logits_NV - torch.log(-torch.log(noise))).argmax(-1)


def shown(name: str, seconds: list[float], peaks: list[float], counts: tuple[int, int], more: str) -> dict[str, Any]:
    peak = 2 * PEAK_SIDE**3 / statistics.median(peaks)
    floor, median = counts[1] / peak, statistics.median(seconds)
    print(
        f"  {name:24} {median:7.2f} s [{min(seconds):.2f}, {max(seconds):.2f}]  {counts[1] / 1e9:6.0f} GFLOP, floor "
        f"{floor:.2f} s at {peak / 1e9:.0f} GFLOP/s ({floor / median:.0%}){more}",
        flush=True,
    )
    return {
        "case": name,
        "cpu_seconds": median,
        "spread": [min(seconds), max(seconds)],
        "gflop": counts[1] / 1e9,
        "floor_seconds": floor,
        "peak_gflop_per_second": peak / 1e9,
    }


def bench_case(model: MaskGIT, critic: TokenCritic, case: tuple[Any, ...], repeats: int) -> dict[str, Any]:
    name, order, precision, rival, wanted = case
    told, model.precision = condition(), precision

    def call(steps: int = STEPS) -> Tensor:
        return sample(
            model,
            grid=GRID,
            condition=told,
            order=order,
            steps=steps,
            guidance_scale=SCALE,
            critic=critic if order == "critic" else None,
            generator=generator(),
        )

    assert torch.equal(call(2), call(2)), "equal seeds gave different ids"
    peak = peak_call(torch.bfloat16 if precision == "bf16" else torch.float32)
    times = race({"peak": peak, name: call}, repeats)
    more = (f"  phenaki {rival}" if rival else "") + (f"  wanted {wanted}" if wanted else "")
    return shown(name, times[name], times["peak"], flops_of(call), more)


def bench_draw(repeats: int) -> dict[str, Any]:
    logits = torch.randn(GRID.num_cells, 65_536, generator=generator()) * 3
    source = generator()
    times = race(
        {
            "inverse sums": lambda: draw((logits,), generator=source),
            "Gumbel noise": lambda: gumbel_draw(logits, source),
            "softmax, multinomial": lambda: torch.multinomial(logits.softmax(-1), 1, generator=source),
        },
        repeats,
    )
    medians = {name: statistics.median(values) for name, values in times.items()}
    told = ", ".join(f"{name} {value * 1e3:.0f} ms" for name, value in medians.items())
    print(f"  one draw of {GRID.num_cells} x 65,536: {told}")
    return {"case": "draw", "cpu_seconds": medians}


def saved(folder: Path) -> None:
    """An untrained generator with its tokenizer in one folder, and storyboards of 10 and of 60 seconds."""
    tokenizer = CViViT.untrained("tiny")
    tokenizer.save_pretrained(folder / "model" / "tokenizer")
    model = MaskGIT.untrained(tied(MaskGIT.sizes["tiny"], tokenizer, levels=tokenizer.config.quantizer.levels))
    model.save_pretrained(folder / "model")
    for seconds in LENGTHS:
        scenes = ", ".join(f"{{prompt: scene {number}, seconds: {seconds / 5}}}" for number in range(5))
        options = "size: 64x64, fps: 8, window_frames: 17, steps: 4, guidance_scale: 2"
        (folder / f"{seconds}.yaml").write_text(f"{{{options}, scenes: [{scenes}]}}")


def _memory(seconds: int, folder: Path, pipe: Any) -> None:
    torch.set_num_threads(1)
    story = folder / f"{seconds}.yaml"
    made = generate_video(None, folder / f"{seconds}.mp4", model=str(folder / "model"), storyboard=story)
    assert made.num_frames == seconds * 8, f"{made.num_frames} frames were made"
    status = Path("/proc/self/status").read_text()
    pipe.send(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def bench_storyboards(folder: Path) -> list[dict[str, Any]]:
    rows, context = [], multiprocessing.get_context("spawn")
    saved(folder)
    for seconds in LENGTHS:
        receiver, sender = context.Pipe(duplex=False)
        start = time.perf_counter()
        process = context.Process(target=_memory, args=(seconds, folder, sender))
        process.start()
        peak = receiver.recv()
        process.join()
        spent = time.perf_counter() - start
        print(f"  storyboard of {seconds} s, 64x64 at 8 fps, to mp4: peak {peak:.0f} MiB, {spent:.0f} s", flush=True)
        rows.append({"case": f"storyboard {seconds} s", "peak_mib": peak, "wall_seconds": spent})
    print(f"  ratio {rows[1]['peak_mib'] / rows[0]['peak_mib']:.3f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--storyboards", action="store_true", help="memory of long storyboards instead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as ``tokenreel generate`` does
    machine = f"{cpu_name()}, torch {torch.__version__}, {options.threads} thread(s)"
    print(f"{machine}, {torch.backends.cpu.get_cpu_capability()}")
    rows: list[dict[str, Any]] = []
    if options.storyboards:
        with tempfile.TemporaryDirectory() as folder:
            rows += bench_storyboards(Path(folder))
    else:
        model = MaskGIT.untrained("phenaki").requires_grad_(False)
        critic = TokenCritic.untrained("phenaki").requires_grad_(False)
        print(f"  {model.num_parameters / 1e6:.1f} M parameters")
        check_guidance(model)
        check_draws()
        rows.append(bench_draw(options.repeats))
        rows += [bench_case(model, critic, case, options.repeats) for case in CASES if options.only in case[0]]
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
