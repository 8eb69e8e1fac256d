"""Textures with the statistics of natural pictures, each a pure function of (rng, height, width, palette).

Every function gives uint8 (H, W, 3); equal generators give equal bytes. Edges are anti-aliased where they are drawn.
``Texture`` names one with its seed, so that a scene can hold it as a value.

Letters: H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tokenreel.errors import InputError

from .colours import PALETTES, Colour, colourise

__all__ = [
    "TEXTURES",
    "Paint",
    "Solid",
    "Texture",
    "bricks",
    "checker",
    "dead_leaves",
    "dots",
    "fractal_noise",
    "gradient",
    "noise_field",
    "stripes",
    "value_noise",
    "woven",
]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Palette = Sequence[Colour]


class Paint(Protocol):
    """Whatever can fill a picture of a given size."""

    def draw(self, height: int, width: int) -> Pixels:
        """uint8 (height, width, 3), the same bytes every time."""
        ...


@dataclass(frozen=True, slots=True)
class Solid:
    """One colour everywhere."""

    colour: Colour

    def draw(self, height: int, width: int) -> Pixels:
        """uint8 (height, width, 3)."""
        return np.full((height, width, 3), self.colour, np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Texture:
    """A texture as a value: its kind in ``TEXTURES``, its colours and its seed."""

    kind: str
    palette: tuple[Colour, ...] = PALETTES["dusk"]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in TEXTURES:
            raise InputError(f"Texture.kind must be one of {', '.join(TEXTURES)}, got {self.kind!r}")

    def draw(self, height: int, width: int) -> Pixels:
        """uint8 (height, width, 3), the same bytes every time."""
        return TEXTURES[self.kind](np.random.default_rng(self.seed), height, width, self.palette)


def _two(rng: np.random.Generator, palette: Palette) -> list[Colour]:
    """Two different colours of the palette (the one there is, twice, if it is one)."""
    if len(palette) < 2:
        return [palette[0], palette[0]]
    return [palette[i] for i in rng.choice(len(palette), 2, replace=False)]


def _axes(height: int, width: int, angle: float) -> tuple[Floats, Floats]:
    """Pixel centres along and across ``angle``, in pixels from the middle: two float32 (H, W)."""
    x = np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)
    y = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2))[:, None]
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _fraction(x: Floats) -> Floats:
    return x - np.floor(x)


def _band(x: Floats, period: float, share: float = 0.5) -> Floats:
    """1 on the middle ``share`` of every period, 0 elsewhere, with edges one pixel wide: float32."""
    outside = np.abs(_fraction(x * np.float32(1 / period)) - np.float32(0.5)) - np.float32(share / 2)
    share_of_pixel: Floats = np.clip(np.float32(0.5) - outside * np.float32(period), np.float32(0), np.float32(1))
    return share_of_pixel


def _period(rng: np.random.Generator, height: int, width: int, low: float, high: float) -> float:
    """A length in pixels between these parts of the shorter side, at least 3."""
    return max(3.0, rng.uniform(low, high) * min(height, width))


def gradient(rng: np.random.Generator, height: int, width: int, palette: Palette) -> Pixels:
    """A smooth run through the palette, straight or round: uint8 (H, W, 3)."""
    along, across = _axes(height, width, rng.uniform(0, 2 * math.pi))
    if rng.random() < 0.5:
        field = along
    else:
        cx, cy = np.float32(rng.uniform(-0.4, 0.4) * width), np.float32(rng.uniform(-0.4, 0.4) * height)
        field = np.sqrt((along - cx) ** 2 + (across - cy) ** 2)
    field -= field.min()
    return colourise(field / np.float32(max(float(field.max()), 1e-6)), palette)


def stripes(rng: np.random.Generator, height: int, width: int, palette: Palette) -> Pixels:
    """Straight stripes of two colours at any angle: uint8 (H, W, 3)."""
    along, _ = _axes(height, width, rng.uniform(0, math.pi))
    period = _period(rng, height, width, 0.06, 0.25)
    return colourise(_band(along + np.float32(rng.uniform(0, period)), period), _two(rng, palette))


def checker(rng: np.random.Generator, height: int, width: int, palette: Palette) -> Pixels:
    """A checkerboard of two colours at any angle: uint8 (H, W, 3)."""
    along, across = _axes(height, width, rng.uniform(0, math.pi / 2))
    period = _period(rng, height, width, 0.1, 0.4)
    a, b = (_band(axis + np.float32(rng.uniform(0, period)), period) for axis in (along, across))
    return colourise(a + b - np.float32(2) * a * b, _two(rng, palette))


def dots(rng: np.random.Generator, height: int, width: int, palette: Palette) -> Pixels:
    """Round dots on a turned square lattice: uint8 (H, W, 3)."""
    along, across = _axes(height, width, rng.uniform(0, math.pi / 2))
    period = _period(rng, height, width, 0.07, 0.2)
    du, dv = (
        _fraction(axis * np.float32(1 / period) + np.float32(rng.random())) - np.float32(0.5)
        for axis in (along, across)
    )
    distance = (np.sqrt(du * du + dv * dv) - np.float32(rng.uniform(0.2, 0.38))) * np.float32(period)
    return colourise(np.clip(np.float32(0.5) - distance, np.float32(0), np.float32(1)), _two(rng, palette))


def noise_field(rng: np.random.Generator, height: int, width: int, *, cells: float = 4, octaves: int = 5) -> Floats:
    """Value noise: ``octaves`` random lattices, each twice as fine and half as strong as the last.

    Args:
        cells: lattice cells along the shorter side in the coarsest octave.

    Returns:
        float32 (H, W) in [0, 1].
    """
    field = np.zeros((height, width), np.float32)
    strength, total = 1.0, 0.0
    for octave in range(octaves):
        across = cells * 2**octave
        rows, columns = (max(2, math.ceil(across * side / min(height, width)) + 1) for side in (height, width))
        if octave and rows > 2 * height and columns > 2 * width:
            break  # finer than a pixel: it would only average away
        lattice = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
        field += np.float32(strength) * np.asarray(lattice.resize((width, height), Image.Resampling.BICUBIC))
        total += strength
        strength *= 0.5
    # The sum of many octaves crowds about its middle; stretch it and cut the rare rest.
    stretched: Floats = np.clip((field / np.float32(total)) * np.float32(1.5) - np.float32(0.25), 0, 1)
    return stretched


def value_noise(rng: np.random.Generator, height: int, width: int, palette: Palette) -> Pixels:
    """Clouds: value noise of several octaves, coloured by the palette: uint8 (H, W, 3)."""
    return colourise(noise_field(rng, height, width, cells=rng.uniform(2, 6)), palette)


def fractal_noise(rng: np.random.Generator, height: int, width: int, palette: Palette) -> Pixels:
    """Gaussian noise whose amplitude falls as 1 / frequency, as in natural pictures: uint8 (H, W, 3)."""
    fy, fx = np.fft.fftfreq(height)[:, None].astype(np.float32), np.fft.rfftfreq(width).astype(np.float32)
    frequency = np.sqrt(fy * fy + fx * fx)
    frequency[0, 0] = np.inf  # no mean
    white = rng.standard_normal((2, *frequency.shape), dtype=np.float32) / frequency
    field = np.fft.irfft2(white[0] + 1j * white[1], s=(height, width)).astype(np.float32)
    spread = np.float32(max(float(field.std()), 1e-12))
    return colourise(np.clip(field / (np.float32(5) * spread) + np.float32(0.5), 0, 1), palette)


def dead_leaves(rng: np.random.Generator, height: int, width: int, palette: Palette) -> Pixels:
    """Discs of scale-free sizes that hide one another, the simplest model of a natural picture: uint8 (H, W, 3).

    The radii follow r**-3 (Ruderman 1997; Lee, Mumford and Huang 2001), so that no size is special.
    """
    colours = colourise(rng.random((1, 256), dtype=np.float32), palette)[0]
    scale = 2  # drawn twice as large and averaged: Pillow draws hard edges
    smallest, largest = 0.02, 0.5
    count = 700
    # Inverse of the distribution function of a density r**-3 between the smallest and the largest radius.
    u = rng.random(count)
    radii = (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5 * min(height, width) * scale
    xs, ys = rng.random(count) * width * scale, rng.random(count) * height * scale
    image = Image.new("RGB", (width * scale, height * scale), tuple(int(c) for c in colours[0]))
    pen = ImageDraw.Draw(image)
    fills = colours[rng.integers(0, 256, count)].tolist()
    for x, y, r, fill in zip(xs.tolist(), ys.tolist(), radii.tolist(), fills):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(fill))
    return np.asarray(image.reduce(scale))


def bricks(
    rng: np.random.Generator, height: int, width: int, palette: Palette, *, course: float | None = None
) -> Pixels:
    """A brick wall: every brick its own shade, bevelled, in mortar, with grain: uint8 (H, W, 3).

    ``course`` is the height of a brick as a part of the shorter side; drawn at random unless given.
    """
    low, high = (0.09, 0.16) if course is None else (course, course)
    course = _period(rng, height, width, low, high)
    length, joint = course * 2.4, max(1.0, course * 0.1)
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(course)
    row = np.floor(y).astype(np.intp)
    x = np.arange(width, dtype=np.float32) / np.float32(length) + np.float32(0.5) * (row % 2).astype(np.float32)
    column = np.floor(x).astype(np.intp)
    shade = rng.random((int(row.max()) + 1, int(column.max()) + 1), dtype=np.float32)[row, column]
    along, across = (np.float32(0.5) - np.abs(_fraction(x) - 0.5)) * length, (0.5 - np.abs(_fraction(y) - 0.5)) * course
    inside = np.minimum(along, across).astype(np.float32) - np.float32(joint / 2)  # pixels to the edge of the brick
    body = np.clip(inside + np.float32(0.5), 0, 1)
    grain = noise_field(rng, height, width, cells=min(height, width) / 6, octaves=3)
    lit = np.clip(inside / np.float32(course * 0.18), 0, 1)
    field = np.float32(0.25) + np.float32(0.38) * shade + np.float32(0.27) * grain + np.float32(0.1) * lit
    return colourise(body * field + (1 - body) * (np.float32(0.12) * grain), palette)


def woven(
    rng: np.random.Generator, height: int, width: int, palette: Palette, *, thread: float | None = None
) -> Pixels:
    """Plain weave: threads of two colours that pass over and under each other: uint8 (H, W, 3).

    ``thread`` is the width of one as a part of the shorter side; drawn at random unless given.
    """
    low, high = (0.025, 0.06) if thread is None else (thread, thread)
    along, across = _axes(height, width, rng.choice([0.0, math.pi / 4]))
    period = _period(rng, height, width, low, high)
    u, v = (axis * np.float32(1 / period) for axis in (along, across))
    fu, fv = _fraction(u) - np.float32(0.5), _fraction(v) - np.float32(0.5)
    over = (np.floor(u) + np.floor(v)) % 2 < 0.5  # the thread that runs along is on top
    across_thread, along_thread = np.where(over, fv, fu), np.where(over, fu, fv)
    light = np.float32(1) - np.float32(2.2) * across_thread**2 - np.float32(0.9) * along_thread**2
    uneven = noise_field(rng, height, width, cells=8, octaves=4)
    lit = np.clip(light * (np.float32(0.7) + np.float32(0.5) * uneven), 0, 1).astype(np.float32, copy=False)
    warp, weft = (colourise(lit, ((r // 3, g // 3, b // 3), (r, g, b))) for r, g, b in _two(rng, palette))
    return np.where(over[..., None], warp, weft)


TEXTURES: dict[str, Callable[[np.random.Generator, int, int, Palette], Pixels]] = {
    "dead_leaves": dead_leaves,
    "gradient": gradient,
    "value_noise": value_noise,
    "fractal_noise": fractal_noise,
    "checker": checker,
    "stripes": stripes,
    "bricks": bricks,
    "woven": woven,
    "dots": dots,
}
