from __future__ import annotations

import pickle
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from tokenreel.data.collection import Subset
from tokenreel.data.npz import NpzCollection
from tokenreel.errors import InputError
from tokenreel.train.mixing import RENDERED, Mix, Source, rendered_clip


@pytest.fixture
def arrays(tmp_path):
    def make(count: int) -> NpzCollection:
        path = tmp_path / f"{count}.npz"
        np.savez(path, train_images=np.arange(count, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2))
        return NpzCollection(path)

    return make


def row(mix: Mix, count: int) -> list[tuple[int, int]]:
    places = [mix.place(number) for number in range(count)]
    return [(place.source, next(mix.examples(place))) for place in places]


def test_sources_come_by_their_weight_and_examples_once_an_epoch(arrays):
    mix = Mix([Source(data=arrays(7), weight=3), Source(data=arrays(50), weight=1)], seed=5)
    got = row(mix, 4096)
    assert Counter(source for source, _ in got) == {0: 3072, 1: 1024}
    for source, size in ((0, 7), (1, 50)):
        own = [example for which, example in got if which == source]
        for start in range(0, len(own) - size, size):
            assert sorted(own[start : start + size]) == list(range(size))
        assert own[:size] != own[size : 2 * size]
    assert max(len(list(run)) for run in _runs([source for source, _ in got])) < 40  # no source comes in one block


def _runs(values):
    from itertools import groupby

    return [group for _, group in ((key, list(group)) for key, group in groupby(values))]


def test_any_place_is_found_without_those_before(arrays):
    sources = [Source(data=arrays(7), weight=0.5), Source(data=arrays(9)), Source(data=RENDERED, weight=0.01)]
    whole = row(Mix(sources, seed=1), 3000)
    mix = pickle.loads(pickle.dumps(Mix(sources, seed=1)))
    for number in (2999, 0, 1025, 1024, 17):
        place = mix.place(number)
        assert (place.source, next(mix.examples(place))) == whole[number]
    assert row(Mix(sources, seed=2), 3000) != whole
    scenes = [example for source, example in whole if source == 2]
    assert len(set(scenes)) == len(scenes) > 0


def test_stand_ins_are_all_other_examples_in_a_fixed_order(arrays):
    mix = Mix([Source(data=arrays(7))], seed=0)
    stand_ins = list(mix.examples(mix.place(3)))
    assert sorted(stand_ins) == list(range(7))
    assert list(mix.examples(mix.place(3))) == stand_ins
    assert stand_ins[1] == next(mix.examples(mix.place(4)))
    endless = Mix([Source(data=RENDERED)], seed=0)
    assert len(list(islice(endless.examples(endless.place(0)), 5))) == 5


def test_wrong_sources_are_refused(arrays, tmp_path):
    with pytest.raises(InputError, match="give at least one source"):
        Mix([], seed=0)
    with pytest.raises(InputError, match="weight must be above 0, got 0"):
        Source(data=arrays(3), weight=0)
    with pytest.raises(InputError, match="it is empty"):
        (tmp_path / "empty").mkdir()
        Mix([Source(data=tmp_path / "empty")], seed=0)
    with pytest.raises(InputError, match="has no examples to make batches of"):
        Mix([Source(data=Subset(arrays(3), []))], seed=0)
    with pytest.raises(InputError, match="seed must be at least 0"):
        Mix([Source(data=arrays(3))], seed=-1)


def test_rendered_clips_are_drawn_from_their_seed():
    one, again, other = (rendered_clip(seed, 3, 16, 24).frames_THWC for seed in (1, 1, 2))
    assert one.shape == (3, 16, 24, 3)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
