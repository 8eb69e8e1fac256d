"""How much of a codebook is used: ``UsageMeter`` over many batches, ``batch_usage`` of one.

Letters: K codebook_size. Perplexity is 2 to the entropy in bits: K when all ids are equally frequent, 1 when one is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError

__all__ = ["Usage", "UsageMeter", "batch_usage"]

_LARGEST = 1 << 27  # counts of 1 GiB


class Usage(NamedTuple):
    """Use of a codebook: share of its ids seen, perplexity, entropy in bits, and the number of ids counted."""

    used_share: float
    perplexity: float
    entropy_bits: float
    num_ids: int


class UsageMeter(nn.Module):
    """Counts ids as they come; the counts are an int64 buffer, so they move, save and load with a model.

    >>> meter = UsageMeter(4)
    >>> meter.update(torch.tensor([0, 1, 0, 1]))
    >>> meter.usage()
    Usage(used_share=0.5, perplexity=2.0, entropy_bits=1.0, num_ids=4)
    """

    counts_K: Tensor

    def __init__(self, codebook_size: int) -> None:
        super().__init__()
        if not 1 <= codebook_size <= _LARGEST:
            raise InputError(f"UsageMeter counts codebooks of 1 to {_LARGEST} ids, got {codebook_size}")
        self.register_buffer("counts_K", torch.zeros(codebook_size, dtype=torch.int64))

    @torch.no_grad()
    def update(self, ids: Tensor, valid_mask: Tensor | None = None) -> None:
        """Count ids (...) where ``valid_mask`` (...) is True."""
        kept = ids.flatten() if valid_mask is None else ids[valid_mask]
        self.counts_K += torch.bincount(kept.long(), minlength=len(self.counts_K))

    def usage(self) -> Usage:
        """Over all ids since the last ``reset``."""
        return _usage(self.counts_K[self.counts_K > 0], len(self.counts_K))

    def reset(self) -> None:
        """Forget all counts."""
        self.counts_K.zero_()


@torch.no_grad()
def batch_usage(ids: Tensor, codebook_size: int, valid_mask: Tensor | None = None) -> Usage:
    """Usage of one batch of ids (...), without a table of K counts; a batch of n ids has perplexity of at most n."""
    kept = ids.flatten() if valid_mask is None else ids[valid_mask]
    return _usage(torch.unique(kept, return_counts=True)[1], codebook_size)


def _usage(counts: Tensor, codebook_size: int) -> Usage:
    """Of the counts of the ids seen, all above 0."""
    total = int(counts.sum())
    share = counts.double() / max(total, 1)
    bits = float(torch.special.entr(share).sum()) / float(torch.log(torch.tensor(2.0, dtype=torch.float64)))
    return Usage(len(counts) / codebook_size, 2.0**bits, bits, total)
