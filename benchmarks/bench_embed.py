"""Linear patch embedding as one matrix product and as a convolution of the same weights, one thread, medians.

python benchmarks/bench_embed.py
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from tokenreel.patches.embed import TubeletEmbed


def median_ms(call, repeats: int = 15) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for dim, patch_size, shape in (
        (768, (1, 16, 16), (1, 3, 8, 224, 224)),
        (768, (2, 16, 16), (1, 3, 16, 224, 224)),
        (512, (2, 32, 32), (1, 3, 16, 256, 256)),
        (128, (8, 8, 8), (8, 1, 24, 24, 24)),
    ):
        channels = shape[1]
        embed = TubeletEmbed(in_channels=channels, dim=dim, patch_size=patch_size)
        conv = nn.Conv3d(channels, dim, patch_size, stride=patch_size)
        conv.weight.copy_(embed.proj.weight.view(dim, *patch_size, channels).permute(0, 4, 1, 2, 3))
        conv.bias.copy_(embed.proj.bias)
        video = torch.randn(shape)
        torch.testing.assert_close(embed(video), conv(video).permute(0, 2, 3, 4, 1), rtol=1e-4, atol=1e-4)
        matmul, convolution = median_ms(lambda: embed(video)), median_ms(lambda: conv(video))
        print(
            f"{shape} patch {patch_size} dim {dim}: matmul {matmul:.1f} ms, conv {convolution:.1f} ms, "
            f"conv/matmul {convolution / matmul:.2f}"
        )


if __name__ == "__main__":
    main()
