"""How well classes are told: accuracy, F1, confusion, calibration, with intervals from a bootstrap.

Plain numpy on probabilities. ``classification_auc`` has the areas under the curve, ``classification_scores`` puts a
whole report together.

Letters: N examples, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = [
    "Interval",
    "ReliabilityBin",
    "accuracy",
    "bootstrap_interval",
    "calibration_error",
    "check_probs",
    "class_f1",
    "confident_mistakes",
    "confusion_matrix",
    "macro_f1",
    "reliability",
    "top_k_accuracy",
    "wilson",
]

Probs = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]

_SUM_TOLERANCE = 1e-3  # of a row of probabilities; a softmax in half precision is this good


_NORMAL = 1.96  # deviations of a normal distribution that hold 95 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Where a figure lies in ``level`` of the draws of a bootstrap."""

    low: float
    high: float
    level: float = 0.95

    def as_json(self) -> dict[str, float]:
        """Plain JSON values."""
        return {"low": self.low, "high": self.high, "level": self.level}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The examples whose confidence lies in (low, high]; means are None where there is none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: getattr(self, name) for name in ("low", "high", "count", "confidence", "accuracy")}


def check_probs(probs_NK: npt.ArrayLike, labels_N: npt.ArrayLike) -> tuple[Probs, Labels]:
    """Both as float64 (N, K) and int64 (N,).

    Raises:
        InputError: shapes that do not agree, fewer than two classes, rows that are no probabilities, labels outside.
    """
    probs, labels = np.asarray(probs_NK, np.float64), np.asarray(labels_N)
    if probs.ndim != 2 or labels.shape != probs.shape[:1] or not labels.size or probs.shape[1] < 2:
        raise InputError(
            f"probabilities must be (N, K) with K of at least 2 and labels (N,), got {probs.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() >= probs.shape[1]:
        raise InputError(
            f"labels must be whole numbers in [0, {probs.shape[1]}), got {labels.dtype} in "
            f"[{labels.min()}, {labels.max()}]"
        )
    if not np.isfinite(probs).all() or probs.min() < 0 or np.abs(probs.sum(axis=1) - 1).max() > _SUM_TOLERANCE:
        raise InputError("each row of probabilities must be at least 0 and have the sum 1; apply softmax to logits")
    return probs, labels.astype(np.int64)


def accuracy(probs_NK: npt.ArrayLike, labels_N: npt.ArrayLike) -> float:
    """The share of examples whose likeliest class is the right one; of equals the first counts as likeliest."""
    probs, labels = check_probs(probs_NK, labels_N)
    return float((probs.argmax(axis=1) == labels).mean())


def top_k_accuracy(probs_NK: npt.ArrayLike, labels_N: npt.ArrayLike, k: int = 5) -> float:
    """The share of examples whose class is among the k likeliest; of equals the first come first."""
    probs, labels = check_probs(probs_NK, labels_N)
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    true_N1 = np.take_along_axis(probs, labels[:, None], axis=1)
    is_before = np.arange(probs.shape[1]) < labels[:, None]
    rank_N = ((probs > true_N1) | ((probs == true_N1) & is_before)).sum(axis=1)
    return float((rank_N < k).mean())


def confusion_matrix(predicted_N: npt.ArrayLike, labels_N: npt.ArrayLike, num_classes: int) -> Counts:
    """int64 (K, K): how many examples of each class (row) were taken for each class (column)."""
    predicted, labels = np.asarray(predicted_N, np.int64), np.asarray(labels_N, np.int64)
    if predicted.shape != labels.shape or predicted.ndim != 1:
        raise InputError(f"predicted and true classes must be (N,) alike, got {predicted.shape} and {labels.shape}")
    for values in (predicted, labels):
        if values.size and not (values.min() >= 0 and values.max() < num_classes):
            raise InputError(f"classes must lie in [0, {num_classes}), got {values.min()} to {values.max()}")
    flat = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def class_f1(confusion_KK: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """2 TP / (2 TP + FP + FN) of each class, float64 (K,); NaN for a class that is neither there nor predicted."""
    confusion = np.asarray(confusion_KK, np.float64)
    hits, both = confusion.diagonal(), confusion.sum(axis=0) + confusion.sum(axis=1)
    scores: npt.NDArray[np.float64] = np.divide(2 * hits, both, out=np.full(len(hits), math.nan), where=both > 0)
    return scores


def macro_f1(confusion_KK: npt.ArrayLike) -> float:
    """The mean of ``class_f1`` over the classes that are there or predicted.

    >>> macro_f1([[2, 0, 0], [1, 1, 0], [0, 0, 0]])  # (0.8 + 0.6667) / 2
    0.7333333333333334
    """
    scores = class_f1(confusion_KK)
    return float(scores[~np.isnan(scores)].mean())


def reliability(probs_NK: npt.ArrayLike, labels_N: npt.ArrayLike, *, num_bins: int = 15) -> tuple[ReliabilityBin, ...]:
    """Confidence beside accuracy in bins of equal width over (0, 1] (Guo et al. 2017, arXiv 1706.04599, section 2)."""
    probs, labels = check_probs(probs_NK, labels_N)
    if num_bins < 1:
        raise InputError(f"num_bins must be at least 1, got {num_bins}")
    confidence, is_right = probs.max(axis=1), probs.argmax(axis=1) == labels
    edges = np.arange(num_bins + 1) / num_bins
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    bins = []
    for index in range(num_bins):
        inside = place == index
        bins.append(
            ReliabilityBin(
                low=float(edges[index]),
                high=float(edges[index + 1]),
                count=int(inside.sum()),
                confidence=float(confidence[inside].mean()) if inside.any() else None,
                accuracy=float(is_right[inside].mean()) if inside.any() else None,
            )
        )
    return tuple(bins)


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: |accuracy - confidence| of the bins, weighed by their counts (ibid., equation 3)."""
    total = sum(part.count for part in bins)
    gaps = [part.count * abs((part.accuracy or 0.0) - (part.confidence or 0.0)) for part in bins if part.count]
    return math.fsum(gaps) / total


def confident_mistakes(probs_NK: npt.ArrayLike, labels_N: npt.ArrayLike, *, count: int = 12) -> Labels:
    """Numbers of the examples that were told wrong, the most confident first, int64 (at most ``count``,)."""
    probs, labels = check_probs(probs_NK, labels_N)
    wrong = np.flatnonzero(probs.argmax(axis=1) != labels)
    return wrong[np.argsort(-probs[wrong].max(axis=1), kind="stable")][:count].astype(np.int64)


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.float64]], float],
    num_examples: int,
    *,
    seed: int,
    num_draws: int = 1000,
    level: float = 0.95,
    groups: Sequence[str | None] | None = None,
) -> Interval | None:
    """The percentile interval of a figure over draws with replacement (Efron 1979).

    Args:
        statistic: weights (N,), how often each example was drawn, -> the figure; NaN where it does not exist.
        groups: of each example. Whole groups are drawn then, since examples of one performer or patient are alike.

    Returns:
        None where the figure existed in fewer than half of the draws.

    Raises:
        InputError: no example, a level outside (0, 1), or only some groups are known.
    """
    if num_examples < 1 or num_draws < 1 or not 0 < level < 1:
        raise InputError(
            "a bootstrap needs at least one example, one draw and a level in (0, 1), got "
            f"{num_examples}, {num_draws}, {level}"
        )
    unit_N = np.arange(num_examples)
    if groups is not None:
        if len(groups) != num_examples or None in groups:
            raise InputError("to draw whole groups every example must have one; leave groups= out otherwise")
        unit_N = np.unique(np.array(groups, dtype=str), return_inverse=True)[1].reshape(-1)
    rng, num_units = np.random.default_rng(seed), int(unit_N.max()) + 1
    found = []
    for _ in range(num_draws):
        drawn = np.bincount(rng.integers(num_units, size=num_units), minlength=num_units)
        value = statistic(drawn[unit_N].astype(np.float64))
        if not math.isnan(value):
            found.append(value)
    if len(found) * 2 < num_draws:
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level)


def wilson(right: int, total: int) -> tuple[float, float]:
    """Where the share lies with 95 %: Wilson's score interval (JASA 22, 1927), which holds at 0 and 1, too.

    >>> [round(side, 3) for side in wilson(35, 36)]
    [0.858, 0.995]
    """
    share, extra = right / total, _NORMAL**2 / total
    middle = (share + extra / 2) / (1 + extra)
    half = _NORMAL * math.sqrt(share * (1 - share) / total + extra / (4 * total)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)
