"""Merges are learned on one half and counted on the other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tokenreel.measure import merges
from tokenreel.measure.merges import merge_saving


def test_repeated_ids_save_what_can_be_counted_by_hand() -> None:
    pattern = np.tile(np.array([1, 2, 3, 4], np.uint8), 64)
    found = merge_saving([pattern, pattern], codebook_size=8, num_merges=2)
    assert found is not None
    assert (found.num_merges, found.num_clips, found.num_ids, found.num_merged) == (2, 1, 256, 128)
    assert found.bits_before == 256 * 3
    assert found.bits_after == pytest.approx(128 * math.log2(10))
    assert found.saved == pytest.approx(1 - math.log2(10) / 6)


def test_what_only_the_first_half_holds_saves_nothing(rng: np.random.Generator) -> None:
    learned = np.tile(np.array([1, 2, 3, 4], np.uint8), 64)
    other = np.tile(np.array([7, 6, 5, 0], np.uint8), 64)
    found = merge_saving([learned, other, learned], codebook_size=8)
    assert found is not None
    assert found.num_merged == found.num_ids
    assert found.saved < 0  # longer ids, none fewer
    assert found.as_json()["saved"] == round(found.saved, 6)


def test_where_nothing_can_be_told(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = rng.integers(0, 4, 50).astype(np.uint8)
    assert merge_saving([ids], codebook_size=4) is None
    assert merge_saving([ids, ids], codebook_size=1) is None
    assert merge_saving([ids, ids], codebook_size=1 << 21) is None
    assert merge_saving([ids, ids[:0]], codebook_size=4) is None
    monkeypatch.setattr(merges, "MOST_IDS", 70)
    found = merge_saving([ids] * 6, codebook_size=4)
    assert found is not None
    assert (found.num_ids, found.num_clips) == (70, 2)


def test_ids_without_a_pair_that_comes_twice() -> None:
    ids = np.arange(10, dtype=np.uint8)
    found = merge_saving([ids, ids], codebook_size=16)
    assert found is not None
    assert (found.num_merges, found.saved) == (0, 0)
