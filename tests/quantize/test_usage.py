from __future__ import annotations

import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.quantize.usage import UsageMeter, batch_usage


def test_the_meter_counts_over_batches() -> None:
    torch.manual_seed(0)
    meter = UsageMeter(50)
    batches = [torch.randint(0, 40, (3, 7)) for _ in range(4)]
    for batch in batches:
        meter.update(batch)
    ids = torch.stack(batches).flatten()
    counts = torch.bincount(ids, minlength=50)
    share = counts[counts > 0].double() / len(ids)
    bits = float(-(share * share.log2()).sum())
    assert torch.equal(meter.counts_K, counts)
    usage = meter.usage()
    assert usage.num_ids == 84
    assert usage.used_share == len(ids.unique()) / 50
    assert usage.entropy_bits == pytest.approx(bits)
    assert usage.perplexity == pytest.approx(2**bits)
    assert batch_usage(ids, 50) == pytest.approx(usage)
    meter.reset()
    assert meter.usage().num_ids == 0


def test_padded_tokens_are_not_counted() -> None:
    ids = torch.tensor([[0, 1, 2], [3, 3, 3]])
    valid = torch.tensor([[True, True, False], [False, False, False]])
    meter = UsageMeter(4)
    meter.update(ids, valid)
    assert meter.counts_K.tolist() == [1, 1, 0, 0]
    assert batch_usage(ids, 4, valid) == meter.usage()


def test_even_use_has_the_perplexity_of_the_codebook() -> None:
    assert batch_usage(torch.arange(512), 512) == (1.0, pytest.approx(512), pytest.approx(9), 512)
    assert batch_usage(torch.zeros(9, dtype=torch.int64), 1 << 40).perplexity == 1


def test_the_counts_travel_with_the_state() -> None:
    meter, other = UsageMeter(4), UsageMeter(4)
    meter.update(torch.tensor([1, 1, 3], dtype=torch.uint8))
    other.load_state_dict(meter.state_dict())
    assert other.usage() == meter.usage()
    with pytest.raises(InputError, match="UsageMeter"):
        UsageMeter(1 << 30)
