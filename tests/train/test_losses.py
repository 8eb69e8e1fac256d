from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.quantize import LFQ, LFQConfig
from tokenreel.train.features import RandomFeatures, RandomFeaturesConfig, feature_loss, feature_pairs, gram_loss
from tokenreel.train.frequency import haar_loss
from tokenreel.train.losses import TERMS, LossConfig, Losses
from tokenreel.train.lpips import LPIPS
from tokenreel.train.pixels import charbonnier, l1, l2, temporal
from tokenreel.train.term import Term

FEATURES = RandomFeaturesConfig(widths=(4, 6))
ONE = Term(weight=1.0)
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@pytest.fixture
def lpips() -> LPIPS:
    generator = torch.Generator().manual_seed(0)
    state, inner = {}, 3
    for place in PLACES:
        state[f"features.{place}.weight"] = torch.randn(4, inner, 3, 3, generator=generator) * 0.3
        state[f"features.{place}.bias"] = torch.randn(4, generator=generator) * 0.1
        inner = 4
    return LPIPS(state | {f"lin{i}.model.1.weight": torch.rand(1, 4, 1, 1, generator=generator) for i in range(5)})


def config(**fields: Any) -> LossConfig:
    return LossConfig(**{"random_features": FEATURES, **fields})


def everything(**fields: Any) -> LossConfig:
    return config(**dict.fromkeys(TERMS, ONE) | fields)


def videos(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = torch.rand(2, *(shape or (2, 3, 4, 18, 17)), generator=generator) * 2 - 1
    return ours, theirs


def test_every_term_is_reported_and_the_total_is_their_weighted_sum(lpips: LPIPS) -> None:
    weights = {name: Term(weight=0.5 + index) for index, name in enumerate(TERMS)}
    ours, theirs = videos()
    total, metrics = Losses(config(**weights), lpips=lpips)(ours, theirs, step=0)
    network = RandomFeatures(FEATURES)
    pairs, deep = feature_pairs(network, ours, theirs), feature_pairs(lpips, ours, theirs)
    expected = {
        "l1_loss": l1(ours, theirs).mean(),
        "l2_loss": l2(ours, theirs).mean(),
        "charbonnier_loss": charbonnier(ours, theirs, 1e-3).mean(),
        "first_loss": l2(ours[:, :, :1], theirs[:, :, :1]).mean(),
        "temporal_loss": temporal(ours, theirs).mean(),
        "haar_loss": haar_loss(ours, theirs, 3).mean(),
        "random_loss": feature_loss(pairs, None),
        "lpips_loss": lpips.loss(deep, None),
        "gram_loss": gram_loss(pairs, None),
    }
    assert list(metrics) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value)
    torch.testing.assert_close(total, sum(term.weight * metrics[f"{name}_loss"] for name, term in weights.items()))
    other, metrics = Losses(config(gram=ONE, gram_features="lpips"), lpips=lpips)(ours, theirs, step=0)
    torch.testing.assert_close(other, gram_loss(deep, None))
    assert set(metrics) == {"gram_loss"}


def test_equal_videos_cost_nothing(lpips: LPIPS) -> None:
    ours, _ = videos()
    total, metrics = Losses(everything(), lpips=lpips)(ours, ours.clone(), step=0)
    assert total < 1e-6
    assert len(metrics) == len(TERMS)


def test_terms_wait_for_their_step() -> None:
    losses = Losses(config(l1=ONE, l2=Term(weight=4.0, start_step=10, warmup_steps=2)))
    ours, theirs = videos()
    before, metrics = losses(ours, theirs, step=10)
    assert set(metrics) == {"l1_loss"}
    half, metrics = losses(ours, theirs, step=11)
    torch.testing.assert_close(half, before + 2 * metrics["l2_loss"])
    full, _ = losses(ours, theirs, step=12)
    torch.testing.assert_close(full, before + 4 * metrics["l2_loss"])


@pytest.mark.parametrize("dims", [2, 3])
def test_frames_that_are_not_valid_have_no_say(lpips: LPIPS, dims: int) -> None:
    features = replace(FEATURES, widths=(4, 6, 6), dims=dims)
    losses = Losses(everything(random_features=features), lpips=lpips)
    ours, theirs = videos()
    valid = torch.tensor([[True, True, False, False], [True, False, False, False]])
    where = valid[:, None, :, None, None]
    expected, plain = losses(ours, theirs, step=0, valid_frames=valid)
    spoiled = torch.where(where, ours, torch.nan).requires_grad_()
    total, metrics = losses(spoiled, torch.where(where, theirs, torch.inf), step=0, valid_frames=valid)
    assert torch.equal(total, expected)
    assert all(torch.equal(metrics[name], plain[name]) for name in plain)
    total.backward()
    assert spoiled.grad is not None
    assert torch.isfinite(spoiled.grad).all()
    assert (spoiled.grad * ~where).abs().max() == 0
    frames = [l1(ours, theirs)[0, 0], l1(ours, theirs)[0, 1], l1(ours, theirs)[1, 0]]
    torch.testing.assert_close(metrics["l1_loss"], sum(frames) / 3)
    torch.testing.assert_close(metrics["temporal_loss"], temporal(ours, theirs)[0, 0])
    nothing, _ = losses(ours, theirs, step=0, valid_frames=torch.zeros_like(valid))
    assert nothing == 0


