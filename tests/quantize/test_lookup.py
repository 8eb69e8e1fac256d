from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tokenreel.quantize.lookup import nearest


def by_distance(latents: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Every distance in float64; argmin takes the first of equals."""
    return torch.stack([(z.double() - codebook.double()).square().sum(1).argmin() for z in latents])


@pytest.mark.parametrize(("size", "dim"), [(1, 4), (2, 1), (37, 6), (1024, 8), (1025, 8), (1300, 16), (2048, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_argmin_of_the_distance(size: int, dim: int, dtype: torch.dtype) -> None:
    torch.manual_seed(size)
    latents, codebook = torch.randn(300, dim, dtype=dtype), torch.randn(size, dim, dtype=dtype)
    ids = nearest(latents, codebook)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, by_distance(latents, codebook))


def test_chunks_do_not_change_the_ids() -> None:
    torch.manual_seed(0)
    latents, codebook = torch.randn(500, 24), torch.randn(1500, 24)
    whole = nearest(latents, codebook, chunk_bytes=1 << 30)
    for chunk_bytes in (1, 1 << 13, 1 << 16, 1 << 20):
        assert torch.equal(nearest(latents, codebook, chunk_bytes=chunk_bytes), whole)


@pytest.mark.parametrize("size", [600, 3000])
def test_equal_codes_give_the_lowest_id(size: int) -> None:
    torch.manual_seed(0)
    distinct = torch.randn(size // 3, 32)
    codebook = distinct[torch.arange(size) % len(distinct)]  # each code three times, in different blocks
    latents = torch.randn(400, 32)
    assert torch.equal(nearest(latents, codebook), by_distance(latents, codebook))
    assert torch.equal(nearest(latents, codebook), nearest(latents, distinct))
    assert torch.equal(nearest(distinct, codebook), torch.arange(len(distinct)))
    assert nearest(latents, codebook[:1].expand(size, -1)).unique().tolist() == [0]


def test_near_ties_are_settled_by_the_exact_distance() -> None:
    torch.manual_seed(0)
    middle, step = torch.randn(2000, 64), torch.randn(2000, 64) * 1e-3
    for sign in (-1, 1):
        # latents a hair nearer to one of two codes, far below the rounding of the product (|z|^2 is about 6,400)
        latents = middle[:100] * 10 + sign * 1e-4 * step[:100]
        codebook = torch.cat([middle[:100] * 10 - step[:100], middle[:100] * 10 + step[:100]])
        assert torch.equal(nearest(latents, codebook), by_distance(latents, codebook))


def test_codes_far_from_the_origin_are_told_apart() -> None:
    codebook = 100 + torch.arange(50.0)[:, None].expand(-1, 8) * 0.01
    assert torch.equal(nearest(codebook + 0.001, codebook), torch.arange(50))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_wild_latents_still_give_ids_of_the_codebook(bad: float) -> None:
    ids = nearest(torch.full((3, 4), bad), torch.randn(2000, 4))
    assert int(ids.min()) >= 0
    assert int(ids.max()) < 2000


def test_no_latents_give_no_ids() -> None:
    assert nearest(torch.zeros(0, 4), torch.randn(5, 4)).shape == (0,)


MEMORY = """
import torch
from tokenreel.quantize.lookup import nearest
torch.set_num_threads(1)
def now(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1])
latents, codebook = torch.randn(2048, 8), torch.randn(65536, 8)
nearest(latents[:8], codebook[:3000])
before = now("VmRSS")
nearest(latents[:2048], codebook)
print(now("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_large_codebook_takes_little_memory() -> None:
    # 2,048 x 65,536 scores are 512 MiB; the whole of 16,384 tokens is measured in benchmarks/bench_quantize.py
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert 8 * 1024 < int(result.stdout) < 100 * 1024  # KiB
