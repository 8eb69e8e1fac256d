"""The two halves of C-ViViT: frames to features, features to frames; each in one pass and as a stream.

Letters: B batch, C channels (3), T H W pixels, t h w grid, S = h*w cells of a step, D dim, X axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.nn.blocks import Transformer
from tokenreel.nn.heads import KeyValues
from tokenreel.nn.positions import ContinuousBias, PositionGenerator
from tokenreel.nn.rotary import Rotary, Rotation, grid_positions
from tokenreel.patches.embed import PatchEmbed, TubeletEmbed
from tokenreel.types import PatchSize

from .configs import BlockOptions, Stack, check_sizes

__all__ = ["Factorised", "FactorisedConfig", "FrameEmbed", "FrameHead", "Positions", "StreamState"]

Positions = Literal["rotary", "bias"]
_SPATIAL_EXTENT = 64  # cells a side that the spatial rotary bands are spaced for; larger grids work


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorisedConfig:
    """The size of a half: ``spatial_depth`` blocks within each step of time and ``temporal_depth`` along time."""

    dim: int
    spatial_depth: int
    temporal_depth: int
    num_heads: int
    head_dim: int
    mlp_dim: int

    def __post_init__(self) -> None:
        check_sizes(self)

    def stack(self, depth: int) -> Stack:
        """One of its two stacks."""
        return Stack(dim=self.dim, depth=depth, num_heads=self.num_heads, head_dim=self.head_dim, mlp_dim=self.mlp_dim)


class StreamState(NamedTuple):
    """What a half keeps between the parts of a stream: steps seen, the generator's frames, keys and values."""

    steps: int = 0
    peg_BthwD: Tensor | None = None
    past: tuple[KeyValues, ...] | None = None


