"""Linear transforms that a patch chooses from: the first digit of its code says which, the others are its coordinates.

One linear map for all patches spends its few coordinates on what is common to flat sky, an edge and a moving hand. With
M maps, each fitted to the patches that it suits best, the same bits say far more: transform coding by class (weighted
universal transform coding, Effros, Chou and Gray, ICIP 1994; local principal components, Kambhatla and Leen, Neural
Computation 9(7), 1997). Attention then adds to the coordinates and to the pixels.

Letters: N patches, P values of a patch, R values of the reduced patch, M transforms, E codebook_dim, J = E - 1.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.patches.embed import padded
from tokenreel.quantize import FSQ, Quantizer
from tokenreel.types import PatchSize

__all__ = ["PatchTransforms", "Transforms"]

_AT_ONCE = 1 << 20  # coordinates that are tried in one go
_SPREADS = (0.35, 0.5, 0.7, 1.0)  # standard deviations of coordinates that are tried
_FEWEST = 64  # patches that a transform is fitted to; one with fewer starts again


class Transforms(nn.Module):
    """Patches (N, P) to the one of M transforms that draws each best, and its coordinates; and back.

    A patch is reduced, y = A (x - m); transform k gives coordinates z = V_k y - v_k, and draws y again from their
    quantized values c as W_k [c, 1]; the one of least |y - W_k [c, 1]|^2 is taken. Starts at zero; ``fit`` starts it.
    """

    def __init__(self, *, patch_values: int, num_transforms: int, num_coordinates: int, reduced: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(patch_values, reduced)
        self.expand = nn.Linear(reduced, patch_values)
        self.inward_MJR = nn.Parameter(torch.zeros(num_transforms, num_coordinates, reduced))
        self.offset_MJ = nn.Parameter(torch.zeros(num_transforms, num_coordinates))
        self.outward_MFR = nn.Parameter(torch.zeros(num_transforms, num_coordinates + 1, reduced))
        if not self.inward_MJR.is_meta:
            for layer in (self.reduce, self.expand):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def chosen(self, patches_NP: Tensor, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
        """(N,) the transform that draws each patch best, and (N, J) its coordinates, before quantizing."""
        reduced_NR = self.reduce(patches_NP)
        with torch.no_grad():
            index_N = self._best(reduced_NR.detach(), quantizer)
        inward_NJR = F.embedding(index_N, self.inward_MJR.flatten(1)).view(-1, *self.inward_MJR.shape[1:])
        coordinates_NJ = (inward_NJR @ reduced_NR[:, :, None])[..., 0] - F.embedding(index_N, self.offset_MJ)
        return index_N, coordinates_NJ

    def drawn(self, index_N: Tensor, coordinates_NJ: Tensor) -> Tensor:
        """(N,) and quantized (N, J) -> reduced patches (N, R)."""
        outward_NFR = F.embedding(index_N, self.outward_MFR.flatten(1)).view(-1, *self.outward_MFR.shape[1:])
        drawn: Tensor = (_with_one(coordinates_NJ)[:, None] @ outward_NFR)[:, 0]
        return drawn

    def _best(self, reduced_NR: Tensor, quantizer: Quantizer) -> Tensor:
        """|y - W [c, 1]|^2 less |y|^2, without drawing M pictures of every patch."""
        count, width, _ = self.inward_MJR.shape
        gram_MFF = self.outward_MFR @ self.outward_MFR.mT
        found = []
        for part_NR in torch.split(reduced_NR, max(1, _AT_ONCE // (count * (width + 1)))):
            tried_NMJ = (part_NR @ self.inward_MJR.flatten(0, 1).t()).view(-1, count, width) - self.offset_MJ
            codes_NMF = _with_one(_coded(tried_NMJ, quantizer))
            along_NMF = (part_NR @ self.outward_MFR.flatten(0, 1).t()).view(-1, count, width + 1)
            squares_NMF = torch.einsum("nmf,mfg->nmg", codes_NMF, gram_MFF)
            found.append((codes_NMF * (squares_NMF - 2 * along_NMF)).sum(-1).argmin(1))
        return torch.cat(found)

    @torch.no_grad()
    def fit(self, patches_NP: Tensor, quantizer: Quantizer, *, iterations: int, generator: torch.Generator) -> float:
        """Fit to patches, as k-means does; the mean squared error that is left."""
        mean_P = patches_NP.mean(0)
        centred_NP = patches_NP - mean_P
        vectors_PP = torch.linalg.eigh((centred_NP.T @ centred_NP).double())[1]
        basis_PR = vectors_PP.flip(1)[:, : self.reduce.out_features].to(patches_NP.dtype)
        self.reduce.weight.zero_()[: basis_PR.shape[1]] = basis_PR.T
        self.reduce.bias.zero_()[: basis_PR.shape[1]] = -mean_P @ basis_PR
        self.expand.weight.zero_()[:, : basis_PR.shape[1]] = basis_PR
        self.expand.bias.copy_(mean_P)
        reduced_NR = self.reduce(patches_NP)
        index_N = self._classes(reduced_NR, generator)
        for _ in range(iterations):
            self._fit_each(reduced_NR, index_N, quantizer, generator)
            index_N = self._best(reduced_NR, quantizer)
        codes_NJ = _coded(self.chosen(patches_NP, quantizer)[1], quantizer)
        return float((self.expand(self.drawn(index_N, codes_NJ)) - patches_NP).square().mean())

    def _classes(self, reduced_NR: Tensor, generator: torch.Generator) -> Tensor:
        """A first division: k-means over the logarithm of a patch's energy and its direction."""
        count = len(self.inward_MJR)
        energy_N1 = reduced_NR.square().sum(1, keepdim=True).clamp(min=1e-8)
        seen_NX = torch.cat([energy_N1.log() / 2, 2 * reduced_NR[:, :12] / energy_N1.sqrt()], dim=1)
        centres_MX = seen_NX[torch.randperm(len(seen_NX), generator=generator)[:count]]
        if len(centres_MX) < count:
            raise InputError(f"{count} transforms need at least as many patches to start from, got {len(seen_NX)}")
        for _ in range(8):
            index_N = torch.cdist(seen_NX, centres_MX).argmin(1)
            sums_MX = torch.zeros_like(centres_MX).index_add(0, index_N, seen_NX)
            centres_MX = sums_MX / torch.bincount(index_N, minlength=count).clamp(min=1)[:, None]
        return torch.cdist(seen_NX, centres_MX).argmin(1)

    def _fit_each(self, reduced_NR: Tensor, index_N: Tensor, quantizer: Quantizer, generator: torch.Generator) -> None:
        for k in range(len(self.inward_MJR)):
            own_NR = reduced_NR[index_N == k]
            if len(own_NR) < _FEWEST:
                own_NR = reduced_NR[torch.randint(len(reduced_NR), (4 * _FEWEST,), generator=generator)]
            self._fit_one(k, own_NR, quantizer)

    def _fit_one(self, k: int, own_NR: Tensor, quantizer: Quantizer) -> None:
        """Principal components in, least squares out, at the spread of the coordinates that leaves the least error."""
        width = self.inward_MJR.shape[1]
        mean_R = own_NR.mean(0)
        centred_NR = own_NR - mean_R
        values_R, vectors_RR = torch.linalg.eigh((centred_NR.T @ centred_NR / len(own_NR)).double())
        basis_JR = vectors_RR.flip(1)[:, :width].T / values_R.flip(0)[:width, None].clamp(min=1e-7).sqrt()
        basis_JR = F.pad(basis_JR, (0, 0, 0, width - len(basis_JR)))  # more coordinates than a patch has numbers: zero
        assert isinstance(quantizer, FSQ)
        levels = quantizer.config.levels[1:]
        order = sorted(range(width), key=lambda j: -levels[j])  # the largest for the finest levels
        basis_JR = basis_JR[torch.tensor(order).argsort()].to(own_NR.dtype)
        best = math.inf
        for spread in _SPREADS:
            ones_NF = _with_one(_coded(centred_NR @ basis_JR.T * spread, quantizer))
            gram_FF = (ones_NF.T @ ones_NF).double()
            gram_FF += 1e-5 * len(own_NR) * torch.eye(width + 1, dtype=gram_FF.dtype, device=gram_FF.device)
            map_FR = torch.linalg.solve(gram_FF, (ones_NF.T @ own_NR).double()).to(own_NR.dtype)
            error = float((ones_NF @ map_FR - own_NR).square().mean())
            if error < best:
                best = error
                self.inward_MJR[k] = basis_JR * spread
                self.offset_MJ[k] = basis_JR @ mean_R * spread
                self.outward_MFR[k] = map_FR


