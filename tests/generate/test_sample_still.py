from __future__ import annotations

import pytest
import torch
from sampled import Toy

from tokenreel.errors import InputError
from tokenreel.generate.prime import prime
from tokenreel.generate.sample import SampleStep, sample
from tokenreel.generate.sample_still import sample_from_still
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.types import Grid

torch.set_num_threads(1)

GRID = Grid(t=3, h=2, w=4)


def toy() -> Toy:
    return Toy(Vocabulary(codebook_size=20, levels=(20,))).eval()


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_first_step_is_that_of_a_picture_and_the_rest_goes_on_from_it() -> None:
    model, seen = toy(), list[SampleStep]()
    told = model.condition(["a", "bc"])
    options = {"condition": told, "steps": 4, "guidance_scale": 2.0}
    found = sample_from_still(model, grid=GRID, still_steps=3, generator=source(), callback=seen.append, **options)
    still = sample(model, grid=Grid(t=1, h=2, w=4), generator=source(), **{**options, "steps": 3})
    assert torch.equal(found[:, :8], still)
    assert found.shape == (2, 24)
    assert bool(((found >= 0) & (found < 20)).all())
    assert [step.steps for step in seen] == [4] * 4  # of the whole; the picture is no step of it
    assert not any(bool(step.is_masked_BL[:, :8].any()) for step in seen)
    again = sample_from_still(model, grid=GRID, still_steps=3, generator=source(), **options)
    assert torch.equal(found, again)


def test_without_still_steps_it_is_sample() -> None:
    model = toy()
    for grid, steps in ((GRID, 0), (Grid(t=1, h=2, w=4), 5)):
        ours = sample_from_still(model, grid=grid, still_steps=steps, condition=None, steps=3, generator=source())
        assert torch.equal(ours, sample(model, grid=grid, condition=None, steps=3, generator=source()))
    with pytest.raises(InputError, match="still_steps must be a whole number of at least 0, got -1"):
        sample_from_still(model, grid=GRID, still_steps=-1, condition=None, generator=source())


def test_the_picture_comes_from_coarser_ones() -> None:
    model = toy()
    told = model.condition(["a", "bc"])
    options = {"condition": told, "steps": 4, "guidance_scale": 2.0}
    draws, found = source(), torch.empty(2, 0, dtype=torch.int64)
    for level in (1, 2, 3):
        levels = Grid(t=level, h=2, w=4)
        known = {} if level == 1 else prime(found, grid=levels)._asdict()
        known = {"known_ids": known["ids_BL"], "is_masked": known["is_masked_BL"]} if known else {}
        found = sample(model, grid=levels, generator=draws, **{**options, **known, "steps": 5})
    ours = sample_from_still(
        model, grid=Grid(t=1, h=2, w=4), still_steps=5, coarse_levels=2, generator=source(), **options
    )
    assert torch.equal(ours, found[:, 16:])
    whole = sample_from_still(model, grid=GRID, still_steps=5, coarse_levels=2, generator=source(), **options)
    assert torch.equal(whole[:, :8], ours)
    assert whole.shape == (2, 24)
    for options, message in (
        ({"still_steps": 3, "coarse_levels": -1}, "coarse_levels must be a whole number of at least 0, got -1"),
        ({"still_steps": 0, "coarse_levels": 1}, "coarse_levels is 1, but still_steps 0"),
    ):
        with pytest.raises(InputError, match=message):
            sample_from_still(model, grid=GRID, condition=None, generator=source(), **options)


def test_each_frame_is_drawn_from_those_before_it() -> None:
    model, draws = toy(), source()
    options = {"condition": model.condition(["a", "bc"]), "guidance_scale": 2.0}
    found = sample(model, grid=Grid(t=1, h=2, w=4), generator=draws, steps=5, **options)
    for number in (2, 3):
        so_far = Grid(t=number, h=2, w=4)
        known = prime(found, grid=so_far)
        found = sample(
            model,
            grid=so_far,
            generator=draws,
            steps=3,
            known_ids=known.ids_BL,
            is_masked=known.is_masked_BL,
            **options,
        )
    seen: list[SampleStep] = []
    ours = sample_from_still(
        model,
        grid=GRID,
        still_steps=5,
        frame_steps=3,
        steps=9,
        generator=source(),
        callback=seen.append,
        **options,
    )
    assert torch.equal(ours, found)
    assert [(step.step, step.steps) for step in seen] == [(number, 6) for number in range(6)]
    assert all(step.ids_BL.shape == step.is_masked_BL.shape == (2, 24) for step in seen)
    assert bool(seen[2].is_masked_BL[:, 16:].all())  # the last frame is open
    assert bool((seen[2].ids_BL[:, 16:] == model.vocab.mask_id).all())
    assert not bool(seen[2].is_masked_BL[:, :16].any())
    assert torch.equal(seen[-1].ids_BL, ours)
    first = sample_from_still(model, grid=GRID, still_steps=0, frame_steps=5, generator=source(), **options)
    assert torch.equal(first[:, :8], ours[:, :8])  # without passes of its own the first frame takes those of a frame


def test_frames_go_on_from_known_ones_and_holes_are_filled_at_once() -> None:
    model = toy()
    options = {"condition": model.condition(["a", "bc"]), "steps": 4}
    start = torch.arange(16).repeat(2, 1)
    known = prime(start, grid=GRID)
    told = {"known_ids": known.ids_BL, "is_masked": known.is_masked_BL, **options}
    found = sample_from_still(
        model, grid=GRID, still_steps=7, coarse_levels=2, frame_steps=3, generator=source(), **told
    )
    last = sample(model, grid=GRID, generator=source(), **{**told, "steps": 3})
    assert torch.equal(found, last)  # one frame was left: no picture, three passes
    at_once = sample_from_still(model, grid=GRID, still_steps=7, generator=source(), **told)
    assert torch.equal(at_once, sample(model, grid=GRID, generator=source(), **told))
    holes = known.is_masked_BL.clone()
    holes[:, 3] = True
    told = {"known_ids": known.ids_BL, "is_masked": holes, **options}
    filled = sample_from_still(model, grid=GRID, still_steps=7, frame_steps=3, generator=source(), **told)
    assert torch.equal(filled, sample(model, grid=GRID, generator=source(), **told))
    uneven = known.is_masked_BL.clone()
    uneven[1, :8] = True
    uneven[1, 16:] = False  # as many are known, elsewhere
    told = {"known_ids": known.ids_BL, "is_masked": uneven, **options}
    filled = sample_from_still(model, grid=GRID, still_steps=7, frame_steps=3, generator=source(), **told)
    assert torch.equal(filled, sample(model, grid=GRID, generator=source(), **told))
    with pytest.raises(InputError, match="known_ids and is_masked go together"):
        sample_from_still(model, grid=GRID, still_steps=1, generator=source(), known_ids=known.ids_BL, **options)
    with pytest.raises(InputError, match=r"frame_steps must be a whole number of at least 0, got 1\.5"):
        sample_from_still(model, grid=GRID, still_steps=1, frame_steps=1.5, generator=source(), **options)
