"""Ids of videos of different length and size, and of images, as one padded batch.

Letters: B videos, L tokens of the common grid (t, h, w), l tokens of one video.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.types import Grid

__all__ = ["Padded", "padded", "unpadded"]


class Padded(NamedTuple):
    """Ids on one grid.

    Attributes:
        ids_BL: (B, L) int64, 0 where padded.
        grid: the smallest that holds all of them.
        valid_mask: (B, L) bool, True = real; None where all are.
    """

    ids_BL: Tensor
    grid: Grid
    valid_mask: Tensor | None


def padded(ids: Sequence[Tensor], grids: Sequence[Grid]) -> Padded:
    """Ids (l,) each and their grids -> one batch; a token keeps its place (t, h, w), so padding changes no position.

    >>> image, video = torch.tensor([5, 6]), torch.tensor([1, 2, 3, 4])
    >>> batch = padded([image, video], [Grid(t=1, h=1, w=2), Grid(t=2, h=1, w=2)])
    >>> batch.ids_BL.tolist(), batch.valid_mask[0].tolist()
    ([[5, 6, 0, 0], [1, 2, 3, 4]], [True, True, False, False])
    """
    if not ids or len(ids) != len(grids):
        raise InputError(f"a batch needs at least one video and a grid each, got {len(ids)} ids and {len(grids)} grids")
    for index, (one_l, own) in enumerate(zip(ids, grids)):
        if one_l.shape != (own.num_cells,):
            raise InputError(f"video {index} has ids of shape {tuple(one_l.shape)}, its grid {own} has {own.num_cells}")
    grid = Grid(t=max(g.t for g in grids), h=max(g.h for g in grids), w=max(g.w for g in grids))
    if all(own == grid for own in grids):
        return Padded(torch.stack([one_l.long() for one_l in ids]), grid, None)
    shape = (len(ids), grid.t, grid.h, grid.w)
    ids_Bthw = torch.zeros(shape, dtype=torch.int64, device=ids[0].device)
    valid_Bthw = torch.zeros(shape, dtype=torch.bool, device=ids[0].device)
    for row, (one_l, own) in enumerate(zip(ids, grids)):
        ids_Bthw[row, : own.t, : own.h, : own.w] = one_l.long().view(own.t, own.h, own.w)
        valid_Bthw[row, : own.t, : own.h, : own.w] = True
    return Padded(ids_Bthw.flatten(1), grid, valid_Bthw.flatten(1))


def unpadded(values_BL: Tensor, grid: Grid, grids: Sequence[Grid]) -> list[Tensor]:
    """(B, L, ...) on the common grid -> (l, ...) of every video; undoes ``padded``."""
    found = []
    for values_L, own in zip(values_BL, grids, strict=True):
        values_thw = values_L.view(grid.t, grid.h, grid.w, *values_L.shape[1:])
        found.append(values_thw[: own.t, : own.h, : own.w].flatten(0, 2))
    return found
