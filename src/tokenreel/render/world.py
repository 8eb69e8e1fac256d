"""The captioned world: one to three things on a background, each with its motion or its two motions in turn.

A ``WorldScene`` is a value; it says all that is seen, and the same value gives the same bytes. Positions and sizes are
in stage units: the shorter side of the picture spans [-1, 1], x runs right, y runs down.

Letters: N things, T frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError
from tokenreel.types import Clip

from .attributes import HEADS, SIZES, Combination, is_held_out
from .backgrounds import paint, second_tone
from .colours import COLOURS
from .motion import Motion, Move, Pose, Then
from .sprites import Sprite, draw_sprite

__all__ = ["WorldObject", "WorldScene", "labels", "object_poses", "render_clip", "tracks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldObject:
    """One thing of the captioned world.

    Attributes:
        shape, colour, texture: classes of ``HEADS``.
        size: a name in ``SIZES``.
        moves: what it does, one move or two in turn. In a story of two, a still move is waiting.
        x, y: where its centre begins, in stage units.
        scale: factor on its size, near 1, so that things of one size differ a little.
    """

    shape: str
    colour: str
    size: str
    texture: str
    moves: tuple[Move, ...]
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        for head in ("shape", "colour", "texture"):
            _check_class(head, getattr(self, head))
        for motion in self.motions:
            _check_class("motion", motion)
        if self.size not in SIZES:
            raise InputError(f"size must be one of {', '.join(SIZES)}, got {self.size!r}")
        if len(self.moves) not in (1, 2):
            raise InputError(f"WorldObject.moves must be one move or two in turn, got {len(self.moves)}")
        if not self.scale > 0:
            raise InputError(f"WorldObject.scale must be above 0, got {self.scale}")

    @property
    def radius(self) -> float:
        """Of the circle around it at the beginning, in stage units."""
        return SIZES[self.size] * self.scale

    @property
    def motions(self) -> tuple[str, ...]:
        """The names of its moves."""
        return tuple(move.kind for move in self.moves)

    @property
    def motion(self) -> Motion:
        """Its whole motion over times [0, 1]; of two moves each takes half."""
        return self.moves[0] if len(self.moves) == 1 else Then(self.moves[0], self.moves[1])

    def combinations(self) -> tuple[Combination, ...]:
        """(shape, colour, motion) of every motion that a caption tells of: all but the waiting in a story."""
        told = [name for name in self.motions if len(self.moves) == 1 or name != "still"]
        return tuple((self.shape, self.colour, name) for name in told)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldScene:
    """What is seen, as a value: equal scenes give equal bytes.

    Attributes:
        objects: one to three things; a later one hides an earlier one.
        background: a class of ``HEADS``.
        seed: of what is on the background: where its clouds are, how its checks are turned.
    """

    objects: tuple[WorldObject, ...]
    background: str
    seed: int = 0

    def __post_init__(self) -> None:
        _check_class("background", self.background)
        if not 1 <= len(self.objects) <= 3:
            raise InputError(f"WorldScene.objects must be one to three things, got {len(self.objects)}")
        if len({len(thing.moves) for thing in self.objects}) > 1:
            raise InputError("all things of a WorldScene must have equally many moves: one each, or two in a story")

    @property
    def is_story(self) -> bool:
        """Whether one thing happens after another."""
        return len(self.objects[0].moves) == 2

    @property
    def is_held_out(self) -> bool:
        """Whether a (shape, colour, motion) in it is kept from training."""
        return any(is_held_out(*combination) for thing in self.objects for combination in thing.combinations())


def _check_class(head: str, name: str) -> None:
    if name not in HEADS[head]:
        raise InputError(f"{head} must be one of {', '.join(HEADS[head])}, got {name!r}")


def labels(scene: WorldScene, index: int = 0, phase: int = 0) -> dict[str, str]:
    """The attributes of one thing and the background: a class of ``HEADS`` for every head.

    Args:
        index: which thing.
        phase: 0 for its first move, 1 for the second move of a story.

    Raises:
        InputError: the scene has no such thing or no such phase.
    """
    for name, value, count in (
        ("index", index, len(scene.objects)),
        ("phase", phase, len(scene.objects[0].moves)),
    ):
        if not 0 <= value < count:
            raise InputError(f"{name} must lie in 0..{count - 1} for this scene, got {value}")
    thing = scene.objects[index]
    return {
        "shape": thing.shape,
        "colour": thing.colour,
        "texture": thing.texture,
        "background": scene.background,
        "motion": thing.motions[phase],
    }


def object_poses(scene: WorldScene, num_frames: int) -> list[Pose]:
    """The pose of every thing at every frame: its displacement from where it begins, in stage units."""
    times = np.arange(num_frames) / num_frames
    return [thing.motion(times) for thing in scene.objects]


def tracks(scene: WorldScene, num_frames: int = 16, *, height: int = 64, width: int = 64) -> npt.NDArray[np.float32]:
    """Where the centre of every thing is in every frame: float32 (N, T, 2), (x, y) in pixels from the upper left."""
    return _centres(scene, object_poses(scene, num_frames), height, width)


def _centres(scene: WorldScene, poses: list[Pose], height: int, width: int) -> npt.NDArray[np.float32]:
    unit = min(height, width) / 2
    placed = [
        (width / 2 + (thing.x + pose.x) * unit, height / 2 + (thing.y + pose.y) * unit)
        for thing, pose in zip(scene.objects, poses)
    ]
    return np.array(placed, np.float64).transpose(0, 2, 1).astype(np.float32)


def render_clip(scene: WorldScene, num_frames: int = 16, height: int = 64, width: int = 64, fps: float = 8.0) -> Clip:
    """The scene as a clip: uint8 frames (T, H, W, 3). Equal arguments give equal bytes.

    Spins and circles can be told by eye from 12 frames on.

    Raises:
        InputError: a size is below 1, or fps is not above 0.
    """
    for name, value in (("num_frames", num_frames), ("height", height), ("width", width)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if not fps > 0:
        raise InputError(f"fps must be above 0, got {fps}")
    backdrop = paint(scene.background, scene.seed).draw(height, width)
    frames_THWC = np.repeat(backdrop[None], num_frames, axis=0)
    unit = min(height, width) / 2
    poses = object_poses(scene, num_frames)
    for thing, centre_T2, pose in zip(scene.objects, _centres(scene, poses, height, width), poses):
        sprite = Sprite(
            shape=thing.shape,
            texture=thing.texture,
            colour=COLOURS[thing.colour],
            second=second_tone(thing.colour, scene.background),
            x=centre_T2[:, 0],
            y=centre_T2[:, 1],
            radius=(thing.radius * unit * pose.scale).astype(np.float32),
            angle=pose.angle,
        )
        draw_sprite(frames_THWC, sprite)
    return Clip(frames_THWC=frames_THWC, pts_seconds=np.arange(num_frames) / fps, fps=fps, source="tokenreel world")
