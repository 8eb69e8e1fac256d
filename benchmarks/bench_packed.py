"""Encoding clips of many sizes packed end to end, against the same clips padded to the largest and masked.

    python benchmarks/bench_packed.py [--repeats 5] [--size tiny] [--json benchmarks/results/packed.json]

32 clips, seed 0: T from {1, 9, 17}, sides from {96, 128, 192}, random pixels, untrained TiTok-Video, 128 tokens a clip.
Both sides run the same weights, blocks and attention kernels in passes of as many rows, and ask for the same rows of
the last block. One thread, process CPU seconds, median with the spread, turn by turn; outputs are compared first. FLOPs
are torch's count, attention on the CPU added to it. The second part is the share of the core's matmul peak, which is
timed between the repeats, that encoding and decoding one clip of 16x128x128 reach.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tokenreel.nn.rotary import Rotation
from tokenreel.tokenizers.titok_video import TiTokVideo
from tokenreel.tokenizers.titok_video_pack import Piece, in_passes, patches_of, rotation_of, run
from tokenreel.types import Grid

ROWS = 1 << 14
COUNT = 128
PEAK_SIDE = 1536


def counted(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its GFLOP; torch counts no attention on the CPU by itself."""

    def attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
        return 4 * q[0] * q[1] * q[2] * k[2] * q[3]

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={kernel: attention}) as counter:
        answer = call()
    return answer, counter.get_total_flops() / 1e9


