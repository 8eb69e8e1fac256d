"""LPIPS: a distance of VGG16 features with learned weights (arXiv 1801.03924), from weights that the caller has.

Nothing is downloaded unless asked. The weights are safetensors; these names are read, others are left:

=========================================  ====================================  ==================================
what                                       name                                  also taken
=========================================  ====================================  ==================================
weight and bias of convolution N of VGG16  ``features.N.weight``, ``.bias``      ``net.sliceK.N.weight``, ``.bias``
weight (1, D, 1, 1) of head i              ``lin{i}.model.1.weight``             ``lins.{i}.model.1.weight``
=========================================  ====================================  ==================================

N is the place in torchvision's ``vgg16().features``; the names to the left are those of torchvision and of the
``lpips`` package. They may stand in one file or in two.

Letters: B batch, C channels, T H W pixels, D features, h w grid of the features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import FormatError, InputError

from .features import FeaturePairs
from .pixels import frames_mean

__all__ = ["LPIPS", "load_lpips"]

_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Convolutions of VGG16 by their places; features are taken at the end of each stage, after the ReLU."""

# ImageNet's mean and standard deviation, taken from [0, 1] to [-1, 1].
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_SMALLEST = 16  # pixels a side: four halvings leave one
_TINY = 1e-10


class LPIPS(nn.Module):
    """VGG16 up to conv5_3, and five heads. Sizes are read from the weights, so a small stand-in works, too.

    The weights are buffers that no checkpoint holds and no optimizer sees.

    Args:
        state: tensors by name, as listed at the top of this file.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        named = _canonical(state)
        width = 3
        for stage, places in enumerate(_STAGES):
            for place in places:
                weight, bias = named[f"features.{place}.weight"], named[f"features.{place}.bias"]
                if weight.shape != (len(bias), width, 3, 3):
                    raise FormatError(
                        f"LPIPS: features.{place}.weight must be (D, {width}, 3, 3) with a bias of D, "
                        f"got {tuple(weight.shape)} and {tuple(bias.shape)}"
                    )
                width = len(bias)
                self.register_buffer(f"weight_{place}", weight.detach().float(), persistent=False)
                self.register_buffer(f"bias_{place}", bias.detach().float(), persistent=False)
            head = named[f"lin{stage}.model.1.weight"]
            if head.shape != (1, width, 1, 1):
                raise FormatError(
                    f"LPIPS: lin{stage}.model.1.weight must be (1, {width}, 1, 1), got {tuple(head.shape)}"
                )
            self.register_buffer(f"head_{stage}", head.detach().float().flatten(), persistent=False)

    def forward(self, video_BCTHW: Tensor) -> list[Tensor]:
        """(B, 3, T, H, W) in [-1, 1] -> five (B, D, T, h, w) of length 1 along D, frame by frame."""
        batch, channels, _, height, width = video_BCTHW.shape
        if channels != 3 or min(height, width) < _SMALLEST:
            raise InputError(
                f"LPIPS reads 3 channels of at least {_SMALLEST}x{_SMALLEST} pixels, got shape "
                f"{tuple(video_BCTHW.shape)}"
            )
        mean, std = (video_BCTHW.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        x = (rearrange(video_BCTHW, "B C T H W -> (B T) C H W") - mean) / std
        features = []
        for stage, places in enumerate(_STAGES):
            if stage:
                x = F.max_pool2d(x, 2)
            for place in places:
                weight, bias = (getattr(self, f"{name}_{place}").to(x.dtype) for name in ("weight", "bias"))
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            unit = x / (x.square().sum(1, keepdim=True) + _TINY).sqrt()
            features.append(rearrange(unit, "(B T) D h w -> B D T h w", B=batch))
        return features

    def loss(self, pairs: FeaturePairs, valid_frames: Tensor | None) -> Tensor:
        """Sum over the stages of the mean over places of sum_D w_D (f - g)^2: arXiv 1801.03924, eq. 1."""
        total = pairs[0][0].new_zeros(())
        for stage, (ours, theirs) in enumerate(pairs):
            head_D = getattr(self, f"head_{stage}").to(ours.dtype)
            distance_BThw = torch.einsum("BDThw,D->BThw", (ours - theirs).square(), head_D)
            total = total + frames_mean(distance_BThw.mean((-2, -1)), valid_frames)
        return total


def load_lpips(sources: str | Path | Sequence[str | Path], *, download: bool = False) -> LPIPS:
    """LPIPS from safetensors files: one, or one with the features and one with the heads.

    Args:
        sources: paths; or, with ``download``, files on the Hugging Face hub as ``owner/name/file.safetensors``.
        download: allows the network for what is no path here (files fetched before are not fetched again).

    Raises:
        InputError: there is no such file, and no download was allowed.
        FormatError: a file is no safetensors file, or weights are missing or do not fit.
    """
    state: dict[str, Tensor] = {}
    for source in [sources] if isinstance(sources, str | Path) else sources:
        state.update(_read(_local(source, download)))
    return LPIPS(state)


def _local(source: str | Path, download: bool) -> Path:
    if Path(source).is_file():
        return Path(source)
    parts = str(source).split("/", 2)
    if not download or len(parts) != 3:
        raise InputError(
            f"no LPIPS weights at {source}; give a safetensors file, or owner/name/file.safetensors on the hub "
            "with download=True"
        )
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download("/".join(parts[:2]), parts[2]))


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise FormatError(f"{path} is not a safetensors file, or it is damaged ({error})") from error


def _canonical(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names to the left in the table at the top; FormatError if one is missing."""
    named = {}
    for name, tensor in state.items():
        name = re.sub(r"^net\.slice\d\.", "features.", name)
        named[re.sub(r"^lins\.(\d)\.", r"lin\1.", name)] = tensor
    places = [place for stage in _STAGES for place in stage]
    needed = [f"features.{place}.{part}" for place in places for part in ("weight", "bias")]
    needed += [f"lin{stage}.model.1.weight" for stage in range(len(_STAGES))]
    missing = [name for name in needed if name not in named]
    if missing:
        raise FormatError(
            f"LPIPS weights lack {len(missing)} of {len(needed)} tensors, first {missing[0]}; features and heads may "
            "come from two files"
        )
    return named
