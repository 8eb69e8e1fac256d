from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tokenreel.errors import InputError, MismatchError
from tokenreel.generate.vocabulary import Vocabulary, grid_of, grouped
from tokenreel.quantize import FSQ, FSQConfig
from tokenreel.tokenizers.configs import from_values, to_values
from tokenreel.tokenizers.cvivit import CViViT
from tokenreel.tokenizers.raw import RawTokenizer
from tokenreel.types import Grid, Tokens

torch.set_num_threads(1)

LEVELS = (5, 3, 4)
VOCABULARY = Vocabulary(codebook_size=60, levels=LEVELS)


def tokens(layout: Any, num: int, grid: Grid, **changed: Any) -> Tokens:
    values = {
        "ids_L": np.zeros(num, np.uint8),
        "layout": layout,
        "grid": grid,
        "size": (grid.t, 8, 8),
        "codebook_size": 60,
        "tokenizer": "titok",
        "fingerprint": "ab" * 32,
    }
    return Tokens(**{**values, **changed})


def test_split_is_numpys_mixed_base_and_join_undoes_it_for_every_id_and_the_mask() -> None:
    ids = torch.arange(61).view(1, 61)
    digits = VOCABULARY.split(ids)
    wanted = np.stack(np.unravel_index(np.arange(60), LEVELS[::-1])[::-1], -1)
    np.testing.assert_array_equal(digits[0, :60], wanted)
    assert digits[0, 60].tolist() == list(LEVELS)
    assert torch.equal(VOCABULARY.join(digits), ids)
    single = Vocabulary(codebook_size=60, levels=(60,))
    assert torch.equal(single.join(single.split(ids)), ids)
    assert (VOCABULARY.mask_id, VOCABULARY.vocab_size) == (60, 61)


def test_digits_of_grouped_fsq_levels_are_those_of_fsq() -> None:
    levels = (8, 5, 5, 3)
    fsq = FSQ(FSQConfig(levels=levels))
    ids = torch.arange(600)
    assert torch.equal(Vocabulary(codebook_size=600, levels=levels).split(ids), fsq.digits(ids))
    groups = grouped(levels, most=40)
    assert groups == (40, 15)
    pairs = Vocabulary(codebook_size=600, levels=groups).split(ids)
    digits = fsq.digits(ids)
    assert torch.equal(pairs[:, 0], digits[:, 0] + 8 * digits[:, 1])
    assert torch.equal(pairs[:, 1], digits[:, 2] + 5 * digits[:, 3])
    assert grouped(levels, most=1) == levels


def test_it_is_kept_as_plain_values() -> None:
    vocabulary = Vocabulary.of(RawTokenizer())
    values = json.loads(json.dumps(to_values(vocabulary)))
    assert from_values(Vocabulary, values) == vocabulary
    assert vocabulary.tokenizer_reference == RawTokenizer().reference


def test_a_foreign_tokenizer_and_foreign_tokens_are_refused_by_name() -> None:
    own, other = CViViT.untrained("tiny", seed=0), CViViT.untrained("tiny", seed=1)
    vocabulary = Vocabulary.of(own, levels=(400, 160))
    vocabulary.check(own)
    with pytest.raises(
        MismatchError, match=f"ids of cvivit {own.fingerprint[:12]}, not of cvivit {other.fingerprint[:12]}"
    ):
        vocabulary.check(other)
    with pytest.raises(MismatchError, match=r"speaks 64000 ids of cvivit .* raw .* has 256"):
        vocabulary.check(RawTokenizer())
    found = tokens("queries", 4, Grid(t=1, h=2, w=2))
    replace(VOCABULARY, tokenizer="titok", fingerprint="ab" * 32).check(found)
    VOCABULARY.check(found)
    with pytest.raises(MismatchError, match=r"cvivit abab.*, not of titok abab"):
        replace(VOCABULARY, tokenizer="cvivit", fingerprint="ab" * 32).check(found)
    with pytest.raises(MismatchError, match="60 ids of no tokenizer in particular"):
        VOCABULARY.check(replace(found, codebook_size=64))


@pytest.mark.parametrize("ids", [torch.tensor([61]), torch.tensor([-1]), torch.tensor([0.5])])
def test_ids_out_of_range_are_told(ids: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"ids must (lie in \[0, 60\), or be the mask id 60; found|be whole numbers)"):
        VOCABULARY.check_ids(ids)
    VOCABULARY.check_ids(torch.tensor([0, 60]))


@pytest.mark.parametrize(
    ("size", "levels", "text"),
    [(60, (5, 3), "product 15, codebook_size is 60"), (60, (), "whole numbers"), (60, (60, 0), r"got \(60, 0\)")],
)
def test_levels_must_be_those_of_the_codebook(size: int, levels: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        Vocabulary(codebook_size=size, levels=levels)


def test_digits_of_another_number_of_factors_are_refused() -> None:
    with pytest.raises(InputError, match=re.escape("expected 3 digits an id, got shape (4, 2)")):
        VOCABULARY.join(torch.zeros(4, 2, dtype=torch.int64))


def test_one_dimensional_tokens_lie_on_a_line_a_segment() -> None:
    grid = Grid(t=4, h=2, w=2)
    assert grid_of(tokens("grid", 16, grid)) == grid
    assert grid_of(tokens("queries", 24, grid)) == Grid(t=4, h=1, w=6)
    assert grid_of(tokens("queries", 24, grid), segment_steps=2) == Grid(t=2, h=1, w=12)
    assert grid_of(tokens("queries", 25, grid), segment_steps=2) == Grid(t=1, h=1, w=25)
    with pytest.raises(InputError, match="undo the byte pairs"):
        grid_of(tokens("merged", 3, grid))
