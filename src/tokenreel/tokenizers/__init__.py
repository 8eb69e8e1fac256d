"""Every tokenizer by name: ``encode(videos) -> Tokens`` and ``decode(Tokens) -> videos``.

``TOKENIZERS`` and the learned families are loaded when they are first used: the raw tokenizer works without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Tokenizer
from .loading import load, untrained
from .raw import RawTokenizer

if TYPE_CHECKING:
    from .cvivit import CViViT, CViViTConfig
    from .table import LEARNED, TOKENIZERS
    from .titok import TiTok, TiTokConfig
    from .titok_video import TiTokVideo, TiTokVideoConfig

__all__ = [
    "LEARNED",
    "TOKENIZERS",
    "CViViT",
    "CViViTConfig",
    "RawTokenizer",
    "TiTok",
    "TiTokConfig",
    "TiTokVideo",
    "TiTokVideoConfig",
    "Tokenizer",
    "load",
    "untrained",
]

_HOMES = {
    "LEARNED": "table",
    "TOKENIZERS": "table",
    "CViViT": "cvivit",
    "CViViTConfig": "cvivit",
    "TiTok": "titok",
    "TiTokConfig": "titok",
    "TiTokVideo": "titok_video",
    "TiTokVideoConfig": "titok_video",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
