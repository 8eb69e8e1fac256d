"""The objective of tokenizers: what is added up, how sizes weigh, when the critic plays, whose weights learn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenreel.tokenizers.base import Reconstruction
from tokenreel.train.adversarial_pair import AdversarialConfig, AdversarialPair
from tokenreel.train.autoencode import Autoencode
from tokenreel.train.batches import Batch
from tokenreel.train.discriminators import PatchDiscriminatorConfig
from tokenreel.train.losses import LossConfig, Losses
from tokenreel.train.term import Term

torch.set_num_threads(1)


class Scaled(nn.Module):
    """Gives its input back times a weight; the ids are 0, 1, 0, 1, ..."""

    codebook_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.asked: list[Any] = []

    @property
    def last_weight(self) -> Tensor:
        return self.weight

    def forward(self, videos: Any, *, generator: torch.Generator, token_counts: Any = None) -> Reconstruction:
        self.asked.append(token_counts)
        out = videos * self.weight if isinstance(videos, Tensor) else tuple(one * self.weight for one in videos)
        return Reconstruction(out, torch.zeros(1), torch.zeros(1), torch.arange(6) % 2, {"commit_loss": self.weight**2})


def batch_of(*sizes: tuple[int, int, int], packed: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(0)
    videos = [torch.rand(3, *size, generator=generator) * 2 - 1 for size in sizes]
    count = len(videos)
    return Batch(
        videos=tuple(videos) if packed else torch.stack(videos),
        token_counts=torch.arange(1, count + 1, dtype=torch.int32) if packed else None,
        captions=(None,) * count,
        sources=("x",) * count,
        index=0,
    )


def critic_of(start_step: int = 0, **options: Any) -> AdversarialPair:
    torch.manual_seed(0)
    config = AdversarialConfig(
        generator=Term(weight=0.5, start_step=start_step),
        discriminator=PatchDiscriminatorConfig(dim=8, depth=1),
        **options,
    )
    return AdversarialPair(config)


def call(objective: Autoencode, model: nn.Module, batch: Batch, step: int = 0) -> Any:
    return objective(model, batch, step=step, generator=torch.Generator().manual_seed(0))


L1 = LossConfig(l1=Term(weight=2.0))


def test_terms_and_losses_of_the_quantizer_are_added() -> None:
    batch, model = batch_of((2, 8, 8), (2, 8, 8)), Scaled()
    step = call(Autoencode(Losses(L1)), model, batch)
    assert isinstance(batch.videos, Tensor)
    error = 0.5 * batch.videos.abs().mean()
    torch.testing.assert_close(step.loss, 2 * error + 0.25)
    torch.testing.assert_close(step.metrics["l1_loss"], error)
    assert step.metrics["commit_loss"] == 0.25
    mse = ((0.5 * batch.videos).square().mean() / 4).item()  # of [-1, 1], told for [0, 1]
    assert step.metrics["psnr_db"].item() == pytest.approx(-10 * math.log10(mse), abs=1e-4)
    assert step.metrics["perplexity"].item() == pytest.approx(2, abs=1e-4)
    assert step.metrics["usage"].item() == pytest.approx(0.5)
    assert (step.num_clips, step.num_tokens) == (2, 6)
    assert all(not value.requires_grad for value in step.metrics.values())
    assert model.asked == [None]


def test_every_clip_of_a_pack_weighs_the_same_whatever_its_size() -> None:
    batch, model = batch_of((4, 8, 8), (1, 16, 8), (4, 8, 8), packed=True), Scaled()
    step = call(Autoencode(Losses(L1), critic_of()), model, batch)
    errors = [0.5 * one.abs().mean() for one in batch.videos]
    torch.testing.assert_close(step.metrics["l1_loss"], sum(errors) / 3)
    torch.testing.assert_close(
        step.metrics["psnr_db"], -10 * (sum(e.square().mean() for e in batch.videos) / 48).log10()
    )
    assert model.asked == [[1, 2, 3]]
    pair, alone = critic_of(), []
    for video in batch.videos:
        alone.append(pair.generator_loss(0.5 * video[None], video[None], step=0)[1]["adv_loss"])
    torch.testing.assert_close(step.metrics["adv_loss"], sum(alone) / 3)
    torch.testing.assert_close(step.loss, 2 * sum(errors) / 3 + 0.25 + 0.5 * sum(alone) / 3)


def test_the_critic_rests_until_its_step() -> None:
    objective = Autoencode(Losses(L1), critic_of(start_step=5))
    assert isinstance(objective.critic, AdversarialPair)
    generator = torch.Generator().manual_seed(0)
    early, late = (call(objective, Scaled(), batch_of((2, 8, 8)), step) for step in (4, 5))
    assert "adv_loss" not in early.metrics
    assert "adv_loss" in late.metrics
    assert objective.critic_step(objective.critic, early.seen, step=4, generator=generator) is None
    assert objective.critic_step(objective.critic, late.seen, step=5, generator=generator) is not None
    assert Autoencode(Losses(L1)).critic is None


def test_each_side_learns_from_its_own_loss() -> None:
    objective, model = Autoencode(Losses(L1), critic_of(r1=Term(weight=1.0))), Scaled()
    critic = objective.critic
    assert critic is not None
    step = call(objective, model, batch_of((2, 8, 8), (2, 8, 8)))
    step.loss.backward()
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert model.weight.grad is not None
    model.weight.grad = None
    found = objective.critic_step(critic, step.seen, step=0, generator=torch.Generator().manual_seed(0))
    assert found is not None
    found[0].backward()
    assert model.weight.grad is None
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in critic.parameters())
    torch.testing.assert_close(found[0].detach(), found[1]["critic_loss"] + found[1]["r1_loss"])


def test_the_critic_judges_every_size_of_a_pack() -> None:
    objective = Autoencode(Losses(L1), critic_of())
    batch = batch_of((4, 8, 8), (1, 16, 8), (4, 8, 8), packed=True)
    seen = call(objective, Scaled(), batch).seen
    found = objective.critic_step(objective.critic, seen, step=0, generator=torch.Generator())  # type: ignore[arg-type]
    pair = critic_of()
    alone = [pair(0.5 * video[None], video[None], step=0)[0] for video in batch.videos]
    assert found is not None
    torch.testing.assert_close(found[0], sum(alone) / 3)
    torch.testing.assert_close(found[1]["critic_loss"], (sum(alone) / 3).detach())  # type: ignore[union-attr]


def test_an_adaptive_weight_is_measured_at_the_last_layer() -> None:
    objective = Autoencode(Losses(L1), critic_of(adaptive=True))
    step = call(objective, Scaled(), batch_of((2, 8, 8)))
    assert step.metrics["adaptive_weight"] > 0
    plain = call(Autoencode(Losses(L1), critic_of()), Scaled(), batch_of((2, 8, 8)))
    rest = plain.loss - 0.5 * plain.metrics["adv_loss"]
    torch.testing.assert_close(step.loss, rest + 0.5 * step.metrics["adv_loss"] * step.metrics["adaptive_weight"])


def test_passes_are_drawn_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Told(nn.Module):
        codebook_size = 8

        def forward(self, videos: Tensor, *, passes: int, generator: torch.Generator) -> Reconstruction:
            seen.append(passes)
            return Reconstruction(videos * 0.5, videos, videos, torch.zeros(1, 4, dtype=torch.int64), {})

    objective = Autoencode(Losses(LossConfig(l2=Term(weight=1.0))), passes=(0, 3))
    batch = Batch(videos=torch.rand(1, 3, 1, 4, 4), token_counts=None, captions=(None,), sources=("x",), index=0)
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        objective(Told(), batch, step=step, generator=generator)
    assert set(seen) == {0, 3}
