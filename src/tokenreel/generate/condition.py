"""What a generator is told: text states, class labels, or nothing.

Letters: B prompts, S text tokens, Dt width of a text state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tokenreel.errors import InputError

__all__ = ["Condition", "label_condition"]


class Condition(NamedTuple):
    """What a generator is told, computed once a prompt.

    Attributes:
        context_BSD: (B, S, Dt) float, text states; S = 0 tells no text.
        valid_mask_BS: (B, S) bool, True = real.
        labels_B: (B,) int64 class labels, or None.
    """

    context_BSD: Tensor
    valid_mask_BS: Tensor
    labels_B: Tensor | None = None

    @property
    def num(self) -> int:
        """B."""
        return self.context_BSD.shape[0]

    def to(self, device: torch.device | str) -> Condition:
        """The same on a device."""
        return Condition(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]

    def rows(self, num: int) -> Condition:
        """``num`` rows: these where they are as many, or a single one for all."""
        if self.num == num:
            return self
        if self.num != 1:
            raise InputError(f"a condition of {self.num} prompts cannot stand for {num} videos; give 1 or {num}")
        return Condition(*(None if part is None else part.expand(num, *part.shape[1:]) for part in self))  # type: ignore[arg-type]


def label_condition(labels_B: Tensor) -> Condition:
    """(B,) class labels, and no text.

    >>> label_condition(torch.tensor([3, 1])).context_BSD.shape
    torch.Size([2, 0, 0])
    """
    if labels_B.ndim != 1 or labels_B.is_floating_point():
        raise InputError(f"labels must be whole numbers (B,), got {labels_B.dtype} {tuple(labels_B.shape)}")
    num = labels_B.shape[0]
    device = labels_B.device
    return Condition(
        torch.zeros(num, 0, 0, device=device), torch.zeros(num, 0, dtype=torch.bool, device=device), labels_B.long()
    )
