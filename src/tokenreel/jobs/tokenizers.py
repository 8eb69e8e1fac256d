"""The tokenizer families and their sizes: listed, and written untrained."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import log2
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError
from tokenreel.tokenizers import RawTokenizer, Tokenizer, untrained

__all__ = ["init_tokenizer", "list_tokenizers"]

_SECONDS, _FPS, _SIDE = 10, 15, 256  # of the clip that bits a second are stated for


def list_tokenizers() -> list[dict[str, Any]]:
    """One row a family and size: parameters, codebook, layout, and bits of a second of 256x256 video at 15 fps.

    Counted over ten seconds, so that a first frame coded alone weighs as it does in a clip.
    """
    return [_row("raw", "", RawTokenizer(), 0, "bytes"), *_learned_rows()]


def _learned_rows() -> Iterator[dict[str, Any]]:
    import torch

    from tokenreel.tokenizers import LEARNED

    for name, family in LEARNED.items():
        for size, config in family.sizes.items():
            with torch.device("meta"):  # shapes without numbers
                model = family(config)
            yield _row(name, size, model, model.num_parameters, model.layout)


def _row(family: str, size: str, tokenizer: Tokenizer, parameters: int, layout: str) -> dict[str, Any]:
    tokens = tokenizer.num_tokens_of((_SECONDS * _FPS, _SIDE, _SIDE)) / _SECONDS
    bits = tokens * log2(tokenizer.codebook_size)
    return {
        "family": family,
        "size": size,
        "parameters": parameters,
        "patch_size": list(tokenizer.patch_size),
        "layout": layout,
        "codebook_size": tokenizer.codebook_size,
        "tokens_per_second": round(tokens, 1),
        "bits_per_second": round(bits),
        "bits_per_pixel": round(bits / (_FPS * _SIDE * _SIDE), 6),
        "compression_ratio": round(24 * _FPS * _SIDE * _SIDE / bits, 1),
    }


def init_tokenizer(name: str, output: str | os.PathLike[str], *, seed: int = 0) -> dict[str, Any]:
    """Write an untrained tokenizer, ``family`` or ``family:size``, as a folder that ``load`` takes.

    Raises:
        InputError: the family or size is unknown, or the folder holds something already.
    """
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; choose another name")
    model = untrained(name, seed=seed)
    model.save_pretrained(folder)
    return {
        "path": str(folder),
        "tokenizer": model.name,
        "parameters": model.num_parameters,
        "codebook_size": model.codebook_size,
        "fingerprint": model.fingerprint,
        "seed": seed,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }
