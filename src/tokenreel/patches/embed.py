"""Learned embeddings of patches (torch): ``PatchEmbed`` and ``TubeletEmbed``; uniform frame sampling beside them.

Letters: B batch, C channels, T H W pixels, t h w grid, L = t*h*w, D dim.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.types import PatchSize, check_patch_size

__all__ = ["PatchEmbed", "TubeletEmbed", "padded", "uniform_frames"]


class TubeletEmbed(nn.Module):
    """Linear embedding of patches ``(pt, ph, pw)``: (B, C, T, H, W) -> (B, t, h, w, D).

    One matrix product over patches, which on CPU and CUDA is faster than the convolution of the same weights
    (benchmarks/bench_embed.py). ViViT, arXiv 2103.15691, section 3.2. Any size is taken; what does not divide is
    padded by repeating the last frame, row and column.

    Args:
        in_channels: C.
        dim: D.
        patch_size: (pt, ph, pw).
    """

    def __init__(self, *, in_channels: int, dim: int, patch_size: PatchSize, bias: bool = True) -> None:
        super().__init__()
        self.patch_size = check_patch_size(patch_size)
        self.in_channels = in_channels
        pt, ph, pw = self.patch_size
        self.proj = nn.Linear(pt * ph * pw * in_channels, dim, bias=bias)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, t, h, w, D)."""
        if video_BCTHW.ndim != 5 or video_BCTHW.shape[1] != self.in_channels:
            raise InputError(
                f"expected (B, {self.in_channels}, T, H, W), got shape {tuple(video_BCTHW.shape)}; "
                "an image is a video of T = 1"
            )
        pt, ph, pw = self.patch_size
        video = padded(video_BCTHW, self.patch_size)
        patches = rearrange(video, "B C (t pt) (h ph) (w pw) -> B t h w (pt ph pw C)", pt=pt, ph=ph, pw=pw)
        embedded: Tensor = self.proj(patches)
        return embedded

    @torch.no_grad()
    def init_from_image(self, weight_DP: Tensor, bias_D: Tensor, *, how: Literal["central", "average"]) -> None:
        """Start from an image model's embedding, (D, ph*pw*C) with channels last (ViViT, section 3.4, eq. 8 and 9).

        ``central``: the image weights at frame floor(pt / 2), zero elsewhere; ``average``: at all frames, over pt.
        """
        pt = self.patch_size[0]
        dim, values = self.proj.weight.shape
        if weight_DP.shape != (dim, values // pt):
            raise InputError(f"expected image weights of shape {(dim, values // pt)}, got {tuple(weight_DP.shape)}")
        frames = self.proj.weight.view(dim, pt, values // pt)
        if how == "average":
            frames.copy_(weight_DP[:, None] / pt)
        elif how == "central":
            frames.zero_()
            frames[:, pt // 2] = weight_DP
        else:
            raise InputError(f"how must be 'central' or 'average', got {how!r}")
        if self.proj.bias is not None:
            self.proj.bias.copy_(bias_D)


class PatchEmbed(TubeletEmbed):
    """Linear embedding of the patches of single frames: a tubelet of one frame. (B, C, T, H, W) -> (B, T, h, w, D).

    ViT, arXiv 2010.11929, equation 1.
    """

    def __init__(self, *, in_channels: int, dim: int, patch_size: tuple[int, int], bias: bool = True) -> None:
        super().__init__(in_channels=in_channels, dim=dim, patch_size=(1, *patch_size), bias=bias)


def uniform_frames(video_BCTHW: Tensor, count: int) -> Tensor:
    """(B, C, T, H, W) -> (B, C, count, H, W): the middle frame of each of ``count`` equal parts (ViViT, 3.2)."""
    total = video_BCTHW.shape[2]
    if count < 1:
        raise InputError(f"uniform frame sampling needs at least 1 frame, got {count}")
    index = (torch.arange(count, device=video_BCTHW.device) * 2 + 1) * total // (2 * count)
    return video_BCTHW.index_select(2, index)


def padded(video_BCTHW: Tensor, patch_size: PatchSize) -> Tensor:
    """Frames, rows and columns up to whole patches, by repeating the last ones."""
    pt, ph, pw = patch_size
    frames, height, width = video_BCTHW.shape[2:]
    pads = (0, -width % pw, 0, -height % ph, 0, -frames % pt)
    return nn.functional.pad(video_BCTHW, pads, mode="replicate") if any(pads) else video_BCTHW
