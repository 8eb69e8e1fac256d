"""Easy scenes: one thing of one colour on a wall of one colour."""

from __future__ import annotations

import numpy as np
import pytest

from tokenreel.data.opening import open_collection
from tokenreel.data.scenes import CaptionedScenes
from tokenreel.errors import InputError
from tokenreel.render import draw_plain_scene, draw_scene, is_held_out, labels
from tokenreel.render.backgrounds import BACKGROUNDS

NUM = 60


def test_plain_scenes_are_one_plain_thing_before_a_plain_wall() -> None:
    scenes = [draw_plain_scene(seed) for seed in range(NUM)]
    facts = [labels(scene) for scene in scenes]
    assert {len(scene.objects) for scene in scenes} == {1}
    assert {len(scene.objects[0].motions) for scene in scenes} == {1}
    assert {fact["texture"] for fact in facts} == {"plain"}
    assert {len(BACKGROUNDS[fact["background"]].palette) for fact in facts} == {1}
    assert not any(is_held_out(fact["shape"], fact["colour"], fact["motion"]) for fact in facts)
    assert len({(fact["shape"], fact["colour"], fact["background"]) for fact in facts}) > NUM // 2
    assert scenes[7] == draw_plain_scene(7) != draw_scene(7)


def test_they_are_asked_for_by_name() -> None:
    plain = open_collection("rendered:5,3,32,48,plain")
    assert isinstance(plain, CaptionedScenes)
    assert (len(plain), plain.key(2), plain.name) == (5, "plain-2", "rendered:5,plain")
    usual = open_collection("rendered:5,3,32,48")
    frames, others = (one[2].payload.load() for one in (plain, usual))
    assert frames.shape == others.shape == (3, 32, 48, 3)
    assert not np.array_equal(frames, others)
    assert plain[2].caption != usual[2].caption
    edge = frames[0][0]  # the wall alone
    assert len(np.unique(edge, axis=0)) == 1
    assert len(open_collection("rendered:3,plain")) == 3
    for wrong in ("rendered:plain", "rendered:5,plain,3"):
        with pytest.raises(InputError, match="rendered scenes are asked for as"):
            open_collection(wrong)
