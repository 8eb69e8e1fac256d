from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tokenreel.errors import InputError
from tokenreel.train.adversarial import ADVERSARIAL_LOSSES, approximate_penalty
from tokenreel.train.adversarial_pair import AdversarialConfig, AdversarialPair
from tokenreel.train.discriminator_vit import ViTDiscriminatorConfig
from tokenreel.train.discriminators import PatchDiscriminatorConfig
from tokenreel.train.term import Term

SMALL = PatchDiscriminatorConfig(dim=4, depth=1)


def pair(**fields: Any) -> AdversarialPair:
    torch.manual_seed(0)
    return AdversarialPair(AdversarialConfig(**{"generator": Term(weight=0.5), "discriminator": SMALL, **fields}))


def videos(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    ours, theirs = torch.rand(2, *(shape or (2, 3, 3, 8, 8)), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return ours, theirs


@pytest.mark.parametrize("kind", list(ADVERSARIAL_LOSSES))
def test_both_sides_are_the_formulas_on_the_critics_logits(kind: str) -> None:
    game, critic = ADVERSARIAL_LOSSES[kind], pair(kind=kind)
    ours, theirs = videos()
    fake, real = critic.discriminator(ours), critic.discriminator(theirs)
    loss, metrics = critic.generator_loss(ours, theirs, step=0)
    torch.testing.assert_close(loss, 0.5 * game.generator(fake, real))
    torch.testing.assert_close(metrics["adv_loss"], 2 * loss.detach())
    loss, metrics = critic(ours, theirs, step=0)
    torch.testing.assert_close(loss, game.critic(fake, real))
    torch.testing.assert_close(metrics["logits_real"], real.mean().detach())
    assert set(metrics) == {"critic_loss", "logits_real", "logits_fake"}


def test_each_side_teaches_its_own() -> None:
    critic = pair()
    ours, theirs = videos()
    ours.requires_grad_()
    critic.generator_loss(ours, theirs, step=0)[0].backward()
    assert ours.grad is not None
    assert ours.grad.abs().max() > 0
    assert all(value.grad is None and value.requires_grad for value in critic.parameters())
    ours.grad = None
    critic(ours, theirs, step=0)[0].backward()
    assert ours.grad is None
    assert all(value.grad is not None for value in critic.parameters())


def test_frozen_parameters_stay_frozen() -> None:
    critic = pair()
    first = next(critic.parameters()).requires_grad_(False)
    critic.generator_loss(*videos(), step=0)
    assert not first.requires_grad


def test_penalties_are_added_with_their_weights() -> None:
    critic = pair(r1=Term(weight=3.0), r2=Term(weight=5.0, start_step=2), lecam=Term(weight=0.1), sigma=0.05)
    ours, theirs = videos()
    loss, metrics = critic(ours, theirs, step=2, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    net = critic.discriminator
    r1 = approximate_penalty(net, theirs, net(theirs), sigma=0.05, generator=generator)
    r2 = approximate_penalty(net, ours, net(ours), sigma=0.05, generator=generator)
    torch.testing.assert_close(metrics["r1_loss"], r1.detach())
    torch.testing.assert_close(metrics["r2_loss"], r2.detach())
    plain = ADVERSARIAL_LOSSES["relativistic"].critic(net(ours), net(theirs))
    torch.testing.assert_close(loss, plain + 3 * r1 + 5 * r2 + 0.1 * metrics["lecam_loss"])
    assert "r2_loss" not in critic(ours, theirs, step=1)[1]


def test_equal_seed_equal_loss() -> None:
    critic = pair(r1=Term(weight=1.0))
    losses = [critic(*videos(), step=0, generator=torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_the_schedule_of_the_generator() -> None:
    critic = pair(generator=Term(weight=2.0, start_step=10, warmup_steps=4))
    assert [critic.is_active(step) for step in (9, 10)] == [False, True]
    ours, theirs = videos()
    waiting, metrics = critic.generator_loss(ours, theirs, step=5)
    assert waiting == 0
    assert metrics == {}
    full, half = (critic.generator_loss(ours, theirs, step=step)[0] for step in (14, 12))
    torch.testing.assert_close(full, 2 * half)


def test_the_adaptive_weight_balances_the_gradients_at_the_last_layer() -> None:
    critic = pair(adaptive=True, generator=Term(weight=1.0))
    decoder = nn.Conv3d(3, 3, 1)
    noise, theirs = videos()
    ours = decoder(noise)
    rest = (ours - theirs).abs().mean()
    loss, metrics = critic.generator_loss(ours, theirs, step=0, rest=rest, last_weight=decoder.weight)
    (of_rest,) = torch.autograd.grad(rest, decoder.weight, retain_graph=True)
    (of_loss,) = torch.autograd.grad(loss, decoder.weight)
    torch.testing.assert_close(of_loss.norm(), of_rest.norm(), rtol=1e-3, atol=0)
    torch.testing.assert_close(loss.detach(), metrics["adaptive_weight"] * metrics["adv_loss"])
    with pytest.raises(InputError, match="rest and last_weight"):
        critic.generator_loss(ours, theirs, step=0)


def test_frames_that_are_not_valid_change_nothing() -> None:
    critic = pair(discriminator=PatchDiscriminatorConfig(dim=4, depth=1, dims=3))
    ours, theirs = videos()
    valid = torch.tensor([[True, True, False], [True, False, False]])
    spoiled = torch.where(valid[:, None, :, None, None], ours, torch.nan)
    for call in (critic, critic.generator_loss):
        assert torch.equal(
            call(ours, theirs, step=0, valid_frames=valid)[0], call(spoiled, theirs, step=0, valid_frames=valid)[0]
        )


@pytest.mark.parametrize("discriminator", [SMALL, ViTDiscriminatorConfig(dim=16, depth=1, num_heads=2)])
def test_bf16_and_autocast_are_left(discriminator: Any) -> None:
    critic = pair(discriminator=discriminator, r1=Term(weight=100.0), r2=Term(weight=100.0), lecam=Term(weight=0.1))
    ours, theirs = (video.bfloat16() for video in videos())
    ours.requires_grad_()
    expected = critic.generator_loss(ours.float(), theirs.float(), step=0)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        generator, _ = critic.generator_loss(ours, theirs, step=0)
        loss, _ = critic(ours, theirs, step=0)
    assert generator.dtype == loss.dtype == torch.float32
    assert torch.equal(generator, expected)
    (generator + loss).backward()
    assert ours.grad is not None
    assert all(torch.isfinite(value.grad).all() for value in (ours, *critic.parameters()) if value.grad is not None)


def test_a_critic_may_stay_in_autocast() -> None:
    critic = pair(full_precision=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = critic.generator_loss(*videos(), step=0)
    assert loss.dtype == torch.float32
    assert not torch.equal(loss, critic.generator_loss(*videos(), step=0)[0])


def test_a_generator_learns_the_mean_from_the_critic_alone() -> None:
    critic = pair(generator=Term(weight=1.0), r1=Term(weight=10.0), r2=Term(weight=10.0), sigma=0.1)
    shift = torch.zeros(3, 1, 1, 1, requires_grad=True)
    wanted = torch.tensor([0.5, -0.5, 0.2])[:, None, None, None]
    optimizers = [
        torch.optim.Adam(values, lr=rate, betas=(0.0, 0.9))
        for values, rate in (([shift], 2e-2), (critic.parameters(), 5e-3))
    ]
    generator = torch.Generator().manual_seed(0)
    for step in range(120):
        noise = 0.1 * torch.randn(2, 8, 3, 1, 8, 8, generator=generator)
        for optimizer, side in zip(optimizers, (critic.generator_loss, critic)):
            optimizer.zero_grad()
            side(noise[0] + shift, noise[1] + wanted, step=step)[0].backward()
            optimizer.step()
    assert (shift.detach() - wanted).abs().max() < 0.2


def test_bad_configs_are_refused() -> None:
    for fields, message in (
        ({"generator": 0.1}, "generator must be a Term"),
        ({"kind": "wasserstein"}, "kind must be one of relativistic"),
        ({"discriminator": "patch"}, "discriminator must be one of"),
        ({"sigma": 0.0}, "sigma > 0"),
        ({"lecam_decay": 1.0}, "lecam_decay < 1"),
        ({"r1": 1.0}, "r1 must be a Term"),
    ):
        with pytest.raises(InputError, match=message):
            AdversarialConfig(**{"generator": Term(weight=0.1), **fields})  # type: ignore[arg-type]
