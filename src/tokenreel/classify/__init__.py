"""Videos, or a tokenizer's ids, to labels: the classifiers, loaded when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classifier import Classifier
    from .hf_vivit import from_hf
    from .loading import CLASSIFIERS, load
    from .logits import Logits
    from .tokens import TokenViViT, TokenViViTConfig
    from .vivit import ViViT
    from .vivit_config import ViViTConfig

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "Logits",
    "TokenViViT",
    "TokenViViTConfig",
    "ViViT",
    "ViViTConfig",
    "from_hf",
    "load",
]

_HOMES = {
    "CLASSIFIERS": "loading",
    "Classifier": "classifier",
    "Logits": "logits",
    "TokenViViT": "tokens",
    "TokenViViTConfig": "tokens",
    "ViViT": "vivit",
    "ViViTConfig": "vivit_config",
    "from_hf": "hf_vivit",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
