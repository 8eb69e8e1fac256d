"""Motions begin at rest, do what their name says, join without a jump and stay in the picture."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.motion import MOTIONS, STILL, Both, Move, Then, extent, home

T = np.linspace(0, 1, 101)


def values(pose) -> np.ndarray:
    return np.stack([pose.x, pose.y, pose.scale, pose.angle])


@pytest.mark.parametrize("kind", MOTIONS)
@pytest.mark.parametrize("phase", [0.0, 0.3])
def test_begins_at_rest(kind, phase):
    pose = Move(kind=kind, reach=0.7, turns=2, phase=phase)(T)
    np.testing.assert_allclose(values(pose)[:, 0], [0, 0, 1, 0], atol=1e-12)
    assert all(part.shape == T.shape for part in values(pose))
    assert pose.scale.min() > 0


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("still", (0, 0, 1, 0)),
        ("left", (-0.5, 0, 1, 0)),
        ("right", (0.5, 0, 1, 0)),
        ("up", (0, -0.5, 1, 0)),
        ("down", (0, 0.5, 1, 0)),
        ("circle", (0, 0, 1, 0)),
        ("bounce", (0, 0, 1, 0)),
        ("grow", (0, 0, 1.5, 0)),
        ("shrink", (0, 0, 1 / 1.5, 0)),
        ("pulse", (0, 0, 1, 0)),
        ("spin", (0, 0, 1, 2 * math.pi)),
    ],
)
def test_ends_where_its_name_says(kind, end):
    np.testing.assert_allclose(values(Move(kind=kind, reach=0.5)(T))[:, -1], end, atol=1e-9)


def test_circle_keeps_its_radius():
    pose = Move(kind="circle", reach=0.4, phase=0.5)(T)
    np.testing.assert_allclose(np.hypot(pose.x - 0.4, pose.y), 0.4)


def test_bounce_falls_evenly_and_reaches_its_height():
    pose = Move(kind="bounce", reach=0.6, turns=1)(T)
    assert pose.y.min() == pytest.approx(-0.6)
    assert pose.y.max() == 0
    inside = np.diff(pose.y, 2)[:-1]
    np.testing.assert_allclose(inside, inside[0], atol=1e-9)  # gravity


def test_then_continues_where_the_first_ended():
    story = Then(Move(kind="right", reach=0.4), Move(kind="up", reach=0.3), at=0.25)
    pose = story(np.array([0, 0.25, 0.625, 1]))
    np.testing.assert_allclose(pose.x, [0, 0.4, 0.4, 0.4])
    np.testing.assert_allclose(pose.y, [0, 0, -0.15, -0.3])


def test_both_add_up():
    pose = Both(Move(kind="left", reach=0.2), Both(Move(kind="grow", reach=1), Move(kind="spin", turns=-1)))(T)
    np.testing.assert_allclose(values(pose)[:, -1], [-0.2, 0, 2, -2 * math.pi])


@pytest.mark.parametrize("kind", MOTIONS)
@pytest.mark.parametrize("size", [(64, 64), (90, 160)])
def test_home_keeps_it_in_the_picture(kind, size, rng):
    motion, radius = Move(kind=kind, reach=0.5, turns=2, phase=0.1), 0.3
    for _ in range(20):
        x, y = home(rng, motion, radius, height=size[0], width=size[1])
        pose = motion(T)
        half_width, half_height = size[1] / min(size), size[0] / min(size)
        assert (np.abs(x + pose.x) + radius * pose.scale).max() <= half_width + 5e-3
        assert (np.abs(y + pose.y) + radius * pose.scale).max() <= half_height + 5e-3


def test_extent():
    assert extent(STILL, 0.25) == (-0.25, -0.25, 0.25, 0.25)
    assert extent(Move(kind="left", reach=1), 0.25) == (-1.25, -0.25, 0.25, 0.25)


def test_motions_are_values():
    story = Then(Both(Move(kind="left"), Move(kind="spin")), Move(kind="grow"))
    assert story == pickle.loads(pickle.dumps(story))


def test_refusals(rng):
    with pytest.raises(InputError, match=r"circle.*'wobble'"):
        Move(kind="wobble")
    with pytest.raises(InputError, match="reach"):
        Move(kind="left", reach=-1)
    with pytest.raises(InputError, match="between 0 and 1"):
        Then(STILL, STILL, at=1)
    with pytest.raises(InputError, match="smaller size or reach"):
        home(rng, Move(kind="left", reach=2), 0.3, height=64, width=64)
