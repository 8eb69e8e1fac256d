"""Positions that are added: learned and sin-cos tables, a continuous bias on scores, and a position generator (PEG).

Letters: B batch, t h w grid, L = t*h*w tokens row-major in (t, h, w), D dim, A heads, X axes, R = offsets on the grid.
Rotary positions, which turn queries and keys instead, are in ``rotary``.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError

from .initial import drawn
from .rotary import grid_positions

__all__ = ["ContinuousBias", "LearnedPositions", "PositionGenerator", "SinCosPositions"]

GridSize = tuple[int, int, int]


class LearnedPositions(nn.Module):
    """A learned vector for every cell of one grid: ``forward((t, h, w)) -> (t*h*w, D)``. ViT, arXiv 2010.11929.

    Args:
        grid: (t, h, w) the table is made for.
        dim: D.
        interpolate: whether other grids get the table stretched (trilinear, corners not aligned), as ViT does when
            it is fine-tuned at another size. Stretching over t moves earlier frames when frames are added, so
            causal models keep t fixed or use sin-cos or rotary positions along it.
    """

    def __init__(self, *, grid: GridSize, dim: int, interpolate: bool = False) -> None:
        super().__init__()
        if min(*grid, dim) < 1:
            raise InputError(f"learned positions need a grid and dim of at least 1, got grid {grid}, dim {dim}")
        self.grid, self.interpolate = grid, interpolate
        self.table_thwD = nn.Parameter(torch.empty(*grid, dim))
        drawn(self.table_thwD, std=0.02)

    def forward(self, grid: GridSize) -> Tensor:
        """(t, h, w) -> (L, D)."""
        if grid == self.grid:
            return self.table_thwD.flatten(0, 2)
        if not self.interpolate:
            raise InputError(f"learned positions are of grid {self.grid}, got {grid}; interpolate=True stretches them")
        table_BDthw = rearrange(self.table_thwD, "t h w D -> 1 D t h w").float()
        stretched_BDthw = F.interpolate(table_BDthw, size=grid, mode="trilinear", align_corners=False)
        return rearrange(stretched_BDthw, "1 D t h w -> (t h w) D").to(self.table_thwD.dtype)


class SinCosPositions(nn.Module):
    """Sines and cosines of every cell's (t, h, w): ``forward((t, h, w)) -> (L, D)``, fp32, nothing learned.

    arXiv 1706.03762, section 3.5, sines first. Height and width take ``2 * (D // 6)`` channels each and time the rest;
    with ``spatial`` time takes none and the table is the 2-D one of arXiv 2205.01580. Any grid, any start in time.
    """

    def __init__(self, *, dim: int, spatial: bool = False, base: float = 10_000.0) -> None:
        super().__init__()
        if dim % (4 if spatial else 2) or dim < (4 if spatial else 6):
            kind = (
                "2-D sin-cos positions need a dim divisible by 4"
                if spatial
                else "sin-cos positions need an even dim >= 6"
            )
            raise InputError(f"{kind}, got {dim}")
        side = dim // 2 if spatial else 2 * (dim // 6)
        self.widths, self.base = (dim - 2 * side, side, side), base

    def forward(self, grid: GridSize, *, first_t: int = 0, device: torch.device | None = None) -> Tensor:
        """(t, h, w) -> (L, D); ``first_t`` is the place in time of the first cell."""
        positions_LX = grid_positions(*grid, first_t=first_t, device=device).to(torch.float64)
        columns = []
        for axis, width in enumerate(self.widths):
            steps = torch.arange(width // 2, dtype=torch.float64, device=device)
            angles = positions_LX[:, axis, None] * torch.exp(-math.log(self.base) * 2 * steps / max(width, 1))
            columns += [angles.sin(), angles.cos()]
        return torch.cat(columns, dim=-1).float()


class ContinuousBias(nn.Module):
    """A bias on attention scores from relative positions: ``forward((t, h, w)) -> (A, L, L)``.

    A small network over ``sign(r) log(1 + |r|)`` of each axis' difference r (query minus key): Swin v2,
    arXiv 2111.09883, equations 3 and 4; Phenaki, arXiv 2210.02399, uses it over space. Any grid fits. The network runs
    once an offset, (2t-1)(2h-1)(2w-1) of them, not once a pair.
    """

    def __init__(self, *, num_heads: int, hidden_dim: int = 128) -> None:
        super().__init__()
        if min(num_heads, hidden_dim) < 1:
            raise InputError(
                f"continuous bias needs num_heads and hidden_dim of at least 1, got {num_heads}, {hidden_dim}"
            )
        self.layers = nn.Sequential(
            nn.Linear(3, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, num_heads),
        )

    def forward(self, grid: GridSize) -> Tensor:
        """(t, h, w) -> (A, L, L), row = query, column = key."""
        weight: Tensor = self.layers[0].weight  # type: ignore[assignment]
        sides = tuple(2 * n - 1 for n in grid)
        centre_X = torch.tensor(grid, device=weight.device) - 1
        offsets_RX = (grid_positions(*sides, device=weight.device) - centre_X).to(weight.dtype)
        bias_RA = self.layers(offsets_RX.sign() * offsets_RX.abs().log1p())
        strides_X = torch.tensor((sides[1] * sides[2], sides[2], 1), device=weight.device)
        place_L = (grid_positions(*grid, device=weight.device) * strides_X).sum(-1)
        which_LL = place_L[:, None] - place_L[None, :] + (centre_X * strides_X).sum()
        bias_ALL: Tensor = bias_RA.t()[:, which_LL]
        return bias_ALL


class PositionGenerator(nn.Module):
    """PEG, a depthwise convolution that tells tokens where they stand: (B, t, h, w, D) -> (B, t, h, w, D).

    ``x + conv(x)``, zeros outside the grid: CPVT, arXiv 2102.10882, section 3.3; in three dimensions Phenaki,
    arXiv 2210.02399. With ``causal`` all padding in time is on the left, so that no frame sees a later one; the axes
    are those of the grid, and never a sequence folded back by guess.

    The convolution reads a channels-last view: on CPU that takes a seventh to a third of the time of a contiguous
    (B, D, t, h, w), and half that of 27 shifted sums.
    """

    def __init__(self, *, dim: int, causal: bool, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"a position generator needs an odd kernel_size, got {kernel_size}")
        self.dim, self.causal, self.reach = dim, causal, kernel_size - 1
        self.conv = nn.Conv3d(dim, dim, kernel_size, groups=dim)

    def forward(self, x_BthwD: Tensor) -> Tensor:
        """(B, t, h, w, D) -> (B, t, h, w, D)."""
        before = self.reach if self.causal else self.reach // 2
        return self._generate(F.pad(self._checked(x_BthwD), (0,) * 6 + (before, self.reach - before)), x_BthwD)

    def step(self, x_BthwD: Tensor, past_BthwD: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next frames of a stream and what was kept -> their output, and the frames to keep (kernel_size - 1)."""
        if not self.causal:
            raise InputError("only a causal position generator can be streamed; this one has causal=False")
        if past_BthwD is None:
            past_BthwD = x_BthwD.new_zeros(x_BthwD.shape[0], self.reach, *x_BthwD.shape[2:])
        seen_BthwD = torch.cat([past_BthwD, self._checked(x_BthwD)], dim=1)
        kept_BthwD = seen_BthwD[:, seen_BthwD.shape[1] - self.reach :].clone()
        return self._generate(seen_BthwD, x_BthwD), kept_BthwD

    def _generate(self, seen_BthwD: Tensor, x_BthwD: Tensor) -> Tensor:
        side = self.reach // 2
        padded_BthwD = F.pad(seen_BthwD, (0, 0, side, side, side, side))
        conv_BDthw = self.conv(rearrange(padded_BthwD, "B t h w D -> B D t h w"))
        out: Tensor = x_BthwD + rearrange(conv_BDthw, "B D t h w -> B t h w D")
        return out

    def _checked(self, x_BthwD: Tensor) -> Tensor:
        if x_BthwD.ndim != 5 or x_BthwD.shape[-1] != self.dim:
            raise InputError(f"a position generator takes (B, t, h, w, {self.dim}), got {tuple(x_BthwD.shape)}")
        return x_BthwD
