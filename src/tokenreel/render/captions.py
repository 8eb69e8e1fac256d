"""English captions of the captioned world: one scene can be told in thousands of ways, all of them true.

A caption always tells every thing's colour, shape, pattern and motion; its size, that it has no pattern, and the
background it may leave out. The caption of a story has the word "then", no other has.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from .grammar import OneOf, Phrase, Row, count, speak
from .words import ADJECTIVES, COLOUR_WORDS, MOTION_WORDS, NOUNS, PLACES, SIZE_WORDS, WITH, conjugated
from .world import WorldObject, WorldScene

__all__ = ["caption", "caption_phrase", "num_captions"]


def caption(scene: WorldScene, rng: int | np.random.Generator, *, is_full: bool = False) -> str:
    """What is seen, in English, in lower case and without a full stop; equal seeds give equal captions.

    Args:
        rng: a seed or a generator.
        is_full: leave nothing out: size, pattern and background are told too.
    """
    said = speak(caption_phrase(scene, is_full=is_full), np.random.default_rng(rng))
    return re.sub(r"\ba (?=[aeiou])", "an ", said)


def num_captions(scene: WorldScene, *, is_full: bool = False) -> int:
    """How many different captions the scene has."""
    return count(caption_phrase(scene, is_full=is_full))


def caption_phrase(scene: WorldScene, *, is_full: bool = False) -> Phrase:
    """All captions of the scene as one phrase with choices; "a" stands for "an" too."""
    things = [_thing(thing, is_full) for thing in scene.objects]
    if scene.is_story:
        clauses = _one_in_turn(scene, things[0]) if len(things) == 1 else _two_in_turn(scene, things)
        told = clauses
    else:
        clauses = _at_once(scene, things)
        told = OneOf((clauses, _shown(scene, things)))
    places = OneOf(PLACES[scene.background])
    placed = OneOf((Row((told, " ", places)), Row((places, ", ", clauses))))
    return placed if is_full else OneOf((placed, told))


def _at_once(scene: WorldScene, things: list[Phrase]) -> Phrase:
    """Clauses: a thing does this while another does that."""
    if len(things) == 1:
        [thing], does, doing = things, _does(scene.objects[0].motions[0]), _doing(scene.objects[0].motions[0])
        return OneOf((Row((thing, " ", does)), Row((thing, " is ", doing))))
    clauses = [Row((thing, " ", _does(told.motions[0]))) for thing, told in zip(things, scene.objects)]
    if len(clauses) == 2:
        joints = (" and ", " while ", " as ", "; ", ", and ")
        return OneOf(tuple(Row((clauses[0], joint, clauses[1])) for joint in joints))
    last = (" and ", ", and ", " while ")
    return OneOf(tuple(Row((clauses[0], ", ", clauses[1], joint, clauses[2])) for joint in last))


def _shown(scene: WorldScene, things: list[Phrase]) -> Phrase:
    """Things shown: a video of a thing doing this and another doing that."""
    doing = [Row((thing, " ", _doing(told.motions[0]))) for thing, told in zip(things, scene.objects)]
    if len(doing) == 1:
        that = Row((things[0], " that ", _does(scene.objects[0].motions[0])))
        return Row((OneOf(("", *_SHOWN)), OneOf((doing[0], that))))
    listed = (doing[0], " and ", doing[1]) if len(doing) == 2 else (doing[0], ", ", doing[1], " and ", doing[2])
    return Row((OneOf(_SHOWN), *listed))


_SHOWN = ("a video of ", "a clip of ", "an animation of ", "we see ", "there is ", "a scene with ")
_THEN = (", then ", " and then ", ", and then ", "; then ")


def _one_in_turn(scene: WorldScene, thing: Phrase) -> Phrase:
    """One thing does this, then that."""
    first, second = (_does(name) for name in scene.objects[0].motions)
    again = (", then it ", " and then it ", "; then it ")
    return OneOf(
        (
            *(Row((thing, " ", first, joint, second)) for joint in (*_THEN, *again)),
            Row((thing, " first ", first, OneOf(_THEN[:2]), second)),
            Row(("first ", thing, " ", first, OneOf(again[:2]), second)),
        )
    )


def _two_in_turn(scene: WorldScene, things: list[Phrase]) -> Phrase:
    """One thing does this, then the other does that."""
    late = 1 if scene.objects[0].motions[1] == "still" else 0
    first, second = (
        Row((things[index], " ", _does(scene.objects[index].motions[phase])))
        for phase, index in enumerate((1 - late, late))
    )
    return Row((OneOf(("", "first ")), first, OneOf(_THEN), second))


@lru_cache(maxsize=4096)
def _noun_phrase(shape: str, colour: str, size: str, texture: str, is_full: bool) -> Phrase:
    """A thing: its words in every order that English allows."""
    colours, nouns, pattern = OneOf(COLOUR_WORDS[colour]), OneOf(NOUNS[shape]), OneOf(ADJECTIVES[texture])
    sizes = tuple(f"{word} " for word in SIZE_WORDS[size])
    sized = OneOf(sizes if is_full else (*sizes, ""))
    described: list[Phrase] = [Row((pattern, " ", colours, " ", nouns)), Row((colours, " ", pattern, " ", nouns))]
    if WITH[texture]:
        described.append(Row((colours, " ", nouns, " ", OneOf(WITH[texture]))))
    elif not is_full:
        described.append(Row((colours, " ", nouns)))
    return Row(("a ", sized, OneOf(tuple(described))))


def _thing(thing: WorldObject, is_full: bool) -> Phrase:
    return _noun_phrase(thing.shape, thing.colour, thing.size, thing.texture, is_full)


def _does(motion: str) -> Phrase:
    return OneOf(MOTION_WORDS[motion])


@lru_cache(maxsize=64)
def _doing(motion: str) -> Phrase:
    return OneOf(tuple(conjugated(words) for words in MOTION_WORDS[motion]))