class PatchTransforms(nn.Module):
    """``Transforms`` of first frames' patches and of tubelets; latents and codes as the quantizer has them."""

    centres_M: Tensor

    def __init__(self, *, patch_size: PatchSize, quantizer: Quantizer, num_transforms: int, reduced: int) -> None:
        super().__init__()
        _check(quantizer, num_transforms)
        assert isinstance(quantizer, FSQ)
        pt, ph, pw = patch_size
        self.patch_size, self.num_transforms = patch_size, num_transforms
        options = {"num_transforms": num_transforms, "num_coordinates": quantizer.codebook_dim - 1, "reduced": reduced}
        self.first = Transforms(patch_values=3 * ph * pw, **options)
        self.rest = Transforms(patch_values=3 * pt * ph * pw, **options)
        self.register_buffer("centres_M", _centres(quantizer, num_transforms), persistent=False)

    def latents(
        self, video_BCTHW: Tensor, more_BthwE: Tensor, quantizer: Quantizer, *, has_first: bool = True
    ) -> Tensor:
        """Frames of whole steps and what attention adds -> latents (B, t, h, w, E); the choice is the patch's alone."""
        parts = []
        if has_first:
            parts.append(self._latents(video_BCTHW[:, :, :1], more_BthwE[:, :1], quantizer, "first"))
        if more_BthwE.shape[1] > len(parts):
            rest_BCTHW = video_BCTHW[:, :, len(parts) :]
            parts.append(self._latents(rest_BCTHW, more_BthwE[:, len(parts) :], quantizer, "rest"))
        return torch.cat(parts, dim=1)

    def cells(self, codes_BthwE: Tensor, *, has_first: bool = True) -> Tensor:
        """Codes -> the reduced patches that they draw, (B, t, h, w, R)."""
        parts = [self._cells(codes_BthwE[:, :1], "first")] if has_first else []
        if codes_BthwE.shape[1] > len(parts):
            parts.append(self._cells(codes_BthwE[:, len(parts) :], "rest"))
        return torch.cat(parts, dim=1)

    def frames(self, cells_BthwR: Tensor, *, has_first: bool = True) -> Tensor:
        """Reduced patches -> frames (B, C, T, H, W)."""
        parts = [self._frames(cells_BthwR[:, :1], "first")] if has_first else []
        if cells_BthwR.shape[1] > len(parts):
            parts.append(self._frames(cells_BthwR[:, len(parts) :], "rest"))
        return torch.cat(parts, dim=2)

    def patches(self, video_BCTHW: Tensor, part: str) -> Tensor:
        """Frames of whole steps of one kind, ``first`` or ``rest`` -> (B, t, h, w, P)."""
        _, ph, pw = self.patch_size
        pt = self._of(part)[1]
        video_BCTHW = padded(video_BCTHW, (pt, ph, pw))
        return rearrange(video_BCTHW, "B C (t pt) (h ph) (w pw) -> B t h w (pt ph pw C)", pt=pt, ph=ph, pw=pw)

    def _of(self, part: str) -> tuple[Transforms, int]:
        return (self.first, 1) if part == "first" else (self.rest, self.patch_size[0])

    def _latents(self, video_BCTHW: Tensor, more_BthwE: Tensor, quantizer: Quantizer, part: str) -> Tensor:
        patches_NP = self.patches(video_BCTHW, part).flatten(0, 3)
        index_N, coordinates_NJ = self._of(part)[0].chosen(patches_NP, quantizer)
        coordinates = coordinates_NJ.view(*more_BthwE.shape[:-1], -1) + more_BthwE[..., 1:]
        centres = self.centres_M[index_N].view(*more_BthwE.shape[:-1], 1)
        return torch.cat([centres.to(coordinates), coordinates], dim=-1)

    def _cells(self, codes_BthwE: Tensor, part: str) -> Tensor:
        codes_NE = codes_BthwE.flatten(0, 3)
        lowest = self.num_transforms // 2
        index_N = (codes_NE[:, 0].detach() * lowest).round().long() + lowest
        cells_NR = self._of(part)[0].drawn(index_N, codes_NE[:, 1:])
        return cells_NR.view(*codes_BthwE.shape[:-1], -1)

    def _frames(self, cells_BthwR: Tensor, part: str) -> Tensor:
        transforms, pt = self._of(part)
        _, ph, pw = self.patch_size
        patches_BthwP = transforms.expand(cells_BthwR)
        frames: Tensor = rearrange(
            patches_BthwP, "B t h w (pt ph pw C) -> B C (t pt) (h ph) (w pw)", pt=pt, ph=ph, pw=pw, C=3
        )
        return frames


