"""A start for tokens without a grid: each says a few cosines of the whole clip, the strongest first.

A row of tokens that start at random learns nothing for thousands of steps. Here token 0 starts as the mean colour and
the slowest waves, token 1 as the next ones, in the order of their variance over real clips: a transform codec of the
whole clip, of which every prefix is a picture. Attention then improves on it. Where a wave's variance is so large that
what one number's levels leave of it outweighs the next wave, a later number codes that rest (reverse water-filling,
Cover and Thomas, Elements of Information Theory, section 10.3.3).

Letters: B clips, N patches (t*h*w), P values of a patch, G channels of a patch, F waves, Q tokens, E codebook_dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.quantize import FSQ, Quantizer

__all__ = ["Spectrum"]

GridSize = tuple[int, int, int]

_SPREADS = (0.4, 0.6, 0.8, 1.1)  # standard deviations of latents that are tried
_MOST_WAVES = (8, 24, 24)  # along t, h and w, that a wave may count
_DEPTHS = 4  # how often one wave is coded at most


class Spectrum(nn.Module):
    """Patches to the linear part of the first Q tokens' latents, and their codes back to patches.

    wave f of channel g: c_fg = mean over patches n of phi_f(n) (A x_n + a)_g, phi_f a product of cosines (DCT-II) of
    mean square 1, so that c does not depend on the number of patches; x_n = B sum_f c_fg phi_f(n) + b. Number e of
    token q holds wave ``place_QE``, or what earlier tokens leave of it (``depth_QE`` > 0), times ``inward_QE``.

    Starts at zero, where it adds nothing; ``start`` fits it to clips. Tokens past Q get nothing.
    """

    place_QE: Tensor
    depth_QE: Tensor
    waves_F3: Tensor

    def __init__(self, *, num_tokens: int, channels: int, patch_values: int, quantizer: Quantizer) -> None:
        super().__init__()
        if not isinstance(quantizer, FSQ):
            raise InputError("a spectral start needs FSQ, whose numbers are quantized one by one")
        if min(num_tokens, channels) < 1:
            raise InputError(
                f"a spectrum needs at least 1 of tokens and spectral_channels, got {num_tokens}, {channels}"
            )
        width = quantizer.codebook_dim
        self.num_tokens, self.channels = num_tokens, channels
        self.analyse = nn.Linear(patch_values, channels)
        self.synthesise = nn.Linear(channels, patch_values)
        self.inward_QE = nn.Parameter(torch.zeros(num_tokens, width))
        self.outward_QE = nn.Parameter(torch.zeros(num_tokens, width))
        self.register_buffer("place_QE", torch.zeros(num_tokens, width, dtype=torch.int64))
        self.register_buffer("depth_QE", torch.zeros(num_tokens, width, dtype=torch.int64))
        self.register_buffer("waves_F3", torch.zeros(num_tokens * width, 3, dtype=torch.int64))
        if not self.inward_QE.is_meta:
            for layer in (self.analyse, self.synthesise):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def latents(self, patches_BNP: Tensor, more_BQE: Tensor, grid: GridSize, quantizer: Quantizer) -> Tensor:
        """Latents (B, L, E) of what attention says, ``more_BQE`` (B, L, E), and of the waves together, float32."""
        count = min(more_BQE.shape[1], self.num_tokens)
        phi_FN = self._phi(grid, patches_BNP.device)
        waves_BFG = phi_FN @ self.analyse(patches_BNP.to(self.analyse.weight.dtype)) / phi_FN.shape[1]
        left_BX = waves_BFG.flatten(1)
        more, place, depth = more_BQE[:, :count].float(), self.place_QE[:count], self.depth_QE[:count]
        latents = more + self.inward_QE[:count] * left_BX[:, place]
        for step in range(int(depth.max()) if count else 0):
            codes = quantizer(latents).codes * self.outward_QE[:count] * (depth == step)
            left_BX = left_BX.index_add(1, place.flatten(), codes.flatten(1), alpha=-1)
            latents = torch.where(depth == step + 1, more + self.inward_QE[:count] * left_BX[:, place], latents)
        return torch.cat([latents, more_BQE[:, count:].float()], dim=1)

    def cells(self, codes_BQE: Tensor, grid: GridSize) -> Tensor:
        """Codes (B, L, E) -> what they say of each patch, (B, N, G). A code of 0 says nothing."""
        count = min(codes_BQE.shape[1], self.num_tokens)
        told_BX = (codes_BQE[:, :count].float() * self.outward_QE[:count]).flatten(1)
        waves_BX = told_BX.new_zeros(len(told_BX), len(self.waves_F3) * self.channels)
        waves_BX = waves_BX.index_add(1, self.place_QE[:count].flatten(), told_BX)
        return self._phi(grid, codes_BQE.device).t() @ waves_BX.view(len(waves_BX), -1, self.channels)

    def patches(self, cells_BNG: Tensor) -> Tensor:
        """(B, N, G) -> (B, N, P)."""
        patches: Tensor = self.synthesise(cells_BNG)
        return patches

    def _phi(self, grid: GridSize, device: torch.device) -> Tensor:
        """(F, N); a wave that a grid is too small for is zero."""
        axes = [_cosines(size, device) for size in grid]
        t, h, w = (
            torch.cat([table, table.new_zeros(1, table.shape[1])])[waves.clamp(max=len(table))]
            for table, waves in zip(axes, self.waves_F3.unbind(1))
        )
        return (t[:, :, None, None] * h[:, None, :, None] * w[:, None, None, :]).flatten(1)

    @torch.no_grad()
    def start(self, clips: Sequence[tuple[Tensor, GridSize]], quantizer: Quantizer) -> None:
        """Fit to clips: patches (N, P) and the grid of each.

        Channels are the principal components of patches; waves are taken greedily by the variance that is left of
        them; the scale of each number is the one of a few that leaves the least error.
        """
        some_NP = torch.cat([patches[:: max(1, len(patches) // 256)] for patches, _ in clips])
        mean_P = some_NP.mean(0)
        centred_NP = (some_NP - mean_P).double()
        vectors_PP = torch.linalg.eigh(centred_NP.T @ centred_NP)[1]
        basis_PG = vectors_PP.flip(1)[:, : self.channels].to(some_NP.dtype)
        self.analyse.weight.copy_(basis_PG.T)
        self.analyse.bias.copy_(-mean_P @ basis_PG)
        self.synthesise.weight.copy_(basis_PG)
        self.synthesise.bias.copy_(mean_P)
        known = torch.cartesian_prod(
            *(torch.arange(min(most, max(grid[axis] for _, grid in clips))) for axis, most in enumerate(_MOST_WAVES))
        )
        waves_CX = torch.stack([self._waves_of(patches, grid, known) for patches, grid in clips])
        self._assign(waves_CX, known, quantizer)

    def _waves_of(self, patches_NP: Tensor, grid: GridSize, known_F3: Tensor) -> Tensor:
        """(F * G,), of one clip."""
        cells_thwG: Tensor = self.analyse(patches_NP).view(*grid, -1)
        for axis in range(3):
            size = grid[axis]
            table = _cosines(size, patches_NP.device)
            most = int(known_F3[:, axis].max()) + 1
            table = torch.cat([table, table.new_zeros(max(0, most - size), size)])[:most]
            cells_thwG = torch.movedim(torch.tensordot(table, cells_thwG, dims=([1], [axis])), 0, axis) / size
        return cells_thwG.flatten()

    def _assign(self, waves_CX: Tensor, known_F3: Tensor, quantizer: Quantizer) -> None:
        assert isinstance(quantizer, FSQ)
        levels = quantizer.config.levels
        finest = sorted(range(len(levels)), key=lambda e: -levels[e])
        left = waves_CX.square().mean(0).tolist()
        order: list[int] = []
        taken: dict[int, int] = {}
        heap = sorted(range(len(left)), key=lambda x: -left[x])
        pool = heap[: 4 * self.inward_QE.numel()]  # more can never be wanted
        import heapq

        queue = [(-left[x], x) for x in pool]
        heapq.heapify(queue)
        depths: list[int] = []
        while len(order) < self.inward_QE.numel() and queue:
            value, x = heapq.heappop(queue)
            order.append(x)
            depths.append(taken.get(x, 0))
            taken[x] = taken.get(x, 0) + 1
            level = levels[finest[(len(order) - 1) % len(levels)]]
            if taken[x] < _DEPTHS:
                heapq.heappush(queue, (value * min(1.0, 2.2 / level**2), x))
        wanted = sorted({x // self.channels for x in order})
        row = {wave: index for index, wave in enumerate(wanted)}
        self.waves_F3.zero_()
        self.waves_F3[: len(wanted)] = known_F3[wanted]
        self.waves_F3[len(wanted) :] = 1 << 30  # of no grid
        width = len(levels)
        for table in (self.place_QE, self.inward_QE, self.outward_QE):
            table.zero_()
        self.depth_QE.fill_(-1)  # numbers that are left when all waves are told say nothing
        for index, (x, depth) in enumerate(zip(order, depths)):
            q, e = index // width, finest[index % width]
            self.place_QE[q, e] = row[x // self.channels] * self.channels + x % self.channels
            self.depth_QE[q, e] = depth
        self._scale(waves_CX[:, self._columns(wanted)], quantizer)

    def _columns(self, wanted: Sequence[int]) -> Tensor:
        return (torch.tensor(wanted)[:, None] * self.channels + torch.arange(self.channels)).flatten()

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


@lru_cache(maxsize=64)
def _cosines(size: int, device: torch.device) -> Tensor:
    """(size, size): DCT-II rows of mean square 1."""
    with torch.inference_mode(False), torch.no_grad():
        waves = torch.arange(size, device=device, dtype=torch.float64)[:, None]
        table = torch.cos(math.pi * (torch.arange(size, device=device) + 0.5) * waves / size)
        table[1:] *= math.sqrt(2)
        return table.float()
