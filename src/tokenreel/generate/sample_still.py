"""A picture first, then its motion, frame by frame if wished; the picture from coarse to fine.

What a thing looks like and how it moves are two questions. Asked one after the other, each is far easier than both at
once, and the first costs a fraction: a picture has few tokens. Where there is what, and what it is like close by, are
two questions as well: a picture may begin as a few blurred ones (next-scale prediction, arXiv 2404.02905, section 3.1).
And where a thing is next is easiest to tell from where it was last.

Letters: B rows, L tokens of a grid (t, h, w).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.types import Grid

from .prime import prime
from .sample import MaskedModel, SampleStep, sample

__all__ = ["sample_from_still"]


def sample_from_still(
    model: MaskedModel,
    *,
    grid: Grid,
    still_steps: int,
    coarse_levels: int = 0,
    frame_steps: int = 0,
    generator: torch.Generator,
    **options: Any,
) -> Tensor:
    """Draw ids (B, L) int64: those of the first step in ``still_steps`` passes over a grid of it alone, then the rest.

    For generators that have seen pictures (``still_share`` of a recipe's batches) and clips whose first step was given
    (``primed_share``); coarser pictures and single frames for those that learned step by step (``stepwise``).

    Args:
        model, grid, generator: as in ``sample``.
        still_steps: passes for the first step; 0 draws all steps at once, as ``sample`` does. A grid of one step
            without coarser pictures is drawn in ``steps``.
        coarse_levels: how many coarser pictures are drawn before the first step, each in as many passes and each from
            those before it.
        frame_steps: passes for each step after the first, each drawn from those before it; 0 draws them at once, in
            ``steps`` passes.
        options: as in ``sample``, but for ``valid_mask``. Known ids that are the first steps of all rows are gone on
            from: no picture is drawn. With any others all is as in ``sample``.

    Raises:
        InputError: as ``sample``, or a number of steps or levels is below 0.
    """
    for name, value in (
        ("still_steps", still_steps),
        ("coarse_levels", coarse_levels),
        ("frame_steps", frame_steps),
    ):
        if type(value) is not int or value < 0:
            raise InputError(f"{name} must be a whole number of at least 0, got {value!r}")
    if still_steps == 0 and coarse_levels:
        raise InputError(f"coarse_levels is {coarse_levels}, but still_steps 0: no picture is drawn by itself")
    known_ids, is_masked = options.get("known_ids"), options.get("is_masked")
    told = {**options, "generator": generator}
    if known_ids is not None or is_masked is not None:
        given = _given_steps(is_masked, grid)
        if given == 0 or frame_steps == 0 or known_ids is None:
            return sample(model, grid=grid, **told)
        found_BL = known_ids[:, : given * grid.h * grid.w]
    elif (still_steps == 0 and frame_steps == 0) or (grid.t == 1 and not coarse_levels):
        return sample(model, grid=grid, **told)
    else:
        quiet = {name: value for name, value in told.items() if name not in ("callback", "known_ids", "is_masked")}
        found_BL = _still(model, grid, coarse_levels, {**quiet, "steps": still_steps or frame_steps})
    if frame_steps:
        return _frames(model, grid, found_BL, {**told, "steps": frame_steps})
    return found_BL if grid.t == 1 else _next(model, grid, found_BL, told)


def _given_steps(is_masked_BL: Tensor | None, grid: Grid) -> int:
    """How many first steps are known in all rows, nothing else being so; 0 where that is not how it is."""
    if is_masked_BL is None or is_masked_BL.ndim != 2 or is_masked_BL.shape[1] != grid.num_cells:
        return 0
    is_known_L = ~is_masked_BL[0]
    given, rest = divmod(int(is_known_L.sum()), grid.h * grid.w)
    is_first_L = torch.arange(grid.num_cells, device=is_known_L.device) < given * grid.h * grid.w
    return given if rest == 0 and bool((~is_masked_BL == is_first_L).all()) else 0


def _next(model: MaskedModel, grid: Grid, found_BL: Tensor, options: dict[str, Any]) -> Tensor:
    """All of a grid whose first steps are there."""
    known = prime(found_BL, grid=grid)
    return sample(model, grid=grid, **{**options, "known_ids": known.ids_BL, "is_masked": known.is_masked_BL})


def _still(model: MaskedModel, grid: Grid, coarse_levels: int, options: dict[str, Any]) -> Tensor:
    """(B, h w): the finest of some pictures, each drawn from those before it."""
    found_BL = sample(model, grid=Grid(t=1, h=grid.h, w=grid.w), **options)
    for level in range(1, coarse_levels + 1):
        found_BL = _next(model, Grid(t=level + 1, h=grid.h, w=grid.w), found_BL, options)
    return found_BL[:, -grid.h * grid.w :]


def _frames(model: MaskedModel, grid: Grid, found_BL: Tensor, options: dict[str, Any]) -> Tensor:
    """One step after another, each from those before it."""
    tell = options.get("callback")
    per_step = grid.h * grid.w
    first = found_BL.shape[1] // per_step
    for number in range(first, grid.t):
        callback = None if tell is None else _whole(tell, model, grid, number - first, grid.t - first)
        so_far = Grid(t=number + 1, h=grid.h, w=grid.w)
        found_BL = _next(model, so_far, found_BL, {**options, "callback": callback})
    return found_BL


def _whole(
    tell: Callable[[SampleStep], object], model: MaskedModel, grid: Grid, turn: int, turns: int
) -> Callable[[SampleStep], object]:
    """What is told of a part, as told of the whole grid: later steps are open."""

    def told(part: SampleStep) -> object:
        later = (0, grid.num_cells - part.ids_BL.shape[1])
        return tell(
            SampleStep(
                turn * part.steps + part.step,
                turns * part.steps,
                nn.functional.pad(part.ids_BL, later, value=model.vocab.mask_id),
                nn.functional.pad(part.is_masked_BL, later, value=True),
            )
        )

    return told
