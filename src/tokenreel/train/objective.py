"""What the loop asks of every system: a loss of one batch, and for some a critic with an optimizer of its own."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

__all__ = ["Objective", "Step"]


class Step(NamedTuple):
    """The loss of one batch.

    Attributes:
        loss: scalar with a graph.
        metrics: scalars by name, without graphs.
        seen: what the critic's step needs; None without one.
        num_clips, num_tokens: in the batch, for rates.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    seen: Any = None
    num_clips: int = 0
    num_tokens: int = 0


class Objective(Protocol):
    """One system's loss.

    Attributes:
        critic: a module with its own optimizer, or None.
    """

    critic: nn.Module | None

    def __call__(self, model: nn.Module, batch: Any, *, step: int, generator: torch.Generator) -> Step:
        """The loss of ``model`` (perhaps wrapped for several processes) on a batch; randomness and device are
        the generator's."""

    def critic_step(
        self, critic: nn.Module, seen: Any, *, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The critic's loss on what the model's step left; None while it rests."""
