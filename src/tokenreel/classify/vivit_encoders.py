"""The four models of ViViT as encoders: tokens on a grid to one vector an example.

Letters: B batch, t h w grid, S = h*w places of a step, L = t*S tokens, N sequences, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.nn.blocks import Transformer
from tokenreel.nn.initial import drawn
from tokenreel.nn.positions import GridSize

from .folds import Fold, GridPositions, masked_mean
from .vivit_blocks import DividedBlock, FactorisedBlock, FoldedTransformer, adapt, first_token
from .vivit_config import EncoderConfig, Pooling

__all__ = ["ENCODERS", "Encoder", "FactorisedEncoder", "FoldedEncoder", "PooledStack", "SpatioTemporalEncoder"]


class PooledStack(nn.Module):
    """A transformer and its answer as one vector, of a class token or the mean: (N, L, D) -> (N, D).

    The last block computes the class token alone, since nothing reads the others: to rounding the same answer for a
    tenth less work at depth 8. ``every_token`` computes them all, for whoever looks into the stack with hooks.
    """

    every_token = False

    def __init__(self, config: EncoderConfig, *, depth: int, pooling: Pooling) -> None:
        super().__init__()
        self.stack = Transformer(config.encoder.transformer(config.blocks, depth=depth))
        adapt(self.stack, activation=config.activation, eps=config.eps)
        self.class_token_D: nn.Parameter | None = None
        if pooling == "class_token":
            self.class_token_D = nn.Parameter(torch.empty(config.encoder.dim))
            drawn(self.class_token_D, std=0.02)

    def forward(self, x_NLD: Tensor, valid_NL: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """(N, L, D) and which of it is real -> (N, D)."""
        if self.class_token_D is None:
            return masked_mean(self.stack(x_NLD, valid_mask=valid_NL, generator=generator), valid_NL)
        token_N1D = self.class_token_D.to(x_NLD.dtype).expand(len(x_NLD), 1, -1)
        seen_NL = None if valid_NL is None else F.pad(valid_NL, (1, 0), value=True)
        read_NLD = torch.cat([token_N1D, x_NLD], dim=1)
        if self.every_token:
            answer: Tensor = self.stack(read_NLD, valid_mask=seen_NL, generator=generator)[:, 0]
            return answer
        return first_token(self.stack, read_NLD, seen_NL, generator)


class Encoder(nn.Module):
    """Base: ``forward(x_BthwD, own, generator=None) -> (B, D)``; ``own`` is the grid of each example, None if full.

    Cells past an example's own grid change nothing of its answer.
    """

    def __init__(self, config: EncoderConfig, grid: GridSize, prefix: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.config, self.grid, self.prefix = config, grid, prefix

    def positions_of(self, grid: GridSize) -> GridPositions:
        """A table of the encoder's width."""
        return GridPositions(grid=grid, dim=self.config.encoder.dim, prefix=self.prefix)

    def forward(
        self, x_BthwD: Tensor, own: Sequence[GridSize] | None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, t, h, w, D) -> (B, D)."""
        raise NotImplementedError


class SpatioTemporalEncoder(Encoder):
    """Model 1: every token attends to every other (arXiv 2103.15691, section 3.3)."""

    def __init__(self, config: EncoderConfig, grid: GridSize, prefix: tuple[int, ...] = (0,)) -> None:
        super().__init__(config, grid, prefix)
        self.positions = self.positions_of(grid)
        self.pooled = PooledStack(config, depth=config.encoder.depth, pooling=config.pooling)

    def forward(
        self, x_BthwD: Tensor, own: Sequence[GridSize] | None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, t, h, w, D) -> (B, D)."""
        grid = _grid_of(x_BthwD)
        x_BLD = (x_BthwD + self.positions(grid, own)).flatten(1, 3)
        answer: Tensor = self.pooled(x_BLD, Fold.of(grid, own, x_BthwD.device).tokens_BL(), generator)
        return answer


class FactorisedEncoder(Encoder):
    """Model 2: a transformer over the places of each step, then one over the steps (arXiv 2103.15691, section 3.3).

    The first one has no last norm where a second one follows: that reads the residual stream on, and ends in its own.
    """

    def __init__(self, config: EncoderConfig, grid: GridSize, prefix: tuple[int, ...] = (0,)) -> None:
        super().__init__(config, grid, prefix)
        self.space_positions = self.positions_of((1, *grid[1:]))
        self.space = PooledStack(config, depth=config.encoder.depth, pooling=config.pooling)
        self.time: PooledStack | None = None
        if config.temporal_depth:
            self.space.stack.norm = nn.Identity()
            self.time_positions = self.positions_of((grid[0], 1, 1))
            over_time = config.temporal_pooling or config.pooling
            self.time = PooledStack(config, depth=config.temporal_depth, pooling=over_time)

    def forward(
        self, x_BthwD: Tensor, own: Sequence[GridSize] | None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, t, h, w, D) -> (B, D)."""
        grid = _grid_of(x_BthwD)
        fold = Fold.of(grid, own, x_BthwD.device)
        flat = None if own is None else [(1, *one[1:]) for one in own]
        x_BthwD = x_BthwD + self.space_positions((1, *grid[1:]), flat)
        x_NSD = rearrange(x_BthwD, "B t h w D -> (B t) (h w) D")
        steps_ND = self.space(x_NSD, fold.places_of_steps(), generator)
        steps_BtD = rearrange(steps_ND, "(B t) D -> B t D", t=fold.num_steps)
        if self.time is None:
            return masked_mean(steps_BtD, fold.time_Bt)
        line = None if own is None else [(one[0], 1, 1) for one in own]
        steps_BtD = steps_BtD + self.time_positions((grid[0], 1, 1), line).flatten(1, 3)
        answer: Tensor = self.time(steps_BtD, fold.time_Bt, generator)
        return answer


class FoldedEncoder(Encoder):
    """Models 3 and 4: blocks that attend along space and along time, and the mean."""

    block: ClassVar[type[DividedBlock] | type[FactorisedBlock]]

    def __init__(self, config: EncoderConfig, grid: GridSize, prefix: tuple[int, ...] = (0,)) -> None:
        super().__init__(config, grid, prefix)
        self.positions = self.positions_of(grid)
        self.stack = FoldedTransformer(config.encoder.transformer(config.blocks), self.block)
        adapt(self.stack, activation=config.activation, eps=config.eps)

    def forward(
        self, x_BthwD: Tensor, own: Sequence[GridSize] | None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, t, h, w, D) -> (B, D)."""
        grid = _grid_of(x_BthwD)
        fold = Fold.of(grid, own, x_BthwD.device)
        x_BLD = (x_BthwD + self.positions(grid, own)).flatten(1, 3)
        return masked_mean(self.stack(x_BLD, fold, generator=generator), fold.tokens_BL())


class FactorisedSelfAttentionEncoder(FoldedEncoder):
    """Model 3."""

    block = FactorisedBlock


class FactorisedDotProductEncoder(FoldedEncoder):
    """Model 4."""

    block = DividedBlock


ENCODERS: dict[str, type[Encoder]] = {
    "spatio_temporal": SpatioTemporalEncoder,
    "factorised_encoder": FactorisedEncoder,
    "factorised_self_attention": FactorisedSelfAttentionEncoder,
    "factorised_dot_product": FactorisedDotProductEncoder,
}


def _grid_of(x_BthwD: Tensor) -> GridSize:
    return cast(GridSize, tuple(x_BthwD.shape[1:4]))
