"""A discriminator in the manner of StyleGAN2: residual halvings behind a fixed blur, and the spread over the batch.

Letters: B batch, C channels, T H W pixels, D features, t h w grid of the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.quantize.base import check_whole

__all__ = ["StyleDiscriminator", "StyleDiscriminatorConfig", "batch_spread", "blur_halve"]

_SLOPE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleDiscriminatorConfig:
    """The shape of ``StyleDiscriminator``.

    Attributes:
        in_channels: C.
        widths: D of the first features and after each halving.
        dims: 2 judges frames one by one, 3 space and time.
    """

    in_channels: int = 3
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    dims: int = 3

    def __post_init__(self) -> None:
        check_whole("StyleDiscriminatorConfig", "in_channels", self.in_channels, 1)
        for width in self.widths:
            check_whole("StyleDiscriminatorConfig", "widths", width, 1)
        if not self.widths or self.dims not in (2, 3):
            raise InputError(
                f"StyleDiscriminatorConfig needs at least one width and dims of 2 or 3, got {self.widths}, {self.dims}"
            )


class StyleDiscriminator(nn.Module):
    """Residual blocks that halve the size: (B, C, T, H, W) -> (B, t), a logit a frame that is left.

    StyleGAN2, arXiv 1912.04958, section 4.1 and figure 7; in three dimensions the critic of MAGVIT, arXiv 2212.05199.
    The mean over places stands for the fully connected layer, so that any size fits.
    """

    def __init__(self, config: StyleDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        first, last = config.widths[0], config.widths[-1]
        self.start = _conv(config.dims, config.in_channels, first, 3)
        self.blocks = nn.ModuleList(
            _Halving(config.dims, inner, outer) for inner, outer in zip(config.widths, config.widths[1:])
        )
        self.end = _conv(config.dims, last + 1, last, 3)  # one more channel: the spread over the batch
        self.head = nn.Linear(last, 1)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) -> logits (B, t); t = T with ``dims=2``."""
        batch = video_BCTHW.shape[0]
        is_flat = self.config.dims == 2
        x = rearrange(video_BCTHW, "B C T H W -> (B T) C H W") if is_flat else video_BCTHW
        x = F.leaky_relu(self.start(x), _SLOPE)
        for block in self.blocks:
            x = block(x)
        x_BDthw = rearrange(x, "(B T) D h w -> B D T h w", B=batch) if is_flat else x
        x_BDthw = torch.cat([x_BDthw, batch_spread(x_BDthw)], dim=1)
        x = rearrange(x_BDthw, "B D T h w -> (B T) D h w") if is_flat else x_BDthw
        x = F.leaky_relu(self.end(x), _SLOPE).mean((-2, -1))
        x_BtD = rearrange(x, "(B T) D -> B T D", B=batch) if is_flat else rearrange(x, "B D t -> B t D")
        logits_Bt: Tensor = self.head(x_BtD)[..., 0]
        return logits_Bt


class _Halving(nn.Module):
    """Two convolutions and a halving, beside a halving and a projection; their sum over sqrt(2)."""

    def __init__(self, dims: int, inner: int, outer: int) -> None:
        super().__init__()
        self.dims = dims
        self.first = _conv(dims, inner, inner, 3)
        self.second = _conv(dims, inner, outer, 3)
        self.skip = _conv(dims, inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        branch = F.leaky_relu(self.second(F.leaky_relu(self.first(x), _SLOPE)), _SLOPE)
        halved: Tensor = blur_halve(branch, self.dims) + self.skip(blur_halve(x, self.dims))
        return halved / math.sqrt(2)


def blur_halve(x: Tensor, dims: int) -> Tensor:
    """The last ``dims`` axes blurred by [1, 2, 1] / 4 and halved, n -> ceil(n / 2); borders are repeated.

    The fixed filter keeps the halving from aliasing (arXiv 1904.11486). An axis of one element stays.
    """
    for axis in range(x.ndim - dims, x.ndim):
        size = x.shape[axis]
        if size == 1:
            continue
        padded = torch.cat([x.narrow(axis, 0, 1), x, x.narrow(axis, size - 1, 1)], dim=axis)
        ends = [slice(None)] * axis
        before, centre, after = (padded[(*ends, slice(shift, shift + size, 2))] for shift in range(3))
        x = (before + after) / 4 + centre / 2
    return x


def batch_spread(x_BDthw: Tensor) -> Tensor:
    """(B, 1, t, h, w): the standard deviation over the batch, averaged over channels and places of each frame.

    Minibatch standard deviation, arXiv 1710.10196, section 3, with the whole batch as the group.
    """
    spread_Dthw = (x_BDthw.var(0, correction=0) + 1e-8).sqrt()
    spread_t = spread_Dthw.mean((0, 2, 3))
    return rearrange(spread_t, "t -> 1 1 t 1 1").expand(len(x_BDthw), 1, *x_BDthw.shape[2:])


def _conv(dims: int, inner: int, outer: int, kernel: int) -> Any:
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    conv: Any = convolution(inner, outer, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(conv.weight, a=_SLOPE if kernel > 1 else 1.0)
    nn.init.zeros_(conv.bias)
    return conv
