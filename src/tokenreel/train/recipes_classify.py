"""Recipes of classifiers: which family and size, which labelled source, how it is seen, how answers are scored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from tokenreel.classify.classifier import Classifier
from tokenreel.classify.loading import CLASSIFIERS, load
from tokenreel.classify.logits import HeadLabels
from tokenreel.classify.tokens import TokenViViT, TokenViViTConfig
from tokenreel.classify.vivit import ViViT
from tokenreel.classify.vivit_config import SIZES, EncoderConfig, ViViTConfig
from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.tokenizers.configs import to_values
from tokenreel.types import Grid, Tokens

from .classify import ClassifyConfig
from .classify_batches import LabelledBatchConfig
from .classify_clips import ClipView
from .classify_codes import CodeAugment
from .classify_data import LabelledChoice
from .recipes_base import Recipe, check_start
from .recipes_values import built, merged
from .token_batches_origin import TokenOrigin

__all__ = ["ClassifierChoice", "ClassifyRecipe", "LabelledSource", "ScoreChoice"]

_FREE: HeadLabels = (("label", ("0", "1")),)
_OWNED = ("heads", "made_by", "made_by_fingerprint", "layout", "codebook_size")
_HOW = ("central", "average")
Measure = Literal["accuracy", "auc", "loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierChoice:
    """Which classifier is trained; its heads and labels are those of the data.

    Attributes:
        family: ``vivit``, of pixels, or ``token_vivit``, of a tokenizer's ids.
        size: a name in ``ViViT.sizes``; of ``token_vivit`` the transformer of that size.
        changes: fields of its configuration that differ from that size. Those of ``token_vivit`` take ``grid`` and
            ``levels`` from the first record unless they are said here (``levels: null``: a vector an id).
        rows: of ``token_vivit`` on queries: every step has its own row.
        init: folder or hub id of a classifier whose weights it starts from; family, size and changes then give way to
            its own. Where its labels are others, its heads start anew.
        image: safetensors file of an image ViT (names of timm or transformers) that a ``vivit`` starts from.
        image_how: ``central`` or ``average``, see ``ViViT.init_from_image_vit``.
    """

    family: str = ViViT.name
    size: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    rows: bool = False
    init: str | None = None
    image: str | None = None
    image_how: Literal["central", "average"] = "central"

    def __post_init__(self) -> None:
        check_start(self.init, "classifier")
        if self.family not in CLASSIFIERS:
            raise InputError(f"family must be one of {', '.join(CLASSIFIERS)}, got {self.family!r}")
        if self.size and self.size not in SIZES:
            raise InputError(f"size must be one of {', '.join(SIZES)}, got {self.size!r}")
        if self.image_how not in _HOW:
            raise InputError(f"image_how must be one of {', '.join(_HOW)}, got {self.image_how!r}")
        if self.image is not None and (self.init is not None or self.family != ViViT.name):
            raise InputError("image is for a vivit that starts from an image ViT; it goes with no init")
        if self.rows and self.family != TokenViViT.name:
            raise InputError(f"rows is for {TokenViViT.name}, not for {self.family}")
        for name in _OWNED:
            if name in self.changes:
                raise InputError(f"changes.{name} is not a recipe's to say: it follows from the data")

    def config(self, heads: HeadLabels = _FREE, tokens: Tokens | None = None) -> ViViTConfig | TokenViViTConfig:
        """The full configuration; that of ids reads tokens like these."""
        size = SIZES[self.size or next(iter(SIZES))]
        found: ViViTConfig | TokenViViTConfig
        if self.family == ViViT.name:
            found = built(ViViTConfig, merged(to_values(size), self.changes), "model.changes")
            return replace(found, heads=heads)
        shared = {one.name for one in fields(EncoderConfig)}
        values = {name: value for name, value in to_values(size).items() if name in shared}
        example = _no_tokens() if tokens is None else tokens
        read = TokenViViTConfig.reading(
            example, rows=self.rows, **{one.name: getattr(size, one.name) for one in fields(EncoderConfig)}
        )
        values = {**to_values(read), **values, "levels": _levels(tokens)}
        if tokens is None and self.changes.get("levels"):  # which only a record can confirm
            values["codebook_size"] = _product(self.changes["levels"])
        found = built(TokenViViTConfig, merged(values, self.changes), "model.changes")
        return replace(found, heads=heads)

    def build(self, heads: HeadLabels, *, tokens: Tokens | None = None, seed: int) -> Classifier:
        """The classifier, with random weights of this seed, those of ``init`` or those of an image ViT.

        Raises:
            InputError: a file is missing. MismatchError: weights do not fit, or the tokens are of another tokenizer.
        """
        if self.init is not None:
            model = _with_heads(load(self.init), heads, seed)
        else:
            model = CLASSIFIERS[self.family].untrained(self.config(heads, tokens), seed=seed)
        if isinstance(model, TokenViViT) != (tokens is not None):
            what = "tokens" if tokens is not None else "pixels"
            raise MismatchError(f"the data holds {what}, which a {model.name} does not read; say another model.family")
        if tokens is not None and isinstance(model, TokenViViT):
            model.batch_of([tokens])
        if self.image is not None and isinstance(model, ViViT):
            model.init_from_image_vit(_weights_of(self.image), how=self.image_how)
        return model


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreChoice:
    """How the validation part is used, every ``loop.look_every`` steps and at the end.

    Attributes:
        keep_best: the averaged weights that did best on it are those that are exported, not the last ones.
        by: what is best: ``accuracy`` or ``auc`` (the mean over heads), or ``loss`` (the lowest).
        batch_size: examples at once.
    """

    keep_best: bool = False
    by: Measure = "accuracy"
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.by not in get_args(Measure):
            raise InputError(f"by must be one of {', '.join(get_args(Measure))}, got {self.by!r}")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSource(LabelledChoice):
    """A labelled source, how it is seen, and in which batches.

    Attributes:
        batches: their size, balance, and how much is kept in memory; ``num_workers`` are threads that work ahead.
        clips: how a ``vivit`` sees clips.
        codes: random changes of the ids that a ``token_vivit`` reads; null: none.
    """

    batches: LabelledBatchConfig
    clips: ClipView = field(default_factory=ClipView)
    codes: CodeAugment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRecipe(Recipe):
    """A complete experiment with a classifier."""

    objective: str = "classify"
    model: ClassifierChoice
    data: LabelledSource
    loss: ClassifyConfig = field(default_factory=ClassifyConfig)
    scores: ScoreChoice = field(default_factory=ScoreChoice)

    def check(self) -> None:
        """InputError for what is wrong with the model, before anything is opened."""
        if self.model.init is None:
            self.model.config()
        if self.scores.keep_best and not self.loop.look_every:
            raise InputError("scores.keep_best compares scores of every loop.look_every steps, which is 0")
        if self.data.batches.balanced and self.loss.class_weights != "none":
            raise InputError(
                "data.batches.balanced already shows all classes equally often; say loss.class_weights=none, or "
                "data.batches.balanced=false"
            )
        if self.model.family == TokenViViT.name and self.loss.mixup:
            raise InputError("ids of a tokenizer cannot be mixed; say loss.mixup=0")


def _levels(tokens: Tokens | None) -> list[int] | None:
    """Of an FSQ tokenizer, as far as the record tells."""
    if tokens is None:
        return None
    quantizer = TokenOrigin.of(tokens).reference.get("tokenizer_config", {}).get("quantizer", {})
    return list(quantizer["levels"]) if quantizer.get("kind") == "fsq" else None


def _product(levels: Any) -> int:
    try:
        found = 1
        for level in levels:
            found *= int(level)
        return found
    except (TypeError, ValueError):
        return 2  # the configuration tells what is wrong


def _with_heads(model: Classifier, heads: HeadLabels, seed: int) -> Classifier:
    """The same classifier for these labels; heads that name others start anew."""
    if model.heads == heads:
        return model
    made = type(model).untrained(replace(model.config, heads=heads), seed=seed)
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith("out.")}
    made.load_state_dict({**made.state_dict(), **kept})
    return made


def _weights_of(path: str) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not os.path.isfile(path):
        raise InputError(f"model.image={path}: there is no such file; name the safetensors of an image ViT")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise FormatError(f"model.image={path} is not a readable safetensors file ({error})") from error


def _no_tokens() -> Tokens:
    import numpy as np

    return Tokens(
        ids_L=np.zeros(1, np.uint8),
        layout="grid",
        grid=Grid(t=1, h=1, w=1),
        size=(1, 1, 1),
        codebook_size=2,
        tokenizer="none",
        fingerprint="0" * 64,
    )
