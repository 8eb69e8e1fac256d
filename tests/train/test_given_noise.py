"""Given tokens that stray: only where they may, only to a neighbour of the same step, as often as asked."""

from __future__ import annotations

import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.train.given_noise import strayed
from tokenreel.train.masked import MaskingConfig
from tokenreel.types import Grid

torch.set_num_threads(1)

GRID = Grid(t=3, h=6, w=8)
IDS = torch.arange(144).repeat(200, 1)


def noisy(most: float, among: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return strayed(IDS, among, grid=GRID, most=most, generator=torch.Generator().manual_seed(seed))


def test_ids_come_from_beside_and_stay_in_their_step() -> None:
    among = torch.ones_like(IDS, dtype=torch.bool)
    found = noisy(1.0, among)
    step = (found // 48 == IDS // 48).all()
    row = (found // 8 % 6 - IDS // 8 % 6).abs()
    column = (found % 8 - IDS % 8).abs()
    assert bool(step)
    assert (int(row.max()), int(column.max())) == (1, 1)
    assert torch.equal(found, noisy(1.0, among))
    assert not torch.equal(found, noisy(1.0, among, seed=1))


def test_each_record_has_a_share_of_its_own() -> None:
    among = torch.ones_like(IDS, dtype=torch.bool)
    share = (noisy(0.4, among) != IDS).float().mean(1)
    inner = 8 / 9  # one step of nine goes nowhere, and at an edge some more do
    assert 0.15 < float(share.mean()) < 0.2 * inner + 0.01
    assert float(share.min()) < 0.05
    assert float(share.max()) > 0.28
    assert torch.equal(noisy(0.0, among), IDS)


def test_what_is_hidden_neither_strays_nor_is_strayed_from() -> None:
    among = (IDS % 8 < 4) & (IDS < 96)
    found = noisy(1.0, among)
    assert torch.equal(found[~among], IDS[~among])
    assert bool((found % 8 < 4)[among].all())
    assert bool((found != IDS)[among].any())


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"given_noise must lie in \[0, 1\], got 1\.5"):
        MaskingConfig(given_noise=1.5)
