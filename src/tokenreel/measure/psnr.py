"""Peak signal-to-noise ratio of 8-bit pictures, in dB."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["psnr_db", "squared_error"]


def squared_error(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Mean squared difference of two uint8 arrays, on the scale [0, 1]; exact integer sums."""
    difference = a.astype(np.int16) - b.astype(np.int16)
    flat = difference.reshape(-1).astype(np.int32)
    return float(np.dot(flat.astype(np.float64), flat)) / flat.size / 255.0**2


def psnr_db(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """-10 log10(MSE on [0, 1]); infinity for equal arrays.

    >>> psnr_db(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    -0.0
    """
    error = squared_error(a, b)
    return math.inf if error == 0 else -10 * math.log10(error)
