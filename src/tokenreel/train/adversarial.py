"""The mathematics of adversarial training: losses on logits, gradient penalties, LeCam, the adaptive weight.

Letters: B batch, ... places of a critic's logits. Logits of reconstructions and targets come in pairs, element by
element: a reconstruction is paired with its own target. All in fp32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ADVERSARIAL_LOSSES",
    "AdversarialKind",
    "AdversarialLoss",
    "LeCam",
    "adaptive_weight",
    "approximate_penalty",
    "gradient_penalty",
]

AdversarialKind = Literal["relativistic", "hinge", "non_saturating"]


class AdversarialLoss(NamedTuple):
    """Both sides of one game, each (logits of reconstructions, logits of targets) -> a scalar to minimise.

    Attributes:
        generator: what the tokenizer minimises.
        critic: what the discriminator minimises.
        is_paired: whether the generator's side reads the targets' logits, too.
    """

    generator: Callable[[Tensor, Tensor], Tensor]
    critic: Callable[[Tensor, Tensor], Tensor]
    is_paired: bool


def _relativistic_generator(fake: Tensor, real: Tensor) -> Tensor:
    return F.softplus(real - fake).mean()


def _relativistic_critic(fake: Tensor, real: Tensor) -> Tensor:
    return F.softplus(fake - real).mean()


def _hinge_generator(fake: Tensor, real: Tensor) -> Tensor:
    return -fake.mean()


def _hinge_critic(fake: Tensor, real: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _non_saturating_generator(fake: Tensor, real: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


def _non_saturating_critic(fake: Tensor, real: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


ADVERSARIAL_LOSSES: dict[str, AdversarialLoss] = {
    "relativistic": AdversarialLoss(_relativistic_generator, _relativistic_critic, True),
    "hinge": AdversarialLoss(_hinge_generator, _hinge_critic, False),
    "non_saturating": AdversarialLoss(_non_saturating_generator, _non_saturating_critic, False),
}
"""By name, with D the critic, x a target, y its reconstruction:

- ``relativistic``: critic E softplus(D(y) - D(x)), generator E softplus(D(x) - D(y)); R3GAN, arXiv 2501.05441,
  section 2, with f(t) = -log(1 + e^-t). It has no finite optimum without R1 and R2.
- ``hinge``: critic E relu(1 - D(x)) + E relu(1 + D(y)), generator -E D(y); arXiv 1705.02894. VQGAN halves the critic's.
- ``non_saturating``: critic E softplus(-D(x)) + E softplus(D(y)), generator E softplus(-D(y)); arXiv 1406.2661.
"""


def approximate_penalty(
    critic: Callable[[Tensor], Tensor],
    video_BCTHW: Tensor,
    logits: Tensor,
    *,
    sigma: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean of (D(x + sigma e) - D(x))^2 with normal e: R1 (x real) or R2 (x reconstructed) without double backward.

    The approximated R1 of Seaweed-APT, arXiv 2501.08316. For small sigma its expectation is sigma^2 |grad D|^2 for each
    logit, so that a weight lambda stands for gamma = 2 lambda sigma^2 in R1's gamma / 2 |grad D|^2 (arXiv 1801.04406).

    Args:
        critic: D.
        video_BCTHW: x; no gradient goes to it.
        logits: D(x), as the loss uses them.
        sigma: standard deviation of the noise, in pixel values of [-1, 1].
        generator: source of the noise; None takes torch's own.
    """
    video_BCTHW = video_BCTHW.detach()
    noise = torch.randn(
        video_BCTHW.shape, generator=generator, dtype=video_BCTHW.dtype, device=_device_of(generator, video_BCTHW)
    ).to(video_BCTHW.device)
    moved = critic(video_BCTHW + sigma * noise)
    return (moved.to(logits.dtype) - logits).square().mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], video_BCTHW: Tensor) -> Tensor:
    """Mean over the batch of |grad_x sum D(x)|^2: exact R1 or R2 (arXiv 1801.04406, eq. 9), by double backward."""
    video_BCTHW = video_BCTHW.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(video_BCTHW).sum(), video_BCTHW, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean()


class LeCam(nn.Module):
    """LeCam regulariser: logits are held near the running mean of the other side's (arXiv 2104.03310).

    E relu(D(x) - a_fake)^2 + E relu(a_real - D(y))^2, where a are moving averages of the batches' mean logits, started
    at the first batch's. The paper writes the squares without relu; with it, as is common for tokenizers, a critic
    that confuses both sides is left alone.

    Args:
        decay: of the moving averages.
    """

    mean_real: Tensor
    mean_fake: Tensor
    is_started: Tensor

    def __init__(self, *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean_real", torch.zeros(()))
        self.register_buffer("mean_fake", torch.zeros(()))
        self.register_buffer("is_started", torch.tensor(False))

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Logits of reconstructions and targets -> the penalty; in training mode the averages move first."""
        if self.training:
            self._observe(fake, real)
        above = F.relu(real - self.mean_fake.to(real.dtype)).square().mean()
        return above + F.relu(self.mean_real.to(fake.dtype) - fake).square().mean()

    @torch.no_grad()
    def _observe(self, fake: Tensor, real: Tensor) -> None:
        for average, logits in ((self.mean_fake, fake), (self.mean_real, real)):
            now = logits.detach().mean().to(average.dtype)
            average.copy_(torch.where(self.is_started, average.lerp(now, 1 - self.decay), now))
        self.is_started.fill_(True)


def adaptive_weight(
    rest: Tensor, adversarial: Tensor, last_weight: Tensor, *, delta: float = 1e-6, ceiling: float = 1e4
) -> Tensor:
    """|grad rest| / (|grad adversarial| + delta) at the decoder's last weight, at most ``ceiling``, as a constant.

    VQGAN, arXiv 2012.09841, eq. 7, where ``rest`` is the reconstruction loss with its perceptual part. The graph is
    kept for the backward pass that follows.
    """
    (wanted,) = torch.autograd.grad(rest, last_weight, retain_graph=True)
    (given,) = torch.autograd.grad(adversarial, last_weight, retain_graph=True)
    ratio: Tensor = wanted.norm() / (given.norm() + delta)
    return ratio.clamp(max=ceiling).detach()


def _device_of(generator: torch.Generator | None, video_BCTHW: Tensor) -> torch.device:
    return video_BCTHW.device if generator is None else generator.device
