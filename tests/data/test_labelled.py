from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from test_split import Listed

from tokenreel.data.labelled import HEAD, LabelledSet, labelled_of
from tokenreel.data.labelled_split import check_apart, check_complete, folds, hold_out_groups, split_labelled
from tokenreel.data.labelled_weights import effective_weights, inverse_weights
from tokenreel.errors import InputError

ROWS = [("p1", "run"), ("p1", "walk"), ("p2", "run"), ("p2", "walk"), ("p3", "walk"), ("p3", "run")]


class Picklable(Listed):
    def __reduce__(self):
        return type(self), (self.rows,)


def labelled(rows=ROWS, **options) -> LabelledSet:
    return labelled_of(Picklable(rows), **options)


def test_classes_groups_and_targets() -> None:
    whole = labelled()
    assert (len(whole), whole.heads, whole.label_names) == (6, {"label": ("run", "walk")}, ("run", "walk"))
    assert whole.targets().tolist() == [0, 1, 0, 1, 1, 0]
    assert whole.targets(HEAD).dtype == np.int64
    assert whole.counts().tolist() == [3, 3]
    assert whole.groups == ["p1", "p1", "p2", "p2", "p3", "p3"]
    example = whole[-2]
    assert (example.key, example.target, example.label, example.group) == ("k4", 1, "walk", "p3")
    assert (example.classes, example.split) == ({"label": 1}, None)
    with pytest.raises(IndexError):
        whole[6]


def test_numbers_come_before_names_and_keep_their_order() -> None:
    whole = labelled([("a", 10), ("a", 2), ("a", 10)])
    assert whole.heads == {"label": ("2", "10")}
    assert whole.targets().tolist() == [1, 0, 1]


def test_parts_keep_heads_and_numbers() -> None:
    whole = labelled()
    part = whole.take([4, 1])
    assert (part.heads, part.targets().tolist(), part.groups) == (whole.heads, [1, 1], ["p3", "p1"])
    assert [example.key for example in part] == ["k4", "k1"]
    assert part.take([0])[0].key == "k4"
    for wrong in ([], [6], [-1]):
        with pytest.raises(InputError, match=r"at least one number in \[0, 6\)"):
            whole.take(wrong)


def test_sets_pickle_with_their_classes() -> None:
    again = pickle.loads(pickle.dumps(labelled().take([1, 2])))
    assert [(example.key, example.target) for example in again] == [("k1", 1), ("k2", 0)]


def test_splits_by_their_usual_names() -> None:
    splits = ["train", "train", "val", "val", None, None]
    whole = labelled(splits=splits)
    assert [example.key for example in whole.part("validation")] == ["k2", "k3"]
    assert whole.part("train").part("training").groups == ["p1", "p1"]
    with pytest.raises(InputError, match="no split 'test'; it has train, val"):
        whole.part("test")
    with pytest.raises(InputError, match="'p1' is in the splits train and val"):
        labelled(splits=["train", "val", "val", "val", "val", "val"])


def test_labels_that_cannot_be_learned() -> None:
    with pytest.raises(InputError, match="one class only"):
        labelled([("a", "run"), ("b", "run")])
    with pytest.raises(InputError, match=r"2 of 3 examples of listed have no label, such as k1"):
        labelled([("a", "run"), ("b", None), ("c", "")])
    with pytest.raises(InputError, match=r"k1 has the label 'walk', which is none of the 2 classes run, jump"):
        labelled(classes=["run", "jump"])
    with pytest.raises(InputError, match="no examples"):
        labelled([])
    assert labelled(classes=["jump", "walk", "run"]).targets().tolist() == [2, 1, 2, 1, 1, 2]
    with pytest.raises(InputError, match="have a name twice: walk, run, walk"):
        labelled(classes=["walk", "run", "walk"])
    with pytest.raises(InputError, match="classes are given for colour"):
        labelled(classes={"colour": ["red"]})


def test_targets_are_checked() -> None:
    whole = Listed(ROWS)
    with pytest.raises(InputError, match=r"6 numbers in \[0, 2\), got shape \(6,\) and numbers in \[0, 2\]"):
        LabelledSet(whole, {"label": ("a", "b")}, {"label": [0, 1, 2, 0, 0, 0]})
    with pytest.raises(InputError, match="need targets"):
        LabelledSet(whole, {"label": ("a", "b")}, {"colour": [0] * 6})
    with pytest.raises(InputError, match="1 groups for 6 examples"):
        LabelledSet(whole, {"label": ("a", "b")}, {"label": [0, 1] * 3}, groups=["a"])


