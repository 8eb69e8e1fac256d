from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenreel.data.collection import Collection, Joined, Subset
from tokenreel.data.example import Example
from tokenreel.data.payload import ArrayPayload
from tokenreel.data.split import hold_out, leave_one_out, split_by_group, split_random
from tokenreel.errors import InputError


class Listed(Collection):
    """Examples of a list of (group, label)."""

    def __init__(self, rows):
        super().__init__("listed")
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def key(self, index):
        return f"k{index}"

    def _facts(self, index):
        group, label = self.rows[index]
        return {"group": group, "label": label}

    def _example(self, index):
        payload = ArrayPayload(lambda: np.zeros((1, 2, 2, 1), np.uint8), "x")
        return Example(key=self.key(index), source="s", payload=payload, **self._facts(index))


def listed(groups, labels=None):
    return Listed([(group, labels[at] if labels else 0) for at, group in enumerate(groups)])


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), seed=st.integers(0, 99))
def test_no_group_lies_on_two_sides(groups, seed):
    collection = listed(groups)
    fractions = {"train": 0.6, "val": 0.2, "test": 0.2}
    if len(set(groups)) < 3:
        with pytest.raises(InputError, match="would be empty"):
            split_by_group(collection, fractions, seed=seed)
        return
    parts = split_by_group(collection, fractions, seed=seed)
    taken = [index for part in parts.values() for index in part.indices.tolist()]
    assert sorted(taken) == list(range(len(groups)))
    sides = [set(part.groups) for part in parts.values()]
    assert sum(map(len, sides)) == len(set().union(*sides)) == len(set(groups))
    again = split_by_group(collection, fractions, seed=seed)
    assert all(np.array_equal(parts[name].indices, again[name].indices) for name in parts)


def test_group_sizes_come_near_the_fractions_and_seeds_differ():
    collection = listed([f"g{index // 5}" for index in range(500)])
    parts = split_by_group(collection, {"train": 0.8, "val": 0.1}, seed=0)
    assert [len(part) for part in parts.values()] == [400, 50]
    other = split_by_group(collection, {"train": 0.8, "val": 0.1}, seed=1)
    assert not np.array_equal(parts["val"].indices, other["val"].indices)


def test_held_out_and_leave_one_out():
    collection = listed(list("aabbbc"))
    rest, held = hold_out(collection, ["b"])
    assert (rest.groups, held.groups) == (["a", "a", "c"], ["b"] * 3)
    assert held[0].key == "k2"
    folds = list(leave_one_out(collection))
    assert [group for group, _, _ in folds] == ["a", "b", "c"]
    assert all(len(rest) + len(held) == 6 for _, rest, held in folds)
    with pytest.raises(InputError, match=r"no group 'z'; its groups are a, b, c"):
        hold_out(collection, ["z"])
    with pytest.raises(InputError, match="no group to hold out"):
        hold_out(collection, [])
    with pytest.raises(InputError, match="would be empty"):
        hold_out(collection, ["a", "b", "c"])


def test_examples_without_a_group_are_refused():
    with pytest.raises(InputError, match=r"2 of 3 examples of listed have no group, such as k1; open it with group="):
        split_by_group(listed(["a", None, None]), {"train": 0.5, "test": 0.5}, seed=0)


def test_random_split_covers_and_keeps_proportions():
    labels = ["rare" if index % 10 == 0 else "common" for index in range(200)]
    collection = listed(["g"] * 200, labels)
    parts = split_random(collection, {"train": 0.7, "val": 0.3}, seed=3)
    assert sorted(np.concatenate([part.indices for part in parts.values()]).tolist()) == list(range(200))
    assert len(parts["train"]) == 140
    even = split_random(collection, {"train": 0.7, "val": 0.2}, seed=3, by_label=True)
    assert Counter(even["train"].labels) == {"common": 126, "rare": 14}
    assert Counter(even["val"].labels) == {"common": 36, "rare": 4}
    assert even["val"].label_names == ("common", "rare")


@pytest.mark.parametrize("fractions", [{}, {"a": 0.8, "b": 0.3}, {"a": 0.5, "b": 0.0}, {"a": -1.0}])
def test_wrong_fractions(fractions):
    with pytest.raises(InputError, match="fractions must be"):
        split_random(listed(["g"] * 5), fractions, seed=0)


def test_too_few_examples():
    with pytest.raises(InputError, match="'b' of listed would be empty"):
        split_random(listed(["g"]), {"a": 0.9, "b": 0.1}, seed=0)


def test_parts_and_joins_are_collections():
    collection = listed(list("abcd"), ["x", "y", "x", "z"])
    part = Subset(collection, [3, 1])
    assert ([example.key for example in part], part.labels, part.groups) == (["k3", "k1"], ["z", "y"], ["d", "b"])
    assert part.label_names == ("x", "y", "z")
    assert Subset(part, [1])[0].key == "k1"
    joined = Joined([part, collection])
    assert [joined.key(index) for index in range(6)] == ["k3", "k1", "k0", "k1", "k2", "k3"]
    assert joined[-1].key == "k3"
    assert len(Subset(collection, [])) == 0
    with pytest.raises(InputError, match=r"numbers in \[0, 4\)"):
        Subset(collection, [4])
