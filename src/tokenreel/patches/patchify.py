"""Video to patches and back: an exact reshape, for any dtype and any size.

A patch is a block ``(pt, ph, pw)`` of pixels laid out ``(pt ph pw c)``, channels last; patches stand row-major in
``(t h w)``. Sizes that do not divide are padded by repeating the last frame, row and column; ``unpatchify`` crops.
The cut into patches is that of ViT (arXiv 2010.11929, section 3.1) with pt = 1, of ViViT's tubelets
(arXiv 2103.15691, section 3.2) with pt > 1.

Letters: T frames, H W pixels, C channels, t h w grid, L = t*h*w patches, D = pt*ph*pw*C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
from einops import rearrange

from tokenreel.errors import InputError
from tokenreel.types import Grid, PatchSize, check_patch_size

if TYPE_CHECKING:
    import torch

__all__ = ["patchify", "unpatchify"]

_Scalar = TypeVar("_Scalar", bound=np.generic)
_PATCHES = "(t pt) (h ph) (w pw) C -> (t h w) (pt ph pw C)"
_PIXELS = "(t h w) (pt ph pw C) -> (t pt) (h ph) (w pw) C"


@overload
def patchify(video_THWC: npt.NDArray[_Scalar], patch_size: PatchSize) -> npt.NDArray[_Scalar]: ...
@overload
def patchify(video_THWC: torch.Tensor, patch_size: PatchSize) -> torch.Tensor: ...
def patchify(video_THWC: Any, patch_size: PatchSize) -> Any:
    """(T, H, W, C) -> (L, D); numpy or torch, any dtype. ``Grid.of(T, H, W, patch_size)`` is its grid.

    >>> patchify(np.arange(16).reshape(1, 4, 4, 1), (1, 2, 2))[0].tolist()
    [0, 1, 4, 5]

    Raises:
        InputError: the video is not 4-D or empty, or the patch size is not three whole numbers of at least 1.
    """
    pt, ph, pw = check_patch_size(patch_size)
    if video_THWC.ndim != 4 or 0 in video_THWC.shape:
        raise InputError(f"a video must be a non-empty (T, H, W, C), got shape {tuple(video_THWC.shape)}")
    padded = _padded(video_THWC, (pt, ph, pw))
    if isinstance(padded, np.ndarray):
        return _patchify_numpy(padded, (pt, ph, pw))
    return rearrange(padded, _PATCHES, pt=pt, ph=ph, pw=pw)


@overload
def unpatchify(
    patches_LD: npt.NDArray[_Scalar], patch_size: PatchSize, size: tuple[int, int, int]
) -> npt.NDArray[_Scalar]: ...
@overload
def unpatchify(patches_LD: torch.Tensor, patch_size: PatchSize, size: tuple[int, int, int]) -> torch.Tensor: ...
def unpatchify(patches_LD: Any, patch_size: PatchSize, size: tuple[int, int, int]) -> Any:
    """(L, D) -> (T, H, W, C) of ``size`` = (T, H, W): the exact inverse of ``patchify``, padding cropped.

    Raises:
        InputError: L or D does not fit the size and patch size.
    """
    pt, ph, pw = check_patch_size(patch_size)
    frames, height, width = size
    grid = Grid.of(frames, height, width, (pt, ph, pw))
    if patches_LD.ndim != 2 or patches_LD.shape[0] != grid.num_cells or patches_LD.shape[1] % (pt * ph * pw):
        raise InputError(
            f"patches of shape {tuple(patches_LD.shape)} do not fit a video of {frames} frames {width}x{height} "
            f"in patches of {pt}x{ph}x{pw}: expected ({grid.num_cells}, {pt * ph * pw} x channels)"
        )
    if isinstance(patches_LD, np.ndarray):
        video = _unpatchify_numpy(patches_LD, (pt, ph, pw), grid)
    else:
        video = rearrange(patches_LD, _PIXELS, t=grid.t, h=grid.h, w=grid.w, pt=pt, ph=ph, pw=pw)
    return video[:frames, :height, :width]


def _padded(video_THWC: Any, patch_size: PatchSize) -> Any:
    pads = [-side % step for side, step in zip(video_THWC.shape[:3], patch_size)]
    if not any(pads):
        return video_THWC
    if isinstance(video_THWC, np.ndarray):
        return np.pad(video_THWC, [*((0, pad) for pad in pads), (0, 0)], mode="edge")
    import torch

    for axis, pad in enumerate(pads):
        if pad:
            last = video_THWC.narrow(axis, video_THWC.shape[axis] - 1, 1)
            video_THWC = torch.cat([video_THWC, last.expand(*(pad if i == axis else -1 for i in range(4)))], dim=axis)
    return video_THWC


# A row of one patch (pw*C values) is contiguous in both layouts. Moving it as one opaque item lets numpy copy it with
# a single memcpy: 0.25 ms instead of 0.6 ms for 1280x720 uint8 (benchmarks/bench_patchify.py).


def _as_rows(array: npt.NDArray[Any], pw: int, channels: int) -> npt.NDArray[Any]:
    return array.view(np.dtype((np.void, array.dtype.itemsize * pw * channels)))


def _patchify_numpy(video: npt.NDArray[Any], patch_size: PatchSize) -> npt.NDArray[Any]:
    pt, ph, pw = patch_size
    frames, height, width, channels = video.shape
    rows = _as_rows(np.ascontiguousarray(video).reshape(frames, height, width * channels), pw, channels)
    patches = np.ascontiguousarray(rearrange(rows, "(t pt) (h ph) w -> (t h w) (pt ph)", pt=pt, ph=ph))
    return patches.view(video.dtype)


def _unpatchify_numpy(patches: npt.NDArray[Any], patch_size: PatchSize, grid: Grid) -> npt.NDArray[Any]:
    pt, ph, pw = patch_size
    channels = patches.shape[1] // (pt * ph * pw)
    rows = _as_rows(np.ascontiguousarray(patches), pw, channels)
    video = rearrange(rows, "(t h w) (pt ph) -> (t pt) (h ph) w", t=grid.t, h=grid.h, w=grid.w, pt=pt, ph=ph)
    pixels = np.ascontiguousarray(video).view(patches.dtype)
    return rearrange(pixels, "T H (W C) -> T H W C", C=channels)
