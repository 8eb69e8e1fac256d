"""Pixels of a patch as Haar wavelets, in which smooth and sharp stand apart (Cosmos, arXiv 2501.03575, section 3.1).

Letters: B batch, C channels, T H W pixels, n a side of the patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.patches.embed import padded
from tokenreel.types import PatchSize

__all__ = ["Haar", "haar_matrix"]


def haar_matrix(side: int) -> Tensor:
    """(n, n) orthonormal: row 0 the mean, the others differences from the widest to the narrowest.

    >>> haar_matrix(2)
    tensor([[ 0.7071,  0.7071],
            [ 0.7071, -0.7071]])
    """
    if side < 1 or side & (side - 1):
        raise InputError(f"Haar wavelets need sides that are powers of two, got {side}")
    matrix = torch.ones(1, 1, device="cpu")
    while len(matrix) < side:
        means = torch.kron(matrix, torch.tensor([[1.0, 1.0]], device="cpu"))
        differences = torch.kron(torch.eye(len(matrix), device="cpu"), torch.tensor([[1.0, -1.0]], device="cpu"))
        matrix = torch.cat([means, differences]) / 2**0.5
    return matrix


class Haar(nn.Module):
    """Videos (B, C, T, H, W) to the wavelets of each patch, in the patch's place; and back. No weights."""

    def __init__(self, patch_size: PatchSize) -> None:
        super().__init__()
        self.patch_size = patch_size
        for axis, side in zip("thw", patch_size):
            self.register_buffer(f"matrix_{axis}", haar_matrix(side), persistent=False)

    def forward(self, video_BCTHW: Tensor, *, still: bool = False, inverse: bool = False) -> Tensor:
        """``still``: patches of one frame; ``inverse``: wavelets to pixels. Sizes that do not divide are padded."""
        patch_size = (1, *self.patch_size[1:]) if still else self.patch_size
        video_BCTHW = padded(video_BCTHW, patch_size)
        for axis, side in zip("thw", patch_size):
            if side == 1:
                continue
            matrix = getattr(self, f"matrix_{axis}").to(video_BCTHW.dtype)
            dim = 2 + "thw".index(axis)
            size = video_BCTHW.shape
            blocks = video_BCTHW.reshape(*size[:dim], -1, side, *size[dim + 1 :]).movedim(dim + 1, -1)
            blocks = blocks @ (matrix if inverse else matrix.t())
            video_BCTHW = blocks.movedim(-1, dim + 1).reshape(size)
        return video_BCTHW
