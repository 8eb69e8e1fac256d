from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenreel.errors import InputError
from tokenreel.patches.pack import Packed, pack, unpack
from tokenreel.types import Grid


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_unpacking_gives_back_what_was_packed(lengths: list[int]) -> None:
    sequences = [torch.randn(length, 3) for length in lengths]
    packed = pack(sequences)
    assert all(torch.equal(a, b) for a, b in zip(unpack(packed), sequences, strict=True))
    assert packed.lengths == tuple(lengths)
    assert packed.max_seqlen == max(lengths)
    assert packed.cu_seqlens.dtype == torch.int32
    assert packed.cu_seqlens.tolist() == list(packed.bounds)
    assert packed.segment_ids.dtype == torch.int32
    assert packed.segment_ids.tolist() == [i for i, length in enumerate(lengths) for _ in range(length)]
    assert len(packed) == len(lengths)


def test_a_pack_keeps_grids_trailing_dims_gradients_and_dtype() -> None:
    grids = (Grid(t=1, h=2, w=2), Grid(t=2, h=1, w=1))
    sequences = [torch.randn(g.num_cells, 3, 2, dtype=torch.float64, requires_grad=True) for g in grids]
    packed = pack(sequences, grids=grids)
    assert packed.values_ND.shape == (6, 3, 2)
    assert packed.grids == grids
    assert repr(packed) == "Packed(2 sequences of [4, 2], values (6, 3, 2))"
    doubled = packed.with_values(packed.values_ND * 2)
    unpack(doubled)[1].sum().backward()
    assert sequences[1].grad is not None
    assert doubled.grids == grids
    assert torch.equal(sequences[1].grad, torch.full((2, 3, 2), 2.0, dtype=torch.float64))


def test_what_does_not_fit_says_both_numbers() -> None:
    with pytest.raises(InputError, match="at least one"):
        pack([])
    with pytest.raises(InputError, match=r"\(2, 3\), number 1 has \(2, 4\)"):
        pack([torch.zeros(2, 3), torch.zeros(2, 4)])
    with pytest.raises(InputError, match="1 grids for 2 sequences"):
        pack([torch.zeros(1, 3)] * 2, grids=[Grid(t=1, h=1, w=1)])
    values = torch.zeros(4, 3)
    with pytest.raises(InputError, match=r"int32 of shape \(B \+ 1,\), got torch.int64"):
        Packed(values_ND=values, cu_seqlens=torch.tensor([0, 4]))
    for wrong in ([0, 3], [1, 4], [0, 5, 4]):
        with pytest.raises(InputError, match="from 0 to 4 rows"):
            Packed(values_ND=values, cu_seqlens=torch.tensor(wrong, dtype=torch.int32))
    cu = torch.tensor([0, 4], dtype=torch.int32)
    assert Packed(values_ND=values, cu_seqlens=cu).bounds == (0, 4)
    with pytest.raises(InputError, match="3 entries, cu_seqlens 2"):
        Packed(values_ND=values, cu_seqlens=cu, bounds=(0, 2, 4))