def seconds_of(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def race(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every call, turn by turn; all have run once before, to be compared and counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds_of(call))
    return times


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def clips_of(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pick = lambda values: values[int(torch.randint(len(values), (), generator=generator))]  # noqa: E731
    sizes = [(pick((1, 9, 17)), pick((96, 128, 192)), pick((96, 128, 192))) for _ in range(32)]
    return [torch.rand(3, *size, generator=generator) * 2 - 1 for size in sizes]


def packed(tokenizer: TiTokVideo, clips: list[Tensor], pieces: list[Piece]) -> Tensor:
    latents: list[Tensor] = [torch.empty(0)] * len(clips)
    for chosen in in_passes(pieces, ROWS):
        taken = [pieces[index] for index in chosen]
        found = tokenizer.analysis(patches_of([clips[index] for index in chosen], tokenizer.patch_size), taken)
        for index, part in zip(chosen, found.split(COUNT)):
            latents[index] = part
    return torch.cat(latents)


def padded(tokenizer: TiTokVideo, clips: list[Tensor], pieces: list[Piece]) -> Tensor:
    """(clips, [patches | padding | queries]) with a mask: as many clips at once as make a pass of the longest."""
    stack, longest = tokenizer.analysis.stack, max(piece.num_patches for piece in pieces)
    options = {"head_dim": tokenizer.config.encoder.head_dim, "max_extents": stack.max_extents}
    at_once, latents = max(1, ROWS // (longest + COUNT)), []
    for start in range(0, len(clips), at_once):
        chosen = pieces[start : start + at_once]
        patches = [patches_of([clip], tokenizer.patch_size) for clip in clips[start : start + at_once]]
        patches_BND = tokenizer.analysis.embed(_to_length(patches, longest))
        queries_BQD = tokenizer.analysis.query_D.expand(len(chosen), COUNT, -1)
        tables = [rotation_of([piece], **options, device=patches_BND.device) for piece in chosen]
        filled = [
            torch.cat([_to_length([table[:-COUNT] for table in kind], longest), _queries(kind)], dim=1)
            for kind in zip(*tables)
        ]
        valid = torch.arange(longest) < torch.tensor([piece.num_patches for piece in chosen])[:, None]
        valid = torch.cat([valid, torch.ones(len(chosen), COUNT, dtype=torch.bool)], dim=1)
        x_BLD = torch.cat([patches_BND, queries_BQD], dim=1) + stack.place(torch.cat(filled, dim=-1))
        wanted = run(stack.transformer, x_BLD, lambda x: x[:, longest:], rotary=Rotation(*filled), valid_mask=valid)
        latents.append(tokenizer.analysis.project(wanted).flatten(0, 1))
    return torch.cat(latents)


def _to_length(rows: list[Tensor], length: int) -> Tensor:
    return torch.stack([F.pad(row, (0, 0, 0, length - len(row))) for row in rows])


def _queries(tables: Sequence[Tensor]) -> Tensor:
    return torch.stack([table[-COUNT:] for table in tables])


def bench_packed(tokenizer: TiTokVideo, repeats: int) -> dict[str, Any]:
    clips = clips_of()
    grids = [Grid.of(*clip.shape[1:], tokenizer.patch_size) for clip in clips]
    pieces = [Piece(grid.t, grid.h, grid.w, COUNT) for grid in grids]
    calls = {
        "packed": lambda: packed(tokenizer, clips, pieces),
        "padded": lambda: padded(tokenizer, clips, pieces),
    }
    (one, packed_gflop), (other, padded_gflop) = (counted(call) for call in calls.values())
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    ids = [tokenizer.quantizer(latents).ids for latents in (one, other)]
    times = race(calls, repeats)
    found: dict[str, Any] = {
        name: {"cpu_seconds": summary(times[name]), "gflop": gflop}
        for name, gflop in (("packed", packed_gflop), ("padded", padded_gflop))
    }
    found["throughput_ratio"] = statistics.median(b / a for a, b in zip(times["packed"], times["padded"]))
    found["ids_equal"] = float((ids[0] == ids[1]).float().mean())
    found["rows"] = {
        "packed": sum(piece.num_rows for piece in pieces),
        "padded": len(pieces) * (max(piece.num_patches for piece in pieces) + COUNT),
    }
    for name in calls:
        row = found[name]
        seconds = row["cpu_seconds"]
        print(
            f"{name}: {found['rows'][name]:,} rows, {row['gflop']:.0f} GFLOP, {seconds['median']:.2f} s "
            f"[{seconds['least']:.2f}, {seconds['most']:.2f}], {len(clips) / seconds['median']:.2f} clips/s"
        )
    print(f"packed is {found['throughput_ratio']:.2f} x padded; ids equal: {found['ids_equal']:.2%}")
    return found


def bench_share(tokenizer: TiTokVideo, repeats: int) -> dict[str, Any]:
    clip = torch.rand(3, 16, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = tokenizer.encode([clip])
    left, right = torch.randn(PEAK_SIDE, PEAK_SIDE), torch.randn(PEAK_SIDE, PEAK_SIDE)
    out = torch.empty(PEAK_SIDE, PEAK_SIDE)
    calls = {
        "peak": lambda: torch.mm(left, right, out=out),
        "encode": lambda: tokenizer.encode([clip]),
        "decode": lambda: tokenizer.decode(tokens),
    }
    gflops = {name: counted(call)[1] for name, call in calls.items()}
    times = race(calls, 3 * repeats)
    peaks = [2 * PEAK_SIDE**3 / seconds / 1e9 for seconds in times["peak"]]
    found: dict[str, Any] = {"peak_gflop_per_second": statistics.median(peaks)}
    for name in ("encode", "decode"):
        gflop = gflops[name]
        share = statistics.median(gflop / seconds / peak for seconds, peak in zip(times[name], peaks))
        found[name] = {"cpu_seconds": summary(times[name]), "gflop": gflop, "share_of_peak": share}
        print(
            f"{name} 16x128x128: {gflop:.1f} GFLOP, {statistics.median(times[name]):.3f} s, {share:.0%} of "
            f"{found['peak_gflop_per_second']:.0f} GFLOP/s"
        )
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", default="tiny", choices=list(TiTokVideo.sizes))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = f"torch {torch.__version__}, {platform.processor() or platform.machine()}, 1 thread"
    print(machine)
    tokenizer = TiTokVideo.untrained(arguments.size).requires_grad_(False)
    found = {"machine": machine, "size": arguments.size, "share": bench_share(tokenizer, arguments.repeats)}
    found["clips"] = bench_packed(tokenizer, arguments.repeats)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
