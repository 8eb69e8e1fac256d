"""Transforms that a patch chooses from: the choice, the digit that says it, fits, whole tokenizers, errors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.quantize import FSQ, FSQConfig, LFQConfig, Quantizer, VQConfig, build_quantizer
from tokenreel.tokenizers.cvivit import CViViT, CViViTConfig, FactorisedConfig
from tokenreel.tokenizers.cvivit_transforms import PatchTransforms, Transforms

torch.set_num_threads(1)

HALF = FactorisedConfig(dim=32, spatial_depth=1, temporal_depth=1, num_heads=2, head_dim=16, mlp_dim=64)
TINY = CViViTConfig(
    patch_size=(2, 4, 4),
    encoder=HALF,
    decoder=HALF,
    quantizer=FSQConfig(levels=(6, 7, 5)),
    temporal_window=3,
    num_transforms=6,
    transform_width=12,
)
VALUES = 24
FINE = FSQ(FSQConfig(levels=(3, 9, 9)))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def four_kinds(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(N,) which of four planes through a point of its own, (N, 24) patches in them."""
    kind_N = torch.arange(count) % 4
    bases = torch.linalg.qr(drawn(4, VALUES, 2, seed=7))[0]
    points = drawn(4, VALUES, seed=8) * 2
    along_N2 = drawn(count, 2, seed=seed) * torch.tensor([3.0, 2.0])
    return kind_N, (bases[kind_N] @ along_N2[:, :, None])[..., 0] + points[kind_N]


def fitted(count: int, *, seed: int = 0) -> tuple[Transforms, float]:
    made = Transforms(patch_values=VALUES, num_transforms=count, num_coordinates=2, reduced=16)
    error = made.fit(four_kinds(2000)[1], FINE, iterations=4, generator=torch.Generator().manual_seed(seed))
    return made, error


@torch.no_grad()
def test_the_choice_is_the_best_of_all_that_are_drawn() -> None:
    made, _ = fitted(5)
    for parameter in (made.inward_MJR, made.offset_MJ, made.outward_MFR):  # no longer where fitting left them
        parameter.add_(drawn(*parameter.shape, seed=3) / 10)
    patches = four_kinds(300, seed=1)[1]
    index_N, coordinates_NJ = made.chosen(patches, FINE)
    reduced = made.reduce(patches)
    errors, tried = [], []
    for k in range(5):
        tried.append(reduced @ made.inward_MJR[k].T - made.offset_MJ[k])
        codes = FINE(torch.cat([torch.zeros(300, 1), tried[-1]], dim=1)).codes[:, 1:]
        errors.append((codes @ made.outward_MFR[k, :2] + made.outward_MFR[k, 2] - reduced).square().sum(1))
        torch.testing.assert_close(
            made.drawn(torch.full((300,), k), codes), codes @ made.outward_MFR[k, :2] + made.outward_MFR[k, 2]
        )
    best = torch.stack(errors).argmin(0)
    assert torch.equal(index_N, best)
    assert len(set(best.tolist())) == 5
    torch.testing.assert_close(coordinates_NJ, torch.stack(tried)[best, torch.arange(300)], rtol=1e-4, atol=1e-4)


def test_many_patches_in_parts_choose_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, patches = fitted(4)[0], four_kinds(100, seed=2)[1]
    whole = made.chosen(patches, FINE)[0]
    monkeypatch.setattr("tokenreel.tokenizers.cvivit_transforms._AT_ONCE", 7 * 4 * 3)
    assert torch.equal(made.chosen(patches, FINE)[0], whole)


def test_more_transforms_leave_less_and_none_serves_two_kinds() -> None:
    fits = {count: fitted(count) for count in (1, 4, 16)}
    assert fits[16][1] < fits[4][1] / 3 < fits[1][1] / 9
    kind_N, patches = four_kinds(400, seed=5)
    index_N = fits[16][0].chosen(patches, FINE)[0]
    for index in set(index_N.tolist()):
        assert len(set(kind_N[index_N == index].tolist())) == 1


def test_the_error_that_fitting_tells_is_what_is_left() -> None:
    made, error = fitted(4)
    patches = four_kinds(2000)[1]
    with torch.no_grad():
        index_N, coordinates_NJ = made.chosen(patches, FINE)
        codes = FINE(torch.cat([torch.zeros(2000, 1), coordinates_NJ], dim=1)).codes[:, 1:]
        left = (made.expand(made.drawn(index_N, codes)) - patches).square().mean()
    assert float(left) == pytest.approx(error, rel=1e-5)


