"""Learned tokenizers: encode, decode and a training step as shares of the core's own matmul peak; streaming memory.

    python benchmarks/bench_encode.py [--threads 1] [--repeats 7] [--only NAME] [--json FILE] [--stream]

One thread, process CPU seconds, medians with the spread, random weights, float32 unless a case says bf16. The peak is
a large matrix product timed between the repeats of each case, so that a busy machine slows both. FLOPs are torch's own
count, which on CPUs leaves out attention; the share with attention counted (4 L S D a layer) stands beside it.
Outputs are compared first: a batch with single clips, bf16 with float32, a stream with the whole.
``--stream`` measures peak memory over 1,000 and 10,000 frames, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clock import PEAK_SIDE, flops_of, peak_call, race
from tokenreel.quantize import FSQConfig
from tokenreel.tokenizers import CViViT, TiTok, TiTokVideo
from tokenreel.tokenizers.learned import LearnedTokenizer

# name, family, size or config, (T, H, W), options of encode, what others reach on a core of 150 GFLOP/s (seconds)
PHENAKI = replace(CViViT.sizes["phenaki"], quantizer=FSQConfig(levels=(8, 8, 8, 5, 5, 5)))
CASES: tuple[tuple[str, type[LearnedTokenizer], Any, tuple[int, int, int], dict[str, int], str], ...] = (
    ("cvivit phenaki, FSQ", CViViT, PHENAKI, (17, 256, 256), {}, "phenaki 0.329 / 0.320"),
    ("cvivit base", CViViT, "base", (17, 128, 128), {}, ""),
    ("cvivit tiny", CViViT, "tiny", (17, 128, 128), {}, ""),
    ("titok l-32", TiTok, "l-32", (1, 256, 256), {}, "TiTok 1.46 / 3.37"),
    ("titok b-64", TiTok, "b-64", (1, 256, 256), {}, "TiTok 0.465 / 2.52"),
    ("titok tiny", TiTok, "tiny", (1, 256, 256), {}, ""),
    ("titok_video base", TiTokVideo, "base", (16, 128, 128), {"token_counts": 128}, "TiTok-Video 2.05 / 2.07"),
    ("titok_video tiny", TiTokVideo, "tiny", (16, 128, 128), {"token_counts": 128}, "TiTok-Video 0.156 / 0.150"),
)


def row(
    name: str, seconds: list[float], peaks: list[float], counts: tuple[int, int], rival: str = ""
) -> dict[str, Any]:
    flops, with_attention = counts
    shares = [flops / own / (2 * PEAK_SIDE**3 / peak) for own, peak in zip(seconds, peaks)]
    return {
        "case": name,
        "cpu_seconds": statistics.median(seconds),
        "spread": [min(seconds), max(seconds)],
        "gflop": flops / 1e9,
        "peak_gflop_per_second": 2 * PEAK_SIDE**3 / statistics.median(peaks) / 1e9,
        "share_of_peak": statistics.median(shares),
        "share_with_attention": statistics.median(shares) * with_attention / flops,
        "at_150_gflop_per_second": flops / 150e9 / statistics.median(shares),
        "others": rival,
    }


def show(values: dict[str, Any]) -> dict[str, Any]:
    low, high = values["spread"]
    print(
        f"  {values['case']:34} {values['cpu_seconds'] * 1e3:8.1f} ms [{low * 1e3:.1f}, {high * 1e3:.1f}]  "
        f"{values['gflop']:7.2f} GFLOP  {values['share_of_peak']:4.0%} "
        f"({values['share_with_attention']:.0%} with attention) of {values['peak_gflop_per_second']:.0f} GFLOP/s"
        f"  (a core of 150 GFLOP/s: {values['at_150_gflop_per_second']:.3f} s)"
        + (f"  {values['others']}" if values["others"] else "")
    )
    return values


def clip(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def check_batch(model: LearnedTokenizer, video: Tensor, options: dict[str, int]) -> None:
    other = clip(*video.shape[1:], seed=1)
    together = model.encode([video, other], **options)
    for tokens, alone in zip(together, (video, other)):
        agree = (tokens.ids_L == model.encode([alone], **options)[0].ids_L).mean()
        assert agree > 0.999, f"only {agree:.2%} of ids agree between a batch and single clips"


def bench_case(case: tuple[Any, ...], repeats: int) -> list[dict[str, Any]]:
    name, family, size, shape, options, rival = case
    model = family.untrained(size).requires_grad_(False)  # torch's counter trips over parameters in inference mode
    video = clip(*shape)
    check_batch(model, video, options)
    tokens = model.encode([video], **options)
    calls = {
        "peak": peak_call(),
        "encode": lambda: model.encode([video], **options),
        "decode": lambda: model.decode(tokens),
    }
    times = race(calls, repeats)
    return [
        show(row(f"{name}: {verb}", times[verb], times["peak"], flops_of(calls[verb]), rival))
        for verb in ("encode", "decode")
    ]


def bench_bf16(repeats: int) -> list[dict[str, Any]]:
    rows = []
    for name, family, size, shape, options, _ in (CASES[0], CASES[2]):
        model, video = family.untrained(size).requires_grad_(False), clip(*shape)
        full = model.encode([video], **options)[0].ids_L
        model.precision = "bf16"
        agree = float((model.encode([video], **options)[0].ids_L == full).mean())
        calls = {"peak": peak_call(), "bf16": lambda: model.encode([video], **options)}
        times = race(calls, max(3, repeats // 2))
        values = show(row(f"{name}: encode in bf16", times["bf16"], times["peak"], flops_of(calls["bf16"])))
        print(f"      {agree:.1%} of ids as in float32")
        rows.append(values | {"ids_as_in_fp32": agree})
    return rows


def bench_step(repeats: int) -> dict[str, Any]:
    """One training step of the first case: forward, MSE, backward, AdamW."""
    model = CViViT.untrained(PHENAKI).train()
    video = clip(17, 256, 256)[None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss = (model(video).video - video).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    calls = {"peak": peak_call(), "step": step}
    times = race(calls, max(3, repeats // 2))
    return show(row("cvivit phenaki, FSQ: training step", times["step"], times["peak"], flops_of(step), "phenaki 2.99"))


def _memory(frames: int, pipe: Any) -> None:
    """Peak resident memory of streaming so many frames 128x128 through encoder and decoder, in a process of its own."""
    torch.set_num_threads(1)
    model = CViViT.untrained("tiny")
    encoder, decoder, total = model.encoder(), model.decoder(), 0
    for start in range(0, frames, 20):
        part = clip(min(20, frames - start), 128, 128, seed=start)
        for tokens in encoder.push(part):
            total += sum(video.shape[1] for video in decoder.push(tokens))
    for tokens in encoder.finish():
        total += sum(video.shape[1] for video in decoder.push(tokens))
    assert total == frames, f"{total} frames came back of {frames}"
    status = Path("/proc/self/status").read_text()
    pipe.send(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def bench_stream() -> list[dict[str, Any]]:
    """Memory over 1,000 and 10,000 frames, after the stream has been compared with the whole clip."""
    model, video = CViViT.untrained("tiny"), clip(41, 64, 64)
    encoder = model.encoder()
    parts = [part for start in range(0, 41, 7) for part in encoder.push(video[:, start : start + 7])]
    parts += encoder.finish()
    whole = model.encode([video])[0].ids_L
    assert (np.concatenate([part.ids_L for part in parts]) == whole).mean() > 0.9999
    rows, context = [], multiprocessing.get_context("spawn")
    for frames in (1_000, 10_000):
        receiver, sender = context.Pipe(duplex=False)
        start = time.perf_counter()
        process = context.Process(target=_memory, args=(frames, sender))
        process.start()
        peak = receiver.recv()
        process.join()
        seconds = time.perf_counter() - start
        print(f"  cvivit tiny, {frames} frames 128x128 encoded and decoded: peak {peak:.0f} MiB, {seconds:.0f} s")
        rows.append({"case": f"stream {frames} frames", "peak_mib": peak, "wall_seconds": seconds})
    print(f"  ratio {rows[1]['peak_mib'] / rows[0]['peak_mib']:.3f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--stream", action="store_true", help="memory of long streams instead (minutes)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.threads} thread(s)"
    print(f"{machine}, {torch.backends.cpu.get_cpu_capability()}")
    rows: list[dict[str, Any]] = []
    if options.stream:
        rows += bench_stream()
    else:
        for case in CASES:
            if options.only in case[0]:
                rows += bench_case(case, options.repeats)
        if options.only in CASES[0][0]:
            rows.append(bench_step(options.repeats))
            rows += bench_bf16(options.repeats)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
