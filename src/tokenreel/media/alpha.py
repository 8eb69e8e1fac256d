"""Transparent pixels over a background colour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = ["WHITE", "check_background", "composite"]

WHITE = (255, 255, 255)
"""The default background, what a page shows under a transparent picture."""


def check_background(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """The background itself, or an InputError."""
    if len(background) != 3 or not all(0 <= value <= 255 for value in background):
        raise InputError(f"background must be three values in [0, 255] (red, green, blue), got {background}")
    return background


def composite(pixels_HWA: npt.NDArray[np.uint8], background: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """uint8 RGBA (H, W, 4) over one colour -> uint8 (H, W, 3), rounded to nearest."""
    alpha = pixels_HWA[..., 3:].astype(np.uint32)
    if alpha.min() == 255:
        return np.ascontiguousarray(pixels_HWA[..., :3])
    under = np.array(background, np.uint32)
    mixed = pixels_HWA[..., :3] * alpha + under * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
