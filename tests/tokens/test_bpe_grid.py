"""Byte-pair merges along the axes of a grid: equal to a plain reference, undone exactly, and what cannot be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenreel.errors import FormatError, InputError
from tokenreel.tokens import bpe, bpe_index
from tokenreel.types import Grid

AXES = (0, 1, 2)


def beside(blocks, first, axis):
    """The first cell of the aligned block that follows along an axis, or None."""
    _, extent = blocks[first]
    after = tuple(first[k] + extent[k] * (k == axis) for k in AXES)
    if after in blocks and all(blocks[after][1][k] == extent[k] for k in AXES if k != axis):
        return after
    return None


def merge(blocks, pair, new):
    left, right, axis = pair
    for first in sorted(blocks):
        if first in blocks and blocks[first][0] == left:
            after = beside(blocks, first, axis)
            if after is not None and blocks[after][0] == right:
                extent = list(blocks[first][1])
                extent[axis] += blocks.pop(after)[1][axis]
                blocks[first] = (new, tuple(extent))


def reference(grids, vocab_size, base_size):
    """Count all pairs of aligned blocks, merge the most frequent one in the order of first cells, again."""
    pairs = []
    grids = [{cell: (int(grid[cell]), (1, 1, 1)) for cell in np.ndindex(grid.shape)} for grid in grids]
    while base_size + len(pairs) < vocab_size:
        counts = Counter()
        for blocks in grids:
            for first in blocks:
                for axis in AXES:
                    after = beside(blocks, first, axis)
                    if after is not None:
                        counts[blocks[first][0], blocks[after][0], axis] += 1
        pair = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if pair is None or counts[pair] < 2:
            break
        for blocks in grids:
            merge(blocks, pair, base_size + len(pairs))
        pairs.append(pair)
    return pairs, [[blocks[first][0] for first in sorted(blocks)] for blocks in grids]


def check(grids, vocab_size, base_size):
    found = bpe.train(grids, vocab_size=vocab_size, base_size=base_size, axes="grid")
    pairs, tokens = reference(grids, vocab_size, base_size)
    assert np.column_stack([found.pairs, found.axis]).tolist() == [list(pair) for pair in pairs]
    encoded = found.encode_many(grids)
    assert [ids.tolist() for ids in encoded] == tokens
    for grid, ids in zip(grids, encoded):
        assert np.array_equal(found.decode(ids, grid=grid.shape), grid)
        assert np.array_equal(found.encode(grid), ids)
    return found


@st.composite
def grids(draw):
    alphabet, seed = draw(st.integers(1, 3)), draw(st.integers(0, 2**32 - 1))
    sizes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3))
    rng = np.random.default_rng(seed)
    coarse = [rng.integers(0, alphabet, size) for size in sizes]
    repeats = draw(st.tuples(*[st.integers(1, 2)] * 3))
    for axis in AXES:  # larger areas of one id, for runs
        coarse = [np.repeat(grid, repeats[axis], axis) for grid in coarse]
    return [grid.astype(np.uint8) for grid in coarse]


@settings(max_examples=200, deadline=None)
@given(grids(), st.integers(1, 30))
def test_merges_are_those_of_the_reference(grids, num_merges):
    check(grids, 3 + num_merges, 3)


@settings(max_examples=40, deadline=None)
@given(grids(), st.booleans())
def test_indexing_early_and_often_changes_nothing(grids, in_table):
    patch = pytest.MonkeyPatch()
    with patch.context() as m:
        m.setattr(bpe_index, "CELLS_A_COUNT", 0.001 if in_table else 10**9)
        m.setattr(bpe_index, "_choose_low", lambda counts, num: max(2, int(counts.max()) * 2 // 3))
        check(grids, 33, 3)
