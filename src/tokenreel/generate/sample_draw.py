"""One id a row from logits: exact draws by inverse cumulative sums, in one pass over the vocabulary.

Adding Gumbel noise to 65,536 logits a token costs more than the transformer that made them; a draw by inversion needs
one random number a token. The row is summed in blocks, a block is chosen by its sum, then an id within the block.

Letters: N rows, V logits, F factors of the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from einops import reduce
from torch import Tensor

from tokenreel.errors import InputError

__all__ = ["Drawn", "check_draw", "draw", "draw_ids", "gumbel"]

_BLOCK = 256  # logits summed together
_CHUNK = 1 << 19  # logits at once: they stay in the core's cache from one operation to the next
_CANDIDATES = 8  # one logit in so many is sorted first where the nucleus is looked for


class Drawn(NamedTuple):
    """What was drawn for N positions.

    Attributes:
        ids_NF: int64 (N, F), one id a factor.
        log_probs_N: float32 (N,), what the model gave these ids: softmax at temperature 1, nothing cut off, summed
            over the factors.
    """

    ids_NF: Tensor
    log_probs_N: Tensor


def draw(
    logits: tuple[Tensor, ...],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator,
) -> Drawn:
    """One id a row and factor.

    Args:
        logits: (N, V_f) a factor; factors are independent given the features.
        temperature: logits are divided by it first; 0 takes the largest.
        top_k: only the k largest logits of a factor, and ties with the last of them.
        top_p: only the likeliest ids that together have this probability (nucleus, arXiv 1904.09751).
        generator: one uniform number a row and factor is taken; none at temperature 0.

    Raises:
        InputError: an option is out of its range, or logits are not finite.
    """
    check_draw(temperature, top_k, top_p)
    num_rows, device = logits[0].shape[0], logits[0].device
    if temperature > 0:
        uniform_FN = torch.rand(len(logits), num_rows, generator=generator, device=generator.device).to(device)
    else:
        uniform_FN = torch.zeros(len(logits), num_rows, device=device)
    ids, log_probs = [], []
    for logits_NV, uniform_N in zip(logits, uniform_FN):
        rows = max(1, _CHUNK // logits_NV.shape[1])
        parts = [
            _drawn(part_NV.float(), part_N, temperature, top_k, top_p)
            for part_NV, part_N in zip(torch.split(logits_NV, rows), torch.split(uniform_N, rows))
        ]
        ids.append(torch.cat([part for part, _ in parts]))
        log_probs.append(torch.cat([part for _, part in parts]))
    log_probs_N = torch.stack(log_probs).sum(0)
    if not bool(torch.isfinite(log_probs_N).all()):
        raise InputError("the model gives logits that are not finite; load other weights, or sample in float32")
    return Drawn(torch.stack(ids, dim=-1), log_probs_N)


class _Digits(Protocol):
    """What draws ask of a generator."""

    @property
    def vocab(self) -> Any:
        """With ``levels``."""

    def logits(self, features_ND: Tensor) -> tuple[Tensor, ...]:
        """(N, V_f) a factor."""


def draw_ids(model: _Digits, features_ND: Tensor, *, is_mended: bool = False, **options: Any) -> Drawn:
    """``draw`` by a model's logits: of all factors at once, or of a chained model one after the other.

    Args:
        is_mended: take numbers for logits that are none, as while training goes wrong.
    """

    def given(logits_NV: Tensor) -> Tensor:
        return logits_NV.nan_to_num() if is_mended else logits_NV

    if not getattr(model, "is_chained", False):
        return draw(tuple(map(given, model.logits(features_ND))), **options)
    digits_Nf = torch.empty(len(features_ND), 0, dtype=torch.int64, device=features_ND.device)
    log_probs_N = torch.zeros(len(features_ND), device=features_ND.device)
    for _ in model.vocab.levels:
        found = draw((given(model.next_logits(features_ND, digits_Nf)),), **options)  # type: ignore[attr-defined]
        digits_Nf = torch.cat([digits_Nf, found.ids_NF], dim=1)
        log_probs_N = log_probs_N + found.log_probs_N
    return Drawn(digits_Nf, log_probs_N)


def check_draw(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """InputError unless these options of ``draw`` lie in their ranges."""
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature must be at least 0 (0 takes the likeliest), got {temperature}")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be at least 1, got {top_k}; None keeps all")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must lie in (0, 1], got {top_p}; None keeps all")


def gumbel(num: int, *, generator: torch.Generator) -> Tensor:
    """(num,) float32 Gumbel noise, -log(-log u), on the generator's device; always finite."""
    uniform = torch.rand(num, generator=generator, device=generator.device, dtype=torch.float64)
    return -torch.log(-torch.log(uniform.clamp_(min=1e-20))).float()


