"""Rotary positions over any number of axes: RoPE over one, M-RoPE over (t, h, w).

Letters: B batch, L tokens, A heads, d head_dim, f = d / 2 bands, X axes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError

__all__ = ["Rotary", "Rotation", "bands_of", "grid_positions", "rotate", "wide_dtype"]


class Rotation(NamedTuple):
    """Cosine and sine of every token's angles, fp32: (L, f) each, or (B, L, f)."""

    cos_Lf: Tensor
    sin_Lf: Tensor


def bands_of(count: int, max_extent: int) -> tuple[float, ...]:
    """``count`` frequencies in radians a step, evenly spaced in logarithm from 1 to ``2 pi / max_extent``.

    One radian a step is well below the Nyquist limit of pi, so neighbours never alias; the slowest band turns once
    over the whole extent, so no band is constant. Extents under 4 pi are taken as 4 pi, to keep the bands apart.
    The usual ladder, ``10000^(-2i/d)`` over hundreds of positions, leaves half its bands nearly constant on a grid.

    >>> [round(band, 3) for band in bands_of(3, 64)]
    [1.0, 0.313, 0.098]
    """
    slowest = 2 * math.pi / max(max_extent, 4 * math.pi)
    return tuple(slowest ** (index / max(count - 1, 1)) for index in range(count))


class Rotary(nn.Module):
    """Angles of tokens from their positions: (L, X) -> ``Rotation`` of (L, f).

    Each axis owns some of the f bands and turns them by ``position * frequency``, so that a score depends on
    differences of positions only: RoFormer, arXiv 2104.09864, equation 16; for several axes Qwen2-VL, arXiv 2409.12191,
    section 2.1, with bands spaced for each axis' extent (``bands_of``).

    Args:
        head_dim: d, even.
        max_extents: how many positions each axis is meant for; larger ones work, and turn the slow bands further.
        num_bands: bands of each axis, f in all; None divides them evenly, earlier axes first.
    """

    def __init__(
        self, *, head_dim: int, max_extents: tuple[int, ...], num_bands: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        if head_dim < 2 or head_dim % 2:
            raise InputError(f"rotary positions need an even head_dim of at least 2, got {head_dim}")
        if not max_extents or min(max_extents) < 1:
            raise InputError(f"max_extents needs one number of at least 1 an axis, got {max_extents}")
        total, axes = head_dim // 2, len(max_extents)
        self.num_bands = num_bands or tuple(total // axes + (axis < total % axes) for axis in range(axes))
        if len(self.num_bands) != axes or sum(self.num_bands) != total or min(self.num_bands) < 0:
            raise InputError(
                f"num_bands {self.num_bands} must give {axes} axes {total} bands in all (head_dim {head_dim} / 2)"
            )
        # Plain floats, not a buffer: `model.bfloat16()` would round a buffer, and the angles with it.
        self.bands = tuple(
            tuple(bands_of(count, extent)) for count, extent in zip(self.num_bands, max_extents, strict=True)
        )

    def forward(self, positions_LX: Tensor) -> Rotation:
        """(L, X) or (B, L, X) positions, whole or not -> (L, f) or (B, L, f). Angles are computed in float64."""
        if positions_LX.shape[-1] != len(self.bands):
            raise InputError(f"expected {len(self.bands)} positions a token, got shape {tuple(positions_LX.shape)}")
        angles = []
        for axis, bands in enumerate(self.bands):
            bands_f = torch.tensor(bands, dtype=torch.float64, device=positions_LX.device)
            angles.append(positions_LX[..., axis, None].to(torch.float64) * bands_f)
        angles_Lf = torch.cat(angles, dim=-1)
        return Rotation(angles_Lf.cos().float(), angles_Lf.sin().float())


def rotate(x_BLAd: Tensor, rotation: Rotation) -> Tensor:
    """(B, L, A, d) or (L, A, d), turned; in fp32 or wider whatever x is, and cast back.

    Channel i is paired with channel i + d/2, which keeps both halves contiguous.
    """
    cos, sin = rotation.cos_Lf.unsqueeze(-2), rotation.sin_Lf.unsqueeze(-2)
    first, second = x_BLAd.to(wide_dtype(x_BLAd)).chunk(2, dim=-1)
    turned = torch.cat([torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)], -1)
    return turned.to(x_BLAd.dtype)


def wide_dtype(x: Tensor) -> torch.dtype:
    """fp32, or float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)


def grid_positions(t: int, h: int, w: int, *, first_t: int = 0, device: torch.device | None = None) -> Tensor:
    """(t*h*w, 3) int64: the (t, h, w) of every cell, row-major; ``first_t`` shifts time for a stream.

    >>> grid_positions(1, 1, 2).tolist()
    [[0, 0, 0], [0, 0, 1]]
    """
    axes = (torch.arange(first_t, first_t + t, device=device), *(torch.arange(n, device=device) for n in (h, w)))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
