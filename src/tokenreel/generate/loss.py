"""Losses and metrics of masked tokens and of critics, as pure functions.

Letters: B batch, L tokens, N tokens that count, F factors of an id.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError

__all__ = ["accuracies", "critic_loss", "critic_scores", "guesses_of", "masked_cross_entropy", "picked"]


def picked(values: Tensor, is_masked_BL: Tensor, valid_mask: Tensor | None = None) -> Tensor:
    """(B, L, ...) -> (N, ...): the values of masked positions that are real, row by row.

    What is not needed is left out before the output layer: logits over a large vocabulary are the dearest part.
    """
    chosen_BL = is_masked_BL if valid_mask is None else is_masked_BL & valid_mask
    return values[chosen_BL]


def masked_cross_entropy(logits: Sequence[Tensor], digits_NF: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean over N of ``-log p(id)``, in nats: the sum over factors of each digit's cross-entropy.

    MaskGIT, arXiv 2202.04200, equation 3; with smoothing e the target is ``(1 - e) onehot + e / levels``. 0 if N = 0.

    Args:
        logits: one (N, levels) a factor.
        digits_NF: (N, F) int64.
        label_smoothing: e, in [0, 1).
    """
    if len(logits) != digits_NF.shape[-1]:
        raise InputError(f"got logits of {len(logits)} factors and {digits_NF.shape[-1]} digits an id")
    if not digits_NF.shape[0]:
        return torch.stack([logit.sum() for logit in logits]).sum()
    terms = [
        F.cross_entropy(logit.float(), digits_N, label_smoothing=label_smoothing)
        for logit, digits_N in zip(logits, digits_NF.unbind(-1), strict=True)
    ]
    return torch.stack(terms).sum()


@torch.no_grad()
def guesses_of(logits: Sequence[Tensor]) -> Tensor:
    """One (N, levels) a factor -> (N, F), the likeliest digits."""
    return torch.stack([logit.argmax(-1) for logit in logits], -1)


@torch.no_grad()
def accuracies(guesses_NF: Tensor, digits_NF: Tensor) -> dict[str, Tensor]:
    """Shares of right guesses: ``accuracy`` of whole ids, and ``factor_accuracy`` of digits where there are several."""
    right_NF = guesses_NF == digits_NF
    num, factors = max(right_NF.shape[0], 1), right_NF.shape[1]
    found = {"accuracy": right_NF.all(-1).sum() / num}
    if factors > 1:
        found["factor_accuracy"] = right_NF.sum() / (num * factors)
    return found


def critic_loss(
    scores_BL: Tensor, labels_BL: Tensor, *, valid_mask: Tensor | None = None, positive_weight: float = 1.0
) -> Tensor:
    """Mean binary cross-entropy of the scores as logits of "fake" (Token-Critic, arXiv 2209.04439, equation 4).

    Args:
        scores_BL: (B, L).
        labels_BL: (B, L) bool, True = fake.
        valid_mask: (B, L) bool, True = real position, not padding.
        positive_weight: of the fake positions, which are few once the generator is good.
    """
    scores, labels = (
        (x_BL.flatten() if valid_mask is None else x_BL[valid_mask]) for x_BL in (scores_BL.float(), labels_BL)
    )
    if not scores.numel():
        return scores.sum()
    weight = scores.new_tensor(positive_weight)
    return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype), pos_weight=weight)


@torch.no_grad()
def critic_scores(scores_BL: Tensor, labels_BL: Tensor, *, valid_mask: Tensor | None = None) -> dict[str, Tensor]:
    """``fake_share``, ``recall`` of the fakes and ``specificity`` on the rest; 0 where a class is empty."""
    count_BL = torch.ones_like(labels_BL) if valid_mask is None else valid_mask
    called_BL = scores_BL > 0
    fake_BL, rest_BL = labels_BL & count_BL, ~labels_BL & count_BL
    return {
        "fake_share": fake_BL.sum() / count_BL.sum().clamp(min=1),
        "recall": (called_BL & fake_BL).sum() / fake_BL.sum().clamp(min=1),
        "specificity": (~called_BL & rest_BL).sum() / rest_BL.sum().clamp(min=1),
    }
