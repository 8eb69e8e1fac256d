"""Muon for CPUs, in float32 where they have no units for bfloat16: torch's own would take longer than the model's step.

Letters: M rows, N columns of a matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["CPUMuon", "orthogonalised"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic; torch.optim.Muon's
_STEPS = 5


def orthogonalised(matrix_MN: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix with its singular values moved to about 1 (0.7 to 1.2), by five Newton-Schulz steps in ``dtype``.

    X <- a X + (b A + c A A) X with A = X X^T, from X = G / |G| (github.com/KellerJordan/Muon; arXiv 2502.16982, eq. 2).
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrix_MN.shape[0] > matrix_MN.shape[1]
    x = (matrix_MN.t() if is_tall else matrix_MN).float()
    x = (x / x.norm().clamp(min=1e-7)).to(dtype).contiguous()
    for _ in range(_STEPS):
        gram = x @ x.t()
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.t() if is_tall else x).to(matrix_MN.dtype)


class CPUMuon(torch.optim.Optimizer):
    """``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``, but for the precision of the orthogonalisation.

    m <- mu m + (1 - mu) g; update = orthogonalised((1 - mu) g + mu m) (Nesterov); w <- (1 - lr decay) w
    - 0.2 sqrt(max(M, N)) lr update: the size of AdamW's updates (arXiv 2502.16982, eq. 4).

    Args:
        params: matrices, or groups of them.
        lr: learning rate.
        weight_decay: decoupled.
        momentum: mu.
        dtype: of the orthogonalisation.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalised(weight.grad.lerp(momentum, group["momentum"]), self.dtype)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-0.2 * max(weight.shape) ** 0.5 * group["lr"])
