"""The best linear codec of patches as a start: principal components in, least squares out.

A linear map of each patch, quantized, and a linear map back is a transform codec; with principal components it is the
best of its kind. On film it reaches in no time what a transformer from random weights needs thousands of steps for.
With a codebook it is k-means of the patches themselves.

Letters: C channels (3), T frames, H W pixels, N patches, P values of a patch, E codebook_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.quantize import FSQ, VQ, Quantizer
from tokenreel.types import PatchSize

from .cvivit_head import FrameHead
from .cvivit_model import FrameEmbed
from .cvivit_transforms import PatchTransforms

__all__ = ["fit_codebook", "fit_linear", "fit_transforms"]

_SAMPLE = 30_000  # patches that components are computed from
_FITTED = 120_000  # patches that transforms to choose from are fitted to
_ITERATIONS = 6  # of choosing and fitting
_ROUNDS = 3  # of a predictive codec: what is new hangs on what was decoded, and so on the maps
_SPREADS = (0.2, 0.35, 0.5, 0.7, 1.0, 1.4)  # standard deviations of the latents that are tried


@torch.no_grad()
def fit_linear(
    inward: FrameEmbed,
    outward: FrameHead,
    quantizer: Quantizer,
    videos: Sequence[Tensor],
    *,
    is_predictive: bool = False,
) -> None:
    """Set both maps, for first frames and for tubelets, to what reconstructs the patches of these videos best.

    Latents are principal components of standard deviation s, the largest for the finest levels of FSQ; s is the one of
    a few that gives the least error after quantizing. VQ starts its codebook from them; where no step is predicted, as
    ``fit_codebook`` does.

    Args:
        inward: pixels to latents.
        outward: codes to pixels.
        quantizer: between the two.
        videos: (3, T, H, W) each, in [-1, 1]; enough of them to have more patches than a patch has values.
        is_predictive: tubelets are coded as their difference from the last frame that these maps gave before them.
    """
    if isinstance(quantizer, VQ) and not is_predictive and not quantizer.config.l2_norm:
        fit_codebook(inward, outward, quantizer, videos)
        return
    pt, ph, pw = inward.rest.patch_size
    first_NP = torch.cat([_patches(video[:, :1], (1, ph, pw)) for video in videos])
    later = [_patches(video[:, 1:], (pt, ph, pw)) for video in videos if video.shape[1] > pt]
    if is_predictive:
        later = later[:1]  # of what kind they are; what they hold hangs on the maps
    training, quantizer.training = quantizer.training, False
    if isinstance(quantizer, VQ):
        sample_NP = torch.cat(later) if later else first_NP
        quantizer.start_from(_components(_some(sample_NP), quantizer)[0])
    _fit(inward.first.proj, outward.first, quantizer, _some(first_NP))
    if is_predictive and later:

        def drawn(frames: Tensor, has_first: bool) -> Tensor:
            video: Tensor = outward(quantizer(inward(frames, has_first=has_first)).codes, has_first=has_first)
            return video

        whole = [_whole(video, inward.rest.patch_size) for video in videos if video.shape[1] > pt]
        for rounds in range(_ROUNDS):
            later = [_differences(video, inward.rest.patch_size, drawn, is_first_round=rounds == 0) for video in whole]
            _fit(inward.rest.proj, outward.rest, quantizer, _some(torch.cat(later)))
    elif later:
        _fit(inward.rest.proj, outward.rest, quantizer, _some(torch.cat(later)))
    quantizer.training = training


@torch.no_grad()
def fit_codebook(inward: FrameEmbed, outward: FrameHead, quantizer: VQ, videos: Sequence[Tensor]) -> None:
    """Set the codebook to k-means of these videos' patches, and both maps to the change of axes that it is kept in.

    Latents are the leading principal components all at one scale, so that the nearest code is the one of least squared
    error in pixels. A patch of a first frame counts as a tubelet that stands still: what does not move has the same ids
    in all steps. Equal patches of a clip count once, or still walls would take most of the codes.

    Args: as ``fit_linear``.
    """
    size = inward.rest.patch_size
    pt, ph, pw = size
    distinct = []
    for video in videos:
        first_NP = _patches(video[:, :1], (1, ph, pw)).repeat(1, pt)
        distinct.append(torch.unique(torch.cat([first_NP, _patches(video[:, 1:], size)]), dim=0))
    patches_NP = torch.cat(distinct)
    sample_NP = _some(patches_NP)
    mean_P = sample_NP.mean(0)
    centred_NP = sample_NP - mean_P
    values_P, vectors_PP = torch.linalg.eigh((centred_NP.T @ centred_NP / len(sample_NP)).double())
    scale = float(values_P.sum().clamp(min=1e-8).sqrt())  # latents of norm 1 or so
    width = min(quantizer.codebook_dim, vectors_PP.shape[1])
    basis_EP = vectors_PP.new_zeros(quantizer.codebook_dim, vectors_PP.shape[0])
    basis_EP[:width] = vectors_PP.flip(1)[:, :width].T
    basis_EP = basis_EP.to(patches_NP.dtype)
    into_EP, back_PE = basis_EP / scale, basis_EP.T * scale
    inward.rest.proj.weight.copy_(into_EP)
    inward.rest.proj.bias.copy_(-into_EP @ mean_P)
    inward.first.proj.weight.copy_(into_EP.view(len(into_EP), pt, -1).sum(1))
    inward.first.proj.bias.copy_(inward.rest.proj.bias)
    outward.rest.weight.copy_(back_PE)
    outward.rest.bias.copy_(mean_P)
    outward.first.weight.copy_(back_PE.view(pt, -1, back_PE.shape[1]).mean(0))
    outward.first.bias.copy_(mean_P.view(pt, -1).mean(0))
    quantizer.start_from(inward.rest.proj(patches_NP))


def _differences(
    video: Tensor, size: PatchSize, drawn: Callable[[Tensor, bool], Tensor], *, is_first_round: bool
) -> Tensor:
    """Patches (N, P) of the tubelets of (1, C, T, H, W), less the frame that was decoded before each.

    ``drawn`` codes and decodes frames, the first alone or whole tubelets. In the first round the codec of tubelets is
    not known yet, and only the one after the first frame is taken.
    """
    pt = size[0]
    last = drawn(video[:, :, :1], True).clamp(-1, 1)
    found = []
    for start in range(1, video.shape[2] - pt + 1, pt)[: 1 if is_first_round else None]:
        new = video[:, :, start : start + pt] - last
        found.append(_patches(new[0], size))
        if not is_first_round:
            last = (last + drawn(new, False)[:, :, -1:]).clamp(-1, 1)
    return torch.cat(found)


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


def _some(patches_NP: Tensor, most: int = _SAMPLE) -> Tensor:
    """At most so many of them, evenly spread."""
    step = -(-len(patches_NP) // most)
    return patches_NP[::step]


def _patches(video_CTHW: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Whole patches (N, P) in the order of ``TubeletEmbed``."""
    pt, ph, pw = size
    _, frames, height, width = video_CTHW.shape
    whole = video_CTHW[:, : frames // pt * pt, : height // ph * ph, : width // pw * pw]
    return rearrange(whole, "C (t pt) (h ph) (w pw) -> (t h w) (pt ph pw C)", pt=pt, ph=ph, pw=pw)


@torch.no_grad()
def fit_transforms(
    transforms: PatchTransforms, quantizer: Quantizer, videos: Sequence[Tensor], *, is_predictive: bool, seed: int = 0
) -> None:
    """Fit the transforms of first frames and of tubelets to these videos, as ``fit_linear`` does a single one."""
    pt = transforms.patch_size[0]
    whole = [part for part in (_whole(video, transforms.patch_size) for video in videos) if part.numel()]
    if not whole:
        raise InputError(f"transforms are fitted to whole patches of {transforms.patch_size}; no video holds one")
    generator, training = torch.Generator().manual_seed(seed), quantizer.training
    quantizer.training = False
    first_NP = torch.cat([transforms.patches(video[:, :, :1], "first").flatten(0, 3) for video in whole])
    transforms.first.fit(_some(first_NP, _FITTED), quantizer, iterations=_ITERATIONS, generator=generator)
    whole = [video for video in whole if video.shape[2] > pt]

    def drawn(frames: Tensor, has_first: bool) -> Tensor:
        return _drawn(transforms, quantizer, frames, has_first=has_first)

    num_rounds = _ROUNDS if is_predictive else 1
    for rounds in range(num_rounds if whole else 0):
        if is_predictive:
            found = [_differences(video, transforms.patch_size, drawn, is_first_round=rounds == 0) for video in whole]
        else:
            found = [_patches(video[0, :, 1:], transforms.patch_size) for video in whole]
        is_last = rounds == num_rounds - 1
        most, iterations = (_FITTED, _ITERATIONS) if is_last else (_FITTED // 3, _ITERATIONS // 2)
        transforms.rest.fit(_some(torch.cat(found), most), quantizer, iterations=iterations, generator=generator)
    quantizer.training = training


def _drawn(transforms: PatchTransforms, quantizer: Quantizer, frames: Tensor, *, has_first: bool) -> Tensor:
    _, ph, pw = transforms.patch_size
    grid = (1, 1, frames.shape[3] // ph, frames.shape[4] // pw, quantizer.codebook_dim)
    latents = transforms.latents(frames, frames.new_zeros(grid), quantizer, has_first=has_first)
    return transforms.frames(transforms.cells(quantizer(latents).codes, has_first=has_first), has_first=has_first)


def _whole(video_CTHW: Tensor, patch_size: tuple[int, int, int]) -> Tensor:
    """(1, C, T, H, W), cut to whole patches."""
    _, ph, pw = patch_size
    height, width = video_CTHW.shape[2:]
    return video_CTHW[None, :, :, : height // ph * ph, : width // pw * pw]
