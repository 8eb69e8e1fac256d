"""Convolutions that end a decoder of patches, so that no block has a border.

Letters: B batch, C channels (3), T H W pixels, t h w grid, D dim, F channels of a convolution.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.types import PatchSize

__all__ = ["SHRINK", "FrameConvs"]

SHRINK = 2  # the convolutions run at half the size: twice the reach, a quarter of the places


class FrameConvs(nn.Module):
    """What frames of patches still lack: features of patches and the frames drawn so far, through three convolutions.

    Steps of one length; each is looked at by itself. ``others`` is the number of further frames that are seen.
    """

    def __init__(self, *, dim: int, patch_size: PatchSize, channels: int, others: int) -> None:
        super().__init__()
        if patch_size[1] % SHRINK or patch_size[2] % SHRINK:
            raise InputError(
                f"convolutions of the head need a patch of even height and width, got {patch_size[1]}x{patch_size[2]}"
            )
        self.patch_size, self.others = patch_size, others
        pt, ph, pw = patch_size
        pixels = 3 * SHRINK * SHRINK
        self.spread = nn.Linear(dim, channels * (ph // SHRINK) * (pw // SHRINK))
        self.enter = nn.Conv2d(channels + pixels * (pt + others), 2 * channels, 3, padding=1)
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.last = nn.Conv2d(2 * channels, pixels * pt, 3, padding=1)

    def start_at_zero(self) -> None:
        """Nothing is added until something is learned."""
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, x_BthwD: Tensor, video_BCTHW: Tensor, last_BCHW: Tensor | None = None) -> Tensor:
        """Features and frames, (B, C, t * pt, h * ph, w * pw) -> what to add to the frames.

        ``last_BCHW`` is the further frame, where there is one; then t must be 1.
        """
        pt, ph, pw = self.patch_size
        half = {"ph": ph // SHRINK, "pw": pw // SHRINK}
        batch, steps = x_BthwD.shape[:2]
        seen = [
            rearrange(self.spread(x_BthwD), "B t h w (ph pw F) -> (B t) F (h ph) (w pw)", **half),
            rearrange(video_BCTHW, "B C (t pt) (H a) (W b) -> (B t) (pt C a b) H W", pt=pt, a=SHRINK, b=SHRINK),
        ]
        if self.others:
            if last_BCHW is None or steps != 1:
                raise InputError("a head that looks at the frame before takes that frame, and one step at a time")
            seen.append(rearrange(last_BCHW, "B C (H a) (W b) -> B (C a b) H W", a=SHRINK, b=SHRINK))
        x_NFHW = torch.cat([part.to(seen[0].dtype) for part in seen], dim=1)
        x_NFHW = F.gelu(self.enter(x_NFHW.contiguous(memory_format=torch.channels_last)))
        x_NFHW = self.last(F.gelu(self.mix(x_NFHW)))
        more: Tensor = rearrange(
            x_NFHW, "(B t) (pt C a b) H W -> B C (t pt) (H a) (W b)", B=batch, pt=pt, a=SHRINK, b=SHRINK
        )
        return more
