"""The clip and the picture that ship with the package: a small stage with a bit of everything a tokenizer must keep.

Fine texture (bricks, cloth, dead leaves), smooth light, small text, sharp outlines, soft shadows, hidden things, and
motions of several kinds before a camera that wanders. All motions are periodic, so the clip loops.

Letters: T frames, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from tokenreel.types import Clip

from .colours import PALETTES, Colour, colourise
from .motion import Both, Motion, Move
from .scene import Actor, Scene, frames, seen
from .shapes import composite, cover, coverage
from .text import Label, write
from .textures import Texture, bricks, dead_leaves, noise_field, woven

__all__ = ["sample_clip", "sample_image"]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

_FINER = 2  # drawn this many times larger and averaged
_FLOOR = 0.56  # where wall and floor meet, in stage units

_NIGHT: Colour = (24, 32, 62)
_CREAM: Colour = (250, 240, 218)
_CORAL: Colour = (236, 98, 78)
_TEAL: Colour = (42, 157, 143)
_GOLD: Colour = (246, 196, 92)
_ROSE: Colour = (226, 92, 128)
_CLOTH: tuple[Colour, ...] = ((236, 196, 150), (206, 150, 122))
_WALL: tuple[Colour, ...] = ((34, 36, 66), (66, 66, 104), (104, 92, 130), (150, 118, 140), (186, 142, 142))

_CAMERA: Motion = Both(Move(kind="circle", reach=0.05, phase=0.75), Move(kind="pulse", reach=0.08))


def sample_clip(num_frames: int = 60, height: int = 180, width: int = 320, fps: float = 15.0, seed: int = 0) -> Clip:
    """The sample: uint8 frames (T, H, W, 3). Equal arguments give equal bytes; the seed changes the textures."""
    stage = _stage(num_frames=num_frames, height=height * _FINER, width=width * _FINER, fps=fps, seed=seed)
    drawn = np.empty((num_frames, height, width, 3), np.uint8)
    for i, frame in enumerate(frames(stage)):
        drawn[i] = _averaged(frame)
    return Clip(frames_THWC=drawn, pts_seconds=np.arange(num_frames) / fps, fps=fps, source=f"tokenreel sample {seed}")


def sample_image(height: int = 256, width: int = 256, seed: int = 0) -> Pixels:
    """The same room as a still life: uint8 (H, W, 3)."""
    stage = _stage(num_frames=1, height=height * _FINER, width=width * _FINER, fps=1.0, seed=seed)
    frame = next(frames(replace(stage, labels=())))
    return _averaged(frame)


def _averaged(frame: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(frame).reduce(_FINER))


def _stage(*, num_frames: int, height: int, width: int, fps: float, seed: int) -> Scene:
    half = width / min(height, width)  # half the width of the picture, in stage units
    layout = _Layout.wide(half) if half > 1.4 else _Layout.narrow(half)
    scene = Scene(
        height=height,
        width=width,
        num_frames=num_frames,
        fps=fps,
        actors=_props(layout, half, seed) + _passers(half, seed),
        labels=(Label(text="frame {frame:02d}", x=half - 0.1, y=0.89, size=0.13, colour=_CREAM, anchor="right"),),
        camera=_CAMERA,
    )
    return replace(scene, background=_Room(seed=seed, layout=layout, half_height=seen(scene)[1]))


def _props(layout: _Layout, half: float, seed: int) -> tuple[Actor, ...]:
    """What stays in its place: a heart that beats, a ring that circles the picture, the reel and a star that spin."""
    heart, ring, reel, star = layout.heart, layout.ring, layout.reel, layout.star
    return (
        Actor(shape="heart", size=0.2, x=heart[0], y=heart[1], colour=_ROSE, shade=0.8, shadow=0.6,
              motion=Move(kind="pulse", reach=0.45, turns=2)),
        Actor(shape="ring", size=0.17, x=ring[0], y=ring[1], colour=_TEAL, shade=0.8, shadow=0.6,
              motion=Move(kind="circle", reach=0.34, phase=-0.25)),
        Actor(shape="circle", size=0.38, x=reel[0], y=reel[1], texture=_Reel(), shade=0.7, shadow=0.9,
              motion=Move(kind="spin")),
        Actor(shape="star", size=0.29, x=star[0], y=star[1], colour=_GOLD, shade=0.7, shadow=0.7,
              motion=Move(kind="spin", turns=-1)),
    )  # fmt: skip


def _passers(half: float, seed: int) -> tuple[Actor, ...]:
    """What crosses the stage: a striped square to the left, a ball to the right, bouncing above its shadow."""
    across = 2 * half + 0.9  # from just outside on one side to just outside on the other
    outside, ground = half + 0.45, _FLOOR + 0.1
    toss, pan = Move(kind="bounce", reach=1.0, turns=4, phase=0.15), Move(kind="right", reach=across)
    start = ground - float(toss(np.array([0.85 / 4])).y[0])  # it touches the ground at time 0.85 / 4
    stripes = Texture(kind="stripes", palette=(_TEAL, _CREAM), seed=seed + 3)
    return (
        Actor(shape="square", size=0.24, x=outside, y=0.2, texture=stripes, shade=0.6, shadow=0.7,
              motion=Both(Move(kind="left", reach=across), Move(kind="spin", turns=-1))),
        Actor(shape="circle", size=0.22, x=-outside, y=ground + 0.2, colour=(20, 12, 30), opacity=0.5,
              softness=0.2, squash=0.3, motion=pan),
        Actor(shape="circle", size=0.2, x=-outside, y=start, colour=_CORAL, shade=1.0, motion=Both(pan, toss)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where things are, in stage units: boxes (left, top, right, bottom) and centres (x, y)."""

    sign: tuple[float, float, float, float]
    picture: tuple[float, float, float, float]
    heart: tuple[float, float]
    ring: tuple[float, float]
    reel: tuple[float, float]
    star: tuple[float, float]

    @classmethod
    def wide(cls, half: float) -> _Layout:
        return cls(
            sign=(-half + 0.7, -0.54, -half + 2.1, 0.06),
            picture=(half - 1.24, -0.8, half - 0.42, -0.12),
            heart=(-half + 0.42, -0.55),
            ring=(half - 0.83, -0.8),
            reel=(half - 0.66, 0.29),
            star=(-half + 0.44, _FLOOR - 0.04),
        )

    @classmethod
    def narrow(cls, half: float) -> _Layout:
        return cls(
            sign=(-half + 0.08, -0.24, -half + 1.44, 0.32),
            picture=(half - 0.92, -0.9, half - 0.1, -0.3),
            heart=(-half + 0.46, -0.62),
            ring=(half - 0.87, -0.42),
            reel=(half - 0.44, 0.58),
            star=(-half + 0.46, 0.66),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """The painted set: a brick wall in warm light, a woven floor, a sign, a picture in its frame."""

    seed: int
    layout: _Layout
    half_height: float  # of what is painted, in stage units

    def draw(self, height: int, width: int) -> Pixels:
        """uint8 (height, width, 3)."""
        rng = np.random.default_rng(self.seed)
        unit = height / 2 / self.half_height
        image = bricks(rng, height, width, _WALL, course=0.17 * unit / min(height, width))
        floor = min(height - 1, round(height / 2 + _FLOOR * unit))
        below = height - floor
        image[floor:] = woven(rng, below, width, _CLOTH, thread=0.04 * unit / min(below, width))
        image = self._lit(image, unit)
        self._sign(image, rng, unit)
        self._picture(image, rng, unit)
        return image

    def _lit(self, image: Pixels, unit: float) -> Pixels:
        x, y = _stage_axes(image, unit)
        lamp = float(x[0, 0]) / 2
        glow = 1 / (1 + 0.45 * ((x - lamp) ** 2 * 0.6 + (y + 0.75) ** 2))
        corner = np.clip(1 - np.abs(y - _FLOOR) / 0.3, 0, 1) ** 2 * 0.3  # light does not get into the corner
        light = (0.42 + 0.84 * glow - corner)[..., None] * np.array([1.06, 0.98, 0.92])
        lit: Pixels = np.clip(image * light, 0, 255).astype(np.uint8)
        return lit

    def _sign(self, image: Pixels, rng: np.random.Generator, unit: float) -> None:
        left, top, right, bottom = self.layout.sign
        plate = colourise(0.78 + 0.22 * noise_field(rng, *image.shape[:2], cells=6), PALETTES["paper"])
        _panel(image, plate, unit, self.layout.sign, round_by=0.06)
        to_stage = 2 * unit / min(image.shape[:2])  # a label measures by the picture it is written on
        middle, tall = (left + right) / 2, bottom - top
        for text, share, size, ink in (
            ("tokenreel", 0.4, 0.29, _NIGHT),
            ("pixels · patches · tokens", 0.78, 0.11, _CORAL),
        ):
            y = (top + share * tall) * to_stage
            write(image, Label(text=text, x=middle * to_stage, y=y, size=size * to_stage, colour=ink, anchor="middle"))

    def _picture(self, image: Pixels, rng: np.random.Generator, unit: float) -> None:
        height, width, _ = image.shape
        wood = colourise(0.3 + 0.7 * noise_field(rng, height, width, cells=10), ((120, 78, 40), (240, 200, 120)))
        _panel(image, wood, unit, self.layout.picture, round_by=0.02)
        left, top, right, bottom = self.layout.picture
        edges = np.array((left + 0.07, top + 0.07, right - 0.07, bottom - 0.07))
        left, top, right, bottom = np.rint(edges * unit + np.array((width, height, width, height)) / 2).astype(int)
        image[top:bottom, left:right] = _landscape(rng, bottom - top, right - left)


def _stage_axes(image: Pixels, unit: float) -> tuple[Floats, Floats]:
    """Stage coordinates of the pixels: x (1, W) and y (H, 1)."""
    height, width, _ = image.shape
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2)) / np.float32(unit)
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5 - height / 2)) / np.float32(unit)
    return x[None, :], y[:, None]


