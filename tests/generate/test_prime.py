"""Priming: frames and seconds as steps, and the ids that stay."""

from __future__ import annotations

import pytest
import torch
from sampled import Toy

from tokenreel.errors import InputError, MismatchError
from tokenreel.generate.prime import Timing, ids_of, prime, prime_frames
from tokenreel.generate.sample import sample
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.quantize import FSQConfig
from tokenreel.tokenizers import CViViT, load
from tokenreel.tokenizers.cvivit import CViViTConfig, FactorisedConfig
from tokenreel.types import Grid

torch.set_num_threads(1)

HALF = FactorisedConfig(dim=32, spatial_depth=1, temporal_depth=1, num_heads=2, head_dim=16, mlp_dim=32)
TINY = CViViTConfig(
    patch_size=(2, 8, 8), encoder=HALF, decoder=HALF, quantizer=FSQConfig(levels=(5, 4, 3)), temporal_window=4
)
CAUSAL = Timing(first_frames=1, step_frames=2)


def clip(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(
    "timing", [CAUSAL, Timing(first_frames=4, step_frames=4), Timing(first_frames=1, step_frames=1)], ids=str
)
def test_steps_and_frames_undo_each_other(timing: Timing) -> None:
    for steps in range(1, 8):
        assert timing.steps(timing.frames(steps)) == steps
        assert timing.whole(timing.frames(steps)) == timing.frames(steps)
        assert timing.frames(steps + 1) - timing.frames(steps) == timing.step_frames
    for frames in range(1, 20):
        assert timing.frames(timing.steps(frames) - 1) < frames <= timing.frames(timing.steps(frames))
        assert timing.step_of(frames - 1) == timing.steps(frames) - 1
        whole = timing.whole(frames)
        assert whole == max((timing.frames(k) for k in range(25) if timing.frames(k) <= frames), default=0)


@pytest.mark.parametrize(("name", "expected"), [("cvivit", (1, 2)), ("raw:3,4,4", (3, 3)), ("raw:1,4,4", (1, 1))])
def test_timing_of_tokenizers(name: str, expected: tuple[int, int]) -> None:
    tokenizer = CViViT.untrained(TINY) if name == "cvivit" else load(name)
    timing = Timing.of(tokenizer)
    assert (timing.first_frames, timing.step_frames) == expected
    for frames in (1, 2, 5, 7):
        assert tokenizer.encode([clip(frames, 8, 8)])[0].grid.t == timing.steps(frames)


def test_timing_of_a_tokenizer_of_segments() -> None:
    from tokenreel.tokenizers import TiTokVideo

    tokenizer = TiTokVideo.untrained("tiny")
    assert tokenizer.segment_steps > 1
    timing = Timing.of(tokenizer)
    assert timing.first_frames == timing.step_frames == tokenizer.config.max_frames


@pytest.mark.parametrize(
    ("seconds", "fps", "expected"), [(1, 8, 9), (1, 7, 7), (0.01, 8, 1), (2, 8, 17), (0.25, 8, 3), (0.375, 8, 3)]
)
def test_seconds_become_whole_steps(seconds: float, fps: float, expected: int) -> None:
    found = CAUSAL.frames_in(seconds, fps)
    assert CAUSAL.whole(found) == found
    assert abs(found - seconds * fps) <= 1
    assert found in (expected, expected - 2)


def test_seconds_take_the_nearest() -> None:
    timing = Timing(first_frames=1, step_frames=4)
    assert [timing.frames_in(frames / 10, 10) for frames in (1, 2, 4, 5, 6, 8)] == [1, 1, 5, 5, 5, 9]


def test_frames_that_fill_no_whole_step() -> None:
    with pytest.raises(InputError, match=r"seconds_carried must fill whole steps .* got 4; take 3 or 5"):
        CAUSAL.check_whole(4, "seconds_carried")
    with pytest.raises(InputError, match="got 2; take 4"):
        Timing(first_frames=4, step_frames=4).check_whole(2, "x")
    with pytest.raises(InputError, match="at least 1"):
        CAUSAL.steps(0)
    with pytest.raises(InputError, match="first_frames must lie"):
        Timing(first_frames=3, step_frames=2)
    with pytest.raises(InputError, match="above 0"):
        CAUSAL.frames_in(0, 8)


def test_prime_lays_ids_first() -> None:
    grid = Grid(t=3, h=1, w=2)
    known = prime(torch.tensor([[7, 8], [5, 6]]), grid=grid)
    assert known.ids_BL.tolist() == [[7, 8, 0, 0, 0, 0], [5, 6, 0, 0, 0, 0]]
    assert known.is_masked_BL.tolist() == [[False] * 2 + [True] * 4] * 2
    for wrong, words in ((torch.zeros(1, 3).long(), "whole steps"), (torch.zeros(1, 6).long(), "leave none")):
        with pytest.raises(InputError, match=words):
            prime(wrong, grid=grid)


@pytest.mark.parametrize("frames", [1, 5])
def test_primed_ids_are_those_of_the_clip_and_stay(frames: int) -> None:
    """One frame is image to video: its ids are the image's, whatever follows."""
    tokenizer, grid = CViViT.untrained(TINY), Grid(t=5, h=2, w=3)
    start, steps = clip(frames, 16, 24), CAUSAL.steps(frames)
    known = prime_frames(tokenizer, [start], grid=grid)
    model = Toy(Vocabulary.of(tokenizer))
    ids = sample(
        model,
        grid=grid,
        condition=None,
        known_ids=known.ids_BL,
        is_masked=known.is_masked_BL,
        generator=torch.Generator().manual_seed(0),
    )
    expected = ids_of(tokenizer.encode([start]))
    assert torch.equal(ids[:, : steps * 6], expected)
    longer = torch.cat([start, clip(4, 16, 24, seed=1)], dim=1)
    assert torch.equal(ids_of(tokenizer.encode([longer]))[:, : steps * 6], expected)


def test_frames_that_do_not_fit_the_grid() -> None:
    tokenizer = CViViT.untrained(TINY)
    with pytest.raises(InputError, match="the number of primed frames must fill whole steps"):
        prime_frames(tokenizer, [clip(2, 16, 24)], grid=Grid(t=5, h=2, w=3))
    with pytest.raises(MismatchError, match="resize the frames"):
        prime_frames(tokenizer, [clip(1, 16, 16)], grid=Grid(t=5, h=2, w=3))
    with pytest.raises(MismatchError, match="resize the frames"):
        prime_frames(tokenizer, [clip(1, 24, 16)], grid=Grid(t=5, h=2, w=3))
    with pytest.raises(InputError, match="equally many ids"):
        ids_of(tokenizer.encode([clip(1, 16, 24), clip(3, 16, 24)]))
