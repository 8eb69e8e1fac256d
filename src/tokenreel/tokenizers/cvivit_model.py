"""The two halves of C-ViViT: frames to features, features to frames; each in one pass and as a stream.

Letters: B batch, C channels (3), T H W pixels, t h w grid, S = h*w cells of a step, D dim, X axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

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
from .cvivit_haar import Haar

__all__ = ["AttentionKind", "Factorised", "FactorisedConfig", "FrameEmbed", "Positions", "StreamState", "bands"]

AttentionKind = Literal["factorised", "full"]
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
    the reverse (the decoder). A causal one sees the last ``window`` steps of time in each temporal block. With ``full``
    attention as many blocks see all cells of all steps, which is dear and never causal.
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
        attention: AttentionKind = "factorised",
        spatial_window: int | None = None,
    ) -> None:
        super().__init__()
        self.spatial_window = spatial_window
        if positions not in get_args(Positions):
            raise InputError(f"positions must be one of {', '.join(get_args(Positions))}, got {positions!r}")
        self.causal, self.temporal_first, self.window = causal, temporal_first, window
        self.peg = PositionGenerator(dim=config.dim, causal=causal) if peg else None
        self.joint: Transformer | None = None
        if attention == "full":
            depth = config.spatial_depth + config.temporal_depth
            self.joint = Transformer(config.stack(depth).transformer(blocks))
            self.grid_rotary = Rotary(head_dim=config.head_dim, max_extents=(window, _SPATIAL_EXTENT, _SPATIAL_EXTENT))
            return
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
        if self.joint is not None:
            return self._over_all(self.joint, x_BthwD, valid_mask, generator)
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

    def _over_all(
        self,
        joint: Transformer,
        x_BthwD: Tensor,
        valid_mask: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Every cell of every step sees all others."""
        _, steps, height, width, _ = x_BthwD.shape
        rotation = self.grid_rotary(grid_positions(steps, height, width, device=x_BthwD.device))
        hidden = None if valid_mask is None else valid_mask.repeat_interleave(height * width, dim=1)
        x_BLD: Tensor = joint(x_BthwD.flatten(1, 3), rotary=rotation, valid_mask=hidden, generator=generator)
        return x_BLD.view(x_BthwD.shape)

    def _within_steps(self, x_BthwD: Tensor, generator: torch.Generator | None) -> Tensor:
        batch, steps, height, width, _ = x_BthwD.shape
        if self.spatial_window is not None and max(height, width) > self.spatial_window:
            return self._within_windows(x_BthwD, self.spatial_window)
        x_BSD = rearrange(x_BthwD, "B t h w D -> (B t) (h w) D")
        x_BSD = self.spatial(x_BSD, **self._places(height, width, x_BSD.device), generator=generator)
        features: Tensor = rearrange(x_BSD, "(B t) (h w) D -> B t h w D", B=batch, t=steps, h=height, w=width)
        return features

    def _within_windows(self, x_BthwD: Tensor, window: int) -> Tensor:
        """As ``_within_steps`` of a large grid: every second block's windows stand half a window further."""
        x_NhwD = x_BthwD.flatten(0, 1)
        known: dict[tuple[int, int], dict[str, Any]] = {}  # places of windows of each size, the same in every block
        for index, block in enumerate(self.spatial.blocks):
            shift = window // 2 if index % 2 else 0
            rows = []
            for top, side_h, count_h in bands(x_NhwD.shape[1], window, shift):
                row_NhwD = x_NhwD[:, top : top + side_h * count_h]
                parts = []
                for left, side_w, count_w in bands(x_NhwD.shape[2], window, shift):
                    part_NhwD = row_NhwD[:, :, left : left + side_w * count_w]
                    sides = {"a": side_h, "b": side_w}
                    x_MSD = rearrange(part_NhwD, "N (h a) (w b) D -> (N h w) (a b) D", **sides)
                    if (side_h, side_w) not in known:
                        known[side_h, side_w] = self._places(side_h, side_w, x_MSD.device)
                    x_MSD = block(x_MSD, **known[side_h, side_w])
                    parts.append(rearrange(x_MSD, "(N h w) (a b) D -> N (h a) (w b) D", h=count_h, w=count_w, **sides))
                rows.append(torch.cat(parts, dim=2))
            x_NhwD = torch.cat(rows, dim=1)
        windowed: Tensor = self.spatial.norm(x_NhwD).view(x_BthwD.shape)
        return windowed

    def _places(self, height: int, width: int, device: torch.device) -> dict[str, Any]:
        """How the cells of a step or of a window tell each other's places: a rotation or a bias."""
        if self.space_rotary is not None:
            return {"rotary": self.space_rotary(grid_positions(1, height, width, device=device)[:, 1:])}
        return {} if self.bias is None else {"bias": self.bias((1, height, width))}

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


def bands(size: int, window: int, shift: int) -> list[tuple[int, int, int]]:
    """(start, side, count) of windows side by side that cover a length, the first of them ``shift`` long if not 0.

    >>> bands(40, 16, 0), bands(40, 16, 8)
    ([(0, 16, 2), (32, 8, 1)], [(0, 8, 1), (8, 16, 2)])
    """
    found = [(0, min(shift, size), 1)] if shift else []
    start = shift
    if size - start >= window:
        count = (size - start) // window
        found.append((start, window, count))
        start += count * window
    if start < size:
        found.append((start, size - start, 1))
    return found


class FrameEmbed(nn.Module):
    """The first frame by patches, the others by tubelets: (B, C, T, H, W) -> (B, 1 + ceil((T - 1) / pt), h, w, D).

    arXiv 2210.02399, section 2.1. Sizes that do not divide are padded by repeating the edge.
    """

    def __init__(self, *, dim: int, patch_size: PatchSize, haar: bool = False) -> None:
        super().__init__()
        self.haar = Haar(patch_size) if haar else None
        self.first = PatchEmbed(in_channels=3, dim=dim, patch_size=patch_size[1:])
        self.rest = TubeletEmbed(in_channels=3, dim=dim, patch_size=patch_size)

    def forward(self, video_BCTHW: Tensor, *, has_first: bool = True) -> Tensor:
        """``has_first`` is False for the later parts of a stream, whose frames are all in tubelets."""
        if not has_first:
            rest: Tensor = self.rest(self._waves(video_BCTHW, still=False))
            return rest
        first: Tensor = self.first(self._waves(video_BCTHW[:, :, :1], still=True))
        if video_BCTHW.shape[2] == 1:
            return first
        return torch.cat([first, self.rest(self._waves(video_BCTHW[:, :, 1:], still=False))], dim=1)

    def _waves(self, video_BCTHW: Tensor, *, still: bool) -> Tensor:
        return video_BCTHW if self.haar is None else self.haar(video_BCTHW, still=still)
