from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tokenreel.train.adversarial import (
    ADVERSARIAL_LOSSES,
    LeCam,
    adaptive_weight,
    approximate_penalty,
    gradient_penalty,
)


def logits(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    fake, real = torch.randn(2, 3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2
    return fake, real


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_each_game_is_its_formula() -> None:
    fake, real = logits()
    f, r = fake.numpy(), real.numpy()
    expected = {
        "relativistic": (-np.log(sigmoid(f - r)), -np.log(sigmoid(r - f))),
        "hinge": (-f, np.maximum(0, 1 - r) + np.maximum(0, 1 + f)),
        "non_saturating": (-np.log(sigmoid(f)), -np.log(sigmoid(r)) - np.log(1 - sigmoid(f))),
    }
    assert set(expected) == set(ADVERSARIAL_LOSSES)
    for name, (generator, critic) in expected.items():
        game = ADVERSARIAL_LOSSES[name]
        assert float(game.generator(fake, real)) == pytest.approx(generator.mean())
        assert float(game.critic(fake, real)) == pytest.approx(critic.mean())


@pytest.mark.parametrize("name", list(ADVERSARIAL_LOSSES))
@pytest.mark.parametrize("side", ["generator", "critic"])
def test_gradients_are_those_of_finite_differences(name: str, side: str) -> None:
    fake, real = (x.requires_grad_() for x in logits())
    assert torch.autograd.gradcheck(getattr(ADVERSARIAL_LOSSES[name], side), (fake, real))


@pytest.mark.parametrize("name", list(ADVERSARIAL_LOSSES))
def test_the_sides_pull_apart(name: str) -> None:
    fake, real = (x.requires_grad_() for x in logits())
    game = ADVERSARIAL_LOSSES[name]
    up, down = torch.autograd.grad(game.critic(fake, real), (fake, real))
    assert (up >= 0).all()
    assert (down <= 0).all()
    (pull,) = torch.autograd.grad(game.generator(fake, real), fake)
    assert (pull < 0).all()


def test_pairs_make_the_relativistic_loss_blind_to_a_common_shift() -> None:
    fake, real = logits()
    game = ADVERSARIAL_LOSSES["relativistic"]
    torch.testing.assert_close(game.critic(fake + 5, real + 5), game.critic(fake, real))
    torch.testing.assert_close(game.critic(fake, fake), torch.tensor(math.log(2), dtype=torch.float64))


@pytest.mark.parametrize("name", list(ADVERSARIAL_LOSSES))
def test_large_logits_stay_finite(name: str) -> None:
    game = ADVERSARIAL_LOSSES[name]
    for value in (1e4, -1e4):
        fake = torch.full((2,), value, requires_grad=True)
        loss = game.critic(fake, -fake.detach()) + game.generator(fake, -fake.detach())
        loss.backward()
        assert torch.isfinite(loss)
        assert fake.grad is not None
        assert torch.isfinite(fake.grad).all()


def smooth_critic() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 1)).double()


def test_the_approximate_penalty_is_sigma_squared_times_the_true_one() -> None:
    critic = smooth_critic()
    x = torch.randn(4, 3, 2, 2, 2, dtype=torch.float64)
    true = float(gradient_penalty(critic, x).detach())
    many = x.repeat(5000, 1, 1, 1, 1)
    for sigma, tolerance in ((1e-3, 0.03), (1e-2, 0.03)):
        generator = torch.Generator().manual_seed(1)
        ours = approximate_penalty(critic, many, critic(many), sigma=sigma, generator=generator)
        assert float(ours.detach()) / sigma**2 == pytest.approx(true, rel=tolerance)


def test_on_a_linear_critic_it_is_exact_for_its_noise() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(24, 1, bias=False)).double()
    x = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ours = approximate_penalty(critic, x, critic(x), sigma=0.1, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours, 0.01 * critic(noise).square().mean())


def test_the_gradient_penalty_is_the_closed_form() -> None:
    critic = smooth_critic()
    _, first, _, second = critic
    x = torch.randn(4, 3, 2, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        slope = (1 - torch.tanh(first(x.flatten(1))).square()) * second.weight  # type: ignore[operator]
        expected = (slope @ first.weight).square().sum(1).mean()  # type: ignore[operator]
    torch.testing.assert_close(gradient_penalty(critic, x).detach(), expected)


def test_penalties_teach_the_critic_to_be_flat() -> None:
    x = torch.randn(16, 3, 2, 2, 2, dtype=torch.float64)
    critic = smooth_critic()
    before = float(gradient_penalty(critic, x).detach())
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        (1e4 * approximate_penalty(critic, x, critic(x), sigma=0.01, generator=generator)).backward()
        optimizer.step()
    assert float(gradient_penalty(critic, x).detach()) < 0.2 * before


def test_lecam_is_its_formula_with_moving_averages() -> None:
    lecam = LeCam(decay=0.9)
    mean_fake = mean_real = None
    for seed in range(4):
        fake, real = (x.float() for x in logits(seed))
        ours = lecam(fake, real)
        mean_fake = fake.mean() if mean_fake is None else 0.9 * mean_fake + 0.1 * fake.mean()
        mean_real = real.mean() if mean_real is None else 0.9 * mean_real + 0.1 * real.mean()
        expected = (real - mean_fake).clamp(min=0).square().mean() + (mean_real - fake).clamp(min=0).square().mean()
        torch.testing.assert_close(ours, expected)
    lecam.eval()
    kept = lecam.mean_real.clone()
    lecam(*logits(9))
    assert torch.equal(lecam.mean_real, kept)
    again = LeCam(decay=0.9)
    again.load_state_dict(lecam.state_dict())
    assert torch.equal(again.mean_real, kept)
    assert again.is_started


def test_lecam_draws_the_sides_together() -> None:
    lecam = LeCam(decay=0.9)
    lecam(torch.tensor([-1.0]), torch.tensor([1.0]))
    lecam.eval()
    fake, real = torch.tensor([-3.0, 2.0], requires_grad=True), torch.tensor([3.0, -2.0], requires_grad=True)
    lecam(fake, real).backward()
    # mean_real = 1, mean_fake = -1: d/dreal = 2 relu(real + 1) / 2, d/dfake = -2 relu(1 - fake) / 2
    torch.testing.assert_close(real.grad, torch.tensor([4.0, 0.0]))
    torch.testing.assert_close(fake.grad, torch.tensor([-4.0, 0.0]))


def test_the_adaptive_weight_is_the_ratio_of_gradients_clipped() -> None:
    weight = torch.tensor([3.0, -4.0], dtype=torch.float64, requires_grad=True)
    rest, adversarial = weight.square().sum() / 2, (weight * torch.tensor([0.6, 0.8])).sum()
    ours = adaptive_weight(rest, adversarial, weight)  # |w| / |(0.6, 0.8)| = 5 / 1
    assert float(ours) == pytest.approx(5, rel=1e-5)
    assert not ours.requires_grad
    assert float(adaptive_weight(rest, adversarial, weight, ceiling=2.0)) == 2
    assert float(adaptive_weight(rest, adversarial * 0, weight)) == 1e4
    (rest + ours * adversarial).backward()  # the graph is still there
    assert weight.grad is not None
