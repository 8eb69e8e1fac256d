"""Ways from features back to pixels: one linear map a patch, or a few convolutions that look across its border.

Letters: B batch, C channels (3), T H W pixels, t h w grid, D dim, F channels of a convolution, P values of a patch.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.types import PatchSize

from .cvivit_haar import Haar
from .frame_convs import FrameConvs

__all__ = ["ConvHead", "FrameHead"]


class FrameHead(nn.Module):
    """The inverse shape of ``FrameEmbed``: (B, t, h, w, D) -> (B, C, 1 + (t - 1) * pt, h * ph, w * pw)."""

    def __init__(self, *, dim: int, patch_size: PatchSize, haar: bool = False) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.haar = Haar(patch_size) if haar else None
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
        video: Tensor = rearrange(
            patches_BthwP, "B t h w (pt ph pw C) -> B C (t pt) (h ph) (w pw)", pt=pt, ph=ph, pw=pw, C=3
        )
        return video if self.haar is None else self.haar(video, still=pt == 1, inverse=True)


class ConvHead(nn.Module):
    """What the frames of each step still lack, found by convolutions over features and frames: no block has a border.

    A linear map a patch cannot know what stands beyond the patch, so its edges show. Here each patch's features become
    F channels at half the frames' size; they are joined with the frames drawn so far and, where there is one, the last
    frame of the step before, and three 3x3 convolutions give what is added. Steps stay apart, so streams and causality
    are as without. ``start_at_zero`` makes the last convolution zero: the frames stay as they are at first.
    """

    def __init__(self, *, dim: int, patch_size: PatchSize, channels: int, has_last: bool) -> None:
        super().__init__()
        _, ph, pw = patch_size
        self.patch_size, self.channels, self.has_last = patch_size, channels, has_last
        self.first = FrameConvs(dim=dim, patch_size=(1, ph, pw), channels=channels, others=0)
        self.rest = FrameConvs(dim=dim, patch_size=patch_size, channels=channels, others=int(has_last))

    @property
    def last_weight(self) -> Tensor:
        """Of the last convolution of a tubelet."""
        return self.rest.last.weight

    def start_at_zero(self) -> None:
        """The frames stay as they are until something is learned."""
        for convs in (self.first, self.rest):
            convs.start_at_zero()

    def forward(
        self, x_BthwD: Tensor, video_BCTHW: Tensor, *, last_BCHW: Tensor | None = None, has_first: bool = True
    ) -> Tensor:
        """Features of whole steps and the frames drawn so far -> better frames, (B, C, T, H, W).

        ``last_BCHW`` is the frame before, needed by a head with ``has_last`` for all but the first step.
        """
        if not has_first:
            frames_BCTHW: Tensor = video_BCTHW + self.rest(x_BthwD, video_BCTHW, last_BCHW)
            return frames_BCTHW
        first_BCTHW: Tensor = video_BCTHW[:, :, :1] + self.first(x_BthwD[:, :1], video_BCTHW[:, :, :1], None)
        if x_BthwD.shape[1] == 1:
            return first_BCTHW
        rest_BCTHW = video_BCTHW[:, :, 1:] + self.rest(x_BthwD[:, 1:], video_BCTHW[:, :, 1:], last_BCHW)
        return torch.cat([first_BCTHW, rest_BCTHW], dim=2)
