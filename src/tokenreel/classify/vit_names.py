"""Weights of image and video ViTs by the names that timm and transformers give them, old and new.

Letters: D dim, M mlp_dim, P positions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenreel.errors import MismatchError
from tokenreel.nn.blocks import Block
from tokenreel.nn.mlp import Mlp

from .vivit_blocks import DividedBlock, FactorisedBlock, TanhMlp

__all__ = ["VitWeights", "copy_into", "fill_block", "fill_linear", "fill_norm", "vit_weights"]

_TOP = {
    "embeddings.cls_token": "class_token",
    "cls_token": "class_token",
    "embeddings.position_embeddings": "positions",
    "pos_embed": "positions",
    "embeddings.patch_embeddings.projection": "patch",
    "patch_embed.proj": "patch",
    "layernorm": "norm",
    "norm": "norm",
    "fc_norm": "norm",
    "classifier": "head",
    "head": "head",
}
_INNER = {
    "attention.attention.query": "q",
    "attention.attention.key": "k",
    "attention.attention.value": "v",
    "attention.output.dense": "out",
    "attention.q_proj": "q",
    "attention.k_proj": "k",
    "attention.v_proj": "v",
    "attention.o_proj": "out",
    "attn.qkv": "qkv",
    "attn.proj": "out",
    "intermediate.dense": "into",
    "output.dense": "back",
    "mlp.fc1": "into",
    "mlp.fc2": "back",
    "layernorm_before": "before",
    "layernorm_after": "after",
    "norm1": "before",
    "norm2": "after",
}
_LAYER = re.compile(r"(?:encoder\.layer|encoder\.layers|layers|blocks)\.(\d+)\.(.+)")
_UNUSED = ("pooler.",)  # of models that answer with a vector; no logit comes from there


@dataclass(frozen=True, slots=True, kw_only=True)
class VitWeights:
    """The weights of a ViT: top-level ones, and those of each block, ``name.weight`` and ``name.bias``.

    Attributes:
        top: ``patch``, ``norm``, ``head`` (where there is one), ``class_token`` (D), ``positions`` (P, D).
        blocks: ``qkv``, ``out``, ``into``, ``back``, and the norms ``before`` attention and ``after`` it.
    """

    top: dict[str, Tensor]
    blocks: tuple[dict[str, Tensor], ...]


def vit_weights(state: Mapping[str, Tensor]) -> VitWeights:
    """Weights by name -> ``VitWeights``; MismatchError if a name is unknown or missing."""
    top: dict[str, Tensor] = {}
    blocks: dict[int, dict[str, Tensor]] = {}
    for full, tensor in state.items():
        name = re.sub(r"^(?:model\.)?(?:vivit\.|vit\.)?", "", full)
        if name.startswith(_UNUSED):
            continue
        match = _LAYER.fullmatch(name)
        home, table, name = (blocks.setdefault(int(match[1]), {}), _INNER, match[2]) if match else (top, _TOP, name)
        stem, _, kind = name.rpartition(".")
        if name in table:
            home[table[name]] = tensor.float()
        elif stem in table and kind in ("weight", "bias"):
            home[f"{table[stem]}.{kind}"] = tensor.float()
        else:
            raise MismatchError(f"{full!r} is no weight of a ViT as timm or transformers name them")
    if sorted(blocks) != list(range(len(blocks))) or not blocks:
        raise MismatchError(f"a ViT has blocks 0, 1, 2, ...; found {sorted(blocks)}")
    for name in ("class_token", "positions"):
        if name in top:
            top[name] = top[name].reshape(-1, top[name].shape[-1])
    for name in ("patch.weight", "positions", "norm.weight", "norm.bias"):
        _demand(top, name, "the ViT")
    return VitWeights(top=top, blocks=tuple(_whole(blocks[index], index) for index in sorted(blocks)))


def _whole(block: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """With queries, keys and values as one product, and zeros for a bias that is not there."""
    if "qkv.weight" not in block:
        for part in "qkv":
            _demand(block, f"{part}.weight", f"block {index}")
        block["qkv.weight"] = torch.cat([block.pop(f"{part}.weight") for part in "qkv"])
        if "q.bias" in block:
            block["qkv.bias"] = torch.cat([block.pop(f"{part}.bias") for part in "qkv"])
    for name in ("out", "into", "back", "before", "after"):
        _demand(block, f"{name}.weight", f"block {index}")
    for name in ("qkv", "out", "into", "back", "before", "after"):
        block.setdefault(f"{name}.bias", block[f"{name}.weight"].new_zeros(len(block[f"{name}.weight"])))
    return block


def _demand(weights: Mapping[str, Tensor], name: str, where: str) -> None:
    if name not in weights:
        raise MismatchError(f"{where} lacks the weights of {name!r}; it holds {', '.join(sorted(weights)) or 'none'}")


def copy_into(parameter: Tensor, weights: Tensor, name: str) -> None:
    """The weights, written into a parameter; MismatchError if shapes differ."""
    if parameter.shape != weights.shape:
        raise MismatchError(f"{name} is {tuple(weights.shape)} in the ViT, {tuple(parameter.shape)} in this model")
    with torch.no_grad():
        parameter.copy_(weights)


def fill_linear(layer: nn.Linear, weights: Mapping[str, Tensor], name: str) -> None:
    """Weight and bias of one linear layer."""
    copy_into(layer.weight, weights[f"{name}.weight"], f"{name}.weight")
    copy_into(layer.bias, weights[f"{name}.bias"], f"{name}.bias")


def fill_norm(norm: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Scale and shift of one LayerNorm."""
    assert isinstance(norm, nn.LayerNorm)
    copy_into(norm.weight, weights[f"{name}.weight"], f"{name}.weight")
    copy_into(norm.bias, weights[f"{name}.bias"], f"{name}.bias")


def fill_block(block: Block | DividedBlock | FactorisedBlock, weights: Mapping[str, Tensor]) -> None:
    """Attention, MLP and norms of one pre-norm block."""
    assert isinstance(block.mlp, Mlp | TanhMlp)
    fill_linear(block.attention.project, weights, "qkv")
    fill_linear(block.attention.out, weights, "out")
    fill_norm(block.attention_branch.norm, weights, "before")
    fill_norm(block.mlp_branch.norm, weights, "after")
    fill_linear(block.mlp.into, weights, "into")
    fill_linear(block.mlp.out, weights, "back")
