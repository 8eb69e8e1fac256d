"""Toy generators for tests of sampling: one that knows what it says, one whose every output is noise of its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tokenreel.generate.condition import Condition
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.types import Grid


class Told(NamedTuple):
    num: int
    guided: bool
    shift: Tensor  # (N,) what the condition adds


class Toy(nn.Module):
    """A random map of the ids and their mean, so every token depends on every other; its output layer is affine."""

    def __init__(self, vocab: Vocabulary, *, dim: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.vocab = vocab
        source = torch.Generator().manual_seed(seed)
        self.embed = nn.Parameter(torch.randn(vocab.vocab_size, dim, generator=source))
        self.mix = nn.Parameter(torch.randn(dim, dim, generator=source) / dim**0.5)
        self.out = nn.Parameter(torch.randn(dim, sum(vocab.levels), generator=source) / 4)
        self.calls: list[tuple[int, int]] = []  # rows of features, positions of logits
        self.prepared = 0

    def prepare(self, condition: Condition | None, *, num: int, guided: bool) -> Told:
        self.prepared += 1
        shift = torch.zeros(num) if condition is None else condition.context_BSD.mean((1, 2)).expand(num)
        return Told(num, guided, torch.cat([shift, torch.zeros(num)]) if guided else shift)

    def features(
        self,
        ids_BL: Tensor,
        *,
        grid: Grid,
        prepared: Told,
        valid_mask: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        assert not self.training
        assert ids_BL.shape == (prepared.num, grid.num_cells)
        x = self.embed[ids_BL]
        if valid_mask is not None:
            x = x * valid_mask[..., None]
        x = x + x.mean(1, keepdim=True)
        if prepared.guided:
            x = x.repeat(2, 1, 1)
        self.calls.append((len(x), 0))
        place = torch.linspace(-1, 1, grid.num_cells)[:, None]
        return torch.tanh((x + place + prepared.shift[:, None, None]) @ self.mix)

    def logits(self, features_ND: Tensor) -> tuple[Tensor, ...]:
        self.calls.append((0, len(features_ND)))
        return (features_ND @ self.out).split(self.vocab.levels, dim=-1)

    def condition(self, prompts: Sequence[str] | None = None, *, encoder: Any = None) -> Condition | None:
        assert prompts is not None
        states = [torch.full((1, 2), len(prompt) / 10) for prompt in prompts]
        return Condition(torch.stack(states), torch.ones(len(prompts), 1, dtype=torch.bool))


class Knower(Toy):
    """Says ``truth_L``, with a confidence that falls along the tokens unless told otherwise."""

    def __init__(self, vocab: Vocabulary, truth_L: Tensor, strength_L: Tensor | None = None) -> None:
        super().__init__(vocab, dim=1)
        self.truth_L = truth_L
        self.strength_L = torch.linspace(40, 20, len(truth_L)) if strength_L is None else strength_L

    def features(
        self,
        ids_BL: Tensor,
        *,
        grid: Grid,
        prepared: Told,
        valid_mask: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        digits_LF = self.vocab.split(self.truth_L)
        one_hot = [torch.eye(level)[digits_LF[:, dim]] for dim, level in enumerate(self.vocab.levels)]
        features_LD = torch.cat(one_hot, dim=-1) * self.strength_L[:, None]
        return features_LD.expand(ids_BL.shape[0] * (1 + prepared.guided), -1, -1)

    def logits(self, features_ND: Tensor) -> tuple[Tensor, ...]:
        return features_ND.split(self.vocab.levels, dim=-1)


class Judge:
    """Calls ids below ``border`` fake, and counts how often it was asked."""

    def __init__(self, border: int) -> None:
        self.border, self.asked = border, 0

    def prepare(self, condition: Condition | None, *, num: int) -> int:
        return num

    def scores(self, ids_BL: Tensor, *, grid: Grid, prepared: int, valid_mask: Tensor | None = None) -> Tensor:
        assert len(ids_BL) == prepared
        self.asked += 1
        return (ids_BL < self.border).float() * 100
