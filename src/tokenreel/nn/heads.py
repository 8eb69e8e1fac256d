"""The attention layer: projections, query-key norm, rotation, gate, and the keys and values a stream keeps.

Letters: B batch, L tokens, S context tokens, N packed tokens, D dim, A heads, G key/value heads, d head_dim, c gates.
Packed tokens come as (N, D) with ``cu_seqlens``; every ``_BL`` below is ``_N`` then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError

from .attention import Bounds, attend
from .rotary import Rotation, rotate, wide_dtype

__all__ = ["Attention", "AttentionConfig", "Context", "ContextPart", "Gate", "KeyValues"]

Gate = Literal["none", "head", "channel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """The shape of one attention layer; sizes have no defaults, options are off unless asked for.

    Attributes:
        dim: D, in and out.
        num_heads: A.
        head_dim: d.
        num_kv_heads: G, a divisor of A; None means A.
        qk_norm: RMS norm with a learned scale on queries and keys (arXiv 2302.05442, section 2).
        gate: sigmoid gate from the input on the attended values, per head or per channel (arXiv 2505.06708, eq. 5).
        causal: no token sees a later one.
        window: with ``causal``, how many of the last tokens are seen, the own one included.
        context_dim: width of the context in cross attention; None means self-attention.
        bias: whether the projections have one.
    """

    dim: int
    num_heads: int
    head_dim: int
    num_kv_heads: int | None = None
    qk_norm: bool = False
    gate: Gate = "none"
    causal: bool = False
    window: int | None = None
    context_dim: int | None = None
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("dim", "num_heads", "head_dim", "num_kv_heads", "window", "context_dim"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if self.num_heads % self.kv_heads:
            raise InputError(f"num_heads ({self.num_heads}) must be divisible by num_kv_heads ({self.kv_heads})")
        if self.gate not in get_args(Gate):
            raise InputError(f"gate must be one of {', '.join(get_args(Gate))}, got {self.gate!r}")
        if self.window is not None and not self.causal:
            raise InputError(f"window ({self.window}) needs causal=True")
        if self.context_dim is not None and self.causal:
            raise InputError(f"cross attention (context_dim {self.context_dim}) cannot be causal")

    @property
    def kv_heads(self) -> int:
        """G."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def num_gates(self) -> int:
        """How many gate values a token has."""
        return {"none": 0, "head": self.num_heads, "channel": self.num_heads * self.head_dim}[self.gate]


class KeyValues(NamedTuple):
    """Keys and values of tokens seen before: (B, S, G, d) each, normed and rotated."""

    k_BSGd: Tensor
    v_BSGd: Tensor

    @property
    def num_tokens(self) -> int:
        """S."""
        return self.k_BSGd.shape[1]

    def last(self, count: int) -> KeyValues:
        """The last ``count`` of them, in memory of their own, so that what is dropped is freed."""
        if count >= self.num_tokens:
            return self
        start = self.num_tokens - count
        return KeyValues(self.k_BSGd[:, start:].clone(), self.v_BSGd[:, start:].clone())


class ContextPart(NamedTuple):
    """What an equal share of the rows attends in cross attention: keys and values, and (B, S) bool, True = may be."""

    keys: KeyValues
    valid_mask: Tensor | None = None


Context = Tensor | KeyValues | tuple[ContextPart, ...]
"""Of cross attention: (B, S, context_dim), what ``keys_of`` made of it, or parts for consecutive shares of the rows."""


