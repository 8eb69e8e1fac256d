"""The output layer, alone and with its cross-entropy as one operation, so that logits never lie around.

On a CPU the vocabulary is walked in blocks of columns: what is made of a block is used while the cache holds it, and
a product as wide as 65,536 ids runs a third slower than narrow ones.

Letters: N tokens that count, D dim, F factors of an id, V levels of one factor, n tokens of a pass, b ids of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError

__all__ = ["HeadLoss", "head_cross_entropy", "head_logits"]

_LOGITS_AT_ONCE = 1 << 24  # 64 MiB in float32
_COLUMNS, _COLUMNS_BACK = 1024, 4096  # of a block, forward; gradients are summed over blocks, so there are fewer


class HeadLoss(NamedTuple):
    """What ``head_cross_entropy`` gives.

    Attributes:
        loss: scalar, in nats a token.
        guesses_NF: (N, F) int64, the likeliest digit of each factor.
    """

    loss: Tensor
    guesses_NF: Tensor


def head_cross_entropy(
    features_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    digits_NF: Tensor,
    *,
    levels: tuple[int, ...],
    label_smoothing: float = 0.0,
    weights_N: Tensor | None = None,
) -> HeadLoss:
    """``masked_cross_entropy`` of ``features W^T + b``, its gradient made in the same pass over the logits.

    The gradient of the loss with respect to the logits is softmax minus target; it overwrites them, a few rows at a
    time, and is folded into the gradients of features and weights at once. Logits, their logarithms and their gradient
    are never held for all N: with 65,536 ids that is 0.75 MiB a token.

    Args:
        features_ND: (N, D).
        weight_VD: (sum of levels, D), the factors' tables one below the other.
        bias_V: (sum of levels,).
        digits_NF: (N, F) int64.
        levels: V of each factor.
        label_smoothing: as ``masked_cross_entropy``.
        weights_N: of each token in the mean, which is still one over N; of any sign, without gradients. None: 1.
    """
    if digits_NF.shape != (features_ND.shape[0], len(levels)):
        raise InputError(
            f"expected digits of shape {(features_ND.shape[0], len(levels))}, got {tuple(digits_NF.shape)}"
        )
    if not digits_NF.shape[0]:
        return HeadLoss((features_ND.sum() + weight_VD.sum() + bias_V.sum()) * 0, digits_NF)
    if weights_N is not None and weights_N.shape != digits_NF.shape[:1]:
        raise InputError(f"expected a weight for each of {len(digits_NF)} tokens, got {tuple(weights_N.shape)}")
    given = (features_ND, weight_VD, bias_V)
    needs_gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    loss, guesses_NF = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        *given, digits_NF, levels, label_smoothing, weights_N, needs_gradients
    )
    return HeadLoss(loss, guesses_NF)


def head_logits(features_ND: Tensor, weight_VD: Tensor, bias_V: Tensor) -> Tensor:
    """(N, D) -> (N, V) ``features W^T + b`` in float32 or wider, products in the autocast dtype."""
    dtype, device = _product_dtype(features_ND), features_ND.device
    wide = torch.promote_types(dtype, torch.float32)
    if device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return F.linear(features_ND, weight_VD, bias_V).to(wide)
    with torch.autocast(device.type, enabled=False):
        return _logits(features_ND.to(dtype), weight_VD.to(dtype), bias_V.to(wide))


class _HeadLoss(torch.autograd.Function):
    """See ``head_cross_entropy``; matrix products run in the autocast dtype, the rest in float32 or wider."""

    @staticmethod
    def forward(
        ctx: Any,
        features_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor,
        digits_NF: Tensor,
        levels: tuple[int, ...],
        label_smoothing: float,
        weights_N: Tensor | None,
        needs_gradients: bool,
    ) -> tuple[Tensor, Tensor]:
        dtype = _product_dtype(features_ND)
        with torch.autocast(features_ND.device.type, enabled=False):
            work = _Work(features_ND.to(dtype), weight_VD.to(dtype), bias_V, weights_N, needs_gradients)
            first, guesses = 0, []
            for factor, level in enumerate(levels):
                guesses.append(work.add(digits_NF[:, factor], first, level, label_smoothing))
                first += level
        ctx.gradients, ctx.dtypes = work.gradients, (features_ND.dtype, weight_VD.dtype, bias_V.dtype)
        guesses_NF = torch.stack(guesses, -1)
        ctx.mark_non_differentiable(guesses_NF)
        return work.loss, guesses_NF

    @staticmethod
    def backward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:
        grad_loss: Tensor = given[0]
        if ctx.gradients is None:
            raise RuntimeError("head_cross_entropy can be differentiated once; call it again for another backward")
        # Handed over, not kept: autograd then takes them as they are and copies nothing.
        gradients, ctx.gradients = ctx.gradients, None
        if grad_loss.device.type != "cpu" or grad_loss.item() != 1:
            gradients = [gradient.mul_(grad_loss) for gradient in gradients]
        return (*(gradient.to(dtype) for gradient, dtype in zip(gradients, ctx.dtypes)), *(None,) * 5)


class _Work:
    """Loss and gradients as they grow, factor by factor and a few rows at a time."""

    def __init__(
        self, x_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, weights_N: Tensor | None, wants_gradients: bool
    ) -> None:
        wide = torch.promote_types(x_ND.dtype, torch.float32)
        self.x_ND, self.weight_VD, self.bias_V = x_ND, weight_VD, bias_V.to(wide)
        share_N = self.bias_V.new_full((len(x_ND),), 1 / len(x_ND))
        self.share_N = share_N if weights_N is None else share_N * weights_N.to(wide)
        self.loss = torch.zeros((), dtype=wide, device=x_ND.device)
        self.gradients: list[Tensor] | None = None
        if wants_gradients:  # those of weights and bias are written whole by the first rows, and added to by others
            self.gradients = [torch.empty_like(part, dtype=wide) for part in (x_ND, weight_VD, bias_V)]
            self.gradients[0].zero_()

    def add(self, digits_N: Tensor, first: int, level: int, smoothing: float) -> Tensor:
        """One factor, whose table begins at row ``first`` -> its likeliest digits (N,)."""
        rows, num, guesses = max(1, _LOGITS_AT_ONCE // level), len(digits_N), []
        table = slice(first, first + level)
        for start in range(0, num, rows):
            part = slice(start, min(start + rows, num))
            logits_nV = _logits(self.x_ND[part], self.weight_VD[table], self.bias_V[table])
            highest_n, guesses_n = logits_nV.max(-1)
            guesses.append(guesses_n)
            wanted_n = logits_nV.gather(-1, digits_N[part, None])[:, 0]
            mean_n = logits_nV.mean(-1) if smoothing else wanted_n
            p_nV = logits_nV.sub_(highest_n[:, None]).exp_()
            total_n = p_nV.sum(-1)
            told_n = (total_n.log() + highest_n) - wanted_n.lerp(mean_n, smoothing)
            self.loss += (told_n * self.share_N[part]).sum()
            if self.gradients is not None:
                self._push(p_nV.mul_((self.share_N[part] / total_n)[:, None]), digits_N[part], part, first, smoothing)
        return torch.cat(guesses)

    def _push(self, p_nV: Tensor, digits_n: Tensor, part: slice, first: int, smoothing: float) -> None:
        """Gradients of a few rows, from their probabilities times their share, which are overwritten."""
        assert self.gradients is not None
        of_x, of_weight, of_bias = self.gradients
        share_n1, level = self.share_N[part, None], p_nV.shape[1]
        if smoothing:
            p_nV.sub_(share_n1 * (smoothing / level))
        p_nV.scatter_add_(1, digits_n[:, None], share_n1 * (smoothing - 1))
        for block in _blocks(level, p_nV.device, _COLUMNS_BACK):
            table = slice(first + block.start, first + block.stop)
            bias_b, slope_nb = p_nV[:, block].sum(0), p_nV[:, block].to(self.x_ND.dtype)
            if part.start == 0:
                of_bias[table] = bias_b
                _product(slope_nb.T, self.x_ND[part], out=of_weight[table])
            else:
                of_bias[table] += bias_b
                of_weight[table] += slope_nb.T @ self.x_ND[part]
            of_x[part] += slope_nb @ self.weight_VD[table]


def _logits(x_nD: Tensor, weight_VD: Tensor, bias_V: Tensor) -> Tensor:
    """``x W^T + b`` (n, V) in the dtype of the bias, block by block."""
    logits_nV = bias_V.new_empty(len(x_nD), len(weight_VD))
    for block in _blocks(len(weight_VD), x_nD.device, _COLUMNS):
        _product(x_nD, weight_VD[block].T, out=logits_nV[:, block]).add_(bias_V[block])
    return logits_nV


def _product(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """``a @ b`` into ``out``, which may be wider."""
    return torch.mm(a, b, out=out) if a.dtype == out.dtype else out.copy_(a @ b)


def _blocks(size: int, device: torch.device, columns: int) -> Iterator[slice]:
    """A range in pieces that fit a CPU's cache; elsewhere in one."""
    step = columns if device.type == "cpu" else size
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _product_dtype(features_ND: Tensor) -> torch.dtype:
    """What matrix products run in: the autocast dtype, or that of the features."""
    device = features_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features_ND.dtype
