from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.measure.classification import (
    accuracy,
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
from tokenreel.measure.classification_auc import Ranking, auc, binary_auc


def told(rng: np.random.Generator, num: int = 300, classes: int = 7, skill: float = 1.5) -> tuple:
    """Probabilities with ties (rounded logits) and labels that they know something about."""
    labels = rng.integers(0, classes, num)
    labels[:classes] = np.arange(classes)
    logits = np.round(rng.normal(size=(num, classes)) + skill * np.eye(classes)[labels], 1)
    probs = np.exp(logits)
    return probs / probs.sum(axis=1, keepdims=True), labels


def pairs(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Every pair of a positive and a negative, one by one."""
    won = [(a > b) + (a == b) / 2 for a in scores[is_positive] for b in scores[~is_positive]]
    return sum(won) / len(won)


def test_auc_counts_pairs(rng: np.random.Generator) -> None:
    for _ in range(20):
        scores = rng.integers(0, 6, 40) / 5
        is_positive = rng.random(40) < 0.3
        is_positive[:2] = True, False
        assert binary_auc(scores, is_positive) == pytest.approx(pairs(scores, is_positive), abs=1e-12)
    assert binary_auc([0.1, 0.2, 0.3], [False, True, True]) == 1
    assert binary_auc([0.1, 0.2, 0.3], [True, False, False]) == 0
    assert binary_auc([0.5] * 4, [True, False, True, False]) == 0.5


def test_auc_as_medmnist_defines_it(rng: np.random.Generator) -> None:
    probs, labels = told(rng)
    expected = np.mean([pairs(probs[:, index], labels == index) for index in range(7)])
    assert auc(probs, labels) == pytest.approx(expected, abs=1e-12)
    two, truth = told(rng, classes=2)
    assert auc(two, truth) == pytest.approx(pairs(two[:, 1], truth == 1), abs=1e-12)


@pytest.mark.slow  # the import takes seconds
def test_against_scikit_learn(rng: np.random.Generator) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for classes in (2, 7):
        probs, labels = told(rng, classes=classes)
        predicted = probs.argmax(axis=1)
        areas = [metrics.roc_auc_score(labels == index, probs[:, index]) for index in range(classes)]
        assert auc(probs, labels) == pytest.approx(areas[1] if classes == 2 else np.mean(areas), abs=1e-12)
        confusion = confusion_matrix(predicted, labels, classes)
        np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predicted))
        assert macro_f1(confusion) == pytest.approx(metrics.f1_score(labels, predicted, average="macro"), abs=1e-12)
        assert accuracy(probs, labels) == pytest.approx(metrics.accuracy_score(labels, predicted), abs=1e-12)


def test_weights_stand_for_repeated_examples(rng: np.random.Generator) -> None:
    scores, is_positive = rng.integers(0, 9, 60) / 8, rng.random(60) < 0.4
    counts = rng.integers(0, 4, 60)
    repeated = np.repeat(np.arange(60), counts)
    expected = pairs(scores[repeated], is_positive[repeated])
    assert Ranking(scores, is_positive).auc(counts.astype(float)) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(Ranking(scores, is_positive).auc(is_positive.astype(float)))


def test_areas_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="of one kind"):
        binary_auc([0.1, 0.2], [True, True])
    with pytest.raises(InputError, match="class 2 has none"):
        auc(np.full((2, 3), 1 / 3), [0, 1])
    with pytest.raises(InputError, match="finite scores"):
        binary_auc([0.1, math.nan], [True, False])


def test_top_k_is_a_sorted_list(rng: np.random.Generator) -> None:
    probs, labels = told(rng)
    for k in (1, 3, 5, 7):
        order = np.argsort(-probs, axis=1, kind="stable")[:, :k]
        assert top_k_accuracy(probs, labels, k) == (order == labels[:, None]).any(axis=1).mean()
    assert top_k_accuracy(probs, labels, 1) == accuracy(probs, labels)
    assert top_k_accuracy(probs, labels, 7) == 1
    with pytest.raises(InputError, match="k must be"):
        top_k_accuracy(probs, labels, 0)


def test_confusion_has_a_place_for_each(rng: np.random.Generator) -> None:
    predicted, labels = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    confusion = confusion_matrix(predicted, labels, 4)
    for row, column in itertools.product(range(4), repeat=2):
        assert confusion[row, column] == ((labels == row) & (predicted == column)).sum()
    assert confusion.dtype == np.int64
    with pytest.raises(InputError, match=r"classes must lie in \[0, 3\)"):
        confusion_matrix(predicted, labels, 3)
    with pytest.raises(InputError, match="alike"):
        confusion_matrix(predicted[:3], labels, 4)


def test_f1_by_hand() -> None:
    confusion = [[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    scores = class_f1(confusion)
    np.testing.assert_allclose(scores[[0, 1, 3]], [6 / 10, 8 / 11, 0.0])
    assert np.isnan(scores[2])  # neither there nor predicted
    assert macro_f1(confusion) == pytest.approx((6 / 10 + 8 / 11) / 3)


def test_reliability_by_hand() -> None:
    top = np.array([0.55, 0.6, 0.95, 1.0, 0.5])
    probs = np.stack([top, 1 - top], axis=1)
    bins = reliability(probs, [0, 1, 0, 0, 0], num_bins=10)
    assert [part.count for part in bins] == [0, 0, 0, 0, 1, 2, 0, 0, 0, 2]  # (low, high]: 0.5 and 0.6 belong below
    assert (bins[5].confidence, bins[5].accuracy) == (pytest.approx(0.575), 0.5)
    assert (bins[0].confidence, bins[0].accuracy) == (None, None)
    assert calibration_error(bins) == pytest.approx((0.5 * 1 + 2 * 0.075 + 2 * 0.025) / 5)
    assert (bins[3].low, bins[3].high) == (0.3, 0.4)


def test_calibrated_and_overconfident(rng: np.random.Generator) -> None:
    top = rng.uniform(0.5, 1, 20_000)
    probs = np.stack([top, 1 - top], axis=1)
    labels = (rng.random(20_000) > top).astype(int)
    assert calibration_error(reliability(probs, labels)) < 0.02
    sure = np.tile([1.0, 0.0], (20_000, 1))
    assert calibration_error(reliability(sure, labels)) == pytest.approx((labels == 1).mean())


def test_mistakes_by_confidence() -> None:
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9], [0.9, 0.1]])
    assert confident_mistakes(probs, [1, 1, 1, 0, 1]).tolist() == [0, 3, 4, 2]
    assert confident_mistakes(probs, [1, 1, 1, 0, 1], count=2).tolist() == [0, 3]
    assert confident_mistakes(probs, [0, 1, 0, 1, 0]).tolist() == []


def test_bootstrap_of_a_mean_is_the_textbooks(rng: np.random.Generator) -> None:
    is_right = (rng.random(400) < 0.8).astype(float)

    def share(weights: np.ndarray) -> float:
        return float(weights @ is_right / weights.sum())

    found = bootstrap_interval(share, 400, seed=0, num_draws=2000)
    assert found is not None
    deviation = math.sqrt(is_right.mean() * (1 - is_right.mean()) / 400)
    assert found.low == pytest.approx(is_right.mean() - 1.96 * deviation, abs=0.006)
    assert found.high == pytest.approx(is_right.mean() + 1.96 * deviation, abs=0.006)
    assert found == bootstrap_interval(share, 400, seed=0, num_draws=2000)
    assert found != bootstrap_interval(share, 400, seed=1, num_draws=2000)
    narrow = bootstrap_interval(share, 400, seed=0, num_draws=500, level=0.5)
    assert narrow is not None
    assert found.low < narrow.low < narrow.high < found.high


def test_whole_groups_are_drawn() -> None:
    is_right = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0], 50)  # all examples of a group alike
    groups = [f"g{index // 50}" for index in range(400)]
    seen = set()

    def share(weights: np.ndarray) -> float:
        assert len(np.unique(weights.reshape(8, 50), axis=1).T) == 1
        seen.add(int(weights.sum()))
        return float(weights @ is_right / weights.sum())

    by_group = bootstrap_interval(share, 400, seed=0, num_draws=400, groups=groups)
    assert by_group is not None
    assert seen == {400}
    assert by_group.high - by_group.low > 0.4  # about eight draws, not four hundred
    with pytest.raises(InputError, match="every example must have one"):
        bootstrap_interval(share, 400, seed=0, groups=[None] * 400)


def test_a_figure_that_seldom_exists_has_no_interval() -> None:
    assert bootstrap_interval(lambda weights: math.nan, 10, seed=0, num_draws=10) is None
    with pytest.raises(InputError, match="a bootstrap needs"):
        bootstrap_interval(lambda weights: 0.0, 0, seed=0)


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], r"got \(1, 2\) and \(2,\)"),
        ([[1.0]], [0], "K of at least 2"),
        ([[0.5, 0.5]], [2], r"whole numbers in \[0, 2\)"),
        ([[0.5, 0.5]], [0.0], "whole numbers"),
        ([[2.0, -1.0]], [0], "apply softmax"),
        ([[0.5, 0.4]], [0], "apply softmax"),
        ([[math.nan, 0.5]], [0], "apply softmax"),
    ],
)
def test_what_is_no_prediction_is_refused(probs, labels, message) -> None:
    with pytest.raises(InputError, match=message):
        check_probs(probs, labels)
