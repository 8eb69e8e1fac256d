"""Still pictures with the statistics of photographs: dead leaves with texture, 1/f noise, gradients, pages of text.

Each is a pure function of (rng, height, width) and gives uint8 (H, W, 3). Their amplitude falls about as 1 / frequency
(Field 1987; Ruderman and Bialek 1994), and their colours keep together, as those of one place in one light do.

Letters: H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .text import text_mask

__all__ = ["PLATES", "leaves", "mixture", "natural_colours", "noise", "page", "smooth"]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Plate = Callable[[np.random.Generator, int, int], Pixels]

_FINER = 2  # leaves are drawn this many times larger and averaged: Pillow draws hard edges
_RADII = (0.012, 0.55)  # smallest and largest leaf, in parts of the shorter side


def natural_colours(rng: np.random.Generator, count: int) -> Floats:
    """Colours of one place: a few hues, mostly dull, of very different lightness: float32 (count, 3) in [0, 255]."""
    families = int(rng.integers(2, 6))
    base = rng.random((families, 3), dtype=np.float32)
    gray = base.mean(axis=1, keepdims=True)
    vivid = rng.random((families, 1), dtype=np.float32) ** 2 * np.float32(1.1) + np.float32(0.12)
    base = np.float32(0.35) + gray * np.float32(0.3) + (base - gray) * vivid
    chosen = base[rng.integers(0, families, count)]
    light = rng.beta(1.2, 1.5, (count, 1)).astype(np.float32) * np.float32(1.7) + np.float32(0.1)
    own = rng.standard_normal((count, 3), dtype=np.float32) * np.float32(0.03)
    colours: Floats = np.clip((chosen * light + own) * np.float32(255), 0, 255)
    return colours


def _field(rng: np.random.Generator, height: int, width: int, *, slope: float = 1.0) -> Floats:
    """Gaussian noise with amplitude 1 / frequency**slope, mean 0 and standard deviation 1: float32 (H, W)."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    squares = fy * fy + fx * fx
    squares[0, 0] = np.inf  # no mean
    strength = (1 / np.sqrt(squares) if slope == 1.0 else squares ** (-slope / 2)).astype(np.float32)
    white = rng.standard_normal((2, *strength.shape), dtype=np.float32) * strength
    field = np.fft.irfft2(white[0] + 1j * white[1], s=(height, width)).astype(np.float32)
    spread: Floats = field / np.float32(max(float(field.std()), 1e-12))
    return spread


def _finished(picture: Floats) -> Pixels:
    pixels: Pixels = np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)
    return pixels


