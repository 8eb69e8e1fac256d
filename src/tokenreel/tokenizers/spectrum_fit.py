"""Which wave each number of a row of tokens holds, and how large its steps are: fitted to real clips.

Letters: C clips, X waves times channels of a box (t, h, w, G), M kinds, Q tokens, E codebook_dim, V bands.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tokenreel.quantize import FSQ

__all__ = ["MOST_WAVES", "fitted", "numbers_in_order"]

MOST_WAVES = (8, 64, 64)
"""Along t, h and w, that a wave may count."""

_SPREADS = (0.4, 0.6, 0.8, 1.1)  # standard deviations of latents that are tried
_DEPTHS = 6  # how often one wave is coded at most
_ROUNDS = 3  # of tables; before each but the first, clips move to the kind that tells them best
_TRUST = 12.0  # clips of a kind that its own variances must have to weigh as much as those of its bands
_OTHERS = 40  # clips of all kinds, scaled, that steady the steps of one

_LEAST = 1e-4  # of a deviation: far below a step of 8 bits, and its inverse fits half precision
_CANDIDATES = 3  # waves that are considered, for each number: the strongest

Table = tuple[Tensor, Tensor, Tensor, Tensor]  # place, inward, outward and depth, (Q, E) each


def numbers_in_order(quantizer: FSQ) -> list[int]:
    """Numbers of a token, those of most levels first."""
    levels = quantizer.config.levels
    return sorted(range(len(levels)), key=lambda e: -levels[e])


@torch.no_grad()
def fitted(
    waves_CthwG: Tensor, shape: Sequence[int], quantizer: FSQ, *, kind_numbers: int, judged_by: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Places, scales in and scales out, (M, Q, E) each, for clips like these.

    Args:
        waves_CthwG: what each wave of each clip is, on the CPU; zero where its grid is too small for it.
        shape: (M, Q, E).
        kind_numbers: how many numbers of token 0 say the kind, and nothing else.
        judged_by: tokens whose error chooses a clip's kind.
    """
    quantizer = FSQ(quantizer.config)  # on the CPU, as everything here
    most, waves_CX = tuple(waves_CthwG.shape[1:]), waves_CthwG.flatten(1)
    kinds, num_tokens, width = shape
    variance_X = torch.linalg.vector_norm(waves_CX, dim=0).square()
    kept_X = variance_X.topk(min(_CANDIDATES * num_tokens * width, len(variance_X))).indices.sort().values
    waves_CX = waves_CX[:, kept_X]
    fit = _Fit(waves_CX, (num_tokens, width), quantizer, kind_numbers)
    if kinds == 1:
        tables = [fit.table(waves_CX.square().mean(0), waves_CX)]
    else:
        tables = _kinds(fit, _bands(most)[kept_X], kinds, judged_by)
    places, inward, outward, _ = (torch.stack(parts) for parts in zip(*tables))
    t, h, w, g = torch.unravel_index(kept_X[places.clamp(min=0)], most)
    in_box = ((t * MOST_WAVES[1] + h) * MOST_WAVES[2] + w) * most[3] + g
    return torch.where(places < 0, places, in_box), inward, outward


def _kinds(fit: _Fit, band_X: Tensor, kinds: int, judged_by: int) -> list[Table]:
    """One table a kind: groups of like variances first, then Lloyd's algorithm."""
    waves_CX = fit.waves_CX
    whole_X = waves_CX.square().mean(0)
    whole_V = _summed(whole_X, band_X).clamp(min=1e-12)
    share_CV = _summed(waves_CX.square(), band_X) / whole_V
    kind_C = _groups(share_CV.clamp(min=1e-3).log() * whole_V.pow(0.25), kinds)
    tables: list[Table] = []
    for number in range(_ROUNDS):
        if number:
            kind_C = torch.stack([fit.error(table, judged_by) for table in tables]).argmin(0)
        tables = []
        for kind in range(kinds):
            of_kind = kind_C == kind
            count = int(of_kind.sum())
            share_V = (share_CV[of_kind].sum(0) + 8) / (count + 8)
            by_band_X = whole_X * share_V[band_X]
            variance_X = (waves_CX[of_kind].square().sum(0) + _TRUST * by_band_X) / (count + _TRUST)
            others = torch.linspace(0, len(waves_CX) - 1, min(_OTHERS, len(waves_CX))).long()
            steady_CX = waves_CX[others] * share_V.sqrt()[band_X]
            tables.append(fit.table(variance_X, torch.cat([waves_CX[of_kind], steady_CX])))
    return tables


