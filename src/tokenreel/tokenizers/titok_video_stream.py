"""Streams of TiTok-Video: one segment of ``max_frames`` frames at a time.

Letters: C channels (3), T H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokenreel.errors import MismatchError
from tokenreel.types import Tokens

from .counts import MOST_TOKENS, checked_counts

if TYPE_CHECKING:
    from .titok_video import TiTokVideo

__all__ = ["TiTokVideoDecoder", "TiTokVideoEncoder"]


class TiTokVideoEncoder:
    """Holds at most ``max_frames - 1`` frames back; gives one part a segment."""

    def __init__(self, tokenizer: TiTokVideo, token_count: int | None = None) -> None:
        checked_counts(token_count, 1, default=1, most=MOST_TOKENS)
        self.tokenizer = tokenizer
        self.token_count = token_count
        self._held: Tensor | None = None

    def push(self, video_CTHW: Any) -> list[Tokens]:
        """More frames; the tokens of all complete segments, one part each."""
        (video,) = self.tokenizer.checked_videos([video_CTHW])
        if self._held is not None:
            if self._held.shape[2:] != video.shape[2:]:
                raise MismatchError(
                    f"the frames of one clip must have one size, got {tuple(video.shape[2:])} after "
                    f"{tuple(self._held.shape[2:])}"
                )
            video = torch.cat([self._held, video], dim=1)
        most = self.tokenizer.config.max_frames
        complete = video.shape[1] - video.shape[1] % most
        segments = torch.split(video[:, :complete], most, dim=1) if complete else ()
        parts = [part for segment in segments for part in self._encoded(segment)]
        # A size is kept even where no frame is, so that the next push is held to it.
        self._held = video[:, complete:].clone()
        return parts

    def finish(self) -> list[Tokens]:
        """The last, shorter segment, if frames are left."""
        held, self._held = self._held, None
        return [] if held is None or held.shape[1] == 0 else self._encoded(held)

    def _encoded(self, segment_CTHW: Tensor) -> list[Tokens]:
        return self.tokenizer.encode([segment_CTHW], token_counts=self.token_count)


class TiTokVideoDecoder:
    """Every part holds whole segments, so it decodes alone; only the last segment of a clip may be short."""

    def __init__(self, tokenizer: TiTokVideo) -> None:
        self.tokenizer = tokenizer
        self._size: tuple[int, int, int] | None = None

    def push(self, tokens: Tokens) -> list[Tensor]:
        """The video of this part."""
        before = self._size
        if before is not None and before[0] % self.tokenizer.config.max_frames:
            raise MismatchError(
                f"a part follows one of {before[0]} frames, which ends within a segment of "
                f"{self.tokenizer.config.max_frames}; only the last part of a clip may"
            )
        if before is not None and before[1:] != tokens.size[1:]:
            raise MismatchError(f"the parts of one clip must have one size, got {tokens.size[1:]} after {before[1:]}")
        video = self.tokenizer.decode([tokens])
        self._size = tokens.size
        return video

    def finish(self) -> list[Tensor]:
        """Nothing is held back."""
        self._size = None
        return []
