"""The objective of classifiers: cross-entropy of every head, with soft labels, weights of classes and mixup.

Letters: B batch, C classes of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.data.augment import soft_labels
from tokenreel.data.labelled import LabelledSet
from tokenreel.data.labelled_weights import effective_weights, inverse_weights
from tokenreel.errors import InputError

from .classify_batches import LabelledBatch
from .objective import Step

__all__ = ["ClassWeights", "Classify", "ClassifyConfig", "class_weights"]

ClassWeights = Literal["none", "inverse", "effective"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyConfig:
    """How answers are scored in training.

    Attributes:
        label_smoothing: e of arXiv 1512.00567, section 7; 0 gives ones and zeros.
        mixup: alpha of arXiv 1710.09412, equation 1; 0 mixes nothing. For clips: ids cannot be mixed.
        class_weights: ``none``; ``inverse``: every class weighs as much as any other; ``effective``: by the effective
            number of examples (arXiv 1901.05555, equation 2).
        effective_beta: beta of that equation.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    class_weights: ClassWeights = "none"
    effective_beta: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}; 0.1 is usual")
        if not 0 <= self.mixup < float("inf"):
            raise InputError(f"mixup must be at least 0, got {self.mixup}; 0.2 to 0.8 are usual")
        if self.class_weights not in get_args(ClassWeights):
            raise InputError(
                f"class_weights must be one of {', '.join(get_args(ClassWeights))}, got {self.class_weights!r}"
            )
        if not 0 <= self.effective_beta < 1:
            raise InputError(f"effective_beta must lie in [0, 1), got {self.effective_beta}")


def class_weights(labelled: LabelledSet, config: ClassifyConfig) -> dict[str, Tensor]:
    """Head -> float32 (C,) by the examples of a set, of mean 1 over them; nothing with ``none``.

    Raises:
        InputError: a class without an example.
    """
    if config.class_weights == "none":
        return {}
    found = {}
    for head in labelled.heads:
        counts_C = labelled.counts(head)
        if config.class_weights == "inverse":
            weights_C = inverse_weights(counts_C)
        else:
            weights_C = effective_weights(counts_C, beta=config.effective_beta)
        found[head] = torch.from_numpy(weights_C).float()
    return found


class Classify:
    """The mean over heads of their cross-entropies; metrics are the share that was told right, in all and of each head.

    Args:
        config: how answers are scored.
        weights: head -> weight of each class; all 1 where a head is missing.
    """

    critic: nn.Module | None = None

    def __init__(self, config: ClassifyConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        self.config, self.weights = config, dict(weights or {})

    def __call__(self, model: nn.Module, batch: LabelledBatch, *, step: int, generator: torch.Generator) -> Step:
        """The loss of one batch. Of a mixed example the label that it has most of counts as the right one."""
        batch, config = batch.to(generator.device), self.config
        inputs, sizes = batch.inputs, batch.num_classes
        probs = {
            head: soft_labels(numbers_B, sizes[head], smoothing=config.label_smoothing)
            for head, numbers_B in batch.targets.items()
        }
        if config.mixup:
            inputs, probs = inputs.mixed(probs, alpha=config.mixup, generator=generator)
        logits = inputs.logits(model, generator)
        losses, metrics = [], {}
        for head, probs_BC in probs.items():
            scores_BC = logits[head].float()
            weights_C = self.weights.get(head)
            losses.append(
                F.cross_entropy(scores_BC, probs_BC, weight=None if weights_C is None else weights_C.to(scores_BC))
            )
            is_right_B = scores_BC.detach().argmax(-1) == probs_BC.argmax(-1)
            metrics[head] = (losses[-1].detach(), is_right_B.float().mean())
        loss = torch.stack(losses).mean()
        told = {"accuracy": torch.stack([accuracy for _, accuracy in metrics.values()]).mean()}
        if len(metrics) > 1:
            told |= {f"{head}_loss": found for head, (found, _) in metrics.items()}
            told |= {f"{head}_accuracy": accuracy for head, (_, accuracy) in metrics.items()}
        return Step(loss, told, None, len(batch), inputs.num_tokens)

    def critic_step(
        self, critic: nn.Module, seen: Any, *, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """There is no critic."""
        return None
