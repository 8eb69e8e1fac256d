"""Classifiers by folder or hub id."""

from __future__ import annotations

import json
import os

import torch

from tokenreel.errors import FormatError
from tokenreel.tokenizers.hub import resolved
from tokenreel.tokenizers.saved import CONFIG_NAME, Precision

from .classifier import Classifier
from .tokens import TokenViViT
from .vivit import ViViT

__all__ = ["CLASSIFIERS", "load"]

CLASSIFIERS: dict[str, type[Classifier]] = {"vivit": ViViT, "token_vivit": TokenViViT}


def load(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    local_files_only: bool = False,
) -> Classifier:
    """A classifier of any family, from a folder or a hub id.

    Raises:
        InputError: there is no such folder or repository. FormatError: its files are damaged or hold no classifier.
    """
    config = resolved(os.fspath(name_or_path), CONFIG_NAME, local_files_only=local_files_only)
    try:
        values = dict(json.loads(config.read_text()))
    except (ValueError, TypeError) as error:
        raise FormatError(f"{config} does not describe a classifier of this version ({error})") from error
    if "model_type" in values and Classifier.kind not in values:
        raise FormatError(
            f"{config} is of transformers ({values['model_type']!r}); tokenreel.classify.from_hf reads its vivit"
        )
    # A folder of another kind is refused, with its name, by any family.
    family = CLASSIFIERS.get(values.get(Classifier.kind, ViViT.name))
    if family is None:
        raise FormatError(
            f"{config} describes a classifier {values[Classifier.kind]!r}; this version knows {', '.join(CLASSIFIERS)}"
        )
    return family.from_pretrained(name_or_path, device=device, precision=precision, local_files_only=local_files_only)
