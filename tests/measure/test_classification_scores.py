from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from test_classification import told

from tokenreel.errors import InputError
from tokenreel.measure.classification import accuracy, macro_f1, top_k_accuracy
from tokenreel.measure.classification_auc import auc
from tokenreel.measure.classification_plot import confusion_picture
from tokenreel.measure.classification_scores import classification_scores, head_scores

NAMES = tuple("abcdefg")


def test_the_report_holds_each_figure(rng: np.random.Generator) -> None:
    probs, labels = told(rng)
    scores = classification_scores(probs, labels, NAMES, head="letter", num_draws=100)
    assert (scores.head, scores.num_examples) == ("letter", 300)
    assert scores.accuracy == accuracy(probs, labels)
    assert scores.top_5_accuracy == top_k_accuracy(probs, labels, 5)
    assert scores.auc == auc(probs, labels)
    assert scores.macro_f1 == macro_f1(scores.confusion)
    assert scores.num_mistakes == round(300 * (1 - scores.accuracy))
    assert dict(scores.named()).keys() == {"accuracy", "top_5_accuracy", "auc", "macro_f1", "calibration_error"}
    for interval, value in ((scores.accuracy_interval, scores.accuracy), (scores.auc_interval, scores.auc)):
        assert interval is not None
        assert value is not None
        assert interval.low < value < interval.high
    assert [one.count for one in scores.classes] == np.bincount(labels).tolist()
    for one in scores.classes:
        assert one.f1 == pytest.approx(2 / (1 / one.precision + 1 / one.recall))
    with pytest.raises(FrozenInstanceError):
        scores.accuracy = 1.0  # type: ignore[misc]


def test_mistakes_name_their_classes(rng: np.random.Generator) -> None:
    probs, labels = told(rng)
    mistakes = classification_scores(probs, labels, NAMES, num_draws=0, num_mistakes=5).mistakes
    assert len(mistakes) == 5
    assert [one.confidence for one in mistakes] == sorted((one.confidence for one in mistakes), reverse=True)
    for one in mistakes:
        assert (one.truth, one.predicted) == (NAMES[labels[one.index]], NAMES[probs[one.index].argmax()])
        assert one.probability < one.confidence == probs[one.index].max()


def test_json_and_equal_seeds(rng: np.random.Generator) -> None:
    probs, labels = told(rng)
    one, other, third = (classification_scores(probs, labels, NAMES, num_draws=50, seed=seed) for seed in (1, 1, 2))
    text = json.dumps(one.as_json(), allow_nan=False)
    assert text == json.dumps(other.as_json(), allow_nan=False)
    assert one.auc_interval != third.auc_interval
    values = json.loads(text)
    assert sum(map(sum, values["confusion"])) == values["examples"] == 300
    assert set(values["intervals"]) == {"accuracy", "auc"}
    assert len(values["reliability"]) == 15
    assert values["confident_mistakes"][0]["truth"] in NAMES


def test_a_class_that_is_not_there() -> None:
    probs = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1]])
    scores = classification_scores(probs, [0, 0], ["a", "b", "c"], num_draws=20)
    assert (scores.auc, scores.auc_interval, scores.top_5_accuracy) == (None, None, None)
    assert [(one.precision, one.recall, one.f1) for one in scores.classes] == [
        (1.0, 0.5, pytest.approx(2 / 3)),
        (0.0, None, 0.0),
        (None, None, None),
    ]
    json.dumps(scores.as_json(), allow_nan=False)
    assert "auc" not in dict(scores.named())


def test_groups_widen_the_interval(rng: np.random.Generator) -> None:
    probs, labels = told(rng, num=200, classes=2)
    probs = np.repeat(probs[:20], 10, axis=0)
    labels = np.repeat(labels[:20], 10)
    single = classification_scores(probs, labels, ["a", "b"], num_draws=300).accuracy_interval
    grouped = classification_scores(
        probs, labels, ["a", "b"], num_draws=300, groups=[str(index // 10) for index in range(200)]
    ).accuracy_interval
    assert single is not None
    assert grouped is not None
    assert grouped.high - grouped.low > 2 * (single.high - single.low)


def test_heads(rng: np.random.Generator) -> None:
    (a, b), (c, d) = told(rng), told(rng, classes=2)
    heads = {"letter": NAMES, "side": ("left", "right")}
    scores = head_scores({"letter": a, "side": c}, {"letter": b, "side": d}, heads, num_draws=0)
    assert list(scores) == ["letter", "side"]
    assert scores["side"].accuracy == accuracy(c, d)
    assert scores["side"].accuracy_interval is None
    with pytest.raises(InputError, match="no labels of the head side"):
        head_scores({"letter": a, "side": c}, {"letter": b}, heads)
    with pytest.raises(InputError, match="letter: 2 names for probabilities of 7 classes"):
        classification_scores(a, b, ["a", "b"], head="letter")


def test_a_picture_of_the_confusion() -> None:
    confusion = np.array([[90, 10], [0, 50]])
    picture = confusion_picture(confusion, ["normal", "pneumonia"], title="chest")
    assert picture.mode == "RGB"
    pixels = np.asarray(picture).astype(int)
    red_minus_green = pixels[..., 0] - pixels[..., 1]
    right, wrong = (red_minus_green < -60).sum(), (red_minus_green > 15).sum()
    assert right > 2 * 60 * 60  # two cells of the diagonal
    assert 60 * 60 < wrong < 100 * 100  # the one kind of mistake; a cell without any has no colour
    assert confusion_picture(confusion, ["normal", "pneumonia"], title="chest").tobytes() == picture.tobytes()
    assert confusion_picture(confusion, ["normal", "x" * 300]).width < 700
    assert max(confusion_picture(np.eye(60, dtype=int), [str(index) for index in range(60)]).size) < 1300
    with pytest.raises(InputError, match="of 3 classes"):
        confusion_picture(confusion, ["a", "b", "c"])
