"""What a classifier answers: ``Logits``, one tensor a head, and the heads that make them.

Letters: B batch, D dim, C classes of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.nn.initial import drawn

__all__ = ["HeadLabels", "Heads", "Logits"]

HeadLabels = tuple[tuple[str, tuple[str, ...]], ...]
"""Heads in order: name and labels. Class i of a head is its label i."""


@dataclass(frozen=True, slots=True, eq=False)
class Logits(Mapping[str, Tensor]):
    """Scores before softmax, head name -> (B, C), with the labels of each head.

    Attributes:
        heads: names and labels.
        scores: one (B, C) tensor a head, in that order.
    """

    heads: HeadLabels
    scores: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        found = [tuple(score.shape[1:]) for score in self.scores]
        if found != [(len(labels),) for _, labels in self.heads] or len({len(score) for score in self.scores}) != 1:
            wanted = ", ".join(f"{name} (B, {len(labels)})" for name, labels in self.heads)
            shapes = [tuple(score.shape) for score in self.scores]
            raise InputError(f"Logits must hold {wanted}; got shapes {shapes}")

    def __getitem__(self, head: str) -> Tensor:
        for (name, _), score_BC in zip(self.heads, self.scores):
            if name == head:
                return score_BC
        raise KeyError(head)

    def __iter__(self) -> Iterator[str]:
        return iter(name for name, _ in self.heads)

    def __len__(self) -> int:
        return len(self.heads)

    def probabilities(self) -> dict[str, Tensor]:
        """Softmax of each head, (B, C) float32."""
        return {name: score_BC.float().softmax(-1) for name, score_BC in self.items()}

    def predicted(self) -> dict[str, list[str]]:
        """The label of the highest score, for each head and example."""
        return {
            name: [labels[index] for index in score_BC.argmax(-1).tolist()]
            for (name, labels), score_BC in zip(self.heads, self.scores)
        }

    def __repr__(self) -> str:
        return f"Logits({', '.join(f'{name} {tuple(score.shape)}' for name, score in self.items())})"


class Heads(nn.Module):
    """Every head as one matrix product: (B, D) -> ``Logits``, float32."""

    def __init__(self, *, dim: int, heads: HeadLabels) -> None:
        super().__init__()
        self.heads = heads
        self.counts = [len(labels) for _, labels in heads]
        self.out = nn.Linear(dim, sum(self.counts))
        drawn(self.out.weight, std=0.02)
        if not self.out.bias.is_meta:
            nn.init.zeros_(self.out.bias)

    def forward(self, pooled_BD: Tensor) -> Logits:
        """(B, D) -> head name -> (B, C)."""
        device = pooled_BD.device.type
        exact = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
        with exact:
            scores_BC: Tensor = self.out(pooled_BD.to(self.out.weight.dtype))
        return Logits(self.heads, torch.split(scores_BC, self.counts, dim=-1))
