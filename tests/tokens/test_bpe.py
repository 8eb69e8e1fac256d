"""Byte-pair merges of sequences: equal to the ten-line reference, undone exactly, kept, exported, interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenreel.errors import FormatError, InputError
from tokenreel.tokens import bpe, bpe_file, bpe_index, bpe_merges


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
        counts = Counter(pair for ids in sequences for pair in pairwise(ids))
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
    """The index is built anew again and again, by table and by sorting."""
    rng = np.random.default_rng(seed)
    ids = np.minimum(rng.geometric(0.2, 500), alphabet).astype(np.uint16) - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe_index, "CELLS_A_COUNT", 0.001 if in_table else 10**9)
        patch.setattr(bpe_index, "_choose_low", lambda counts, **_: max(2, int(counts.max()) * 2 // 3))
        check([ids[:100], ids[100:]], alphabet + 50, alphabet, boundaries=True)


@pytest.mark.parametrize("length", range(1, 40))
def test_runs(length):
    check([np.zeros(length, np.uint8), np.zeros(length // 2, np.uint8)], 12, 1, boundaries=True)


@settings(max_examples=200, deadline=None)
@given(many, st.integers(1, 30), st.integers(1, 12))
@example([np.array([0, 1, 0, 1, 1, 0, 1, 1], np.uint8)], 2, 1)
def test_encoding_in_blocks_changes_nothing(sequences, num_merges, block_size):
    """Blocks end only where no token can lie across; other data than the training data are cut as well."""
    merges = bpe.train(sequences, vocab_size=4 + num_merges, base_size=4)
    other = np.random.default_rng(num_merges).integers(0, 4, 80).astype(np.uint8)
    for ids in [*sequences, other]:
        expected = ids.tolist()
        for r, pair in enumerate(merges.pairs.tolist()):
            expected = merged(expected, tuple(pair), 4 + r)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bpe_merges, "_block_size", lambda num_merges: block_size)
            assert merges.encode(ids).tolist() == expected
        assert merges.decode(expected).tolist() == ids.tolist()


def test_a_long_sequence_comes_out_as_training_left_it():
    """Many blocks of the size in use, against one block."""
    ids = np.repeat(np.random.default_rng(3).integers(0, 9, 150_000), 2)[1:].astype(np.uint8)
    merges = bpe.train(ids, vocab_size=109, base_size=9)
    encoded = merges.encode(ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe_merges, "_block_size", lambda num_merges: 10**9)
        assert np.array_equal(merges.encode(ids), encoded)
    assert np.array_equal(merges.decode(encoded), ids)


@pytest.mark.parametrize("codes", [300, 70_000])
def test_large_alphabets(codes):
    """Cells of 16 and of 32 bits."""
    rng = np.random.default_rng(1)
    ids = (np.minimum(rng.zipf(1.3, 3000), 40) * (codes // 41)).astype(np.uint32)
    merges = check([ids[:1000], ids[1000:]], codes + 60, codes, boundaries=True)
    assert merges.encode(ids).dtype == (np.uint16 if codes < 2**16 else np.uint32)


def test_real_pixels(data_dir):
    from tokenreel.media.frames import Selection
    from tokenreel.media.read import read

    clip = read(data_dir / "bench" / "household-720p-20s.mp4", Selection(max_frames=1))
    check([clip.frames_THWC[0, 100:140].reshape(-1)[:20_000]], 256 + 60, 256, boundaries=False)


def test_the_text_of_minbpe():
    text = b"aaabdaaabac"
    merges = bpe.train(text, vocab_size=256 + 3)
    assert merges.encode(text).tolist() == [258, 100, 258, 97, 99]
    assert merges.decode([258, 100, 258, 97, 99]).tobytes() == text
    assert merges.counts.tolist() == [4, 2, 2]
    assert merges.expansion(258).tobytes() == b"aaab"


def test_prose_and_its_pieces():
    text = "Es war einmal ein Mädchen, das hatte ein rotes Käppchen. " * 20
    merges = bpe.train(text.encode(), vocab_size=400)
    assert bytes(merges.decode(merges.encode(text.encode()))).decode() == text
    assert (
        b"".join(merges.expansion(i).tobytes() for i in merges.encode("ein Käppchen".encode()))
        == "ein Käppchen".encode()
    )


def test_training_stops_early_and_says_so():
    merges = bpe.train(np.array([1, 2, 3, 1, 2, 3], np.uint8), vocab_size=1000)
    assert merges.num_merges == 2
    assert merges.meta["stopped"] == "no pair occurs twice"
    nothing = bpe.train(np.arange(5, dtype=np.uint8), vocab_size=1000)
    assert nothing.vocab_size == 256
    assert nothing.decode(nothing.encode(np.arange(5, dtype=np.uint8))).tolist() == [0, 1, 2, 3, 4]


def test_boundaries():
    parts = [np.array([1, 2], np.uint8)] * 3
    assert bpe.train(parts, vocab_size=259).pairs.tolist() == [[1, 2]]
    assert bpe.train(parts, vocab_size=259, boundaries=False).pairs.tolist() == [[1, 2], [256, 256]]


def test_sequences_of_many_kinds():
    rows = np.array([[1, 2, 1, 2], [1, 2, 3, 4]], np.uint16)
    expected = bpe.train(rows, vocab_size=8, base_size=5).pairs.tolist()
    for same in (
        list(rows),
        rows.astype(np.int64),
        [row.tolist() for row in rows],
        [bytes(row.tolist()) for row in rows],
    ):
        assert bpe.train(same, vocab_size=8, base_size=5).pairs.tolist() == expected
    assert bpe.train(rows, vocab_size=8).base_size == 5
    assert bpe.train(rows.astype(np.int64), vocab_size=8).base_size == 5
    assert bpe.train(rows.astype(np.uint8), vocab_size=300).base_size == 256


def test_empty_sequences_among_others():
    merges = bpe.train([b"", b"abab", b""], vocab_size=257)
    assert [ids.tolist() for ids in merges.encode_many([b"", b"abab", b""])] == [[], [256, 256], []]
    assert merges.encode_many([]) == []
    assert merges.decode(np.empty(0, np.uint16)).size == 0


@pytest.mark.parametrize(
    ("sequences", "options", "words"),
    [
        ([], {}, "no ids"),
        ([b""], {}, "no ids"),
        (b"abc", {"vocab_size": 256}, "above 256|above the 256"),
        (b"abc", {"vocab_size": 2**40}, "at most"),
        (np.array([1.0, 2.0]), {}, "whole numbers"),
        (np.array([True, False]), {}, "whole numbers"),
        (np.array([-1, 2]), {}, "negative"),
        (np.array([3, 2]), {"base_size": 3}, "found 3"),
        (np.array([2**20, 2]), {"vocab_size": 2**21}, "1,048,576"),
        (b"abc", {"base_size": 0}, "base_size"),
        (np.zeros((2, 2, 2), np.uint8), {}, "shape"),
        (b"abc", {"axes": "rows"}, "flat, grid"),
    ],
)
def test_what_cannot_be_trained_on(sequences, options, words):
    with pytest.raises(InputError, match=words):
        bpe.train(sequences, **{"vocab_size": 300, **options})


def test_what_cannot_be_encoded_or_decoded():
    merges = bpe.train(np.array([1, 2, 1, 2], np.uint16), vocab_size=4)
    with pytest.raises(InputError, match="found 3"):
        merges.encode(np.array([1, 3]))
    with pytest.raises(InputError, match="shape"):
        merges.encode(np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="found 4"):
        merges.decode(np.array([4]))
    with pytest.raises(InputError, match="1-D"):
        merges.decode(np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="know no grid"):
        merges.decode(np.array([3]), grid=(1, 1, 2))
    with pytest.raises(InputError, match="got 4"):
        merges.expansion(4)


def test_ids_that_stand_for_far_too_much():
    """Ids that double in length: what is in the table, what is taken apart, and what is refused."""
    pairs = np.array([[0, 0]] + [[i, i] for i in range(1, 60)], np.uint32)
    merges = bpe.Merges(pairs=pairs, base_size=1)
    assert merges.decode([18, 0, 20]).shape == (2**18 + 1 + 2**20,)
    with pytest.raises(InputError, match="more than are decoded"):
        merges.decode([60])
    assert merges.encode(np.zeros(1000, np.uint8)).tolist() == [9, 8, 7, 6, 5, 3]


@pytest.mark.parametrize("stop_at", [1, 40])
def test_an_interruption_leaves_a_shorter_vocabulary(stop_at):
    data = np.random.default_rng(0).integers(0, 6, 20_000).astype(np.uint8)
    whole = bpe.train(data, vocab_size=456)
    calls = []

    def stop(done, total):
        calls.append((done, total))
        if done >= stop_at:
            raise KeyboardInterrupt

    part = bpe.train(data, vocab_size=456, callback=stop)
    assert part.interrupted
    assert not whole.interrupted
    assert calls[-1] == (part.num_merges, 200)
    assert stop_at <= part.num_merges < 200
    assert np.array_equal(part.pairs, whole.pairs[: part.num_merges])
    assert np.array_equal(part.decode(part.encode(data)), data)


def test_progress_reaches_the_end():
    calls = []
    bpe.train(b"abcabcabd" * 50, vocab_size=262, callback=lambda *numbers: calls.append(numbers))
    assert calls[-1] == (6, 6)
    assert calls == sorted(calls)


def test_saved_and_loaded(tmp_path):
    merges = bpe.train(b"hello hello hello", vocab_size=260)
    merges.save(tmp_path / "m.json")
    again = bpe.Merges.load(tmp_path / "m.json")
    assert np.array_equal(again.pairs, merges.pairs)
    assert np.array_equal(again.counts, merges.counts)
    assert (again.base_size, again.axes, again.meta) == (merges.base_size, merges.axes, merges.meta)
    assert again.fingerprint == merges.fingerprint
    assert again.fingerprint != bpe.train(b"jelly jelly jelly", vocab_size=260).fingerprint
    assert json.loads((tmp_path / "m.json").read_text())["format"] == "tokenreel.merges"


def damaged(content, **changes):
    return json.dumps({**content, **changes})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: "{", "no JSON"),
        (lambda c: "[" * 100_000, "no JSON"),
        (lambda c: "[]", "format is 'list'"),
        (lambda c: damaged(c, format="other"), "other"),
        (lambda c: damaged(c, version=2), "newer tokenreel"),
        (lambda c: damaged(c, version="x"), "damaged"),
        (lambda c: damaged(c, merges=[[104, 102], [105, 108]]), "checksum"),
        (lambda c: damaged(c, vocab_size=7), "vocab_size"),
        (lambda c: damaged(c, base_size="256"), "base_size"),
        (lambda c: damaged(c, axes="rows"), "damaged"),
        (lambda c: json.dumps({k: v for k, v in c.items() if k != "merges"}), "merges"),
    ],
)
def test_files_that_are_refused(tmp_path, change, words):
    path = tmp_path / "m.json"
    bpe.train(b"hello hello hello", vocab_size=258).save(path)
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(FormatError, match=words):
        bpe.Merges.load(path)


@pytest.mark.parametrize(
    "merges",
    [
        [[0, 300]],
        [[0, -1]],
        [[0, 1], [0, 1]],
        [["a", "b"]],
        [[0, 1, 2]],
        [[0, 1], [0]],
        [[0.5, 1]],
        [None],
        [[2**40, 1]],
    ],
)
def test_merges_that_make_no_sense_are_refused_though_the_checksum_fits(tmp_path, merges):
    content = {"format": "tokenreel.merges", "version": 1, "axes": "flat", "base_size": 256, "counts": None, "meta": {}}
    content |= {"vocab_size": 256 + len(merges), "merges": merges, "sha256": bpe_file.digest(merges, None)}
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match="damaged"):
        bpe.Merges.load(tmp_path / "m.json")


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        bpe.Merges.load(tmp_path / "none.json")


@pytest.mark.parametrize("base_size", [6, 256, 1000])
def test_hugging_face_gives_equal_ids(tmp_path, base_size):
    tokenizers = pytest.importorskip("tokenizers")
    rng = np.random.default_rng(2)
    ids = (rng.geometric(0.4, 4000) - 1).clip(max=5) * (base_size // 6)
    merges = bpe.train(ids, vocab_size=base_size + 80, base_size=base_size)
    merges.save_hf(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == merges.vocab_size
    text = merges.hf_text(ids)
    assert theirs.encode(text).ids == merges.encode(ids).tolist()
    assert theirs.decode(theirs.encode(text).ids) == text


def test_hugging_face_reads_text_as_bytes():
    tokenizers = pytest.importorskip("tokenizers")
    text = "naïve façade, naïve façade: 日本語 日本語\n" * 3
    merges = bpe.train(text.encode(), vocab_size=290)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(merges.to_hf_tokenizers(byte_level=True)))
    assert theirs.encode(text).ids == merges.encode(text.encode()).tolist()
    assert theirs.decode(theirs.encode(text).ids) == text


def test_what_hugging_face_cannot_hold():
    twins = bpe.Merges(pairs=np.array([[0, 0], [2, 0], [0, 2]], np.uint32), base_size=2)
    with pytest.raises(InputError, match="equal base ids"):
        twins.to_hf_tokenizers()
    with pytest.raises(InputError, match="byte_level"):
        bpe.Merges(pairs=np.array([[0, 0]], np.uint32), base_size=2).to_hf_tokenizers(byte_level=True)


def test_importing_is_light():
    code = "import sys, tokenreel.tokens.bpe; print('numba' in sys.modules, 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
