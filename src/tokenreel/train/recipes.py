"""Recipes: one YAML file a complete experiment, checked field by field into frozen configurations.

``load_recipe("tiny-cvivit", overrides=["loop.steps=100"], data="my_clips/")``. The recipes that ship lie in
``tokenreel/recipes``; a header comment in each names paper, data, machine, hours, expected figures and the command.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tokenreel.errors import FormatError, InputError
from tokenreel.tokenizers import LEARNED
from tokenreel.tokenizers.configs import from_values, to_values
from tokenreel.tokenizers.learned import LearnedTokenizer

from .batches import BatchConfig, Source
from .discriminator_style import StyleDiscriminatorConfig
from .discriminator_vit import ViTDiscriminatorConfig
from .discriminators import DiscriminatorConfig, PatchDiscriminatorConfig
from .loop import LoopConfig
from .losses import LossConfig
from .optim import OptimConfig
from .term import Term

__all__ = ["DataChoice", "ModelChoice", "Recipe", "SourceChoice", "load_recipe", "recipe_names"]

PLACEHOLDER = "DATA"
"""As the ``data`` of a source: what ``--data`` names."""

_DISCRIMINATORS = {
    "patch": PatchDiscriminatorConfig,
    "style": StyleDiscriminatorConfig,
    "vit": ViTDiscriminatorConfig,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """Which tokenizer is trained.

    Attributes:
        family, size: as ``tokenreel tokenizers`` lists them.
        changes: fields of its configuration that differ from that size.
        init: folder, name or hub id of a tokenizer whose weights it starts from; family, size and changes then give
            way to its own.
        frozen: ``encoder``: only the decoder learns.
    """

    family: str = ""
    size: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    frozen: str | None = None

    def __post_init__(self) -> None:
        if self.init is None and self.family not in LEARNED:
            raise InputError(f"model.family must be one of {', '.join(LEARNED)}, got {self.family!r}")
        if self.frozen not in (None, "encoder"):
            raise InputError(f"model.frozen must be 'encoder' or null, got {self.frozen!r}")

    def config(self) -> Any:
        """The full configuration."""
        family = LEARNED[self.family]
        if self.size and self.size not in family.sizes:
            raise InputError(f"{self.family} has no size {self.size!r}; its sizes are {', '.join(family.sizes)}")
        base = family.sizes[self.size or next(iter(family.sizes))]
        return from_values(family.config_type, _merged(to_values(base), self.changes))

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
class SourceChoice:
    """One source of clips, fields as in ``batches.Source``; data ``DATA`` is what ``--data`` names."""

    data: str
    weight: float = 1.0
    split: str | None = None
    is_single: bool = False

    def source(self) -> Source:
        """To be opened."""
        return Source(data=self.data, weight=self.weight, split=self.split, is_single=self.is_single)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChoice:
    """What is learned from, and in which batches."""

    sources: tuple[SourceChoice, ...]
    batches: BatchConfig
    num_workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A complete experiment."""

    name: str
    model: ModelChoice
    data: DataChoice
    losses: LossConfig
    optim: OptimConfig
    loop: LoopConfig
    critic_optim: OptimConfig | None = None


def recipe_names() -> list[str]:
    """The recipes that ship."""
    folder = resources.files("tokenreel") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name: str, *, overrides: Sequence[str] = (), data: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with changes.

    Args:
        name: of one that ships, or a YAML file.
        overrides: ``dotted.field=value``, the value as YAML.
        data: replaces the ``DATA`` sources.

    Raises:
        InputError: the recipe, a field or a value is wrong; the nearest name is told.
    """
    title, text = _text(name)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FormatError(f"the recipe {name} is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise FormatError(f"the recipe {name} must be named fields, got {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    _fill_data(values, data)
    return from_values(Recipe, {"name": title, **values}, converted=_converted)


def _text(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"there is no recipe file {path}")
        return path.stem, path.read_text()
    names = recipe_names()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0)
        raise InputError(f"no recipe is called {name!r}; did you mean {nearest[0]!r}? There are {', '.join(names)}")
    return name, (resources.files("tokenreel") / "recipes" / f"{name}.yaml").read_text()


def _override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"a change of a recipe is written field=value, such as loop.steps=100; got {override!r}")
    *parents, last = path.split(".")
    for parent in parents:
        below = values.get(parent)
        if below is None:
            below = values[parent] = {}
        if isinstance(below, int | float) and not isinstance(below, bool):  # a term written as its weight alone
            below = values[parent] = {"weight": below}
        if not isinstance(below, dict):
            raise InputError(f"{override}: {parent} holds {below!r}, which has no field {last!r}")
        values = below
    values[last] = yaml.safe_load(text)


def _fill_data(values: dict[str, Any], data: Sequence[str]) -> None:
    """Each ``DATA`` source becomes one a folder that was named, its weight divided among them."""
    sources = values.get("data", {}).get("sources") if isinstance(values.get("data"), dict) else None
    if not isinstance(sources, list):
        return
    filled: list[Any] = []
    for source in sources:
        if not isinstance(source, dict) or source.get("data") != PLACEHOLDER:
            filled.append(source)
            continue
        if not data:
            raise InputError("this recipe learns from your own clips; name them: --data FOLDER")
        weight = source.get("weight", 1.0) / len(data)
        filled += [{**source, "data": str(one), "weight": weight} for one in data]
    values["data"]["sources"] = filled


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes win; an object with another ``kind`` replaces what was there."""
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        if (
            isinstance(value, Mapping)
            and isinstance(old, dict)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            merged[name] = _merged(old, value)
        else:
            merged[name] = value
    return merged


def _converted(hint: Any, value: Any) -> Any:
    """Short forms of recipes, and the types of plain values."""
    if hint == Term | None and isinstance(value, int | float) and not isinstance(value, bool):
        return Term(weight=float(value))
    if hint == Term and isinstance(value, int | float):
        return Term(weight=float(value))
    if hint == DiscriminatorConfig and isinstance(value, Mapping):
        kind = value.get("kind")
        if kind not in _DISCRIMINATORS:
            raise InputError(f"a discriminator's kind must be one of {', '.join(_DISCRIMINATORS)}, got {kind!r}")
        rest = {name: one for name, one in value.items() if name != "kind"}
        return from_values(_DISCRIMINATORS[kind], rest, converted=_converted)
    if hint == tuple[SourceChoice, ...]:
        return tuple(from_values(SourceChoice, one, converted=_converted) for one in value)
    if hint == Mapping[str, Any]:
        return dict(value)
    if isinstance(value, Mapping) or value is None:
        return NotImplemented
    return _plain(hint, value)


def _plain(hint: Any, value: Any) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint, config=ConfigDict(strict=False)).validate_python(value)
    except PydanticUserError:  # a configuration of ours, which takes no config from outside
        return NotImplemented
    except ValidationError as error:
        wanted = getattr(hint, "__name__", str(hint).replace("typing.", ""))
        raise InputError(f"expected {wanted}, got {value!r} ({error.errors()[0]['msg']})") from None
