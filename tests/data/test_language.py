from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenreel.data.language import LanguageVocabulary, pack_rows
from tokenreel.errors import InputError
from tokenreel.types import Grid, Tokens

captions = st.none() | st.text(min_size=1, max_size=12)
ids = st.lists(st.integers(0, 49), min_size=1, max_size=30)


@given(ids, captions, st.integers(0, 1000))
def test_an_example_goes_round(given_ids: list[int], caption: str | None, first_id: int) -> None:
    vocabulary = LanguageVocabulary(codebook_size=50, first_id=first_id)
    sequence = vocabulary.encode(np.array(given_ids), caption)
    assert (sequence[0], sequence[-1]) == (vocabulary.bos_id, vocabulary.eos_id)
    assert first_id <= sequence.min()
    assert sequence.max() < vocabulary.vocab_size
    assert (vocabulary.sep_id in sequence) == (caption is not None)
    text, visual = vocabulary.decode(sequence)
    assert text == caption
    assert visual.tolist() == given_ids


@given(st.lists(st.tuples(ids, captions), max_size=8), st.integers(2, 40))
def test_rows_hold_every_example_whole_and_in_order(examples: list[tuple[list[int], str | None]], context: int) -> None:
    vocabulary = LanguageVocabulary(codebook_size=50)
    sequences = [vocabulary.encode(np.array(some), caption) for some, caption in examples]
    rows = list(pack_rows(sequences, vocabulary, context=context))
    assert all(len(row.ids_S) == context for row in rows)
    assert all((row.segments_S >= 0).all() for row in rows[:-1])
    if rows:
        all_ids = np.concatenate([row.ids_S for row in rows])
        segments = np.concatenate([row.segments_S for row in rows])
        positions = np.concatenate([row.positions_S for row in rows])
        for number, sequence in enumerate(sequences):
            np.testing.assert_array_equal(all_ids[segments == number], sequence)
            np.testing.assert_array_equal(positions[segments == number], np.arange(len(sequence)))
        assert (all_ids[segments < 0] == vocabulary.pad_id).all()
    full = list(pack_rows(sequences, vocabulary, context=context, keep_last=False))
    assert len(full) == sum(map(len, sequences)) // context


def tokens(codebook_size: int = 50) -> Tokens:
    return Tokens(
        ids_L=np.arange(6),
        layout="grid",
        grid=Grid(t=1, h=2, w=3),
        size=(1, 8, 12),
        codebook_size=codebook_size,
        tokenizer="x",
        fingerprint="0" * 64,
        meta={"caption": "a dog"},
    )


def test_tokens_bring_their_captions() -> None:
    with_text = LanguageVocabulary(codebook_size=50)
    (row,) = pack_rows([tokens()], with_text, context=20)
    assert with_text.decode(row.ids_S[row.segments_S == 0])[0] == "a dog"
    without = LanguageVocabulary(codebook_size=50, has_text=False)
    (row,) = pack_rows([tokens()], without, context=20)
    assert without.decode(row.ids_S[row.segments_S == 0])[0] is None
    assert without.vocab_size == 54


def test_what_does_not_fit_is_refused() -> None:
    vocabulary = LanguageVocabulary(codebook_size=50, has_text=False)
    for call, words in (
        (lambda: vocabulary.encode(np.array([50])), r"\[0, 50\)"),
        (lambda: vocabulary.encode(np.array([0.5])), "whole numbers"),
        (lambda: vocabulary.encode(np.array([1]), "text"), "no text"),
        (lambda: list(pack_rows([tokens(60)], vocabulary, context=8)), "60 codes"),
        (lambda: list(pack_rows([], vocabulary, context=1)), "context"),
        (lambda: LanguageVocabulary(codebook_size=0), "codebook_size"),
    ):
        with pytest.raises(InputError, match=words):
            call()
