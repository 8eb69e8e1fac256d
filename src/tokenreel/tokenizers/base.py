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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tokenreel.errors import MismatchError
from tokenreel.types import PatchSize, Tokens

if TYPE_CHECKING:
    import torch

__all__ = [
    "Made",
    "Reconstruction",
    "StreamDecoder",
    "StreamEncoder",
    "Tokenizer",
    "check_fingerprint",
    "check_reading",
    "fingerprint_of",
]


class Reconstruction(NamedTuple):
    """What a learned tokenizer's ``forward`` gives, for training.

    Attributes:
        video: the decoded video(s), in the shape that was given; not clamped, so that gradients reach every pixel.
        latents: encoder output before quantizing, float32 (..., E).
        codes: quantized latents, the same shape, with the quantizer's gradient.
        ids: int64 (...).
        aux: losses of the quantizer by name, already weighted: add them all to the loss.
    """

    video: Any
    latents: torch.Tensor
    codes: torch.Tensor
    ids: torch.Tensor
    aux: dict[str, torch.Tensor]


class Made(Protocol):
    """Whatever says which tokenizer made it: ``Tokens``, or the header of a token file."""

    @property
    def tokenizer(self) -> str:
        """Name of the family."""

    @property
    def fingerprint(self) -> str:
        """Of the tokenizer."""


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
        segment_steps: grid steps that are coded as one piece, so that a stream and a file may be cut between pieces.
        reference: what token files carry so that this tokenizer is found again.
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
    def segment_steps(self) -> int:
        """1 where every step of the grid has ids of its own."""

    @property
    def reference(self) -> dict[str, Any]:
        """``tokenizer_config``, and for learned ones ``tokenizer_source``: plain JSON values for ``Tokens.meta``."""

    def num_tokens_of(self, size: tuple[int, int, int]) -> int:
        """How many ids a video of (T, H, W) becomes."""

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


def check_reading(tokenizer: Tokenizer, tokens: Tokens, layout: str) -> None:
    """Raise MismatchError unless these tokens are of this tokenizer: its fingerprint, codebook and layout."""
    if tokens.codebook_size != tokenizer.codebook_size:
        raise MismatchError(
            f"these tokens are of a codebook of {tokens.codebook_size}, {tokenizer.name} has "
            f"{tokenizer.codebook_size} codes; load the tokenizer that made them"
        )
    check_fingerprint(tokenizer, tokens)
    if tokens.layout != layout:
        undo = "; undo the byte pairs first (tokenreel bpe decode)" if tokens.layout == "merged" else ""
        raise MismatchError(f"{tokenizer.name} decodes tokens of layout {layout!r}, got {tokens.layout!r}{undo}")


def check_fingerprint(tokenizer: Tokenizer, tokens: Made) -> None:
    """Raise MismatchError if these tokens were made by another tokenizer."""
    if tokens.fingerprint != tokenizer.fingerprint:
        raise MismatchError(
            f"these tokens were made by {tokens.tokenizer} {tokens.fingerprint[:12]}, "
            f"not by {tokenizer.name} {tokenizer.fingerprint[:12]}; load the tokenizer that made them"
        )
