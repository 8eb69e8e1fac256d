"""Inpainting: a token is open exactly if one of its pixels is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.generate.inpaint import Box, inpaint, open_in_boxes, open_in_pixels, open_pixels
from tokenreel.generate.prime import Timing, ids_of
from tokenreel.tokenizers import TiTok, load
from tokenreel.types import Grid

torch.set_num_threads(1)

TIMINGS = [Timing(first_frames=1, step_frames=2), Timing(first_frames=3, step_frames=3)]
PATCH = {1: (2, 4, 5), 3: (3, 4, 5)}


def slow(is_open_THW: np.ndarray, timing: Timing, ph: int, pw: int) -> list[bool]:
    """Pixel by pixel."""
    frames, height, width = is_open_THW.shape
    found = np.zeros((timing.steps(frames), -(-height // ph), -(-width // pw)), bool)
    for frame, row, column in np.argwhere(is_open_THW):
        step = 0 if frame < timing.first_frames else 1 + (frame - timing.first_frames) // timing.step_frames
        found[step, row // ph, column // pw] = True
    return found.ravel().tolist()


@pytest.mark.parametrize("timing", TIMINGS, ids=str)
@pytest.mark.parametrize("size", [(1, 4, 5), (7, 9, 11), (6, 8, 10), (4, 3, 2)])
def test_pixels_to_tokens(timing: Timing, size: tuple[int, int, int], rng: np.random.Generator) -> None:
    patch_size = PATCH[timing.first_frames]
    for share in (0.0, 0.01, 0.1, 1.0):
        mask = rng.random(size) < share
        assert open_in_pixels(mask, timing=timing, patch_size=patch_size).tolist() == slow(mask, timing, 4, 5)


@pytest.mark.parametrize("timing", TIMINGS, ids=str)
def test_boxes_to_tokens(timing: Timing, rng: np.random.Generator) -> None:
    size, patch_size = (7, 9, 11), PATCH[timing.first_frames]
    for _ in range(50):
        spans = [sorted(rng.choice(extent + 1, 2, replace=False).tolist()) for extent in size]
        box = Box(frames=tuple(spans[0]), rows=tuple(spans[1]), columns=tuple(spans[2]))
        mask = np.zeros(size, bool)
        mask[tuple(slice(*span) for span in spans)] = True
        found = open_in_boxes([box], size=size, timing=timing, patch_size=patch_size)
        assert found.tolist() == slow(mask, timing, 4, 5)
    both = open_in_boxes(
        [Box(frames=(0, 1)), Box(columns=(10, 11))], size=size, timing=timing, patch_size=patch_size
    ).view(-1, 3, 3)
    assert bool(both[0].all())
    assert both[1:].any(0).tolist() == [[False, False, True]] * 3


@pytest.mark.parametrize("timing", TIMINGS, ids=str)
def test_tokens_to_pixels_and_back(timing: Timing) -> None:
    size, patch_size = (7, 9, 11), PATCH[timing.first_frames]
    grid = Grid(t=timing.steps(7), h=3, w=3)
    is_open = torch.rand(grid.num_cells, generator=torch.Generator().manual_seed(0)) < 0.4
    pixels = open_pixels(is_open, grid=grid, size=size, timing=timing, patch_size=patch_size)
    assert pixels.shape == size
    assert torch.equal(open_in_pixels(pixels, timing=timing, patch_size=patch_size), is_open)
    assert torch.equal(open_in_pixels(~pixels, timing=timing, patch_size=patch_size), ~is_open)


def test_inpaint_keeps_what_lies_outside() -> None:
    from test_prime import TINY, CViViT, clip

    tokenizer, videos = CViViT.untrained(TINY), [clip(5, 16, 24), clip(5, 16, 24, seed=1)]
    known, grid = inpaint(tokenizer, videos, [Box(frames=(2, 5), columns=(0, 8))])
    assert grid == Grid(t=3, h=2, w=3)
    assert known.is_masked_BL[1].view(3, 2, 3).tolist() == [[[False] * 3] * 2] + [[[True, False, False]] * 2] * 2
    ids = ids_of(tokenizer.encode(videos))
    assert torch.equal(known.ids_BL[~known.is_masked_BL], ids[~known.is_masked_BL])
    mask = np.zeros((5, 16, 24), bool)
    mask[2:, :, :8] = True
    by_mask, _ = inpaint(tokenizer, videos, is_open_THW=mask)
    assert torch.equal(by_mask.is_masked_BL, known.is_masked_BL)


def test_one_dimensional_tokens_open_by_whole_steps() -> None:
    tokenizer = TiTok.untrained("tiny")
    video = torch.zeros(3, 3, 32, 32)
    known, grid = inpaint(tokenizer, [video], [Box(frames=(1, 2), rows=(0, 1))])
    assert (grid.t, grid.h) == (3, 1)
    assert known.is_masked_BL.view(3, -1).all(1).tolist() == [False, True, False]
    assert known.is_masked_BL.view(3, -1).any(1).tolist() == [False, True, False]


def test_bytes_of_a_step_open_together() -> None:
    known, grid = inpaint(load("raw:1,2,2"), [torch.zeros(3, 2, 4, 4)], [Box(frames=(1, 2), rows=(0, 2))])
    assert grid.t == 2
    assert known.is_masked_BL.view(2, -1).float().mean(1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (Box(rows=(0, 17)), r"Box.rows must be \(start, stop\) within \[0, 16\], got \(0, 17\)"),
        (Box(frames=(2, 2)), "Box.frames"),
        (Box(columns=(-1, 3)), "Box.columns"),
    ],
)
def test_boxes_outside(box: Box, words: str) -> None:
    with pytest.raises(InputError, match=words):
        inpaint(load("raw"), [torch.zeros(3, 2, 16, 16)], [box])


def test_nothing_open_and_masks_of_another_size() -> None:
    with pytest.raises(InputError, match="nothing is open"):
        inpaint(load("raw"), [torch.zeros(3, 2, 16, 16)])
    with pytest.raises(InputError, match="must have the videos' shape"):
        inpaint(load("raw"), [torch.zeros(3, 2, 16, 16)], is_open_THW=torch.ones(1, 16, 16, dtype=torch.bool))
    with pytest.raises(InputError, match="must be bool"):
        open_in_pixels(np.zeros((2, 2)), timing=TIMINGS[0], patch_size=(2, 4, 5))  # type: ignore[arg-type]
