"""Losses on pixels: L1, L2, Charbonnier, temporal differences; and means over the frames that count.

Letters: B batch, C channels, T frames, H W pixels. Videos are float in [-1, 1]; ``valid_frames`` (B, T), True = real.
Every loss gives one value a frame, and ``frames_mean`` one value of these.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.nn.rotary import wide_dtype

__all__ = [
    "charbonnier",
    "check_pair",
    "fill_frames",
    "frames_mean",
    "l1",
    "l2",
    "neighbours_valid",
    "pool_valid",
    "temporal",
]


def l1(reconstruction_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
    """(B, T): mean absolute difference of each frame."""
    return (reconstruction_BCTHW - target_BCTHW).abs().mean((1, 3, 4))


def l2(reconstruction_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
    """(B, T): mean squared difference of each frame."""
    return (reconstruction_BCTHW - target_BCTHW).square().mean((1, 3, 4))


def charbonnier(reconstruction_BCTHW: Tensor, target_BCTHW: Tensor, eps: float = 1e-3) -> Tensor:
    """(B, T): mean of sqrt(d^2 + eps^2) - eps, an L1 that is smooth within eps of 0.

    The penalty of arXiv 1710.01992, section 3.3, with eps = 1e-3; eps is subtracted, so that equal videos give 0.
    """
    difference = reconstruction_BCTHW - target_BCTHW
    return ((difference.square() + eps * eps).sqrt() - eps).mean((1, 3, 4))


def temporal(reconstruction_BCTHW: Tensor, target_BCTHW: Tensor) -> Tensor:
    """(B, T - 1): mean |(x_t+1 - x_t) - (y_t+1 - y_t)|, which sees flicker that is small in every frame."""
    difference = reconstruction_BCTHW - target_BCTHW
    return difference.diff(dim=2).abs().mean((1, 3, 4))


def frames_mean(loss_BT: Tensor, valid_frames: Tensor | None) -> Tensor:
    """Mean over the valid frames of the batch; 0 where there is none.

    >>> frames_mean(torch.tensor([[1.0, 9.0, 3.0]]), torch.tensor([[True, False, True]]))
    tensor(2.)
    """
    if valid_frames is None:
        return loss_BT.sum() / max(loss_BT.numel(), 1)
    kept = torch.where(valid_frames, loss_BT, 0)  # where, not a product: what is not valid may be inf or NaN
    return kept.sum() / valid_frames.sum().clamp(min=1)


def neighbours_valid(valid_frames: Tensor | None) -> Tensor | None:
    """(B, T) -> (B, T - 1): where a frame and the next are valid."""
    return None if valid_frames is None else valid_frames[:, 1:] & valid_frames[:, :-1]


def pool_valid(valid_frames: Tensor | None, places: int) -> Tensor | None:
    """(B, T) -> (B, places): where any frame is valid in the stretch of time that a feature stands for."""
    if valid_frames is None or valid_frames.shape[1] == places:
        return valid_frames
    return F.adaptive_max_pool1d(valid_frames[:, None].float(), places)[:, 0] > 0


def fill_frames(video_BCTHW: Tensor, valid_frames: Tensor | None) -> Tensor:
    """The video in fp32 or wider, with grey (0) for frames that are not valid."""
    wide = video_BCTHW.to(wide_dtype(video_BCTHW))
    return wide if valid_frames is None else torch.where(valid_frames[:, None, :, None, None], wide, 0)


def check_pair(reconstruction_BCTHW: Tensor, target_BCTHW: Tensor, valid_frames: Tensor | None) -> None:
    """InputError unless both are float (B, C, T, H, W) of one shape and the mask is bool (B, T)."""
    for name, video in (("reconstruction", reconstruction_BCTHW), ("target", target_BCTHW)):
        if video.ndim != 5 or not video.is_floating_point():
            raise InputError(f"the {name} must be float (B, C, T, H, W), got {video.dtype} {tuple(video.shape)}")
    if reconstruction_BCTHW.shape != target_BCTHW.shape:
        raise InputError(
            f"reconstruction and target must have one shape, got {tuple(reconstruction_BCTHW.shape)} and "
            f"{tuple(target_BCTHW.shape)}; crop what the tokenizer padded"
        )
    expected = (target_BCTHW.shape[0], target_BCTHW.shape[2])
    if valid_frames is not None and (valid_frames.dtype != torch.bool or valid_frames.shape != expected):
        raise InputError(
            f"valid_frames must be bool (B, T) = {expected}, got {valid_frames.dtype} {tuple(valid_frames.shape)}"
        )
