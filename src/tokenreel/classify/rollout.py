r"""Attention rollout: how much of each tubelet reaches the answer, by the attention of all layers together.

Abnar and Zuidema, arXiv 2005.00928, equation 1, with W the mean of a layer's attention over its heads::

    A_l = 0.5 W_l + 0.5 I          R = A_n ... A_2 A_1          map = row of R that is read

The 0.5 I stands for the residual branch. What is read is the row of the class token, without its own column, or the
mean of all rows; a map is scaled to the sum 1. Only that row is multiplied, from the last layer to the first: the same
numbers as the product of the matrices for a fraction of the work. What the four models of ViViT read:

- ``spatio_temporal``: as above, over all tokens.
- ``factorised_encoder``: the rollout over the places of each step times the rollout over the steps,
  ``map[t, h, w] = time[t] * space_t[h, w]``; without blocks over time, ``time`` is uniform.
- ``factorised_self_attention``: each block is two layers, ``A = A_time A_space``; ``A_space`` mixes the places of a
  step, ``A_time`` the steps of a place, each ``0.5 W + 0.5 I``.
- ``factorised_dot_product``: W is the mean over all heads, those over space and those over time; a head has no weight
  outside its own step or place.

The map leaves values and MLPs out: it says where the model looks, not what it makes of what is there.

Letters: B batch, t h w grid, S places of a step, L tokens, N sequences, M keys, A heads, G key/value heads, d head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.nn.heads import Attention
from tokenreel.nn.positions import GridSize

from .classifier import Classifier
from .folds import Fold
from .tokens import TokenViViT
from .vivit import ViViT
from .vivit_blocks import DividedBlock, FactorisedBlock
from .vivit_encoders import Encoder, FactorisedEncoder, FoldedEncoder, PooledStack, SpatioTemporalEncoder

__all__ = ["head_weights", "passed", "rolled", "rollout"]


def rollout(model: Classifier, videos: Sequence[Any]) -> list[Tensor]:
    """What ``predict`` takes -> a float32 map (t, h, w) an example, on the CPU, each at least 0 and of sum 1.

    The grid is that of the example's own frames (of its ids, for ``TokenViViT``).
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(model, ViViT | TokenViViT) or not isinstance(encoder, Encoder):
        raise InputError(f"rollout reads the attention of ViViT and TokenViViT, got {type(model).__name__}")
    with model.running(), _every_token(encoder), _watched(encoder) as reads:
        x_BthwD, own = _embedded(model, videos)
        encoder(x_BthwD, own)
        grid: GridSize = (x_BthwD.shape[1], x_BthwD.shape[2], x_BthwD.shape[3])
        fold = Fold.of(grid, own, x_BthwD.device)
        with torch.autocast(x_BthwD.device.type, enabled=False):
            map_BL = _map(encoder, reads, fold, len(x_BthwD))
    map_Bthw = rearrange(map_BL, "B (t h w) -> B t h w", t=grid[0], h=grid[1]).cpu()
    sizes = [grid] * len(map_Bthw) if own is None else own
    return [one[:t, :h, :w] / one[:t, :h, :w].sum() for one, (t, h, w) in zip(map_Bthw, sizes)]


def rolled(row_NL: Tensor, layers: Sequence[Iterable[Tensor]]) -> Tensor:
    """``row A_n ... A_1``: (N, L) -> (N, L).

    Args:
        row_NL: what is read of the last layer's output.
        layers: from the first to the last, the attention of each one's heads, (N, L, L) each.
    """
    for heads in reversed(layers):
        row_NL = passed(row_NL, heads)
    return row_NL


def passed(row_NL: Tensor, heads: Iterable[Tensor]) -> Tensor:
    """``row (0.5 W + 0.5 I)``, W the mean of the heads (N, L, L): one layer of equation 1.

    >>> passed(torch.tensor([[1.0, 0.0]]), [torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])])
    tensor([[0.5000, 0.5000]])
    """
    read_NL = [einsum(row_NL, weights_NLM, "N L, N L M -> N M") for weights_NLM in heads]
    return (row_NL + torch.stack(read_NL).mean(0)) / 2


