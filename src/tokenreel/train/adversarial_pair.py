"""A tokenizer and its critic: the generator's term and the discriminator's loss, apart, for two optimizers.

Letters: B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.nn.rotary import wide_dtype

from .adversarial import ADVERSARIAL_LOSSES, AdversarialKind, LeCam, adaptive_weight, approximate_penalty
from .discriminators import DISCRIMINATORS, DiscriminatorConfig, PatchDiscriminatorConfig, build_discriminator
from .pixels import check_pair, fill_frames
from .term import Term, check_weight

__all__ = ["AdversarialConfig", "AdversarialPair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialConfig:
    """Configuration of ``AdversarialPair``.

    Attributes:
        generator: weight of the generator's term; before its ``start_step`` the critic rests, too.
        kind: ``relativistic``, ``hinge`` or ``non_saturating``, see ``ADVERSARIAL_LOSSES``.
        discriminator: which critic, by its configuration.
        adaptive: whether the generator's weight is multiplied by VQGAN's adaptive one (``adaptive_weight``).
        adaptive_ceiling: what that is clipped to.
        r1: weight of the approximate R1, on targets; None leaves it out. arXiv 2501.08316 takes 100.
        r2: the same on reconstructions.
        sigma: standard deviation of the noise of R1 and R2; arXiv 2501.08316 takes 0.01 for images, 0.1 for videos.
        lecam: weight of LeCam's penalty; None leaves it out. Tokenizers take 0.001 to 0.1.
        lecam_decay: of its moving averages.
        full_precision: whether the critic leaves autocast. Its logits rounded to bf16 raise R1 and R2 by 10 to 80 % at
            sigma 0.01 and by 2 % at 0.1 (new critics); the losses on logits are in fp32 either way.
    """

    generator: Term
    kind: AdversarialKind = "relativistic"
    discriminator: DiscriminatorConfig = field(default_factory=PatchDiscriminatorConfig)
    adaptive: bool = False
    adaptive_ceiling: float = 1e4
    r1: Term | None = None
    r2: Term | None = None
    sigma: float = 0.01
    lecam: Term | None = None
    lecam_decay: float = 0.99
    full_precision: bool = True

    def __post_init__(self) -> None:
        if self.kind not in get_args(AdversarialKind):
            raise InputError(
                f"AdversarialConfig.kind must be one of {', '.join(get_args(AdversarialKind))}, got {self.kind!r}"
            )
        if type(self.discriminator) not in DISCRIMINATORS:
            names = ", ".join(kind.__name__ for kind in DISCRIMINATORS)
            raise InputError(f"AdversarialConfig.discriminator must be one of {names}, got {self.discriminator!r}")
        for name in ("generator", "r1", "r2", "lecam"):
            term = getattr(self, name)
            if not isinstance(term, Term) and (name == "generator" or term is not None):
                raise InputError(f"AdversarialConfig.{name} must be a Term, got {term!r}")
        check_weight("AdversarialConfig", "sigma", self.sigma)
        check_weight("AdversarialConfig", "adaptive_ceiling", self.adaptive_ceiling)
        if self.sigma == 0 or not 0 <= self.lecam_decay < 1:
            raise InputError(
                f"AdversarialConfig needs sigma > 0 and 0 <= lecam_decay < 1, got {self.sigma}, {self.lecam_decay}"
            )


class AdversarialPair(nn.Module):
    """The critic, and both sides of the game. The tokenizer's optimizer takes none of its parameters.

    ::

        loss, metrics = losses(reconstruction, target, step=step)
        if pair.is_active(step):
            adversarial, more = pair.generator_loss(reconstruction, target, step=step)
            loss = loss + adversarial
        loss.backward(), the tokenizer's optimizer steps
        if pair.is_active(step):
            pair(reconstruction, target, step=step)[0].backward(), the critic's optimizer steps

    A call is the critic's loss, so that a wrapper that hooks ``forward`` (DistributedDataParallel) sees the pass whose
    gradients the critic's parameters get; ``generator_loss`` is called on the pair inside.
    """

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminator = build_discriminator(config.discriminator)
        self.lecam = None if config.lecam is None else LeCam(decay=config.lecam_decay)

    def is_active(self, step: int) -> bool:
        """Whether the game has begun."""
        return step >= self.config.generator.start_step

    def generator_loss(
        self,
        reconstruction_BCTHW: Tensor,
        target_BCTHW: Tensor,
        *,
        step: int,
        valid_frames: Tensor | None = None,
        rest: Tensor | None = None,
        last_weight: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted term to add to the tokenizer's loss, and ``adv_loss`` (plain) with ``adaptive_weight``.

        No gradient reaches the critic's parameters.

        Args:
            reconstruction_BCTHW: with a graph to the tokenizer.
            target_BCTHW: its targets, in the same order.
            step: of training, counted from 0.
            valid_frames: (B, T) bool; the critic sees grey for frames that are not valid, on both sides.
            rest: with ``adaptive``: the loss the term is balanced with.
            last_weight: with ``adaptive``: the weight of the decoder's last layer.
        """
        check_pair(reconstruction_BCTHW, target_BCTHW, valid_frames)
        weight = self.config.generator.at(step)
        if weight == 0:
            return reconstruction_BCTHW.new_zeros((), dtype=wide_dtype(reconstruction_BCTHW)), {}
        game = ADVERSARIAL_LOSSES[self.config.kind]
        with _frozen(self.discriminator):
            fake = self._logits(fill_frames(reconstruction_BCTHW, valid_frames))
            real = fake
            if game.is_paired:
                with torch.no_grad():
                    real = self._logits(fill_frames(target_BCTHW, valid_frames))
        loss = game.generator(fake, real)
        metrics = {"adv_loss": loss.detach()}
        if self.config.adaptive:
            if rest is None or last_weight is None:
                raise InputError("an adaptive adversarial weight needs rest and last_weight; give both to it")
            factor = adaptive_weight(rest, loss, last_weight, ceiling=self.config.adaptive_ceiling)
            metrics["adaptive_weight"] = factor
            loss = loss * factor
        return loss * weight, metrics

    def forward(
        self,
        reconstruction_BCTHW: Tensor,
        target_BCTHW: Tensor,
        *,
        step: int,
        valid_frames: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss, penalties included, and its parts; no gradient reaches the reconstruction.

        Args:
            reconstruction_BCTHW: what the tokenizer gave.
            target_BCTHW: its targets, in the same order.
            step: of training, counted from 0.
            valid_frames: (B, T) bool, as for ``generator_loss``.
            generator: source of the noise of R1 and R2; None takes torch's own.
        """
        check_pair(reconstruction_BCTHW, target_BCTHW, valid_frames)
        fake_BCTHW = fill_frames(reconstruction_BCTHW.detach(), valid_frames)
        real_BCTHW = fill_frames(target_BCTHW.detach(), valid_frames)
        fake, real = self._logits(fake_BCTHW), self._logits(real_BCTHW)
        loss = ADVERSARIAL_LOSSES[self.config.kind].critic(fake, real)
        metrics = {"critic_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
        for name, term, video, logits in (
            ("r1_loss", self.config.r1, real_BCTHW, real),
            ("r2_loss", self.config.r2, fake_BCTHW, fake),
        ):
            if term is not None and term.at(step) > 0:
                penalty = approximate_penalty(self._logits, video, logits, sigma=self.config.sigma, generator=generator)
                metrics[name] = penalty
                loss = loss + term.at(step) * penalty
        if self.lecam is not None and self.config.lecam is not None:
            metrics["lecam_loss"] = self.lecam(fake, real)
            loss = loss + self.config.lecam.at(step) * metrics["lecam_loss"]
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _logits(self, video_BCTHW: Tensor) -> Tensor:
        """The critic in its own dtype, its logits in fp32 or wider."""
        device = video_BCTHW.device.type
        leaves = self.config.full_precision
        context: AbstractContextManager[object] = torch.autocast(device, enabled=False) if leaves else nullcontext()
        with context:
            logits: Tensor = self.discriminator(video_BCTHW.to(next(self.discriminator.parameters()).dtype))
        return logits.to(wide_dtype(logits))


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Within, the module's parameters take no gradient."""
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
