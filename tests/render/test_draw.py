"""Scenes at random: every value comes, nothing begins on another thing, all stay inside, held-out ones stay apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.attributes import HEADS, SIZES, is_held_out
from tokenreel.render.backgrounds import stands_out
from tokenreel.render.draw import draw_scene
from tokenreel.render.world import object_poses

SCENES = [draw_scene(seed) for seed in range(600)]


def test_equal_seeds_give_equal_scenes():
    assert [draw_scene(seed) for seed in range(20)] == SCENES[:20]
    assert draw_scene(np.random.default_rng(7)) == SCENES[7]
    assert len(set(SCENES)) == len(SCENES)


def test_every_value_comes():
    things = [thing for scene in SCENES for thing in scene.objects]
    for head in ("shape", "colour", "texture"):
        assert {getattr(thing, head) for thing in things} == set(HEADS[head])
    assert {thing.size for thing in things} == set(SIZES)
    assert {name for thing in things for name in thing.motions} == set(HEADS["motion"])
    assert {scene.background for scene in SCENES} == set(HEADS["background"])
    counts = Counter((len(scene.objects), scene.is_story) for scene in SCENES)
    assert set(counts) == {(1, False), (2, False), (3, False), (1, True), (2, True)}
    assert min(counts.values()) > 25


def test_training_never_shows_what_is_held_out():
    assert not any(scene.is_held_out for scene in SCENES)


def test_every_thing_of_a_held_out_scene_is_held_out():
    for seed in range(150):
        scene = draw_scene(seed, combinations="held_out")
        for thing in scene.objects:
            assert any(is_held_out(*combination) for combination in thing.combinations())


def test_all_shows_both():
    assert 5 < sum(draw_scene(seed, combinations="all").is_held_out for seed in range(150)) < 80


def test_things_differ_in_colour_and_stand_out():
    for scene in SCENES:
        colours = [thing.colour for thing in scene.objects]
        assert len(set(colours)) == len(colours)
        assert all(stands_out(colour, scene.background) for colour in colours)


def test_things_stay_inside_and_begin_apart():
    for scene in SCENES:
        poses = object_poses(scene, 32)
        for index, (thing, pose) in enumerate(zip(scene.objects, poses)):
            radius = thing.radius * pose.scale
            assert (np.abs(thing.x + pose.x) + radius).max() < 1.03
            assert (np.abs(thing.y + pose.y) + radius).max() < 1.03
            for other in scene.objects[:index]:
                assert np.hypot(thing.x - other.x, thing.y - other.y) > thing.radius + other.radius


def test_what_spins_and_is_round_has_a_pattern():
    spinning = [t for scene in SCENES for t in scene.objects if "spin" in t.motions and t.shape in ("circle", "ring")]
    assert spinning
    assert all(thing.texture != "plain" for thing in spinning)


def test_stories():
    for seed in range(80):
        scene = draw_scene(seed, is_story=True)
        motions = [thing.motions for thing in scene.objects]
        assert all(len(set(names)) == 2 for names in motions)
        if len(motions) == 1:
            assert "still" not in motions[0]
        else:
            assert sorted(names.index("still") for names in motions) == [0, 1], "one moves, then the other"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_number_of_things_can_be_said(count):
    assert all(len(draw_scene(seed, num_objects=count).objects) == count for seed in range(30))


def test_refusals():
    with pytest.raises(InputError, match=r"num_objects must lie in 1\.\.3, got 4"):
        draw_scene(0, num_objects=4, is_story=False)
    with pytest.raises(InputError, match=r"1\.\.2 in a story, got 3"):
        draw_scene(0, num_objects=3, is_story=True)
    with pytest.raises(InputError, match="seen, held_out, all"):
        draw_scene(0, combinations="none")
