"""How much is masked: shares for training, counts for sampling.

Letters: B batch, L tokens, t h w grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.types import Grid

__all__ = ["SCHEDULES", "draw_primed", "mask_for_training", "masked_count", "masked_counts"]

SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "cosine": lambda r: torch.cos(r * (math.pi / 2)),
    "linear": lambda r: 1 - r,
    "square": lambda r: 1 - r**2,
    "cubic": lambda r: 1 - r**3,
    "sqrt": lambda r: 1 - r.sqrt(),
    "arccos": lambda r: torch.acos(r) * (2 / math.pi),
}
"""gamma(r): the share that is masked, from 1 at r = 0 down to 0 at r = 1 (MaskGIT, arXiv 2202.04200, section 3.3)."""


def masked_count(step: int, steps: int, num_tokens: int, schedule: str = "cosine") -> int:
    """How many of ``num_tokens`` are still open after ``step`` of ``steps``: all at 0, none at ``steps``.

    ``floor(gamma(step / steps) num_tokens)``, moved where needed so that every step decides at least one token while
    there are as many tokens as steps (arXiv 2202.04200, section 3.2).

    >>> [masked_count(step, 4, 10) for step in range(5)]
    [10, 9, 7, 3, 0]
    """
    if not 0 <= step <= steps:
        raise InputError(f"step must lie in [0, steps], got step {step} of {steps}")
    return masked_counts(steps, num_tokens, schedule)[step]


def masked_counts(steps: int, num_tokens: int, schedule: str = "cosine") -> tuple[int, ...]:
    """``masked_count`` of every step, ``steps + 1`` numbers that never rise."""
    if steps < 1 or num_tokens < 0:
        raise InputError(f"sampling needs at least 1 step and no fewer than 0 tokens, got {steps} and {num_tokens}")
    shares = _gamma(schedule)(torch.arange(steps + 1, dtype=torch.float64) / steps)
    counts = [num_tokens]
    for step in range(1, steps + 1):
        least, most = (steps - step, counts[-1] - 1) if num_tokens >= steps else (0, counts[-1])
        counts.append(max(least, min(most, math.floor(float(shares[step]) * num_tokens))))
    return (*counts[:-1], 0)


def mask_for_training(
    valid_mask: Tensor,
    *,
    schedule: str = "cosine",
    generator: torch.Generator | None = None,
    known_mask: Tensor | None = None,
    grid: Grid | None = None,
    tube_share: float = 0.0,
    blank_share: float = 0.0,
) -> Tensor:
    """(B, L) bool -> (B, L) bool, True = hidden: each row hides ``ceil(gamma(r) n)`` of its n tokens, r ~ U(0, 1).

    r is continuous and every row has its own; at least one token is hidden (arXiv 2202.04200, section 3.1). Only real
    tokens are hidden.

    Args:
        valid_mask: (B, L), True = real.
        schedule: a name in ``SCHEDULES``.
        generator: source of randomness, of any device.
        known_mask: (B, L), True = given and never hidden, as primed frames are.
        grid: of the rows; needed for tubes.
        tube_share: probability of a row to be hidden in tubes: squares of 2 or 4 tokens through all steps (as in
            VideoMAE, arXiv 2203.12602, section 3.2). Of single tokens a few tell what is in a clip, and a prompt would
            not be looked at.
        blank_share: probability of a row to be hidden whole, as sampling begins.
    """
    if valid_mask.ndim != 2 or valid_mask.dtype != torch.bool:
        raise InputError(f"valid_mask must be bool (B, L), got {valid_mask.dtype} {tuple(valid_mask.shape)}")
    gamma = _gamma(schedule)
    hidable_BL = valid_mask if known_mask is None else valid_mask & ~known_mask
    device = valid_mask.device if generator is None else generator.device
    r_B = torch.rand(valid_mask.shape[0], generator=generator, device=device)
    noise_BL = torch.rand(valid_mask.shape, generator=generator, device=device).to(valid_mask.device)
    num_B = hidable_BL.sum(1)
    count_B = (gamma(r_B.double()).to(num_B.device) * num_B).ceil().long().clamp(min=1)
    num = len(valid_mask)
    if tube_share:
        if grid is None or grid.num_cells != valid_mask.shape[1]:
            raise InputError(f"tube_share needs the grid of the {valid_mask.shape[1]} tokens of a row, got {grid}")
        is_tube_B = (torch.rand(num, generator=generator, device=device) < tube_share).to(valid_mask.device)
        tubes_BL = _tube_noise(grid, num, generator, device).to(valid_mask.device)
        noise_BL = torch.where(is_tube_B[:, None], tubes_BL + 1e-4 * noise_BL, noise_BL)
    if blank_share:
        is_blank_B = (torch.rand(num, generator=generator, device=device) < blank_share).to(valid_mask.device)
        count_B = torch.where(is_blank_B, num_B.clamp(min=1), count_B)
    rank_BL = noise_BL.masked_fill(~hidable_BL, 2.0).argsort(1).argsort(1)
    return (rank_BL < count_B[:, None]) & hidable_BL


def _tube_noise(grid: Grid, num: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """(num, L): the same random number in all tokens of a tube, whose side is 2 or 4 by row."""
    found = []
    for side in (2, 4):
        rows, columns = -(-grid.h // side), -(-grid.w // side)
        noise_Nhw = torch.rand(num, rows, columns, generator=generator, device=device)
        noise_Nhw = noise_Nhw.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, : grid.h, : grid.w]
        found.append(noise_Nhw.flatten(1).repeat(1, grid.t))
    is_wide_N = torch.rand(num, generator=generator, device=device) < 0.5
    return torch.where(is_wide_N[:, None], found[1], found[0])


def draw_primed(
    grid: Grid,
    num: int,
    *,
    probability: float,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    device: str = "cpu",
) -> Tensor:
    """(num, L) bool, True = given: some rows know their first steps, as a continued video does.

    ``steps`` of them, at most t - 1; or 1 to t - 1 where it is None.
    """
    place = device if generator is None else generator.device
    is_primed_B = torch.rand(num, generator=generator, device=place) < probability
    steps_B = 1 + (torch.rand(num, generator=generator, device=place) * (grid.t - 1)).long()
    if steps is not None:
        steps_B = torch.full_like(steps_B, min(steps, grid.t - 1))
    if grid.t == 1:
        is_primed_B = torch.zeros_like(is_primed_B)
    step_L = torch.arange(grid.num_cells, device=place) // (grid.h * grid.w)
    return (is_primed_B[:, None] & (step_L < steps_B[:, None])).to(device)


def _gamma(schedule: str) -> Callable[[Tensor], Tensor]:
    if schedule not in SCHEDULES:
        raise InputError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    return SCHEDULES[schedule]
