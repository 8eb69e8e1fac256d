"""Storyboards: what happens in each scene of a video and for how long, from Python or YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import yaml

from tokenreel.errors import FormatError, InputError
from tokenreel.tokenizers.configs import from_values

from .sample_orders import Order, OrderKind

__all__ = ["Scene", "Storyboard"]

_MOST_SEED = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One prompt, and how long it lasts.

    Attributes:
        prompt: what is to be seen.
        seconds: how long.
        frames_carried: frames of what came before that this scene goes on from; 0 is a cut. None: the storyboard's.
        seed, guidance_scale, steps: of this scene; None: the storyboard's.
    """

    prompt: str
    seconds: float
    frames_carried: int | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt.strip():
            raise InputError(f"prompt must be words, got {self.prompt!r}")
        _check_number(self.seconds, "seconds", above=0)
        if self.frames_carried is not None:
            _check_whole(self.frames_carried, "frames_carried", least=0)
        _check_sampling(self.seed, self.guidance_scale, self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storyboard:
    """Scenes in order, and what they share.

    Attributes:
        scenes: at least one.
        size: (height, width) in pixels.
        fps: frames a second of the video.
        window_frames: frames that the model makes at once; longer scenes are made window after window.
        frames_carried: frames that a window goes on from. None: about a third of the window, whole steps.
        seed: equal seeds, equal videos. Scenes have streams of their own, so a change in one leaves the random numbers
            of the others alone.
        guidance_scale, steps, order, temperature: as in ``sample``.
        still_steps: passes for the first step alone, where a window goes on from nothing (``sample_from_still``); 0:
            none.
        coarse_levels: coarser pictures that are drawn before that step; without ``still_steps`` none are.
        frame_steps: passes for each further step, drawn one after another; 0: all of them at once, in ``steps``.
    """

    scenes: tuple[Scene, ...]
    size: tuple[int, int]
    fps: float = 8.0
    window_frames: int = 17
    frames_carried: int | None = None
    seed: int = 0
    guidance_scale: float = 3.0
    steps: int = 18
    order: OrderKind = "confidence"
    temperature: float = 1.0
    still_steps: int = 0
    coarse_levels: int = 0
    frame_steps: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scenes", tuple(self.scenes))
        object.__setattr__(self, "size", tuple(self.size))
        if not self.scenes:
            raise InputError("a storyboard needs at least one scene")
        for number, scene in enumerate(self.scenes, 1):
            if not isinstance(scene, Scene):
                raise InputError(f"scene {number} must be a Scene, got {type(scene).__name__}")
        if len(self.size) != 2:
            raise InputError(f"size must be (height, width), got {self.size}")
        for side in self.size:
            _check_whole(side, "size", least=1)
        _check_number(self.fps, "fps", above=0)
        _check_whole(self.window_frames, "window_frames", least=1)
        if self.frames_carried is not None:
            _check_whole(self.frames_carried, "frames_carried", least=0)
        _check_sampling(self.seed, self.guidance_scale, self.steps)
        _check_number(self.temperature, "temperature", least=0)
        _check_whole(self.still_steps, "still_steps", least=0)
        _check_whole(self.coarse_levels, "coarse_levels", least=0)
        _check_whole(self.frame_steps, "frame_steps", least=0)
        Order(kind=self.order)

    @property
    def seconds(self) -> float:
        """Of all scenes."""
        return sum(scene.seconds for scene in self.scenes)

    def frame_counts(self) -> list[int]:
        """Frames of each scene; their sum is the nearest to the whole duration, so that rounding does not add up.

        >>> scenes = [Scene(prompt="a", seconds=0.3), Scene(prompt="b", seconds=0.3)]
        >>> Storyboard(scenes=scenes, size=(8, 8), fps=8).frame_counts()
        [2, 3]
        """
        ends, seconds = [0], 0.0
        for number, scene in enumerate(self.scenes, 1):
            seconds += scene.seconds
            ends.append(round(seconds * self.fps))
            if ends[-1] == ends[-2]:
                raise InputError(
                    f"scene {number}: {scene.seconds:g} seconds are less than a frame at {self.fps:g} frames a second"
                )
        return [end - start for start, end in pairwise(ends)]

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """From plain values, as YAML and JSON give them; ``size`` may also be text such as 128x96 (width x height).

        Raises:
            InputError: a field is unknown, missing or out of its range; the number of the scene and the field are told.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"a storyboard is described by named fields, got {type(values).__name__}")
        found, scenes = dict(values), values.get("scenes")
        if not isinstance(scenes, list) or not scenes:
            raise InputError(f"a storyboard needs scenes, a list of prompts with seconds; got {scenes!r}")
        found["scenes"] = [_scene(number, scene) for number, scene in enumerate(scenes, 1)]
        if isinstance(found.get("size"), str | int):
            found["size"] = _parsed_size(found["size"])
        _check_present(found, ("size",), cls)
        return from_values(cls, found)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, defaults: Mapping[str, Any] | None = None) -> Self:
        """From a YAML file; ``defaults`` are fields that the file need not name."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no storyboard file {path}")
        try:
            values = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise FormatError(f"{path} is not YAML ({' '.join(str(error).split())})") from error
        try:
            return cls.from_values({**(defaults or {}), **values} if isinstance(values, Mapping) else values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def _scene(number: int, values: Any) -> Scene:
    try:
        if not isinstance(values, Mapping):
            raise InputError(f"must have a prompt and seconds, got {values!r}")
        _check_present(values, ("prompt", "seconds"), Scene)
        return from_values(Scene, values)
    except InputError as error:
        raise InputError(f"scene {number}: {error}") from None


def _check_present(values: Mapping[str, Any], names: tuple[str, ...], kind: type[Any]) -> None:
    """InputError for a missing field, unless one that is unknown may have been meant for it."""
    if set(values) <= {field.name for field in fields(kind)}:
        for name in names:
            if name not in values:
                raise InputError(f"{name} is missing")


def _parsed_size(text: str | int) -> tuple[int, int]:
    """(height, width) of ``128x96`` or of one number, a square."""
    from tokenreel.media.pixels import parse_size

    size = parse_size(text)
    return size if isinstance(size, tuple) else (int(size or 0), int(size or 0))


def _check_sampling(seed: Any, guidance_scale: Any, steps: Any) -> None:
    if seed is not None:
        _check_whole(seed, "seed", least=0, below=_MOST_SEED)
    if guidance_scale is not None:
        _check_number(guidance_scale, "guidance_scale")
    if steps is not None:
        _check_whole(steps, "steps", least=1)


def _check_whole(value: Any, name: str, *, least: int, below: int | None = None) -> None:
    if type(value) is not int or value < least or (below is not None and value >= below):
        range = f"of at least {least}" if below is None else f"in [{least}, {below})"
        raise InputError(f"{name} must be a whole number {range}, got {value!r}")


def _check_number(value: Any, name: str, *, above: float | None = None, least: float | None = None) -> None:
    is_number = type(value) in (int, float) and value == value and abs(value) != float("inf")
    if not is_number or (above is not None and value <= above) or (least is not None and value < least):
        range = f" above {above:g}" if above is not None else f" of at least {least:g}" if least is not None else ""
        raise InputError(f"{name} must be a number{range}, got {value!r}")
