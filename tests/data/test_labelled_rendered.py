from __future__ import annotations

import pickle

import numpy as np
import pytest

from tokenreel.data.labelled_rendered import RenderedCollection, rendered_set
from tokenreel.errors import InputError
from tokenreel.render import HEADS, is_held_out, labels


def told(example) -> tuple[str, str, str]:
    return example.meta["shape"], example.meta["colour"], example.meta["motion"]


def test_heads_and_frames() -> None:
    clips = rendered_set(40, num_frames=4, height=24, width=32)
    assert {head: tuple(names) for head, names in clips.heads.items()} == HEADS
    example = clips[7]
    frames = example.frames()
    assert (frames.shape, frames.dtype) == ((4, 24, 32, 3), np.uint8)
    assert {head: HEADS[head][number] for head, number in example.classes.items()} == {
        head: example.meta[head] for head in HEADS
    }
    for head in HEADS:
        assert clips.targets(head)[7] == example.classes[head]
    assert example.group == " ".join(told(example))


def test_a_clip_is_a_function_of_seed_and_number() -> None:
    one, other = rendered_set(6, first=4, num_frames=3), rendered_set(3, first=7, num_frames=3)
    assert [example.key for example in other] == [example.key for example in one][3:]
    for index in range(3):
        np.testing.assert_array_equal(one[index + 3].frames(), other[index].frames())
        assert one[index + 3].classes == other[index].classes
    assert rendered_set(6, seed=1)[0].classes != rendered_set(6, seed=0)[0].classes
    again = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(again[2].frames(), one[2].frames())


def test_scenes_of_another_size_have_other_keys() -> None:
    assert rendered_set(2).key(1) == "scene-1"
    assert rendered_set(2, num_frames=8, height=32, width=48).key(1) == "scene-1-8x32x48"


def test_held_out_combinations_are_never_trained_on() -> None:
    seen, held = rendered_set(400), rendered_set(100, held_out=True)
    assert not any(is_held_out(*group.split()) for group in seen.groups)
    assert all(is_held_out(*group.split()) for group in held.groups)
    assert not set(seen.groups) & set(held.groups)
    assert 0 < sum(is_held_out(*group.split()) for group in rendered_set(100, held_out=None).groups) < 50
    for head in HEADS:  # every class of every head is seen in training
        assert (seen.counts(head) > 0).all()


def test_one_thing_that_is_what_the_label_says() -> None:
    scenes = RenderedCollection(50)
    for index in range(50):
        scene = scenes.scene(index)
        assert (len(scene.objects), scene.is_story) == (1, False)
        assert labels(scene) == {head: scenes[index].meta[head] for head in HEADS}


@pytest.mark.parametrize("wrong", [{"num_examples": 0}, {"first": -1}, {"seed": -1}, {"num_frames": 0}, {"width": 0}])
def test_arguments_are_checked(wrong) -> None:
    with pytest.raises(InputError, match="rendered scenes need"):
        rendered_set(**{"num_examples": 2, **wrong})
