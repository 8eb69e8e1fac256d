"""Streams of TiTok. Frames are coded one by one, so nothing is held back.

Letters: C channels, T frames, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenreel.errors import MismatchError
from tokenreel.types import Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from .titok import TiTok

__all__ = ["TiTokDecoder", "TiTokEncoder"]


class TiTokEncoder:
    """Gives the tokens of every push at once."""

    def __init__(self, tokenizer: TiTok, *, token_count: int | None = None) -> None:
        tokenizer.check_count(token_count)
        self.tokenizer, self.token_count = tokenizer, token_count
        self._size: tuple[int, ...] | None = None

    def push(self, video_CTHW: Any) -> list[Tokens]:
        """More frames, any number; their tokens."""
        shape = tuple(getattr(video_CTHW, "shape", ()))
        if len(shape) == 4 and self._size not in (None, shape[2:]):
            raise MismatchError(f"the frames of one clip must have one size, got {shape[2:]} after {self._size}")
        encoded = self.tokenizer.encode([video_CTHW], token_counts=self.token_count)
        self._size = shape[2:]
        return encoded

    def finish(self) -> list[Tokens]:
        """Nothing is left; the next push starts another clip."""
        self._size = None
        return []


class TiTokDecoder:
    """Stateless: every part decodes alone."""

    def __init__(self, tokenizer: TiTok) -> None:
        self.tokenizer = tokenizer
        self._size: tuple[int, int] | None = None

    def push(self, tokens: Tokens) -> list[Tensor]:
        """The video of this part."""
        if self._size not in (None, tokens.size[1:]):
            raise MismatchError(f"the parts of one clip must have one size, got {tokens.size[1:]} after {self._size}")
        decoded = self.tokenizer.decode([tokens])
        self._size = tokens.size[1:]
        return decoded

    def finish(self) -> list[Tensor]:
        """Nothing is held back; the next push starts another clip."""
        self._size = None
        return []
