"""Captions say what is seen and nothing else, in as many ways as are counted."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tokenreel.render.attributes import HEADS, SIZES
from tokenreel.render.captions import caption, caption_phrase, num_captions
from tokenreel.render.draw import draw_scene
from tokenreel.render.grammar import OneOf, Row, count, every, speak
from tokenreel.render.words import (
    ADJECTIVES,
    COLOUR_WORDS,
    MOTION_WORDS,
    NOUNS,
    PLACES,
    SIZE_WORDS,
    WITH,
    conjugated,
)

TABLES = {
    "shape": NOUNS,
    "colour": COLOUR_WORDS,
    "texture": ADJECTIVES,
    "background": PLACES,
    "motion": MOTION_WORDS,
}
SEEDS = range(200)


def test_grammar_counts_what_it_can_say(rng):
    phrase = Row(("a ", OneOf(("big ", "", Row((OneOf(("very ", "quite ")), "small ")))), OneOf(("ring", "star"))))
    said = list(every(phrase))
    assert count(phrase) == len(said) == len(set(said)) == 8
    heard = {speak(phrase, rng) for _ in range(300)}
    assert heard == set(said)


@pytest.mark.parametrize("head", TABLES)
def test_every_class_has_words_of_its_own(head):
    table = TABLES[head]
    assert list(table) == list(HEADS[head])
    said = [word for words in table.values() for word in words]
    assert len(said) == len(set(said))


def test_other_tables_are_complete():
    assert list(SIZE_WORDS) == list(SIZES)
    assert list(WITH) == list(HEADS["texture"])
    for words in MOTION_WORDS.values():
        participles = [conjugated(word) for word in words]
        assert len(set(participles)) == len(words)
        assert all(re.match(r"(not )?[a-z]+ing\b", word) for word in participles)


def test_equal_seeds_give_equal_captions():
    scene = draw_scene(1)
    assert caption(scene, 5) == caption(scene, np.random.default_rng(5))
    assert len({caption(scene, seed) for seed in range(100)}) > 90


@pytest.mark.parametrize("seed", range(6))
def test_captions_are_counted(seed):
    scene = draw_scene(seed, num_objects=1, is_story=False)
    for is_full in (False, True):
        said = set(every(caption_phrase(scene, is_full=is_full)))
        assert num_captions(scene, is_full=is_full) == len(said) > 1000


def says(text: str, words: tuple[str, ...]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}\b", text) for word in words)


@pytest.mark.parametrize("is_full", [False, True])
def test_captions_tell_every_attribute(is_full):
    for seed in SEEDS:
        scene = draw_scene(seed)
        said = caption(scene, seed, is_full=is_full)
        for thing in scene.objects:
            told = [name for name in thing.motions if not scene.is_story or name != "still"]
            assert says(said, NOUNS[thing.shape]), said
            assert says(said, COLOUR_WORDS[thing.colour]), said
            assert thing.texture == "plain" or says(said, ADJECTIVES[thing.texture] + WITH[thing.texture]), said
            for name in told:
                assert says(said, MOTION_WORDS[name] + tuple(map(conjugated, MOTION_WORDS[name]))), said
            if is_full:
                assert says(said, SIZE_WORDS[thing.size]), said
                assert says(said, ADJECTIVES[thing.texture] + WITH[thing.texture]), said
        if is_full:
            assert says(said, PLACES[scene.background]), said


def test_captions_name_nothing_that_is_not_there():
    for seed in SEEDS:
        scene = draw_scene(seed)
        said = caption(scene, seed)
        for place in PLACES[scene.background]:
            said = said.replace(place, "")
        said = re.sub(r"(in|along) a circle", "", said)  # a motion
        for head in ("shape", "colour"):
            there = {getattr(thing, head) for thing in scene.objects}
            for name in set(HEADS[head]) - there:
                assert not says(said, TABLES[head][name]), (said, name)
        textures = {thing.texture for thing in scene.objects}
        for name in set(HEADS["texture"]) - textures:
            assert not says(said, ADJECTIVES[name] + WITH[name]), (said, name)


def test_a_story_is_told_in_order():
    for seed in SEEDS:
        scene = draw_scene(seed)
        said = caption(scene, seed)
        assert ("then" in said.split()) == scene.is_story, said
        if scene.is_story:
            before, after = re.split(r"\bthen\b", said)
            for part, phase in ((before, 0), (after, 1)):
                told = [
                    t.motions[phase] for t in scene.objects if len(scene.objects) == 1 or t.motions[phase] != "still"
                ]
                assert says(part, MOTION_WORDS[told[0]]), said


def test_captions_are_plain_english():
    for seed in SEEDS:
        said = caption(draw_scene(seed), seed)
        assert re.fullmatch(r"[a-z ,;-]+", said), said
        assert "  " not in said
        assert not re.search(r"\ba [aeiou]", said), said
        assert not re.search(r"\ban [^aeiou]", said), said
