"""Blocks of models 3 and 4, which attend along space and along time, and the stack of them.

Letters: B batch, t steps, S places of a step, L = t*S tokens, D dim, A heads, G key/value heads, d head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.nn.attention import attend
from tokenreel.nn.blocks import Branch, Transformer, TransformerConfig
from tokenreel.nn.heads import Attention
from tokenreel.nn.initial import initialise
from tokenreel.nn.mlp import Mlp

from .folds import Fold
from .vivit_config import Activation

__all__ = ["DividedBlock", "FactorisedBlock", "FoldedTransformer", "TanhMlp", "adapt", "first_token"]


class DividedAttention(Attention):
    """The first half of the heads attends over the places of a step, the second over the steps of a place.

    Factorised dot-product attention, arXiv 2103.15691, section 3.3, model 4.
    """

    def forward(self, x_BLD: Tensor, fold: Fold) -> Tensor:  # type: ignore[override]
        """(B, L, D) -> (B, L, D)."""
        q_BLAd, (k_BLGd, v_BLGd), gate = self._split(x_BLD, None)
        halves = [tensor.chunk(2, dim=2) for tensor in (q_BLAd, k_BLGd, v_BLGd)]
        space, time = zip(*halves)
        sizes = {"t": fold.num_steps, "S": fold.num_places}
        places = attend(
            *(rearrange(part, "B (t S) A d -> (B t) S A d", **sizes) for part in space),
            valid_mask=fold.places_of_steps(),
        )
        steps = attend(
            *(rearrange(part, "B (t S) A d -> (B S) t A d", **sizes) for part in time),
            valid_mask=fold.steps_of_places(),
        )
        values_BLAd = torch.cat(
            [
                rearrange(places, "(B t) S A d -> B (t S) A d", **sizes),
                rearrange(steps, "(B S) t A d -> B (t S) A d", **sizes),
            ],
            dim=2,
        )
        return self._merge(values_BLAd, gate)


class DividedBlock(nn.Module):
    """Divided attention, MLP: (B, L, D) -> (B, L, D)."""

    num_branches = 2

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = DividedAttention(config.attention(cross=False))
        self.attention_branch = Branch(config)
        self.mlp = Mlp(dim=config.dim, mlp_dim=config.mlp_dim, kind=config.mlp, bias=config.bias)
        self.mlp_branch = Branch(config)

    def forward(self, x_BLD: Tensor, fold: Fold, keep: Sequence[Tensor] | None) -> Tensor:
        """One block; ``keep`` holds a factor for each branch."""
        first, last = (None, None) if keep is None else keep
        x_BLD = self.attention_branch.after(x_BLD, self.attention(self.attention_branch.before(x_BLD), fold), first)
        return self.mlp_branch.after(x_BLD, self.mlp(self.mlp_branch.before(x_BLD)), last)


class FactorisedBlock(nn.Module):
    """Attention over the places of a step, then over the steps of a place, then MLP: (B, L, D) -> (B, L, D).

    Factorised self-attention, arXiv 2103.15691, equations 4 to 6, model 3.
    """

    num_branches = 3

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config.attention(cross=False))
        self.attention_branch = Branch(config)
        self.time = Attention(config.attention(cross=False))
        self.time_branch = Branch(config)
        self.mlp = Mlp(dim=config.dim, mlp_dim=config.mlp_dim, kind=config.mlp, bias=config.bias)
        self.mlp_branch = Branch(config)

    def forward(self, x_BLD: Tensor, fold: Fold, keep: Sequence[Tensor] | None) -> Tensor:
        """One block; ``keep`` holds a factor for each branch."""
        first, second, last = (None, None, None) if keep is None else keep
        sizes = {"t": fold.num_steps, "S": fold.num_places}
        steps_NSD = rearrange(self.attention_branch.before(x_BLD), "B (t S) D -> (B t) S D", **sizes)
        space_NSD = self.attention(steps_NSD, valid_mask=fold.places_of_steps())
        space_BLD = rearrange(space_NSD, "(B t) S D -> B (t S) D", **sizes)
        x_BLD = self.attention_branch.after(x_BLD, space_BLD, first)
        places_NtD = rearrange(self.time_branch.before(x_BLD), "B (t S) D -> (B S) t D", **sizes)
        time_NtD = self.time(places_NtD, valid_mask=fold.steps_of_places())
        x_BLD = self.time_branch.after(x_BLD, rearrange(time_NtD, "(B S) t D -> B (t S) D", **sizes), second)
        return self.mlp_branch.after(x_BLD, self.mlp(self.mlp_branch.before(x_BLD)), last)


class FoldedTransformer(nn.Module):
    """``depth`` blocks of either kind and a last norm (none after DeepNorm): (B, L, D) -> (B, L, D)."""

    def __init__(self, config: TransformerConfig, block: type[DividedBlock] | type[FactorisedBlock]) -> None:
        super().__init__()
        self.config, self.num_branches = config, block.num_branches
        self.blocks = nn.ModuleList(block(config) for _ in range(config.depth))
        norms = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
        self.norm: nn.Module = nn.Identity() if config.residual == "deepnorm" else norms[config.norm](config.dim)
        initialise(self, config)

    def forward(self, x_BLD: Tensor, fold: Fold, *, generator: torch.Generator | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); ``generator`` draws which branches are dropped in training."""
        keeps = self._keeps(x_BLD, generator)
        for index, block in enumerate(self.blocks):
            x_BLD = block(x_BLD, fold, None if keeps is None else keeps[index].unbind())
        normed: Tensor = self.norm(x_BLD)
        return normed

    def _keeps(self, x_BLD: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """(depth, branches, B, 1, 1): 0, or 1 / probability of being kept (arXiv 1603.09382, section 3)."""
        config = self.config
        if not self.training or config.drop_path == 0:
            return None
        shape = (config.depth, self.num_branches, len(x_BLD), 1, 1)
        drawn = torch.rand(shape, generator=generator, device=x_BLD.device)
        kept = 1 - torch.linspace(0, config.drop_path, config.depth, device=x_BLD.device).view(-1, 1, 1, 1, 1)
        return (drawn < kept) / kept


def first_token(
    stack: Transformer, x_BLD: Tensor, valid_BL: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """``stack(x)[:, 0]``, with nothing computed that it does not need: (B, L, D) -> (B, D)."""
    keeps = stack._keeps(x_BLD, None, generator)
    last = stack.config.depth - 1
    for index, block in enumerate(stack._blocks()):
        keep = None if keeps is None else keeps[index]
        if index < last:
            x_BLD = block(x_BLD, valid_mask=valid_BL, keep=None if keep is None else keep.unbind())
            continue
        first, second = (None, None) if keep is None else keep.unbind()
        read_BLD = block.attention_branch.before(x_BLD)
        attended_B1D = _attend_first(block.attention, read_BLD, valid_BL)
        x_BLD = block.attention_branch.after(x_BLD[:, :1], attended_B1D, first)
        x_BLD = block.mlp_branch.after(x_BLD, block.mlp(block.mlp_branch.before(x_BLD)), second)
    normed: Tensor = stack.norm(x_BLD[:, 0])
    return normed


def _attend_first(attention: Attention, x_BLD: Tensor, valid_BL: Tensor | None) -> Tensor:
    """Self-attention of the first token alone: keys and values of all, the query of one. (B, L, D) -> (B, 1, D)."""
    config = attention.config
    width, kv_width = config.num_heads * config.head_dim, config.kv_heads * config.head_dim
    q_B1Ad, _, gate = attention._split(x_BLD[:, :1], None)
    rows = slice(width, width + 2 * kv_width)
    bias = None if attention.project.bias is None else attention.project.bias[rows]
    kv_BLE = F.linear(x_BLD, attention.project.weight[rows], bias)
    kv_BLGd = rearrange(kv_BLE, "B L (G d) -> B L G d", d=config.head_dim)
    k_BLGd, v_BLGd = kv_BLGd.chunk(2, dim=-2)
    if config.qk_norm:
        k_BLGd = attention._normed(k_BLGd, attention.k_scale_d).to(v_BLGd.dtype)
    return attention._merge(attend(q_B1Ad, k_BLGd, v_BLGd, valid_mask=valid_BL), gate)


class TanhMlp(nn.Module):
    """A ``gelu`` MLP whose GELU is the tanh approximation (arXiv 1606.08415, section 2): (..., D) -> (..., D)."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        self.into, self.out = mlp.into, mlp.out

    def forward(self, x_D: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        hidden: Tensor = self.into(x_D)
        if torch.is_grad_enabled():
            hidden = F.gelu(hidden, approximate="tanh")
        else:
            torch.ops.aten.gelu_(hidden, approximate="tanh")
        out: Tensor = self.out(hidden)
        return out


def adapt(stack: Transformer | FoldedTransformer, *, activation: Activation, eps: float) -> None:
    """Set what ``TransformerConfig`` leaves fixed: the kind of GELU, and the eps of the norms."""
    for module in stack.modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.eps = eps
    if activation == "gelu_tanh":
        for block in stack.blocks:
            block.mlp = TanhMlp(block.mlp)  # type: ignore[arg-type]
