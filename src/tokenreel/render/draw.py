"""Draws scenes of the captioned world at random: attributes, motions, and places where nothing begins on another.

All chance comes from one generator, so a seed is a scene.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tokenreel.errors import InputError

from .attributes import (
    DIRECTIONS,
    HEADS,
    SIZES,
    Combination,
    Combinations,
    allowed_combinations,
    is_held_out,
)
from .backgrounds import BACKGROUNDS, stands_out
from .motion import Move
from .world import WorldObject, WorldScene

__all__ = ["draw_plain_scene", "draw_scene"]

_NUM_OBJECTS = (0.55, 0.3, 0.15)  # how often a scene has one, two, three things
_STORIES = 0.25
_PLAIN = 0.4  # how often a thing has no pattern
_SAMPLES = np.linspace(0, 1, 17)  # times at which distances are looked at
_CANDIDATES = 24  # places that are tried for a thing
_PLAIN_KEY = 1  # beside the seed: other scenes than those of ``draw_scene``
_APART = 1.06  # two things begin at least this many times the sum of their radii apart
_PASSING = 0.75  # and, if it can be had, never come nearer than this many times the sum


def draw_scene(
    rng: int | np.random.Generator,
    *,
    num_objects: int | None = None,
    is_story: bool | None = None,
    combinations: Combinations = "seen",
) -> WorldScene:
    """One scene at random; equal seeds give equal scenes.

    Things differ in colour, stand out from the background, begin apart from each other and stay inside the picture. A
    story is one thing with two motions, or two things that move in turn.

    Args:
        rng: a seed or a generator.
        num_objects: 1, 2 or 3 (in a story 1 or 2); at random unless given.
        is_story: whether it has two phases; at random unless given.
        combinations: which (shape, colour, motion) may come: ``seen`` only those of training, ``held_out`` for every
            thing at least one that training never shows, ``all`` any.

    Raises:
        InputError: an argument is outside its range.
    """
    rng = np.random.default_rng(rng)
    allowed = allowed_combinations(combinations)
    story = bool(rng.random() < _STORIES) and num_objects != 3 if is_story is None else is_story
    most = 2 if story else 3
    if num_objects is not None and not 1 <= num_objects <= most:
        raise InputError(f"num_objects must lie in 1..{most}{' in a story' if story else ''}, got {num_objects}")
    shares = np.array(_NUM_OBJECTS[:most])
    count = int(rng.choice(most, p=shares / shares.sum())) + 1 if num_objects is None else num_objects
    while True:
        cast = [allowed[i] for i in rng.integers(len(allowed), size=count)]
        backgrounds = [name for name in BACKGROUNDS if all(stands_out(colour, name) for _, colour, _ in cast)]
        if len({colour for _, colour, _ in cast}) < count or not backgrounds or not _suits(cast, story):
            continue
        things = _staged(rng, cast, story, combinations)
        if things is not None:
            background = backgrounds[int(rng.integers(len(backgrounds)))]
            return WorldScene(objects=things, background=background, seed=int(rng.integers(1 << 31)))


def draw_plain_scene(seed: int) -> WorldScene:
    """The easiest scenes: one thing of one colour, before a wall of one colour, with one motion that training shows.

    What spins and is round looks as if it stood still. Equal seeds give equal scenes.
    """
    rng = np.random.default_rng([seed, _PLAIN_KEY])
    while True:
        scene = draw_scene(rng, num_objects=1, is_story=False)
        if len(BACKGROUNDS[scene.background].palette) == 1:
            (thing,) = scene.objects
            return replace(scene, objects=(replace(thing, texture=HEADS["texture"][0]),))


def _suits(cast: list[Combination], story: bool) -> bool:
    return not story or all(motion != "still" for _, _, motion in cast)


def _staged(
    rng: np.random.Generator, cast: list[Combination], story: bool, combinations: Combinations
) -> tuple[WorldObject, ...] | None:
    """The things of a cast in their places, or None where they do not fit: then another cast is drawn."""
    motions = [_in_turn(rng, part, i, len(cast), combinations) if story else (part[2],) for i, part in enumerate(cast)]
    for attempt in range(12):
        sizes = list(SIZES)[: max(1, 3 - (len(cast) + attempt) // 4)]
        things: list[WorldObject] = []
        for (shape, colour, _), names in zip(cast, motions):
            thing = WorldObject(
                shape=shape,
                colour=colour,
                size=sizes[int(rng.integers(len(sizes)))],
                texture=_texture(rng, shape, names),
                moves=tuple(_move(rng, name, story) for name in names),
                scale=float(rng.uniform(0.95, 1.05)),
            )
            placed = _placed(rng, thing, things)
            if placed is None:
                break
            things.append(placed)
        else:
            return tuple(things)
    return None


def _in_turn(
    rng: np.random.Generator, part: Combination, index: int, count: int, combinations: Combinations
) -> tuple[str, str]:
    """The two motions of a thing in a story: its own and a second one; or its own while the other thing waits."""
    shape, colour, motion = part
    if count == 2:
        return ("still", motion) if index else (motion, "still")
    second = [name for name in DIRECTIONS if name not in ("still", motion)]
    if combinations == "seen":
        second = [name for name in second if not is_held_out(shape, colour, name)]
    return motion, second[int(rng.integers(len(second)))]


def _texture(rng: np.random.Generator, shape: str, motions: tuple[str, ...]) -> str:
    """Plain or patterned; what spins and is round has a pattern, or nobody would see it spin."""
    textures = HEADS["texture"]
    unseen = shape in ("circle", "ring") and "spin" in motions
    if rng.random() < _PLAIN and not unseen:
        return textures[0]
    return textures[1 + int(rng.integers(len(textures) - 1))]


def _move(rng: np.random.Generator, name: str, story: bool) -> Move:
    """A motion large enough to be told from the others; in a story, where it has half the time, a smaller one."""
    u, way = float(rng.random()), 1.0 if rng.random() < 0.5 else -1.0
    part = 0.75 if story else 1.0
    if name in ("left", "right", "up", "down"):
        return Move(kind=name, reach=part * (0.8 + 0.3 * u))
    if name == "circle":
        return Move(kind=name, reach=part * (0.36 + 0.1 * u), turns=way, phase=float(rng.random()))
    if name == "bounce":
        return Move(kind=name, reach=part * (0.6 + 0.25 * u), turns=1.0 if story else 2.0)
    if name == "grow":
        return Move(kind=name, reach=part * (0.8 + 0.3 * u))
    if name == "spin":
        return Move(kind=name, turns=way * (0.5 if story else 1.0))
    return Move(kind=name, reach=0.0)


def _placed(rng: np.random.Generator, thing: WorldObject, others: list[WorldObject]) -> WorldObject | None:
    """The thing where it stays in the picture and does not begin on others, or None where no such place was found."""
    pose = thing.motion(_SAMPLES)
    radius = thing.radius * pose.scale
    low_x, high_x = -1 - float((pose.x - radius).min()), 1 - float((pose.x + radius).max())
    low_y, high_y = -1 - float((pose.y - radius).min()), 1 - float((pose.y + radius).max())
    if low_x > high_x or low_y > high_y:
        return None
    x, y = rng.random((2, _CANDIDATES))
    x, y = low_x + (high_x - low_x) * x, low_y + (high_y - low_y) * y
    start, passing = np.full(_CANDIDATES, math.inf), np.full(_CANDIDATES, math.inf)
    for other in others:
        theirs = other.motion(_SAMPLES)
        across, down = x[:, None] + pose.x - other.x - theirs.x, y[:, None] + pose.y - other.y - theirs.y
        apart = np.sqrt(across * across + down * down) / (radius + other.radius * theirs.scale)
        start, passing = np.minimum(start, apart[:, 0]), np.minimum(passing, apart.min(axis=1))
    fitting = np.flatnonzero(start >= _APART)
    if not len(fitting):
        return None
    free = fitting[passing[fitting] >= _PASSING]
    best = int(free[0]) if len(free) else int(fitting[passing[fitting].argmax()])
    return replace(thing, x=float(x[best]), y=float(y[best]))
