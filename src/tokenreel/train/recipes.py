"""Recipes: one YAML file a complete experiment, checked field by field into frozen configurations.

``load_recipe("tiny-cvivit", overrides=["loop.steps=100"], data="my_clips/")``. The recipes that ship lie in
``tokenreel/recipes``; a header comment in each names paper, data, machine, hours, expected figures and the command.
Its field ``objective`` chooses the configuration that the others are checked against.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tokenreel.errors import FormatError, InputError

from .recipes_autoencode import AutoencodeRecipe
from .recipes_base import PLACEHOLDER, DataChoice, Recipe, SourceChoice
from .recipes_classify import ClassifyRecipe
from .recipes_masked import MaskedRecipe
from .recipes_values import built

__all__ = ["OBJECTIVES", "Recipe", "load_recipe", "recipe_names", "recipe_title"]

OBJECTIVES: dict[str, type[Recipe]] = {
    "autoencode": AutoencodeRecipe,
    "masked": MaskedRecipe,
    "classify": ClassifyRecipe,
}
"""What ``objective`` may say; ``jobs.train`` has the parts of each in a table of the same names."""


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
    objective = values.get("objective", next(iter(OBJECTIVES)))
    if not isinstance(objective, str) or objective not in OBJECTIVES:
        raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    recipe: Recipe = built(OBJECTIVES[objective], {"name": title, **values}, "")
    recipe.check()
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
        raise InputError("this recipe learns from your own data; name it: --data FOLDER")
    filled: list[SourceChoice] = []
    for source in choice.sources:
        named = data if source.data == PLACEHOLDER else [source.data]
        filled += [replace(source, data=str(one), weight=source.weight / len(named)) for one in named]
    return replace(choice, sources=tuple(filled))
