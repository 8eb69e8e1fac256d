"""Configurations of learned tokenizers: their transformer stacks, and any of them as JSON values and back."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from tokenreel.errors import InputError
from tokenreel.nn.blocks import Norm, Residual, TransformerConfig
from tokenreel.nn.heads import Gate
from tokenreel.nn.mlp import MlpKind
from tokenreel.quantize import QUANTIZERS, QuantizerConfig, config_from_values, config_values

__all__ = ["BlockOptions", "Stack", "check_sizes", "chosen_values", "from_values", "to_values"]

T = TypeVar("T")
_EXPECTED = "expected"
_PLAIN = (int, float, bool, str, type(None))
_MOST_BLOCKS = 1_000
_QUANTIZER_TYPES = tuple(config for config, _ in QUANTIZERS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockOptions:
    """How the blocks of all stacks of a tokenizer are built; fields as in ``nn.TransformerConfig``."""

    mlp: MlpKind = "gelu"
    norm: Norm = "layer"
    num_kv_heads: int | None = None
    qk_norm: bool = False
    gate: Gate = "none"
    residual: Residual = "plain"
    drop_path: float = 0.0
    bias: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The size of one transformer stack; fields as in ``nn.TransformerConfig``."""

    dim: int
    depth: int
    num_heads: int
    head_dim: int
    mlp_dim: int

    def __post_init__(self) -> None:
        check_sizes(self)

    def transformer(
        self, blocks: BlockOptions, *, depth: int | None = None, causal: bool = False, window: int | None = None
    ) -> TransformerConfig:
        """The full configuration of a stack of this size."""
        return TransformerConfig(
            dim=self.dim,
            depth=self.depth if depth is None else depth,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            mlp_dim=self.mlp_dim,
            causal=causal,
            window=window,
            **{field.name: getattr(blocks, field.name) for field in fields(blocks)},
        )


def check_sizes(config: Any) -> None:
    """InputError unless every field is a whole number of at least 1, and depths are such as can be built."""
    for field in fields(config):
        value = getattr(config, field.name)
        most = _MOST_BLOCKS if "depth" in field.name else 1 << 20
        if type(value) is not int or not 1 <= value <= most:
            raise InputError(
                f"{type(config).__name__}.{field.name} must be a whole number in [1, {most}], got {value!r}"
            )


def to_values(config: Any) -> dict[str, Any]:
    """A configuration as JSON values, nested ones included; undone by ``from_values``."""
    if isinstance(config, _QUANTIZER_TYPES):
        return config_values(config)
    return {field.name: _value(getattr(config, field.name)) for field in fields(config)}


def chosen_values(config: Any) -> dict[str, Any]:
    """``to_values`` without the fields that have their default.

    What a fingerprint is made of: an option that a later version adds, off by default, then changes none.
    """
    values = to_values(config)
    for field in fields(config):
        value = getattr(config, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if default is not MISSING and value == default:
            del values[field.name]
        elif is_dataclass(value):
            kind = {"kind": values[field.name]["kind"]} if isinstance(value, _QUANTIZER_TYPES) else {}
            values[field.name] = {**kind, **chosen_values(value)}
    return values


def _value(value: Any) -> Any:
    if is_dataclass(value):
        return to_values(value)
    return list(value) if isinstance(value, tuple) else value


def from_values(
    config_type: type[T],
    values: Mapping[str, Any],
    *,
    converted: Callable[[Any, Any], Any] | None = None,
) -> T:
    """The configuration that JSON values describe.

    Args:
        config_type: a frozen dataclass; fields that are dataclasses are described by objects.
        values: its fields.
        converted: ``converted(type, value)`` for each field first; NotImplemented leaves it to the rules here.

    Raises:
        InputError: a field is unknown (the nearest is named), missing, or out of its range.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{config_type.__name__} is described by named values, got {values!r}")
    hints = get_type_hints(config_type)
    known = [field.name for field in fields(config_type)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0)[0]
            raise InputError(f"{config_type.__name__} has no field {name!r}; did you mean {nearest!r}?")
    try:
        return config_type(**{name: _named(name, hints[name], value, converted) for name, value in values.items()})
    except TypeError as error:
        raise InputError(f"{config_type.__name__} cannot be made of {dict(values)}: {error}") from None


def _named(name: str, hint: Any, value: Any, converted: Callable[[Any, Any], Any] | None) -> Any:
    """The value, its name told where it is of the wrong type."""
    try:
        return _typed(hint, value, converted)
    except InputError as error:
        if str(error).startswith(_EXPECTED):
            raise InputError(f"{name}: {error}") from None
        raise


def _typed(hint: Any, value: Any, converted: Callable[[Any, Any], Any] | None) -> Any:
    """JSON has lists for tuples and objects for configurations."""
    if converted is not None:
        found = converted(hint, value)
        if found is not NotImplemented:
            return found
    if hint == QuantizerConfig:
        return config_from_values(value)
    if isinstance(value, Mapping):
        described = [choice for choice in _choices(hint) if is_dataclass(choice)]
        if len(described) != 1:
            raise InputError(f"{_EXPECTED} a plain value, got {dict(value)}")
        return from_values(described[0], value, converted=converted)  # type: ignore[arg-type]
    if isinstance(value, list) and any(get_origin(one) is tuple for one in _choices(hint)):
        return tuple(value)
    plain = [one for one in _choices(hint) if one in _PLAIN]
    if plain and len(plain) == len(_choices(hint)) and not any(_is_a(value, one) for one in plain):
        raise InputError(f"{_EXPECTED} {' or '.join(one.__name__ for one in plain)}, got {value!r}")
    return value


def _is_a(value: Any, kind: type) -> bool:
    """A whole number is a float, too, but truth is no number."""
    return type(value) is kind or (kind is float and type(value) is int)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)
