"""The held-out rule leaves every value and every pair in training; colours stand out from their backgrounds."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.attributes import COMBINATIONS, HEADS, OBJECT_COLOURS, allowed_combinations, is_held_out
from tokenreel.render.backgrounds import BACKGROUNDS, contrast, second_tone, stands_out
from tokenreel.render.colours import COLOURS
from tokenreel.render.motion import MOTIONS

SEEN, HELD_OUT = COMBINATIONS["seen"], COMBINATIONS["held_out"]


def test_about_an_eighth_is_held_out():
    assert len(SEEN) + len(HELD_OUT) == len(COMBINATIONS["all"]) == 7 * 11 * 9
    assert not set(SEEN) & set(HELD_OUT)
    assert 0.10 < len(HELD_OUT) / len(COMBINATIONS["all"]) < 0.15
    assert all(is_held_out(*combination) for combination in HELD_OUT)


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_every_pair_is_seen_in_training(pair):
    first, second = (("shape", "colour", "motion")[i] for i in pair)
    every = set(product(HEADS[first], HEADS[second]))
    for part, least in ((SEEN, 5), (HELD_OUT, 0)):
        seen = [tuple(combination[i] for i in pair) for combination in part]
        assert set(seen) == every or least == 0
        assert min(seen.count(both) for both in every) >= least


def test_every_value_is_held_out_somewhere():
    for i, head in enumerate(("shape", "colour", "motion")):
        assert {combination[i] for combination in HELD_OUT} == set(HEADS[head])


def test_the_rule_does_not_change():
    """Models trained on one version are judged on another: these are exact."""
    assert HELD_OUT[:4] == (
        ("circle", "red", "still"),
        ("circle", "red", "spin"),
        ("circle", "orange", "circle"),
        ("circle", "yellow", "right"),
    )
    assert len(HELD_OUT) == 87


def test_every_motion_can_be_drawn():
    assert set(HEADS["motion"]) <= set(MOTIONS)


@pytest.mark.parametrize("colour", OBJECT_COLOURS)
def test_colours_stand_out(colour):
    fitting = [name for name in BACKGROUNDS if stands_out(colour, name)]
    assert len(fitting) >= 6
    for name in fitting:
        shades = np.array(BACKGROUNDS[name].palette, np.uint8)
        assert contrast(COLOURS[colour], shades) > 55
        tone = second_tone(colour, name)
        assert contrast(tone, np.array([COLOURS[colour]], np.uint8)) > 60, "the pattern is seen on the thing"
        assert contrast(tone, shades) > 25, "the thing has no holes"


def test_every_background_and_every_pair_of_colours_can_be_used():
    for name in BACKGROUNDS:
        assert sum(stands_out(colour, name) for colour in OBJECT_COLOURS) >= 4
    for pair in combinations(OBJECT_COLOURS, 2):
        assert any(all(stands_out(colour, name) for colour in pair) for name in BACKGROUNDS)


def test_contrast_is_the_least_weighted_distance():
    shades = np.array([[0, 0, 0], [10, 20, 30]], np.uint8)
    assert contrast((10, 20, 36), shades) == pytest.approx(np.sqrt(3 * 36 / 9))
    assert contrast((255, 255, 255), np.zeros((1, 3), np.uint8)) == pytest.approx(255)


def test_refusals():
    with pytest.raises(InputError, match=r"shape must be one of circle.*'blob'"):
        is_held_out("blob", "red", "left")
    with pytest.raises(InputError, match=r"seen, held_out, all.*'some'"):
        allowed_combinations("some")
