"""The nearest code of each latent, by matrix products in chunks; ties go to the lowest id.

Letters: N tokens, K codebook_size, E codebook_dim, M blocks of the codebook, n tokens of one chunk.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

__all__ = ["nearest"]

_CHUNK_BYTES = {"cpu": 16 << 20}  # of scores at a time: stays in the third-level cache
_CHUNK_BYTES_ELSEWHERE = 256 << 20


@torch.no_grad()
def nearest(latents_NE: Tensor, codebook_KE: Tensor, *, chunk_bytes: int | None = None) -> Tensor:
    """(N, E), (K, E) -> (N,) int64: argmin over k of |z - e_k|^2, the lowest k among equals.

    argmin |z - e|^2 = argmax z e - |e|^2 / 2, one matrix product, of vectors shifted to the codebook's mean.
    Its last bits depend on the shapes multiplied, so
    the first and the last code within rounding of the best are compared again by their distance in float64,
    each row by itself: ids do not depend on chunks, batch or threads (short of three codes within 1e-6 of each other).

    Args:
        chunk_bytes: size of the scores held at a time; default 16 MiB on the CPU, 256 MiB elsewhere.
    """
    tokens, size = len(latents_NE), len(codebook_KE)
    if tokens == 0:
        return torch.zeros(0, dtype=torch.int64, device=latents_NE.device)
    codebook_KE = codebook_KE.to(latents_NE.dtype)
    centre_E = codebook_KE.mean(0)  # distances do not see it, the digits of the product do
    centred_NE = latents_NE - centre_E
    block = min(size, 32 if size <= 4096 else 128)
    # The last code fills up the last block; being a copy, it wins only together with the last code.
    padded_KE = _filled(codebook_KE - centre_E, -size % block)
    bias_K = -0.5 * padded_KE.square().sum(1)
    margin_N = _rounding(centred_NE, bias_K)
    budget = chunk_bytes or _CHUNK_BYTES.get(latents_NE.device.type, _CHUNK_BYTES_ELSEWHERE)
    rows = max(1, min(tokens, budget // (len(padded_KE) * latents_NE.element_size())))
    # The bias as one more column: addmm would first write it into all the scores.
    left_Ne = F.pad(centred_NE, (0, 1), value=1.0)
    right_eK = torch.cat([padded_KE, bias_K[:, None]], 1).t()
    # One buffer for all chunks: a fresh one costs as much in page faults as a third of the product.
    scores_nK = None if torch.compiler.is_compiling() else left_Ne.new_empty(rows, len(padded_KE))
    firsts, lasts = [], []
    for start in range(0, tokens, rows):
        piece = slice(start, start + rows)
        left_ne = left_Ne[piece]
        scores = torch.mm(left_ne, right_eK, out=None if scores_nK is None else scores_nK[: len(left_ne)])
        first, last = _candidates(rearrange(scores, "n (M b) -> n M b", b=block), margin_N[piece])
        firsts.append(first)
        lasts.append(last)
    # An overflow or NaN leaves no candidate: the clamp keeps even its id in the codebook.
    first_N, last_N = (torch.cat(parts).clamp(0, size - 1) for parts in (firsts, lasts))
    return _settled(latents_NE, codebook_KE, first_N, last_N)


def _filled(codebook_KE: Tensor, more: int) -> Tensor:
    return torch.cat([codebook_KE, codebook_KE[-1:].expand(more, -1)]) if more else codebook_KE


def _rounding(latents_NE: Tensor, bias_K: Tensor) -> Tensor:
    """(N,): how far apart two equal scores may come out of the matrix product; |z e| <= |z| max |e|."""
    squared = (-2 * bias_K).amax()
    bound_N: Tensor = latents_NE.norm(dim=1) * squared.sqrt() + 0.5 * squared
    return 8 * torch.finfo(latents_NE.dtype).eps * bound_N


def _candidates(scores_nMb: Tensor, margin_n: Tensor) -> tuple[Tensor, Tensor]:
    """(n,), (n,): the lowest and the highest id whose score is within the margin of the best.

    The scores are read once, to take the best of each block; the rest looks at two blocks a row. (argmax over the
    whole row is several times slower on a CPU, since it cannot use vector instructions.)
    """
    count, blocks, width = scores_nMb.shape
    top_nM = scores_nMb.amax(2)
    floor_n1 = top_nM.amax(1, keepdim=True) - margin_n[:, None]
    row = torch.arange(count, device=scores_nMb.device)
    within = torch.arange(width, device=scores_nMb.device)
    block_id = torch.arange(blocks, device=scores_nMb.device)
    is_near_nM = top_nM >= floor_n1
    first_block = torch.where(is_near_nM, block_id, blocks - 1).amin(1)
    last_block = torch.where(is_near_nM, block_id, 0).amax(1)
    first = torch.where(scores_nMb[row, first_block] >= floor_n1, within, width - 1).amin(1)
    last = torch.where(scores_nMb[row, last_block] >= floor_n1, within, 0).amax(1)
    return first_block * width + first, last_block * width + last


def _settled(latents_NE: Tensor, codebook_KE: Tensor, first_N: Tensor, last_N: Tensor) -> Tensor:
    """(N,): the nearer of two candidates by float64 distance, the first where equal."""
    if torch.compiler.is_compiling():  # no data-dependent shapes in a graph: compare every row
        return torch.where(_is_nearer(latents_NE, codebook_KE, last_N, first_N), last_N, first_N)
    (open_rows,) = torch.nonzero(first_N != last_N, as_tuple=True)
    if len(open_rows) == 0:
        return first_N
    first, last = first_N[open_rows], last_N[open_rows]
    is_last = _is_nearer(latents_NE[open_rows], codebook_KE, last, first)
    return first_N.index_copy(0, open_rows, torch.where(is_last, last, first))


def _is_nearer(latents_nE: Tensor, codebook_KE: Tensor, ids_n: Tensor, others_n: Tensor) -> Tensor:
    """(n,) bool: |z - e_id|^2 < |z - e_other|^2 in float64."""
    latents = latents_nE.double()
    ours = (latents - codebook_KE[ids_n].double()).square().sum(1)
    theirs = (latents - codebook_KE[others_n].double()).square().sum(1)
    return ours < theirs
