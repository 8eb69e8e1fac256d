"""Critics: which tokens of a video look made up. A network of their own, or a head on the generator's features.

Letters: B videos, L tokens, N positions that count, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.nn.initial import drawn
from tokenreel.tokenizers.saved import SavedModel
from tokenreel.types import Grid

from .condition import Condition, label_condition
from .maskgit import MaskGIT
from .maskgit_config import SIZES, TokenNetworkConfig
from .maskgit_network import Prepared, TokenNetwork, draw_null
from .vocabulary import Vocabulary

__all__ = ["Scorer", "SelfCritic", "TokenCritic", "TokenCriticConfig", "critic_labels", "filled"]


class Scorer(Protocol):
    """Whatever scores tokens, for sampling: a ``TokenCritic``, a ``SelfCritic``."""

    def prepare(self, condition: Condition | None, *, num: int) -> Any:
        """What ``scores`` needs of a condition, computed once for all steps."""

    def scores(self, ids_BL: Tensor, *, grid: Grid, prepared: Any, valid_mask: Tensor | None = None) -> Tensor:
        """(B, L) ids, none masked -> (B, L) float32, higher = more likely fake."""


def critic_labels(real_BL: Tensor, filled_BL: Tensor, is_masked_BL: Tensor) -> Tensor:
    """(B, L) bool, True = fake: the token was sampled and differs from the real one.

    A token that was seen is real, and so is one that was guessed right (arXiv 2209.04439, section 3).

    >>> critic_labels(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 9]), torch.tensor([False, True, True]))
    tensor([False, False,  True])
    """
    return is_masked_BL & (filled_BL != real_BL)


@torch.no_grad()
def filled(
    logits: Sequence[Tensor],
    ids_BL: Tensor,
    is_masked_BL: Tensor,
    vocabulary: Vocabulary,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(B, L) ids with the masked ones drawn from their logits, one (N, levels) a factor: what a critic is trained on.

    Drawn as the smallest of exponential arrival times ``E / p``; temperature 0 takes the likeliest.
    """
    if temperature < 0:
        raise InputError(f"temperature must be at least 0, got {temperature}")
    digits = []
    for logit_NV in logits:
        if temperature == 0:
            digits.append(logit_NV.argmax(-1))
            continue
        device = logit_NV.device if generator is None else generator.device
        arrival_NV = torch.empty(logit_NV.shape, device=device).exponential_(generator=generator).to(logit_NV.device)
        digits.append((logit_NV.float() / temperature).softmax(-1).div_(arrival_NV).argmax(-1))
    filled_BL = ids_BL.clone()
    filled_BL[is_masked_BL] = vocabulary.join(torch.stack(digits, -1)).to(ids_BL.dtype)
    return filled_BL


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCriticConfig(TokenNetworkConfig):
    """Configuration of ``TokenCritic``; as ``TokenNetworkConfig``; without ``context_dim`` it reads no text."""


_SHARED = [field.name for field in fields(TokenNetworkConfig)]


class TokenCritic(SavedModel):
    """Scores every token of a whole video: real, or sampled by a generator (Token-Critic, arXiv 2209.04439).

    Where the generator reads text by itself, its states are the critic's context: ``generator.condition(prompts)``.
    """

    kind = "generator"
    name = "token-critic"
    config_type = TokenCriticConfig
    sizes: ClassVar[Mapping[str, TokenCriticConfig]] = {
        name: TokenCriticConfig(**{field: getattr(size, field) for field in _SHARED}) for name, size in SIZES.items()
    }
    summary = "A critic that tells sampled video tokens from real ones."
    papers = ("2209.04439",)
    config: TokenCriticConfig

    def __init__(self, config: TokenCriticConfig) -> None:
        super().__init__(config)
        self.network = TokenNetwork(config)
        self.head = nn.Linear(config.feature_dim, 1)
        drawn(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def vocab(self) -> Vocabulary:
        """Of its ids."""
        return self.config.vocabulary

    def forward(
        self,
        ids_BL: Tensor,
        *,
        grid: Grid,
        condition: Condition | None,
        valid_mask: Tensor | None = None,
        is_null: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(B, L) whole ids -> (B, L) float32 logits of "fake", for training; arguments as ``MaskGIT.forward``.

        Of the condition it reads what its configuration names, text or labels or neither.
        """
        num = ids_BL.shape[0]
        if is_null is None:
            share = self.config.null_probability if self.training else 0.0
            is_null = draw_null(num, share, generator=generator, device=ids_BL.device)
        prepared = self.network.prepare(self._read(condition), num=num, is_null_N=is_null)
        return self._scores(
            self.network(ids_BL, grid=grid, prepared=prepared, valid_mask=valid_mask, generator=generator)
        )

    def prepare(self, condition: Condition | None, *, num: int) -> Prepared:
        """A condition for ``num`` videos, its keys and values computed once."""
        is_null_N = torch.zeros(num, dtype=torch.bool, device=self.device)
        return self.network.prepare(self._read(condition), num=num, is_null_N=is_null_N)

    def scores(self, ids_BL: Tensor, *, grid: Grid, prepared: Prepared, valid_mask: Tensor | None = None) -> Tensor:
        """(B, L) whole ids -> (B, L) float32, higher = more likely fake."""
        return self._scores(self.network(ids_BL, grid=grid, prepared=prepared, valid_mask=valid_mask))

    def _read(self, condition: Condition | None) -> Condition | None:
        """Of what the generator was told, the part that this critic reads."""
        if condition is None or not self.config.is_conditional:
            return None
        labels_B = None if self.config.num_classes is None else condition.labels_B
        if self.config.context_dim is None:
            return None if labels_B is None else label_condition(labels_B)
        return condition._replace(labels_B=labels_B)

    def _scores(self, features_BLD: Tensor) -> Tensor:
        scores_BL: Tensor = self.head(features_BLD).float().squeeze(-1)
        return scores_BL


class SelfCritic:
    """A generator with a critic head as its own ``Scorer``; the head is saved with the generator."""

    def __init__(self, model: MaskGIT) -> None:
        if model.critic_head is None:
            raise InputError("this generator has no self critic; its configuration has self_critic = False")
        self.model = model

    def prepare(self, condition: Condition | None, *, num: int) -> Prepared:
        """As ``MaskGIT.prepare``, without guidance."""
        return self.model.prepare(condition, num=num, guided=False)

    def scores(self, ids_BL: Tensor, *, grid: Grid, prepared: Prepared, valid_mask: Tensor | None = None) -> Tensor:
        """(B, L) whole ids -> (B, L) float32, higher = more likely fake."""
        return self.model.critic_scores(
            self.model.features(ids_BL, grid=grid, prepared=prepared, valid_mask=valid_mask)
        )