class _Fit:
    """Tables for some clips, all with as many numbers.

    Args:
        waves_CX: of all clips.
        numbers: (Q, E).
        kind_numbers: how many numbers of token 0 hold no wave.
    """

    def __init__(self, waves_CX: Tensor, numbers: tuple[int, int], quantizer: FSQ, kind_numbers: int) -> None:
        self.waves_CX, self.quantizer = waves_CX, quantizer
        self.shape = numbers
        order_E = numbers_in_order(quantizer)
        self.numbers = [(q, e) for q in range(numbers[0]) for e in order_E if q > 0 or e >= kind_numbers]

    def table(self, variance_X: Tensor, waves_CX: Tensor) -> Table:
        """Waves in the order of these variances, with the steps that suit these clips."""
        order, depths = self._order(variance_X)
        place_QE = torch.full(self.shape, -1, dtype=torch.int64)
        depth_QE = torch.full(self.shape, -1, dtype=torch.int64)
        for (q, e), x, depth in zip(self.numbers, order, depths):
            place_QE[q, e], depth_QE[q, e] = x, depth
        inward_QE, outward_QE = torch.zeros(self.shape), torch.zeros(self.shape)
        left_CX = waves_CX
        for depth in range(max(depths, default=-1) + 1):
            chosen = depth_QE == depth
            values_CQE = left_CX[:, place_QE.clamp(min=0)] * chosen
            deviation_QE = values_CQE.square().mean(0).sqrt().clamp(min=_LEAST)
            best_QE, told_CQE = torch.full(self.shape, math.inf), torch.zeros_like(values_CQE)
            for spread in _SPREADS:
                codes = self.quantizer(values_CQE * (spread / deviation_QE)).codes * chosen
                out = (codes * values_CQE).mean(0) / codes.square().mean(0).clamp(min=1e-8)
                error = (codes * out - values_CQE).square().mean(0)
                better = chosen & (error < best_QE)
                best_QE = torch.where(better, error, best_QE)
                inward_QE = torch.where(better, spread / deviation_QE, inward_QE)
                outward_QE = torch.where(better, out, outward_QE)
                told_CQE = torch.where(better, codes * out, told_CQE)
            left_CX = left_CX.index_add(1, place_QE[chosen], told_CQE[:, chosen], alpha=-1)
        return place_QE, inward_QE, outward_QE, depth_QE

    def error(self, table: Table, num_tokens: int) -> Tensor:
        """(C,): the squared error of every clip from the first tokens."""
        place_QE, inward_QE, outward_QE, depth_QE = (part[:num_tokens] for part in table)
        left_CX = self.waves_CX.clone()
        for depth in range(int(depth_QE.max()) + 1):
            chosen = depth_QE == depth
            values_CQE = left_CX[:, place_QE.clamp(min=0)]
            told_CQE = self.quantizer(values_CQE * inward_QE).codes * outward_QE
            left_CX.index_add_(1, place_QE[chosen], told_CQE[:, chosen], alpha=-1)
        return left_CX.square().sum(1)

    def _order(self, variance_X: Tensor) -> tuple[list[int], list[int]]:
        """The wave of each number in turn, and how often it was told before: always that of which most is left."""
        strongest = variance_X.topk(min(len(self.numbers), len(variance_X)))  # more can never be wanted
        queue = [(-left, x) for left, x in zip(strongest.values.tolist(), strongest.indices.tolist())]
        heapq.heapify(queue)
        order: list[int] = []
        depths: list[int] = []
        taken: dict[int, int] = {}
        for _, e in self.numbers:
            if not queue:
                break
            left, x = heapq.heappop(queue)
            order.append(x)
            depths.append(taken.get(x, 0))
            taken[x] = depths[-1] + 1
            if taken[x] < _DEPTHS:
                heapq.heappush(queue, (left * min(1.0, 2.2 / self.quantizer.config.levels[e] ** 2), x))
        return order, depths


def _bands(most: Sequence[int]) -> Tensor:
    """(X,) int64: waves that are alike; by time, by size, by direction, by channel."""
    t, h, w, g = torch.meshgrid(*(torch.arange(count) for count in most), indexing="ij")
    time = t.clamp(max=3)
    size = ((h.float().square() + w.float().square()).sqrt().add(1).log2() * 1.5).long().clamp(max=8)
    direction = torch.where(h > 2 * w, 0, torch.where(w > 2 * h, 2, 1))
    return (((time * 9 + size) * 3 + direction) * most[3] + g).flatten()


def _summed(values: Tensor, band_X: Tensor) -> Tensor:
    """(..., X) -> (..., V)."""
    return values.new_zeros(*values.shape[:-1], int(band_X.max()) + 1).index_add(-1, band_X, values)


def _groups(points_CV: Tensor, kinds: int) -> Tensor:
    """(C,): which of ``kinds`` groups of near points each belongs to (k-means++ starts, 15 rounds of Lloyd's)."""
    generator = torch.Generator().manual_seed(0)
    centres = points_CV[:1]
    while len(centres) < kinds:
        distance_C = torch.cdist(points_CV, centres).min(1).values.square()
        chance_C = distance_C + distance_C.mean() * 1e-3 + 1e-12
        centres = torch.cat([centres, points_CV[torch.multinomial(chance_C, 1, generator=generator)]])
    for _ in range(15):
        group_C = torch.cdist(points_CV, centres).argmin(1)
        centres = torch.stack(
            [points_CV[group_C == k].mean(0) if bool((group_C == k).any()) else centres[k] for k in range(kinds)]
        )
    return torch.cdist(points_CV, centres).argmin(1)
