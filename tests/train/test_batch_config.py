from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.train.batch_config import TITOK_VIDEO, BatchConfig, Shape, shapes

STACKED = {"shape": "stacked", "batch_size": 4, "num_frames": 5, "size": 16}
PACKED = {"shape": "packed", "budget": 4096, "num_frames": (1, 8), "size": (16, 32)}


def drawn(config: BatchConfig, count: int, *, is_single: bool = False, seed: int = 0, rank: int = 0):
    """``count`` batches one after the other; each begins where the one before ended."""
    first, batches = rank, []
    for index in range(count):
        places = ((number, is_single) for number in itertools.count(first))
        batches.append(shapes(config, seed=seed, rank=rank, index=index, places=places))
        first += len(batches[-1])
    return batches


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": "ragged"}, "shape must be 'stacked' or 'packed'"),
        ({"batch_size": None}, "stacked batches need batch_size and take no budget"),
        ({"budget": 100}, "stacked batches need batch_size and take no budget"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"num_frames": (5, 4)}, r"num_frames must be one of the whole numbers above 0, or a pair"),
        ({"num_frames": 2.5}, "num_frames must be one of the whole numbers"),
        ({"size": 0}, "size must be one of"),
        ({"aspect": "wide"}, "aspect must be one of the numbers above 0"),
        ({"aspect": math.nan}, "aspect must be one of the numbers above 0"),
        ({"patch_size": (2, 16, 16)}, r"num_frames=\(5, 5\) holds no value that is a multiple of 2"),
        ({"patch_size": (3, 16, 16), "is_causal": True}, r"no value that is 1 \+ a multiple of 3"),
        ({"patch_size": (1, 5, 5)}, "size=16 is no multiple of the patch of 5x5"),
        ({"stride": (1, 2), "fps": 5}, "choose stride or fps, not both"),
        ({"crop_scale": (0.5, 1.5)}, r"crop_scale must lie in \(0, 1\]"),
        ({"flip": 2}, r"flip must lie in \[0, 1\], got 2"),
        ({"token_counts": (0, 5)}, "token_counts must be"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        BatchConfig(**{**STACKED, **changes})


def test_a_budget_must_have_room_for_the_largest_clip():
    with pytest.raises(InputError, match=r"budget=4096 has no room for the largest clip, which takes 8192 tokens"):
        BatchConfig(**PACKED)
    BatchConfig(**{**PACKED, "budget": 8192})


def test_the_cost_counts_patches_and_queries():
    config = BatchConfig(**{**STACKED, "patch_size": (4, 8, 8), "is_causal": True, "size": 32})
    assert config.cost(Shape(5, 32, 24, None)) == (1 + 1) * 4 * 3
    assert config.cost(Shape(1, 32, 24, 7)) == 4 * 3 + 7
    plain = BatchConfig(**{**STACKED, "patch_size": (4, 8, 8), "num_frames": 8, "size": 32})
    assert plain.cost(Shape(8, 32, 32, 3)) == 2 * 16 + 3
    assert plain.cost(Shape(1, 32, 32, None)) == 16


def test_a_stacked_batch_has_one_size_drawn_for_each_batch():
    config = BatchConfig(
        **{**STACKED, "num_frames": (1, 17), "size": (32, 64), "aspect": (0.5, 2), "patch_size": (4, 8, 8)},
        is_causal=True, token_counts=(4, 64),
    )  # fmt: skip
    batches = drawn(config, 200)
    for batch in batches:
        assert len({(one.num_frames, one.height, one.width) for one in batch}) == 1
        assert len(batch) == 4
    assert {batch[0].num_frames for batch in batches} == {1, 5, 9, 13, 17}
    sizes = np.array([(batch[0].height, batch[0].width) for batch in batches])
    assert (sizes % 8 == 0).all()
    sides = np.sqrt(sizes.prod(1))
    assert (sides > 27).all()
    assert (sides < 69).all()
    assert len({one.token_count for batch in batches for one in batch}) > 40


def test_token_counts_are_even_in_their_logarithm():
    config = BatchConfig(**{**STACKED, "batch_size": 400}, token_counts=(128, 1024))
    logs = np.log2([one.token_count for batch in drawn(config, 10) for one in batch]) - 7
    assert (logs.min(), logs.max()) >= (0, 2.9)
    assert logs.max() <= 3
    histogram, _ = np.histogram(logs, bins=6, range=(0, 3))
    assert histogram.min() > 0.8 * len(logs) / 6
    assert histogram.max() < 1.2 * len(logs) / 6


def test_a_packed_batch_fills_its_budget_and_never_passes_it():
    config = BatchConfig(**TITOK_VIDEO, budget=16384)
    batches = drawn(config, 100)
    costs = np.array([sum(config.cost(one) for one in batch) for batch in batches])
    assert costs.max() <= 16384
    assert costs.mean() > 0.9 * 16384
    assert all(
        sum(map(config.cost, batch)) + config.cost(after[0]) > 16384 for batch, after in itertools.pairwise(batches)
    )
    clips = [one for batch in batches for one in batch]
    assert {one.num_frames for one in clips} == {8, 12, 16, 20}
    areas = np.array([one.height * one.width for one in clips])
    assert (areas > 136**2).all()
    assert (areas < 200**2).all()
    assert min(one.token_count for one in clips) < 150
    assert max(one.token_count for one in clips) > 900


def test_single_frames():
    config = BatchConfig(**{**PACKED, "budget": 8192, "num_frames": 8}, one_frame_share=0.25)
    clips = [one for batch in drawn(config, 300) for one in batch]
    assert np.mean([one.num_frames == 1 for one in clips]) == pytest.approx(0.25, abs=0.05)
    assert {one.num_frames for batch in drawn(config, 5, is_single=True) for one in batch} == {1}
    stacked = BatchConfig(**STACKED, one_frame_share=0.25)
    assert 0.15 < np.mean([batch[0].num_frames == 1 for batch in drawn(stacked, 300)]) < 0.35


def test_the_shapes_depend_on_seed_rank_and_number_alone():
    config = BatchConfig(**TITOK_VIDEO, budget=16384)
    assert drawn(config, 5) == drawn(config, 5)
    assert drawn(config, 5)[3] != drawn(config, 5)[4]
    assert drawn(config, 1, seed=1) != drawn(config, 1) != drawn(config, 1, rank=1)


def test_lists_of_a_recipe_become_pairs_and_json_again():
    config = BatchConfig(**{**STACKED, "num_frames": [5, 9], "patch_size": [4, 8, 8]}, is_causal=True)
    assert config.num_frames == (5, 9)
    assert BatchConfig(**config.as_json()) == config
    assert config.middle() == Shape(9, 16, 16, None)
