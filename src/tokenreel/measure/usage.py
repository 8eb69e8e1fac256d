"""How much of a codebook a set of tokens uses: exact counts of ids, perplexity, entropy.

Letters: K codebook_size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = ["IdCounts"]

_LARGEST = 1 << 27  # counts of 1 GiB


class IdCounts:
    """Counts of ids, int64 (K,).

    >>> counts = IdCounts(4)
    >>> counts.add(np.array([0, 1, 0, 1]))
    >>> counts.usage, counts.perplexity, counts.entropy_bits
    (0.5, 2.0, 1.0)
    """

    def __init__(self, codebook_size: int) -> None:
        if not 1 <= codebook_size <= _LARGEST:
            raise InputError(f"IdCounts takes codebooks of 1 to {_LARGEST:,} ids, got {codebook_size}")
        self.counts_K = np.zeros(codebook_size, np.int64)

    def add(self, ids_L: npt.NDArray[Any]) -> None:
        """Count these ids; each must lie in [0, K)."""
        if ids_L.size == 0:
            return
        if int(ids_L.max()) >= len(self.counts_K) or int(ids_L.min()) < 0:
            raise InputError(f"ids must lie in [0, {len(self.counts_K)}), found {int(ids_L.max())}")
        self.counts_K += np.bincount(ids_L.reshape(-1), minlength=len(self.counts_K))

    @property
    def num_ids(self) -> int:
        """Ids counted."""
        return int(self.counts_K.sum())

    @property
    def usage(self) -> float:
        """Share of the codebook's ids that were seen at least once."""
        return int(np.count_nonzero(self.counts_K)) / len(self.counts_K)

    @property
    def entropy_bits(self) -> float:
        """Order-0 entropy of the ids in bits: what an ideal code of single ids would take for each."""
        counts = self.counts_K[self.counts_K > 0].astype(np.float64)
        if not counts.size:
            return 0.0
        total = counts.sum()
        return max(0.0, float(np.log2(total) - (counts * np.log2(counts)).sum() / total))

    @property
    def perplexity(self) -> float:
        """2 to the entropy: K when all ids are equally frequent, 1 when one is."""
        return float(2.0**self.entropy_bits)
