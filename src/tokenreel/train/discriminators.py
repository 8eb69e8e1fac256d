"""Discriminators by configuration, and the one of patches (PatchGAN), over frames or over space and time.

Every discriminator takes (B, C, T, H, W), any T and any size, and gives logits (B, ...), higher for real. None has
batch normalisation; only ``StyleDiscriminator`` looks across the batch, on purpose.

Letters: B batch, C channels, T H W pixels, t h w grid of logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from tokenreel.errors import InputError
from tokenreel.quantize.base import check_whole

from .discriminator_style import StyleDiscriminator, StyleDiscriminatorConfig
from .discriminator_vit import ViTDiscriminator, ViTDiscriminatorConfig

__all__ = [
    "DISCRIMINATORS",
    "DiscriminatorConfig",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "build_discriminator",
]

Norm = Literal["none", "spectral", "group"]
_GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchDiscriminatorConfig:
    """The shape of ``PatchDiscriminator``.

    Attributes:
        in_channels: C.
        dim: width of the first layer; doubled by every further one up to 8 times.
        depth: layers that halve the size; 3 gives logits of 70 pixels' width.
        dims: 2 judges frames one by one, 3 space and time (time is halved from the second layer on).
        norm: ``spectral`` bounds every layer's gain (arXiv 1802.05957), ``group`` normalises features over 8 groups
            (arXiv 1803.08494), ``none`` is for R1 and R2.
    """

    in_channels: int = 3
    dim: int = 64
    depth: int = 3
    dims: int = 2
    norm: Norm = "none"

    def __post_init__(self) -> None:
        for name in ("in_channels", "dim", "depth"):
            check_whole("PatchDiscriminatorConfig", name, getattr(self, name), 1)
        if self.dims not in (2, 3):
            raise InputError(f"PatchDiscriminatorConfig.dims must be 2 or 3, got {self.dims}")
        if self.norm not in get_args(Norm):
            raise InputError(
                f"PatchDiscriminatorConfig.norm must be one of {', '.join(get_args(Norm))}, got {self.norm!r}"
            )
        if self.norm == "group" and self.dim % _GROUPS:
            raise InputError(f"PatchDiscriminatorConfig.dim must be divisible by {_GROUPS} groups, got {self.dim}")


class PatchDiscriminator(nn.Module):
    """PatchGAN: strided 4-wide convolutions to a grid of logits. (B, C, T, H, W) -> (B, t, h, w).

    arXiv 1611.07004, section 3.2.2, as VQGAN uses it (arXiv 2012.09841); with ``dims=3`` 3 frames wide. Padding makes
    n pixels ceil(n / 2) in a strided layer and n in the others, so that no size is too small.
    """

    def __init__(self, config: PatchDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.dim * min(1 << layer, 8) for layer in range(config.depth + 1)]
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        for layer, (inner, outer) in enumerate(zip([config.in_channels, *widths], [*widths, 1])):
            is_strided = layer < config.depth
            stride = (2 if is_strided and layer else 1, *(2 if is_strided else 1,) * 2)[-config.dims :]
            convolution: Any = nn.Conv2d if config.dims == 2 else nn.Conv3d
            conv = convolution(inner, outer, (3, 4, 4)[-config.dims :], stride=stride)
            nn.init.kaiming_normal_(conv.weight, a=0.2)
            nn.init.zeros_(conv.bias)
            self.layers.append(spectral_norm(conv) if config.norm == "spectral" else conv)
            is_normed = config.norm == "group" and 0 < layer <= config.depth
            self.norms.append(nn.GroupNorm(_GROUPS, outer) if is_normed else nn.Identity())

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) -> logits (B, t, h, w); t = T with ``dims=2``."""
        batch = video_BCTHW.shape[0]
        is_flat = self.config.dims == 2
        x = rearrange(video_BCTHW, "B C T H W -> (B T) C H W") if is_flat else video_BCTHW
        last = len(self.layers) - 1
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms)):
            x = norm(layer(F.pad(x, (1, 2, 1, 2) if is_flat else (1, 2, 1, 2, 1, 1))))
            x = x if index == last else F.leaky_relu(x, 0.2)
        return rearrange(x, "(B T) 1 h w -> B T h w", B=batch) if is_flat else x[:, 0]


DiscriminatorConfig = PatchDiscriminatorConfig | StyleDiscriminatorConfig | ViTDiscriminatorConfig

DISCRIMINATORS: dict[type, Any] = {
    PatchDiscriminatorConfig: PatchDiscriminator,
    StyleDiscriminatorConfig: StyleDiscriminator,
    ViTDiscriminatorConfig: ViTDiscriminator,
}
"""Configuration -> the module it builds."""


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """The discriminator of a configuration; weights from torch's global generator."""
    if type(config) not in DISCRIMINATORS:
        names = ", ".join(kind.__name__ for kind in DISCRIMINATORS)
        raise InputError(f"a discriminator is built from one of {names}, got {type(config).__name__}")
    built: nn.Module = DISCRIMINATORS[type(config)](config)
    return built
