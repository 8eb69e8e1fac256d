"""Rotation and mirroring that a player must apply, as a stream's display matrix says."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

__all__ = ["Matrix", "display_matrix", "oriented"]

Matrix = tuple[int, int, int, int]
"""(a, b, c, d), each -1, 0 or 1: the pixel (x, y) is shown at (ax + cy, bx + dy)."""

_ORIENTATIONS = {(a, 0, 0, d) for a in (1, -1) for d in (1, -1)} | {(0, b, c, 0) for b in (1, -1) for c in (1, -1)}


def display_matrix(frame: VideoFrame) -> Matrix | None:
    """The frame's display matrix; None if it is shown as it is coded, or turned by no multiple of 90 degrees."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d = struct.unpack("<5i", bytes(data)[:20])
    limit = max(abs(value) for value in (a, b, c, d)) // 8  # rounded rotations leave a little in the other places
    sign_a, sign_b, sign_c, sign_d = (0 if abs(value) <= limit else (1 if value > 0 else -1) for value in (a, b, c, d))
    signs = sign_a, sign_b, sign_c, sign_d
    return signs if signs in _ORIENTATIONS and signs != (1, 0, 0, 1) else None


def oriented(pixels_HWC: npt.NDArray[np.uint8], matrix: Matrix) -> npt.NDArray[np.uint8]:
    """The pixels as they are to be shown."""
    a, b, c, d = matrix
    if a:
        turned = pixels_HWC[::d, ::a]
    else:
        turned = pixels_HWC.transpose(1, 0, 2)[::b, ::c]
    return np.ascontiguousarray(turned)