def _drawn(
    logits_NV: Tensor, uniform_N: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> tuple[Tensor, Tensor]:
    """Ids (N,) and their log probabilities (N,)."""
    largest_N = logits_NV.amax(-1)
    shifted_NV = logits_NV - largest_N[:, None]
    if temperature == 0:
        return logits_NV.argmax(-1), -shifted_NV.exp_().sum(-1).log_()
    if temperature == 1 and top_k is None and top_p is None:
        ids_N, total_N = _inverted(shifted_NV.exp_(), uniform_N)
        log_total_N = total_N.log()
    else:
        log_total_N = shifted_NV.exp().sum(-1).log_()
        weights_NV = shifted_NV.div_(temperature).exp_()
        if top_k is not None and top_k < weights_NV.shape[1]:
            least_N = weights_NV.topk(top_k).values[:, -1]
            weights_NV.masked_fill_(weights_NV < least_N[:, None], 0)
        if top_p is not None and top_p < 1:
            weights_NV.masked_fill_(weights_NV < _nucleus(weights_NV, top_p)[:, None], 0)
        ids_N, _ = _inverted(weights_NV, uniform_N)
    chosen_N = logits_NV.gather(1, ids_N[:, None])[:, 0]
    return ids_N, chosen_N - largest_N - log_total_N


def _inverted(weights_NV: Tensor, uniform_N: Tensor) -> tuple[Tensor, Tensor]:
    """Ids (N,) with probabilities proportional to the weights, and the sums of the weights (N,)."""
    size = weights_NV.shape[1]
    whole = size // _BLOCK * _BLOCK
    sums: Tensor = reduce(weights_NV[:, :whole], "N (block V) -> N block", "sum", V=_BLOCK)
    if whole < size:
        sums = torch.cat([sums, weights_NV[:, whole:].sum(-1, keepdim=True)], dim=1)
    block_N, rest_N, total_N = _place(sums, uniform_N * sums.sum(-1))
    places = block_N[:, None] * _BLOCK + torch.arange(_BLOCK, device=block_N.device)
    inside = weights_NV.gather(1, places.clamp(max=size - 1)).masked_fill_(places >= size, 0)
    within_N, _, _ = _place(inside, rest_N)
    return block_N * _BLOCK + within_N, total_N


def _place(weights: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first place whose cumulative sum passes the target, what is left of the target there, and the whole sum.

    Rounding may put a target past the last sum. It is drawn back below it, so that no place of weight 0 is chosen.
    """
    ends = weights.cumsum(-1)
    total_N = ends[:, -1]
    target_N = torch.minimum(target_N, torch.nextafter(total_N, torch.zeros_like(total_N))).clamp_(min=0)
    place_N = (ends <= target_N[:, None]).sum(-1).clamp_(max=weights.shape[1] - 1)
    before_N = ends.gather(1, place_N[:, None])[:, 0] - weights.gather(1, place_N[:, None])[:, 0]
    return place_N, (target_N - before_N).clamp_(min=0), total_N


def _nucleus(weights_NV: Tensor, top_p: float) -> Tensor:
    """(N,) the least weight among the likeliest ids that together have the share ``top_p``."""
    wanted_N = top_p * weights_NV.sum(-1)
    largest = weights_NV.topk(-(-weights_NV.shape[1] // _CANDIDATES)).values
    if bool((largest.sum(-1) < wanted_N).any()):  # rows so flat need them all
        largest = weights_NV.sort(descending=True).values
    passed = largest.cumsum(-1) >= wanted_N[:, None]
    last_N = torch.where(passed.any(-1), passed.int().argmax(-1), largest.shape[1] - 1)
    return largest.gather(1, last_N[:, None])[:, 0]
