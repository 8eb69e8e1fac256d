"""Features of a fixed random network, and distances between the features of two videos.

Letters: B batch, C channels, T H W pixels, D features, t h w grid of the features, P = h*w places.
A feature network turns a video (B, C, T, H, W) into a list of (B, D, t, h, w), each of length 1 along D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.quantize.base import check_whole

from .pixels import frames_mean, pool_valid

__all__ = ["FeaturePairs", "RandomFeatures", "RandomFeaturesConfig", "feature_loss", "feature_pairs", "gram_loss"]

FeaturePairs = list[tuple[Tensor, Tensor]]
"""Features of the reconstruction and of the target, a pair for every scale, (B, D, t, h, w) each."""

_SLOPE = 0.2
_FLOOR = 1e-2  # mean square below which a feature is not scaled up: noise in flat places stays small


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomFeaturesConfig:
    """The shape of ``RandomFeatures``.

    Attributes:
        in_channels: C.
        widths: D of each scale; the first is at full size, each further one at half of the one before.
        dims: 2 looks at frames one by one, 3 at space and time.
        seed: of the weights.
    """

    in_channels: int = 3
    widths: tuple[int, ...] = (16, 32, 64, 128)
    dims: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("RandomFeaturesConfig", "in_channels", self.in_channels, 1)
        check_whole("RandomFeaturesConfig", "seed", self.seed, 0)
        for width in self.widths:
            check_whole("RandomFeaturesConfig", "widths", width, 1)
        if not self.widths or self.dims not in (2, 3):
            raise InputError(
                f"RandomFeaturesConfig needs at least one width and dims of 2 or 3, got {self.widths}, {self.dims}"
            )


class RandomFeatures(nn.Module):
    """A convolutional network whose weights are drawn once and never learned: a perceptual loss without a download.

    3-wide convolutions, orthogonal weights (arXiv 1312.6120) with He's gain, small normal biases, leaky ReLU. Random
    filters hold enough of a texture to make it again (arXiv 1606.00021); as a measure of distance trained ones are
    better (arXiv 1801.03924), so take ``LPIPS`` where its weights are at hand.

    The weights are buffers that no checkpoint holds: no optimizer sees them, and the seed makes them again.
    """

    def __init__(self, config: RandomFeaturesConfig) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        gain = nn.init.calculate_gain("leaky_relu", _SLOPE)
        for scale, (inner, outer) in enumerate(zip((config.in_channels, *config.widths), config.widths)):
            weight = nn.init.orthogonal_(torch.empty(outer, inner, *(3,) * config.dims), gain, generator=generator)
            self.register_buffer(f"weight_{scale}", weight, persistent=False)
            self.register_buffer(f"bias_{scale}", torch.randn(outer, generator=generator) * 0.1, persistent=False)

    def forward(self, video_BCTHW: Tensor) -> list[Tensor]:
        """(B, C, T, H, W) -> a list of (B, D, t, h, w) of length 1 along D (shorter where the signal is faint)."""
        if video_BCTHW.shape[1] != self.config.in_channels:
            raise InputError(f"the random features read {self.config.in_channels} channels, got {video_BCTHW.shape[1]}")
        conv: Callable[..., Tensor] = F.conv2d if self.config.dims == 2 else F.conv3d
        batch = video_BCTHW.shape[0]
        is_flat = self.config.dims == 2
        x = rearrange(video_BCTHW, "B C T H W -> (B T) C H W") if is_flat else video_BCTHW
        features = []
        for scale, width in enumerate(self.config.widths):
            weight, bias = (getattr(self, f"{name}_{scale}").to(x.dtype) for name in ("weight", "bias"))
            # Time is halved from the third scale on: motion between neighbours is seen at two scales of space first.
            stride = (1 if scale < 2 else 2, *(1 if scale == 0 else 2,) * 2)[-self.config.dims :]
            x = F.leaky_relu(conv(x, weight, bias, stride=stride, padding=1), _SLOPE)
            length = (x.square().sum(1, keepdim=True) + width * _FLOOR).sqrt()
            unit = x / length
            features.append(rearrange(unit, "(B T) D h w -> B D T h w", B=batch) if is_flat else unit)
        return features


def feature_pairs(
    network: Callable[[Tensor], list[Tensor]], reconstruction_BCTHW: Tensor, target_BCTHW: Tensor
) -> FeaturePairs:
    """The features of both videos; those of the target without a gradient."""
    with torch.no_grad():
        wanted = network(target_BCTHW)
    return list(zip(network(reconstruction_BCTHW), wanted))


def feature_loss(pairs: FeaturePairs, valid_frames: Tensor | None) -> Tensor:
    """sqrt(D) times the mean absolute difference of the features, averaged over scales.

    The factor makes the loss independent of the width: features of length 1 have entries of about 1 / sqrt(D).
    """
    losses = []
    for ours, theirs in pairs:
        distance_Bt = (ours - theirs).abs().mean((1, 3, 4)) * ours.shape[1] ** 0.5
        losses.append(frames_mean(distance_Bt, pool_valid(valid_frames, distance_Bt.shape[1])))
    return torch.stack(losses).mean()


def gram_loss(pairs: FeaturePairs, valid_frames: Tensor | None) -> Tensor:
    """Squared difference of the Gram matrices of each frame's features, averaged over scales.

    G = F F^T / P over the P places of a frame (arXiv 1508.06576, eq. 3 to 5), of features of length 1, so that the
    trace is 1 and the loss at most 4 whatever the network. It compares which features come together, not where.
    """
    losses = []
    for ours, theirs in pairs:
        distance_Bt = (_gram(ours) - _gram(theirs)).square().sum((-2, -1))
        losses.append(frames_mean(distance_Bt, pool_valid(valid_frames, distance_Bt.shape[1])))
    return torch.stack(losses).mean()


def _gram(features_BDthw: Tensor) -> Tensor:
    """(B, t, D, D)."""
    flat_BtDP = rearrange(features_BDthw, "B D t h w -> B t D (h w)")
    return flat_BtDP @ flat_BtDP.transpose(-2, -1) / flat_BtDP.shape[-1]
