"""The best linear codec of patches as a start: principal components in, least squares out.

A linear map of each patch, quantized, and a linear map back is a transform codec; with principal components it is the
best of its kind. On film it reaches in no time what a transformer from random weights needs thousands of steps for.

Letters: C channels (3), T frames, H W pixels, N patches, P values of a patch, E codebook_dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.quantize import FSQ, VQ, Quantizer

from .cvivit_model import FrameEmbed, FrameHead

__all__ = ["fit_linear"]

_SAMPLE = 30_000  # patches that components are computed from
_SPREADS = (0.35, 0.5, 0.7, 1.0, 1.4)  # standard deviations of the latents that are tried


@torch.no_grad()
def fit_linear(inward: FrameEmbed, outward: FrameHead, quantizer: Quantizer, videos: Sequence[Tensor]) -> None:
    """Set both maps, for first frames and for tubelets, to what reconstructs the patches of these videos best.

    Latents are principal components of standard deviation s, the largest for the finest levels of FSQ; s is the one of
    a few that gives the least error after quantizing. VQ starts its codebook from them.

    Args:
        inward: pixels to latents.
        outward: codes to pixels.
        quantizer: between the two.
        videos: (3, T, H, W) each, in [-1, 1]; enough of them to have more patches than a patch has values.
    """
    pt, ph, pw = inward.rest.patch_size
    first_NP = torch.cat([_patches(video[:, :1], (1, ph, pw)) for video in videos])
    later = [_patches(video[:, 1:], (pt, ph, pw)) for video in videos if video.shape[1] > pt]
    training, quantizer.training = quantizer.training, False
    if isinstance(quantizer, VQ):
        sample_NP = torch.cat(later) if later else first_NP
        quantizer.start_from(_components(_some(sample_NP), quantizer)[0])
    _fit(inward.first.proj, outward.first, quantizer, _some(first_NP))
    if later:
        _fit(inward.rest.proj, outward.rest, quantizer, _some(torch.cat(later)))
    quantizer.training = training


def _fit(inward: nn.Linear, outward: nn.Linear, quantizer: Quantizer, patches_NP: Tensor) -> None:
    latents_NE, basis_EP, mean_P = _components(patches_NP, quantizer)
    best = float("inf")
    for spread in (1.0,) if isinstance(quantizer, VQ) else _SPREADS:
        codes_NE = quantizer(latents_NE * spread).codes
        ones_NF = torch.cat([codes_NE, codes_NE.new_ones(len(codes_NE), 1)], dim=1)
        gram_FF = (ones_NF.T @ ones_NF).double()
        ridge_FF = torch.eye(len(gram_FF), dtype=gram_FF.dtype, device=gram_FF.device) * 1e-6 * len(codes_NE)
        map_FP = torch.linalg.solve(gram_FF + ridge_FF, (ones_NF.T @ patches_NP).double()).to(patches_NP.dtype)
        error = float((ones_NF @ map_FP - patches_NP).square().mean())
        if error < best:
            best = error
            inward.weight.copy_(basis_EP * spread)
            inward.bias.copy_(-(basis_EP @ mean_P) * spread)
            outward.weight.copy_(map_FP[:-1].T)
            outward.bias.copy_(map_FP[-1])


def _components(patches_NP: Tensor, quantizer: Quantizer) -> tuple[Tensor, Tensor, Tensor]:
    """Latents of standard deviation 1 (N, E), the map that gives them (E, P), and the mean patch (P,)."""
    mean_P = patches_NP.mean(0)
    centred_NP = patches_NP - mean_P
    values_P, vectors_PP = torch.linalg.eigh((centred_NP.T @ centred_NP / len(centred_NP)).double())
    width = quantizer.codebook_dim
    basis_EP = vectors_PP.flip(1)[:, :width].T / values_P.flip(0)[:width, None].clamp(min=1e-8).sqrt()
    if basis_EP.shape[0] < width:  # more dimensions than a patch has values
        basis_EP = torch.cat([basis_EP, basis_EP.new_zeros(width - basis_EP.shape[0], basis_EP.shape[1])])
    if isinstance(quantizer, FSQ):
        order = sorted(range(width), key=lambda index: -quantizer.config.levels[index])
        basis_EP = basis_EP[torch.tensor(order).argsort()]
    basis_EP = basis_EP.to(patches_NP.dtype)
    return (patches_NP - mean_P) @ basis_EP.T, basis_EP, mean_P


def _some(patches_NP: Tensor) -> Tensor:
    """At most ``_SAMPLE`` of them, evenly spread."""
    step = -(-len(patches_NP) // _SAMPLE)
    return patches_NP[::step]


def _patches(video_CTHW: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Whole patches (N, P) in the order of ``TubeletEmbed``."""
    pt, ph, pw = size
    _, frames, height, width = video_CTHW.shape
    whole = video_CTHW[:, : frames // pt * pt, : height // ph * ph, : width // pw * pw]
    return rearrange(whole, "C (t pt) (h ph) (w pw) -> (t h w) (pt ph pw C)", pt=pt, ph=ph, pw=pw)
