"""Which tokens are open where part of a video is to be made anew: boxes in space and time, or a mask of pixels.

Letters: L tokens, T frames, H W pixels, t h w grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from einops import reduce
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.tokenizers.base import Tokenizer
from tokenreel.types import Grid, PatchSize, Tokens

from .prime import Known, Timing, ids_of
from .vocabulary import grid_of

__all__ = ["Box", "inpaint", "open_in_boxes", "open_in_pixels", "open_pixels"]

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Pixels to be made anew, as half-open ranges; None is the whole extent.

    Attributes:
        frames, rows, columns: (start, stop) along T, H, W.
    """

    frames: Span | None = None
    rows: Span | None = None
    columns: Span | None = None

    def spans(self, size: tuple[int, int, int]) -> tuple[Span, Span, Span]:
        """The three ranges within a video of (T, H, W). InputError for one that is empty or reaches outside."""
        found = []
        for name, span, extent in zip(("frames", "rows", "columns"), (self.frames, self.rows, self.columns), size):
            start, stop = (0, extent) if span is None else span
            if not 0 <= start < stop <= extent:
                raise InputError(f"Box.{name} must be (start, stop) within [0, {extent}], got {span}")
            found.append((start, stop))
        return found[0], found[1], found[2]


def open_in_boxes(boxes: Sequence[Box], *, size: tuple[int, int, int], timing: Timing, patch_size: PatchSize) -> Tensor:
    """(L,) bool: the tokens of which any pixel lies in a box; those of padding never do.

    >>> open_in_boxes([Box(columns=(0, 9))], size=(1, 8, 24), timing=Timing(first_frames=1, step_frames=2),
    ...               patch_size=(2, 8, 8)).tolist()
    [True, True, False]
    """
    _, ph, pw = patch_size
    is_open = torch.zeros(timing.steps(size[0]), -(-size[1] // ph), -(-size[2] // pw), dtype=torch.bool)
    for box in boxes:
        frames, rows, columns = box.spans(size)
        is_open[
            timing.step_of(frames[0]) : timing.step_of(frames[1] - 1) + 1,
            rows[0] // ph : -(-rows[1] // ph),
            columns[0] // pw : -(-columns[1] // pw),
        ] = True
    return is_open.flatten()


def open_in_pixels(is_open_THW: npt.NDArray[np.bool_] | Tensor, *, timing: Timing, patch_size: PatchSize) -> Tensor:
    """(L,) bool from a mask of pixels (T, H, W) of any shape: the tokens of which any pixel is open."""
    is_open = torch.as_tensor(is_open_THW)
    if is_open.ndim != 3 or is_open.dtype != torch.bool or not is_open.numel():
        raise InputError(f"a mask of pixels must be bool (T, H, W), got {is_open.dtype} {tuple(is_open.shape)}")
    _, ph, pw = patch_size
    frames, height, width = is_open.shape
    before, after = timing.step_frames - timing.first_frames, timing.frames(timing.steps(frames)) - frames
    padded = torch.nn.functional.pad(is_open, (0, -width % pw, 0, -height % ph, before, after))
    return reduce(padded, "(t pt) (h ph) (w pw) -> (t h w)", "max", pt=timing.step_frames, ph=ph, pw=pw)


def open_pixels(
    is_open_L: Tensor, *, grid: Grid, size: tuple[int, int, int], timing: Timing, patch_size: PatchSize
) -> Tensor:
    """(T, H, W) bool: the pixels of the open tokens. ``open_in_pixels`` of them is ``is_open_L`` again."""
    _, ph, pw = patch_size
    steps = torch.tensor([timing.step_of(frame) for frame in range(size[0])])
    rows, columns = torch.arange(size[1]) // ph, torch.arange(size[2]) // pw
    is_open_thw = is_open_L.cpu().view(grid.t, grid.h, grid.w)
    return is_open_thw[steps][:, rows][:, :, columns]


def inpaint(
    tokenizer: Tokenizer, videos: Sequence[Any], boxes: Sequence[Box] = (), *, is_open_THW: Any = None
) -> tuple[Known, Grid]:
    """Videos of one size, encoded, with the tokens of the boxes (or of a mask of pixels) open; and their grid.

    A token is open if any of its pixels is; 1-D tokens see their whole step, so all of a step are. Encoders look
    around: tokens beside a hole, and those of later steps, have seen what was there.

    Raises:
        InputError: nothing is open, or boxes reach outside.
    """
    tokens = tokenizer.encode(videos)
    ids_BL, first = ids_of(tokens), tokens[0]
    grid, timing = grid_of(first, segment_steps=tokenizer.segment_steps), Timing.of(tokenizer)
    patch_size = tokenizer.patch_size
    is_open_L = open_in_boxes(boxes, size=first.size, timing=timing, patch_size=patch_size)
    if is_open_THW is not None:
        if tuple(is_open_THW.shape) != first.size:
            raise InputError(f"is_open_THW must have the videos' shape {first.size}, got {tuple(is_open_THW.shape)}")
        is_open_L = is_open_L | open_in_pixels(is_open_THW, timing=timing, patch_size=patch_size)
    if not bool(is_open_L.any()):
        raise InputError("nothing is open; name a Box, or a mask with an open pixel")
    is_masked_L = is_open_L if first.layout == "grid" else _whole_steps(is_open_L, grid, first)
    is_masked_BL = is_masked_L.expand(len(tokens), -1).clone()
    return Known(ids_BL.masked_fill(is_masked_BL, 0), is_masked_BL), grid


def _whole_steps(is_open_L: Tensor, grid: Grid, tokens: Tokens) -> Tensor:
    """All tokens of the steps that have an open cell."""
    if grid.t * (tokens.num_tokens // grid.t) != tokens.num_tokens:
        raise InputError(f"{tokens.num_tokens} ids do not fill {grid.t} steps equally; this clip cannot be inpainted")
    is_open_t = is_open_L.view(grid.t, -1).any(1)
    return is_open_t.repeat_interleave(tokens.num_tokens // grid.t)
