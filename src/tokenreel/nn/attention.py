"""Attention behind one call: dense, causal, windowed, cross and variable-length (packed), all on ``torch`` SDPA.

Letters: B batch, L queries, S keys, A heads, G key/value heads (A divisible by G), d head_dim,
N queries packed end to end, M keys packed end to end.

The layout is tokens before heads, as a projection leaves them: SDPA takes the transposed views as they are and
answers in the same memory order, so nothing is copied on either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError

__all__ = ["Bounds", "attend", "packed_mask"]

Bounds = Tensor | Sequence[int]
"""Where packed sequences begin and end: ``[0, l_0, l_0 + l_1, ...]``, as an int32 tensor or a tuple of ints. A tuple is
quicker (a tensor must be read back, which waits for the device), a tensor lets one compiled graph serve any lengths."""

_BLOCK = 64
"""Windows narrower than this are still computed this many queries at a time."""

_SHORT, _MOST_SCORES = 512, 1 << 26
"""Keys, and scores in all, up to which bfloat16 attention on a CPU is written out."""
_MOST_KEPT_SCORES = 1 << 24
"""The same where scores are kept for gradients: 32 MiB twice."""


def attend(
    q_BLAd: Tensor,
    k_BSGd: Tensor,
    v_BSGd: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    valid_mask: Tensor | None = None,
    bias: Tensor | None = None,
    cu_seqlens: Bounds | None = None,
    cu_seqlens_k: Bounds | None = None,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention: (B, L, A, d) and twice (B, S, G, d) -> (B, L, A, d); packed (N, A, d), (M, G, d) -> (N, A, d).

    ``softmax(q k^T * scale + bias) v``, arXiv 1706.03762, equation 1; G < A shares each key/value head among A / G
    query heads (arXiv 2305.13245). Queries are the *last* L of S positions, so that a cache of earlier keys may stand
    before them. A query that may see nothing answers 0.

    With ``causal``, a change of later keys or values (finite ones) changes no earlier output bit for bit, at equal
    shapes: every output row is reduced by itself, and hidden weights are exact zeros.

    Args:
        q_BLAd: queries.
        k_BSGd: keys.
        v_BSGd: values.
        causal: a query sees no later key.
        window: with ``causal``, a query sees itself and the ``window - 1`` keys before it. Long sequences are
            computed in blocks of queries, so time and memory grow with L * window.
        valid_mask: (B, S) bool, True = may be attended. Not with packed sequences, which have no padding.
        bias: added to the scores; (A, L, S), or anything that broadcasts to (B, A, L, S). Not with packed sequences.
        cu_seqlens: bounds of the packed queries; sequences do not see each other.
        cu_seqlens_k: bounds of the packed keys, where they differ from the queries'.
        scale: 1 / sqrt(d) unless given.

    Raises:
        InputError: shapes, bounds or options do not fit together.
    """
    packed = cu_seqlens is not None
    _check(q_BLAd, k_BSGd, v_BSGd, causal, window, packed)
    if cu_seqlens is None:
        if cu_seqlens_k is not None:
            raise InputError("cu_seqlens_k was given without cu_seqlens; give both, or neither for dense attention")
        if causal and window is not None:
            return _windowed(q_BLAd, k_BSGd, v_BSGd, window, valid_mask, bias, scale)
        return _dense(q_BLAd, k_BSGd, v_BSGd, _mask(q_BLAd, k_BSGd, causal, valid_mask, bias), causal, scale)
    if valid_mask is not None or bias is not None:
        raise InputError("packed attention takes neither valid_mask nor bias; leave padding out of the pack")
    bounds_k = cu_seqlens if cu_seqlens_k is None else cu_seqlens_k
    _check_bounds(q_BLAd, k_BSGd, cu_seqlens, bounds_k)
    return _packed(q_BLAd, k_BSGd, v_BSGd, cu_seqlens, bounds_k, causal, window, scale)


