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
    """Adds to a token's features what its own embedding and those around it tell, in its step and in those before.

    A position of few dimensions cannot hold the ids of all its tokens, so what the transformer says of them is rough.
    What stands still or moves on by a little is read here, at full detail:
    ``h = gelu(A y + B e + sum_d C_d n_d)``, ``h <- h + gelu(W h)`` for each further layer, ``y + V h``, with n_d the
    embeddings, narrowed by half, of a window of rows and columns d steps before. Beyond the grid there are zeros.

    Args:
        token_dim: E, of embeddings and features.
        hidden_dim: of h.
        depth: how many layers h has.
        windows: rows and columns, both odd, in the token's own step, in the one before, and so on.
    """

    def __init__(self, *, token_dim: int, hidden_dim: int, depth: int, windows: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.windows = windows
        narrow = max(1, token_dim // 2)
        widths = [rows * columns * narrow for rows, columns in windows]
        self.narrow = nn.Linear(token_dim, narrow, bias=False)
        self.told = nn.Linear(token_dim, hidden_dim)
        self.own = nn.Linear(token_dim, hidden_dim, bias=False)
        self.around = nn.ModuleList(nn.Linear(width, hidden_dim, bias=False) for width in widths)
        self.layers = nn.ModuleList(nn.Linear(hidden_dim, hidden_dim) for _ in range(depth - 1))
        self.out = nn.Linear(hidden_dim, token_dim)
        drawn(self.narrow.weight, std=token_dim**-0.5)
        for layer in (self.told, self.own):
            drawn(layer.weight, std=(2 * token_dim) ** -0.5)
        for name, weight in self.named_parameters():
            if name.startswith("around"):
                drawn(weight, std=sum(widths) ** -0.5)
            elif name.startswith(("layers", "out")) and name.endswith("weight"):
                drawn(weight, std=hidden_dim**-0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, features_NLE: Tensor, tokens_BLE: Tensor, grid: Grid, wanted: Tensor | None = None) -> Tensor:
        """Features (N, L, E) and embeddings (B, L, E) on the grid, N = B or 2 B -> (N, L, E).

        Steps without a token that is ``wanted``, bool (B, L), before the first or after the last such, are left as
        they are.
        """
        first, last = (0, grid.t) if wanted is None else _steps_of(wanted, grid)
        tokens_BthwE = _on_grid(tokens_BLE.to(features_NLE.dtype), grid)
        features_NthwE = _on_grid(features_NLE, grid)
        near_BthwE = self.narrow(tokens_BthwE)
        seen_BthwH = self.own(tokens_BthwE[:, first:last])
        for before, around in enumerate(self.around):
            start = max(first - before, 0)
            if last - before > start:
                part_BthwH = around(_seen(near_BthwE[:, start : last - before], *self.windows[before]))
                seen_BthwH = seen_BthwH + F.pad(part_BthwH, (0, 0) * 3 + (start + before - first, 0))
        repeats = len(features_NLE) // len(tokens_BLE)
        if repeats > 1:
            seen_BthwH = seen_BthwH.repeat(repeats, 1, 1, 1, 1)
        hidden_NthwH = F.gelu(self.told(features_NthwE[:, first:last]) + seen_BthwH)
        for layer in self.layers:
            hidden_NthwH = hidden_NthwH + F.gelu(layer(hidden_NthwH))
        more_NthwE = F.pad(self.out(hidden_NthwH), (0, 0) * 3 + (first, grid.t - last))
        return features_NLE + more_NthwE.flatten(1, 3)


def _seen(near_BthwE: Tensor, rows: int, columns: int) -> Tensor:
    """What a window around each token holds: (B, t, h, w, E) -> (B, t, h, w, rows * columns * E)."""
    h, w = near_BthwE.shape[2:4]
    wide = F.pad(near_BthwE, (0, 0, columns // 2, columns // 2, rows // 2, rows // 2))
    parts = [wide[:, :, row : row + h, column : column + w] for row in range(rows) for column in range(columns)]
    return torch.cat(parts, dim=-1)


def _steps_of(wanted_BL: Tensor, grid: Grid) -> tuple[int, int]:
    """The first step with a wanted token, and the one after the last; one step at least."""
    is_wanted_t = wanted_BL.reshape(len(wanted_BL), grid.t, -1).any(2).any(0)
    steps = is_wanted_t.nonzero()[:, 0].tolist() or [0]
    return steps[0], steps[-1] + 1


def _on_grid(values_NLX: Tensor, grid: Grid) -> Tensor:
    """(N, L, X) -> (N, t, h, w, X)."""
    return values_NLX.reshape(len(values_NLX), grid.t, grid.h, grid.w, -1)
