"""Transformer stacks: the block (norm, attention, norm, MLP), its residual branches, and the stack with its config.

Letters: B batch, L tokens, S context tokens, N packed tokens, D dim, A heads. Packed tokens come as (N, D) with
``cu_seqlens``; every ``_BL`` below is ``_N`` then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError

from .attention import Bounds
from .heads import Attention, AttentionConfig, Context, Gate, KeyValues
from .initial import initialise
from .mlp import Mlp, MlpKind
from .rotary import Rotation

__all__ = ["Block", "Norm", "Residual", "Transformer", "TransformerConfig"]

Norm = Literal["layer", "rms"]
Residual = Literal["plain", "scaled", "deepnorm"]
_NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """The shape of a stack; sizes have no defaults, options are off unless asked for.

    Attributes:
        dim: D.
        depth: number of blocks.
        num_heads: A.
        head_dim: width of a head.
        mlp_dim: width inside the MLP.
        num_kv_heads: key/value heads, a divisor of A; None means A.
        mlp: ``gelu``, ``swiglu`` or ``geglu``.
        norm: ``layer`` (LayerNorm) or ``rms`` (RMSNorm), eps 1e-6.
        qk_norm, gate, causal, window, bias: as in ``AttentionConfig``; bias also of the MLP.
        context_dim: adds cross attention to a context of this width after self-attention.
        residual: ``plain`` is pre-norm ``x + f(norm(x))``; ``scaled`` the same with a learned scale a channel on each
            branch, 1e-2 at first (LayerScale, arXiv 2103.17239, eq. 4); ``deepnorm`` is post-norm
            ``norm(alpha x + f(x))``, alpha = (2 depth)^(1/4) (arXiv 2203.00555, section 3).
        drop_path: probability that a branch of the last block is skipped for an example in training; rises linearly
            from 0 over the blocks (arXiv 1603.09382, section 3).
    """

    dim: int
    depth: int
    num_heads: int
    head_dim: int
    mlp_dim: int
    num_kv_heads: int | None = None
    mlp: MlpKind = "gelu"
    norm: Norm = "layer"
    qk_norm: bool = False
    gate: Gate = "none"
    causal: bool = False
    window: int | None = None
    context_dim: int | None = None
    residual: Residual = "plain"
    drop_path: float = 0.0
    bias: bool = True

    def __post_init__(self) -> None:
        for size, count in (("depth", self.depth), ("mlp_dim", self.mlp_dim)):
            if count < 1:
                raise InputError(f"{size} must be at least 1, got {count}")
        for name, value, allowed in (
            ("mlp", self.mlp, get_args(MlpKind)),
            ("norm", self.norm, get_args(Norm)),
            ("residual", self.residual, get_args(Residual)),
        ):
            if value not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if not 0 <= self.drop_path < 1:
            raise InputError(f"drop_path must lie in [0, 1), got {self.drop_path}")
        self.attention(cross=False)
        if self.context_dim is not None:
            self.attention(cross=True)

    def attention(self, *, cross: bool) -> AttentionConfig:
        """The config of a block's self-attention, or of its cross attention."""
        return AttentionConfig(
            dim=self.dim,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            num_kv_heads=self.num_kv_heads,
            qk_norm=self.qk_norm,
            gate=self.gate,
            causal=self.causal and not cross,
            window=None if cross else self.window,
            context_dim=self.context_dim if cross else None,
            bias=self.bias,
        )

    @property
    def num_branches(self) -> int:
        """Residual branches of a block: 2, or 3 with cross attention."""
        return 2 if self.context_dim is None else 3


