"""A ViViT that starts as an image ViT (arXiv 2103.15691, section 3.4).

Letters: D dim, h w grid, P positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import MismatchError
from tokenreel.nn.blocks import Transformer
from tokenreel.tokenizers.configs import BlockOptions

from .folds import GridPositions
from .vit_names import VitWeights, copy_into, fill_block, fill_norm, vit_weights
from .vivit import ViViT
from .vivit_blocks import FactorisedBlock, FoldedTransformer
from .vivit_config import EncoderConfig
from .vivit_encoders import FactorisedEncoder, FoldedEncoder, PooledStack, SpatioTemporalEncoder

__all__ = ["check_plain", "start_from_image"]


@torch.no_grad()
def start_from_image(model: ViViT, state: Mapping[str, Tensor], *, how: Literal["central", "average"]) -> None:
    """Fill a ViViT with the weights of an image ViT; heads stay as they are, they name other labels.

    The embedding is inflated (``TubeletEmbed.init_from_image``); positions are repeated over time, and stretched to
    another grid; blocks over space, and all blocks of models 1 and 4, are the image model's. What the image model has
    not begins as nothing: temporal attention of model 3 and all branches of model 2's temporal transformer end in
    zeros (in the last matrix alone: zeros everywhere, as the paper has it for model 3, would get no gradient), time
    positions of model 2 are zero.

    On a still these then give the image model's features: models 1 and 3 with ``mean`` pooling, model 2 with a class
    token in space and ``temporal_pooling="mean"``, and model 2 of ``temporal_depth`` 0. A class token among t times as
    many tokens, or among time steps, is a new reader, and half of model 4's heads look along time.
    """
    check_plain(model.config)
    weights = vit_weights(state)
    _embed(model, weights, how)
    encoder = model.encoder
    if isinstance(encoder, SpatioTemporalEncoder):
        _stack(encoder.pooled.stack, weights, norm=True)
        _positions(encoder.positions, encoder.pooled, weights)
    elif isinstance(encoder, FactorisedEncoder):
        _stack(encoder.space.stack, weights, norm=encoder.time is None)
        _positions(encoder.space_positions, encoder.space, weights)
        if encoder.time is not None:
            nn.init.zeros_(encoder.time_positions.learned.table_thwD)
            fill_norm(encoder.time.stack.norm, weights.top, "norm")
            for block in encoder.time.stack.blocks:
                _silence([block.attention.out, block.mlp.out])  # type: ignore[union-attr,list-item]
    elif isinstance(encoder, FoldedEncoder):
        _stack(encoder.stack, weights, norm=True)
        _positions(encoder.positions, None, weights)
        for folded in encoder.stack.blocks:
            if isinstance(folded, FactorisedBlock):
                _silence([folded.time.out])


def check_plain(config: EncoderConfig) -> None:
    """MismatchError unless the blocks are a ViT's: pre-norm, LayerNorm, GELU, with biases."""
    plain = BlockOptions(drop_path=config.blocks.drop_path)
    if config.blocks != plain:
        raise MismatchError(f"weights of a ViT fit {plain}, this model has {config.blocks}")


def _embed(model: ViViT, weights: VitWeights, how: Literal["central", "average"]) -> None:
    image_DCHW = weights.top["patch.weight"]
    _, ph, pw = model.config.patch_size
    wanted = (model.config.encoder.dim, model.config.in_channels, ph, pw)
    if tuple(image_DCHW.shape) != wanted:
        raise MismatchError(f"the image ViT embeds patches by {tuple(image_DCHW.shape)}, this model needs {wanted}")
    bias_D = weights.top.get("patch.bias", image_DCHW.new_zeros(len(image_DCHW)))
    model.embed.init_from_image(rearrange(image_DCHW, "D C h w -> D (h w C)"), bias_D, how=how)


def _stack(stack: Transformer | FoldedTransformer, weights: VitWeights, *, norm: bool) -> None:
    if len(weights.blocks) != len(stack.blocks):
        raise MismatchError(f"the image ViT has {len(weights.blocks)} blocks, this model {len(stack.blocks)}")
    for block, own in zip(stack.blocks, weights.blocks):
        fill_block(block, own)  # type: ignore[arg-type]
    if norm:
        fill_norm(stack.norm, weights.top, "norm")


def _positions(positions: GridPositions, pooled: PooledStack | None, weights: VitWeights) -> None:
    """The table of a square picture, repeated over time; the class token takes its own position in."""
    table_PD = weights.top["positions"]
    side = int(len(table_PD) ** 0.5)
    first = len(table_PD) - side * side
    if first not in (0, 1) or (first and "class_token" not in weights.top):
        raise MismatchError(f"positions must be those of a square picture and a class token, got {len(table_PD)}")
    t, h, w, _ = positions.learned.table_thwD.shape
    table_BDhw = rearrange(table_PD[first:], "(h w) D -> 1 D h w", h=side)
    if (h, w) != (side, side):
        table_BDhw = F.interpolate(table_BDhw, size=(h, w), mode="bilinear", align_corners=False)
    table_thwD = rearrange(table_BDhw, "1 D h w -> 1 h w D").expand(t, h, w, -1)
    copy_into(positions.learned.table_thwD, table_thwD, "positions")
    if pooled is not None and pooled.class_token_D is not None:
        if "class_token" not in weights.top:
            raise MismatchError("this model has a class token, the image ViT has none; pooling='mean'")
        token_D = weights.top["class_token"][0]
        copy_into(pooled.class_token_D, token_D + table_PD[0] if first else token_D, "class_token")


def _silence(layers: Iterable[nn.Linear]) -> None:
    """A residual branch that ends here adds nothing."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
