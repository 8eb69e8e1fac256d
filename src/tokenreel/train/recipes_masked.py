"""Recipes of generators: which size, token shards in which batches, what is masked, which critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from tokenreel.errors import InputError
from tokenreel.generate.critic import TokenCritic, TokenCriticConfig
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.maskgit_config import MaskGITConfig
from tokenreel.generate.storyboard import Scene, Storyboard
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.tokenizers.configs import to_values

from .masked import MaskingConfig
from .recipes_base import DataChoice, Recipe, check_start
from .recipes_values import built, merged
from .token_batches_config import TokenBatchConfig

__all__ = ["CriticChoice", "GeneratorChoice", "MaskedRecipe", "TokenChoice"]

CriticKind = Literal["self", "token"]
_FREE = Vocabulary(codebook_size=2, levels=(2,))
_OWNED = ("vocabulary", "text_encoder", "text_fingerprint")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorChoice:
    """Which generator is trained; its vocabulary is that of the token shards.

    Attributes:
        size: a name in ``MaskGIT.sizes``.
        changes: fields of its configuration that differ from that size.
        most_levels: FSQ levels are multiplied to factors of an id up to this size; None: one softmax over all ids.
        text_encoder: folder or hub id of a T5 whose states it reads; None: the encoder inside, or no text.
        text_cache: folder that keeps the states of captions, so that each is computed once and not once an epoch.
        from_codes: embeddings and output layer start as the codes of the tokenizer, which must be at hand
            (``MaskGIT.start_from_codes``).
        init: folder or hub id of a generator whose weights it starts from; the fields before give way to its own.
    """

    size: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    most_levels: int | None = None
    text_encoder: str | None = None
    text_cache: str | None = None
    from_codes: bool = False
    init: str | None = None

    def __post_init__(self) -> None:
        check_start(self.init, "generator")
        if self.size and self.size not in MaskGIT.sizes:
            raise InputError(f"size must be one of {', '.join(MaskGIT.sizes)}, got {self.size!r}")
        if self.most_levels is not None and self.most_levels < 2:
            raise InputError(f"most_levels must be at least 2 or null, got {self.most_levels}")
        _check_own(self.changes, "model.changes")

    def config(self, vocabulary: Vocabulary = _FREE, **more: Any) -> MaskGITConfig:
        """The full configuration, with the vocabulary of the data and further fields."""
        base = MaskGIT.sizes[self.size or next(iter(MaskGIT.sizes))]
        found: MaskGITConfig = _config(
            MaskGITConfig, base, self.changes, "model.changes", vocabulary=vocabulary, **more
        )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticChoice:
    """Which critic learns, and when.

    Attributes:
        kind: ``self``, a head inside the generator; ``token``, a network of its own with an optimizer of its own.
        after: the generator (``model.init``) stays as it is, and the critic alone learns; else both at once.
        weight: of the self critic's loss beside the generator's.
        temperature: of the draws that it judges.
        start_step: a token critic learns from this step on.
        fooling: weight of a loss by which the generator learns from the critic: its draws are to look real
            (``train.masked.fooling_loss``); 0: it does not.
        size, changes: of a token critic, as those of the model.
    """

    kind: CriticKind = "self"
    after: bool = False
    weight: float = 1.0
    temperature: float = 1.0
    start_step: int = 0
    fooling: float = 0.0
    size: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(CriticKind):
            raise InputError(f"kind must be one of {', '.join(get_args(CriticKind))}, got {self.kind!r}")
        if self.weight <= 0 or self.temperature < 0 or self.start_step < 0 or self.fooling < 0:
            raise InputError(
                "weight must be above 0, temperature, start_step and fooling at least 0, got "
                f"{self.weight}, {self.temperature}, {self.start_step}, {self.fooling}"
            )
        if self.fooling and (self.after or self.temperature != 1):
            raise InputError(
                "fooling is for a generator that learns with its critic, from draws of temperature 1; got "
                f"after={self.after}, temperature={self.temperature}"
            )
        if self.kind == "self" and (self.size or self.changes):
            raise InputError("size and changes are for a critic of kind 'token'; a self critic is a head of the model")
        if self.size and self.size not in TokenCritic.sizes:
            raise InputError(f"size must be one of {', '.join(TokenCritic.sizes)}, got {self.size!r}")
        _check_own(self.changes, "critic.changes")

    def config(self, vocabulary: Vocabulary = _FREE) -> TokenCriticConfig:
        """The full configuration of a token critic."""
        base = TokenCritic.sizes[self.size or next(iter(TokenCritic.sizes))]
        found: TokenCriticConfig = _config(
            TokenCriticConfig, base, self.changes, "critic.changes", vocabulary=vocabulary
        )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChoice(DataChoice):
    """Token shards, and in which batches; ``num_workers`` are threads that read ahead."""

    batches: TokenBatchConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedRecipe(Recipe):
    """A complete experiment with a generator.

    Attributes:
        sampling: fields of a storyboard that suit this generator, kept with it: ``{still_steps: 12}``.
    """

    objective: str = "masked"
    model: GeneratorChoice
    data: TokenChoice
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    critic: CriticChoice | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """InputError for what is wrong with the model, its critic or its sampling, before anything is opened."""
        try:
            Storyboard(scenes=(Scene(prompt="any", seconds=1.0),), size=(1, 1), **self.sampling)
        except TypeError:
            known = [one.name for one in fields(Storyboard) if one.name not in ("scenes", "size")]
            raise InputError(f"sampling takes {', '.join(known)}, got {', '.join(self.sampling)}") from None
        if self.model.init is None:
            self.model.config()
        if self.critic is not None and self.critic.kind == "token":
            self.critic.config()
        if self.critic is not None and self.critic.after and self.model.init is None:
            raise InputError(
                "critic.after trains a critic for a generator that is trained; name its folder: model.init=FOLDER"
            )


def _config(
    config_type: type[Any], base: Any, changes: Mapping[str, Any], path: str, *, vocabulary: Vocabulary, **more: Any
) -> Any:
    """A named size with changes; the vocabulary comes from the data and is no field of a recipe."""
    config = built(config_type, merged(to_values(base), {**changes, "vocabulary": to_values(_FREE)}), path)
    return replace(config, vocabulary=vocabulary, **more)


def _check_own(changes: Mapping[str, Any], path: str) -> None:
    for name in _OWNED:
        if name in changes:
            raise InputError(f"{path}.{name} is not a recipe's to say: it follows from the data and the text encoder")
