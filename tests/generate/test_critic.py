from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tokenreel.errors import FormatError, InputError
from tokenreel.generate.condition import Condition, label_condition
from tokenreel.generate.critic import Scorer, SelfCritic, TokenCritic, TokenCriticConfig, critic_labels, filled
from tokenreel.generate.loss import critic_loss
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.maskgit_config import MaskGITConfig
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.tokenizers.configs import BlockOptions, Stack
from tokenreel.types import Grid

torch.set_num_threads(1)

GRID = Grid(t=2, h=2, w=3)
STACK = Stack(dim=32, depth=2, num_heads=2, head_dim=16, mlp_dim=48)
VOCABULARY = Vocabulary(codebook_size=20, levels=(5, 4))
CONFIG = TokenCriticConfig(vocabulary=VOCABULARY, stack=STACK, extents=(2, 4, 4), context_dim=8)
CONFIGS = {"text": CONFIG, "alone": replace(CONFIG, context_dim=None)}
OWN = MaskGITConfig(vocabulary=VOCABULARY, stack=STACK, extents=(2, 4, 4), context_dim=8, self_critic=True)


def ids_of(num: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 20, (num, GRID.num_cells), generator=torch.Generator().manual_seed(seed))


def told(num: int = 3) -> Condition:
    context = torch.randn(num, 4, 8, generator=torch.Generator().manual_seed(0))
    return Condition(context, torch.arange(4) < torch.arange(2, 2 + num)[:, None])


@pytest.fixture(params=["text", "alone", "self"])
def scorer(request: pytest.FixtureRequest) -> Scorer:
    if request.param == "self":
        return SelfCritic(MaskGIT.untrained(OWN))
    return TokenCritic.untrained(CONFIGS[request.param])


# Labels.


def test_a_position_is_fake_exactly_if_it_was_sampled_and_differs() -> None:
    generator = torch.Generator().manual_seed(0)
    real, other = ids_of(40), ids_of(40, seed=1)
    is_masked = torch.rand(real.shape, generator=generator) < 0.5
    kept = torch.rand(real.shape, generator=generator) < 0.3  # guessed right
    shown = torch.where(is_masked & ~kept, other, real)
    labels = critic_labels(real, shown, is_masked)
    for row in range(40):
        for place in range(GRID.num_cells):
            was_sampled, is_same = is_masked[row, place], shown[row, place] == real[row, place]
            assert bool(labels[row, place]) == bool(was_sampled and not is_same)
    assert not labels[~is_masked].any()
    assert 0 < labels.sum() < is_masked.sum()


def test_what_was_seen_is_never_fake_even_where_the_ids_differ() -> None:
    real = ids_of()
    assert not critic_labels(real, (real + 1) % 20, torch.zeros_like(real, dtype=torch.bool)).any()
    assert critic_labels(real, (real + 1) % 20, torch.ones_like(real, dtype=torch.bool)).all()


def test_filling_changes_masked_ids_only_and_draws_the_softmax() -> None:
    num = 4000
    ids = torch.full((1, num), 7)
    is_masked = torch.arange(num)[None] % 4 > 0
    logits = [
        torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5]).expand(3000, 5),
        torch.tensor([1.0, 0.0, 0.0, -9.0]).expand(3000, 4),
    ]
    shown = filled(logits, ids, is_masked, VOCABULARY, generator=torch.Generator().manual_seed(0))
    assert (shown[~is_masked] == 7).all()
    digits = VOCABULARY.split(shown[is_masked])
    for factor, logit in enumerate(logits):
        shares = torch.bincount(digits[:, factor], minlength=logit.shape[1]) / 3000
        torch.testing.assert_close(shares, logit[0].softmax(0), rtol=0, atol=0.03)
    again = filled(logits, ids, is_masked, VOCABULARY, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shown, again)
    best = filled(logits, ids, is_masked, VOCABULARY, temperature=0)
    assert (best[is_masked] == 2).all()
    assert (ids == 7).all()
    with pytest.raises(InputError, match="temperature"):
        filled(logits, ids, is_masked, VOCABULARY, temperature=-1)


# Scores.


@torch.no_grad()
def test_every_scorer_gives_one_float32_a_token_and_no_row_sees_another(scorer: Scorer) -> None:
    ids = ids_of()
    scores = scorer.scores(ids, grid=GRID, prepared=scorer.prepare(told(), num=3))
    assert (scores.shape, scores.dtype) == (ids.shape, torch.float32)
    alone = scorer.scores(
        ids[1:2], grid=GRID, prepared=scorer.prepare(Condition(*(x if x is None else x[1:2] for x in told())), num=1)
    )
    torch.testing.assert_close(scores[1:2], alone, rtol=1e-4, atol=1e-5)
    valid = torch.ones_like(ids, dtype=torch.bool)
    valid[:, -3:] = False
    changed = ids.clone()
    changed[:, -3:] = 0
    pair = [
        scorer.scores(each, grid=GRID, prepared=scorer.prepare(told(), num=3), valid_mask=valid)[:, :-3]
        for each in (ids, changed)
    ]
    assert torch.equal(*pair)