def test_several_heads() -> None:
    heads = {"shape": ("circle", "star"), "colour": ("red", "blue", "green")}
    whole = LabelledSet(Listed(ROWS), heads, {"shape": [0, 1] * 3, "colour": [0, 1, 2] * 2})
    assert whole[4].classes == {"shape": 0, "colour": 1}
    assert whole.counts("colour").tolist() == [2, 2, 2]
    assert whole.labels == [None] * 6
    assert whole.label_names == ()
    with pytest.raises(InputError, match=r"choose one with head=, got None"):
        whole.targets()
    with pytest.raises(InputError, match=r"take one of \.classes"):
        _ = whole[0].target


def test_each_group_is_held_out_once() -> None:
    whole = labelled()
    found = list(folds(whole))
    assert [group for group, _, _ in found] == ["p1", "p2", "p3"]
    for group, train, held in found:
        assert set(held.groups) == {group}
        assert group not in train.groups
        assert len(train) + len(held) == len(whole)
        assert train.heads == held.heads == whole.heads
        check_apart(train, held)
    assert sorted(example.key for _, _, held in found for example in held) == [f"k{index}" for index in range(6)]


def test_groups_named_to_be_held_out() -> None:
    train, held = hold_out_groups(labelled(), ["p2", "p3"])
    assert ([example.key for example in train], held.targets().tolist()) == (["k0", "k1"], [0, 1, 1, 0])
    with pytest.raises(InputError, match="no group 'p9'"):
        hold_out_groups(labelled(), ["p9"])


def test_a_class_of_one_group_cannot_be_held_out() -> None:
    with pytest.raises(InputError, match=r"without p2 has no example of the label 'jump'"):
        list(folds(labelled([("p1", "run"), ("p2", "run"), ("p2", "jump")])))
    with pytest.raises(InputError, match="have no group"):
        list(folds(labelled([(None, "run"), ("p1", "walk")])))


def test_one_group_on_both_sides_is_found() -> None:
    whole = labelled()
    with pytest.raises(InputError, match=r"the group 'p2' is in .* \(1 groups are in both\)"):
        check_apart(whole.take([0, 2]), whole.take([3, 4]))
    check_apart(whole.take([0, 1]), whole.take([2, 3]), whole.take([4]))
    check_complete(whole)


def test_shares_by_group_or_by_class() -> None:
    rows = [(f"g{index // 4}", "rare" if index % 10 == 0 else "common") for index in range(80)]
    parts = split_labelled(labelled(rows), {"train": 0.75, "val": 0.25}, seed=4)
    assert [len(part) for part in parts.values()] == [60, 20]
    check_apart(*parts.values())
    again = split_labelled(labelled(rows), {"train": 0.75, "val": 0.25}, seed=4)
    assert all(parts[name].indices.tolist() == again[name].indices.tolist() for name in parts)
    other = split_labelled(labelled(rows), {"train": 0.75, "val": 0.25}, seed=5)
    assert other["val"].indices.tolist() != parts["val"].indices.tolist()
    alone = split_labelled(labelled([(None, label) for _, label in rows]), {"train": 0.5, "val": 0.5}, seed=4)
    assert Counter(alone["val"].labels) == {"common": 36, "rare": 4}


def test_weights_of_classes() -> None:
    counts = np.array([10, 40, 150])
    weights = inverse_weights(counts)
    np.testing.assert_allclose(weights, 200 / (3 * counts))
    np.testing.assert_allclose(weights * counts, np.full(3, 200 / 3))
    beta = 0.9
    effective = np.array([sum(beta**power for power in range(count)) for count in counts])  # 1 + b + ... + b^(n-1)
    expected = 1 / effective
    expected *= 200 / (expected * counts).sum()
    np.testing.assert_allclose(effective_weights(counts, beta=beta), expected, rtol=1e-12)
    np.testing.assert_allclose(effective_weights(counts, beta=0), np.ones(3))
    np.testing.assert_allclose(effective_weights(counts, beta=1 - 1e-9), weights, rtol=1e-6)
    for given in (weights, expected):
        assert (given * counts).sum() / counts.sum() == pytest.approx(1)
    with pytest.raises(InputError, match="every class needs an example"):
        inverse_weights([3, 0])
    with pytest.raises(InputError, match=r"beta must lie in \[0, 1\)"):
        effective_weights([3, 1], beta=1.0)
