"""What byte-pair merges save on a tokenizer's ids: learned on every other clip, counted on the clips between.

Merges that are counted on the ids they were learned from flatter themselves; these are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.tokens.bpe import train

__all__ = ["MergeSaving", "merge_saving"]

MOST_MERGES = 4096
MOST_IDS = 1 << 22  # on each side; later clips are left out, which bounds time
_LARGEST_CODEBOOK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSaving:
    """Bits of held-out ids with merges and without, each id at a fixed length.

    Attributes:
        num_merges: learned on the first half (it ends where no pair stands twice).
        num_clips: whose ids were counted.
        num_ids, num_merged: of those clips, before and after.
        bits_before: num_ids * log2(K). bits_after: num_merged * log2(K + num_merges).
    """

    num_merges: int
    num_clips: int
    num_ids: int
    num_merged: int
    bits_before: float
    bits_after: float

    @property
    def saved(self) -> float:
        """Share of the bits saved; negative where merges cost bits."""
        return 1 - self.bits_after / self.bits_before

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "learned_on": "every other clip, beginning with the first",
            "counted_on_clips": self.num_clips,
            "merges": self.num_merges,
            "ids": self.num_ids,
            "merged_ids": self.num_merged,
            "bits_before": round(self.bits_before),
            "bits_after": round(self.bits_after),
            "saved": round(self.saved, 6),
        }


def merge_saving(
    sequences: Sequence[npt.NDArray[Any]], *, codebook_size: int, num_merges: int = MOST_MERGES
) -> MergeSaving | None:
    """Learn merges on sequences 0, 2, 4, ... and count bits on 1, 3, 5, ...

    Pairs stop at the end of a sequence. None where there are fewer than two sequences, one id in the codebook, or more
    ids in it than merges can be learned over.
    """
    if len(sequences) < 2 or not 1 < codebook_size <= _LARGEST_CODEBOOK:
        return None
    learned, counted = _some(sequences[0::2]), _some(sequences[1::2])
    num_ids = sum(part.size for part in counted)
    if not num_ids or not any(part.size for part in learned):
        return None
    merges = train(learned, vocab_size=codebook_size + num_merges, base_size=codebook_size)
    num_merged = sum(int(part.size) for part in merges.encode_many(counted)) if merges.num_merges else num_ids
    return MergeSaving(
        num_merges=merges.num_merges,
        num_clips=len(counted),
        num_ids=num_ids,
        num_merged=num_merged,
        bits_before=num_ids * math.log2(codebook_size),
        bits_after=num_merged * math.log2(codebook_size + merges.num_merges),
    )


def _some(sequences: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """From the first on, up to ``MOST_IDS`` ids; the last one is cut."""
    taken, room = [], MOST_IDS
    for sequence in sequences:
        if room <= 0:
            break
        taken.append(np.ascontiguousarray(sequence.reshape(-1)[:room]))
        room -= taken[-1].size
    return taken
