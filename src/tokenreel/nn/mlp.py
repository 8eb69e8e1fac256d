"""The feed-forward half of a block: GELU, SwiGLU or GEGLU.

Letters: D dim, M mlp_dim, N tokens (all leading dims flattened).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError

__all__ = ["Mlp", "MlpKind"]

MlpKind = Literal["gelu", "swiglu", "geglu"]

_HIDDEN_VALUES = 2**20
"""Hidden values held at once where no gradient is wanted: about 4 MB, which stays in the cache between the products."""


class Mlp(nn.Module):
    """(..., D) -> (..., D): ``W2 gelu(W1 x)``, or gated ``W2 (act(Wg x) * Wv x)`` (arXiv 2002.05202, eq. 5 and 6).

    Args:
        dim: D.
        mlp_dim: M, the width between; the gated kinds make 2 M in one product and keep M.
        kind: ``gelu``, ``swiglu`` (act = SiLU) or ``geglu`` (act = GELU).
    """

    def __init__(self, *, dim: int, mlp_dim: int, kind: MlpKind, bias: bool = True) -> None:
        super().__init__()
        if kind not in get_args(MlpKind):
            raise InputError(f"mlp must be one of {', '.join(get_args(MlpKind))}, got {kind!r}")
        if min(dim, mlp_dim) < 1:
            raise InputError(f"dim and mlp_dim must be at least 1, got {dim} and {mlp_dim}")
        self.kind = kind
        self.into = nn.Linear(dim, mlp_dim if kind == "gelu" else 2 * mlp_dim, bias=bias)
        self.out = nn.Linear(mlp_dim, dim, bias=bias)

    def forward(self, x_D: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or x_D.device.type != "cpu":
            out: Tensor = self.out(self._hidden(x_D))
            return out
        x_ND = x_D.reshape(-1, x_D.shape[-1])
        rows = max(64, _HIDDEN_VALUES // self.into.out_features)
        return torch.cat([self.out(self._hidden_in_place(part)) for part in torch.split(x_ND, rows)]).view(x_D.shape)

    def _hidden(self, x_D: Tensor) -> Tensor:
        hidden: Tensor = self.into(x_D)
        if self.kind == "gelu":
            return F.gelu(hidden)
        gate_M, value_M = hidden.chunk(2, dim=-1)
        return (F.silu(gate_M) if self.kind == "swiglu" else F.gelu(gate_M)) * value_M

    def _hidden_in_place(self, x_ND: Tensor) -> Tensor:
        """The same where no gradient is wanted: fresh pages for the hidden values cost more than the function does."""
        hidden: Tensor = self.into(x_ND)
        gate_NM, value_NM = (hidden, None) if self.kind == "gelu" else hidden.chunk(2, dim=-1)
        if self.kind == "swiglu":
            F.silu(gate_NM, inplace=True)
        else:
            torch.ops.aten.gelu_(gate_NM)
        return gate_NM if value_NM is None else gate_NM.mul_(value_NM)
