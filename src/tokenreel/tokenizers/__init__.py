"""Every tokenizer by name: ``encode(videos) -> Tokens`` and ``decode(Tokens) -> videos``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tokenreel.errors import FormatError, InputError

from .base import Tokenizer
from .raw import RawTokenizer

__all__ = ["TOKENIZERS", "RawTokenizer", "Tokenizer", "load"]

TOKENIZERS: dict[str, type[RawTokenizer]] = {"raw": RawTokenizer}


def load(name_or_path: str | os.PathLike[str]) -> Tokenizer:
    """A tokenizer by name (``raw``, ``raw:1,8,8`` for another patch size) or from a folder with its ``config.json``.

    Raises:
        InputError: the name is unknown. FormatError: the folder's configuration is damaged.
    """
    text = os.fspath(name_or_path)
    name, _, options = text.partition(":")
    if name in TOKENIZERS:
        return TOKENIZERS[name].from_options(options)
    config = Path(text) / "config.json"
    if not config.is_file():
        raise InputError(
            f"no tokenizer is called {text!r} and there is no file {config}; known names: {', '.join(TOKENIZERS)}"
        )
    try:
        values = json.loads(config.read_text())
        family = TOKENIZERS[values.pop("tokenizer")]
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise FormatError(f"{config} does not describe a tokenizer of this version ({error})") from error
    return family.from_config(values)
