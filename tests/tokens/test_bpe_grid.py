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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe_index, "CELLS_A_COUNT", 0.001 if in_table else 10**9)
        patch.setattr(bpe_index, "_choose_low", lambda counts, **_: max(2, int(counts.max()) * 2 // 3))
        patch.setattr(bpe_index, "SPARE_SHARE", 0)
        check(grids, 33, 3)


@pytest.mark.parametrize("codes", [300, 40_000])
def test_large_alphabets(codes):
    """Cells of 16 and of 32 bits; grids of many sizes side by side on one sheet."""
    rng = np.random.default_rng(1)
    sizes = [(1, 9, 4), (3, 5, 7), (1, 1, 20), (2, 2, 2), (3, 5, 7), (1, 3, 3), (1, 8, 9)]
    grids = [np.minimum(rng.geometric(0.5, size), 6) * (codes // 7) for size in sizes]
    check([grid.astype(np.uint32) for grid in grids], codes + 60, codes)


@pytest.mark.parametrize("shape", [(1, 1, 60), (1, 60, 1), (60, 1, 1), (1, 12, 12), (12, 1, 12), (5, 6, 7)])
def test_areas_of_one_id(shape):
    found = check([np.zeros(shape, np.uint8)], 20, 1)
    assert found.encode(np.zeros(shape, np.uint8)).size < 16


def test_real_pixels(data_dir):
    from tokenreel.media.frames import Selection
    from tokenreel.media.read import read

    clip = read(data_dir / "bench" / "household-720p-20s.mp4", Selection(max_frames=4))
    check([clip.frames_THWC[:4, 100:124, 200:236, 1]], 256 + 40, 256)


def test_blocks_are_told():
    grid = np.array([[[1, 2, 1, 2, 0], [3, 4, 3, 4, 0]]], np.uint8)
    merges = bpe.train(grid, vocab_size=8, base_size=5, axes="grid")
    assert np.column_stack([merges.pairs, merges.axis]).tolist() == [[1, 2, 2], [3, 4, 2], [5, 6, 1]]
    assert merges.encode(grid).tolist() == [7, 7, 0, 0]
    assert merges.extent(7) == (1, 2, 2)
    assert merges.expansion(7).tolist() == [[[1, 2], [3, 4]]]
    assert merges.decode([7, 7, 0, 0], grid=Grid(t=1, h=2, w=5)).tolist() == grid.tolist()
    assert repr(merges) == "Merges(3 grid merges over 5 base ids, longest 1x2x2)"


def test_order_of_ids_is_that_of_first_cells():
    """A tall block comes before the cell to its right, and ids after it fill the cells it leaves."""
    merges = bpe.Merges(pairs=np.array([[0, 0]], np.uint32), axis=np.array([1], np.uint8), base_size=3, axes="grid")
    grid = np.array([[[0, 1, 0], [0, 2, 0]]], np.uint8)
    assert merges.encode(grid).tolist() == [3, 1, 3, 2]
    assert merges.decode([3, 1, 3, 2], grid=(1, 2, 3)).tolist() == grid.tolist()


@pytest.mark.parametrize(
    ("ids", "grid", "words"),
    [
        ([3, 3], (1, 1, 3), "does not fit"),
        ([1, 3, 3], (1, 2, 2), "does not fit"),
        ([0, 0], (1, 1, 1), "more than fill"),
        ([0], (1, 1, 2), "fewer than fill"),
        ([0, 4, 1, 3], (1, 2, 3), "over others"),
        ([0], (1, 1), "must be"),
    ],
)
def test_blocks_that_do_not_fill_the_grid(ids, grid, words):
    pairs, axis = np.array([[0, 0], [0, 0]], np.uint32), np.array([2, 1], np.uint8)
    merges = bpe.Merges(pairs=pairs, axis=axis, base_size=3, axes="grid")
    with pytest.raises(InputError, match=words):
        merges.decode(ids, grid=grid)


def test_blocks_larger_than_the_table(tmp_path):
    """64 x 64 x 64 cells in one id, taken apart while decoding."""
    pairs = [[0, 0]] + [[i, i] for i in range(1, 18)]
    axis = np.array([k for _ in range(6) for k in (0, 1, 2)], np.uint8)
    merges = bpe.Merges(pairs=np.array(pairs, np.uint32), axis=axis, base_size=1, axes="grid")
    assert merges.extent(18) == (64, 64, 64)
    zeros = np.zeros((64, 64, 128), np.uint8)
    assert merges.encode(zeros).tolist() == [18, 18]
    assert np.array_equal(merges.decode([18, 18], grid=zeros.shape), zeros)


def test_saved_and_loaded(tmp_path):
    grid = np.tile(np.arange(6).reshape(1, 2, 3), (2, 3, 4))
    merges = bpe.train(grid, vocab_size=20, axes="grid")
    merges.save(tmp_path / "m.json")
    again = bpe.Merges.load(tmp_path / "m.json")
    assert np.array_equal(again.pairs, merges.pairs)
    assert np.array_equal(again.axis, merges.axis)
    assert again.fingerprint == merges.fingerprint
    assert np.array_equal(again.encode(grid), merges.encode(grid))


def test_merges_that_do_not_line_up_are_refused(tmp_path):
    pairs, axis = np.array([[0, 0], [1, 0]], np.uint32), np.array([2, 1], np.uint8)
    with pytest.raises(InputError, match="do not line up"):
        bpe.Merges(pairs=pairs, axis=axis, base_size=1, axes="grid")
    with pytest.raises(InputError, match="axis"):
        bpe.Merges(pairs=pairs, base_size=1, axes="grid")
    good = bpe.train(np.zeros((1, 2, 2), np.uint8), vocab_size=3, base_size=1, axes="grid")
    good.save(tmp_path / "m.json")
    (tmp_path / "m.json").write_text((tmp_path / "m.json").read_text().replace('"grid"', '"flat"'))
    with pytest.raises(FormatError, match="damaged"):
        bpe.Merges.load(tmp_path / "m.json")


def test_what_cannot_be_trained_or_given():
    grid = np.zeros((1, 2, 2), np.uint8)
    with pytest.raises(InputError, match="joined"):
        bpe.train(grid, vocab_size=300, axes="grid", boundaries=False)
    with pytest.raises(InputError, match=r"\(t, h, w\)"):
        bpe.train(grid[0], vocab_size=300, axes="grid")
    merges = bpe.train(grid, vocab_size=300, axes="grid")
    with pytest.raises(InputError, match="give decode the grid"):
        merges.decode([0, 0, 0, 0])
    with pytest.raises(InputError, match="no Hugging Face form"):
        merges.to_hf_tokenizers()
    assert merges.encode_many([np.empty((0, 2, 2), np.uint8), grid])[0].size == 0


def test_an_interruption_leaves_a_shorter_vocabulary():
    def stop(done, total):
        raise KeyboardInterrupt

    grid = np.random.default_rng(0).integers(0, 3, (4, 20, 20)).astype(np.uint8)
    part = bpe.train(grid, vocab_size=300, axes="grid", callback=stop)
    assert part.interrupted
    assert part.num_merges == 1
    assert np.array_equal(part.decode(part.encode(grid), grid=grid.shape), grid)
