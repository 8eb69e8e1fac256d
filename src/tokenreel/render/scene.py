"""Scenes: a background, actors that move on it, a camera, labels; and the frames they make.

Positions and sizes are in stage units: the shorter side of the picture spans [-1, 1] at zoom 1, the origin is the
middle, x runs right, y runs down. Time runs from 0 (first frame) towards 1 (just after the last frame), so that a
motion of whole turns loops.

Letters: T frames, H W pixels, h w the box around an actor in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from tokenreel.errors import InputError
from tokenreel.types import Clip

from .colours import Colour
from .motion import STILL, Motion, Pose
from .shapes import SHAPES, blend, cover, per_channel
from .text import Label, write
from .textures import Paint, Solid

__all__ = ["Actor", "Scene", "frames", "render", "seen"]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

_CHUNK_PIXELS = 1 << 17  # frames are drawn together up to this many pixels: numpy's overhead is paid once for all
_DARK = Solid((40, 44, 52))
_SHADOW = (0.07, 0.1, 0.12)  # right, down and softness of a full shadow, in stage units


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One thing in a scene.

    Attributes:
        shape: a name in ``SHAPES``.
        size: radius of the circle around it, in stage units.
        x, y: where it begins, in stage units.
        angle: how it is turned at the beginning, clockwise, in radians.
        motion: what it does from there.
        colour: RGB [0, 255]; unused where it has a texture.
        texture: painted on it, moving and turning with it.
        shade: how strongly light from above shapes it, [0, 1]; 0 is flat.
        shadow: how dark and far its shadow is, [0, 1].
        opacity: [0, 1].
        softness: width of its blurred edge, in stage units.
        squash: its height is multiplied by this (after turning), above 0, at most 1.
    """

    shape: str
    size: float
    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0
    motion: Motion = STILL
    colour: Colour = (245, 243, 238)
    texture: Paint | None = None
    shade: float = 0.0
    shadow: float = 0.0
    opacity: float = 1.0
    softness: float = 0.0
    squash: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise InputError(f"Actor.shape must be one of {', '.join(SHAPES)}, got {self.shape!r}")
        if not self.size > 0:
            raise InputError(f"Actor.size must be above 0, got {self.size}")
        if not 0 < self.squash <= 1:
            raise InputError(f"Actor.squash must be above 0 and at most 1, got {self.squash}")

    def cast_shadow(self) -> Actor:
        """Its shadow, itself an actor: dark, soft, to the lower right."""
        right, down, softness = (part * math.sqrt(self.shadow) for part in _SHADOW)
        return replace(
            self,
            x=self.x + right,
            y=self.y + down,
            colour=(14, 14, 30),
            texture=None,
            shade=0.0,
            shadow=0.0,
            opacity=0.55 * self.shadow * self.opacity,
            softness=softness,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is to be seen, as a value: equal scenes give equal bytes.

    Attributes:
        height, width: of a frame, in pixels.
        num_frames, fps: of the clip.
        background: fills all that the camera will see.
        actors: drawn in this order, the last on top.
        labels: drawn above all actors.
        camera: x and y of its pose are where it looks, scale is its zoom; its angle is not used.
    """

    height: int
    width: int
    num_frames: int = 16
    fps: float = 8.0
    background: Paint = _DARK
    actors: tuple[Actor, ...] = ()
    labels: tuple[Label, ...] = ()
    camera: Motion = STILL

    def __post_init__(self) -> None:
        for name in ("height", "width", "num_frames"):
            if getattr(self, name) < 1:
                raise InputError(f"Scene.{name} must be at least 1, got {getattr(self, name)}")
        if not self.fps > 0:
            raise InputError(f"Scene.fps must be above 0, got {self.fps}")

    @property
    def unit(self) -> float:
        """Pixels in one stage unit at zoom 1."""
        return min(self.height, self.width) / 2

    def times(self) -> npt.NDArray[np.float64]:
        """float64 (T,): the time of every frame, in [0, 1)."""
        return np.arange(self.num_frames) / self.num_frames


def render(scene: Scene) -> Clip:
    """The whole clip: uint8 frames (T, H, W, 3)."""
    drawn = np.concatenate(list(_chunks(scene)))
    return Clip(
        frames_THWC=drawn,
        pts_seconds=np.arange(scene.num_frames) / scene.fps,
        fps=scene.fps,
        source="tokenreel.render",
    )


def frames(scene: Scene) -> Iterator[Pixels]:
    """The frames of ``render`` one by one, uint8 (H, W, 3), in memory that does not grow with their number."""
    for chunk in _chunks(scene):
        yield from chunk


def seen(scene: Scene) -> tuple[float, float]:
    """Half the width and half the height of all that the camera sees, about the origin, in stage units."""
    pose = scene.camera(scene.times())
    half_x, half_y = (side / 2 / scene.unit / pose.scale for side in (scene.width, scene.height))
    return float((np.abs(pose.x) + half_x).max()), float((np.abs(pose.y) + half_y).max())


def _chunks(scene: Scene) -> Iterator[Pixels]:
    """uint8 (T', H, W, 3), T' frames at a time."""
    at_once = max(1, _CHUNK_PIXELS // (scene.height * scene.width))
    t, camera = scene.times(), scene.camera(scene.times())
    backdrop = _Backdrop(scene, camera)
    cast = [_Cast.of(part, scene, t, camera) for actor in scene.actors for part in _with_shadow(actor)]
    for start in range(0, scene.num_frames, at_once):
        span = slice(start, min(start + at_once, scene.num_frames))
        drawn = backdrop.draw(span)
        for member in cast:
            member.draw_on(drawn, span)
        for label in scene.labels:
            for i, frame in enumerate(drawn):
                write(frame, label, start + i)
        yield drawn


def _with_shadow(actor: Actor) -> tuple[Actor, ...]:
    return (actor.cast_shadow(), actor) if actor.shadow > 0 else (actor,)


class _Backdrop:
    """The background as the camera sees it: painted once, cut out (and scaled) for every frame."""

    def __init__(self, scene: Scene, camera: Pose) -> None:
        self.size = scene.height, scene.width
        self.zoom = camera.scale
        moves = np.ptp(camera.x) > 0 or np.ptp(camera.y) > 0 or np.ptp(camera.scale) > 0
        if not moves and camera.scale[0] == 1:
            self.still: Pixels | None = scene.background.draw(*self.size)
            return
        self.still = None
        density = float(camera.scale.max()) * scene.unit  # painted as fine as the nearest view needs
        reach_x, reach_y = seen(scene)
        painted = scene.background.draw(math.ceil(2 * reach_y * density), math.ceil(2 * reach_x * density))
        self.image = Image.fromarray(painted)
        half_x, half_y = (side / 2 / scene.unit / camera.scale for side in (scene.width, scene.height))
        edges = (camera.x - half_x, camera.y - half_y, camera.x + half_x, camera.y + half_y)
        corner = np.array((*self.image.size, *self.image.size), np.float64)
        boxes = np.stack([edge * density for edge in edges], axis=-1) + corner / 2
        self.boxes = np.clip(boxes, 0, corner)  # rounding must not leave the picture

    def draw(self, span: slice) -> Pixels:
        """uint8 (T', H, W, 3), to be drawn upon."""
        count = span.stop - span.start
        if self.still is not None:
            return np.repeat(self.still[None], count, axis=0)
        height, width = self.size
        drawn = np.empty((count, height, width, 3), np.uint8)
        for i, box in enumerate(self.boxes[span].tolist()):
            drawn[i] = self.image.resize((width, height), Image.Resampling.BICUBIC, tuple(box))
        return drawn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cast:
    """An actor on its way through a scene: centre, radius and angle in pixels for every frame, and its paint."""

    actor: Actor
    x: Floats
    y: Floats
    radius: Floats
    angle: npt.NDArray[np.float64]
    softness: Floats
    swatch: Floats | None

    @classmethod
    def of(cls, actor: Actor, scene: Scene, t: npt.NDArray[np.float64], camera: Pose) -> _Cast:
        pose = actor.motion(t)
        pixels = scene.unit * camera.scale
        radius = actor.size * pose.scale * pixels
        swatch = None
        if actor.texture is not None:
            side = max(2, math.ceil(2 * float(radius.max())))
            swatch = actor.texture.draw(side, side).astype(np.float32)
        return cls(
            actor=actor,
            x=(scene.width / 2 + (actor.x + pose.x - camera.x) * pixels).astype(np.float32),
            y=(scene.height / 2 + (actor.y + pose.y - camera.y) * pixels).astype(np.float32),
            radius=radius.astype(np.float32),
            angle=actor.angle + pose.angle,
            softness=(actor.softness * pixels).astype(np.float32),
            swatch=swatch,
        )

    def draw_on(self, frames_THWC: Pixels, span: slice) -> None:
        """Draws the actor onto T' frames, touching only the box around it."""
        _, height, width, _ = frames_THWC.shape
        x, y, radius = self.x[span], self.y[span], self.radius[span]
        reach = float((radius + self.softness[span] / 2).max()) + 1
        h, w = min(height, math.ceil(2 * reach) + 1), min(width, math.ceil(2 * reach) + 1)
        left = np.clip(np.floor(x - reach), 0, width - w).astype(np.intp)
        top = np.clip(np.floor(y - reach), 0, height - h).astype(np.intp)
        right = (np.arange(w, dtype=np.float32) + np.float32(0.5) + (left - x)[:, None]).astype(np.float32)
        down = (np.arange(h, dtype=np.float32) + np.float32(0.5) + (top - y)[:, None]).astype(np.float32)
        alpha, colour = self._paint(
            right[:, None, :] / radius[:, None, None], down[:, :, None] / radius[:, None, None], span
        )
        corners = list(zip(range(len(x)), top.tolist(), left.tolist()))
        under = np.stack([frames_THWC[i, r : r + h, c : c + w] for i, r, c in corners])
        drawn = blend(under, colour, per_channel(alpha))
        for i, r, c in corners:
            frames_THWC[i, r : r + h, c : c + w] = drawn[i]

    def _paint(self, right: Floats, down: Floats, span: slice) -> tuple[Floats, Floats]:
        """Alpha (T', h, w) and colour (T', h, w, 3) or (h, w, 3) at these points, given in radii from the centre."""
        radius = self.radius[span][:, None, None]
        if self.actor.squash < 1:
            down = down / np.float32(self.actor.squash)
        cos = np.cos(self.angle[span]).astype(np.float32)[:, None, None]
        sin = np.sin(self.angle[span]).astype(np.float32)[:, None, None]
        u, v = right * cos + down * sin, down * cos - right * sin
        distance = SHAPES[self.actor.shape](u, v)
        if self.actor.softness > 0:  # a blurred corner must not reach out of the box
            distance = np.maximum(distance, np.sqrt(u * u + v * v) - np.float32(1))
        alpha = cover(distance * radius, self.softness[span][:, None, None]) * np.float32(self.actor.opacity)
        if self.swatch is None:
            colour = np.full((*alpha.shape[1:], 3), self.actor.colour, np.float32)
        else:
            colour = _sampled(self.swatch, u, v)
        if self.actor.shade > 0:
            colour = np.clip(colour * per_channel(_light(right, down, distance, self.actor.shade)), 0, 255)
        return alpha, colour


def _light(right: Floats, down: Floats, distance: Floats, shade: float) -> Floats:
    """A factor on the colour: brighter to the upper left, darker towards the outline."""
    slope = np.float32(-0.28 * shade) * (right + np.float32(1.4) * down)
    rim = np.clip(np.float32(1) + distance * np.float32(5), 0, 1)
    light: Floats = np.float32(1 + 0.06 * shade) + slope - np.float32(0.18 * shade) * rim * rim
    return light


def _sampled(swatch: Floats, u: Floats, v: Floats) -> Floats:
    """The swatch (n, n, 3), laid over [-1, 1] x [-1, 1], at points u, v of shape (...): bilinear, (..., 3)."""
    side = len(swatch)
    half, last = np.float32(side / 2), np.float32(side - 1)
    x, y = (np.clip(p * half + (half - np.float32(0.5)), np.float32(0), last) for p in (u, v))
    left, top = np.minimum(np.floor(x), last - 1), np.minimum(np.floor(y), last - 1)
    fx, fy = per_channel(x - left), per_channel(y - top)
    corner = top.astype(np.intp) * side + left.astype(np.intp)
    texels = swatch.reshape(-1, 3)
    # The lower right neighbour of the last corner is the last texel: no index leaves the swatch.
    north_west, north_east, south_west, south_east = (
        texels.take(corner + step, axis=0) for step in (0, 1, side, side + 1)
    )
    north = north_west + (north_east - north_west) * fx
    south = south_west + (south_east - south_west) * fx
    mixed: Floats = north + (south - north) * fy
    return mixed
