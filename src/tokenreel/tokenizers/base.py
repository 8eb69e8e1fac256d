"""What every tokenizer is: the protocol, its streams, and its laws.

Laws, tested for every entry of ``TOKENIZERS`` (tests/test_laws.py): decode(encode(x)) keeps count, order, shape and
range; ids lie in [0, codebook_size); encoding a batch equals encoding one by one; a stream gives the tokens of the
whole clip; for a causal tokenizer the tokens of the first k frames do not depend on later frames.

Letters: C channels, T frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tokenreel.errors import MismatchError
from tokenreel.types import PatchSize, Tokens

if TYPE_CHECKING:
    import torch

__all__ = ["StreamDecoder", "StreamEncoder", "Tokenizer", "Video", "check_fingerprint", "fingerprint_of"]

Video = "torch.Tensor | npt.NDArray[np.uint8]"


class StreamEncoder(Protocol):
    """Encodes one long clip in bounded memory: push frames as they come, then finish."""

    def push(self, video_CTHW: torch.Tensor | npt.NDArray[np.uint8]) -> list[Tokens]:
        """More frames, any number; gives the tokens that are complete."""

    def finish(self) -> list[Tokens]:
        """The tokens of what is left."""


class StreamDecoder(Protocol):
    """Decodes one long clip in bounded memory."""

    def push(self, tokens: Tokens) -> list[Any]:
        """The next part of the clip's tokens; gives the videos (C, T, H, W) that are complete."""

    def finish(self) -> list[Any]:
        """The videos of what is left."""


class Tokenizer(Protocol):
    """Videos to tokens and back.

    Attributes:
        name: key in ``TOKENIZERS``.
        pixels: what ``encode`` reads and ``decode`` gives: ``float`` (torch, (C, T, H, W) in [-1, 1]) or ``uint8``
            (numpy, the same layout; float tensors are taken too).
        patch_size: pixels a grid cell stands for.
        codebook_size: ids lie in [0, codebook_size).
        fingerprint: SHA-256 over configuration and weights; tokens of another fingerprint are refused.
    """

    @property
    def name(self) -> str:
        """Key in ``TOKENIZERS``."""

    @property
    def pixels(self) -> Literal["float", "uint8"]:
        """What ``encode`` reads and ``decode`` gives."""

    @property
    def patch_size(self) -> PatchSize:
        """(pt, ph, pw)."""

    @property
    def first_frames(self) -> int:
        """Frames that the first step of the grid stands for: 1 where the first frame is coded alone, else pt."""

    @property
    def codebook_size(self) -> int:
        """K."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal text."""

    @property
    def config(self) -> dict[str, Any]:
        """What defines it, as plain JSON values."""

    def encode(self, videos: Sequence[Any]) -> list[Tokens]:
        """Videos (C, T, H, W), sizes may differ -> one Tokens a video, in order."""

    def decode(self, tokens: Sequence[Tokens]) -> list[Any]:
        """One video a Tokens, in order, of the size it was encoded from."""

    def encoder(self) -> StreamEncoder:
        """A stream over one clip."""

    def decoder(self) -> StreamDecoder:
        """A stream over one clip."""


def fingerprint_of(name: str, config: Mapping[str, Any]) -> str:
    """SHA-256 of the name and configuration of a tokenizer without weights, as hexadecimal text."""
    text = json.dumps({"tokenizer": name, **config}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_fingerprint(tokenizer: Tokenizer, tokens: Tokens) -> None:
    """Raise MismatchError if these tokens were made by another tokenizer."""
    if tokens.fingerprint != tokenizer.fingerprint:
        raise MismatchError(
            f"these tokens were made by {tokens.tokenizer} {tokens.fingerprint[:12]}, "
            f"not by {tokenizer.name} {tokenizer.fingerprint[:12]}; load the tokenizer that made them"
        )