def smooth(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Light that changes slowly: a sum of a few broad gradients of colour."""
    y = (np.arange(height, dtype=np.float32) / np.float32(height) - np.float32(0.5))[:, None, None]
    x = (np.arange(width, dtype=np.float32) / np.float32(width) - np.float32(0.5))[None, :, None]
    ends = natural_colours(rng, 5)
    along, across = (ends[i + 1] - ends[0] for i in range(2))
    round_by = (x - np.float32(rng.uniform(-0.5, 0.5))) ** 2 + (y - np.float32(rng.uniform(-0.5, 0.5))) ** 2
    return _finished(ends[3] + x * along + y * across + round_by * (ends[4] - ends[3]))


def noise(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """1/f noise, as in rock, bark, water and clouds: one field of light and a weaker one of colour."""
    first, second, third = natural_colours(rng, 3)
    light = _field(rng, height, width, slope=float(rng.uniform(0.9, 1.3)))[..., None]
    tint = _field(rng, height, width, slope=1.3)[..., None]
    depth = np.float32(rng.uniform(18, 55))
    shade = first / np.float32(max(float(first.max()), 1.0))
    return _finished(second * np.float32(0.5) + np.float32(64) + light * depth * shade + tint * (third - second) * 0.15)


def leaves(rng: np.random.Generator, height: int, width: int, *, count: int = 900) -> Pixels:
    """Dead leaves: discs, blades and blocks of scale-free sizes that hide one another, each with its own texture.

    Radii follow r**-3 (Lee, Mumford and Huang 2001). Every leaf is shaded from one side to the other, and a share of
    them shows 1/f noise.
    """
    tall, wide = height * _FINER, width * _FINER
    index_HW = _leaf_indices(rng, tall, wide, count)
    colours = natural_colours(rng, count + 1)
    grain = np.where(rng.random(count + 1) < 0.6, rng.uniform(0, 22, count + 1), 0).astype(np.float32)
    slope_x, slope_y = (rng.normal(0, 22, (2, count + 1)) / min(tall, wide)).astype(np.float32)
    field = _field(rng, height, width).repeat(_FINER, 0).repeat(_FINER, 1)
    x = np.arange(wide, dtype=np.float32) - np.float32(wide / 2)
    y = (np.arange(tall, dtype=np.float32) - np.float32(tall / 2))[:, None]
    light = field * grain[index_HW] + slope_x[index_HW] * x + slope_y[index_HW] * y
    planes = [colours[:, c][index_HW] + light for c in range(3)]
    fine = _finished(np.stack(planes, axis=-1))
    return np.asarray(Image.fromarray(fine).reduce(_FINER))


def _leaf_indices(rng: np.random.Generator, height: int, width: int, count: int) -> npt.NDArray[np.intp]:
    """Which leaf is on top at each pixel: (H, W) in 0 (ground) .. ``count``."""
    smallest, largest = _RADII
    u = rng.random(count)
    radii = (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5 * min(height, width)
    xs, ys = rng.random(count) * width, rng.random(count) * height
    kinds, angles, thin = rng.random(count), rng.random(count) * math.pi, rng.uniform(0.3, 1, count)
    image = Image.new("I", (width, height))
    pen = ImageDraw.Draw(image)
    cos, sin = np.cos(angles) * radii, np.sin(angles) * radii
    rows = zip(kinds.tolist(), xs.tolist(), ys.tolist(), radii.tolist(), thin.tolist(), cos.tolist(), sin.tolist())
    for leaf, (kind, x, y, r, t, c, s) in enumerate(rows, start=1):
        if kind < 0.45:
            pen.ellipse((x - r, y - r, x + r, y + r), fill=leaf)
        elif kind < 0.65:
            pen.ellipse((x - r, y - r * t, x + r, y + r * t), fill=leaf)
        elif kind < 0.85:  # a block
            a, b = (c + s * t, s - c * t), (c - s * t, s + c * t)
            pen.polygon([(x + a[0], y + a[1]), (x + b[0], y + b[1]), (x - a[0], y - a[1]), (x - b[0], y - b[1])], leaf)
        else:  # a blade
            pen.polygon([(x + c, y + s), (x - s * t, y + c * t), (x - c, y - s)], fill=leaf)
    return np.asarray(image, np.int32).astype(np.intp)


def page(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A page of printed words, in letters of one or two sizes, dark on light or light on dark."""
    dark, light = natural_colours(rng, 2) * np.float32(0.25), natural_colours(rng, 1)[0] * 0.2 + np.float32(200)
    paper, ink = (light, dark[0]) if rng.random() < 0.8 else (dark[0], light)
    cover = np.zeros((height, width), np.float32)
    side = min(height, width)
    top = rng.uniform(0, 0.05) * side
    while top < height:
        size = max(6.0, float(rng.choice([0.05, 0.07, 0.07, 0.14])) * side)
        mask, _, _ = text_mask(_words(rng, math.ceil(width / size * 2.2)), size_pixels=size)
        row, column = int(top), int(rng.uniform(0, 0.08) * width)
        fits = mask[: height - row, : width - column]
        region = cover[row : row + fits.shape[0], column : column + fits.shape[1]]
        np.maximum(region, fits, out=region)
        top += size * rng.uniform(1.2, 1.7)
    shade = _field(rng, height, width, slope=1.5)[..., None] * np.float32(rng.uniform(0, 6))
    return _finished(paper + (ink - paper) * cover[..., None] + shade)


def _words(rng: np.random.Generator, num_letters: int) -> str:
    """Words of random letters, vowels between consonants."""
    letters: list[str] = []
    while len(letters) < num_letters:
        for _ in range(int(rng.integers(1, 5))):
            letters += "bcdfghklmnprstvwz"[int(rng.integers(17))], "aeiou"[int(rng.integers(5))]
        letters.append(" " if rng.random() < 0.9 else "  ")
    said = "".join(letters)
    return said.capitalize() if rng.random() < 0.3 else said


def mixture(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Two other plates, each on its side of a winding border."""
    first, second = (int(i) for i in rng.choice(len(_PARTS), 2, replace=False))
    border = _field(rng, height, width, slope=1.6)
    mask = np.clip((border - np.float32(rng.uniform(-0.6, 0.6))) * np.float32(min(height, width) / 6), 0, 1)[..., None]
    a, b = (_PARTS[i](rng, height, width).astype(np.float32) for i in (first, second))
    return _finished(a + (b - a) * mask)


_PARTS: tuple[Plate, ...] = (leaves, noise, smooth, page)

PLATES: dict[str, Plate] = {"leaves": leaves, "noise": noise, "smooth": smooth, "page": page, "mixture": mixture}