def _dense(
    q_BLAd: Tensor, k_BSGd: Tensor, v_BSGd: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """SDPA on views; ``mask`` None and ``causal`` means the kernel's own triangle, which skips what it hides."""
    num_queries, num_keys = q_BLAd.shape[1], k_BSGd.shape[1]
    if _is_quicker_written_out(q_BLAd, k_BSGd, mask):
        return _written_out(q_BLAd, k_BSGd, v_BSGd, mask, causal, scale)
    out_BALd = F.scaled_dot_product_attention(
        q_BLAd.transpose(1, 2),
        k_BSGd.transpose(1, 2),
        v_BSGd.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal and mask is None and num_queries == num_keys,
        scale=scale,
        enable_gqa=q_BLAd.shape[2] != k_BSGd.shape[2],
    )
    return out_BALd.transpose(1, 2)


def _is_quicker_written_out(q_BLAd: Tensor, k_BSGd: Tensor, mask: Tensor | None) -> bool:
    """Short rows in bfloat16 on a CPU: there SDPA's tiles take two to six times as long as three plain products."""
    if q_BLAd.device.type != "cpu" or (mask is not None and mask.dtype != torch.bool):
        return False
    if q_BLAd.dtype == torch.float64 or q_BLAd.shape[2] != k_BSGd.shape[2]:
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q_BLAd.dtype
    (B, L, A, _), S = q_BLAd.shape, k_BSGd.shape[1]
    most = _MOST_KEPT_SCORES if torch.is_grad_enabled() and q_BLAd.requires_grad else _MOST_SCORES
    return dtype == torch.bfloat16 and S <= _SHORT and most >= B * A * L * S


def _written_out(
    q_BLAd: Tensor, k_BSAd: Tensor, v_BSAd: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """The same in three steps. Scores are rounded to bfloat16, so errors are about twice those of SDPA's tiles."""
    if causal and mask is None and q_BLAd.shape[1] > 1:
        mask = _band(q_BLAd.shape[1], k_BSAd.shape[1], None, q_BLAd.device)
    with torch.autocast("cpu", enabled=False):
        q_BALd, k_BASd, v_BASd = (x.to(torch.bfloat16).transpose(1, 2) for x in (q_BLAd, k_BSAd, v_BSAd))
        scores_BALS = (q_BALd * (q_BALd.shape[-1] ** -0.5 if scale is None else scale)) @ k_BASd.transpose(-1, -2)
        if mask is None:
            weights_BALS = _softmax(scores_BALS)
        else:  # filled again: a query that may see nothing answers 0
            least = torch.finfo(scores_BALS.dtype).min
            weights_BALS = _softmax(scores_BALS.masked_fill(~mask, least)).masked_fill(~mask, 0)
        return (weights_BALS @ v_BASd).transpose(1, 2)


def _softmax(scores_BALS: Tensor) -> Tensor:
    """Over keys. Rows that fill no vector of 32 in bfloat16 are summed one by one, two to five times slower."""
    if 16 <= scores_BALS.shape[-1] < 64:
        return scores_BALS.float().softmax(-1).to(scores_BALS.dtype)
    return scores_BALS.softmax(-1)


def _mask(
    q_BLAd: Tensor,
    k_BSGd: Tensor,
    causal: bool,
    valid_mask: Tensor | None,
    bias: Tensor | None,
    window: int | None = None,
) -> Tensor | None:
    """One mask (bool) or bias (float) of up to four dims for what the arguments ask, or None where none is needed."""
    num_queries, num_keys = q_BLAd.shape[1], k_BSGd.shape[1]
    narrow = window is not None and window < num_keys
    allowed: Tensor | None = None
    if valid_mask is not None:
        if valid_mask.shape != (q_BLAd.shape[0], num_keys) or valid_mask.dtype != torch.bool:
            raise InputError(
                f"valid_mask must be bool of shape {(q_BLAd.shape[0], num_keys)}, got {valid_mask.dtype} of shape "
                f"{tuple(valid_mask.shape)}"
            )
        allowed = valid_mask[:, None, None, :]
    own_triangle = num_queries == num_keys and allowed is None and bias is None and not narrow
    if causal and num_queries > 1 and not own_triangle:
        allowed_LS = _band(num_queries, num_keys, window if narrow else None, q_BLAd.device)
        allowed = allowed_LS if allowed is None else allowed & allowed_LS
    if bias is None:
        return allowed
    bias_BALS = bias.to(q_BLAd.dtype)
    bias_BALS = bias_BALS.view(*(1,) * (4 - bias.ndim), *bias.shape)
    return bias_BALS if allowed is None else bias_BALS.masked_fill(~allowed, float("-inf"))


def _band(num_queries: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
    """(L, S) bool: key j is seen by query i if ``0 <= i + S - L - j < window``."""
    last = num_keys - num_queries
    ones_LS = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device)
    seen_LS = ones_LS.tril(last)
    return seen_LS if window is None else seen_LS.triu(last - window + 1)


def _windowed(
    q_BLAd: Tensor,
    k_BSGd: Tensor,
    v_BSGd: Tensor,
    window: int,
    valid_mask: Tensor | None,
    bias: Tensor | None,
    scale: float | None,
) -> Tensor:
    """Blocks of queries, each with the keys it can see, so the cost is L * window and not L * S."""
    num_queries, num_keys = q_BLAd.shape[1], k_BSGd.shape[1]
    block, last = max(window, _BLOCK), num_keys - num_queries
    blocks = []
    for start in range(0, max(num_queries, 1), block):
        stop = min(start + block, num_queries)
        keys = slice(max(0, start + last - window + 1), stop + last)
        q, k, v = q_BLAd[:, start:stop], k_BSGd[:, keys], v_BSGd[:, keys]
        valid = None if valid_mask is None else valid_mask[:, keys]
        part = None if bias is None else bias[..., start:stop, keys]
        blocks.append(_dense(q, k, v, _mask(q, k, True, valid, part, window), True, scale))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _packed(
    q_NAd: Tensor,
    k_MGd: Tensor,
    v_MGd: Tensor,
    bounds_q: Bounds,
    bounds_k: Bounds,
    causal: bool,
    window: int | None,
    scale: float | None,
) -> Tensor:
    if q_NAd.device.type == "cuda":
        from .varlen import has_varlen, varlen_attend

        if has_varlen(q_NAd):
            return varlen_attend(q_NAd, k_MGd, v_MGd, bounds_q, bounds_k, causal=causal, window=window, scale=scale)
    if isinstance(bounds_q, Tensor) and isinstance(bounds_k, Tensor) and torch.compiler.is_compiling():
        # Lengths are data here: a graph cannot loop over them, one mask serves them all.
        mask_NM = packed_mask(bounds_q, bounds_k, q_NAd.shape[0], k_MGd.shape[0], causal=causal, window=window)
        return _dense(q_NAd[None], k_MGd[None], v_MGd[None], mask_NM, False, scale)[0]
    parts = []
    for q_BLAd, k_BSGd, v_BSGd in _runs(q_NAd, k_MGd, v_MGd, bounds_q, bounds_k):
        if causal and q_BLAd.shape[1] > k_BSGd.shape[1] > 0:
            raise InputError(
                f"causal attention needs a key for every query, a sequence has {q_BLAd.shape[1]} queries, "
                f"{k_BSGd.shape[1]} keys"
            )
        if k_BSGd.shape[1] == 0:
            part = torch.zeros_like(q_BLAd)
        elif causal and window is not None:
            part = _windowed(q_BLAd, k_BSGd, v_BSGd, window, None, None, scale)
        else:
            part = _dense(q_BLAd, k_BSGd, v_BSGd, _mask(q_BLAd, k_BSGd, causal, None, None), causal, scale)
        parts.append(part.flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat([q_NAd[:0], *parts])


def _runs(
    q_NAd: Tensor, k_MGd: Tensor, v_MGd: Tensor, bounds_q: Bounds, bounds_k: Bounds
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Neighbouring sequences of equal lengths as one batch, (B, L, A, d) and (B, S, G, d): views, no copies."""
    first_q = first_k = 0
    for (length, num_keys), run in groupby(zip(_lengths(bounds_q), _lengths(bounds_k), strict=True)):
        count = sum(1 for _ in run)
        stop_q, stop_k = first_q + count * length, first_k + count * num_keys
        if length:
            yield (
                _folded(q_NAd[first_q:stop_q], count, length),
                _folded(k_MGd[first_k:stop_k], count, num_keys),
                _folded(v_MGd[first_k:stop_k], count, num_keys),
            )
        first_q, first_k = stop_q, stop_k


def _folded(x_NAd: Tensor, count: int, length: int) -> Tensor:
    """(count * length, A, d) -> (count, length, A, d), as a view whatever the strides."""
    return x_NAd.view(count, length, *x_NAd.shape[1:])


def packed_mask(
    cu_seqlens: Tensor, cu_seqlens_k: Tensor, num_queries: int, num_keys: int, *, causal: bool, window: int | None
) -> Tensor:
    """(N, M) bool: which packed key each packed query may see; the meaning of the per-sequence path, as one mask."""
    segment_q, to_end_q = _places(cu_seqlens, num_queries)
    segment_k, to_end_k = _places(cu_seqlens_k, num_keys)
    seen_NM = segment_q[:, None] == segment_k[None, :]
    if causal:
        back_NM = to_end_k[None, :] - to_end_q[:, None]
        seen_NM = seen_NM & (back_NM >= 0)
        if window is not None:
            seen_NM = seen_NM & (back_NM < window)
    return seen_NM


def _places(cu_seqlens: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of each packed position: which sequence it belongs to, and how many positions that sequence has after it."""
    index_N = torch.arange(count, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    segment_N = torch.bucketize(index_N, cu_seqlens[1:], right=True)
    return segment_N, cu_seqlens[segment_N + 1] - 1 - index_N


def _lengths(bounds: Bounds) -> list[int]:
    values: Sequence[int] = bounds.tolist() if isinstance(bounds, Tensor) else bounds
    return [stop - start for start, stop in pairwise(values)]


def _check(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, packed: bool) -> None:
    dims, layout = (3, "(N, heads, head_dim)") if packed else (4, "(B, L, heads, head_dim)")
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not (q.ndim == k.ndim == v.ndim == dims) or k.shape != v.shape:
        raise InputError(f"attention takes {layout}, keys and values of one shape; got {shapes}")
    if q.shape[-1] != k.shape[-1] or q.shape[-2] % max(k.shape[-2], 1) or (not packed and q.shape[0] != k.shape[0]):
        raise InputError(f"queries and keys must agree in batch and head_dim, and heads must divide; got {shapes}")
    if window is not None and (not causal or window < 1):
        raise InputError(f"window needs causal=True and at least 1 key, got window={window}, causal={causal}")
    if causal and not packed and q.shape[1] > k.shape[1]:
        raise InputError(f"causal attention needs a key for every query, got {q.shape[1]} queries, {k.shape[1]} keys")


def _check_bounds(q_NAd: Tensor, k_MGd: Tensor, bounds_q: Bounds, bounds_k: Bounds) -> None:
    if len(bounds_q) != len(bounds_k):
        raise InputError(f"cu_seqlens names {len(bounds_q) - 1} sequences, cu_seqlens_k {len(bounds_k) - 1}")
    for name, bounds, tensor in (("cu_seqlens", bounds_q, q_NAd), ("cu_seqlens_k", bounds_k, k_MGd)):
        if isinstance(bounds, Tensor):
            if bounds.ndim != 1 or bounds.is_floating_point():
                raise InputError(f"{name} must be a 1-D tensor of integers, got {bounds.dtype} {tuple(bounds.shape)}")
            if bounds.device.type != "cpu" or torch.compiler.is_compiling():
                continue  # reading it would wait for the device, or break the graph
        lengths = _lengths(bounds)
        if int(bounds[0]) != 0 or int(bounds[-1]) != tensor.shape[0] or min(lengths, default=0) < 0:
            raise InputError(
                f"{name} must rise from 0 to {tensor.shape[0]} packed tokens, got {list(map(int, bounds))}"
            )
