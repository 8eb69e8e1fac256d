"""Digits one after the other: the loss is the chain rule's, draws follow it, and what digits share is learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.generate.loss import masked_cross_entropy
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.maskgit_config import MaskGITConfig
from tokenreel.generate.sample import sample
from tokenreel.generate.sample_draw import draw_ids
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.jobs.generate_models import Prompted
from tokenreel.tokenizers.configs import Stack
from tokenreel.types import Grid

torch.set_num_threads(1)

GRID = Grid(t=2, h=2, w=2)
CONFIG = MaskGITConfig(
    vocabulary=Vocabulary(codebook_size=60, levels=(4, 3, 5)),
    stack=Stack(dim=32, depth=1, num_heads=2, head_dim=16, mlp_dim=48),
    extents=(2, 2, 2),
    chained=True,
)


def model_of(config: MaskGITConfig = CONFIG) -> MaskGIT:
    model = MaskGIT.untrained(config, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def test_the_loss_is_the_chain_rule() -> None:
    model = model_of()
    features = torch.randn(7, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    ids = torch.randint(0, 60, (7,), generator=torch.Generator().manual_seed(2))
    digits = model.vocab.split(ids)
    logits = [model.next_logits(features, digits[:, :factor]) for factor in range(3)]
    found = model.loss(features, ids, label_smoothing=0.1)
    expected = masked_cross_entropy(logits, digits, label_smoothing=0.1)
    torch.testing.assert_close(found.loss, expected)
    assert torch.equal(found.guesses_NF, torch.stack([one.argmax(-1) for one in logits], -1))
    wanted = [features, model.head.weight, model.chain.weight]  # type: ignore[union-attr]
    ours = torch.autograd.grad(found.loss, wanted)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, wanted))
    assert all(gradient.abs().sum() > 0 for gradient in ours)


def test_fresh_it_guesses_independently() -> None:
    model, plain = MaskGIT.untrained(CONFIG), MaskGIT.untrained(replace(CONFIG, chained=False))
    plain.load_state_dict(model.state_dict(), strict=False)
    features, ids = torch.randn(9, 32), torch.randint(0, 60, (9,))
    torch.testing.assert_close(model.loss(features, ids).loss, plain.loss(features, ids).loss)
    logits = plain.logits(features)
    for factor in range(3):
        torch.testing.assert_close(model.next_logits(features, plain.vocab.split(ids)[:, :factor]), logits[factor])


def test_draws_have_the_joint_probability() -> None:
    model = model_of()
    features = torch.randn(1, 32, generator=torch.Generator().manual_seed(3))
    every = model.vocab.split(torch.arange(60))
    with torch.no_grad():
        log_probs = torch.zeros(60)
        for factor in range(3):
            logits = model.next_logits(features.expand(60, -1), every[:, :factor])
            log_probs += logits.log_softmax(-1).gather(1, every[:, factor : factor + 1])[:, 0]
        drawn = draw_ids(model, features.expand(40_000, -1), generator=torch.Generator().manual_seed(0))
    assert log_probs.exp().sum() == pytest.approx(1, abs=1e-5)
    ids = model.vocab.join(drawn.ids_NF)
    torch.testing.assert_close(drawn.log_probs_N, log_probs[ids], atol=1e-4, rtol=1e-4)
    shares = ids.bincount(minlength=60) / len(ids)
    assert (shares - log_probs.exp()).abs().max() < 0.012


def test_what_digits_share_is_learned() -> None:
    """Ids 0, 7, 14, ... of 6 x 6: both digits equal. Guessed independently, five draws of six would be none of them."""
    vocabulary = Vocabulary(codebook_size=36, levels=(6, 6))
    right = {}
    for chained in (False, True):
        model = MaskGIT.untrained(replace(CONFIG, vocabulary=vocabulary, chained=chained), seed=0).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        generator = torch.Generator().manual_seed(0)
        for _ in range(150):
            ids = 7 * torch.randint(0, 6, (16, 8), generator=generator)
            features = model(torch.full_like(ids, 36), grid=GRID, condition=None)
            optimizer.zero_grad()
            model.loss(features.flatten(0, 1), ids.flatten()).loss.backward()
            optimizer.step()
        ids = sample(Prompted(model), grid=GRID, condition=None, num=64, steps=1, generator=generator)
        right[chained] = float((ids % 7 == 0).float().mean())
    assert right[True] > 0.95
    assert right[False] < 0.35


def test_one_level_has_nothing_to_chain_and_all_at_once_is_refused() -> None:
    assert not MaskGIT.untrained(replace(CONFIG, vocabulary=Vocabulary(codebook_size=60, levels=(60,)))).is_chained
    with pytest.raises(InputError, match="ask next_logits"):
        model_of().logits(torch.zeros(1, 32))
