"""A discriminator that is a Vision Transformer over tubelets.

Letters: B batch, C channels, T H W pixels, D dim, t h w grid, L = t*h*w.
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from torch import Tensor, nn

from tokenreel.nn.blocks import Transformer, TransformerConfig
from tokenreel.nn.positions import SinCosPositions
from tokenreel.patches.embed import TubeletEmbed
from tokenreel.quantize.base import check_whole
from tokenreel.types import PatchSize, check_patch_size

__all__ = ["ViTDiscriminator", "ViTDiscriminatorConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTDiscriminatorConfig:
    """The shape of ``ViTDiscriminator``.

    Attributes:
        in_channels: C.
        patch_size: (pt, ph, pw), the pixels that one logit stands for.
        dim: D, even and at least 6.
        depth, num_heads: of the stack; the head's width is dim / num_heads, the MLP's 4 dim.
    """

    in_channels: int = 3
    patch_size: PatchSize = (4, 16, 16)
    dim: int = 256
    depth: int = 6
    num_heads: int = 4

    def __post_init__(self) -> None:
        check_whole("ViTDiscriminatorConfig", "in_channels", self.in_channels, 1)
        check_patch_size(self.patch_size)
        self.stack()
        SinCosPositions(dim=self.dim)

    def stack(self) -> TransformerConfig:
        """The configuration of its blocks."""
        for name in ("dim", "num_heads", "depth"):
            check_whole("ViTDiscriminatorConfig", name, getattr(self, name), 1)
        return TransformerConfig(
            dim=self.dim,
            depth=self.depth,
            num_heads=self.num_heads,
            head_dim=max(self.dim // self.num_heads, 1),
            mlp_dim=4 * self.dim,
            qk_norm=True,
        )


class ViTDiscriminator(nn.Module):
    """Tubelets, sin-cos positions, a transformer, a logit a token: (B, C, T, H, W) -> (B, t, h, w).

    As ViTGAN's critic (arXiv 2107.04589, section 3) a ViT with attention held in bounds; here by norms on queries and
    keys. Positions are computed, so any T and any size fit.
    """

    def __init__(self, config: ViTDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = TubeletEmbed(in_channels=config.in_channels, dim=config.dim, patch_size=config.patch_size)
        self.positions = SinCosPositions(dim=config.dim)
        self.stack = Transformer(config.stack())
        self.head = nn.Linear(config.dim, 1)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) -> logits (B, t, h, w)."""
        x_BthwD = self.embed(video_BCTHW)
        _, t, h, w, _ = x_BthwD.shape
        table_LD = self.positions((t, h, w), device=x_BthwD.device).to(x_BthwD.dtype)
        x_BLD = self.stack(rearrange(x_BthwD, "B t h w D -> B (t h w) D") + table_LD)
        logits_BL1: Tensor = self.head(x_BLD)
        return rearrange(logits_BL1, "B (t h w) 1 -> B t h w", t=t, h=h, w=w)
