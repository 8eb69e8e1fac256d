"""Two estimators of the gradient through a look-up: straight-through and the rotation trick.

Both give the codes exactly in the forward pass: the estimate enters as ``x - x.detach()``, which is 0.
Letters: ... any leading axes, E codebook_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rotation_trick", "straight_through"]

_TINY = 1e-6  # below this norm a direction is noise


def straight_through(latents: Tensor, codes: Tensor) -> Tensor:
    """(..., E) the codes; the gradient goes to the latents unchanged (VQ-VAE, arXiv 1711.00937, section 3.2)."""
    if not latents.requires_grad:
        return codes.detach()
    return codes.detach() + (latents - latents.detach())


def rotation_trick(latents: Tensor, codes: Tensor) -> Tensor:
    """(..., E) the codes; the gradient goes to the latents through the rotation and scaling that map z to its code q.

    q = lambda R z with lambda = |q| / |z|, R = I - 2 r r^T + 2 q^ z^T, where z^ and q^ are the unit vectors and
    r = (z^ + q^) / |z^ + q^|; lambda and R are constants of the backward pass, so that dL/dz = lambda R^T dL/dq
    (arXiv 2410.06424, section 4). Where z or q is nearly zero or q points away from z no rotation is defined,
    and the gradient is straight-through.
    """
    if not latents.requires_grad:
        return codes.detach()
    with torch.no_grad():
        z_norm = latents.norm(dim=-1, keepdim=True)
        q_norm = codes.norm(dim=-1, keepdim=True)
        z_hat = latents / z_norm.clamp(min=_TINY)
        q_hat = codes / q_norm.clamp(min=_TINY)
        r = z_hat + q_hat
        r_norm = r.norm(dim=-1, keepdim=True)
        r = r / r_norm.clamp(min=_TINY)
        scale = q_norm / z_norm.clamp(min=_TINY)
        is_defined = (z_norm > _TINY) & (q_norm > _TINY) & (r_norm > _TINY)
    mirrored = latents - 2 * r * (r * latents).sum(-1, keepdim=True)
    rotated = scale * (mirrored + 2 * q_hat * (z_hat * latents).sum(-1, keepdim=True))
    return straight_through(torch.where(is_defined, rotated, latents), codes)
