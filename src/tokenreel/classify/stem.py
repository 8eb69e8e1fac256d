"""Convolutions before the tubelets of a classifier. Letters: B batch, C channels, T frames, H W pixels, F channels."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SHRINK", "ConvStem"]

SHRINK = 4  # two convolutions of stride 2


class ConvStem(nn.Module):
    """(B, C, T, H, W) -> (B, 2F, T, H/4, W/4): each frame by itself through two 3x3 convolutions of stride 2.

    A linear map of tubelets says a shape anew at every offset within its tubelet; convolutions say it once
    (Early Convolutions Help Transformers See Better, arXiv 2106.14881, section 3).
    """

    def __init__(self, *, in_channels: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(1, channels)
        self.second = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(1, 2 * channels)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """H and W must divide by 4."""
        x_NCHW = rearrange(video_BCTHW, "B C T H W -> (B T) C H W")
        x_NCHW = F.gelu(self.first_norm(self.first(x_NCHW)))
        x_NCHW = F.gelu(self.second_norm(self.second(x_NCHW)))
        out: Tensor = rearrange(x_NCHW, "(B T) F H W -> B F T H W", B=len(video_BCTHW))
        return out
