"""Clips of the captioned world: seeded, drawn where the tracks say, coloured and moved as the labels say."""

from __future__ import annotations

import hashlib
import math
import pickle
import time

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.attributes import HEADS, OBJECT_COLOURS
from tokenreel.render.backgrounds import BACKGROUNDS, paint, second_tone
from tokenreel.render.colours import COLOURS
from tokenreel.render.draw import draw_scene
from tokenreel.render.motion import Move
from tokenreel.render.shapes import AREAS, SHAPES, composite, coverage
from tokenreel.render.world import WorldObject, WorldScene, labels, render_clip, tracks
from tokenreel.types import Clip

STILL = (Move(kind="still"),)


def thing(**more) -> WorldObject:
    return WorldObject(
        **({"shape": "circle", "colour": "red", "size": "medium", "texture": "plain", "moves": STILL} | more)
    )


def scene(*things, background="white", seed=0) -> WorldScene:
    return WorldScene(objects=things or (thing(),), background=background, seed=seed)


def mask_of(clip: Clip, shown: WorldScene) -> np.ndarray:
    """Where a frame differs from the bare background: (T, H, W)."""
    bare = paint(shown.background, shown.seed).draw(*clip.size[1:])
    return np.abs(clip.frames_THWC.astype(int) - bare).max(axis=-1) > 25


def test_clip_is_valid_and_equal_scenes_give_equal_bytes():
    shown = draw_scene(3)
    clip = render_clip(shown)
    assert clip.size == (16, 64, 64)
    assert clip.fps == 8
    np.testing.assert_allclose(clip.pts_seconds, np.arange(16) / 8)
    assert clip.frames_THWC.tobytes() == render_clip(draw_scene(3)).frames_THWC.tobytes()
    assert clip.frames_THWC.tobytes() != render_clip(draw_scene(4)).frames_THWC.tobytes()
    assert shown == pickle.loads(pickle.dumps(shown))


def test_bytes_do_not_change():
    """Clips on plain backgrounds are float32 sums, products and square roots: the same on every machine."""
    digest = hashlib.sha256()
    for seed in range(60):
        shown = draw_scene(seed)
        if BACKGROUNDS[shown.background].kind == "plain":
            digest.update(render_clip(shown).frames_THWC.tobytes())
    assert digest.hexdigest() == "99e9f06c38c5a23e15c6df855c74274a45442c7181696d572bfffc30a8a0aed7"


def test_clips_are_fast():
    scenes = [draw_scene(seed) for seed in range(40)]

    def seconds() -> float:
        start = time.process_time()
        for shown in scenes:
            render_clip(shown)
        return time.process_time() - start

    assert 40 / min(seconds() for _ in range(3)) > 150, "clips a second at 64x64x16; 700 to 1000 alone on its core"


@pytest.mark.parametrize("size", [(1, 64, 64), (17, 48, 80), (3, 80, 48), (2, 1, 1), (2, 9, 200)])
def test_any_size(size):
    for seed in range(6):
        assert render_clip(draw_scene(seed), *size).size == size


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_is_its_coverage(shape):
    shown = scene(thing(shape=shape, x=0.2, y=-0.3, scale=1.02), background="grass", seed=5)
    drawn = render_clip(shown, 2, 60, 100).frames_THWC
    alpha = coverage(shape, height=60, width=100, x=56, y=21, radius=0.31 * 1.02 * 30)
    expected = composite(paint("grass", 5).draw(60, 100), alpha, COLOURS["red"])
    assert np.abs(drawn.astype(int) - expected).max() <= 1


