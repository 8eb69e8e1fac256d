"""A contact sheet of the unmasking: what is decided after each step, decoded; what is open stays paper.

Letters: B rows, L tokens, T frames, H W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from tokenreel.errors import InputError
from tokenreel.media.pixels import to_frames
from tokenreel.render.gallery import gallery
from tokenreel.tokenizers.base import Tokenizer
from tokenreel.types import Clip, Tokens

from .inpaint import open_pixels
from .prime import Timing
from .sample import SampleStep

__all__ = ["unmasking_frames", "unmasking_sheet"]

_OPEN = (225, 224, 219)


def unmasking_frames(
    tokenizer: Tokenizer, seen: SampleStep, *, template: Tokens, row: int = 0
) -> npt.NDArray[np.uint8]:
    """The video as far as it is decided: uint8 (T, H, W, 3), pixels of open tokens in the colour of paper.

    The pixels of 1-D tokens cannot be told apart, so none are covered.

    Args:
        tokenizer: decodes the ids; open ones as id 0.
        seen: what a callback of ``sample`` was told.
        template: tokens of a clip of the same size, whose ids are replaced.
        row: of the batch.
    """
    is_open_L = seen.is_masked_BL[row].cpu()
    if len(is_open_L) != template.num_tokens:
        raise InputError(f"the sample has {len(is_open_L)} tokens, its template {template.num_tokens}")
    ids_L = seen.ids_BL[row].cpu().masked_fill(is_open_L, 0)
    decoded = tokenizer.decode([replace(template, ids_L=ids_L.numpy())])[0]
    frames_THWC = decoded.transpose(1, 2, 3, 0).copy() if isinstance(decoded, np.ndarray) else to_frames(decoded)
    if template.layout == "grid":
        is_open_THW = open_pixels(
            is_open_L,
            grid=template.grid,
            size=template.size,
            timing=Timing.of(tokenizer),
            patch_size=tokenizer.patch_size,
        )
        frames_THWC[is_open_THW.numpy()] = _OPEN
    return frames_THWC


def unmasking_sheet(
    tokenizer: Tokenizer,
    steps: Sequence[SampleStep],
    *,
    template: Tokens,
    row: int = 0,
    most_steps: int = 9,
    num_frames: int = 5,
    cell: int = 96,
) -> npt.NDArray[np.uint8]:
    """Frames of the video after some of the steps, a row each: uint8 (H, W, 3).

    Args:
        steps: all that a callback was told (``callback=steps.append``).
        most_steps: rows of the sheet, spread evenly from the first step to the last.
        num_frames, cell: as in ``render.gallery``.
    """
    if not steps:
        raise InputError("there are no steps to show; collect them with sample(..., callback=steps.append)")
    places = np.unique(np.linspace(0, len(steps) - 1, min(most_steps, len(steps))).round().astype(int))
    clips, captions = [], []
    for place in places:
        seen = steps[place]
        frames_THWC = unmasking_frames(tokenizer, seen, template=template, row=row)
        clips.append(Clip(frames_THWC=frames_THWC, pts_seconds=np.arange(len(frames_THWC), dtype=np.float64)))
        total, still_open = seen.is_masked_BL.shape[1], int(torch.count_nonzero(seen.is_masked_BL[row]))
        captions.append(f"step {seen.step + 1} of {seen.steps}: {total - still_open} of {total} tokens")
    return gallery(clips, captions, num_frames=min(num_frames, clips[0].num_frames), cell=cell)
