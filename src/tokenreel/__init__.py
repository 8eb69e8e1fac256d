"""Pictures and video to tokens, and tokens to pictures again.

The names below are the public ones. They are loaded when they are first used, so that importing the package is quick
and brings neither torch nor any codec.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenreel.errors import TokenReelError, TokenReelWarning
    from tokenreel.media.frames import Selection
    from tokenreel.media.pixels import to_frames, to_video
    from tokenreel.media.read import open_media, read
    from tokenreel.media.write import open_writer, write
    from tokenreel.patches.embed import PatchEmbed, TubeletEmbed
    from tokenreel.patches.patchify import patchify, unpatchify
    from tokenreel.tokenizers import TOKENIZERS, Tokenizer, load
    from tokenreel.tokens.file import TokenFile
    from tokenreel.tokens.file import load as load_tokens
    from tokenreel.tokens.file import save as save_tokens
    from tokenreel.types import Clip, Grid, Tokens

__version__ = "0.1.0"

__all__ = [
    "TOKENIZERS",
    "Clip",
    "Grid",
    "PatchEmbed",
    "Selection",
    "TokenFile",
    "TokenReelError",
    "TokenReelWarning",
    "Tokenizer",
    "Tokens",
    "TubeletEmbed",
    "__version__",
    "load",
    "load_tokens",
    "open_media",
    "open_writer",
    "patchify",
    "read",
    "save_tokens",
    "to_frames",
    "to_video",
    "unpatchify",
    "write",
]

_HOMES = {
    "TokenReelError": "errors",
    "TokenReelWarning": "errors",
    "Clip": "types",
    "Grid": "types",
    "Tokens": "types",
    "Selection": "media.frames",
    "to_frames": "media.pixels",
    "to_video": "media.pixels",
    "open_media": "media.read",
    "read": "media.read",
    "open_writer": "media.write",
    "write": "media.write",
    "PatchEmbed": "patches.embed",
    "TubeletEmbed": "patches.embed",
    "patchify": "patches.patchify",
    "unpatchify": "patches.patchify",
    "TOKENIZERS": "tokenizers",
    "Tokenizer": "tokenizers",
    "load": "tokenizers",
    "TokenFile": "tokens.file",
    "load_tokens": "tokens.file:load",
    "save_tokens": "tokens.file:save",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tokenreel' has no attribute {name!r}")
    module, _, original = home.partition(":")
    value = getattr(import_module(f"tokenreel.{module}"), original or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
