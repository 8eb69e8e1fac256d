"""The one door between uint8 frames (T, H, W, C) and float videos (C, T, H, W); resize, crop and pad stand beside it.

Outside: uint8 [0, 255]. Inside: float32, [-1, 1] (``signed``) or [0, 1] (``unit``). numpy in, numpy out; ``to_video``
and ``to_frames`` speak torch and import it only then.

Letters: T frames, H W pixels, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from einops import rearrange

from tokenreel.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = [
    "Range",
    "center_crop",
    "from_float",
    "pad_to_multiple",
    "parse_size",
    "random_crop",
    "resize",
    "resized_size",
    "to_float",
    "to_frames",
    "to_video",
]

Frames = npt.NDArray[np.uint8]
Range = Literal["signed", "unit"]
"""``signed``: [-1, 1], what models here read. ``unit``: [0, 1]."""


def to_float(pixels: Frames, *, range: Range = "signed", dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """uint8 [0, 255] of any shape to float; ``from_float`` inverts it exactly, from float16 too.

    >>> to_float(np.array([0, 255], np.uint8)).tolist()
    [-1.0, 1.0]
    """
    table = _table(range).astype(dtype)
    return table[pixels]


def from_float(values: npt.NDArray[Any], *, range: Range = "signed") -> Frames:
    """Float to uint8 [0, 255] of the same shape, clamped and rounded to nearest."""
    _check_range(range)
    scaled = values.astype(np.float32)
    scaled = (scaled + 1) * 127.5 if range == "signed" else scaled * 255
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def _table(range: Range) -> npt.NDArray[np.float32]:
    _check_range(range)
    levels = np.arange(256, dtype=np.float64)
    return (levels / 127.5 - 1 if range == "signed" else levels / 255).astype(np.float32)


def to_video(frames_THWC: Frames, *, range: Range = "signed") -> torch.Tensor:
    """uint8 (T, H, W, C) to a float32 tensor (C, T, H, W) in [-1, 1] (or [0, 1] with ``range="unit"``)."""
    import torch

    _check_range(range)
    frames = torch.from_numpy(np.ascontiguousarray(frames_THWC))
    video = rearrange(frames, "T H W C -> C T H W").to(torch.float32, memory_format=torch.contiguous_format)
    return video.div_(127.5).sub_(1) if range == "signed" else video.div_(255)


def to_frames(video_CTHW: torch.Tensor, *, range: Range = "signed") -> Frames:
    """A float tensor (C, T, H, W) to uint8 (T, H, W, C): clamped, rounded to nearest. Inverse of ``to_video``."""
    import torch

    _check_range(range)
    if video_CTHW.ndim != 4:
        raise InputError(f"a video must be (C, T, H, W), got shape {tuple(video_CTHW.shape)}")
    values = video_CTHW.detach().to(device="cpu", dtype=torch.float32)
    values = (values + 1) * 127.5 if range == "signed" else values * 255
    frames = values.clamp(0, 255).round().to(torch.uint8)
    return np.ascontiguousarray(rearrange(frames, "C T H W -> T H W C").numpy())


def _check_range(range: str) -> None:
    if range not in ("signed", "unit"):
        raise InputError(f"range must be 'signed' ([-1, 1]) or 'unit' ([0, 1]), got {range!r}")


def parse_size(text: str | int | tuple[int, int] | None) -> int | tuple[int, int] | None:
    """A size as people write it: ``256`` (the short side) or ``320x180`` (width x height, giving (180, 320)).

    >>> parse_size("256"), parse_size("320x180")
    (256, (180, 320))
    """
    if text is None:
        return None
    parts = [str(side) for side in reversed(text)] if isinstance(text, tuple) else str(text).lower().split("x")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in ((2,) if isinstance(text, tuple) else (1, 2)) or min(numbers) < 1:
        raise InputError(f"size must be the short side, such as 256, or width x height, such as 320x180; got {text!r}")
    return numbers[0] if len(numbers) == 1 else (numbers[1], numbers[0])


def resized_size(height: int, width: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) after a resize: ``size`` is the new short side (aspect kept) or (height, width)."""
    if size is None:
        return height, width
    if isinstance(size, tuple):
        return size
    short = min(height, width)
    return max(1, round(height * size / short)), max(1, round(width * size / short))


def resize(frames_THWC: Frames, size: int | tuple[int, int] | None) -> Frames:
    """Antialiased bicubic resize to a short side or to (height, width); returns the input where nothing changes."""
    from PIL import Image

    height, width = frames_THWC.shape[1:3]
    new_height, new_width = resized_size(height, width, size)
    if (new_height, new_width) == (height, width):
        return frames_THWC
    resized = np.empty((len(frames_THWC), new_height, new_width, 3), np.uint8)
    for index, frame in enumerate(frames_THWC):
        resized[index] = np.asarray(Image.fromarray(frame).resize((new_width, new_height), Image.Resampling.BICUBIC))
    return resized


def center_crop(frames_THWC: Frames, height: int, width: int) -> Frames:
    """The middle ``height`` x ``width`` of each frame (a view)."""
    return _crop(frames_THWC, height, width, 0.5, 0.5)


def random_crop(frames_THWC: Frames, height: int, width: int, *, rng: np.random.Generator) -> Frames:
    """The same random window of every frame (a view); equal generator state, equal window."""
    return _crop(frames_THWC, height, width, rng.random(), rng.random())


def _crop(frames: Frames, height: int, width: int, down: float, right: float) -> Frames:
    full_height, full_width = frames.shape[1:3]
    if not (1 <= height <= full_height and 1 <= width <= full_width):
        raise InputError(f"cannot crop {width}x{height} out of {full_width}x{full_height}; resize first")
    top = int(down * (full_height - height + 1)) if down != 0.5 else (full_height - height) // 2
    left = int(right * (full_width - width + 1)) if right != 0.5 else (full_width - width) // 2
    return frames[:, top : top + height, left : left + width]


def pad_to_multiple(frames_THWC: Frames, multiple: tuple[int, int, int]) -> Frames:
    """Repeat the last frame, row and column until (T, H, W) are multiples; the input itself where they are already."""
    pads = [(0, -size % step) for size, step in zip(frames_THWC.shape[:3], multiple)]
    if not any(after for _, after in pads):
        return frames_THWC
    return np.pad(frames_THWC, [*pads, (0, 0)], mode="edge")
