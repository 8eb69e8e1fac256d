"""A start for tokens without a grid: each says a few cosines of the whole clip, the strongest first.

A row of tokens that start at random learns nothing for thousands of steps. Here token 0 starts as the mean colour and
the slowest waves, token 1 as the next ones, in the order of their variance over real clips: a transform codec of the
whole clip, of which every prefix is a picture. Attention then improves on it. Where a wave's variance is so large that
what one number's levels leave of it outweighs the next wave, a later number codes that rest (reverse water-filling,
Cover and Thomas, Elements of Information Theory, section 10.3.3).

Tokenizers give it pixels, not patches: waves over patches would leave steps at every border of a patch.

Letters: B clips, N cells (t*h*w; pixels, in the tokenizers), P values of a cell (3 colours), G channels of a cell,
F waves, Q tokens, E codebook_dim.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.quantize import FSQ, Quantizer

__all__ = ["Spectrum"]

GridSize = tuple[int, int, int]

_SPREADS = (0.4, 0.6, 0.8, 1.1)  # standard deviations of latents that are tried
_MOST_WAVES = (8, 64, 64)  # along t, h and w, that a wave may count
_DEPTHS = 6  # how often one wave is coded at most


class Spectrum(nn.Module):
    """Cells to the linear part of the first Q tokens' latents, and their codes back to cells.

    wave f of channel g: c_fg = mean over cells n of phi_f(n) (A x_n + a)_g, phi_f a product of cosines (DCT-II) of
    mean square 1, so that c does not depend on the number of cells; x_n = B sum_f c_fg phi_f(n) + b. Number e of
    token q holds wave ``place_QE``, or what earlier tokens leave of it (``depth_QE`` > 0), times ``inward_QE``.

    Starts at zero, where it adds nothing; ``start`` fits it to clips. Tokens past Q get nothing.
    """

    place_QE: Tensor
    depth_QE: Tensor
    waves_F3: Tensor

    def __init__(self, *, num_tokens: int, channels: int, cell_values: int, quantizer: Quantizer) -> None:
        super().__init__()
        if not isinstance(quantizer, FSQ):
            raise InputError("a spectral start needs FSQ, whose numbers are quantized one by one")
        if quantizer.config.noise + quantizer.config.skip > 0:
            raise InputError("a spectral start needs FSQ without noise and skip: later numbers code what earlier leave")
        if min(num_tokens, channels) < 1:
            raise InputError(f"a spectrum needs at least 1 of tokens and channels, got {num_tokens}, {channels}")
        width = quantizer.codebook_dim
        self.num_tokens, self.channels = num_tokens, channels
        self.analyse = nn.Linear(cell_values, channels)
        self.synthesise = nn.Linear(channels, cell_values)
        self.inward_QE = nn.Parameter(torch.zeros(num_tokens, width))
        self.outward_QE = nn.Parameter(torch.zeros(num_tokens, width))
        self.register_buffer("place_QE", torch.zeros(num_tokens, width, dtype=torch.int64))
        self.register_buffer("depth_QE", torch.zeros(num_tokens, width, dtype=torch.int64))
        self.register_buffer("waves_F3", torch.zeros(num_tokens * width, 3, dtype=torch.int64))
        if not self.inward_QE.is_meta:
            for layer in (self.analyse, self.synthesise):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def latents(self, cells_BNP: Tensor, more_BQE: Tensor, grid: GridSize, quantizer: Quantizer) -> Tensor:
        """Latents (B, L, E) of what attention says, ``more_BQE`` (B, L, E), and of the waves together, float32."""
        count = min(more_BQE.shape[1], self.num_tokens)
        box_BthwG = _waves(self.analyse(cells_BNP.to(self.analyse.weight.dtype)).unflatten(1, grid))
        index_F, fits_F = self._places(box_BthwG.shape[1:4])
        left_BX = (rearrange(box_BthwG, "B t h w G -> B (t h w) G")[:, index_F] * fits_F[:, None]).flatten(1)
        more, place, depth = more_BQE[:, :count].float(), self.place_QE[:count], self.depth_QE[:count]
        latents = more + self.inward_QE[:count] * left_BX[:, place]
        for step in range(int(depth.max()) if count else 0):
            codes = quantizer(latents).codes * self.outward_QE[:count] * (depth == step)
            left_BX = left_BX.index_add(1, place.flatten(), codes.flatten(1), alpha=-1)
            latents = torch.where(depth == step + 1, more + self.inward_QE[:count] * left_BX[:, place], latents)
        return torch.cat([latents, more_BQE[:, count:].float()], dim=1)

    def cells(self, codes_BQE: Tensor, grid: GridSize) -> Tensor:
        """Codes (B, L, E) -> what they say of each cell, (B, N, P). A code of 0 says nothing."""
        count, num_clips = min(codes_BQE.shape[1], self.num_tokens), len(codes_BQE)
        told_BX = (codes_BQE[:, :count].float() * self.outward_QE[:count]).flatten(1)
        waves_BX = told_BX.new_zeros(num_clips, len(self.waves_F3) * self.channels)
        waves_BX = waves_BX.index_add(1, self.place_QE[:count].flatten(), told_BX)
        t, h, w = (min(most, size) for most, size in zip(_MOST_WAVES, grid))
        index_F, fits_F = self._places((t, h, w))
        waves_BFG = rearrange(waves_BX, "B (F G) -> B F G", G=self.channels) * fits_F[:, None]
        box_BXG = waves_BX.new_zeros(num_clips, t * h * w, self.channels).index_add(1, index_F, waves_BFG)
        values_BthwG = _values(rearrange(box_BXG, "B (t h w) G -> B t h w G", t=t, h=h), grid)
        cells: Tensor = self.synthesise(rearrange(values_BthwG, "B t h w G -> B (t h w) G"))
        return cells

    def _places(self, box: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(F,): where each wave stands in a box of this size, and whether it does; those that do not stand at 0."""
        fits_F = (self.waves_F3 < torch.tensor(tuple(box), device=self.waves_F3.device)).all(1)
        t, h, w = (self.waves_F3 * fits_F[:, None]).unbind(1)
        return (t * box[1] + h) * box[2] + w, fits_F

    @torch.no_grad()
    def start(self, clips: Sequence[tuple[Tensor, GridSize]], quantizer: Quantizer) -> None:
        """Fit to clips: cells (N, P) and the grid of each.

        Channels are the principal components of cells; waves are taken greedily by the variance that is left of
        them; the scale of each number is the one of a few that leaves the least error.
        """
        some_NP = torch.cat([cells[:: max(1, len(cells) // 256)] for cells, _ in clips])
        mean_P = some_NP.mean(0)
        centred_NP = (some_NP - mean_P).double()
        vectors_PP = torch.linalg.eigh(centred_NP.T @ centred_NP)[1]
        basis_PG = vectors_PP.flip(1)[:, : self.channels].to(some_NP.dtype)
        self.analyse.weight.copy_(basis_PG.T)
        self.analyse.bias.copy_(-mean_P @ basis_PG)
        self.synthesise.weight.copy_(basis_PG)
        self.synthesise.bias.copy_(mean_P)
        most = tuple(min(most, max(grid[axis] for _, grid in clips)) for axis, most in enumerate(_MOST_WAVES))
        waves_CX = torch.stack([self._waves_of(cells, grid, most) for cells, grid in clips])
        order, depths = self._order(waves_CX.square().mean(0), quantizer)
        wanted = self._assign(order, depths, most, quantizer)
        columns_FG = torch.tensor(wanted)[:, None] * self.channels + torch.arange(self.channels)
        self._scale(waves_CX[:, columns_FG.flatten()], quantizer)

    def _waves_of(self, cells_NP: Tensor, grid: GridSize, most: tuple[int, ...]) -> Tensor:
        """(t * h * w * G,) of one clip, in a box of ``most`` waves; those that its grid is too small for are zero."""
        box_thwG = _waves(self.analyse(cells_NP)[None].unflatten(1, grid))[0, : most[0], : most[1], : most[2]]
        whole = box_thwG.new_zeros(*most, self.channels)
        t, h, w, _ = box_thwG.shape
        whole[:t, :h, :w] = box_thwG
        return whole.flatten()

    def _order(self, variance_X: Tensor, quantizer: Quantizer) -> tuple[list[int], list[int]]:
        """The wave of each number in turn, and how often it was told before: always that of which most is left."""
        levels, wanted = _levels(quantizer), self.inward_QE.numel()
        strongest = variance_X.topk(min(wanted, len(variance_X)))  # more can never be wanted
        queue = [(-left, x) for left, x in zip(strongest.values.tolist(), strongest.indices.tolist())]
        heapq.heapify(queue)
        order: list[int] = []
        depths: list[int] = []
        taken: dict[int, int] = {}
        while len(order) < wanted and queue:
            left, x = heapq.heappop(queue)
            level = levels[_finest(levels)[len(order) % len(levels)]]
            order.append(x)
            depths.append(taken.get(x, 0))
            taken[x] = depths[-1] + 1
            if taken[x] < _DEPTHS:
                heapq.heappush(queue, (left * min(1.0, 2.2 / level**2), x))
        return order, depths

    def _assign(
        self, order: Sequence[int], depths: Sequence[int], most: tuple[int, ...], quantizer: Quantizer
    ) -> list[int]:
        """Give every number its wave; returns the waves that have numbers, as places in a box of ``most``."""
        wanted = sorted({x // self.channels for x in order})
        row = {wave: index for index, wave in enumerate(wanted)}
        self.waves_F3[: len(wanted)] = torch.stack(torch.unravel_index(torch.tensor(wanted), most), 1)
        self.waves_F3[len(wanted) :] = 1 << 30  # of no grid
        levels = _levels(quantizer)
        for table in (self.place_QE, self.inward_QE, self.outward_QE):
            table.zero_()
        self.depth_QE.fill_(-1)  # numbers that are left when all waves are told say nothing
        for index, (x, depth) in enumerate(zip(order, depths)):
            q, e = index // len(levels), _finest(levels)[index % len(levels)]
            self.place_QE[q, e] = row[x // self.channels] * self.channels + x % self.channels
            self.depth_QE[q, e] = depth
        return wanted

    def _scale(self, left_CX: Tensor, quantizer: Quantizer) -> None:
        """Scales in and out of every number, depth by depth."""
        for depth in range(int(self.depth_QE.max()) + 1):
            chosen = self.depth_QE == depth
            values_CQE = left_CX[:, self.place_QE]
            deviation_QE = values_CQE.square().mean(0).sqrt().clamp(min=1e-8)
            best_QE = torch.full_like(deviation_QE, math.inf)
            told_CQE = torch.zeros_like(values_CQE)
            for spread in _SPREADS:
                codes = quantizer(values_CQE * (spread / deviation_QE)).codes
                out = (codes * values_CQE).mean(0) / codes.square().mean(0).clamp(min=1e-8)
                error = (codes * out - values_CQE).square().mean(0)
                better = chosen & (error < best_QE)
                best_QE = torch.where(better, error, best_QE)
                self.inward_QE.copy_(torch.where(better, spread / deviation_QE, self.inward_QE))
                self.outward_QE.copy_(torch.where(better, out, self.outward_QE))
                told_CQE = torch.where(better, codes * out, told_CQE)
            left_CX = left_CX.index_add(1, self.place_QE.flatten(), (told_CQE * chosen).flatten(1), alpha=-1)


def _levels(quantizer: Quantizer) -> tuple[int, ...]:
    assert isinstance(quantizer, FSQ)
    return quantizer.config.levels


def _finest(levels: Sequence[int]) -> list[int]:
    """Numbers of a token, those of most levels first."""
    return sorted(range(len(levels)), key=lambda e: -levels[e])


def _waves(values_BthwG: Tensor) -> Tensor:
    """The slowest waves along each axis, at most ``_MOST_WAVES``: means of products with cosines."""
    for axis in (3, 2, 1):  # the longest rows last would cost more
        size = values_BthwG.shape[axis]
        table = _cosines(size, values_BthwG.device)[: _MOST_WAVES[axis - 1]]
        values_BthwG = torch.tensordot(values_BthwG, table / size, dims=([axis], [1])).movedim(-1, axis)
    return values_BthwG


def _values(box_BthwG: Tensor, grid: GridSize) -> Tensor:
    """Sums of cosines over a grid, of the waves in a box."""
    for axis in (1, 2, 3):
        table = _cosines(grid[axis - 1], box_BthwG.device)[: box_BthwG.shape[axis]]
        box_BthwG = torch.tensordot(box_BthwG, table, dims=([axis], [0])).movedim(-1, axis)
    return box_BthwG


@lru_cache(maxsize=64)
def _cosines(size: int, device: torch.device) -> Tensor:
    """(size, size): DCT-II rows of mean square 1."""
    with torch.inference_mode(False), torch.no_grad():
        waves = torch.arange(size, device=device, dtype=torch.float64)[:, None]
        table = torch.cos(math.pi * (torch.arange(size, device=device) + 0.5) * waves / size)
        table[1:] *= math.sqrt(2)
        return table.float()