@torch.no_grad()
def test_text_counts_for_those_that_read_it() -> None:
    ids = ids_of()
    for name, config in CONFIGS.items():
        critic = TokenCritic.untrained(config)
        told_one, told_none = (critic.prepare(condition, num=3) for condition in (told(), None))
        differs = not torch.equal(*(critic.scores(ids, grid=GRID, prepared=p) for p in (told_one, told_none)))
        assert differs == (name == "text")
        with_labels = told()._replace(labels_B=torch.tensor([1, 2, 3]))
        pair = [critic(ids, grid=GRID, condition=condition) for condition in (told(), with_labels)]
        assert torch.equal(*pair)


@torch.no_grad()
def test_labels_count_for_those_that_read_them() -> None:
    critic = TokenCritic.untrained(replace(CONFIGS["alone"], num_classes=4))
    labelled = told()._replace(labels_B=torch.tensor([1, 2, 3]))
    found = [
        critic(ids_of(), grid=GRID, condition=condition)
        for condition in (told(), labelled, label_condition(torch.tensor([1, 2, 3])))
    ]
    assert torch.equal(found[1], found[2])
    assert (found[0] - found[1]).abs().amax(1).min() > 0


def test_training_and_scoring_agree_and_every_weight_learns() -> None:
    critic = TokenCritic.untrained(CONFIG).train()
    ids = ids_of()
    scores = critic(ids, grid=GRID, condition=told(), is_null=torch.tensor([False, True, False]))
    critic_loss(scores, ids > 9).backward()
    unused = critic.network.embed.weight.grad
    assert unused is not None
    assert not unused[5].any()  # the row of the mask: a critic sees whole videos
    for name, parameter in critic.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    with critic.running():
        prepared = critic.prepare(told(), num=3)
        found = critic.scores(ids, grid=GRID, prepared=prepared)
        torch.testing.assert_close(found, critic(ids, grid=GRID, condition=told()), rtol=0, atol=0)


def test_a_critic_learns_to_tell_the_tokens_that_break_a_rule() -> None:
    """Ids of a real video are all below 10, or none is; those of the other half are fake. Judged on new videos."""
    generator = torch.Generator().manual_seed(0)
    critic = TokenCritic.untrained(replace(CONFIGS["alone"], blocks=BlockOptions(norm="rms", qk_norm=True))).train()
    optimizer = torch.optim.Adam(critic.parameters(), lr=4e-3)

    def batch(num: int) -> tuple[torch.Tensor, torch.Tensor]:
        half = 10 * torch.randint(0, 2, (num, 1), generator=generator)
        real = half + torch.randint(0, 10, (num, GRID.num_cells), generator=generator)
        is_masked = torch.rand(real.shape, generator=generator) < 0.25
        shown = torch.where(is_masked, (real + 10) % 20, real)
        return shown, critic_labels(real, shown, is_masked)

    for _ in range(150):
        shown, labels = batch(32)
        loss = critic_loss(critic(shown, grid=GRID, condition=None), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shown, labels = batch(200)
    with critic.running():
        scores = critic.scores(shown, grid=GRID, prepared=critic.prepare(None, num=200))
    assert ((scores > 0) == labels).float().mean() > 0.9


# At rest.


def test_a_folder_gives_the_critic_again(tmp_path: Path) -> None:
    critic = TokenCritic.untrained(CONFIG)
    critic.save_pretrained(tmp_path)
    again = TokenCritic.from_pretrained(tmp_path)
    assert (again.config, again.fingerprint) == (critic.config, critic.fingerprint)
    with pytest.raises(FormatError, match="family 'token-critic', not 'maskgit'"):
        MaskGIT.from_pretrained(tmp_path)


def test_a_generator_without_the_head_is_no_self_critic() -> None:
    with pytest.raises(InputError, match="self_critic = False"):
        SelfCritic(MaskGIT.untrained(replace(OWN, self_critic=False)))


def test_the_named_sizes_are_those_of_the_generators() -> None:
    assert set(TokenCritic.sizes) == set(MaskGIT.sizes)
    assert TokenCritic.sizes["phenaki"].stack == MaskGIT.sizes["phenaki"].stack
