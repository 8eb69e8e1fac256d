"""Recipes: one YAML file a complete experiment, checked field by field into frozen configurations.

``load_recipe("tiny-cvivit", overrides=["loop.steps=100"], data="my_clips/")``. The recipes that ship lie in
``tokenreel/recipes``; a header comment in each names paper, data, machine, hours, expected figures and the command.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import yaml

from tokenreel.errors import FormatError, InputError
from tokenreel.quantize import QUANTIZERS, QuantizerConfig
from tokenreel.tokenizers import LEARNED
from tokenreel.tokenizers.configs import to_values
from tokenreel.tokenizers.learned import LearnedTokenizer

from .batches import BatchConfig, Source
from .discriminator_style import StyleDiscriminatorConfig
from .discriminator_vit import ViTDiscriminatorConfig
from .discriminators import DiscriminatorConfig, PatchDiscriminatorConfig
from .loop import LoopConfig
from .losses import LossConfig
from .optim import OptimConfig
from .term import Term

__all__ = ["DataChoice", "ModelChoice", "Recipe", "SourceChoice", "load_recipe", "recipe_names", "recipe_title"]

PLACEHOLDER = "DATA"
"""As the ``data`` of a source: what ``--data`` names."""

START = "INIT"
"""As ``model.init``: a tokenizer that must be named."""

_KINDS: dict[Any, dict[str, type[Any]]] = {
    DiscriminatorConfig: {
        "patch": PatchDiscriminatorConfig,
        "style": StyleDiscriminatorConfig,
        "vit": ViTDiscriminatorConfig,
    },
    QuantizerConfig: {name: config for name, (config, _) in QUANTIZERS.items()},
}
"""Unions of configurations that are told apart by ``kind``."""


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
        if self.init == START:
            raise InputError("this recipe goes on from a trained tokenizer; name its folder: model.init=FOLDER")
        if self.init is None and self.family not in LEARNED:
            raise InputError(f"family must be one of {', '.join(LEARNED)}, got {self.family!r}")
        if self.frozen not in (None, "encoder"):
            raise InputError(f"frozen must be 'encoder' or null, got {self.frozen!r}")

    def config(self) -> Any:
        """The full configuration."""
        family = LEARNED[self.family]
        if self.size and self.size not in family.sizes:
            raise InputError(f"{self.family} has no size {self.size!r}; its sizes are {', '.join(family.sizes)}")
        base = family.sizes[self.size or next(iter(family.sizes))]
        return _built(family.config_type, _merged(to_values(base), self.changes), "model.changes")

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


def recipe_title(name: str) -> str:
    """What a recipe is for: the first line of its header."""
    first, _, _ = _text(name)[1].partition("\n")
    return first.lstrip("# ") if first.startswith("#") else ""


def load_recipe(name: str, *, overrides: Sequence[str] = (), data: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with changes.

    Args:
        name: of one that ships, or a YAML file.
        overrides: ``dotted.field=value``, the value as YAML; numbers choose from lists (``data.sources.0.weight=2``).
        data: replaces the ``DATA`` sources.

    Raises:
        InputError: the recipe, a field or a value is wrong; its dotted name and the nearest one are told.
    """
    title, text = _text(name)
    values = _yaml(text, f"the recipe {name}")
    if not isinstance(values, dict):
        raise FormatError(f"the recipe {name} must be named fields, got {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    recipe: Recipe = _built(Recipe, {"name": title, **values}, "")
    if recipe.model.init is None:
        recipe.model.config()  # what is wrong with it is told before anything is opened
    return replace(recipe, data=_filled(recipe.data, data))


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


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FormatError(f"{what} is not YAML ({' '.join(str(error).split())})") from error


def _override(values: Any, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"a change of a recipe is written field=value, such as loop.steps=100; got {override!r}")
    *parents, last = path.split(".")
    for parent in parents:
        place = _place(values, parent, override)
        below = values[place] if isinstance(values, list) else values.get(parent)
        if below is None:
            below = values[place] = {}
        if isinstance(below, int | float) and not isinstance(below, bool):  # a term written as its weight alone
            below = values[place] = {"weight": below}
        if not isinstance(below, dict | list):
            raise InputError(f"{override}: {parent} holds {below!r}, which has no field {last!r}")
        values = below
    values[_place(values, last, override)] = _yaml(text, override)


def _place(values: Any, name: str, override: str) -> Any:
    """The key of a dict, or the index in a list."""
    if isinstance(values, dict):
        return name
    if not name.isdigit() or int(name) >= len(values):
        raise InputError(f"{override}: {name!r} is no place in a list of {len(values)}; they count from 0")
    return int(name)


def _filled(choice: DataChoice, data: Sequence[str]) -> DataChoice:
    """Each ``DATA`` source becomes one a folder that was named, its weight divided among them."""
    if not any(source.data == PLACEHOLDER for source in choice.sources):
        if data:
            raise InputError(f"this recipe names its own data; instead of --data {data[0]} change data.sources.0.data")
        return choice
    if not data:
        raise InputError("this recipe learns from your own clips; name them: --data FOLDER")
    filled: list[SourceChoice] = []
    for source in choice.sources:
        named = data if source.data == PLACEHOLDER else [source.data]
        filled += [replace(source, data=str(one), weight=source.weight / len(named)) for one in named]
    return replace(choice, sources=tuple(filled))


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


def _built(config_type: Any, values: Any, path: str) -> Any:
    """The configuration that these values describe; errors name the field from the top of the recipe."""
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: expected named fields, got {values!r}")
    hints, known = get_type_hints(config_type), {one.name: one for one in fields(config_type)}
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0)[0]
            raise InputError(
                f"there is no field {_joined(path, name)}; did you mean {_joined(path, nearest)}? "
                f"{path or 'A recipe'} has {', '.join(known)}"
            )
    for name, one in known.items():
        if name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise InputError(f"the field {_joined(path, name)} is missing")
    given = {name: _valued(hints[name], value, _joined(path, name)) for name, value in values.items()}
    try:
        return config_type(**given)
    except InputError as error:
        raise InputError(f"{path}: {error}" if path else str(error)) from None


