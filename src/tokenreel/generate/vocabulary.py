"""The ids that a generator speaks: their number, their factors, the mask id, and the tokenizer they belong to.

Letters: F factors of an id, L tokens, K codebook_size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from tokenreel.errors import InputError, MismatchError
from tokenreel.tokenizers.base import Tokenizer
from tokenreel.types import Grid, Tokens

__all__ = ["Vocabulary", "grid_of", "grouped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Ids in [0, K), the mask id K, and how an id is a number in mixed base.

    With several ``levels`` an id is one digit a level, the first changing fastest (as FSQ counts), and a model predicts
    each digit by a softmax of its own: a codebook of 64,000 costs 400 + 160 outputs (arXiv 2409.04410).

    Attributes:
        codebook_size: K.
        levels: sizes of the digits, their product is K; (K,) is one softmax over all ids.
        tokenizer: name of the tokenizer's family, or "" for a vocabulary that is tied to none.
        fingerprint: of the tokenizer.
        reference: JSON text of what finds the tokenizer again (``Tokenizer.reference``).

    >>> Vocabulary(codebook_size=12, levels=(4, 3)).split(torch.tensor([7, 12])).tolist()
    [[3, 1], [4, 3]]
    """

    codebook_size: int
    levels: tuple[int, ...]
    tokenizer: str = ""
    fingerprint: str = ""
    reference: str = "{}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if not self.levels or any(type(level) is not int or level < 1 for level in self.levels):
            raise InputError(f"Vocabulary.levels must be whole numbers of at least 1, got {self.levels}")
        if type(self.codebook_size) is not int or math.prod(self.levels) != self.codebook_size:
            raise InputError(
                f"Vocabulary.levels {self.levels} have the product {math.prod(self.levels)}, "
                f"codebook_size is {self.codebook_size}; they must be equal"
            )

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, levels: Sequence[int] | None = None) -> Self:
        """The vocabulary of a tokenizer; ``levels`` factorises its ids (``grouped`` makes them of FSQ levels)."""
        return cls(
            codebook_size=tokenizer.codebook_size,
            levels=(tokenizer.codebook_size,) if levels is None else tuple(levels),
            tokenizer=tokenizer.name,
            fingerprint=tokenizer.fingerprint,
            reference=json.dumps(tokenizer.reference, sort_keys=True),
        )

    @property
    def mask_id(self) -> int:
        """K: the id of a position that is open."""
        return self.codebook_size

    @property
    def vocab_size(self) -> int:
        """K + 1."""
        return self.codebook_size + 1

    @property
    def tokenizer_reference(self) -> dict[str, Any]:
        """``reference`` as values."""
        values: dict[str, Any] = json.loads(self.reference)
        return values

    def split(self, ids: Tensor) -> Tensor:
        """(...) ids in [0, K] -> (..., F) digits; the mask id has digit ``levels[f]`` everywhere."""
        if len(self.levels) == 1:
            return ids.unsqueeze(-1)
        digits, rest = [], ids
        for level in self.levels:
            digits.append(torch.where(ids == self.mask_id, level, rest % level))
            rest = rest // level
        return torch.stack(digits, -1)

    def join(self, digits: Tensor) -> Tensor:
        """(..., F) digits -> (...) ids; undoes ``split``."""
        if digits.shape[-1] != len(self.levels):
            raise InputError(f"expected {len(self.levels)} digits an id, got shape {tuple(digits.shape)}")
        ids, stride = torch.zeros_like(digits[..., 0]), 1
        for dim, level in enumerate(self.levels):
            ids = ids + digits[..., dim] * stride
            stride *= level
        return torch.where(digits[..., 0] == self.levels[0], self.mask_id, ids)

    def check_ids(self, ids: Tensor) -> None:
        """InputError unless ids lie in [0, K]; looked at on the CPU only, elsewhere it would wait for the device."""
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise InputError(f"ids must be whole numbers, got {ids.dtype}")
        if ids.device.type != "cpu" or not ids.numel() or torch.compiler.is_compiling():
            return
        low, high = (int(end) for end in ids.aminmax())
        if low < 0 or high > self.mask_id:
            raise InputError(
                f"ids must lie in [0, {self.codebook_size}), or be the mask id {self.mask_id}; found "
                f"{low if low < 0 else high}; are they from another tokenizer?"
            )

    def check(self, made: Tokens | Tokenizer) -> None:
        """MismatchError unless these tokens, or this tokenizer, are the ones that the generator was made for."""
        name = made.tokenizer if isinstance(made, Tokens) else made.name
        if made.codebook_size != self.codebook_size:
            raise MismatchError(
                f"this generator speaks {self.codebook_size} ids of {self._owner}, {name} {made.fingerprint[:12]} has "
                f"{made.codebook_size}; load the tokenizer that it was trained with"
            )
        if self.fingerprint and (name, made.fingerprint) != (self.tokenizer, self.fingerprint):
            raise MismatchError(
                f"this generator was made for the ids of {self._owner}, not of {name} {made.fingerprint[:12]}; "
                "load the tokenizer that it was trained with"
            )

    @property
    def _owner(self) -> str:
        return f"{self.tokenizer} {self.fingerprint[:12]}" if self.tokenizer else "no tokenizer in particular"


def grouped(levels: Sequence[int], *, most: int) -> tuple[int, ...]:
    """Neighbouring levels multiplied while the product stays within ``most``: fewer factors, less independence.

    >>> grouped((40, 10, 8, 5, 4), most=512)
    (400, 160)
    """
    groups: list[int] = []
    for level in levels:
        if groups and groups[-1] * level <= most:
            groups[-1] *= level
        else:
            groups.append(level)
    return tuple(groups)


def grid_of(tokens: Tokens, *, segment_steps: int = 1) -> Grid:
    """The grid that a generator lays these ids on: their own, or (segments, 1, queries) for 1-D tokens.

    Args:
        tokens: of any layout but ``merged``.
        segment_steps: of the tokenizer: grid steps that are coded as one piece.
    """
    if tokens.layout == "merged":
        raise InputError("byte-pair merged ids lie on no grid; undo the byte pairs first (tokenreel bpe decode)")
    if tokens.layout == "grid":
        return tokens.grid
    segments = -(-tokens.grid.t // segment_steps)
    if tokens.num_tokens % segments:
        return Grid(t=1, h=1, w=tokens.num_tokens)
    return Grid(t=segments, h=1, w=tokens.num_tokens // segments)
