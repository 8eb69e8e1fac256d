"""Tokens that are given before generation: frames and seconds as whole grid steps, and what ``sample`` is told of them.

Letters: B rows, L tokens, C channels, T frames, H W pixels, t h w grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from tokenreel.errors import InputError, MismatchError
from tokenreel.tokenizers.base import Tokenizer
from tokenreel.types import Grid, Tokens

__all__ = ["Known", "Timing", "ids_of", "prime", "prime_frames"]


class Known(NamedTuple):
    """What ``sample`` is given: ``sample(..., known_ids=known.ids_BL, is_masked=known.is_masked_BL)``.

    Attributes:
        ids_BL: int64 (B, L); 0 where nothing is known.
        is_masked_BL: bool (B, L), True = to be decided.
    """

    ids_BL: Tensor
    is_masked_BL: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How many frames the steps of a grid stand for: the first one may stand for fewer than the others.

    >>> causal = Timing(first_frames=1, step_frames=2)
    >>> causal.steps(17), causal.frames(9), causal.whole(4)
    (9, 17, 3)
    """

    first_frames: int
    step_frames: int

    def __post_init__(self) -> None:
        if not 1 <= self.first_frames <= self.step_frames:
            raise InputError(
                f"Timing.first_frames must lie in [1, step_frames], got {self.first_frames} of {self.step_frames}"
            )

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Of a tokenizer's steps; steps that are coded as one piece count as one, as in a generator's grid."""
        step_frames = tokenizer.patch_size[0] * tokenizer.segment_steps
        return cls(
            first_frames=tokenizer.first_frames if tokenizer.segment_steps == 1 else step_frames,
            step_frames=step_frames,
        )

    def steps(self, num_frames: int) -> int:
        """Steps that cover so many frames; the last may be padded."""
        _check_frames(num_frames)
        return 1 + max(0, -(-(num_frames - self.first_frames) // self.step_frames))

    def frames(self, steps: int) -> int:
        """Frames that so many whole steps stand for."""
        return 0 if steps < 1 else self.first_frames + (steps - 1) * self.step_frames

    def whole(self, num_frames: int) -> int:
        """The largest number of frames, at most ``num_frames``, that fills whole steps; 0 if not one is filled."""
        if num_frames < self.first_frames:
            return 0
        return num_frames - (num_frames - self.first_frames) % self.step_frames

    def step_of(self, frame: int) -> int:
        """The step that holds a frame, both counted from 0."""
        return self.steps(frame + 1) - 1

    def frames_in(self, seconds: float, fps: float) -> int:
        """The nearest number of frames that lasts ``seconds`` and fills whole steps, at least one step."""
        if not seconds > 0 or not fps > 0:
            raise InputError(f"seconds and fps must be above 0, got {seconds} and {fps}")
        wanted = round(seconds * fps)
        below = max(self.first_frames, self.whole(wanted))
        above = below + self.step_frames
        return above if above - wanted < wanted - below else below

    def check_whole(self, num_frames: int, name: str) -> None:
        """InputError unless so many frames fill whole steps; the nearest numbers are told."""
        below = self.whole(num_frames)
        if num_frames < 1 or below != num_frames:
            near = f"{below} or {below + self.step_frames}" if below else f"{self.first_frames}"
            raise InputError(
                f"{name} must fill whole steps of the grid ({self.first_frames} frame(s), then {self.step_frames} a "
                f"step), got {num_frames}; take {near}"
            )


def prime(ids_Bl: Tensor, *, grid: Grid) -> Known:
    """The first steps of a grid as known; the rest is to be decided.

    Args:
        ids_Bl: int64 (B, k * h * w), the ids of the first k < t steps. Those of a causal tokenizer must have been
            encoded as the start of a clip, whose first step is one frame: ``prime_frames`` sees to it.
        grid: of the whole.

    Raises:
        InputError: the ids are not whole steps, or fill the grid.
    """
    cells = grid.h * grid.w
    if ids_Bl.ndim != 2 or ids_Bl.is_floating_point() or not ids_Bl.shape[1] or ids_Bl.shape[1] % cells:
        raise InputError(
            f"known ids must be int64 (B, k * {cells}), whole steps of the grid {grid}, got {ids_Bl.dtype} "
            f"{tuple(ids_Bl.shape)}"
        )
    num, known = ids_Bl.shape
    if known >= grid.num_cells:
        raise InputError(f"{known // cells} known steps leave none to decide in the grid {grid}; take a longer grid")
    ids_BL = torch.zeros(num, grid.num_cells, dtype=torch.int64, device=ids_Bl.device)
    ids_BL[:, :known] = ids_Bl
    is_masked_BL = torch.ones_like(ids_BL, dtype=torch.bool)
    is_masked_BL[:, :known] = False
    return Known(ids_BL, is_masked_BL)


def prime_frames(tokenizer: Tokenizer, videos: Sequence[Any], *, grid: Grid) -> Known:
    """Frames, encoded as clips of their own, as the first steps of a grid: continuation, or image to video.

    One frame primes a tokenizer whose first frame stands alone. Encoded as a start, the ids are those that this
    tokenizer gives to the frames: for a causal one they do not depend on what follows.

    Args:
        tokenizer: of the generator's ids.
        videos: (3, T, H, W) as ``encode`` takes them, of one T that fills whole steps.
        grid: of what is generated, these steps included.
    """
    timing = Timing.of(tokenizer)
    for video in videos:
        timing.check_whole(int(video.shape[1]), "the number of primed frames")
    tokens = tokenizer.encode(videos)
    cells = grid.h * grid.w
    for item, video in zip(tokens, videos):
        steps = timing.steps(int(video.shape[1]))
        if item.num_tokens != steps * cells or (
            item.layout == "grid" and (item.grid.h, item.grid.w) != (grid.h, grid.w)
        ):
            raise MismatchError(
                f"frames of {video.shape[3]}x{video.shape[2]} become {item.num_tokens} ids (grid {item.grid}), the "
                f"grid {grid} has {cells} a step; resize the frames"
            )
    return prime(ids_of(tokens), grid=grid)


def ids_of(tokens: Sequence[Tokens]) -> Tensor:
    """The ids of clips that have equally many, int64 (B, L)."""
    lengths = {item.num_tokens for item in tokens}
    if len(lengths) != 1:
        raise InputError(f"clips of one batch must have equally many ids, got {sorted(lengths) or 'no clips'}")
    return torch.from_numpy(np.stack([item.ids_L.astype(np.int64) for item in tokens]))


def _check_frames(num_frames: int) -> None:
    if num_frames < 1:
        raise InputError(f"the number of frames must be at least 1, got {num_frames}")
