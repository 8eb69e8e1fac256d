"""Statistics of latents by code: their counts and sums, k-means, replacement vectors; over one process or several.

Letters: N tokens, K codebook_size, E codebook_dim. No distributed call is made here: ``Group.all_reduce`` is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .lookup import nearest

__all__ = ["ALONE", "Group", "draw", "kmeans", "totals"]


class Group(NamedTuple):
    """The processes that train one codebook together.

    Attributes:
        rank: of this process, in [0, size).
        size: number of processes.
        all_reduce: a tensor of this process -> the sum over all processes, the same on each.
    """

    rank: int
    size: int
    all_reduce: Callable[[Tensor], Tensor]


def _itself(tensor: Tensor) -> Tensor:
    return tensor


ALONE = Group(0, 1, _itself)


@torch.no_grad()
def totals(latents_NE: Tensor, ids_N: Tensor, codebook_size: int, group: Group) -> tuple[Tensor, Tensor]:
    """(K,) int64 tokens of each code and (K, E) the sum of their latents, over all processes.

    On CUDA the sums are made by atomic additions, whose last bits vary; torch.use_deterministic_algorithms fixes them.
    """
    counts_K = torch.bincount(ids_N, minlength=codebook_size)
    sums_KE = latents_NE.new_zeros(codebook_size, latents_NE.shape[1]).index_add_(0, ids_N, latents_NE)
    return group.all_reduce(counts_K), group.all_reduce(sums_KE)


@torch.no_grad()
def draw(latents_NE: Tensor, count: int, *, generator: torch.Generator, group: Group) -> tuple[Tensor, Tensor]:
    """(count, E) latents drawn at random and (count,) bool, whether there was one to draw.

    Drawn without repetition as long as there are enough; the processes give them in turn.
    """
    drawn_nE = latents_NE.new_zeros(count, latents_NE.shape[1] + 1)
    mine = torch.arange(group.rank, count, group.size)
    if len(latents_NE):
        order = torch.randperm(len(latents_NE), generator=generator, device=generator.device)
        order = order[(torch.arange(len(mine)) % len(latents_NE)).to(order.device)].to(latents_NE.device)
        drawn_nE[mine.to(latents_NE.device)] = F.pad(latents_NE[order], (0, 1), value=1.0)
    drawn_nE = group.all_reduce(drawn_nE)
    return drawn_nE[:, :-1], drawn_nE[:, -1] > 0


@torch.no_grad()
def kmeans(
    latents_NE: Tensor,
    start_KE: Tensor,
    *,
    iterations: int,
    is_unit: bool,
    generator: torch.Generator,
    group: Group = ALONE,
) -> Tensor:
    """(K, E) centres: Lloyd's algorithm from random latents; a centre that loses all its latents stays.

    Args:
        start_KE: what a centre is where there is no latent to start from.
        is_unit: latents are of norm 1, and the centres are kept so (spherical k-means).
    """
    size = len(start_KE)
    drawn_KE, has_one_K = draw(latents_NE, size, generator=generator, group=group)
    centres_KE = torch.where(has_one_K[:, None], drawn_KE, start_KE.to(drawn_KE.dtype))
    for _ in range(iterations):
        counts_K, sums_KE = totals(latents_NE, nearest(latents_NE, centres_KE), size, group)
        means_KE = sums_KE / counts_K.clamp(min=1)[:, None]
        if is_unit:
            means_KE = F.normalize(means_KE, dim=1)
        centres_KE = torch.where(counts_K[:, None] > 0, means_KE, centres_KE)
    return centres_KE
