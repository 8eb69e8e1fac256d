"""A picture first, then its motion: the first step of a grid alone, and the others from it; the picture coarse to fine.

What a thing looks like and how it moves are two questions. Asked one after the other, each is far easier than both at
once, and the first costs a fraction: a picture has few tokens. Where there is what, and what it is like close by, are
two questions as well: a picture may begin as a few blurred ones (next-scale prediction, arXiv 2404.02905, section 3.1).

Letters: B rows, L tokens of a grid (t, h, w).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.types import Grid

from .prime import prime
from .sample import MaskedModel, sample

__all__ = ["sample_from_still"]


def sample_from_still(
    model: MaskedModel,
    *,
    grid: Grid,
    still_steps: int,
    coarse_levels: int = 0,
    generator: torch.Generator,
    **options: Any,
) -> Tensor:
    """Draw ids (B, L) int64: those of the first step in ``still_steps`` passes over a grid of it alone, then the rest.

    For generators that have seen pictures (``still_share`` of a recipe's batches) and clips whose first step was given
    (``primed_share``).

    Args:
        model, grid, generator: as in ``sample``.
        still_steps: passes for the first step; 0 draws all steps at once, as ``sample`` does.
        coarse_levels: how many coarser pictures are drawn before the first step, each in as many passes and each from
            those before it, for generators that have seen such (``still_source`` of a recipe's batches).
        options: as in ``sample``, but for ``valid_mask``. Where ids are known, all is as in ``sample``.

    Raises:
        InputError: as ``sample``, or ``still_steps`` or ``coarse_levels`` is below 0.
    """
    for name, value in (("still_steps", still_steps), ("coarse_levels", coarse_levels)):
        if type(value) is not int or value < 0:
            raise InputError(f"{name} must be a whole number of at least 0, got {value!r}")
    if still_steps == 0 and coarse_levels:
        raise InputError(f"coarse_levels is {coarse_levels}, but still_steps 0: no picture is drawn by itself")
    if still_steps == 0 or options.get("known_ids") is not None or (grid.t == 1 and not coarse_levels):
        return sample(model, grid=grid, generator=generator, **options)
    callback = options.pop("callback", None)
    options = {name: value for name, value in options.items() if name not in ("known_ids", "is_masked")}
    still_BL = _still(model, grid, coarse_levels, generator, {**options, "steps": still_steps})
    if grid.t == 1:
        return still_BL
    known = prime(still_BL, grid=grid)
    return sample(
        model,
        grid=grid,
        generator=generator,
        known_ids=known.ids_BL,
        is_masked=known.is_masked_BL,
        callback=callback,
        **options,
    )


def _still(
    model: MaskedModel, grid: Grid, coarse_levels: int, generator: torch.Generator, options: dict[str, Any]
) -> Tensor:
    """(B, h w): the finest of some pictures, each drawn from those before it."""
    per_step = grid.h * grid.w
    found_BL = sample(model, grid=Grid(t=1, h=grid.h, w=grid.w), generator=generator, **options)
    for level in range(1, coarse_levels + 1):
        levels = Grid(t=level + 1, h=grid.h, w=grid.w)
        known = prime(found_BL, grid=levels)
        found_BL = sample(
            model, grid=levels, generator=generator, known_ids=known.ids_BL, is_masked=known.is_masked_BL, **options
        )
    return found_BL[:, -per_step:]
