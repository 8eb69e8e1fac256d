"""How many tokens each video is asked to become: one rule for all tokenizers that leave the choice."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from torch import Tensor

from tokenreel.errors import InputError

__all__ = ["MOST_TOKENS", "checked_counts"]

MOST_TOKENS = 16_384
"""Tokens of one picture or segment where a configuration sets no limit: attention over more takes minutes."""


def checked_counts(token_counts: Any, num_videos: int, *, default: int, most: int) -> list[int]:
    """One count a video from None, one number, or one a video (sequence, array or tensor).

    >>> checked_counts(None, 2, default=8, most=8), checked_counts([1, 2], 2, default=8, most=8)
    ([8, 8], [1, 2])

    Raises:
        InputError: not whole numbers, not as many as videos, or outside [1, most].
    """
    given = default if token_counts is None else token_counts
    if isinstance(given, Tensor | np.ndarray):
        given = given.tolist()
    try:
        counts = [
            operator.index(count) for count in (given if isinstance(given, list | tuple) else [given] * num_videos)
        ]
    except TypeError:
        raise InputError(f"token_counts must be a whole number or one a video, got {token_counts!r}") from None
    if len(counts) != num_videos:
        raise InputError(f"token_counts must have one number a video, got {len(counts)} for {num_videos} videos")
    for count in counts:
        if not 1 <= count <= most:
            raise InputError(f"token_counts must lie in [1, {most}], got {count}")
    return counts
