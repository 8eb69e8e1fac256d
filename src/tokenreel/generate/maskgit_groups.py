"""Tokens that lie beside each other as one position of a transformer: fewer positions, and nothing is left out.

A patch embedding of ids. Attention over a quarter of the positions costs a quarter to a sixteenth; every token is still
read, hidden and guessed by itself.

Letters: N rows, L tokens of a grid (t, h, w), P positions of the coarser grid, G tokens of a position, E token_dim,
D dim.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.nn.initial import drawn
from tokenreel.types import Grid

__all__ = ["Neighbours", "TokenGroups", "coarser"]


def coarser(size: tuple[int, int, int], group: tuple[int, int, int]) -> tuple[int, int, int]:
    """Positions (t, h, w) of tokens (t, h, w) in boxes of ``group``; a box at the end may be part empty.

    >>> coarser((6, 16, 15), (1, 2, 2))
    (6, 8, 8)
    """
    t, h, w = (-(-side // step) for side, step in zip(size, group))
    return t, h, w


class TokenGroups(nn.Module):
    """(N, L, E) to (N, P, D) and back, each a linear map of a box of tokens."""

    def __init__(self, *, group: tuple[int, int, int], token_dim: int, dim: int) -> None:
        super().__init__()
        self.group, self.token_dim = group, token_dim
        width = group[0] * group[1] * group[2] * token_dim
        self.inward = nn.Linear(width, dim, bias=False)
        self.outward = nn.Linear(dim, width, bias=False)
        drawn(self.inward.weight, std=width**-0.5)
        drawn(self.outward.weight, std=dim**-0.5)

    def grid(self, grid: Grid) -> Grid:
        """Of the positions."""
        t, h, w = coarser((grid.t, grid.h, grid.w), self.group)
        return Grid(t=t, h=h, w=w)

    def forward(self, tokens_NLE: Tensor, grid: Grid) -> Tensor:
        """(N, L, E) on the grid -> (N, P, D); what is missing at the end of a box is 0."""
        gathered_NPD: Tensor = self.inward(self._boxes(tokens_NLE, grid))
        return gathered_NPD

    def spread(self, features_NPD: Tensor, grid: Grid) -> Tensor:
        """(N, P, D) -> (N, L, E)."""
        coarse, (a, b, c) = self.grid(grid), self.group
        boxes_NPX = self.outward(features_NPD)
        cells_NthwE = rearrange(
            boxes_NPX,
            "N (t h w) (a b c E) -> N (t a) (h b) (w c) E",
            t=coarse.t,
            h=coarse.h,
            w=coarse.w,
            a=a,
            b=b,
            c=c,
        )
        cells_NLE: Tensor = cells_NthwE[:, : grid.t, : grid.h, : grid.w].flatten(1, 3)
        return cells_NLE

    def any(self, mask_NL: Tensor, grid: Grid) -> Tensor:
        """(N, L) bool -> (N, P) bool: whether any token of a position is True."""
        return self._boxes(mask_NL[..., None], grid).any(-1)

    def _boxes(self, values_NLE: Tensor, grid: Grid) -> Tensor:
        (a, b, c), coarse = self.group, self.grid(grid)
        values_NthwE = _on_grid(values_NLE, grid)
        missing = (coarse.w * c - grid.w, coarse.h * b - grid.h, coarse.t * a - grid.t)
        if any(missing):
            values_NthwE = F.pad(values_NthwE, (0, 0, 0, missing[0], 0, missing[1], 0, missing[2]))
        boxes: Tensor = rearrange(values_NthwE, "N (t a) (h b) (w c) E -> N (t h w) (a b c E)", a=a, b=b, c=c)
        return boxes


class Neighbours(nn.Module):
    """Adds to a token's features what its own embedding and those of its six neighbours on the grid tell.

    A position of few dimensions cannot hold the ids of all its tokens; what stands still or moves on by a little is
    read here. ``y + V gelu(W [y, e, e_left, ...])``; beyond the grid there are zeros.
    """

    def __init__(self, *, token_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.into = nn.Linear(8 * token_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, token_dim)
        drawn(self.into.weight, std=(8 * token_dim) ** -0.5)
        drawn(self.out.weight, std=hidden_dim**-0.5)
        for layer in (self.into, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, features_NLE: Tensor, tokens_NLE: Tensor, grid: Grid) -> Tensor:
        """Features and embeddings (N, L, E) on the grid -> (N, L, E)."""
        tokens_NthwE = _on_grid(tokens_NLE.to(features_NLE.dtype), grid)
        wide_NthwE = F.pad(tokens_NthwE, (0, 0, 1, 1, 1, 1, 1, 1))
        around = [_on_grid(features_NLE, grid), tokens_NthwE]
        for axis, side in ((1, grid.t), (2, grid.h), (3, grid.w)):
            inner_NthwE = wide_NthwE
            for other, size in ((1, grid.t), (2, grid.h), (3, grid.w)):
                if other != axis:
                    inner_NthwE = inner_NthwE.narrow(other, 1, size)
            around += [inner_NthwE.narrow(axis, start, side) for start in (0, 2)]
        more_NthwE: Tensor = self.out(F.gelu(self.into(torch.cat(around, dim=-1))))
        return features_NLE + more_NthwE.flatten(1, 3)


def _on_grid(values_NLX: Tensor, grid: Grid) -> Tensor:
    """(N, L, X) -> (N, t, h, w, X)."""
    return values_NLX.reshape(len(values_NLX), grid.t, grid.h, grid.w, -1)