class Branch(nn.Module):
    """One residual branch's norm and scales: before the layer (pre-norm), or after the sum (DeepNorm)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = _NORMS[config.norm](config.dim, eps=1e-6)
        self.alpha = (2 * config.depth) ** 0.25 if config.residual == "deepnorm" else None
        self.scale_D = nn.Parameter(torch.full((config.dim,), 1e-2)) if config.residual == "scaled" else None

    def before(self, x_BLD: Tensor) -> Tensor:
        """What the layer reads."""
        normed: Tensor = x_BLD if self.alpha is not None else self.norm(x_BLD)
        return normed

    def after(self, x_BLD: Tensor, branch_BLD: Tensor, keep: Tensor | None) -> Tensor:
        """x and the layer's answer as one; ``keep`` is 0 or 1 / probability for every example."""
        if keep is not None:
            branch_BLD = branch_BLD * keep.to(branch_BLD.dtype)
        if self.alpha is not None:
            summed: Tensor = self.norm(torch.add(branch_BLD, x_BLD, alpha=self.alpha))
            return summed
        return x_BLD + (branch_BLD if self.scale_D is None else branch_BLD * self.scale_D)


class Block(nn.Module):
    """Self-attention, cross attention where there is a context, MLP; each a residual branch. (B, L, D) -> (B, L, D)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config.attention(cross=False))
        self.attention_branch = Branch(config)
        if config.context_dim is not None:
            self.cross = Attention(config.attention(cross=True))
            self.cross_branch = Branch(config)
        self.mlp = Mlp(dim=config.dim, mlp_dim=config.mlp_dim, kind=config.mlp, bias=config.bias)
        self.mlp_branch = Branch(config)

    def forward(
        self,
        x_BLD: Tensor,
        *,
        rotary: Rotation | None = None,
        valid_mask: Tensor | None = None,
        bias: Tensor | None = None,
        cu_seqlens: Bounds | None = None,
        context: Context | None = None,
        context_mask: Tensor | None = None,
        cu_seqlens_k: Bounds | None = None,
        keep: Sequence[Tensor] | None = None,
        between: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """One block; ``keep`` holds a factor for each branch (see ``Transformer.forward`` for the rest)."""
        first, second, last = _thirds(keep)
        read_BLD = self.attention_branch.before(x_BLD)
        attended_BLD = self.attention(read_BLD, rotary=rotary, valid_mask=valid_mask, bias=bias, cu_seqlens=cu_seqlens)
        x_BLD = self.attention_branch.after(x_BLD, attended_BLD, first)
        x_BLD = x_BLD if between is None else between(x_BLD)
        x_BLD = self._attend_context(x_BLD, context, context_mask, cu_seqlens, cu_seqlens_k, second)
        return self.mlp_branch.after(x_BLD, self.mlp(self.mlp_branch.before(x_BLD)), last)

    def step(
        self,
        x_BLD: Tensor,
        past: KeyValues | None,
        *,
        rotary: Rotation | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """The next tokens of a causal stream and what was kept -> their output, and what to keep."""
        attended_BLD, kept = self.attention.step(self.attention_branch.before(x_BLD), past, rotary=rotary)
        x_BLD = self.attention_branch.after(x_BLD, attended_BLD, None)
        x_BLD = self._attend_context(x_BLD, context, None, None, None, None)
        return self.mlp_branch.after(x_BLD, self.mlp(self.mlp_branch.before(x_BLD)), None), kept

    def _attend_context(
        self,
        x_BLD: Tensor,
        context: Context | None,
        context_mask: Tensor | None,
        cu_seqlens: Bounds | None,
        cu_seqlens_k: Bounds | None,
        keep: Tensor | None,
    ) -> Tensor:
        if not hasattr(self, "cross"):
            if context is not None:
                raise InputError("a context was given to a stack without context_dim")
            return x_BLD
        attended_BLD = self.cross(
            self.cross_branch.before(x_BLD),
            context=context,
            valid_mask=context_mask,
            cu_seqlens=cu_seqlens,
            cu_seqlens_k=cu_seqlens_k,
        )
        return self.cross_branch.after(x_BLD, attended_BLD, keep)


def _thirds(keep: Sequence[Tensor] | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Factors of attention, cross attention and MLP."""
    return (None, None, None) if keep is None else (keep[0], keep[1], keep[-1])


