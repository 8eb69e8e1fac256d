"""Transformer stacks as a share of the core's own matmul peak, and packed clips against padded ones.

    python benchmarks/bench_attention.py [--threads 1] [--repeats 9]

One thread, process CPU seconds, medians with the spread, random weights, fp32, no gradients. The peak is a large
matrix product timed between the repeats of each case, so that a busy machine slows both. FLOPs are torch's own count;
what a causal kernel skips is counted as done.
"""

from __future__ import annotations

import argparse
import platform
import statistics

import torch
from torch import Tensor

from clock import PEAK_SIDE, flops_of, peak_call, race
from tokenreel.nn.attention import attend, packed_mask
from tokenreel.nn.blocks import Transformer, TransformerConfig
from tokenreel.nn.rotary import Rotary, Rotation, grid_positions


def config_of(dim: int, depth: int, **options) -> TransformerConfig:
    sizes = {"num_heads": dim // 64, "head_dim": 64, "mlp_dim": 4 * dim} | options
    return TransformerConfig(dim=dim, depth=depth, **sizes)


STACKS = (  # name, (B, L), config
    ("dim 1024 x 2, 1 x 288", (1, 288), config_of(1024, 2)),
    ("dim 512 x 4, 9 x 64", (9, 64), config_of(512, 4)),
    ("dim 512 x 4, causal, 64 x 9", (64, 9), config_of(512, 4, causal=True)),
    ("dim 512 x 4, 1 x 1024", (1, 1024), config_of(512, 4)),
    (
        "dim 512 x 4, SwiGLU, RMS, qk-norm, gate, 2 x 512",
        (2, 512),
        config_of(512, 4, mlp_dim=1408, mlp="swiglu", norm="rms", qk_norm=True, gate="head"),
    ),
    ("dim 256 x 4, 4 x 256", (4, 256), config_of(256, 4)),
    ("dim 192 x 4, 4 x 256", (4, 256), config_of(192, 4)),
    ("dim 192 x 4, 1 x 640", (1, 640), config_of(192, 4)),
)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values) * 1e3:.1f} ms [{min(values) * 1e3:.1f}, {max(values) * 1e3:.1f}]"


def bench_stacks(repeats: int) -> None:
    print("stack, B x L: GFLOP, CPU ms [min, max], share of peak")
    for name, (batch, length), config in STACKS:
        stack, x = Transformer(config).eval(), torch.randn(batch, length, config.dim)
        rotary = Rotary(head_dim=config.head_dim, max_extents=(length,))(torch.arange(length)[:, None])
        alone = torch.cat([stack(row[None], rotary=rotary) for row in x])
        torch.testing.assert_close(stack(x, rotary=rotary), alone, rtol=1e-5, atol=1e-5)
        calls = {"peak": peak_call(), "stack": lambda: stack(x, rotary=rotary)}
        times = race(calls, repeats)
        flops, _ = flops_of(calls["stack"])
        shares = [flops / own / (2 * PEAK_SIDE**3 / peak) for own, peak in zip(times["stack"], times["peak"])]
        peak = 2 * PEAK_SIDE**3 / statistics.median(times["peak"]) / 1e9
        print(
            f"  {name}: {flops / 1e9:.2f} GFLOP, {spread(times['stack'])}, "
            f"{statistics.median(shares):.0%} of {peak:.0f} GFLOP/s"
        )


def bench_packed(repeats: int) -> None:
    """32 clips, T from {1, 9, 17}, sides from {96, 128, 192}, as patches of (4, 16, 16): packed, padded, masked."""
    generator = torch.Generator().manual_seed(0)
    pick = lambda values: values[int(torch.randint(len(values), (), generator=generator))]  # noqa: E731
    grids = [(1 + pick((1, 9, 17)) // 4, pick((96, 128, 192)) // 16, pick((96, 128, 192)) // 16) for _ in range(32)]
    lengths = [t * h * w for t, h, w in grids]
    bounds = (0, *torch.tensor(lengths).cumsum(0).tolist())
    stack = Transformer(config_of(256, 4)).eval()
    angles = Rotary(head_dim=64, max_extents=(8, 16, 16))
    positions = [grid_positions(*grid) for grid in grids]
    x_ND, rotary = torch.randn(bounds[-1], 256), angles(torch.cat(positions))
    longest = max(lengths)
    pad = lambda rows: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # noqa: E731
    x_BLD, valid = pad(list(x_ND.split(lengths))), torch.arange(longest) < torch.tensor(lengths)[:, None]
    padded_rotary = Rotation(*(pad(list(table.split(lengths))) for table in rotary))
    calls = {
        "packed": lambda: stack(x_ND, rotary=rotary, cu_seqlens=bounds),
        "padded": lambda: stack(x_BLD, rotary=padded_rotary, valid_mask=valid),
    }
    torch.testing.assert_close(calls["packed"](), calls["padded"]()[valid], rtol=1e-5, atol=1e-5)
    times = race(calls, max(3, repeats // 3))
    ratio = statistics.median(b / a for a, b in zip(times["packed"], times["padded"]))
    print(f"32 clips of {min(lengths)} to {longest} tokens, {bounds[-1]} in all, {32 * longest} padded:")
    print(f"  packed {spread(times['packed'])}, padded and masked {spread(times['padded'])}: {ratio:.2f} x")


def bench_kernels(repeats: int) -> None:
    """Windowed attention in blocks against one full mask; packed runs against one block mask."""
    q, k, v = (torch.randn(1, 4096, 4, 64) for _ in range(3))
    index = torch.arange(4096)
    back = index[:, None] - index[None, :]
    sdpa = torch.nn.functional.scaled_dot_product_attention
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    window = {
        "blocks": lambda: attend(q, k, v, causal=True, window=256),
        "one mask": lambda: sdpa(*heads, attn_mask=(back >= 0) & (back < 256)).transpose(1, 2),
    }
    bounds = (0, *range(64, 4097, 64))
    cu = torch.tensor(bounds, dtype=torch.int32)
    packed = {
        "runs": lambda: attend(q[0], k[0], v[0], cu_seqlens=bounds),
        "one mask": lambda: sdpa(
            *heads, attn_mask=packed_mask(cu, cu, 4096, 4096, causal=False, window=None)
        ).transpose(1, 2)[0],
    }
    for title, calls in (("4096 tokens, window 256", window), ("64 sequences of 64", packed)):
        outputs: list[Tensor] = [call() for call in calls.values()]
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
        times = race(calls, repeats)
        print(f"  {title}: " + ", ".join(f"{name} {spread(values)}" for name, values in times.items()))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {arguments.threads} thread(s)")
    bench_stacks(arguments.repeats)
    bench_packed(arguments.repeats)
    bench_kernels(arguments.repeats)


if __name__ == "__main__":
    main()
