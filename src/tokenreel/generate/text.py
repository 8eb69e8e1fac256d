"""Prompts to text states: what every text encoder is, and the small byte-level one that is trained with a generator.

Letters: B prompts, S text tokens, Dt width of a text state, D dim.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.nn.blocks import Transformer
from tokenreel.nn.initial import drawn
from tokenreel.nn.rotary import Rotary
from tokenreel.tokenizers.configs import BlockOptions, Stack

from .condition import Condition

__all__ = ["ByteText", "ByteTextConfig", "TextEncoder", "bytes_of", "checked_prompts", "words_of"]

_END = 256  # stands after the last byte, so that no prompt is empty
_VOCAB_SIZE = 257
_WORD = re.compile(r"\w+|[^\w\s]")


class TextEncoder(Protocol):
    """Prompts to text states.

    Laws, tested for every encoder: the states of a prompt do not depend on the prompts beside it (equal within
    rounding); the mask comes from the lengths that the tokenizer gave, so a state that happens to be zero stays valid;
    equal prompts give equal states.

    Attributes:
        name: of the family and source, for messages and configurations.
        fingerprint: hash of configuration and weights.
        dim: Dt.
    """

    @property
    def name(self) -> str:
        """Of the family and source."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal text."""

    @property
    def dim(self) -> int:
        """Dt."""

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Prompts -> states (B, S, Dt), S of the longest, and their mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteTextConfig:
    """Configuration of ``ByteText``.

    Attributes:
        stack: size of the transformer; its dim is Dt.
        max_bytes: bytes of UTF-8 that are read; longer prompts are refused.
        words: None reads bytes. A number reads words and signs, each by two rows of a table of so many (hash
            embeddings, arXiv 1709.03933): a small model need not learn to spell, and knows the words of its captions
            alone.
    """

    stack: Stack
    max_bytes: int = 512
    words: int | None = None

    def __post_init__(self) -> None:
        if type(self.max_bytes) is not int or not 1 <= self.max_bytes <= 1 << 16:
            raise InputError(f"ByteTextConfig.max_bytes must be a whole number in [1, 65536], got {self.max_bytes!r}")
        if self.words is not None and (type(self.words) is not int or not 2 <= self.words <= 1 << 20):
            raise InputError(f"ByteTextConfig.words must be a whole number in [2, 1048576] or None, got {self.words!r}")