class Transformer(nn.Module):
    """``depth`` blocks and a last norm (none after DeepNorm, which ends in one): (B, L, D) -> (B, L, D).

    Weights start as ``initialise`` draws them.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        last = nn.Identity() if config.residual == "deepnorm" else _NORMS[config.norm](config.dim, eps=1e-6)
        self.norm: nn.Module = last
        initialise(self, config)

    def forward(
        self,
        x_BLD: Tensor,
        *,
        rotary: Rotation | None = None,
        valid_mask: Tensor | None = None,
        bias: Tensor | None = None,
        cu_seqlens: Bounds | None = None,
        context: Tensor | Sequence[Context] | None = None,
        context_mask: Tensor | None = None,
        cu_seqlens_k: Bounds | None = None,
        generator: torch.Generator | None = None,
        between: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """(B, L, D), or packed (N, D) with ``cu_seqlens`` -> the same shape, unless ``between`` changes it.

        Args:
            x_BLD: tokens.
            rotary: rotation of the tokens' positions, from ``Rotary``.
            valid_mask: (B, L) bool, True = may be attended.
            bias: added to the scores of self-attention, broadcast to (B, A, L, L).
            cu_seqlens: bounds of packed sequences.
            context: (B, S, context_dim), or for each block ``keys_of(context)``, or parts of it for shares of the rows.
            context_mask: (B, S) bool, True = may be attended.
            cu_seqlens_k: bounds of a packed context.
            generator: draws which branches are dropped in training; None takes torch's own.
            between: number of a block and its tokens after self-attention, before what reads each of them alone ->
                the tokens to go on with: fewer of them in the last block, or rows repeated where contexts begin to
                differ. Masks are given for the rows at the end.
        """
        keeps = self._keeps(x_BLD, cu_seqlens, generator)
        for index, block in enumerate(self.blocks):
            x_BLD = block(
                x_BLD,
                rotary=rotary,
                valid_mask=valid_mask if valid_mask is None or between is None else valid_mask[: len(x_BLD)],
                bias=bias,
                cu_seqlens=cu_seqlens,
                context=context if context is None or isinstance(context, Tensor) else context[index],
                context_mask=context_mask,
                cu_seqlens_k=cu_seqlens_k,
                keep=None if keeps is None else keeps[index],
                between=None if between is None else partial(between, index),
            )
        normed: Tensor = self.norm(x_BLD)
        return normed

    def step(
        self,
        x_BLD: Tensor,
        past: Sequence[KeyValues] | None,
        *,
        rotary: Rotation | None = None,
        context: Tensor | Sequence[KeyValues] | None = None,
    ) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """The next L tokens of a causal stream: (B, L, D) and what each block kept -> (B, L, D), what to keep."""
        kept = []
        for index, block in enumerate(self._blocks()):
            own = context if context is None or isinstance(context, Tensor) else context[index]
            x_BLD, keys = block.step(x_BLD, None if past is None else past[index], rotary=rotary, context=own)
            kept.append(keys)
        return self.norm(x_BLD), tuple(kept)

    def keys_of(self, context_BSD: Tensor) -> tuple[KeyValues, ...]:
        """(B, S, context_dim): each block's keys and values of a context that will be attended many times."""
        return tuple(block.cross.keys_of(context_BSD) for block in self._blocks())

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _keeps(self, x_BLD: Tensor, cu_seqlens: Bounds | None, generator: torch.Generator | None) -> Tensor | None:
        """(depth, branches, B, 1, 1), or packed (depth, branches, N, 1): 0, or 1 / probability of being kept."""
        config = self.config
        if not self.training or config.drop_path == 0:
            return None
        count = x_BLD.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
        shape = (config.depth, config.num_branches, count)
        drawn = torch.rand(shape, generator=generator, device=x_BLD.device)
        kept = 1 - torch.linspace(0, config.drop_path, config.depth, device=x_BLD.device)[:, None, None]
        keep = (drawn < kept) / kept
        if cu_seqlens is None:
            return keep[..., None, None]
        bounds = torch.as_tensor(cu_seqlens, device=x_BLD.device)
        return keep.repeat_interleave(bounds.diff(), dim=2, output_size=x_BLD.shape[0])[..., None]
