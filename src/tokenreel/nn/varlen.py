"""The flash kernel for packed sequences on CUDA, behind ``attend``; nothing here is imported on other machines.

Letters: N packed queries, M packed keys, A heads, G key/value heads, d head_dim.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from .attention import Bounds

__all__ = ["has_varlen", "varlen_attend"]


def has_varlen(q_NAd: Tensor) -> bool:
    """Whether torch's variable-length flash kernel takes these queries: CUDA of Ampere or later, fp16 or bf16."""
    if q_NAd.device.type != "cuda" or q_NAd.dtype not in (torch.float16, torch.bfloat16):
        return False
    return q_NAd.shape[-1] % 8 == 0 and q_NAd.shape[-1] <= 256 and _is_present(q_NAd.device.index or 0)


@lru_cache(maxsize=16)
def _is_present(device_index: int) -> bool:
    try:
        from torch.nn.attention import varlen  # torch 2.10 and later
    except ImportError:
        return False
    return hasattr(varlen, "varlen_attn") and torch.cuda.get_device_capability(device_index) >= (8, 0)


def varlen_attend(
    q_NAd: Tensor,
    k_MGd: Tensor,
    v_MGd: Tensor,
    bounds_q: Bounds,
    bounds_k: Bounds,
    *,
    causal: bool,
    window: int | None,
    scale: float | None,
) -> Tensor:
    """(N, A, d), (M, G, d), (M, G, d) -> (N, A, d) in one kernel; FlashAttention-2, arXiv 2307.08691."""
    from torch.nn.attention.varlen import varlen_attn

    out_NAd: Tensor = varlen_attn(  # type: ignore[assignment]
        q_NAd,
        k_MGd,
        v_MGd,
        _on_device(bounds_q, q_NAd.device),
        _on_device(bounds_k, q_NAd.device),
        _longest(bounds_q, q_NAd.shape[0]),
        _longest(bounds_k, k_MGd.shape[0]),
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0) if causal else (-1, -1),
        enable_gqa=q_NAd.shape[1] != k_MGd.shape[1],
    )
    return out_NAd


def _on_device(bounds: Bounds, device: torch.device) -> Tensor:
    if isinstance(bounds, Tensor):
        return bounds.to(device=device, dtype=torch.int32)
    return torch.tensor(tuple(bounds), dtype=torch.int32, device=device)


def _longest(bounds: Bounds, total: int) -> int:
    """The longest sequence; for a tensor the total, an upper bound that needs no wait for the device."""
    if isinstance(bounds, Tensor):
        return total
    return max((stop - start for start, stop in pairwise(bounds)), default=0)
