"""Tokenizers that lose something known, for tests: pixels cut to 16 levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tokenreel.tokenizers.base import StreamDecoder, StreamEncoder, fingerprint_of
from tokenreel.types import Grid, PatchSize, Tokens

LEVELS = 16


class CoarseTokenizer:
    """One id a pixel and channel: the nearest of 16 levels of [-1, 1]."""

    name: ClassVar[str] = "coarse"
    pixels: ClassVar[Literal["float", "uint8"]] = "float"
    patch_size: ClassVar[PatchSize] = (1, 1, 1)
    first_frames: ClassVar[int] = 1
    codebook_size: ClassVar[int] = LEVELS
    config: ClassVar[dict[str, Any]] = {"levels": LEVELS}
    fingerprint: ClassVar[str] = fingerprint_of("coarse", {"levels": LEVELS})

    def encode(self, videos: Sequence[Tensor]) -> list[Tokens]:
        return [self._encoded(video) for video in videos]

    def decode(self, tokens: Sequence[Tokens]) -> list[Tensor]:
        videos = []
        for item in tokens:
            ids = torch.from_numpy(item.ids_L.astype(np.int64)).reshape(3, *item.size)
            videos.append(ids.to(torch.float32) / (LEVELS - 1) * 2 - 1)
        return videos

    def encoder(self) -> StreamEncoder:
        raise NotImplementedError

    def decoder(self) -> StreamDecoder:
        raise NotImplementedError

    def _encoded(self, video: Tensor) -> Tokens:
        size = (video.shape[1], video.shape[2], video.shape[3])
        ids = ((video + 1) / 2 * (LEVELS - 1)).round().to(torch.int64)
        return Tokens(
            ids_L=ids.reshape(-1).numpy(),
            layout="queries",
            grid=Grid(t=size[0], h=size[1], w=size[2]),
            size=size,
            codebook_size=LEVELS,
            tokenizer=self.name,
            fingerprint=self.fingerprint,
        )


class CroppingTokenizer(CoarseTokenizer):
    """Loses the last row: against the law."""

    def decode(self, tokens: Sequence[Tokens]) -> list[Tensor]:
        return [video[:, :, :-1] for video in super().decode(tokens)]


class ExactCoarse(CoarseTokenizer):
    """The same through uint8, so that a pixel which is one of the levels comes back exactly."""

    pixels: ClassVar[Literal["float", "uint8"]] = "uint8"

    def encode(self, videos: Sequence[Any]) -> list[Tokens]:
        return super().encode([torch.from_numpy(np.array(video)).to(torch.float32) / 127.5 - 1 for video in videos])

    def decode(self, tokens: Sequence[Tokens]) -> list[Any]:
        return [((video + 1) * 127.5).round().to(torch.uint8).numpy() for video in super().decode(tokens)]


def coarse(frames_THWC: np.ndarray) -> np.ndarray:
    """What CoarseTokenizer makes of uint8 frames, in [0, 1], in plain numpy."""
    return np.rint(frames_THWC / 255 * (LEVELS - 1)) / (LEVELS - 1)
