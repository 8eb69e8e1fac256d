"""Values that change from the first sampling step to the last: guidance scales and temperatures.

A ramp is a plain function from progress in [0, 1] to a value. A number stands for itself at every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tokenreel.errors import InputError

__all__ = ["Ramp", "constant", "cosine", "linear", "ramp_values"]

Ramp = float | Callable[[float], float]


def constant(value: float) -> Callable[[float], float]:
    """The same value at every step."""
    return lambda progress: value


def linear(start: float, end: float) -> Callable[[float], float]:
    """From ``start`` at the first step to ``end`` at the last, in equal steps.

    >>> linear(1, 3)(0.5)
    2.0
    """
    return lambda progress: start + (end - start) * progress


def cosine(start: float, end: float) -> Callable[[float], float]:
    """From ``start`` to ``end`` along half a cosine: slow at both ends.

    >>> round(cosine(1, 3)(0.5), 9)
    2.0
    """
    return lambda progress: start + (end - start) * (1 - math.cos(math.pi * progress)) / 2


def ramp_values(ramp: Ramp, *, steps: int, name: str) -> list[float]:
    """The value at each of ``steps`` steps; progress is 0 at the first and 1 at the last.

    Raises:
        InputError: a value is not a finite number; ``name`` tells of what.
    """
    values = [float(ramp(step / max(1, steps - 1)) if callable(ramp) else ramp) for step in range(steps)]
    for step, value in enumerate(values):
        if not math.isfinite(value):
            raise InputError(f"{name} must be a finite number at every step, got {value} at step {step}")
    return values
