"""Tokenizers by name, folder or hub id, and untrained ones by family and size."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenreel.errors import FormatError, InputError

from .base import Tokenizer
from .raw import RawTokenizer

if TYPE_CHECKING:
    from .learned import LearnedTokenizer, Precision

__all__ = ["load", "untrained"]


def load(
    name_or_path: str | os.PathLike[str],
    *,
    device: Any = "cpu",
    precision: Precision = "fp32",
    local_files_only: bool = False,
) -> Tokenizer:
    """A tokenizer by a name that ships, ``raw`` (``raw:1,8,8`` for another patch size), a folder, or a hub id.

    Args:
        name_or_path: name, folder or ``owner/name``.
        device: where a learned tokenizer runs.
        precision: ``fp32``, or ``bf16``: faster where the processor has it, and some ids change.
        local_files_only: fetch nothing from the hub.

    Raises:
        InputError: nothing of that name is known. FormatError: the folder's files are damaged.
    """
    text = os.fspath(name_or_path)
    name, _, options = text.partition(":")
    if name == RawTokenizer.name and not (Path(text) / "config.json").is_file():
        return RawTokenizer.from_options(options)
    family, values, source = _described(text, local_files_only)
    if family == RawTokenizer.name:
        return RawTokenizer.from_config(values)
    families = _families()
    if family not in families:
        raise FormatError(f"{source} describes a tokenizer {family!r}; this version knows {', '.join(families)}, raw")
    return families[family].from_pretrained(text, device=device, precision=precision, local_files_only=local_files_only)


def untrained(name: str, *, seed: int = 0) -> LearnedTokenizer:
    """A learned tokenizer with random weights of this seed, by ``family`` or ``family:size``.

    Raises:
        InputError: the family or size is unknown.
    """
    families = _families()
    family, _, size = name.partition(":")
    if family not in families:
        raise InputError(f"no learned tokenizer family is called {family!r}; there are {', '.join(families)}")
    return families[family].untrained(size, seed=seed)


def _families() -> dict[str, type[LearnedTokenizer]]:
    """The learned ones by name; the first call brings torch."""
    with nullcontext() if "torch" in sys.modules else _unsearched():
        from .table import LEARNED
    return LEARNED


@contextmanager
def _unsearched() -> Iterator[None]:
    """No search for garbage meanwhile, and what was made counts as old after.

    ``import torch`` makes half a million objects that all stay; searching them takes a fifth of its time, and as long
    again soon after.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else there are objects that the caller froze, and would like to stay so
            gc.freeze()
            gc.unfreeze()  # into the oldest generation, without a search
        if was_on:
            gc.enable()


def _described(text: str, local_files_only: bool) -> tuple[str, dict[str, Any], Path]:
    """Family and configuration of a folder or hub id, and the file they were read from."""
    from .hub import is_hub_id, pretrained_folder, resolved

    if not Path(text).is_dir() and pretrained_folder(text) is None and not is_hub_id(text):
        raise InputError(_unknown(text))
    config = resolved(text, "config.json", local_files_only=local_files_only)
    try:
        values = json.loads(config.read_text())
        return str(values.pop("tokenizer")), values, config
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise FormatError(f"{config} does not describe a tokenizer of this version ({error})") from error


def _unknown(text: str) -> str:
    from .hub import pretrained_names

    family = text.partition(":")[0]
    if family in ("cvivit", "titok", "titok_video"):
        return (
            f"{family} is a family, not a tokenizer with weights; write an untrained one with "
            f"'tokenreel tokenizers init {text} -o FOLDER' and name that folder"
        )
    names = ", ".join([*pretrained_names(), "raw"])
    return f"no tokenizer is called {text!r} and there is no folder of that name; known names: {names}"