def _landscape(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A sun in a smooth evening sky above hills of dead leaves: uint8 (H, W, 3)."""
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None]
    image = colourise(np.broadcast_to(y * np.float32(1.5), (height, width)), PALETTES["dusk"])
    image = composite(image, coverage("circle", height=height, width=width, x=0.36 * width, y=0.46 * height,
                                      radius=0.15 * height), (255, 236, 190))  # fmt: skip
    hills = 0.62 + 0.09 * np.sin(x * 7 + 0.6) + 0.04 * np.sin(x * 17)
    return composite(
        image, cover(((hills - y) * height).astype(np.float32)), dead_leaves(rng, height, width, PALETTES["coast"][:4])
    )


def _panel(
    image: Pixels, plate: Pixels, unit: float, box: tuple[float, float, float, float], *, round_by: float
) -> None:
    """Lays ``plate`` onto the image inside a rounded box given in stage units, with a soft shadow below it."""
    x, y = _stage_axes(image, unit)
    left, top, right, bottom = box

    def distance(shift: float) -> Floats:
        outside_x = np.abs(x - (shift + (left + right) / 2)) - ((right - left) / 2 - round_by)
        outside_y = np.abs(y - (shift + (top + bottom) / 2)) - ((bottom - top) / 2 - round_by)
        corner = np.sqrt(np.maximum(outside_x, 0) ** 2 + np.maximum(outside_y, 0) ** 2)
        inside = np.minimum(np.maximum(outside_x, outside_y), 0)
        pixels: Floats = ((corner + inside - round_by) * unit).astype(np.float32)
        return pixels

    image[:] = composite(image, cover(distance(0.05), 0.14 * unit) * np.float32(0.55), (12, 12, 28))
    image[:] = composite(image, cover(distance(0.0)), plate)


@dataclass(frozen=True, slots=True)
class _Reel:
    """The face of a film reel: a rim, five windows, a hub."""

    def draw(self, height: int, width: int) -> Pixels:
        """uint8 (height, width, 3)."""
        r, middle = min(height, width) / 2, (height / 2, width / 2)
        image = np.full((height, width, 3), (214, 216, 226), np.uint8)

        def disc(radius: float, colour: Colour, out: float = 0.0, turn: float = 0.0) -> None:
            mask = coverage("circle", height=height, width=width, radius=radius * r,
                            x=middle[1] + out * r * math.sin(turn), y=middle[0] - out * r * math.cos(turn))  # fmt: skip
            image[:] = composite(image, mask, colour)

        disc(0.93, (170, 174, 192))
        disc(0.9, (198, 202, 214))
        for i in range(5):
            disc(0.25, (120, 124, 148), out=0.56, turn=2 * math.pi * i / 5)
            disc(0.225, (44, 46, 74), out=0.565, turn=2 * math.pi * i / 5)
        disc(0.2, (120, 124, 148))
        disc(0.17, _CORAL)
        disc(0.06, _NIGHT)
        return image
