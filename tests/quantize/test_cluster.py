from __future__ import annotations

import threading

import pytest
import torch

from tokenreel.quantize.cluster import ALONE, Group, draw, kmeans, totals
from tokenreel.quantize.lookup import nearest


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distortion(latents: torch.Tensor, codebook: torch.Tensor) -> float:
    return float((latents - codebook[nearest(latents, codebook)]).square().sum(1).mean())


def clusters(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    centres = torch.randn(8, 6, generator=seeded(seed)) * 5
    which = torch.arange(400) % 8
    return centres[which] + 0.1 * torch.randn(400, 6, generator=seeded(seed + 1)), centres


def test_totals_are_counts_and_sums() -> None:
    latents, ids = torch.randn(50, 3, generator=seeded()), torch.arange(50) % 7
    counts, sums = totals(latents, ids, 9, ALONE)
    assert counts.tolist() == [8, 7, 7, 7, 7, 7, 7, 0, 0]
    one_hot = torch.nn.functional.one_hot(ids, 9).float()
    torch.testing.assert_close(sums, one_hot.t() @ latents)


def test_drawn_latents_do_not_repeat_while_there_are_enough() -> None:
    latents = torch.arange(10.0)[:, None]
    drawn, has_one = draw(latents, 10, generator=seeded(), group=ALONE)
    assert sorted(drawn.flatten().tolist()) == list(range(10))
    assert has_one.all()
    again, _ = draw(latents, 25, generator=seeded(), group=ALONE)
    assert torch.equal(again[:10], drawn)
    assert torch.bincount(again.flatten().long()).min() == 2
    assert not draw(latents[:0], 3, generator=seeded(), group=ALONE)[1].any()


def test_kmeans_lowers_the_distortion_each_step_and_repeats_with_its_seed() -> None:
    latents, _ = clusters()
    start = torch.zeros(12, 6)
    values = []
    for iterations in (0, 1, 2, 5, 10):
        centres = kmeans(latents, start, iterations=iterations, is_unit=False, generator=seeded())
        values.append(distortion(latents, centres))
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.9 * values[0]
    again = kmeans(latents, start, iterations=10, is_unit=False, generator=seeded())
    assert torch.equal(again, centres)
    other = kmeans(latents, start, iterations=10, is_unit=False, generator=seeded(1))
    assert not torch.equal(other, centres)


def test_spherical_centres_have_norm_one() -> None:
    latents = torch.nn.functional.normalize(clusters()[0], dim=1)
    centres = kmeans(latents, torch.zeros(5, 6), iterations=4, is_unit=True, generator=seeded())
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(5))


def test_without_latents_the_start_stays() -> None:
    start = torch.randn(5, 6, generator=seeded())
    assert torch.equal(kmeans(start[:0], start, iterations=3, is_unit=False, generator=seeded()), start)


class Together:
    """Sums over threads that stand for processes: each call waits for all."""

    def __init__(self, size: int) -> None:
        self.size, self.given = size, [torch.empty(0)] * size
        self.barrier = threading.Barrier(size, timeout=20)

    def group(self, rank: int) -> Group:
        def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
            self.given[rank] = tensor
            self.barrier.wait()
            total = sum(self.given[1:], self.given[0].clone())
            self.barrier.wait()
            return total

        return Group(rank, self.size, all_reduce)


@pytest.mark.parametrize("split", [200, 390, 400])
def test_two_processes_cluster_as_one(split: int) -> None:
    latents, _ = clusters()
    parts, together, results = latents.split([split, 400 - split]), Together(2), {}

    def run(rank: int) -> None:
        results[rank] = kmeans(
            parts[rank],
            torch.zeros(12, 6),
            iterations=40,
            is_unit=False,
            generator=seeded(rank),
            group=together.group(rank),
        )

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(results[0], results[1])
    # a fixed point of Lloyd's step over the tokens of both
    counts, sums = totals(latents, nearest(latents, results[0]), 12, ALONE)
    used = counts > 0
    torch.testing.assert_close(sums[used] / counts[used, None], results[0][used], rtol=1e-4, atol=1e-4)
