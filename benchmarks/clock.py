"""What the benchmarks share: CPU seconds in turns, the core's own matmul peak, FLOPs, and words for all of them."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

PEAK_SIDE = 1536


def race(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every call, turn by turn, after one turn that is thrown away."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                times[name].append(time.process_time() - start)
    return times


def peak_call(dtype: torch.dtype = torch.float32) -> Callable[[], object]:
    """A large matrix product, 2 PEAK_SIDE^3 FLOPs."""
    a, b = (torch.randn(PEAK_SIDE, PEAK_SIDE).to(dtype) for _ in range(2))
    out = torch.empty(PEAK_SIDE, PEAK_SIDE, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def flops_of(call: Callable[[], object]) -> tuple[int, int]:
    """Torch's count, and the same with attention, which torch leaves out on CPUs."""

    def attention(q: Sequence[int], k: Sequence[int], *_: Any, **__: Any) -> int:
        return 4 * q[0] * q[1] * q[2] * k[2] * q[3]

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False) as plain:
        call()
    with FlopCounterMode(display=False, custom_mapping={kernel: attention}) as counter:
        call()
    return plain.get_total_flops(), counter.get_total_flops()


def cpu_seconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Of one call, sorted, after a first one that is thrown away."""
    return sorted(race({"": call}, repeats)[""])


def told(name: str, times: list[float], more: str = "") -> None:
    """Print the median and the spread of sorted times."""
    unit, scale = ("ms", 1e3) if times[-1] < 0.5 else ("s", 1)
    median = statistics.median(times) * scale
    print(f"{name}: {median:.3g} {unit} ({times[0] * scale:.3g} to {times[-1] * scale:.3g}){more}")


def cpu_name() -> str:
    """As the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
