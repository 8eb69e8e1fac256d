"""The contact sheet of the unmasking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sampled import Toy

from tokenreel.errors import InputError
from tokenreel.generate.prime import ids_of
from tokenreel.generate.sample import SampleStep, sample
from tokenreel.generate.show import unmasking_frames, unmasking_sheet
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.media.pixels import to_frames
from tokenreel.tokenizers import CViViT
from tokenreel.types import Tokens

torch.set_num_threads(1)

PAPER = np.array([225, 224, 219])


@pytest.fixture(scope="module")
def tokenizer() -> CViViT:
    from test_prime import TINY

    return CViViT.untrained(TINY)


@pytest.fixture(scope="module")
def template(tokenizer: CViViT) -> Tokens:
    from test_prime import clip

    return tokenizer.encode([clip(5, 12, 24)])[0]


@pytest.fixture(scope="module")
def steps(tokenizer: CViViT, template: Tokens) -> list[SampleStep]:
    seen: list[SampleStep] = []
    sample(
        Toy(Vocabulary.of(tokenizer)),
        grid=template.grid,
        condition=None,
        steps=12,
        generator=torch.Generator().manual_seed(0),
        callback=seen.append,
    )
    return seen


def test_open_cells_are_paper_and_nothing_else_is_covered(
    tokenizer: CViViT, template: Tokens, steps: list[SampleStep]
) -> None:
    seen = steps[4]
    frames = unmasking_frames(tokenizer, seen, template=template)
    is_open = seen.is_masked_BL[0].view(3, 2, 3).numpy()
    assert is_open.any()
    assert not is_open.all()
    for frame, step in enumerate([0, 1, 1, 2, 2]):
        for row in range(12):
            for column in range(24):
                covered = bool((frames[frame, row, column] == PAPER).all())
                assert covered == is_open[step, row // 8, column // 8]


def test_the_last_frames_are_the_video(tokenizer: CViViT, template: Tokens, steps: list[SampleStep]) -> None:
    from dataclasses import replace

    frames = unmasking_frames(tokenizer, steps[-1], template=template)
    tokens = replace(template, ids_L=steps[-1].ids_BL[0].numpy())
    assert np.array_equal(frames, to_frames(tokenizer.decode([tokens])[0]))


def test_the_sheet_has_a_row_a_step(tokenizer: CViViT, template: Tokens, steps: list[SampleStep]) -> None:
    short = unmasking_sheet(tokenizer, steps, template=template, most_steps=2, cell=48)
    tall = unmasking_sheet(tokenizer, steps, template=template, most_steps=6, cell=48)
    assert short.dtype == np.uint8
    assert short.shape[2] == 3
    assert (tall.shape[0] - 8) == 3 * (short.shape[0] - 8)
    assert not np.array_equal(short[:32], short[-32:])
    with pytest.raises(InputError, match="there are no steps to show"):
        unmasking_sheet(tokenizer, [], template=template)


def test_a_template_of_another_size(tokenizer: CViViT, template: Tokens, steps: list[SampleStep]) -> None:
    from test_prime import clip

    other = tokenizer.encode([clip(1, 12, 24)])[0]
    assert ids_of([other]).shape == (1, 6)
    with pytest.raises(InputError, match="the sample has 18 tokens, its template 6"):
        unmasking_frames(tokenizer, steps[0], template=other)
