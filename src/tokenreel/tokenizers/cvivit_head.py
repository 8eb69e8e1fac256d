"""Ways from features back to pixels: one linear map a patch, or a few convolutions that look across its border.

Letters: B batch, C channels (3), T H W pixels, t h w grid, D dim, F channels of a convolution, P values of a patch.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.types import PatchSize

from .cvivit_haar import Haar

__all__ = ["ConvHead", "FrameHead"]

_SHRINK = 2  # the convolutions run at half the size: twice the reach, a quarter of the places


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
        if ph % _SHRINK or pw % _SHRINK:
            raise InputError(f"convolutions of the head need a patch of even height and width, got {ph}x{pw}")
        self.patch_size, self.channels, self.has_last = patch_size, channels, has_last
        self.first = _Convs(dim=dim, patch_size=(1, ph, pw), channels=channels, others=0)
        self.rest = _Convs(dim=dim, patch_size=patch_size, channels=channels, others=int(has_last))

    @property
    def last_weight(self) -> Tensor:
        """Of the last convolution of a tubelet."""
        return self.rest.last.weight

    def start_at_zero(self) -> None:
        """The frames stay as they are until something is learned."""
        for convs in (self.first, self.rest):
            for parameter in convs.last.parameters():
                nn.init.zeros_(parameter)

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


class _Convs(nn.Module):
    """Of steps of one length."""

    def __init__(self, *, dim: int, patch_size: PatchSize, channels: int, others: int) -> None:
        super().__init__()
        self.patch_size, self.others = patch_size, others
        pt, ph, pw = patch_size
        pixels = 3 * _SHRINK * _SHRINK
        self.spread = nn.Linear(dim, channels * (ph // _SHRINK) * (pw // _SHRINK))
        self.enter = nn.Conv2d(channels + pixels * (pt + others), 2 * channels, 3, padding=1)
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.last = nn.Conv2d(2 * channels, pixels * pt, 3, padding=1)

    def forward(self, x_BthwD: Tensor, video_BCTHW: Tensor, last_BCHW: Tensor | None) -> Tensor:
        pt, ph, pw = self.patch_size
        half = {"ph": ph // _SHRINK, "pw": pw // _SHRINK}
        batch, steps = x_BthwD.shape[:2]
        seen = [
            rearrange(self.spread(x_BthwD), "B t h w (ph pw F) -> (B t) F (h ph) (w pw)", **half),
            rearrange(video_BCTHW, "B C (t pt) (H a) (W b) -> (B t) (pt C a b) H W", pt=pt, a=_SHRINK, b=_SHRINK),
        ]
        if self.others:
            if last_BCHW is None or steps != 1:
                raise InputError("a head that looks at the frame before takes that frame, and one step at a time")
            seen.append(rearrange(last_BCHW, "B C (H a) (W b) -> B (C a b) H W", a=_SHRINK, b=_SHRINK))
        x_NFHW = torch.cat([part.to(seen[0].dtype) for part in seen], dim=1)
        x_NFHW = F.gelu(self.enter(x_NFHW.contiguous(memory_format=torch.channels_last)))
        x_NFHW = self.last(F.gelu(self.mix(x_NFHW)))
        more: Tensor = rearrange(
            x_NFHW, "(B t) (pt C a b) H W -> B C (t pt) (H a) (W b)", B=batch, pt=pt, a=_SHRINK, b=_SHRINK
        )
        return more
