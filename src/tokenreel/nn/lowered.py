"""Linear layers whose weights are cast once for many calls, and not at every one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["lowered"]


@contextmanager
def lowered(modules: Iterable[nn.Module], dtype: torch.dtype) -> Iterator[None]:
    """The linear layers of these modules hold weights and biases in ``dtype``, without gradients; put back after.

    For autocast, which casts weights at every call, or keeps what it cast of those that require gradients. Norms,
    embeddings and learned scales stay as they are.
    """
    layers = {layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)}
    kept = [(layer, dict(layer.named_parameters(recurse=False))) for layer in layers]
    try:
        for layer, parameters in kept:
            for name, parameter in parameters.items():
                setattr(layer, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
        yield
    finally:
        for layer, parameters in kept:
            for name, parameter in parameters.items():
                setattr(layer, name, parameter)
