"""Variable-length packing: sequences of different lengths end to end, with no padding.

Letters: B sequences, L tokens in one, N tokens in all, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.types import Grid

__all__ = ["Packed", "pack", "unpack"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """Sequences end to end.

    Attributes:
        values_ND: (N, D), or (N, ...): sequence i is rows ``bounds[i]`` to ``bounds[i + 1]``.
        cu_seqlens: int32 (B + 1,), ``[0, l_0, l_0 + l_1, ..., N]``, on the values' device.
        grids: what grid of patches each sequence covers, where it covers one; else empty.
        bounds: ``cu_seqlens`` as plain ints, so that reading a length never waits for a device.
    """

    values_ND: Tensor
    cu_seqlens: Tensor
    grids: tuple[Grid, ...] = ()
    bounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        cu = self.cu_seqlens
        if cu.dtype != torch.int32 or cu.ndim != 1 or cu.numel() < 1:
            raise InputError(f"Packed.cu_seqlens must be int32 of shape (B + 1,), got {cu.dtype} {tuple(cu.shape)}")
        if not self.bounds:
            object.__setattr__(self, "bounds", tuple(cu.tolist()))
        if len(self.bounds) != cu.numel():
            raise InputError(f"Packed.bounds has {len(self.bounds)} entries, cu_seqlens {cu.numel()}")
        rows = self.values_ND.shape[0] if self.values_ND.ndim else -1
        if self.bounds[0] != 0 or self.bounds[-1] != rows or any(a > b for a, b in pairwise(self.bounds)):
            raise InputError(f"Packed.cu_seqlens must rise from 0 to {rows} rows, got {list(self.bounds)}")
        if self.grids and len(self.grids) != self.num_sequences:
            raise InputError(f"Packed.grids has {len(self.grids)} grids for {self.num_sequences} sequences")

    @property
    def num_sequences(self) -> int:
        """B."""
        return len(self.bounds) - 1

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens in each sequence."""
        return tuple(stop - start for start, stop in pairwise(self.bounds))

    @property
    def max_seqlen(self) -> int:
        """Tokens in the longest sequence; 0 where there is none."""
        return max(self.lengths, default=0)

    @property
    def segment_ids(self) -> Tensor:
        """int32 (N,): the sequence each row belongs to."""
        index_B = torch.arange(self.num_sequences, dtype=torch.int32, device=self.cu_seqlens.device)
        return index_B.repeat_interleave(self.cu_seqlens.diff(), output_size=self.bounds[-1])

    def with_values(self, values_ND: Tensor) -> Packed:
        """The same sequences with other values, as many rows."""
        return replace(self, values_ND=values_ND)

    def __len__(self) -> int:
        return self.num_sequences

    def __repr__(self) -> str:
        return f"Packed({self.num_sequences} sequences of {list(self.lengths)}, values {tuple(self.values_ND.shape)})"


def pack(sequences: Sequence[Tensor], *, grids: Sequence[Grid] = ()) -> Packed:
    """(L_i, D) each -> (N, D) end to end.

    >>> pack([torch.zeros(2, 4), torch.zeros(3, 4)]).bounds
    (0, 2, 5)
    """
    if not sequences:
        raise InputError("pack needs at least one sequence, got none")
    first = sequences[0]
    for index, values in enumerate(sequences):
        if values.ndim < 1 or values.shape[1:] != first.shape[1:]:
            raise InputError(
                f"packed sequences must agree but for their lengths; the first has shape {tuple(first.shape)}, "
                f"number {index} has {tuple(values.shape)}"
            )
    bounds = tuple(accumulate((len(values) for values in sequences), initial=0))
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32, device=first.device)
    return Packed(values_ND=torch.cat(list(sequences)), cu_seqlens=cu_seqlens, grids=tuple(grids), bounds=bounds)


def unpack(packed: Packed) -> list[Tensor]:
    """(N, D) -> (L_i, D) each, in order: views of the packed rows."""
    return list(torch.split(packed.values_ND, list(packed.lengths)))
