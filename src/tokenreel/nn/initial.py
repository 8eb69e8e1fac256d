"""How the weights of a transformer stack start.

Letters: D dim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .blocks import TransformerConfig

__all__ = ["drawn", "initialise"]


@torch.no_grad()
def drawn(tensor: Tensor, *, std: float) -> Tensor:
    """The tensor, filled with a truncated normal from torch's global generator; on the meta device as it is.

    Drawing there would import seconds of compiler to compute nothing: files are loaded into such tensors.
    """
    return tensor if tensor.is_meta else nn.init.trunc_normal_(tensor, std=std, a=-3 * std, b=3 * std)


@torch.no_grad()
def initialise(stack: nn.Module, config: TransformerConfig) -> None:
    """Draw the weights of every linear layer in a stack, from torch's global generator.

    Truncated normals of standard deviation sqrt(2 / (5 D)) (arXiv 1910.05895, sec. 2.2; .02 at D = 1,000), the layers
    that write to the residual stream divided by sqrt(branches * depth) (GPT-2), biases zero. With DeepNorm Xavier
    normals, with values, outputs and MLP times beta = (8 depth)^(-1/4) (arXiv 2203.00555, section 3).
    """
    if any(parameter.is_meta for parameter in stack.parameters()):
        return  # shapes without numbers, to be counted or filled from a file
    std = (2 / (5 * config.dim)) ** 0.5
    small = (config.num_branches * config.depth) ** -0.5
    beta = (8 * config.depth) ** -0.25
    for name, layer in stack.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        if config.residual == "deepnorm":
            nn.init.xavier_normal_(layer.weight, gain=beta if "mlp" in name or name.endswith("out") else 1.0)
            if "project" in name:
                _shrink_values(layer, name, config, beta)
        else:
            drawn(layer.weight, std=std * (small if name.endswith("out") else 1.0))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _shrink_values(layer: nn.Linear, name: str, config: TransformerConfig, beta: float) -> None:
    """DeepNorm scales the value projection too; in the fused product its rows follow the keys' (see ``heads``)."""
    kv = config.attention(cross=False).kv_heads * config.head_dim
    if name.endswith("project_context"):
        layer.weight[kv:] *= beta
    elif "cross" not in name:
        first = config.num_heads * config.head_dim + kv
        layer.weight[first : first + kv] *= beta
