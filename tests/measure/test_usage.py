from __future__ import annotations

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.measure.usage import IdCounts


def test_counts_are_exact_and_add_up(rng: np.random.Generator) -> None:
    ids = rng.integers(0, 1 << 18, 5000).astype(np.uint32)
    whole, parts = IdCounts(1 << 18), IdCounts(1 << 18)
    whole.add(ids)
    for part in np.array_split(ids, 7):
        parts.add(part)
    np.testing.assert_array_equal(whole.counts_K, parts.counts_K)
    assert whole.counts_K.dtype == np.int64
    assert whole.num_ids == 5000
    assert whole.usage == len(set(ids.tolist())) / (1 << 18)


def test_entropy_and_perplexity_of_known_frequencies() -> None:
    even = IdCounts(64)
    even.add(np.tile(np.arange(64, dtype=np.uint8), 5))
    assert (even.usage, even.entropy_bits, even.perplexity) == (1, pytest.approx(6), pytest.approx(64))
    one = IdCounts(64)
    one.add(np.full(9, 7, np.uint8))
    assert (one.usage, one.entropy_bits, one.perplexity) == (1 / 64, 0, 1)
    skewed = IdCounts(4)
    skewed.add(np.repeat([0, 1, 2, 3], [4, 2, 1, 1]))
    assert skewed.entropy_bits == pytest.approx(1.75, abs=1e-12)
    assert (IdCounts(4).entropy_bits, IdCounts(4).usage) == (0, 0)


def test_ids_outside_are_refused() -> None:
    counts = IdCounts(4)
    counts.add(np.empty(0, np.uint8))
    with pytest.raises(InputError, match=r"in \[0, 4\), found 4"):
        counts.add(np.array([4]))
    with pytest.raises(InputError, match="codebooks of 1 to"):
        IdCounts(0)
