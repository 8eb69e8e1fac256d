"""Rendered clips with classes: one thing on a background; heads are shape, colour, texture, background and motion.

A clip is a function of (seed, number). Sets for training and for testing take different numbers; with ``held_out`` they
also show (shape, colour, motion) that training never does.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tokenreel.errors import InputError
from tokenreel.render import HEADS, WorldScene, draw_scene, is_held_out, labels, render_clip

from .collection import Collection
from .example import Example
from .labelled import LabelledSet
from .payload import ArrayPayload, Pixels

__all__ = ["RENDERED", "SCENES_OF", "RenderedCollection", "asked_scenes", "rendered_set"]

RENDERED = "rendered:"
"""What begins the name of drawn scenes where a source is asked for."""

_USUAL = (16, 64, 64)

SCENES_OF: dict[str, tuple[int, bool]] = {"train": (0, False), "val": (1 << 40, False), "test": (1 << 41, True)}
"""Split -> the first scene, beyond all of the split before, and whether the combinations are those never trained on."""


class RenderedCollection(Collection):
    """Scenes of one thing by number, drawn when they are asked for; the attributes stand in ``meta``.

    The group of an example is its (shape, colour, motion).

    Args:
        num_examples: how many.
        first: number of the first scene.
        seed: of all scenes; another one gives others.
        held_out: True for combinations that training never shows, False for the others, None for all.
        num_frames, height, width: of a clip.

    Raises:
        InputError: an argument is outside its range.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        first: int = 0,
        seed: int = 0,
        held_out: bool | None = False,
        num_frames: int = 16,
        height: int = 64,
        width: int = 64,
    ) -> None:
        super().__init__(f"rendered scenes {first}..{first + num_examples - 1} of seed {seed}")
        if min(num_examples, num_frames, height, width) < 1 or min(first, seed) < 0:
            raise InputError(
                "rendered scenes need num_examples, num_frames, height and width of at least 1 and first and seed of "
                f"at least 0, got {num_examples}, {num_frames}, {height}, {width}, {first}, {seed}"
            )
        self._num_examples, self._first, self._seed = num_examples, first, seed
        self._held_out = held_out
        self._size = (num_frames, height, width)

    def __len__(self) -> int:
        return self._num_examples

    def key(self, index: int) -> str:
        """``scene-17``, by its number; of another size than 16x64x64 ``scene-17-16x32x32``."""
        size = "" if self._size == _USUAL else "-" + "x".join(map(str, self._size))
        return f"scene-{self._first + index}{size}"

    def scene(self, index: int) -> WorldScene:
        """What example ``index`` shows."""
        rng = np.random.default_rng([self._seed, self._first + index])
        combinations = {True: "held_out", False: "seen", None: "all"}[self._held_out]
        return draw_scene(rng, num_objects=1, is_story=False, combinations=combinations)  # type: ignore[arg-type]

    def _example(self, index: int) -> Example:
        name = f"rendered:{self._seed}/{self.key(index)}"
        payload = ArrayPayload(partial(self._pixels, index), name)
        return Example(key=self.key(index), source=name, payload=payload, **self._facts(index))

    def _facts(self, index: int) -> dict[str, Any]:
        attributes = labels(self.scene(index))
        told = (attributes["shape"], attributes["colour"], attributes["motion"])
        return {"group": " ".join(told), "meta": {**attributes, "is_held_out": is_held_out(*told)}}

    def _pixels(self, index: int) -> Pixels:
        return render_clip(self.scene(index), *self._size).frames_THWC


def rendered_set(
    num_examples: int,
    *,
    first: int = 0,
    seed: int = 0,
    held_out: bool | None = False,
    num_frames: int = 16,
    height: int = 64,
    width: int = 64,
) -> LabelledSet:
    """A labelled set of rendered scenes with the heads shape, colour, texture, background and motion.

    Arguments are those of ``RenderedCollection``. Every scene is thought out at once (half a
    millisecond each), none is drawn.
    """
    scenes = RenderedCollection(
        num_examples, first=first, seed=seed, held_out=held_out, num_frames=num_frames, height=height, width=width
    )
    facts = [scenes._facts(index) for index in range(num_examples)]
    targets = {head: [names.index(fact["meta"][head]) for fact in facts] for head, names in HEADS.items()}
    return LabelledSet(scenes, HEADS, targets, groups=[fact["group"] for fact in facts])


def asked_scenes(text: str) -> tuple[int, tuple[int, int, int] | None]:
    """How many scenes ``rendered:COUNT`` or ``rendered:COUNT,FRAMES,HEIGHT,WIDTH`` asks for, and their size if told.

    Raises:
        InputError: it is neither.
    """
    try:
        numbers = [int(part) for part in text.removeprefix(RENDERED).split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 4) or min(numbers) < 1:
        raise InputError(
            "rendered scenes are asked for as rendered:COUNT or rendered:COUNT,FRAMES,HEIGHT,WIDTH, each at least 1, "
            f"such as rendered:1000,17,64,64; got {text}"
        )
    return numbers[0], None if len(numbers) == 1 else (numbers[1], numbers[2], numbers[3])