def test_bf16_and_autocast_are_left(lpips: LPIPS) -> None:
    losses = Losses(everything(), lpips=lpips)
    ours, theirs = (video.bfloat16() for video in videos())
    ours.requires_grad_()
    expected, _ = losses(ours.float(), theirs.float(), step=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, metrics = losses(ours, theirs, step=0)
    assert total.dtype == torch.float32
    assert torch.equal(total, expected)
    assert not any(value.requires_grad for value in metrics.values())
    total.backward()
    assert ours.grad is not None
    assert torch.isfinite(ours.grad).all()


def test_gradients_are_those_of_finite_differences(lpips: LPIPS) -> None:
    losses = Losses(everything(haar_levels=2), lpips=lpips)
    ours, theirs = (video.double() for video in videos(1, 3, 2, 16, 16))
    ours.requires_grad_()
    (gradient,) = torch.autograd.grad(losses(ours, theirs, step=0)[0], ours)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        way = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            ends = [losses(ours + sign * 1e-6 * way, theirs, step=0)[0] for sign in (1, -1)]
        torch.testing.assert_close((gradient * way).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-6)


def test_losses_of_the_quantizer_pass_through() -> None:
    quantizer = LFQ(LFQConfig(codebook_dim=4))
    aux = quantizer(torch.randn(2, 9, 4, requires_grad=True)).aux_losses
    losses = Losses(config(l1=Term(weight=3.0)))
    ours, theirs = videos()
    total, metrics = losses(ours, theirs, step=0, aux_losses=aux)
    assert set(metrics) == {"l1_loss", "commit_loss", "entropy_loss"}
    torch.testing.assert_close(total, 3 * metrics["l1_loss"] + aux["commit_loss"] + aux["entropy_loss"])
    assert total.requires_grad


def test_few_frames_go_through_the_networks_and_all_in_turn(lpips: LPIPS) -> None:
    losses = Losses(config(random=ONE, lpips=ONE, l1=ONE, max_frames=2), lpips=lpips)
    ours, theirs = videos()
    valid = torch.tensor([[True, True, True, False], [True, True, True, True]])
    network = RandomFeatures(FEATURES)
    for step, frames in ((0, [0, 2]), (1, [1, 3]), (2, [2, 0]), (7, [3, 1])):
        _, metrics = losses(ours, theirs, step=step, valid_frames=valid)
        pairs = feature_pairs(network, ours[:, :, frames], theirs[:, :, frames])
        torch.testing.assert_close(metrics["random_loss"], feature_loss(pairs, valid[:, frames]))
    torch.testing.assert_close(metrics["l1_loss"], l1(ours, theirs)[valid].mean())


def test_pictures_are_videos_of_one_frame(lpips: LPIPS) -> None:
    ours, theirs = videos(2, 3, 1, 17, 19)
    ours.requires_grad_()
    for dims in (2, 3):
        total, metrics = Losses(everything(random_features=replace(FEATURES, dims=dims)), lpips=lpips)(
            ours, theirs, step=0
        )
        total.backward()
        assert metrics["temporal_loss"] == 0
        assert torch.isfinite(total)


def test_nothing_is_learned_or_stored_and_the_seed_decides(lpips: LPIPS) -> None:
    first, again = (Losses(everything(), lpips=lpips) for _ in range(2))
    assert not list(first.parameters())
    assert not first.state_dict()
    assert torch.equal(first(*videos(), step=0)[0], again(*videos(), step=0)[0])


def test_a_picture_is_found_by_each_term(lpips: LPIPS) -> None:
    _, theirs = videos(1, 3, 2, 16, 16)
    for name in ("l1", "l2", "charbonnier", "random", "haar", "lpips"):
        ours = (theirs + 0.3 * torch.randn(theirs.shape, generator=torch.Generator().manual_seed(2))).requires_grad_()
        losses = Losses(config(**{name: ONE}), lpips=lpips)
        optimizer = torch.optim.Adam([ours], lr=0.02)
        before = float(losses(ours, theirs, step=0)[0].detach())
        for _ in range(15):
            optimizer.zero_grad()
            total, _ = losses(ours, theirs, step=0)
            total.backward()
            optimizer.step()
        assert total < 0.7 * before, name


def test_bad_configs_and_missing_weights_are_refused() -> None:
    for fields, message in (
        ({}, "at least one of l1, l2"),
        ({"l1": 1.0}, "l1 must be a Term or None"),
        ({"l1": ONE, "charbonnier_eps": 0}, "charbonnier_eps"),
        ({"l1": ONE, "haar_levels": 0}, "haar_levels"),
        ({"l1": ONE, "max_frames": 0}, "max_frames"),
        ({"gram": ONE, "gram_features": "vgg"}, "gram_features"),
        ({"l1": ONE, "adversarial": Term(weight=1.0)}, "adversarial must be"),
    ):
        with pytest.raises(InputError, match=message):
            LossConfig(**fields)  # type: ignore[arg-type]
    for needing in (config(lpips=ONE), config(gram=ONE, gram_features="lpips")):
        with pytest.raises(InputError, match="load_lpips"):
            Losses(needing)
    with pytest.raises(InputError, match="one shape"):
        Losses(config(l1=ONE))(torch.zeros(1, 3, 1, 4, 4), torch.zeros(1, 3, 2, 4, 4), step=0)
