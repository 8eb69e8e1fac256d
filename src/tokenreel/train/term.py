"""How much a loss term counts, and from which step on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokenreel.errors import InputError
from tokenreel.quantize.base import check_whole

__all__ = ["Term", "check_weight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """The weight of one term over training: 0 before ``start_step``, then rising linearly over ``warmup_steps``.

    >>> [Term(weight=2.0, start_step=10, warmup_steps=4).at(step) for step in (9, 10, 12, 14, 99)]
    [0.0, 0.0, 1.0, 2.0, 2.0]

    Attributes:
        weight: the full weight.
        start_step: first step at which the term may count.
        warmup_steps: steps from 0 to the full weight; 0 jumps.
    """

    weight: float
    start_step: int = 0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        check_weight("Term", "weight", self.weight)
        check_whole("Term", "start_step", self.start_step, 0)
        check_whole("Term", "warmup_steps", self.warmup_steps, 0)

    def at(self, step: int) -> float:
        """The weight at a step, counted from 0."""
        if step < self.start_step:
            return 0.0
        if step >= self.start_step + self.warmup_steps:
            return self.weight
        return self.weight * (step - self.start_step) / self.warmup_steps


def check_weight(owner: str, name: str, value: object) -> None:
    """InputError unless ``value`` is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{owner}.{name} must be a finite number of at least 0, got {value!r}")
