"""Values of a YAML file to frozen configurations, checked field by field; errors name the field by its dotted path."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from tokenreel.errors import InputError
from tokenreel.quantize import QUANTIZERS, QuantizerConfig

from .discriminator_style import StyleDiscriminatorConfig
from .discriminator_vit import ViTDiscriminatorConfig
from .discriminators import DiscriminatorConfig, PatchDiscriminatorConfig
from .term import Term

__all__ = ["built", "merged"]

_KINDS: dict[Any, dict[str, type[Any]]] = {
    DiscriminatorConfig: {
        "patch": PatchDiscriminatorConfig,
        "style": StyleDiscriminatorConfig,
        "vit": ViTDiscriminatorConfig,
    },
    QuantizerConfig: {name: config for name, (config, _) in QUANTIZERS.items()},
}
"""Unions of configurations that are told apart by ``kind``."""


def merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes win; an object with another ``kind`` replaces what was there."""
    found = dict(base)
    for name, value in changes.items():
        old = found.get(name)
        if (
            isinstance(value, Mapping)
            and isinstance(old, dict)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            found[name] = merged(old, value)
        else:
            found[name] = value
    return found


def built(config_type: Any, values: Any, path: str) -> Any:
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
        return built(described[0], value, path)
    inner = get_args(hint)[:1]
    if get_origin(hint) is tuple and is_dataclass(inner[0]):
        if not isinstance(value, list) or not value:
            raise InputError(f"{path}: expected a list of {path.rpartition('.')[2]}, got {value!r}")
        return tuple(built(inner[0], one, f"{path}.{index}") for index, one in enumerate(value))
    if hint == Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise InputError(f"{path}: expected named fields, got {value!r}")
        return dict(value)
    return _plain(hint, choices, value, path)


def _of_kind(kinds: Mapping[str, type[Any]], value: Any, path: str) -> Any:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(f"{path}.kind must be one of {', '.join(kinds)}, got {kind!r}")
    return built(kinds[kind], {name: one for name, one in value.items() if name != "kind"}, path)


def _plain(hint: Any, choices: tuple[Any, ...], value: Any, path: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    wanted = str(hint).replace("typing.", "") if isinstance(hint, UnionType) or get_args(hint) else hint.__name__
    if isinstance(value, bool) and bool not in choices:  # which would pass for a number
        raise InputError(f"{path}: expected {wanted}, got {value!r}")
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{path}: expected {wanted}, got {value!r} ({error.errors()[0]['msg']})") from None