class ByteText(nn.Module):
    """A bidirectional transformer over the bytes, or the words, of a prompt: without vocabulary, files or download.

    It is trained with the generator that holds it, and saved inside it. ByT5, arXiv 2105.13626, reads bytes likewise.
    Gradients flow wherever torch records them.
    """

    name = "bytes"

    def __init__(self, config: ByteTextConfig) -> None:
        super().__init__()
        self.config = config
        stack = config.stack
        self.embed = nn.Embedding(_VOCAB_SIZE if config.words is None else config.words + 1, stack.dim)
        drawn(self.embed.weight, std=0.2)
        self.rotary = Rotary(head_dim=stack.head_dim, max_extents=(config.max_bytes + 1,))
        self.stack = Transformer(stack.transformer(BlockOptions(mlp="swiglu", norm="rms", qk_norm=True)))

    @property
    def dim(self) -> int:
        """Dt."""
        return self.config.stack.dim

    @property
    def fingerprint(self) -> str:
        """SHA-256 over configuration and weights."""
        digest = hashlib.sha256(json.dumps({"text": self.name, **asdict(self.config)}, sort_keys=True).encode())
        for key, tensor in sorted(self.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Prompts -> ``Condition``; S is the longest prompt's bytes, or words, and one for its end."""
        read, config = checked_prompts(prompts), self.config
        ids, valid_mask_BS = bytes_of(read, max_bytes=config.max_bytes)
        if config.words is not None:
            ids, valid_mask_BS = words_of(read, size=config.words)
        device = self.embed.weight.device
        valid_mask_BS = valid_mask_BS.to(device)
        return Condition(self(ids.to(device), valid_mask_BS), valid_mask_BS)

    def forward(self, ids: Tensor, valid_mask_BS: Tensor) -> Tensor:
        """(B, S) bytes or (B, S, 2) rows of words, and their mask -> (B, S, Dt)."""
        positions_S1 = torch.arange(ids.shape[1], device=ids.device)[:, None]
        embedded = self.embed(ids)
        out_BSD: Tensor = self.stack(
            embedded.sum(2) if ids.ndim == 3 else embedded,
            rotary=self.rotary(positions_S1),
            valid_mask=None if _full(valid_mask_BS) else valid_mask_BS,
        )
        return out_BSD


def _full(mask: Tensor) -> bool:
    return mask.device.type == "cpu" and bool(mask.all())


def checked_prompts(prompts: Sequence[str]) -> list[str]:
    """The prompts as a list; InputError for a single text, for none, and for what is no text."""
    if isinstance(prompts, str):
        raise InputError("encode takes a list of prompts, got one text; write encode([prompt])")
    found = list(prompts)
    if not found:
        raise InputError("encode takes at least one prompt, got none")
    for index, prompt in enumerate(found):
        if not isinstance(prompt, str):
            raise InputError(f"prompt {index} must be text, got {type(prompt).__name__}")
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise InputError(f"prompt {index} is not Unicode text: {prompt!r}; write it in UTF-8") from None
    return found


def bytes_of(prompts: Sequence[str], *, max_bytes: int) -> tuple[Tensor, Tensor]:
    """UTF-8 bytes and an end mark of every prompt, padded: (B, S) int64 in [0, 256], and (B, S) bool, True = real.

    >>> ids, valid = bytes_of(["hi", ""], max_bytes=9)
    >>> ids.tolist(), valid.tolist()
    ([[104, 105, 256], [256, 256, 256]], [[True, True, True], [True, False, False]])
    """
    coded = [prompt.encode() for prompt in prompts]
    for prompt, code in zip(prompts, coded):
        if len(code) > max_bytes:
            raise InputError(f"the prompt {prompt[:40]!r}... has {len(code)} bytes, at most {max_bytes} are read")
    lengths = torch.tensor([len(code) + 1 for code in coded])
    ids_BS = torch.full((len(coded), int(lengths.max())), _END)
    for row, code in enumerate(coded):
        ids_BS[row, : len(code)] = torch.from_numpy(np.frombuffer(code, np.uint8).astype(np.int64))
    return ids_BS, torch.arange(ids_BS.shape[1]) < lengths[:, None]


def words_of(prompts: Sequence[str], *, size: int) -> tuple[Tensor, Tensor]:
    """Words and signs of every prompt, large letters as small ones, and an end mark: (B, S, 2) int64, (B, S) bool.

    A word is two numbers in [0, size), from two hashes; the end mark is ``size`` twice.

    >>> ids, valid = words_of(["A cat", "a  CAT!"], size=50)
    >>> bool((ids[0, :2] == ids[1, :2]).all()), valid.tolist()
    (True, [[True, True, True, False], [True, True, True, True]])
    """
    coded = [[_hashes(word, size) for word in _WORD.findall(prompt.casefold())] for prompt in prompts]
    lengths = torch.tensor([len(code) + 1 for code in coded])
    ids_BS2 = torch.full((len(coded), int(lengths.max()), 2), size)
    for row, code in enumerate(coded):
        if code:
            ids_BS2[row, : len(code)] = torch.tensor(code)
    return ids_BS2, torch.arange(ids_BS2.shape[1]) < lengths[:, None]


@lru_cache(maxsize=1 << 14)
def _hashes(word: str, size: int) -> tuple[int, int]:
    digest = hashlib.blake2b(word.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") % size, int.from_bytes(digest[8:], "big") % size
