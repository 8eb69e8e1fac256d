"""Tokens on padded grids: which are real, where they stand, and how they fold along space or time.

Letters: B batch, t h w grid of the batch, S = h*w places of a step, L = t*S tokens, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.nn.positions import GridSize, LearnedPositions

__all__ = ["Fold", "GridPositions", "masked_mean"]


class Fold(NamedTuple):
    """The grid of a batch, and which of it is real: real cells are the first ones along each axis.

    A mask is None where everything is real. Steps and places are masked apart: no row of a mask hides all keys, and a
    token that is no token is read by none that is.
    """

    grid: GridSize
    time_Bt: Tensor | None = None
    space_BS: Tensor | None = None

    @classmethod
    def of(cls, grid: GridSize, own: Sequence[GridSize] | None, device: torch.device) -> Fold:
        """From the grid of each example; None if all fill the batch's."""
        if own is None:
            return cls(grid)
        real = []
        for axis, size in enumerate(grid):
            counts_B = torch.tensor([one[axis] for one in own], device=device)
            real.append(torch.arange(size, device=device) < counts_B[:, None])
        time_Bt, rows_Bh, columns_Bw = real
        full_time = all(one[0] == grid[0] for one in own)
        full_space = all(one[1:] == grid[1:] for one in own)
        space_BS = (rows_Bh[:, :, None] & columns_Bw[:, None, :]).flatten(1)
        return cls(grid, None if full_time else time_Bt, None if full_space else space_BS)

    @property
    def num_steps(self) -> int:
        """t."""
        return self.grid[0]

    @property
    def num_places(self) -> int:
        """S."""
        return self.grid[1] * self.grid[2]

    def tokens_BL(self) -> Tensor | None:
        """(B, L): real in time and in space."""
        if self.time_Bt is None and self.space_BS is None:
            return None
        time_Bt = self.time_Bt if self.time_Bt is not None else _all(self.space_BS, self.num_steps)
        space_BS = self.space_BS if self.space_BS is not None else _all(self.time_Bt, self.num_places)
        return (time_Bt[:, :, None] & space_BS[:, None, :]).flatten(1)

    def places_of_steps(self) -> Tensor | None:
        """((B t), S): the space mask again for every step."""
        return None if self.space_BS is None else repeat(self.space_BS, "B S -> (B t) S", t=self.num_steps)

    def steps_of_places(self) -> Tensor | None:
        """((B S), t): the time mask again for every place."""
        return None if self.time_Bt is None else repeat(self.time_Bt, "B t -> (B S) t", S=self.num_places)


def _all(like: Tensor | None, count: int) -> Tensor:
    assert like is not None
    return like.new_ones(len(like), count)


def masked_mean(x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
    """(B, L, D) -> (B, D) over the real tokens."""
    if valid_BL is None:
        return x_BLD.mean(1)
    kept_BLD = x_BLD.masked_fill(~valid_BL[..., None], 0)
    return kept_BLD.sum(1) / valid_BL.sum(1, keepdim=True).to(x_BLD.dtype)


class GridPositions(nn.Module):
    """Learned positions of padded grids: an example gets the table of its own grid, whatever it is padded to.

    A larger grid gets the table stretched; along the axes of ``prefix`` a smaller one gets the first rows, so that a
    short clip stands where the beginning of a long one does.

    Args:
        grid: (t, h, w) the table is made for.
        dim: D.
        prefix: axes that are cut and not shrunk.
    """

    def __init__(self, *, grid: GridSize, dim: int, prefix: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.prefix = prefix
        self.learned = LearnedPositions(grid=grid, dim=dim, interpolate=True)

    def forward(self, grid: GridSize, own: Sequence[GridSize] | None = None) -> Tensor:
        """The batch's grid and each example's -> (1, t, h, w, D), or (B, t, h, w, D) with zeros past the own grid."""
        if own is None:
            return self._table(grid)[None]
        tables = {}
        for size in dict.fromkeys(own):
            pads = [pad for have, want in zip(reversed(size), reversed(grid)) for pad in (0, want - have)]
            tables[size] = F.pad(self._table(size), (0, 0, *pads))
        return torch.stack([tables[size] for size in own])

    def _table(self, grid: GridSize) -> Tensor:
        made = self.learned.grid
        t, h, w = (max(n, own) if axis in self.prefix else n for axis, (n, own) in enumerate(zip(grid, made)))
        table_thwD = rearrange(self.learned((t, h, w)), "(t h w) D -> t h w D", t=t, h=h)
        own_thwD: Tensor = table_thwD[: grid[0], : grid[1], : grid[2]]
        return own_thwD
