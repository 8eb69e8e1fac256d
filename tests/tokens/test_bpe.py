"""Byte-pair merges of sequences: equal to the ten-line reference, undone exactly, kept, exported, interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenreel.errors import FormatError, InputError
from tokenreel.tokens import bpe, bpe_encode, bpe_index


def merged(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        hit = tuple(ids[i : i + 2]) == pair
        out.append(new if hit else ids[i])
        i += 2 if hit else 1
    return out


def reference(sequences, vocab_size, base_size):
    """Ten lines: count everything, merge the most frequent pair (ties: the smallest), again."""
    pairs, sequences = [], [list(map(int, ids)) for ids in sequences]
    while base_size + len(pairs) < vocab_size:
        counts = Counter(pair for ids in sequences for pair in zip(ids, ids[1:]))
        pair = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if pair is None or counts[pair] < 2:
            break
        sequences = [merged(ids, pair, base_size + len(pairs)) for ids in sequences]
        pairs.append(pair)
    return pairs, sequences


def check(sequences, vocab_size, base_size, *, boundaries):
    found = bpe.train(sequences, vocab_size=vocab_size, base_size=base_size, boundaries=boundaries)
    joined = sequences if boundaries else [np.concatenate(sequences)]
    pairs, tokens = reference(joined, vocab_size, base_size)
    assert found.pairs.tolist() == [list(pair) for pair in pairs]
    assert found.meta["stopped"] == ("vocab_size" if found.vocab_size == vocab_size else "no pair occurs twice")
    encoded = found.encode_many(joined)
    assert [ids.tolist() for ids in encoded] == tokens
    for ids, bpe_ids in zip(joined, encoded):
        assert found.decode(bpe_ids).tolist() == ids.tolist()
    return found


runs = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=14).map(
    lambda parts: np.array([i for i, n in parts for _ in range(n)], np.uint8)
)
small = st.lists(st.integers(0, 2), max_size=60).map(lambda ids: np.array(ids, np.uint8))
many = st.lists(runs | small, min_size=1, max_size=4).filter(lambda parts: any(part.size for part in parts))


@settings(max_examples=300, deadline=None)
@given(many, st.integers(1, 40), st.booleans())
def test_merges_are_those_of_the_reference(sequences, num_merges, boundaries):
    check(sequences, 4 + num_merges, 4, boundaries=boundaries)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1), st.booleans())
def test_indexing_early_and_often_changes_nothing(alphabet, seed, in_table):
    """The index is built anew again and again, by table and by sorting, with low and high thresholds."""
    rng = np.random.default_rng(seed)
    ids = np.minimum(rng.geometric(0.2, 500), alphabet).astype(np.uint16) - 1
    patch = pytest.MonkeyPatch()
    with patch.context() as m:
        m.setattr(bpe_index, "CELLS_A_COUNT", 0.001 if in_table else 10**9)
        m.setattr(bpe_index, "_choose_low", lambda counts, num: max(2, int(counts.max()) * 2 // 3))
        check([ids[:100], ids[100:]], alphabet + 50, alphabet, boundaries=True)
    

@pytest.mark.parametrize("length", range(1, 40))
def test_runs(length):
    check([np.zeros(length, np.uint8), np.zeros(length // 2, np.uint8)], 12, 1, boundaries=True)