def _joined(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _valued(hint: Any, value: Any, path: str) -> Any:
    """One field: nested configurations, short forms, and the types of plain values."""
    if hint in _KINDS:
        return _of_kind(_KINDS[hint], value, path)
    choices = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None and NoneType in choices:
        return None
    if Term in choices and isinstance(value, int | float) and not isinstance(value, bool):
        return Term(weight=float(value))
    described = [choice for choice in choices if is_dataclass(choice)]
    if described:
        return _built(described[0], value, path)
    if hint == tuple[SourceChoice, ...]:
        if not isinstance(value, list) or not value:
            raise InputError(f"{path}: expected a list of sources, got {value!r}")
        return tuple(_built(SourceChoice, one, f"{path}.{index}") for index, one in enumerate(value))
    if hint == Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise InputError(f"{path}: expected named fields, got {value!r}")
        return dict(value)
    return _plain(hint, choices, value, path)


def _of_kind(kinds: Mapping[str, type[Any]], value: Any, path: str) -> Any:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{path}.kind must be one of {', '.join(kinds)}, got {kind!r}")
    return _built(kinds[kind], {name: one for name, one in value.items() if name != "kind"}, path)


def _plain(hint: Any, choices: tuple[Any, ...], value: Any, path: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    wanted = str(hint).replace("typing.", "") if isinstance(hint, UnionType) or get_args(hint) else hint.__name__
    if isinstance(value, bool) and bool not in choices:  # which would pass for a number
        raise InputError(f"{path}: expected {wanted}, got {value!r}")
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{path}: expected {wanted}, got {value!r} ({error.errors()[0]['msg']})") from None
