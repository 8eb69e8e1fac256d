"""Tokens that are seen, as a generator's own draws would be: a little wrong at the edges of things.

A generator goes on from what it drew itself, in a step before or in a pass before, and trained on real tokens alone it
would take every slip for truth and carry it on. Corrupting what is given while training is the remedy of cascaded
diffusion (arXiv 2106.15282, section 3, conditioning augmentation).

Letters: B records, L tokens of a grid (t, h, w).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenreel.types import Grid

__all__ = ["strayed"]


def strayed(
    ids_BL: Tensor,
    among_BL: Tensor,
    *,
    grid: Grid,
    most: float,
    generator: torch.Generator,
    from_BL: Tensor | None = None,
) -> Tensor:
    """Some ids of each record replaced by those of a token beside them, in the same step.

    Args:
        ids_BL: int64 ids.
        among_BL: bool, which may be replaced.
        grid: of all records.
        most: of each record a share u ~ U(0, ``most``) is replaced.
        generator: of the chance.
        from_BL: bool, which may replace them; None: those that may be replaced.
    """
    place = generator.device
    share_B1 = most * torch.rand(len(ids_BL), 1, generator=generator, device=place)
    is_strayed_BL = torch.rand(ids_BL.shape, generator=generator, device=place) < share_B1
    step_2BL = torch.randint(-1, 2, (2, *ids_BL.shape), generator=generator, device=place).to(ids_BL.device)
    number_L = torch.arange(grid.num_cells, device=ids_BL.device)
    row_L, column_L = number_L // grid.w % grid.h, number_L % grid.w
    row_BL = (row_L + step_2BL[0]).clamp(0, grid.h - 1)
    column_BL = (column_L + step_2BL[1]).clamp(0, grid.w - 1)
    beside_BL = number_L - row_L * grid.w - column_L + row_BL * grid.w + column_BL
    sources_BL = among_BL if from_BL is None else from_BL
    may_BL = among_BL & sources_BL.gather(1, beside_BL) & is_strayed_BL.to(ids_BL.device)
    return torch.where(may_BL, ids_BL.gather(1, beside_BL), ids_BL)