def _check(quantizer: Quantizer, num_transforms: int) -> None:
    if not isinstance(quantizer, FSQ):
        raise InputError("transforms to choose from need FSQ, whose first digit tells which")
    config = quantizer.config
    if config.levels[0] != num_transforms or len(config.levels) < 2:
        raise InputError(
            f"{num_transforms} transforms need FSQ with {num_transforms} levels first and others for the coordinates, "
            f"got {config.levels}"
        )
    if config.symmetric or config.noise or config.skip:
        raise InputError("transforms to choose from need FSQ without symmetric, noise and skip")


def _coded(coordinates_J: Tensor, quantizer: Quantizer) -> Tensor:
    """(..., J) -> their quantized values, as if each stood behind a first digit."""
    codes: Tensor = quantizer(F.pad(coordinates_J, (1, 0))).codes[..., 1:]
    return codes


def _with_one(codes_J: Tensor) -> Tensor:
    return F.pad(codes_J, (0, 1), value=1.0)


def _centres(quantizer: FSQ, count: int) -> Tensor:
    """(M,) latents in the middle of each level of the first digit: the bound of ``FSQ`` solved for z."""
    half = (count - 1) * (1 + 1e-3) / 2
    offset = (1 - count % 2) / 2
    digits_M = torch.arange(count, dtype=torch.float64, device="cpu") - count // 2
    centres_M: Tensor = (torch.atanh((digits_M + offset) / half) - math.atanh(offset / half)).float()
    return centres_M
