"""C-ViViT as a stream: the same ids and pixels in parts, with keys and values kept for one window only.

Letters: C channels (3), T H W pixels, t h w grid, E codebook_dim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokenreel.errors import MismatchError
from tokenreel.types import Tokens

from .cvivit_loop import LoopState, decode_step, encode_step, steps_of
from .cvivit_model import StreamState

if TYPE_CHECKING:
    from .cvivit import CViViT

__all__ = ["CViViTDecoder", "CViViTEncoder", "HeldEncoder"]

_PART_TOKENS = 4_096  # tokens that go through the network at once


class CViViTEncoder:
    """Frames of one clip in, tokens of whole steps out; holds at most pt - 1 frames and one window of keys."""

    def __init__(self, tokenizer: CViViT) -> None:
        self.tokenizer = tokenizer
        self._state, self._loop = StreamState(), LoopState()
        self._held_CTHW: Tensor | None = None
        self._size: tuple[int, int] | None = None

    def push(self, video_CTHW: Any) -> list[Tokens]:
        """More frames, any number; the tokens of all steps that are complete."""
        (clip_CTHW,) = self.tokenizer.checked_videos([video_CTHW])
        height, width = clip_CTHW.shape[2:]
        if self._size not in (None, (height, width)):
            raise MismatchError(f"the frames of one clip must have one size, got {(height, width)} after {self._size}")
        self._size = (height, width)
        if self._held_CTHW is not None:
            clip_CTHW = torch.cat([self._held_CTHW, clip_CTHW], dim=1)
        first = 1 if self._is_start else 0
        complete = first + (clip_CTHW.shape[1] - first) // self.tokenizer.patch_size[0] * self.tokenizer.patch_size[0]
        left_CTHW = clip_CTHW[:, complete:]
        self._held_CTHW = left_CTHW.clone() if left_CTHW.shape[1] else None
        return self._encoded(clip_CTHW[:, :complete])

    def finish(self) -> list[Tokens]:
        """The last, padded step, if frames are left; the next push starts another clip."""
        held_CTHW, self._held_CTHW = self._held_CTHW, None
        parts = [] if held_CTHW is None else self._encoded(held_CTHW)
        self._state, self._loop, self._size = StreamState(), LoopState(), None
        return parts

    @property
    def _is_start(self) -> bool:
        return self._state.steps == 0 and self._loop.encoder.steps == 0

    def ids_of(self, clip_CTHW: Tensor) -> Tensor:
        """A whole clip, checked: (L,) ids."""
        return torch.cat([ids_L for ids_L, _, _ in self._steps(clip_CTHW)])

    def _encoded(self, clip_CTHW: Tensor) -> list[Tokens]:
        if clip_CTHW.shape[1] == 0:
            return []
        height, width = clip_CTHW.shape[2:]
        with self.tokenizer.running():
            parts = self._steps(clip_CTHW)
        return [self.tokenizer.tokens(ids_L, (frames, height, width), steps=steps) for ids_L, steps, frames in parts]

    def _steps(self, clip_CTHW: Tensor) -> list[tuple[Tensor, int, int]]:
        """Ids, steps and frames of each part; all parts but the last are whole steps."""
        if self.tokenizer.is_predictive:
            return self._predicted(clip_CTHW)
        grid = self.tokenizer.grid_of((1, *clip_CTHW.shape[2:]))
        most = max(1, _PART_TOKENS // (grid.h * grid.w)) * self.tokenizer.patch_size[0]
        parts, start = [], 0
        while start < clip_CTHW.shape[1]:
            has_first = self._state.steps == 0
            part_CTHW = clip_CTHW[:, start : start + most + has_first]
            features_BthwD = self.tokenizer.embed(part_CTHW[None], has_first=has_first)
            features_BthwD, self._state = self.tokenizer.encoder_half.step(features_BthwD, self._state)
            ids_Bthw = self.tokenizer.ids(
                self.tokenizer.latents_of(features_BthwD, part_CTHW[None], has_first=has_first)
            )
            parts.append((ids_Bthw.flatten(), ids_Bthw.shape[1], part_CTHW.shape[1]))
            start += part_CTHW.shape[1]
        return parts

    def _predicted(self, clip_CTHW: Tensor) -> list[tuple[Tensor, int, int]]:
        """As ``_steps``: each step on its own, and decoded for the next."""
        model, parts = self.tokenizer, []
        for frames_BCTHW in steps_of(clip_CTHW[None], model.patch_size[0], has_first=self._is_start):
            latents_BthwE, self._loop = encode_step(model, frames_BCTHW, self._loop)
            ids_Bthw = model.ids(latents_BthwE)
            _, self._loop = decode_step(model, model.quantizer.codes(ids_Bthw), self._loop)
            parts.append((ids_Bthw.flatten(), 1, frames_BCTHW.shape[2]))
        return parts


class CViViTDecoder:
    """Tokens of whole steps in, their frames out; one window of keys is kept. Without ``causal`` it waits for all."""

    def __init__(self, tokenizer: CViViT) -> None:
        self.tokenizer = tokenizer
        self._state, self._loop = StreamState(), LoopState()
        self._held: list[Tokens] = []
        self._size: tuple[int, int] | None = None
        self._is_cut = False

    def push(self, tokens: Tokens) -> list[Tensor]:
        """The next part; its frames, (3, T, H, W) each."""
        self.tokenizer.check_tokens([tokens])
        self._check_part(tokens)
        self._size = tokens.size[1:]
        if not self.tokenizer.config.causal:
            self._held.append(tokens)
            return []
        with self.tokenizer.running():
            return self._decoded(self.tokenizer.codes_of(tokens), tokens.size)

    def finish(self) -> list[Tensor]:
        """What was held back; the next push starts another clip."""
        from tokenreel.tokens.file import join

        held, self._held = self._held, []
        self._state, self._loop, self._size, self._is_cut = StreamState(), LoopState(), None, False
        return self.tokenizer.decode([join(held)]) if held else []

    def _decoded(self, codes_thwE: Tensor, size: tuple[int, int, int]) -> list[Tensor]:
        from .cvivit import cropped

        frames, height, width = size
        videos = []
        if self.tokenizer.is_predictive:
            for codes in torch.split(codes_thwE, 1):
                video_BCTHW, self._loop = decode_step(self.tokenizer, codes[None], self._loop)
                videos.append(cropped(video_BCTHW, (frames, height, width))[0].cpu())
                frames -= videos[-1].shape[1]
            return videos
        most = max(1, _PART_TOKENS // (codes_thwE.shape[1] * codes_thwE.shape[2]))
        for codes in torch.split(codes_thwE, most):
            has_first = self._state.steps == 0
            features_BthwD = self.tokenizer.features_of(codes[None], has_first=has_first)
            features_BthwD, self._state = self.tokenizer.decoder_half.step(features_BthwD, self._state)
            video_BCTHW = self.tokenizer.pixels_of(features_BthwD, codes[None], has_first=has_first)
            videos.append(cropped(video_BCTHW, (frames, height, width))[0].cpu())
            frames -= videos[-1].shape[1]
        return videos

    def _check_part(self, tokens: Tokens) -> None:
        """The frames of a part must lie in its steps; the last step of the last part may be cut."""
        if self._is_cut:
            raise MismatchError("a part follows one that ends within a step of time; only the last part of a clip may")
        if self._size not in (None, tokens.size[1:]):
            raise MismatchError(f"the parts of one clip must have one size, got {tokens.size[1:]} after {self._size}")
        pt, steps = self.tokenizer.patch_size[0], tokens.grid.t
        seen = self._state.steps + self._loop.decoder.steps + sum(part.grid.t for part in self._held)
        most = steps * pt if seen else 1 + (steps - 1) * pt
        least = max(1, most - pt + 1)
        if not least <= tokens.size[0] <= most:
            raise MismatchError(
                f"{steps} steps of {pt} frames{'' if seen else ' (the first of one)'} stand for {least} to {most} "
                f"frames, these tokens say {tokens.size[0]}"
            )
        grid = self.tokenizer.grid_of((1, *tokens.size[1:]))
        if (grid.h, grid.w) != (tokens.grid.h, tokens.grid.w):
            raise MismatchError(
                f"tokens of size {tokens.size} must have a grid of {grid.h}x{grid.w}, got {tokens.grid}"
            )
        self._is_cut = tokens.size[0] < most


class HeldEncoder:
    """The encoder of a tokenizer that sees the whole clip at once: it holds all frames until ``finish``."""

    def __init__(self, tokenizer: CViViT) -> None:
        self.tokenizer = tokenizer
        self._held: list[Tensor] = []

    def push(self, video_CTHW: Any) -> list[Tokens]:
        """Nothing yet."""
        (clip_CTHW,) = self.tokenizer.checked_videos([video_CTHW])
        if self._held and clip_CTHW.shape[2:] != self._held[0].shape[2:]:
            sizes = tuple(clip_CTHW.shape[2:]), tuple(self._held[0].shape[2:])
            raise MismatchError(f"the frames of one clip must have one size, got {sizes[0]} after {sizes[1]}")
        self._held.append(clip_CTHW)
        return []

    def finish(self) -> list[Tokens]:
        """The tokens of the clip."""
        held, self._held = self._held, []
        return self.tokenizer.encode([torch.cat(held, dim=1)]) if held else []