class Factorised(nn.Module):
    """Spatial and temporal attention in turn: (B, t, h, w, D) -> (B, t, h, w, D).

    C-ViViT, arXiv 2210.02399, section 2.1 and appendix B: all spatial blocks, then all temporal ones (the encoder), or
    the reverse (the decoder). A causal one sees the last ``window`` steps of time in each temporal block.
    """

    def __init__(
        self,
        config: FactorisedConfig,
        *,
        blocks: BlockOptions,
        positions: Positions,
        peg: bool,
        causal: bool,
        window: int,
        temporal_first: bool,
    ) -> None:
        super().__init__()
        if positions not in get_args(Positions):
            raise InputError(f"positions must be one of {', '.join(get_args(Positions))}, got {positions!r}")
        self.causal, self.temporal_first, self.window = causal, temporal_first, window
        self.peg = PositionGenerator(dim=config.dim, causal=causal) if peg else None
        self.spatial = Transformer(config.stack(config.spatial_depth).transformer(blocks))
        temporal = config.stack(config.temporal_depth).transformer(
            blocks, causal=causal, window=window if causal else None
        )
        self.temporal = Transformer(temporal)
        self.time_rotary = Rotary(head_dim=config.head_dim, max_extents=(window,))
        self.bias = ContinuousBias(num_heads=config.num_heads) if positions == "bias" else None
        self.space_rotary = (
            Rotary(head_dim=config.head_dim, max_extents=(_SPATIAL_EXTENT, _SPATIAL_EXTENT))
            if positions == "rotary"
            else None
        )

    def forward(
        self, x_BthwD: Tensor, *, valid_mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Whole clips. ``valid_mask`` (B, t) bool hides padded steps; a causal half needs none."""
        if valid_mask is not None and not self.causal:
            x_BthwD = x_BthwD * valid_mask[:, :, None, None, None]
        if self.peg is not None:
            x_BthwD = self.peg(x_BthwD)
        for part in ("temporal", "spatial") if self.temporal_first else ("spatial", "temporal"):
            if part == "spatial":
                x_BthwD = self._within_steps(x_BthwD, generator)
            else:
                x_BthwD = self._along_time(x_BthwD, valid_mask, generator)
        return x_BthwD

    def step(self, x_BthwD: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """The next steps of a stream: what ``forward`` gives for them, and what to keep."""
        peg_BthwD = None
        if self.peg is not None:
            x_BthwD, peg_BthwD = self.peg.step(x_BthwD, state.peg_BthwD)
        if not self.temporal_first:
            x_BthwD = self._within_steps(x_BthwD, None)
        batch, steps, height, width, _ = x_BthwD.shape
        rotation = self._time_rotation(state.steps, steps, x_BthwD.device)
        x_StD, past = self.temporal.step(rearrange(x_BthwD, "B t h w D -> (B h w) t D"), state.past, rotary=rotation)
        x_BthwD = rearrange(x_StD, "(B h w) t D -> B t h w D", B=batch, h=height, w=width)
        if self.temporal_first:
            x_BthwD = self._within_steps(x_BthwD, None)
        return x_BthwD, StreamState(state.steps + steps, peg_BthwD, past)

    def _within_steps(self, x_BthwD: Tensor, generator: torch.Generator | None) -> Tensor:
        batch, steps, height, width, _ = x_BthwD.shape
        rotation, bias_ASS = None, None
        if self.space_rotary is not None:
            rotation = self.space_rotary(grid_positions(1, height, width, device=x_BthwD.device)[:, 1:])
        if self.bias is not None:
            bias_ASS = self.bias((1, height, width))
        x_BSD = rearrange(x_BthwD, "B t h w D -> (B t) (h w) D")
        x_BSD = self.spatial(x_BSD, rotary=rotation, bias=bias_ASS, generator=generator)
        features: Tensor = rearrange(x_BSD, "(B t) (h w) D -> B t h w D", B=batch, t=steps, h=height, w=width)
        return features

    def _along_time(self, x_BthwD: Tensor, valid_mask: Tensor | None, generator: torch.Generator | None) -> Tensor:
        batch, steps, height, width, _ = x_BthwD.shape
        rotation = self._time_rotation(0, steps, x_BthwD.device)
        hidden = None
        if valid_mask is not None and not self.causal:
            hidden = valid_mask.repeat_interleave(height * width, dim=0)
        x_StD = rearrange(x_BthwD, "B t h w D -> (B h w) t D")
        x_StD = self.temporal(x_StD, rotary=rotation, valid_mask=hidden, generator=generator)
        features: Tensor = rearrange(x_StD, "(B h w) t D -> B t h w D", B=batch, t=steps, h=height, w=width)
        return features

    def _time_rotation(self, first: int, steps: int, device: torch.device) -> Rotation:
        rotation: Rotation = self.time_rotary(torch.arange(first, first + steps, device=device)[:, None])
        return rotation


class FrameEmbed(nn.Module):
    """The first frame by patches, the others by tubelets: (B, C, T, H, W) -> (B, 1 + ceil((T - 1) / pt), h, w, D).

    arXiv 2210.02399, section 2.1. Sizes that do not divide are padded by repeating the edge.
    """

    def __init__(self, *, dim: int, patch_size: PatchSize) -> None:
        super().__init__()
        self.first = PatchEmbed(in_channels=3, dim=dim, patch_size=patch_size[1:])
        self.rest = TubeletEmbed(in_channels=3, dim=dim, patch_size=patch_size)

    def forward(self, video_BCTHW: Tensor, *, has_first: bool = True) -> Tensor:
        """``has_first`` is False for the later parts of a stream, whose frames are all in tubelets."""
        if not has_first:
            rest: Tensor = self.rest(video_BCTHW)
            return rest
        first: Tensor = self.first(video_BCTHW[:, :, :1])
        if video_BCTHW.shape[2] == 1:
            return first
        return torch.cat([first, self.rest(video_BCTHW[:, :, 1:])], dim=1)


class FrameHead(nn.Module):
    """The inverse shape of ``FrameEmbed``: (B, t, h, w, D) -> (B, C, 1 + (t - 1) * pt, h * ph, w * pw)."""

    def __init__(self, *, dim: int, patch_size: PatchSize) -> None:
        super().__init__()
        self.patch_size = patch_size
        pt, ph, pw = patch_size
        self.first = nn.Linear(dim, ph * pw * 3)
        self.rest = nn.Linear(dim, pt * ph * pw * 3)

    def forward(self, x_BthwD: Tensor, *, has_first: bool = True) -> Tensor:
        """``has_first`` as in ``FrameEmbed``."""
        if not has_first:
            return self._unfold(self.rest(x_BthwD), self.patch_size[0])
        first_BCTHW = self._unfold(self.first(x_BthwD[:, :1]), 1)
        if x_BthwD.shape[1] == 1:
            return first_BCTHW
        return torch.cat([first_BCTHW, self._unfold(self.rest(x_BthwD[:, 1:]), self.patch_size[0])], dim=2)

    def _unfold(self, patches_BthwP: Tensor, pt: int) -> Tensor:
        _, ph, pw = self.patch_size
        return rearrange(patches_BthwP, "B t h w (pt ph pw C) -> B C (t pt) (h ph) (w pw)", pt=pt, ph=ph, pw=pw, C=3)
