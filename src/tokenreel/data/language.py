"""Tokens for language models: one vocabulary for specials, caption bytes and visual ids, packed to a context length.

An example is written as ``BOS caption-bytes SEP visual-ids EOS`` (without a caption: ``BOS visual-ids EOS``). Rows of
``context`` ids are filled with examples end to end, as decoder-only models read them; an example longer than what is
left of a row goes on in the next one, and nothing is lost.

Letters: N rows, S context length, L ids of one example.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError
from tokenreel.types import Tokens

__all__ = ["LanguageVocabulary", "PackedRow", "pack_rows"]

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageVocabulary:
    """Which number means what: ``[PAD BOS EOS SEP][256 caption bytes][codebook_size visual ids]``.

    Attributes:
        codebook_size: K of the tokenizer, or the vocabulary size of its byte-pair merges.
        has_text: False leaves the 256 caption bytes out.
        first_id: added to everything, to stand behind the vocabulary of an existing model.

    >>> vocabulary = LanguageVocabulary(codebook_size=100)
    >>> vocabulary.visual_offset, vocabulary.vocab_size
    (260, 360)
    """

    codebook_size: int
    has_text: bool = True
    first_id: int = 0

    def __post_init__(self) -> None:
        if self.codebook_size < 1 or self.first_id < 0:
            raise InputError(
                f"codebook_size must be at least 1 and first_id at least 0, got {self.codebook_size}, {self.first_id}"
            )

    @property
    def pad_id(self) -> int:
        """Fills the last row."""
        return self.first_id

    @property
    def bos_id(self) -> int:
        """Begins an example."""
        return self.first_id + 1

    @property
    def eos_id(self) -> int:
        """Ends an example."""
        return self.first_id + 2

    @property
    def sep_id(self) -> int:
        """Stands between caption and visual ids."""
        return self.first_id + 3

    @property
    def text_offset(self) -> int:
        """Added to the bytes of a caption."""
        return self.first_id + 4

    @property
    def visual_offset(self) -> int:
        """Added to visual ids."""
        return self.text_offset + (256 if self.has_text else 0)

    @property
    def vocab_size(self) -> int:
        """One past the largest id."""
        return self.visual_offset + self.codebook_size

    def encode(self, ids_L: npt.NDArray[Any], caption: str | None = None) -> Ids:
        """Visual ids and a caption as one sequence, int64.

        Raises:
            InputError: an id is outside the codebook, or there is a caption but no room for text.
        """
        ids = np.asarray(ids_L)
        if ids.ndim != 1 or ids.dtype.kind not in "ui":
            raise InputError(f"ids must be a 1-D array of whole numbers, got {ids.dtype} {ids.shape}")
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= self.codebook_size):
            raise InputError(
                f"ids must lie in [0, {self.codebook_size}), found {int(ids.min())} to {int(ids.max())}; "
                "is it another tokenizer's vocabulary?"
            )
        if caption and not self.has_text:
            raise InputError("this vocabulary has no text; build it with has_text=True, or leave the caption out")
        text = np.frombuffer(caption.encode(), np.uint8).astype(np.int64) + self.text_offset if caption else None
        head = [[self.bos_id]] if text is None else [[self.bos_id], text, [self.sep_id]]
        return np.concatenate([*head, ids.astype(np.int64) + self.visual_offset, [self.eos_id]]).astype(np.int64)

    def decode(self, sequence: npt.ArrayLike) -> tuple[str | None, Ids]:
        """The caption (None if there is none) and visual ids of one sequence; specials are passed over."""
        ids = np.asarray(sequence, dtype=np.int64)
        is_visual = (ids >= self.visual_offset) & (ids < self.vocab_size)
        is_text = (ids >= self.text_offset) & (ids < self.visual_offset)
        text = (ids[is_text] - self.text_offset).astype(np.uint8).tobytes().decode(errors="replace")
        return (text if is_text.any() else None), ids[is_visual] - self.visual_offset


@dataclass(frozen=True, slots=True, eq=False)
class PackedRow:
    """One row for training.

    Attributes:
        ids_S: int64 (S,).
        segments_S: int32 (S,), which example of the stream each id belongs to; -1 for padding. Attention may be kept
            inside equal segments.
        positions_S: int32 (S,), place of each id in its example.
    """

    ids_S: Ids
    segments_S: npt.NDArray[np.int32]
    positions_S: npt.NDArray[np.int32]


def pack_rows(
    examples: Iterable[Tokens | npt.NDArray[Any]],
    vocabulary: LanguageVocabulary,
    *,
    context: int,
    keep_last: bool = True,
) -> Iterator[PackedRow]:
    """Examples end to end in rows of ``context`` ids.

    Args:
        examples: ``Tokens`` (their ``meta["caption"]`` goes along where the vocabulary has text) or sequences from
            ``LanguageVocabulary.encode``.
        context: S.
        keep_last: pad and give the last, unfilled row too; else it is dropped.
    """
    if context < 2:
        raise InputError(f"context must be at least 2 ids, got {context}")
    ids, segments, positions = _row(vocabulary, context)
    filled = 0
    for number, example in enumerate(examples):
        sequence = _sequence(example, vocabulary)
        start = 0
        while start < len(sequence):
            count = min(context - filled, len(sequence) - start)
            ids[filled : filled + count] = sequence[start : start + count]
            segments[filled : filled + count] = number
            positions[filled : filled + count] = np.arange(start, start + count)
            filled, start = filled + count, start + count
            if filled == context:
                yield PackedRow(ids, segments, positions)
                ids, segments, positions = _row(vocabulary, context)
                filled = 0
    if filled and keep_last:
        yield PackedRow(ids, segments, positions)


def _sequence(example: Tokens | npt.NDArray[Any], vocabulary: LanguageVocabulary) -> Ids:
    if not isinstance(example, Tokens):
        return np.asarray(example, np.int64)
    if example.codebook_size != vocabulary.codebook_size:
        raise InputError(
            f"these tokens have {example.codebook_size} codes, the vocabulary {vocabulary.codebook_size}; "
            "build it with the tokenizer's own codebook_size"
        )
    return vocabulary.encode(example.ids_L, example.meta.get("caption") if vocabulary.has_text else None)


def _row(vocabulary: LanguageVocabulary, context: int) -> tuple[Ids, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    return (
        np.full(context, vocabulary.pad_id, np.int64),
        np.full(context, -1, np.int32),
        np.zeros(context, np.int32),
    )