def test_equal_seeds_fit_equal_and_others_do_not() -> None:
    first, second, other = (fitted(6, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_largest_component_has_the_finest_levels() -> None:
    coarse_first = FSQ(FSQConfig(levels=(3, 5, 15)))
    made = Transforms(patch_values=VALUES, num_transforms=1, num_coordinates=2, reduced=16)
    patches = drawn(1000, VALUES) * torch.tensor([5.0, 2.0, *[0.01] * (VALUES - 2)])
    made.fit(patches, coarse_first, iterations=1, generator=torch.Generator().manual_seed(0))
    inward_JP = (made.inward_MJR[0] @ made.reduce.weight).detach()
    assert inward_JP[1].abs().argmax() == 0  # the third digit, of 15 levels, is the first axis
    assert inward_JP[0].abs().argmax() == 1


@pytest.mark.parametrize(("coordinates", "reduced"), [(4, 2), (5, 24), (3, 40)])
def test_more_coordinates_or_more_width_than_there_are_values_fit_too(coordinates: int, reduced: int) -> None:
    made = Transforms(patch_values=3, num_transforms=2, num_coordinates=coordinates, reduced=reduced)
    quantizer = FSQ(FSQConfig(levels=(3, *[9] * coordinates)))
    patches = drawn(500, 3)
    error = made.fit(patches, quantizer, iterations=2, generator=torch.Generator().manual_seed(0))
    assert error < 0.5 * float(patches.var())
    assert all(bool(torch.isfinite(value).all()) for value in made.state_dict().values())


def test_too_few_patches_are_refused() -> None:
    made = Transforms(patch_values=VALUES, num_transforms=9, num_coordinates=2, reduced=16)
    with pytest.raises(InputError, match="9 transforms need at least as many patches"):
        made.fit(four_kinds(8)[1], FINE, iterations=1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", range(3, 101))
def test_the_middle_of_each_level_is_its_digit(count: int) -> None:
    quantizer = FSQ(FSQConfig(levels=(count, 5)))
    made = PatchTransforms(patch_size=(1, 2, 2), quantizer=quantizer, num_transforms=count, reduced=4)
    latents = torch.stack([made.centres_M, torch.zeros(count)], dim=1)
    codes, ids, _ = quantizer(latents)
    assert torch.equal(quantizer.digits(ids)[:, 0], torch.arange(count))
    bounded = quantizer._bounded(latents.T)[0]
    torch.testing.assert_close(bounded, bounded.round(), rtol=0, atol=2e-5 * count)  # the middle, not only within
    with torch.no_grad():
        made.first.outward_MFR[:, -1, 0] = torch.arange(count).float()  # what each draws is its number
    assert torch.equal(made.cells(codes[None, None, None])[0, 0, 0, :, 0], torch.arange(count).float())
    assert torch.equal(made.cells(quantizer.codes(ids)[None, None, None])[0, 0, 0, :, 0], torch.arange(count).float())


def film(count: int, *size: int) -> list[Tensor]:
    """Flat cells, upright and level stripes: patches of several kinds."""
    generator, clips = torch.Generator().manual_seed(5), []
    frames, height, width = size
    for number in range(count):
        shades = torch.rand(3, 1, 2, 2, generator=generator) * 1.6 - 0.8
        video = shades.repeat_interleave(height // 2, 2).repeat_interleave(width // 2, 3).repeat(1, frames, 1, 1)
        along = torch.arange(width) if number % 2 else torch.arange(height)[:, None]
        stripes = 0.3 * torch.sin(along * (1 + number % 3) + number).expand(3, frames, height, width)
        video[..., : width // 2] += stripes[..., : width // 2]
        clips.append(video.clamp(-1, 1))
    return clips


@cache
def _started(prediction: Any) -> CViViT:
    model = CViViT.untrained(replace(TINY, prediction=prediction), seed=0)
    model.start_linear(film(16, 5, 16, 16))
    return model


@pytest.fixture(params=["none", "last"])
def started(request: pytest.FixtureRequest) -> CViViT:
    return _started(request.param)


def test_the_first_digit_of_an_id_is_the_choice(started: CViViT) -> None:
    video, transforms = film(17, 1, 16, 16)[-1], started.transforms
    (tokens,) = started.encode([video])
    assert transforms is not None
    assert isinstance(started.quantizer, FSQ)
    patches_NP = transforms.patches(video[None], "first").flatten(0, 3)
    index_N, _ = transforms.first.chosen(patches_NP, started.quantizer)
    ids_L = torch.from_numpy(tokens.ids_L.astype("int64"))
    assert torch.equal(started.quantizer.digits(ids_L)[:, 0], index_N)
    assert len(set(index_N.tolist())) > 2


def test_attention_moves_coordinates_but_not_the_choice() -> None:
    model = CViViT.untrained(TINY, seed=0)
    model.start_linear(film(16, 5, 16, 16))
    video = film(18, 5, 16, 16)[-1]
    before = model.encode([video])[0].ids_L
    with torch.no_grad():
        model.to_latents.weight.copy_(drawn(*model.to_latents.weight.shape))
        model.to_latents.bias.fill_(2.0)
    after = model.encode([video])[0].ids_L
    assert (before != after).any()
    np.testing.assert_array_equal(before % 6, after % 6)


def test_started_it_decodes_what_the_transforms_draw(started: CViViT) -> None:
    video = film(20, 5, 16, 16)[-1]
    (tokens,) = started.encode([video])
    (decoded,) = started.decode([tokens])
    if started.is_predictive:
        assert (decoded - video).square().mean() < video.var() / 4
        return
    transforms = started.transforms
    assert transforms is not None
    with torch.no_grad():
        latents = transforms.latents(video[None], torch.zeros(1, 3, 4, 4, 3), started.quantizer)
        expected = transforms.frames(transforms.cells(started.quantizer(latents).codes))
    torch.testing.assert_close(decoded, expected[0].clamp(-1, 1), rtol=1e-5, atol=1e-5)
    assert (decoded - video).square().mean() < video.var() / 4


def test_choosing_beats_one_transform_of_as_many_bits() -> None:
    clips = film(18, 5, 16, 16)
    single = CViViT.untrained(
        replace(TINY, quantizer=FSQConfig(levels=(15, 14)), num_transforms=None, linear_path=True), seed=0
    )
    single.start_linear(clips)
    choosing = CViViT.untrained(TINY, seed=0)
    choosing.start_linear(clips)
    assert single.codebook_size == choosing.codebook_size == 210
    errors = [
        float(torch.stack([(d - v).square().mean() for d, v in zip(model.decode(model.encode(clips)), clips)]).mean())
        for model in (choosing, single)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_a_fit_is_a_function_of_its_clips(started: CViViT) -> None:
    again = CViViT.untrained(started.config, seed=0)
    again.start_linear(film(16, 5, 16, 16))
    assert again.fingerprint == started.fingerprint


def test_clips_smaller_than_a_patch_are_left_out(started: CViViT) -> None:
    again, small = CViViT.untrained(started.config, seed=0), [torch.zeros(3, 5, 3, 16), torch.zeros(3, 1, 16, 2)]
    again.start_linear([*film(16, 5, 16, 16), *small])
    assert again.fingerprint == started.fingerprint
    with pytest.raises(InputError, match="no video holds one"):
        again.start_linear(small)


def test_saved_and_loaded_ids_are_the_same(tmp_path: Path, started: CViViT) -> None:
    started.save_pretrained(tmp_path / "m")
    loaded, video = CViViT.from_pretrained(tmp_path / "m"), film(19, 5, 16, 16)[-1][..., 1:, 2:]
    (tokens,) = started.encode([video])
    np.testing.assert_array_equal(loaded.encode([video])[0].ids_L, tokens.ids_L)
    assert torch.equal(loaded.decode([tokens])[0], started.decode([tokens])[0])


def test_frames_and_patches_are_inverse() -> None:
    made = PatchTransforms(
        patch_size=(2, 4, 4), quantizer=build_quantizer(TINY.quantizer), num_transforms=6, reduced=96
    )
    with torch.no_grad():
        made.rest.expand.weight.copy_(torch.eye(96))
    video = drawn(1, 3, 4, 8, 12)
    patches = made.patches(video, "rest")
    assert torch.equal(made.frames(patches, has_first=False), video)
    assert made.patches(drawn(1, 3, 3, 7, 9), "rest").shape == (1, 2, 2, 3, 96)


def refused(quantizer: Quantizer, count: int) -> Any:
    return PatchTransforms(patch_size=(2, 4, 4), quantizer=quantizer, num_transforms=count, reduced=8)


@pytest.mark.parametrize(
    ("config", "count", "message"),
    [
        (FSQConfig(levels=(8, 5, 5)), 6, r"6 transforms need FSQ with 6 levels first .* got \(8, 5, 5\)"),
        (FSQConfig(levels=(6,)), 6, "others for the coordinates"),
        (VQConfig(codebook_size=16, codebook_dim=4), 16, "need FSQ"),
        (LFQConfig(codebook_dim=4), 2, "need FSQ"),
        (FSQConfig(levels=(6, 5), symmetric=True), 6, "without symmetric"),
        (FSQConfig(levels=(6, 5), noise=0.5), 6, "without symmetric, noise"),
        (FSQConfig(levels=(6, 5), skip=0.5), 6, "noise and skip"),
    ],
)
def test_quantizers_that_cannot_say_the_choice_are_refused(config: Any, count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refused(build_quantizer(config), count)
    with pytest.raises(InputError, match=message):
        CViViT(replace(TINY, quantizer=config, num_transforms=count))


def test_a_linear_path_beside_it_is_refused() -> None:
    with pytest.raises(InputError, match="takes the place of linear_path"):
        replace(TINY, linear_path=True)
