"""Latents to (codes, ids, losses) and ids to codes: ``VQ``, ``FSQ``, ``LFQ`` behind one signature (torch).

>>> quantizer = build_quantizer(FSQConfig(levels=(8, 5, 5)))
>>> quantizer.codebook_size, quantizer.codebook_dim
(200, 3)
>>> config_from_values({"kind": "fsq", "levels": [8, 5, 5]}) == quantizer.config
True
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from tokenreel.errors import InputError

from .base import Quantized, Quantizer
from .fsq import FSQ, FSQConfig
from .lfq import LFQ, LFQConfig
from .usage import UsageMeter, batch_usage
from .vq import VQ, VQConfig

__all__ = [
    "FSQ",
    "LFQ",
    "QUANTIZERS",
    "VQ",
    "FSQConfig",
    "LFQConfig",
    "Quantized",
    "Quantizer",
    "QuantizerConfig",
    "UsageMeter",
    "VQConfig",
    "batch_usage",
    "build_quantizer",
    "config_from_values",
    "config_values",
]

QuantizerConfig = VQConfig | FSQConfig | LFQConfig

QUANTIZERS: dict[str, tuple[type[Any], type[Quantizer]]] = {
    "vq": (VQConfig, VQ),
    "fsq": (FSQConfig, FSQ),
    "lfq": (LFQConfig, LFQ),
}


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer that a config describes."""
    return QUANTIZERS[_kind(config)][1](config)


def config_values(config: QuantizerConfig) -> dict[str, Any]:
    """The config as JSON values, its ``kind`` among them; undone by ``config_from_values``."""
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    return {"kind": _kind(config), **values}


def config_from_values(values: Mapping[str, Any]) -> QuantizerConfig:
    """The config that JSON values describe. InputError for an unknown kind or field, naming the nearest."""
    given = dict(values)
    kind = given.pop("kind", None)
    if kind not in QUANTIZERS:
        raise InputError(f"a quantizer's kind must be one of {', '.join(QUANTIZERS)}, got {kind!r}")
    config = QUANTIZERS[kind][0]
    known = [field.name for field in fields(config)]
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0)[0]
            raise InputError(f"{config.__name__} has no field {name!r}; did you mean {nearest!r}?")
    try:
        built: QuantizerConfig = config(**given)
    except TypeError as error:
        raise InputError(f"{config.__name__} cannot be made of {given}: {error}") from None
    return built


def _kind(config: QuantizerConfig) -> str:
    for kind, (config_type, _) in QUANTIZERS.items():
        if isinstance(config, config_type):
            return kind
    raise InputError(f"expected the config of a quantizer ({', '.join(QUANTIZERS)}), got {type(config).__name__}")