class Attention(nn.Module):
    """Multi-head attention: (B, L, D) -> (B, L, D), or packed (N, D) -> (N, D).

    Queries, keys, values and gate come from one matrix product (``project``; in cross attention keys and values from
    ``project_context``). arXiv 1706.03762, section 3.2.2.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        width, kv_width = config.num_heads * config.head_dim, config.kv_heads * config.head_dim
        own = width + config.num_gates
        if config.context_dim is None:
            self.project = nn.Linear(config.dim, own + 2 * kv_width, bias=config.bias)
        else:
            self.project = nn.Linear(config.dim, own, bias=config.bias)
            self.project_context = nn.Linear(config.context_dim, 2 * kv_width, bias=config.bias)
        self.out = nn.Linear(width, config.dim, bias=config.bias)
        if config.qk_norm:
            self.q_scale_d = nn.Parameter(torch.ones(config.head_dim))
            self.k_scale_d = nn.Parameter(torch.ones(config.head_dim))

    def forward(
        self,
        x_BLD: Tensor,
        *,
        context: Context | None = None,
        rotary: Rotation | None = None,
        valid_mask: Tensor | None = None,
        bias: Tensor | None = None,
        cu_seqlens: Bounds | None = None,
        cu_seqlens_k: Bounds | None = None,
    ) -> Tensor:
        """Attend within x, or to ``context``.

        Args:
            x_BLD: (B, L, D), or (N, D) with ``cu_seqlens``.
            context: cross attention only: (B, S, context_dim), or what ``keys_of`` made of it, or a part of that for
                each of several equal shares of the rows, with masks of their own.
            rotary: rotation of queries and keys of self-attention, of the L (or N) tokens' positions.
            valid_mask: (B, S) bool, True = may be attended.
            bias: added to the scores, broadcast to (B, A, L, S).
            cu_seqlens: bounds of packed sequences; ``cu_seqlens_k`` those of a packed context.
            cu_seqlens_k: see above.
        """
        if (context is None) != (self.config.context_dim is None):
            raise InputError(f"context_dim is {self.config.context_dim}, context was {'not ' * (context is None)}given")
        if context is None:
            q, past, gate = self._split(x_BLD, rotary)
        else:
            if rotary is not None:
                raise InputError("cross attention takes no rotary; queries and context share no positions")
            if not isinstance(context, Tensor | KeyValues):
                return self._in_parts(x_BLD, context)
            past = self.keys_of(context) if isinstance(context, Tensor) else context
            if valid_mask is None and cu_seqlens is None and self._is_settled(past):
                return self._settled(past).expand(-1, x_BLD.shape[1], -1)
            q, gate = self._split_queries(x_BLD)
        values = attend(
            q,
            *past,
            causal=self.config.causal,
            window=self.config.window,
            valid_mask=valid_mask,
            bias=bias,
            cu_seqlens=cu_seqlens,
            cu_seqlens_k=cu_seqlens_k,
        )
        return self._merge(values, gate)

    def step(
        self, x_BLD: Tensor, past: KeyValues | None, *, rotary: Rotation | None = None
    ) -> tuple[Tensor, KeyValues]:
        """The next L tokens of a causal stream: (B, L, D), what was seen -> (B, L, D), what to keep.

        Equal to the last L rows of ``forward`` over everything. With a ``window`` only its last ``window - 1`` tokens
        are kept, so memory does not grow; ``rotary`` holds the positions in the whole stream.
        """
        if not self.config.causal:
            raise InputError("only causal attention can be streamed; this layer has causal=False")
        q_BLAd, new, gate = self._split(x_BLD, rotary)
        seen = new if past is None else KeyValues(*(torch.cat(pair, dim=1) for pair in zip(past, new)))
        values_BLAd = attend(q_BLAd, *seen, causal=True, window=self.config.window)
        kept = seen if self.config.window is None else seen.last(self.config.window - 1)
        return self._merge(values_BLAd, gate), kept

    def keys_of(self, context_BSD: Tensor) -> KeyValues:
        """(B, S, context_dim) or packed (M, context_dim): keys and values to be attended many times."""
        heads_BSGd = self.project_context(context_BSD).unflatten(-1, (2 * self.config.kv_heads, self.config.head_dim))
        k, v = heads_BSGd.chunk(2, dim=-2)
        return KeyValues(self._normed(k, self.k_scale_d).to(v.dtype) if self.config.qk_norm else k, v)

    def _in_parts(self, x_BLD: Tensor, parts: tuple[ContextPart, ...]) -> Tensor:
        """Each of several equal shares of the rows with a context of its own."""
        if x_BLD.ndim != 3 or len(x_BLD) % max(len(parts), 1):
            raise InputError(f"{len(parts)} parts of a context need (B, L, D), B so many times over: {x_BLD.shape}")
        shares = x_BLD.chunk(len(parts))
        return torch.cat([self(x, context=keys, valid_mask=mask) for x, (keys, mask) in zip(shares, parts)])

    def _is_settled(self, past: KeyValues) -> bool:
        """Whether the answer is known without a query: the weight of an only key is 1.

        Not in training, where the unused query weights would be weights without a gradient.
        """
        return past.num_tokens == 1 and self.config.gate == "none" and not torch.is_grad_enabled()

    def _settled(self, past: KeyValues) -> Tensor:
        """(B, 1, D): what every query of a row gets from its only key."""
        shared = self.config.num_heads // self.config.kv_heads
        out: Tensor = self.out(past.v_BSGd.repeat_interleave(shared, dim=2).flatten(-2))
        return out

    def _split_queries(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Cross attention: queries (B, L, A, d) and gate (B, L, c)."""
        config = self.config
        q, gate = self.project(x_BLD).split((config.num_heads * config.head_dim, config.num_gates), dim=-1)
        q = q.unflatten(-1, (config.num_heads, config.head_dim))
        return self._normed(q, self.q_scale_d).to(gate.dtype) if config.qk_norm else q, gate

    def _split(self, x_BLD: Tensor, rotary: Rotation | None) -> tuple[Tensor, KeyValues, Tensor]:
        """Self-attention: queries, keys and values, gate. Queries and keys are normed and rotated in one piece."""
        config = self.config
        num_heads, num_kv, d = config.num_heads, config.kv_heads, config.head_dim
        sizes = ((num_heads + num_kv) * d, num_kv * d, config.num_gates)
        qk, v, gate = self.project(x_BLD).split(sizes, dim=-1)
        qk = qk.unflatten(-1, (num_heads + num_kv, d))
        if config.qk_norm:
            scale_Ad = torch.cat([self.q_scale_d.expand(num_heads, d), self.k_scale_d.expand(num_kv, d)])
            qk = self._normed(qk, scale_Ad)
        if rotary is not None:
            qk = rotate(qk, rotary)
        q, k = qk.to(v.dtype).split((num_heads, num_kv), dim=-2)
        return q, KeyValues(k, v.unflatten(-1, (num_kv, d))), gate

    @staticmethod
    def _normed(x_BLAd: Tensor, scale: Tensor) -> Tensor:
        """RMS norm over d in fp32 or wider: a norm in bf16 loses what it is there to keep."""
        return F.rms_norm(x_BLAd.to(wide_dtype(x_BLAd)), x_BLAd.shape[-1:], eps=1e-6) * scale

    def _merge(self, values_BLAd: Tensor, gate_BLc: Tensor) -> Tensor:
        if self.config.gate == "head":
            values_BLAd = values_BLAd * gate_BLc.sigmoid().unsqueeze(-1)
        merged_BLD = values_BLAd.flatten(-2)
        if self.config.gate == "channel":
            merged_BLD = merged_BLD * gate_BLc.sigmoid()
        out: Tensor = self.out(merged_BLD)
        return out
