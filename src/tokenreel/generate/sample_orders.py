"""In which order open tokens are decided: by the model's confidence, by a critic, or by a plan that stands before.

Confidence: MaskGIT, arXiv 2202.04200, section 3.2. Critic: arXiv 2209.04439, algorithm 1. Halton: arXiv 2503.17076.

Letters: B rows, L tokens, t h w grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.types import Grid

__all__ = ["Order", "OrderKind", "decided", "halton_places", "planned_places"]

OrderKind = Literal["confidence", "critic", "self_critic", "halton", "random", "front_to_back"]

_NOISE: dict[str, float] = {"confidence": 4.5, "critic": 1.0, "self_critic": 1.0}  # 4.5 is MaskGIT's for images
_BASES = (2, 3, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which tokens are decided first.

    Attributes:
        kind: ``confidence``: the likeliest draws stay. ``critic`` and ``self_critic``: those stay that a scorer takes
            for real, and earlier ones may be opened again. ``halton``: spread evenly over time, height and width,
            coarse to fine (the bisection order where the grid has one axis). ``random``: a plan drawn for every row.
            ``front_to_back``: as the ids lie, for 1-D tokens whose first ones tell most, and for time.
        noise: how much Gumbel noise is added to confidence or score at the first step; it falls linearly to 0. By
            default 4.5 for confidence and 1 for critics. Planned orders have none.
    """

    kind: OrderKind = "confidence"
    noise: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(OrderKind):
            raise InputError(f"order must be one of {', '.join(get_args(OrderKind))}, got {self.kind!r}")
        if self.noise is not None and not 0 <= self.noise < float("inf"):
            raise InputError(f"Order.noise must be at least 0, got {self.noise}")
        if self.noise and self.kind not in _NOISE:
            raise InputError(
                f"Order.noise is for {', '.join(_NOISE)}; the order {self.kind!r} is planned, leave it out"
            )

    @property
    def start_noise(self) -> float:
        """``noise``, or the default of the kind."""
        return _NOISE.get(self.kind, 0.0) if self.noise is None else self.noise

    @property
    def is_planned(self) -> bool:
        """Whether the order is known before anything is drawn; only tokens that are decided are then drawn."""
        return self.kind not in _NOISE

    @property
    def has_critic(self) -> bool:
        """Whether a scorer decides."""
        return self.kind in ("critic", "self_critic")


def halton_places(grid: Grid) -> npt.NDArray[np.int64]:
    """The place in the order of every cell, (L,) a permutation: a Halton sequence over the axes longer than 1.

    Any first part of the order covers the grid evenly. The bases are 2, 3, 5 for w, h, t; points that fall into a cell
    that has a place already are passed over.

    >>> halton_places(Grid(t=1, h=1, w=8)).tolist()
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    extents = [extent for extent in (grid.w, grid.h, grid.t) if extent > 1]
    strides = [stride for extent, stride in ((grid.w, 1), (grid.h, grid.w), (grid.t, grid.h * grid.w)) if extent > 1]
    places = np.full(grid.num_cells, -1, np.int64)
    found, start, count = 0, 0, max(64, 4 * grid.num_cells)
    while found < grid.num_cells:
        numbers = np.arange(start, start + count)
        cells = np.zeros(count, np.int64)
        for base, extent, stride in zip(_BASES, extents, strides):
            cells += (_inverse(numbers, base) * extent).astype(np.int64).clip(max=extent - 1) * stride
        unique, first = np.unique(cells, return_index=True)
        fresh = places[unique] < 0
        in_order = unique[fresh][np.argsort(first[fresh])]
        places[in_order] = np.arange(found, found + len(in_order))
        found, start = found + len(in_order), start + count
    return places


def planned_places(kind: OrderKind, *, grid: Grid, num: int, generator: torch.Generator) -> Tensor:
    """(num, L) int64 on the generator's device: the place of every token in a planned order, smaller first."""
    num_tokens = grid.num_cells
    if kind == "random":
        noise_BL = torch.rand(num, num_tokens, generator=generator, device=generator.device, dtype=torch.float64)
        return noise_BL.argsort(dim=1).argsort(dim=1)
    if kind == "halton":
        places_L = torch.from_numpy(halton_places(grid)).to(generator.device)
    else:
        places_L = torch.arange(num_tokens, device=generator.device)
    return places_L.expand(num, num_tokens)


def decided(worth_BL: Tensor, *, counts_B: Tensor) -> Tensor:
    """(B, L) bool: the ``counts_B`` tokens of each row with the largest worth; of equal ones those that lie first."""
    places_BL = worth_BL.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return places_BL < counts_B[:, None]


def _inverse(numbers: npt.NDArray[np.int64], base: int) -> npt.NDArray[np.float64]:
    """The radical inverse: digits to this base, mirrored at the point."""
    found, scale, left = np.zeros(len(numbers)), 1.0, numbers.copy()
    while left.any():
        scale /= base
        left, digits = np.divmod(left, base)
        found += digits * scale
    return found
