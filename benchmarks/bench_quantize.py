"""Quantizers on one thread: the look-up against plain ways and the matmul floor, FSQ, LFQ, memory of a large codebook.

    python benchmarks/bench_quantize.py [--quick]

Outputs are compared first. Times are CPU seconds (time.process_time), median and spread of the runs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from clock import cpu_name, cpu_seconds, told
from tokenreel.quantize import FSQ, LFQ, VQ, FSQConfig, LFQConfig, VQConfig
from tokenreel.quantize.lookup import nearest

TOKENS, SIZE, DIM = 16384, 8192, 256


def gflops(rows: int, columns: int, inner: int, seconds: float) -> float:
    return 2 * rows * columns * inner / seconds / 1e9


def bench_lookup(repeats: int) -> None:
    latents, codebook = torch.randn(TOKENS, DIM), torch.randn(SIZE, DIM)
    few = latents[:512]
    exact = torch.stack([(z.double() - codebook.double()).square().sum(1).argmin() for z in few[:64]])
    assert torch.equal(nearest(few[:64], codebook), exact)
    assert torch.equal(nearest(few, codebook), torch.cdist(few, codebook).argmin(1))
    square = torch.randn(1024, 1024)
    peak = max(gflops(1024, 1024, 1024, t) for t in cpu_seconds(lambda: square @ square, 20))
    flops = 2 * TOKENS * SIZE * DIM / 1e9
    print(f"matmul peak of this thread, 1024^3 fp32: {peak:.0f} GFLOP/s")
    print(f"look-up of {TOKENS:,} x {SIZE:,} codes, dim {DIM}: {flops:.1f} GFLOP, floor {flops / peak:.2f} s")
    scores = torch.empty(512, SIZE)

    def product() -> None:
        for piece in latents.split(512):
            torch.mm(piece, codebook.t(), out=scores)

    def plain() -> None:
        for piece in latents.split(512):
            torch.addmm(-0.5 * codebook.square().sum(1), piece, codebook.t()).argmax(1)

    ways = {
        "the matrix product alone, 512 rows at a time": product,
        "tokenreel, nearest": lambda: nearest(latents, codebook),
        "argmax of the product, 512 rows at a time": plain,
        "cdist, whole": lambda: torch.cdist(latents, codebook).argmin(1),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):  # in turns, as the load of a shared machine changes
        for name, way in ways.items():
            times[name].append(once(way))
    base = statistics.median(times["the matrix product alone, 512 rows at a time"])
    for name, values in times.items():
        median = statistics.median(values)
        told(f"  {name}", sorted(values), f", {flops / median:.0f} GFLOP/s, {median / base:.2f} x the product")


def once(call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def bench_whole(repeats: int) -> None:
    cases = {
        "FSQ 8,8,8,6,5 (eval)": (FSQ(FSQConfig(levels=(8, 8, 8, 6, 5))).eval(), False),
        "FSQ 7,7,7,5,5 (eval)": (FSQ(FSQConfig(levels=(7, 7, 7, 5, 5))).eval(), False),
        "FSQ 8,8,8,5,5,5 (eval)": (FSQ(FSQConfig(levels=(8, 8, 8, 5, 5, 5))).eval(), False),
        "FSQ 8,8,8,6,5 (train, with backward)": (FSQ(FSQConfig(levels=(8, 8, 8, 6, 5))), True),
        "LFQ 18 bits (eval)": (LFQ(LFQConfig(codebook_dim=18)).eval(), False),
        "LFQ 14 bits (train, exact entropy, with backward)": (LFQ(LFQConfig(codebook_dim=14)), True),
        "LFQ 18 bits (train, entropy of 2 groups, with backward)": (LFQ(LFQConfig(codebook_dim=18)), True),
        "VQ 1,024 x 16 (train, EMA)": (VQ(VQConfig(codebook_size=1024, codebook_dim=16, learning="ema")), True),
    }
    for name, (quantizer, has_backward) in cases.items():
        latents = torch.randn(16, 1024, quantizer.codebook_dim, requires_grad=has_backward)

        def call(quantizer=quantizer, latents=latents, has_backward=has_backward) -> None:
            codes, _, losses = quantizer(latents)
            if has_backward:
                (codes.sum() + sum(losses.values())).backward()

        if not quantizer.training:
            result = quantizer(latents)
            assert torch.equal(quantizer.codes(result.ids), result.codes)
            told(f"{name} codes(ids), 16,384 ids", cpu_seconds(lambda r=result, q=quantizer: q.codes(r.ids), repeats))
        told(f"{name}, 16,384 tokens", cpu_seconds(call, repeats))


def status_bytes(key: str) -> int:
    """Of this process alone (ru_maxrss would hold its parent's peak, too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def peak_of_large_codebook(dim: int) -> None:
    """Printed by a process of its own: bytes above what the inputs take."""
    latents, codebook = torch.randn(TOKENS, dim), torch.randn(65536, dim)
    nearest(latents[:8], codebook[:2048])
    before = status_bytes("VmRSS")
    nearest(latents, codebook)
    print(status_bytes("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no 65,536-code case of dim 256")
    parser.add_argument("--large", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.large:
        peak_of_large_codebook(arguments.large)
        return
    print(
        f"{cpu_name()}, torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), 1 thread, maybe shared"
    )
    bench_whole(9 if arguments.quick else 25)
    bench_lookup(2 if arguments.quick else 5)
    for dim in (32,) if arguments.quick else (32, 256):
        command = [sys.executable, __file__, "--large", str(dim)]
        extra = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"16,384 x 65,536 codes, dim {dim}: {extra / 2**20:.0f} MiB above its inputs (all scores: 4,096 MiB)")


if __name__ == "__main__":
    main()
