"""A loss on frequency bands: the details of an undecimated Haar transform, frame by frame.

Why not the spectrum: by Parseval's theorem a squared difference of Fourier coefficients is that of the pixels, and a
difference of amplitudes forgets where things are. Why undecimated: a decimated Haar transform pairs pixels 2i and
2i + 1 only, at every level, so an edge between two patches of size 2^k is in no band. Here every pair of neighbours is.

Letters: B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["haar_details", "haar_loss"]


def haar_details(video_BCTHW: Tensor, levels: int) -> list[Tensor]:
    """Three detail bands (along W, along H, along both) for every level, finest first.

    Level l takes means and half differences of pixels 2^l apart (a trous, no padding), so bands shrink by 2^l pixels
    an axis. Levels end where a side is too short; a video of one pixel has none.
    """
    bands = []
    low = video_BCTHW
    for level in range(levels):
        step = 1 << level
        if min(low.shape[-2:]) <= step:
            break
        near, far = low[..., :-step], low[..., step:]
        mean, detail = (near + far) / 2, (near - far) / 2
        bands.append((detail[..., :-step, :] + detail[..., step:, :]) / 2)
        bands.append((mean[..., :-step, :] - mean[..., step:, :]) / 2)
        bands.append((detail[..., :-step, :] - detail[..., step:, :]) / 2)
        low = (mean[..., :-step, :] + mean[..., step:, :]) / 2
    return bands


def haar_loss(reconstruction_BCTHW: Tensor, target_BCTHW: Tensor, levels: int = 3) -> Tensor:
    """(B, T): L1 of the detail bands, their mean over the bands of all levels.

    The wavelet-domain fidelity loss of arXiv 2402.19215 (stationary transform, L1), with Haar's filters. The means
    are left to the losses on pixels. The transform is linear, so it is taken once, of the difference.
    """
    bands = haar_details(reconstruction_BCTHW - target_BCTHW, levels)
    if not bands:
        return (reconstruction_BCTHW - target_BCTHW).mean((1, 3, 4)) * 0
    return torch.stack([band.abs().mean((1, 3, 4)) for band in bands]).mean(0)
