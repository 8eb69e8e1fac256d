"""The tokenizer behind records of tokens, as far as the records tell: how steps of its grid relate to frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import torch

from tokenreel.errors import InputError, MismatchError
from tokenreel.generate.vocabulary import Vocabulary, grid_of, grouped
from tokenreel.tokenizers.configs import from_values
from tokenreel.types import Grid, Tokens

__all__ = ["TokenOrigin"]

_CARRIED = ("tokenizer_config", "tokenizer_source")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOrigin:
    """What records of one tokenizer share.

    Attributes:
        tokenizer, fingerprint, codebook_size, layout: as in ``Tokens``.
        reference: what finds the tokenizer again: ``tokenizer_config``, ``tokenizer_source``, as far as known.
        segment_steps: grid steps that are coded as one piece.
        is_causal: whether the first steps of a record are the record of the first frames.
    """

    tokenizer: str
    fingerprint: str
    codebook_size: int
    layout: str
    reference: dict[str, Any]
    segment_steps: int
    is_causal: bool

    @classmethod
    def of(cls, tokens: Tokens) -> Self:
        """From one record.

        Raises:
            InputError: its ids lie on no grid.
        """
        reference = {name: tokens.meta[name] for name in _CARRIED if name in tokens.meta}
        segment_steps, is_causal = _shape_of(tokens.tokenizer, reference.get("tokenizer_config"))
        grid_of(tokens, segment_steps=segment_steps)
        return cls(
            tokenizer=tokens.tokenizer,
            fingerprint=tokens.fingerprint,
            codebook_size=tokens.codebook_size,
            layout=tokens.layout,
            reference=reference,
            segment_steps=segment_steps,
            is_causal=is_causal,
        )

    def grid_of(self, tokens: Tokens) -> Grid:
        """The grid that a generator lays this record on."""
        return grid_of(tokens, segment_steps=self.segment_steps)

    def check(self, tokens: Tokens, where: str) -> None:
        """MismatchError unless the record is of this tokenizer."""
        theirs = (tokens.tokenizer, tokens.fingerprint, tokens.codebook_size, tokens.layout)
        if theirs != (self.tokenizer, self.fingerprint, self.codebook_size, self.layout):
            raise MismatchError(
                f"{where} holds {tokens.layout} ids of {tokens.tokenizer} {tokens.fingerprint[:12]}, the records "
                f"before are {self.layout} ids of {self.tokenizer} {self.fingerprint[:12]}; encode all with "
                "one tokenizer"
            )

    def check_cuts(self) -> None:
        """InputError if the first steps of a record are not what the tokenizer makes of the first frames."""
        if not self.is_causal:
            raise InputError(
                f"the tokenizer {self.tokenizer} {self.fingerprint[:12]} is not causal: its ids depend on later "
                "frames, so records cannot be cut in time; leave out max_steps, image_share and is_single"
            )

    def vocabulary(self, most_levels: int | None = None) -> Vocabulary:
        """Of a generator of these ids.

        Args:
            most_levels: FSQ levels are multiplied to factors up to this size; None: one softmax over all ids.

        Raises:
            InputError: the tokenizer has no FSQ levels, or the records do not tell them.
        """
        levels: tuple[int, ...] = (self.codebook_size,)
        if most_levels is not None:
            quantizer = self.reference.get("tokenizer_config", {}).get("quantizer", {})
            if quantizer.get("kind") != "fsq":
                raise InputError(
                    f"model.most_levels is for ids of an FSQ quantizer, {self.tokenizer} {self.fingerprint[:12]} has "
                    f"{quantizer.get('kind', 'none that its records tell of')}; say model.most_levels=null"
                )
            levels = grouped(quantizer["levels"], most=most_levels)
        return Vocabulary(
            codebook_size=self.codebook_size,
            levels=levels,
            tokenizer=self.tokenizer,
            fingerprint=self.fingerprint,
            reference=json.dumps(self.reference, sort_keys=True),
        )


def _shape_of(tokenizer: str, config: Any) -> tuple[int, bool]:
    """``segment_steps`` and whether it is causal, from the configuration alone; no weights are needed."""
    from tokenreel.tokenizers.table import LEARNED

    family = LEARNED.get(tokenizer)
    if family is None or not isinstance(config, dict):
        return 1, True
    with torch.device("meta"):
        made = family(from_values(family.config_type, config))
    return made.segment_steps, bool(config.get("causal", True))
