"""Recipes of tokenizers: which family and size, clips in which batches, which losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenreel.errors import InputError
from tokenreel.tokenizers import LEARNED
from tokenreel.tokenizers.configs import to_values
from tokenreel.tokenizers.learned import LearnedTokenizer

from .batch_config import BatchConfig
from .losses import LossConfig
from .recipes_base import DataChoice, Recipe, check_start
from .recipes_values import built, merged

__all__ = ["AutoencodeRecipe", "ClipChoice", "ModelChoice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """Which tokenizer is trained.

    Attributes:
        family, size: as ``tokenreel tokenizers`` lists them.
        changes: fields of its configuration that differ from that size.
        init: folder, name or hub id of a tokenizer whose weights it starts from; family, size and changes then give
            way to its own.
        frozen: ``encoder``: only the decoder learns.
        passes: of a predictive tokenizer: numbers of passes to and fro over a clip before the one that is compared,
            one drawn for each batch, so that it learns the state of long streams (``CViViT.forward``).
    """

    family: str = ""
    size: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    frozen: str | None = None
    passes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_start(self.init, "tokenizer")
        if self.init is None and self.family not in LEARNED:
            raise InputError(f"family must be one of {', '.join(LEARNED)}, got {self.family!r}")
        object.__setattr__(self, "passes", tuple(self.passes))
        if min(self.passes, default=0) < 0:
            raise InputError(f"passes must be at least 0, got {list(self.passes)}")
        if self.frozen not in (None, "encoder"):
            raise InputError(f"frozen must be 'encoder' or null, got {self.frozen!r}")

    def config(self) -> Any:
        """The full configuration."""
        family = LEARNED[self.family]
        if self.size and self.size not in family.sizes:
            raise InputError(f"{self.family} has no size {self.size!r}; its sizes are {', '.join(family.sizes)}")
        base = family.sizes[self.size or next(iter(family.sizes))]
        return built(family.config_type, merged(to_values(base), self.changes), "model.changes")

    def build(self, *, seed: int) -> LearnedTokenizer:
        """The tokenizer, with random weights of this seed or those of ``init``."""
        from tokenreel.tokenizers import load

        if self.init is None:
            return LEARNED[self.family].untrained(self.config(), seed=seed)
        model = load(self.init)
        if not isinstance(model, LearnedTokenizer):
            raise InputError(f"model.init={self.init} names a tokenizer without weights; there is nothing to train")
        return model


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipChoice(DataChoice):
    """Clips, and in which batches."""

    batches: BatchConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencodeRecipe(Recipe):
    """A complete experiment with a tokenizer."""

    objective: str = "autoencode"
    model: ModelChoice
    data: ClipChoice
    losses: LossConfig

    def check(self) -> None:
        """InputError for what is wrong with the model, before anything is opened."""
        if self.model.init is None:
            self.model.config()
