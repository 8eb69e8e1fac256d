"""One clip through a tokenizer and back, timed, as videos that metrics read.

Letters: C channels, T frames, H W pixels.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from tokenreel.errors import InputError, MismatchError
from tokenreel.media.pixels import to_video
from tokenreel.tokenizers.base import Tokenizer
from tokenreel.types import Tokens

__all__ = ["RoundTrip", "Spent", "read_by", "round_trip", "unit_video"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Spent:
    """Time that work took: on the clock, and on all threads of this process together."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall_seconds + other.wall_seconds, self.cpu_seconds + other.cpu_seconds)


@dataclass(frozen=True, slots=True, eq=False)
class RoundTrip:
    """A clip's tokens, what they decode to (float32 (C, T, H, W) in [0, 1], clamped), and the time of both ways."""

    tokens: Tokens
    decoded_CTHW: Tensor
    encoding: Spent
    decoding: Spent


def round_trip(
    tokenizer: Tokenizer, frames_THWC: npt.NDArray[np.uint8], *, token_count: int | None = None
) -> RoundTrip:
    """Encode and decode one clip.

    Args:
        token_count: ids a frame or clip, for tokenizers that leave the choice.

    Raises:
        InputError: a count is asked of a tokenizer that does not leave the choice.
        MismatchError: what comes back is of another size.
    """
    pixels, choice = read_by(tokenizer, frames_THWC), _choice(tokenizer, token_count)
    with torch.no_grad():
        (tokens,), encoding = _timed(lambda: tokenizer.encode([pixels], **choice))
        (video,), decoding = _timed(lambda: tokenizer.decode([tokens]))
    expected = (frames_THWC.shape[3], *frames_THWC.shape[:3])
    if tuple(video.shape) != expected:
        raise MismatchError(
            f"the tokenizer {tokenizer.name} was given a video {expected} and decodes it to {tuple(video.shape)}"
        )
    return RoundTrip(tokens, unit_video(video), encoding, decoding)


def _choice(tokenizer: Tokenizer, token_count: int | None) -> dict[str, Any]:
    if token_count is None:
        return {}
    if "token_counts" not in inspect.signature(tokenizer.encode).parameters:
        raise InputError(f"the tokenizer {tokenizer.name} does not leave the choice of a token count; leave it out")
    return {"token_counts": token_count}


def read_by(tokenizer: Tokenizer, frames_THWC: npt.NDArray[np.uint8]) -> Any:
    """uint8 (T, H, W, C) as this tokenizer reads it: (C, T, H, W), uint8 or float in [-1, 1]."""
    if tokenizer.pixels == "uint8":
        return rearrange(frames_THWC, "T H W C -> C T H W")
    return to_video(frames_THWC)


def unit_video(video_CTHW: Any) -> Tensor:
    """What a tokenizer gives (uint8 numpy, or float in [-1, 1]) as float32 (C, T, H, W) in [0, 1], clamped.

    Raises:
        InputError: it holds values that are not finite.
    """
    if isinstance(video_CTHW, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(video_CTHW)).to(torch.float32).div_(255)
    video = video_CTHW.detach().to(device="cpu", dtype=torch.float32)
    if not bool(video.isfinite().all()):
        raise InputError("the decoded video holds pixels that are not finite (NaN or infinity)")
    clamped: Tensor = ((video + 1) / 2).clamp_(0, 1)
    return clamped


def _timed(work: Callable[[], Result]) -> tuple[Result, Spent]:
    _finish_device()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    _finish_device()
    return result, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def _finish_device() -> None:
    """A GPU works on while the clock is read; wait for it."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
