"""C-ViViT with prediction: each step is coded as what the decoded frame before it does not tell yet.

The encoder holds a decoder. What stands still is sent once and then made finer, step by step, where a tokenizer that
codes every step afresh sends the same again: DPCM's closed loop (conditional coding, arXiv 2109.15047, section 3).

Letters: B batch, C channels (3), T H W pixels, t h w grid, D dim, E codebook_dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tokenreel.patches.embed import padded

from .base import Reconstruction
from .cvivit_model import StreamState

if TYPE_CHECKING:
    from .cvivit import CViViT

__all__ = ["LoopState", "decode_step", "decode_steps", "encode_step", "forward_loop", "steps_of"]


class LoopState(NamedTuple):
    """What is kept between steps: of both halves, and the last frame that was decoded, clamped to [-1, 1]."""

    encoder: StreamState = StreamState()
    decoder: StreamState = StreamState()
    last_BCHW: Tensor | None = None


def steps_of(video_BCTHW: Tensor, pt: int, *, has_first: bool = True) -> Iterator[Tensor]:
    """The frames of each step: the first alone, then pt at a time, the last fewer."""
    start = 0
    while start < video_BCTHW.shape[2]:
        stop = start + (1 if has_first and start == 0 else pt)
        yield video_BCTHW[:, :, start:stop]
        start = stop


def encode_step(model: CViViT, frames_BCTHW: Tensor, state: LoopState) -> tuple[Tensor, LoopState]:
    """The frames of one step -> latents (B, 1, h, w, E) of what is new in them."""
    _, ph, pw = model.patch_size
    is_first = state.last_BCHW is None
    frames_BCTHW = padded(frames_BCTHW, (1 if is_first else model.patch_size[0], ph, pw))
    new_BCTHW = frames_BCTHW if state.last_BCHW is None else frames_BCTHW - state.last_BCHW[:, :, None]
    features_BthwD = model.embed(new_BCTHW, has_first=is_first)
    if state.last_BCHW is not None and model.encoder_sees is not None:
        features_BthwD = features_BthwD + model.encoder_sees(state.last_BCHW[:, :, None])
    features_BthwD, encoder = model.encoder_half.step(features_BthwD, state.encoder)
    return model.latents_of(features_BthwD, new_BCTHW, has_first=is_first), state._replace(encoder=encoder)


def decode_step(model: CViViT, codes_BthwE: Tensor, state: LoopState) -> tuple[Tensor, LoopState]:
    """Codes of one step -> its frames (B, C, 1 or pt, h * ph, w * pw), not clamped."""
    last_BCHW = state.last_BCHW
    features_BthwD = model.features_of(codes_BthwE, has_first=last_BCHW is None)
    if last_BCHW is not None and model.decoder_sees is not None:
        features_BthwD = features_BthwD + model.decoder_sees(last_BCHW[:, :, None])
    features_BthwD, decoder = model.decoder_half.step(features_BthwD, state.decoder)
    frames_BCTHW = model.pixels_of(features_BthwD, codes_BthwE, last_BCHW=last_BCHW, has_first=last_BCHW is None)
    return frames_BCTHW, state._replace(decoder=decoder, last_BCHW=frames_BCTHW[:, :, -1].float().clamp(-1, 1))


def decode_steps(model: CViViT, codes_BthwE: Tensor) -> Tensor:
    """Codes of a whole clip (B, t, h, w, E) -> its frames."""
    state, parts = LoopState(), []
    for codes in torch.split(codes_BthwE, 1, dim=1):
        decoded_BCTHW, state = decode_step(model, codes, state)
        parts.append(decoded_BCTHW)
    return torch.cat(parts, dim=2)


def forward_loop(
    model: CViViT,
    video_BCTHW: Tensor,
    *,
    valid_mask: Tensor | None,
    generator: torch.Generator | None,
    passes: int = 0,
) -> Reconstruction:
    """``CViViT.forward`` step by step; gradients reach through the frames that later steps start from.

    With ``passes`` the clip goes to and fro through the loop so often before, without gradients: what is then compared
    comes after as many steps as a long stream has. A network that never saw the state of one adds a little at every
    step, and a still scene fades.
    """
    if passes:
        return _late(model, video_BCTHW, generator, passes)
    return _walked(model, video_BCTHW, LoopState(), valid_mask, generator)[0]


def _walked(
    model: CViViT,
    video_BCTHW: Tensor,
    state: LoopState,
    valid_mask: Tensor | None,
    generator: torch.Generator | None,
) -> tuple[Reconstruction, LoopState]:
    """Through the loop from a state on."""
    parts = []
    steps = steps_of(video_BCTHW, model.patch_size[0], has_first=state.last_BCHW is None)
    for index, frames_BCTHW in enumerate(steps):
        latents, state = encode_step(model, frames_BCTHW, state)
        counted = None
        if valid_mask is not None:
            counted = valid_mask[:, index, None, None, None].expand(latents.shape[:-1])
        codes, ids, aux = model.quantizer(latents, valid_mask=counted, generator=generator)
        decoded, state = decode_step(model, codes, state)
        parts.append((decoded, latents, codes, ids, aux))
    frames, height, width = video_BCTHW.shape[2:]
    videos, latents_, codes_, ids_, losses = zip(*parts)
    walked = Reconstruction(
        torch.cat(videos, dim=2)[:, :, :frames, :height, :width],
        torch.cat(latents_, dim=1),
        torch.cat(codes_, dim=1),
        torch.cat(ids_, dim=1),
        {name: _mean([aux[name] for aux in losses], valid_mask) for name in losses[0]},
    )
    return walked, state


def _late(model: CViViT, video_BCTHW: Tensor, generator: torch.Generator | None, passes: int) -> Reconstruction:
    """The last of the passes to and fro, and the frame it started from as it was decoded before."""
    if video_BCTHW.shape[2] < 2:
        return _walked(model, video_BCTHW, LoopState(), None, generator)[0]
    turns = [video_BCTHW[:, :, 1:], video_BCTHW.flip(2)[:, :, 1:]]
    with torch.no_grad():
        _, state = _walked(model, video_BCTHW, LoopState(), None, generator)
        for turn in range(1, passes):
            _, state = _walked(model, turns[turn % 2], state, None, generator)
    assert state.last_BCHW is not None
    height, width = video_BCTHW.shape[3:]
    started_BCTHW = state.last_BCHW[:, :, None, :height, :width]
    walked, _ = _walked(model, turns[passes % 2], state, None, generator)
    video = torch.cat([started_BCTHW, walked.video], dim=2)
    return walked._replace(video=video.flip(2) if passes % 2 else video)


def _mean(losses: Sequence[Tensor], valid_mask: Tensor | None) -> Tensor:
    """Of the losses of each step, by how many clips have it."""
    losses_t = torch.stack(list(losses))
    if valid_mask is None:
        return losses_t.mean()
    counts_t = valid_mask.sum(0).to(losses_t)
    return (losses_t * counts_t).sum() / counts_t.sum()
