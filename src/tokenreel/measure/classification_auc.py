"""Areas under the ROC curve by ranks: of two kinds, and of several classes as MedMNIST defines it.

Letters: N examples, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

from .classification import check_probs

__all__ = ["Ranking", "auc", "binary_auc", "class_rankings", "mean_auc"]

Weights = npt.NDArray[np.float64]


class Ranking:
    """Scores in order, so that the AUC under other weights of the examples needs no sorting.

    Args:
        scores_N: finite numbers (N,).
        is_positive_N: bool (N,).

    Raises:
        InputError: shapes that do not agree, or scores that are not finite.
    """

    def __init__(self, scores_N: npt.ArrayLike, is_positive_N: npt.ArrayLike) -> None:
        scores, positive = np.asarray(scores_N, np.float64), np.asarray(is_positive_N, bool)
        if scores.shape != positive.shape or scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
            raise InputError(f"AUC needs finite scores and marks (N,) alike, got {scores.shape} and {positive.shape}")
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._places = np.flatnonzero(positive[self._order])  # of the positives
        own = ordered[self._places]
        self._below = np.searchsorted(ordered, own, "left"), np.searchsorted(own, own, "left")
        self._upto = np.searchsorted(ordered, own, "right"), np.searchsorted(own, own, "right")

    def auc(self, weights_N: Weights | None = None) -> float:
        """Of all pairs of a positive and a negative, those in which the positive scores higher; equals count half.

        The Mann-Whitney statistic (Hanley and McNeil 1982, section 3); NaN where one of the two kinds has no weight.

        Args:
            weights_N: how often each example counts; once by default.
        """
        weights = np.ones(len(self._order)) if weights_N is None else weights_N[self._order]
        positive = weights[self._places]
        all_sums, own_sums = (np.concatenate(([0.0], np.cumsum(values))) for values in (weights, positive))
        pairs = own_sums[-1] * (all_sums[-1] - own_sums[-1])
        # Negatives below a positive are all examples below it less the positives below it; of its equals half count.
        beaten = all_sums[self._below[0]] + all_sums[self._upto[0]] - own_sums[self._below[1]] - own_sums[self._upto[1]]
        return float(positive @ beaten / 2 / pairs) if pairs else math.nan


def binary_auc(scores_N: npt.ArrayLike, is_positive_N: npt.ArrayLike) -> float:
    """How often a positive scores above a negative.

    Raises:
        InputError: there is no positive or no negative.

    >>> binary_auc([0.1, 0.4, 0.4, 0.8], [False, False, True, True])
    0.875
    """
    found = Ranking(scores_N, is_positive_N).auc()
    if math.isnan(found):
        raise InputError("AUC needs positives and negatives; all examples are of one kind")
    return found


def auc(probs_NK: npt.ArrayLike, labels_N: npt.ArrayLike) -> float:
    """AUC as MedMNIST defines it: of two classes by the score of class 1, of more the mean of each against the rest.

    arXiv 2110.14795; all classes weigh the same.

    Raises:
        InputError: a class has no example, so that its AUC does not exist.
    """
    probs, labels = check_probs(probs_NK, labels_N)
    missing = np.flatnonzero(np.bincount(labels, minlength=probs.shape[1]) == 0)
    if missing.size:
        raise InputError(f"AUC needs an example of every class; class {missing[0]} has none")
    return mean_auc(class_rankings(probs, labels))


def class_rankings(probs_NK: npt.NDArray[np.float64], labels_N: npt.NDArray[np.int64]) -> list[Ranking]:
    """One ranking a class against the rest; of two classes only that of class 1."""
    num_classes = probs_NK.shape[1]
    which = range(1, 2) if num_classes == 2 else range(num_classes)
    return [Ranking(probs_NK[:, index], labels_N == index) for index in which]


def mean_auc(rankings: list[Ranking], weights_N: Weights | None = None) -> float:
    """The mean over rankings; NaN where one of them has none."""
    return float(np.mean([ranking.auc(weights_N) for ranking in rankings]))