def test_a_spinning_thing_is_its_turned_coverage():
    shown = scene(thing(shape="heart", moves=(Move(kind="spin"),), size="large"), background="white")
    drawn = render_clip(shown, 8).frames_THWC
    for i, frame in enumerate(drawn):
        alpha = coverage("heart", height=64, width=64, x=32, y=32, radius=0.42 * 32, angle=2 * math.pi * i / 8)
        expected = composite(np.full((64, 64, 3), COLOURS["white"], np.uint8), alpha, COLOURS["red"])
        assert np.abs(frame.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("texture", HEADS["texture"][1:])
def test_patterns_mix_two_tones_and_turn_with_the_thing(texture):
    shown = scene(thing(texture=texture, size="large", moves=(Move(kind="spin"),)), background="white")
    clip = render_clip(shown, 16)
    inside = mask_of(clip, shown)[0]
    pixels = clip.frames_THWC[0][inside].astype(int)
    for tone in (COLOURS["red"], second_tone("red", "white")):
        assert (np.abs(pixels - tone).max(axis=-1) <= 2).mean() > 0.12
    quarter = np.rot90(clip.frames_THWC[0], -1).astype(int)
    assert np.abs(quarter - clip.frames_THWC[4]).mean() < 1
    assert np.abs(clip.frames_THWC[0].astype(int) - clip.frames_THWC[2]).mean() > 2


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_backgrounds_run_through_their_shades(name):
    frame = render_clip(scene(thing(size="small"), background=name, seed=3), 1).frames_THWC[0, :12].astype(int)
    palette = np.array(BACKGROUNDS[name].palette)
    assert (frame >= palette.min(axis=0) - 1).all()
    assert (frame <= palette.max(axis=0) + 1).all()
    assert (frame.std() == 0) == (len(palette) == 1 and len(set(palette[0].tolist())) == 1) or len(palette) == 1


def test_tracks_are_where_things_are():
    for seed in range(60):
        shown = draw_scene(seed, num_objects=1)
        clip = render_clip(shown)
        where = tracks(shown)
        assert where.shape == (1, 16, 2)
        assert where.dtype == np.float32
        if shown.objects[0].shape in ("triangle", "heart", "star") or shown.objects[0].texture != "plain":
            continue  # the middle of the circle around it is not the middle of its pixels
        mask = mask_of(clip, shown)
        y, x = np.mgrid[:64, :64] + 0.5
        for frame, centre in zip(mask, where[0]):
            assert (x[frame].mean(), y[frame].mean()) == pytest.approx(tuple(centre), abs=0.6)


def test_tracks_of_a_story():
    shown = scene(
        thing(moves=(Move(kind="left", reach=0.5), Move(kind="still"))),
        thing(colour="blue", x=0.5, y=0.5, moves=(Move(kind="still"), Move(kind="up", reach=0.4))),
    )
    first, second = tracks(shown, 8, height=64, width=96)
    np.testing.assert_allclose(first[:, 0], 48 - 16 * np.array([0, 0.25, 0.5, 0.75, 1, 1, 1, 1]), atol=1e-4)
    np.testing.assert_allclose(first[:, 1], 32)
    np.testing.assert_allclose(second[:, 0], 64)
    np.testing.assert_allclose(second[:, 1], 48 - 12.8 * np.array([0, 0, 0, 0, 0, 0.25, 0.5, 0.75]), atol=1e-4)


def test_labels():
    shown = scene(thing(), thing(colour="blue", shape="star", moves=(Move(kind="left"),)), background="sand")
    assert labels(shown) == {
        "shape": "circle",
        "colour": "red",
        "texture": "plain",
        "background": "sand",
        "motion": "still",
    }
    assert labels(shown, 1)["motion"] == "left"
    for seed in range(40):
        drawn = draw_scene(seed)
        for index in range(len(drawn.objects)):
            told = labels(drawn, index, phase=int(drawn.is_story))
            assert list(told) == list(HEADS)
            assert all(told[head] in HEADS[head] for head in HEADS)


def told_motion(mask: np.ndarray, frames: np.ndarray) -> str:
    """The motion of one thing, from pixels alone."""
    y, x = np.mgrid[: mask.shape[1], : mask.shape[2]]
    cx, cy = (np.array([axis[frame].mean() for frame in mask]) for axis in (x, y))
    area = mask.sum(axis=(1, 2))
    if area[-1] > 1.8 * area[0]:
        return "grow"
    if np.ptp(cx) < 3 and np.ptp(cy) < 3:
        return "spin" if np.abs(frames[0].astype(int) - frames[2]).mean() > 0.3 else "still"
    if np.ptp(cx) > 8 and np.ptp(cy) > 8:
        return "circle"
    if np.ptp(cx) > np.ptp(cy):
        return "right" if cx[-1] > cx[0] else "left"
    if abs(cy[-1] - cy[0]) < 0.6 * np.ptp(cy):
        return "bounce"
    return "down" if cy[-1] > cy[0] else "up"


def test_motions_are_told_from_pixels_alone():
    wrong = []
    for seed in range(150):
        shown = draw_scene(seed, num_objects=1, is_story=False, combinations="all")
        clip = render_clip(shown)
        if told_motion(mask_of(clip, shown), clip.frames_THWC) != labels(shown)["motion"]:
            wrong.append((seed, labels(shown)))
    assert not wrong


def test_both_motions_of_a_story_are_told_from_pixels_alone():
    wrong = []
    for seed in range(80):
        shown = draw_scene(seed, num_objects=1, is_story=True)
        clip = render_clip(shown, 32)
        mask = mask_of(clip, shown)
        for phase in (0, 1):
            half = slice(16 * phase, 16 + 16 * phase)
            if told_motion(mask[half], clip.frames_THWC[half]) != labels(shown, phase=phase)["motion"]:
                wrong.append((seed, phase, labels(shown, phase=phase)))
    assert len(wrong) <= 3, wrong


def test_colours_and_areas_are_true():
    wrong = 0
    for seed in range(150):
        shown = draw_scene(seed, num_objects=1)
        only = shown.objects[0]
        clip = render_clip(shown, 1)
        inside = mask_of(clip, shown)[0]
        expected = AREAS[only.shape] * (only.radius * 32) ** 2
        assert inside.sum() == pytest.approx(expected, rel=0.3), (seed, only)
        pixels = clip.frames_THWC[0][inside].astype(float)
        away = [np.linalg.norm(pixels - COLOURS[name], axis=-1) for name in OBJECT_COLOURS]
        votes = np.bincount(np.argmin(away, axis=0), minlength=len(OBJECT_COLOURS))
        wrong += OBJECT_COLOURS[votes.argmax()] != only.colour
    assert wrong <= 3, "small dark patterns are the hardest"


def test_motions_differ_on_a_held_out_scene():
    assert scene(thing()).is_held_out
    assert not scene(thing(moves=(Move(kind="left"),))).is_held_out
    waiting = thing(moves=(Move(kind="left"), Move(kind="still")))
    assert not scene(waiting).is_held_out, "waiting in a story is not told"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: thing(shape="blob"), "shape must be one of circle.*'blob'"),
        (lambda: thing(colour="gray"), "colour must be one of"),
        (lambda: thing(texture="furry"), "texture must be one of"),
        (lambda: thing(size="huge"), "small, medium, large"),
        (lambda: thing(moves=(Move(kind="pulse"),)), "motion must be one of"),
        (lambda: thing(moves=STILL * 3), "one move or two"),
        (lambda: thing(scale=0), "scale must be above 0"),
        (lambda: scene(background="soup"), "background must be one of"),
        (lambda: scene(*[thing()] * 4), "one to three"),
        (lambda: scene(thing(), thing(moves=STILL * 2)), "equally many moves"),
        (lambda: labels(scene(), 1), r"index must lie in 0\.\.0 for this scene, got 1"),
        (lambda: labels(scene(), phase=1), "phase must lie in"),
        (lambda: render_clip(scene(), 0), "num_frames must be at least 1, got 0"),
        (lambda: render_clip(scene(), 1, 8, -1), "width must be at least 1, got -1"),
        (lambda: render_clip(scene(), fps=0), "fps must be above 0"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(InputError, match=match):
        make()
