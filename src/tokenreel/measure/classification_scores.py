"""The report of a classifier on one head: all figures of ``classification`` as one value that is plain JSON.

Letters: N examples, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

from .classification import (
    Interval,
    ReliabilityBin,
    bootstrap_interval,
    calibration_error,
    check_probs,
    class_f1,
    confident_mistakes,
    confusion_matrix,
    macro_f1,
    reliability,
    top_k_accuracy,
)
from .classification_auc import class_rankings, mean_auc

__all__ = ["ClassScore", "ClassificationScores", "Mistake", "classification_scores", "head_scores"]

_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One class; precision is None where it was never predicted, recall where it has no example, f1 where both."""

    name: str
    count: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One example that was told wrong.

    Attributes:
        index: its number in the set.
        truth, predicted: names of classes.
        confidence: probability of the predicted class.
        probability: of the true class.
    """

    index: int
    truth: str
    predicted: str
    confidence: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationScores:
    """One head over a set.

    Attributes:
        accuracy, macro_f1: shares in [0, 1].
        top_5_accuracy: None where there are no more than five classes.
        auc: as MedMNIST defines it; None where a class has no example.
        calibration_error: expected, over the bins of ``reliability``.
        confusion: how many of each class (row) were taken for each class (column).
        mistakes: the most confident ones.
        accuracy_interval, auc_interval: 95 % of a bootstrap; of groups where groups were given.
    """

    head: str
    classes: tuple[ClassScore, ...]
    num_examples: int
    accuracy: float
    top_5_accuracy: float | None
    auc: float | None
    macro_f1: float
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[ReliabilityBin, ...]
    mistakes: tuple[Mistake, ...]
    accuracy_interval: Interval | None
    auc_interval: Interval | None

    @property
    def num_mistakes(self) -> int:
        """How many examples were told wrong."""
        return self.num_examples - sum(row[index] for index, row in enumerate(self.confusion))

    def named(self) -> Iterator[tuple[str, float]]:
        """Every figure that exists, by name."""
        for name in ("accuracy", "top_5_accuracy", "auc", "macro_f1", "calibration_error"):
            value = getattr(self, name)
            if value is not None:
                yield name, value

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; what does not exist is null."""
        intervals = {"accuracy": self.accuracy_interval, "auc": self.auc_interval}
        return {
            "head": self.head,
            "examples": self.num_examples,
            "mistakes": self.num_mistakes,
            "accuracy": self.accuracy,
            "top_5_accuracy": self.top_5_accuracy,
            "auc": self.auc,
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            "intervals": {name: found.as_json() for name, found in intervals.items() if found is not None},
            "classes": [_fields(score) for score in self.classes],
            "confusion": [list(row) for row in self.confusion],
            "reliability": [part.as_json() for part in self.reliability],
            "confident_mistakes": [_fields(mistake) for mistake in self.mistakes],
        }


def classification_scores(
    probs_NK: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    head: str = "label",
    groups: Sequence[str | None] | None = None,
    seed: int = 0,
    num_draws: int = 1000,
    num_bins: int = 15,
    num_mistakes: int = 12,
) -> ClassificationScores:
    """All figures of one head.

    Args:
        probs_NK: probabilities (N, K), each row of sum 1.
        labels_N: class numbers (N,).
        groups: of each example, so that intervals are over groups; examples are drawn singly where it is None.
        seed: of the bootstrap.
        num_draws: of the bootstrap; 0 leaves intervals out.

    Raises:
        InputError: shapes that do not agree, rows that are no probabilities, labels outside.
    """
    probs, labels = check_probs(probs_NK, labels_N)
    if len(class_names) != probs.shape[1]:
        raise InputError(f"{head}: {len(class_names)} names for probabilities of {probs.shape[1]} classes")
    names = tuple(map(str, class_names))
    predicted = probs.argmax(axis=1)
    is_right = (predicted == labels).astype(np.float64)
    confusion = confusion_matrix(predicted, labels, len(names))
    bins = reliability(probs, labels, num_bins=num_bins)
    rankings = class_rankings(probs, labels)
    share, area = float(is_right.mean()), mean_auc(rankings)

    def right_share(weights_N: npt.NDArray[np.float64]) -> float:
        return float(weights_N @ is_right / weights_N.sum())

    def interval(statistic: Callable[[npt.NDArray[np.float64]], float], value: float) -> Interval | None:
        if not num_draws or math.isnan(value):
            return None
        return bootstrap_interval(statistic, len(labels), seed=seed, num_draws=num_draws, groups=groups)

    return ClassificationScores(
        head=head,
        classes=_class_scores(confusion, names),
        num_examples=len(labels),
        accuracy=share,
        top_5_accuracy=top_k_accuracy(probs, labels, _TOP) if len(names) > _TOP else None,
        auc=_known(area),
        macro_f1=macro_f1(confusion),
        calibration_error=calibration_error(bins),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        reliability=bins,
        mistakes=_mistakes(probs, labels, names, num_mistakes),
        accuracy_interval=interval(right_share, share),
        auc_interval=interval(lambda weights_N: mean_auc(rankings, weights_N), area),
    )


def head_scores(
    probs: Mapping[str, npt.ArrayLike],
    labels: Mapping[str, npt.ArrayLike],
    heads: Mapping[str, Sequence[str]],
    **options: Any,
) -> dict[str, ClassificationScores]:
    """The scores of several heads, in the order of ``heads``; options as in ``classification_scores``.

    Raises:
        InputError: a head without probabilities or labels.
    """
    for name, given in (("probabilities", probs), ("labels", labels)):
        if missing := [head for head in heads if head not in given]:
            raise InputError(f"there are no {name} of the head {missing[0]}; the heads are {', '.join(heads)}")
    return {
        head: classification_scores(probs[head], labels[head], names, head=head, **options)
        for head, names in heads.items()
    }


def _mistakes(
    probs_NK: npt.NDArray[np.float64], labels_N: npt.NDArray[np.int64], names: Sequence[str], count: int
) -> tuple[Mistake, ...]:
    return tuple(
        Mistake(
            index=index,
            truth=names[labels_N[index]],
            predicted=names[int(probs_NK[index].argmax())],
            confidence=float(probs_NK[index].max()),
            probability=float(probs_NK[index, labels_N[index]]),
        )
        for index in confident_mistakes(probs_NK, labels_N, count=count).tolist()
    )


def _class_scores(confusion_KK: npt.NDArray[np.int64], names: Sequence[str]) -> tuple[ClassScore, ...]:
    hits, told, there = confusion_KK.diagonal(), confusion_KK.sum(axis=0), confusion_KK.sum(axis=1)
    scores = class_f1(confusion_KK)
    return tuple(
        ClassScore(
            name=name,
            count=int(there[at]),
            precision=float(hits[at] / told[at]) if told[at] else None,
            recall=float(hits[at] / there[at]) if there[at] else None,
            f1=_known(float(scores[at])),
        )
        for at, name in enumerate(names)
    )


def _fields(value: ClassScore | Mistake) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
