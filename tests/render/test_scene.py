"""Scenes: deterministic, drawn where they say, streamed as rendered, and fast."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.colours import PALETTES
from tokenreel.render.motion import MOTIONS, Both, Move, home
from tokenreel.render.scene import Actor, Scene, frames, render, seen
from tokenreel.render.shapes import SHAPES, composite, coverage
from tokenreel.render.text import Label, text_mask, write
from tokenreel.render.textures import Solid, Texture
from tokenreel.types import Clip

BLACK = Solid((0, 0, 0))
PAN = Both(Move(kind="circle", reach=0.1), Move(kind="grow", reach=0.3))


def one_object(seed: int, *, size: int = 64, **actor) -> Scene:
    rng = np.random.default_rng(seed)
    motion = Move(kind=list(MOTIONS)[seed % len(MOTIONS)], reach=0.5)
    x, y = home(rng, motion, 0.3, height=size, width=size)
    shape = list(SHAPES)[seed % len(SHAPES)]
    hero = Actor(shape=shape, size=0.3, x=x, y=y, motion=motion, colour=(214, 40, 57), **actor)
    return Scene(height=size, width=size, background=Texture(kind="gradient", seed=seed), actors=(hero,))


def crowd(**scene) -> Scene:
    actors = (
        Actor(shape="star", size=0.4, x=-0.4, shade=0.5, shadow=0.5, motion=Move(kind="spin")),
        Actor(shape="circle", size=0.5, texture=Texture(kind="stripes"), motion=Move(kind="left", reach=2.5)),
    )
    labels = (Label(text="{frame:02d}", x=-0.8, y=0.8, size=0.25),)
    settings = {"height": 48, "width": 80, "num_frames": 9, "background": Texture(kind="bricks"), "camera": PAN}
    return Scene(**(settings | scene), actors=actors, labels=labels)


def centre_of(frame: np.ndarray) -> tuple[float, float]:
    weight = frame.astype(float).sum(axis=-1)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]] + 0.5
    return float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())


def test_clip_is_valid_and_equal_scenes_give_equal_bytes():
    clip = render(crowd())
    assert isinstance(clip, Clip)
    assert clip.size == (9, 48, 80)
    assert clip.fps == 8
    np.testing.assert_allclose(clip.pts_seconds, np.arange(9) / 8)
    assert clip.frames_THWC.tobytes() == render(crowd()).frames_THWC.tobytes()
    assert clip.frames_THWC.tobytes() != render(crowd(background=Texture(kind="bricks", seed=1))).frames_THWC.tobytes()


def test_streaming_gives_the_same_frames(monkeypatch):
    whole = render(crowd()).frames_THWC
    np.testing.assert_array_equal(np.stack(list(frames(crowd()))), whole)
    monkeypatch.setattr("tokenreel.render.scene._CHUNK_PIXELS", 2 * 48 * 80)
    np.testing.assert_array_equal(np.stack(list(frames(crowd()))), whole, err_msg="whatever is drawn together")


@pytest.mark.parametrize("shape", SHAPES)
def test_an_actor_is_its_coverage(shape):
    actor = Actor(shape=shape, size=0.5, x=0.2, y=-0.3, angle=0.4, colour=(255, 128, 0))
    frame = render(Scene(height=60, width=100, num_frames=1, background=BLACK, actors=(actor,))).frames_THWC[0]
    alpha = coverage(shape, height=60, width=100, x=56, y=21, radius=15, angle=0.4)
    expected = composite(np.zeros((60, 100, 3), np.uint8), alpha, (255, 128, 0))
    assert np.abs(frame.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["left", "down", "circle", "bounce"])
def test_an_actor_goes_where_its_motion_says(kind):
    motion = Move(kind=kind, reach=0.3)
    scene = Scene(
        height=64, width=64, num_frames=8, background=BLACK, actors=(Actor(shape="circle", size=0.3, motion=motion),)
    )
    pose = motion(scene.times())
    for i, frame in enumerate(frames(scene)):
        assert centre_of(frame) == pytest.approx((32 + 32 * pose.x[i], 32 + 32 * pose.y[i]), abs=0.1)


def test_the_camera_moves_actors_and_background_together():
    """A disc painted on the background and an actor of the same kind stay in step."""

    class Painted:
        def draw(self, height: int, width: int) -> np.ndarray:
            unit = height / 2 / half_height
            alpha = coverage("circle", height=height, width=width, x=width / 2, y=height / 2, radius=0.4 * unit)
            return composite(np.zeros((height, width, 3), np.uint8), alpha, (255, 255, 255))

    empty = Scene(height=96, width=128, num_frames=5, background=BLACK, camera=PAN)
    half_height = seen(empty)[1]
    actor = Actor(shape="circle", size=0.4, colour=(255, 255, 255))
    painted, acted = render(replace(empty, background=Painted())), render(replace(empty, actors=(actor,)))
    for one, other in zip(painted.frames_THWC, acted.frames_THWC):
        assert centre_of(one) == pytest.approx(centre_of(other), abs=0.2)
        assert one.sum() == pytest.approx(float(other.sum()), rel=0.02)


def test_later_actors_hide_earlier_ones():
    under, over = (Actor(shape="square", size=0.5, colour=colour) for colour in ((255, 0, 0), (0, 0, 255)))
    scene = Scene(height=32, width=32, num_frames=1, actors=(under, over))
    assert render(scene).frames_THWC[0, 16, 16].tolist() == [0, 0, 255]


def test_shadow_darkens_to_the_lower_right():
    actor = Actor(shape="circle", size=0.4, colour=(128, 128, 128), shadow=1.0)
    frame = (
        render(Scene(height=64, width=64, num_frames=1, background=Solid((128, 128, 128)), actors=(actor,)))
        .frames_THWC[0]
        .astype(int)
    )
    assert frame[:32, :32].min() > 110 > frame[32:, 32:].min()


@pytest.mark.parametrize("where", [{"x": 5.0}, {"x": -0.95, "y": 0.95}, {"size": 4.0}, {"size": 0.01}])
def test_outside_at_the_border_huge_and_tiny(where):
    actor = Actor(**({"shape": "heart", "size": 0.3, "shade": 1.0, "shadow": 1.0} | where))
    bare = Scene(height=40, width=24, num_frames=3, background=BLACK)
    drawn = render(replace(bare, actors=(actor,)))
    assert drawn.size == (3, 40, 24)
    if where.get("x") == 5.0:
        assert not drawn.frames_THWC.any()


def test_texture_turns_with_its_actor():
    paint = Texture(kind="stripes", palette=PALETTES["gray"], seed=2)
    actor = Actor(shape="circle", size=0.9, texture=paint)
    scene = Scene(height=64, width=64, num_frames=1, background=BLACK, actors=(actor,))
    upright = render(scene).frames_THWC[0].astype(int)
    turned = render(replace(scene, actors=(replace(actor, angle=math.pi / 2),))).frames_THWC[0].astype(int)
    assert np.abs(np.rot90(upright, -1) - turned).mean() < 1
    assert np.abs(upright - turned).mean() > 5


def test_label_says_the_frame_and_is_cut_at_the_border():
    blank = np.zeros((40, 80, 3), np.uint8)
    label = Label(text="frame {frame}", x=0, y=0, size=0.5, anchor="middle")
    one, two = blank.copy(), blank.copy()
    write(one, label, 1)
    write(two, label, 2)
    assert one.any()
    assert (one != two).any()
    write(blank, replace(label, x=50.0), 1)
    assert not blank.any()
    write(blank, replace(label, x=-2.0), 1)
    assert blank[:, :40].any()


def test_text_mask_is_no_larger_than_the_text():
    mask, left, top = text_mask("tokenreel", size_pixels=20)
    assert mask.max() == 1
    assert mask.min() == 0
    assert abs(left) <= 3
    assert -20 < top < 0
    assert 60 < mask.shape[1] < 120


def test_one_object_clips_are_fast():
    scenes = [one_object(seed) for seed in range(40)]

    def seconds() -> float:
        start = time.perf_counter()
        for scene in scenes:
            render(scene)
        return time.perf_counter() - start

    assert 40 / min(seconds() for _ in range(3)) > 60, "clips a second at 64x64x16; 500 to 700 alone on its core"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Actor(shape="blob", size=1), "blob"),
        (lambda: Actor(shape="star", size=0), "size"),
        (lambda: Actor(shape="star", size=1, squash=2), "squash"),
        (lambda: Scene(height=0, width=4), "height"),
        (lambda: Scene(height=4, width=4, fps=0), "fps"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(InputError, match=match):
        make()
