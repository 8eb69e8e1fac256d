"""A picture first, then its motion: the first step of a grid alone, and the others from it.

What a thing looks like and how it moves are two questions. Asked one after the other, each is far easier than both at
once, and the first costs a fraction: a picture has few tokens.

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
    model: MaskedModel, *, grid: Grid, still_steps: int, generator: torch.Generator, **options: Any
) -> Tensor:
    """Draw ids (B, L) int64: those of the first step in ``still_steps`` passes over a grid of it alone, then the rest.

    For generators that have seen pictures (``still_share`` of a recipe's batches) and clips whose first step was given
    (``primed_share``).

    Args:
        model, grid, generator: as in ``sample``.
        still_steps: passes for the first step; 0 draws all steps at once, as ``sample`` does.
        options: as in ``sample``, but for ``valid_mask``. Where ids are known, all is as in ``sample``.

    Raises:
        InputError: as ``sample``, or ``still_steps`` is below 0.
    """
    if type(still_steps) is not int or still_steps < 0:
        raise InputError(f"still_steps must be a whole number of at least 0, got {still_steps!r}")
    if still_steps == 0 or grid.t == 1 or options.get("known_ids") is not None:
        return sample(model, grid=grid, generator=generator, **options)
    first = Grid(t=1, h=grid.h, w=grid.w)
    callback = options.pop("callback", None)
    options = {name: value for name, value in options.items() if name not in ("known_ids", "is_masked")}
    still_BL = sample(model, grid=first, generator=generator, **{**options, "steps": still_steps})
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
