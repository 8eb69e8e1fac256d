from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenreel.data.order import EpochOrder, chunks, num_chunks, share, uneven_count
from tokenreel.errors import InputError

GOLDEN_FEW = [0, 2, 1, 5, 4, 3]
GOLDEN_MANY = [62123, 63289, 23038, 80066, 78416]


@pytest.mark.parametrize("num_examples", [1, 2, 3, 17, 255, 256, 4095, 4096, 4097, 16384, 20000])
def test_an_epoch_is_a_permutation(num_examples):
    order = EpochOrder(num_examples, seed=3, epoch=1)
    indices = order.indices(np.arange(num_examples))
    assert np.array_equal(np.sort(indices), np.arange(num_examples))
    some = range(0, num_examples, max(1, num_examples // 7))
    assert [order[position] for position in some] == [int(indices[position]) for position in some]


def test_orders_never_change():
    """Golden: a run that is resumed with a later version must find its order again."""
    assert [EpochOrder(6, seed=0, epoch=0)[position] for position in range(6)] == GOLDEN_FEW
    many = EpochOrder(100_000, seed=7, epoch=3)
    assert [many[position] for position in (0, 1, 2, 50_000, 99_999)] == GOLDEN_MANY


def test_seed_and_epoch_change_the_order_and_shuffle_can_be_off():
    orders = {
        tuple(EpochOrder(5000, seed=seed, epoch=epoch).indices(np.arange(20)).tolist())
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25
    assert [EpochOrder(9, seed=0, epoch=0, shuffle=False)[position] for position in range(9)] == list(range(9))


@pytest.mark.parametrize("num_examples", [3, 4])
def test_small_orders_are_all_equally_likely(num_examples):
    runs = 6000
    found = Counter(
        tuple(EpochOrder(num_examples, seed=seed, epoch=0).indices(np.arange(num_examples)).tolist())
        for seed in range(runs)
    )
    expected = runs / math.factorial(num_examples)
    assert len(found) == math.factorial(num_examples)
    chi2 = sum((count - expected) ** 2 / expected for count in found.values())
    assert chi2 < 3 * len(found)  # far beyond the 99.99 % point for 5 and 23 degrees of freedom; a fixed outcome


def test_large_orders_look_random():
    """The place of one example over many seeds is uniform, and neighbours land far apart."""
    num_examples = 5000
    tenths = np.bincount(
        [int(EpochOrder(num_examples, seed=seed, epoch=0)[7]) * 10 // num_examples for seed in range(300)], minlength=10
    )
    assert tenths.min() > 10
    indices = EpochOrder(num_examples, seed=0, epoch=0).indices(np.arange(num_examples))
    assert abs(np.corrcoef(indices, np.arange(num_examples))[0, 1]) < 0.05
    assert abs(np.corrcoef(indices[1:], indices[:-1])[0, 1]) < 0.05


def test_a_billion_examples_need_no_table():
    order = EpochOrder(10**9, seed=0, epoch=0)
    assert len({order[position] for position in range(5000)} | {order[10**9 - 1]}) == 5001


@given(
    num_examples=st.integers(0, 60),
    world_size=st.integers(1, 9),
    even=st.sampled_from(["no", "drop", "pad"]),
    start_rounds=st.integers(0, 3),
)
def test_shares_cover_the_epoch(num_examples, world_size, even, start_rounds):
    start = start_rounds * world_size
    shares = [
        share(num_examples, rank=rank, world_size=world_size, even=even, start=start) for rank in range(world_size)
    ]
    taken = sorted(position for one in shares for position in one)
    uneven = uneven_count(num_examples, world_size=world_size, even=even) if start < num_examples else 0
    until = num_examples + {"no": 0, "drop": -uneven, "pad": uneven}[even]
    assert taken == list(range(start, max(start, until)))
    lengths = {len(one) for one in shares}
    assert len(lengths) == 1 if even != "no" else max(lengths) - min(lengths) <= 1


@given(
    length=st.integers(0, 40), size=st.integers(1, 7), workers=st.integers(1, 4), drop_last=st.booleans(),
    step=st.integers(1, 5),
)  # fmt: skip
def test_chunks_of_all_workers_are_the_chunks_of_one(length, size, workers, drop_last, step):
    positions = range(2, 2 + length * step, step)
    alone = list(chunks(positions, size, drop_last=drop_last))
    together = [
        part
        for worker in range(workers)
        for part in chunks(positions, size, worker=worker, num_workers=workers, drop_last=drop_last)
    ]
    assert sorted(together, key=lambda part: part[0]) == alone
    assert len(alone) == num_chunks(positions, size, drop_last=drop_last)
    flat = [position for _, part in alone for position in part]
    assert flat == list(positions[: len(positions) // size * size] if drop_last else positions)


def test_wrong_numbers_are_refused():
    with pytest.raises(InputError, match="rank must lie in"):
        share(5, rank=2, world_size=2)
    with pytest.raises(InputError, match="even must be one of no, drop, pad"):
        share(5, rank=0, world_size=2, even="yes")
    with pytest.raises(InputError, match="seed and epoch"):
        EpochOrder(5, seed=-1, epoch=0)
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        num_chunks(range(4), 0)
    with pytest.raises(IndexError, match="position 5 of an epoch of 5"):
        EpochOrder(5, seed=0, epoch=0)[5]