def head_weights(q_NLAd: Tensor, k_NMGd: Tensor, valid_NM: Tensor | None = None) -> Iterator[Tensor]:
    """softmax(q k^T / sqrt(d)) of one head after the other, (N, L, M) float32; SDPA computes it and keeps it.

    Args:
        q_NLAd, k_NMGd: as ``attend`` takes them; G < A shares each key head among A / G query heads.
        valid_NM: True = may be attended.
    """
    num_heads, head_dim = q_NLAd.shape[2:]
    shared = num_heads // k_NMGd.shape[2]
    for head in range(num_heads):
        q_NLd, k_NMd = q_NLAd[:, :, head].float(), k_NMGd[:, :, head // shared].float()
        scores_NLM = einsum(q_NLd, k_NMd, "N L d, N M d -> N L M") / math.sqrt(head_dim)
        if valid_NM is not None:
            scores_NLM = scores_NLM.masked_fill(~valid_NM[:, None, :], -math.inf)
        yield scores_NLM.softmax(-1)


class _Read(NamedTuple):
    """What an attention layer was given: tokens, and which of them are real, by mask or by fold."""

    x_NLD: Tensor
    valid_NL: Tensor | None
    fold: Fold | None


_Reads = dict[nn.Module, _Read]


@contextmanager
def _watched(encoder: Encoder) -> Iterator[_Reads]:
    """What each attention layer of the encoder is given from here on."""
    reads: _Reads = {}

    def keep(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        reads[module] = _Read(given[0].float(), named.get("valid_mask"), given[1] if len(given) > 1 else None)

    layers = [module for module in encoder.modules() if isinstance(module, Attention)]
    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    try:
        yield reads
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _every_token(encoder: Encoder) -> Iterator[None]:
    """No stack leaves tokens of its last block out."""
    stacks = [module for module in encoder.modules() if isinstance(module, PooledStack)]
    before = [stack.every_token for stack in stacks]
    try:
        for stack in stacks:
            stack.every_token = True
        yield
    finally:
        for stack, was in zip(stacks, before):
            stack.every_token = was


def _embedded(model: ViViT | TokenViViT, videos: Sequence[Any]) -> tuple[Tensor, list[GridSize] | None]:
    """Embedded tokens (B, t, h, w, D), and the grid of each example; None if all are full."""
    if isinstance(model, ViViT):
        video_BCTHW, counts = model.batch_of(videos)
        video_BCTHW, own = model._real(video_BCTHW, counts)
        return model._embedded(video_BCTHW), own
    ids_Bthw, own = model._padded(*model.batch_of(videos))
    return model.embed(ids_Bthw.long()), own


def _map(encoder: Encoder, reads: _Reads, fold: Fold, batch: int) -> Tensor:
    """(B, L), each row of sum 1."""
    if isinstance(encoder, SpatioTemporalEncoder):
        return _pooled(encoder.pooled, reads, fold.tokens_BL())
    if isinstance(encoder, FactorisedEncoder):
        space_NS = _pooled(encoder.space, reads, fold.places_of_steps())
        space_BtS = rearrange(space_NS, "(B t) S -> B t S", t=fold.num_steps)
        if encoder.time is not None:
            time_Bt = _pooled(encoder.time, reads, fold.time_Bt)
        else:
            time_Bt = _mean_row(space_BtS[..., 0], fold.time_Bt)
        return (time_Bt[..., None] * space_BtS).flatten(1)
    assert isinstance(encoder, FoldedEncoder)
    like_BL = torch.empty(batch, fold.num_steps * fold.num_places, device=next(encoder.parameters()).device)
    row_BL = _mean_row(like_BL, fold.tokens_BL())
    for block in reversed(encoder.stack.blocks):
        row_BL = _through_block(block, row_BL, reads, fold)
    return row_BL


def _pooled(pooled: PooledStack, reads: _Reads, valid_NL: Tensor | None) -> Tensor:
    """The row that a stack's answer reads of its tokens, (N, L); ``valid_NL`` is without the class token."""
    found = [reads[block.attention] for block in pooled.stack._blocks()]
    like_NL = found[0].x_NLD[..., 0].float()
    has_token = pooled.class_token_D is not None
    if has_token:
        row_NL = torch.zeros_like(like_NL)
        row_NL[:, 0] = 1
    else:
        row_NL = _mean_row(like_NL, valid_NL)
    layers = [_heads(block.attention, read) for block, read in zip(pooled.stack._blocks(), found)]
    row_NL = rolled(row_NL, layers)[:, int(has_token) :]
    return row_NL / row_NL.sum(-1, keepdim=True)


def _through_block(block: nn.Module, row_BL: Tensor, reads: _Reads, fold: Fold) -> Tensor:
    """One block of model 3 or 4, from its output to its input."""
    if isinstance(block, FactorisedBlock):
        row_BL = _along_time(row_BL, _heads(block.time, reads[block.time]), fold)
        return _along_space(row_BL, _heads(block.attention, reads[block.attention]), fold)
    assert isinstance(block, DividedBlock)
    read = reads[block.attention]
    assert read.fold is not None
    q_BLAd, (k_BLGd, _), _ = block.attention._split(read.x_NLD, None)
    (q_space, q_time), (k_space, k_time) = q_BLAd.chunk(2, dim=2), k_BLGd.chunk(2, dim=2)
    sizes = {"t": fold.num_steps, "S": fold.num_places}
    places, places_k = (rearrange(part, "B (t S) A d -> (B t) S A d", **sizes) for part in (q_space, k_space))
    steps, steps_k = (rearrange(part, "B (t S) A d -> (B S) t A d", **sizes) for part in (q_time, k_time))
    space_BL = _along_space(row_BL, head_weights(places, places_k, fold.places_of_steps()), fold)
    time_BL = _along_time(row_BL, head_weights(steps, steps_k, fold.steps_of_places()), fold)
    return (space_BL + time_BL) / 2


def _along_space(row_BL: Tensor, heads: Iterable[Tensor], fold: Fold) -> Tensor:
    sizes = {"t": fold.num_steps, "S": fold.num_places}
    return rearrange(
        passed(rearrange(row_BL, "B (t S) -> (B t) S", **sizes), heads), "(B t) S -> B (t S)", t=fold.num_steps
    )


def _along_time(row_BL: Tensor, heads: Iterable[Tensor], fold: Fold) -> Tensor:
    sizes = {"t": fold.num_steps, "S": fold.num_places}
    return rearrange(
        passed(rearrange(row_BL, "B (t S) -> (B S) t", **sizes), heads), "(B S) t -> B (t S)", S=fold.num_places
    )


def _heads(attention: Attention, read: _Read) -> Iterator[Tensor]:
    q_NLAd, (k_NLGd, _), _ = attention._split(read.x_NLD, None)
    return head_weights(q_NLAd, k_NLGd, read.valid_NL)


def _mean_row(like_NL: Tensor, valid_NL: Tensor | None) -> Tensor:
    """The mean of the real tokens as weights, (N, L)."""
    kept_NL = torch.ones_like(like_NL) if valid_NL is None else valid_NL.to(like_NL.dtype)
    return kept_NL / kept_NL.sum(-1, keepdim=True)
