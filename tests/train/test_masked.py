"""The masked objective and its critics: what counts, what is told, what moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.generate import ByteTextConfig, MaskGIT, MaskGITConfig, TokenCritic, TokenCriticConfig, Vocabulary
from tokenreel.tokenizers.configs import Stack
from tokenreel.train.masked import (
    CriticAlone,
    Guesser,
    Masked,
    MaskingConfig,
    Shown,
    _hidden_features,
    _thinned,
    drawn_into,
    fooling_loss,
    posed,
    self_critic_loss,
)
from tokenreel.train.token_batches import TokenBatch
from tokenreel.types import Grid

torch.set_num_threads(1)

STACK = Stack(dim=32, depth=1, num_heads=2, head_dim=16, mlp_dim=32)
VOCABULARY = Vocabulary(codebook_size=12, levels=(4, 3))
CONFIG = MaskGITConfig(
    vocabulary=VOCABULARY,
    stack=STACK,
    extents=(3, 2, 2),
    context_dim=16,
    text=ByteTextConfig(stack=Stack(dim=16, depth=1, num_heads=1, head_dim=16, mlp_dim=16)),
    null_probability=0.3,
    self_critic=True,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(
    num: int = 4, *, captions: Any = ("a", "b"), labels: Any = (None,), short: int = 0, seed: int = 0
) -> TokenBatch:
    """Random ids on 3 x 2 x 2; the last ``short`` rows are images."""
    ids = torch.randint(0, 12, (num, 12), generator=generator(seed))
    valid = torch.ones(num, 12, dtype=torch.bool)
    valid[num - short :, 4:] = False
    return TokenBatch(
        ids_BL=ids * valid,
        grid=Grid(t=3, h=2, w=2),
        valid_mask=valid if short else None,
        captions=tuple(captions[row % len(captions)] for row in range(num)),
        labels=tuple(labels[row % len(labels)] for row in range(num)),
        sources=("here",) * num,
        index=0,
    )


def model_of(**changes: Any) -> MaskGIT:
    return MaskGIT.untrained(replace(CONFIG, **changes)).train()


def critic_of(**changes: Any) -> TokenCritic:
    options = {"vocabulary": VOCABULARY, "stack": STACK, "extents": (3, 2, 2), "context_dim": 16, **changes}
    return TokenCritic.untrained(TokenCriticConfig(**options)).train()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_cross_entropy_of_hidden_real_tokens(smoothing: float) -> None:
    model, given = model_of(), batch(5, short=2)
    masking = MaskingConfig(label_smoothing=smoothing)
    found = Guesser(model, masking)(given, generator=generator(7))
    puzzle = posed(model, given, masking, encoder=None, generator=generator(7))
    assert given.valid_mask is not None
    assert not bool((puzzle.is_masked_BL & ~given.valid_mask).any())
    assert bool(puzzle.is_masked_BL.any(1).all())
    features = model(
        puzzle.ids_BL.masked_fill(puzzle.is_masked_BL, 12),
        grid=puzzle.grid,
        condition=puzzle.condition,
        valid_mask=puzzle.valid_mask,
        is_null=puzzle.is_null_B,
    )[puzzle.is_masked_BL]
    ids = given.ids_BL[puzzle.is_masked_BL]
    first, second = model.logits(features)
    wanted = F.cross_entropy(first, ids % 4, label_smoothing=smoothing)
    wanted = wanted + F.cross_entropy(second, ids // 4, label_smoothing=smoothing)
    torch.testing.assert_close(found.loss, wanted, rtol=1e-5, atol=1e-6)
    right = (first.argmax(-1) == ids % 4) & (second.argmax(-1) == ids // 4)
    assert found.metrics["accuracy"] == pytest.approx(right.float().mean().item())
    assert found.metrics["masked_share"] == pytest.approx(len(ids) / given.num_tokens)


def test_a_share_of_the_hidden_tokens_is_scored_and_the_rest_is_still_seen_by_the_critic() -> None:
    model, given = model_of(null_probability=0.0), batch(6)
    whole = Guesser(model, MaskingConfig(), self_weight=1.0)(given, generator=generator(7))
    found = Guesser(model, MaskingConfig(scored_share=0.3), shows=True)(given, generator=generator(7))
    assert found.metrics["masked_share"] == whole.metrics["masked_share"]
    assert found.metrics["guess_loss"] != whole.metrics["guess_loss"]
    assert found.shown is not None
    assert bool((found.shown.filled_BL != 12).all())
    few = Guesser(model, MaskingConfig(scored_share=1e-6))(given, generator=generator(7))
    assert torch.isfinite(few.loss)  # one token at least
    for share in (0.0, 1.1):
        with pytest.raises(InputError, match=r"scored_share must lie in \(0, 1\]"):
            MaskingConfig(scored_share=share)


def test_rare_ids_are_scored_more_often_and_the_loss_is_the_same_on_average() -> None:
    masking = MaskingConfig(scored_share=0.25, scores_rare=True)
    ids = torch.cat([torch.zeros(900, dtype=torch.int64), torch.arange(1, 101)])
    losses = torch.rand(1000, generator=generator(3)) + ids.gt(0) * 5  # those of rare ids are higher
    counts, means = torch.zeros(1000), []
    for seed in range(300):
        is_scored, weights = _thinned(ids, masking, generator(seed))
        assert weights is not None
        counts += is_scored
        means.append(float((losses[is_scored] * weights).mean()))
    assert counts[900:].min() == 300  # a rare id always
    assert float(counts.mean()) / 300 == pytest.approx(0.25, abs=0.01)
    error = float(torch.tensor(means).std()) / len(means) ** 0.5
    assert sum(means) / len(means) == pytest.approx(float(losses.mean()), abs=4 * error)
    spread = float(torch.tensor(means).std())
    evenly = [_thinned(ids, MaskingConfig(scored_share=0.25), generator(seed)) for seed in range(300)]
    assert all(weights is None for _, weights in evenly)
    assert spread < 0.5 * float(torch.stack([losses[is_scored].mean() for is_scored, _ in evenly]).std())


def test_gradients_with_rare_ids_scored_are_those_of_all_on_average() -> None:
    model, given = model_of(null_probability=0.0), batch(8)
    parameter = model.head.bias

    def slope(masking: MaskingConfig, seed: int) -> Tensor:
        draws = generator(7)
        puzzle = posed(model, given, masking, encoder=None, generator=draws)
        features = _hidden_features(model, puzzle, draws).detach()
        wanted = puzzle.ids_BL[puzzle.is_masked_BL]
        is_scored, weights = _thinned(wanted, masking, generator(seed))
        loss = model.loss(features[is_scored], wanted[is_scored], weights_N=weights).loss
        return torch.autograd.grad(loss, parameter)[0]

    whole = slope(MaskingConfig(scored_share=1.0), 0)
    few = torch.stack([slope(MaskingConfig(scored_share=0.4, scores_rare=True), seed) for seed in range(400)])
    assert float((few.mean(0) - whole).norm()) < 0.05 * float(whole.norm()) + 4 * float(few.std(0).norm()) / 20


def test_what_is_not_hidden_is_not_scored() -> None:
    """One token hidden of each row: only its digits decide the gradient of the output layer's bias."""
    model, given = model_of(), batch(1)
    Guesser(model, MaskingConfig())(given, generator=generator(3)).loss.backward()
    masked = posed(model, given, MaskingConfig(), encoder=None, generator=generator(3)).is_masked_BL
    digits = torch.cat([given.ids_BL[masked] % 4, 4 + given.ids_BL[masked] // 4])
    grad = model.head.bias.grad
    assert grad is not None
    assert set(torch.nonzero(grad < 0).flatten().tolist()) <= set(digits.tolist())


def test_the_null_condition_is_drawn_with_its_probability_and_for_rows_without_caption() -> None:
    model = model_of()
    given = batch(200, captions=("a red ball", None, "", "b"))
    rows = torch.stack(
        [posed(model, given, MaskingConfig(), encoder=None, generator=generator(n)).is_null_B for n in range(20)]
    )
    told, untold = rows[:, 0::4].float().mean(), rows[:, 1::4]
    assert 0.27 < told < 0.33
    assert bool(untold.all())
    assert bool(rows[:, 2::4].all())
    assert not posed(model.eval(), batch(50), MaskingConfig(), encoder=None, generator=generator()).is_null_B.any()


def test_rows_without_label_are_told_nothing() -> None:
    model = MaskGIT.untrained(replace(CONFIG, context_dim=None, text=None, num_classes=5)).eval()
    given = batch(4, labels=(2, None))
    puzzle = posed(model, given, MaskingConfig(), encoder=None, generator=generator())
    assert puzzle.condition is not None
    assert puzzle.condition.labels_B is not None
    assert puzzle.condition.labels_B[::2].tolist() == [2, 2]
    assert puzzle.is_null_B.tolist() == [False, True, False, True]
    free = MaskGIT.untrained(replace(CONFIG, context_dim=None, text=None)).eval()
    assert posed(free, given, MaskingConfig(), encoder=None, generator=generator()).condition is None


def test_primed_steps_stay_and_short_rows_still_have_something_to_guess() -> None:
    model, given = model_of(), batch(300, short=150)
    puzzle = posed(model, given, MaskingConfig(primed_share=1.0), encoder=None, generator=generator())
    hidden = puzzle.is_masked_BL.view(300, 3, 4)
    assert not bool(hidden[:150, 0].any())
    assert bool(hidden.flatten(1).any(1).all())
    some = posed(model, given, MaskingConfig(primed_share=0.25), encoder=None, generator=generator()).is_masked_BL
    assert 0 < float(some.view(300, 3, 4)[:150, 0].any(1).float().mean()) < 1


def test_given_steps_are_never_hidden() -> None:
    model, given = model_of(), replace(batch(8), given_steps=2)
    for seed in range(5):
        masking = MaskingConfig(primed_share=0.9, blank_share=0.5)
        puzzle = posed(model, given, masking, encoder=None, generator=generator(seed))
        assert not bool(puzzle.is_masked_BL[:, :8].any())
        assert bool(puzzle.is_masked_BL[:, 8:].any(1).all())
        assert puzzle.ids_BL is given.ids_BL
        puzzle = posed(model, given, replace(masking, given_noise=1.0), encoder=None, generator=generator(seed))
        is_other = puzzle.ids_BL != given.ids_BL
        assert bool(is_other[:, :8].any())  # what is given strays a little
        assert not bool(is_other[:, 8:].any())  # what is guessed is as it was


def test_tokens_seen_beside_the_hidden_ones_stray() -> None:
    model, given = model_of(), replace(batch(40), given_steps=1)
    puzzle = posed(model, given, MaskingConfig(seen_noise=1.0), encoder=None, generator=generator())
    is_other = puzzle.ids_BL != given.ids_BL
    seen = ~puzzle.is_masked_BL
    assert not bool(is_other[:, :4].any())  # what is given has a setting of its own
    assert not bool(is_other[puzzle.is_masked_BL].any())  # what is guessed is as it was
    assert 0.15 < float(is_other[:, 4:][seen[:, 4:]].float().mean()) < 0.5
    assert puzzle.is_strayed_BL is not None
    assert torch.equal(puzzle.is_strayed_BL, is_other)
    plain = posed(model, given, MaskingConfig(), encoder=None, generator=generator())
    assert plain.is_strayed_BL is None


def test_for_a_critic_tokens_that_strayed_are_not_real() -> None:
    model = model_of(self_critic=True)
    masking = MaskingConfig(seen_noise=1.0)
    puzzle = posed(model, batch(40), masking, encoder=None, generator=generator())
    assert puzzle.is_strayed_BL is not None
    all_guessed = Shown(puzzle, puzzle.ids_BL)
    _, metrics = self_critic_loss(model, all_guessed, generator=generator())
    share = puzzle.is_strayed_BL.float().mean()
    assert 0 < float(share) == pytest.approx(float(metrics["fake_share"]))


def test_gradients_reach_the_text_and_equal_seeds_give_equal_losses() -> None:
    model = model_of()
    found = Guesser(model, MaskingConfig())(batch(), generator=generator(1))
    found.loss.backward()
    assert model.text is not None
    assert model.text.embed.weight.grad is not None
    assert bool(model.text.embed.weight.grad.any())
    again = Guesser(model, MaskingConfig())(batch(), generator=generator(1))
    other = Guesser(model, MaskingConfig())(batch(), generator=generator(2))
    assert torch.equal(found.loss, again.loss)
    assert not torch.equal(found.loss, other.loss)


# Critics.


def bce(scores: Tensor, shown: Shown, valid: Tensor) -> Tensor:
    """Fake is what was hidden and came out wrong."""
    fake = shown.puzzle.is_masked_BL & (shown.filled_BL != shown.puzzle.ids_BL)
    return F.binary_cross_entropy_with_logits(scores[valid], fake[valid].float())


def test_a_token_critic_judges_what_the_generator_fills_in() -> None:
    model, critic, given = model_of(), critic_of(), batch(6, short=2)
    objective = Masked(critic, start_step=2)
    step = objective(Guesser(model, MaskingConfig(), shows=True), given, step=0, generator=generator(4))
    shown = step.seen
    assert (step.num_clips, step.num_tokens) == (6, given.num_tokens)
    assert given.valid_mask is not None
    hidden = shown.puzzle.is_masked_BL
    assert torch.equal(shown.filled_BL[~hidden], given.ids_BL[~hidden])
    assert bool((shown.filled_BL < 12).all())
    assert bool((shown.filled_BL != given.ids_BL).any())
    assert not shown.puzzle.condition.context_BSD.requires_grad
    assert objective.critic_step(critic, shown, step=1, generator=generator(5)) is None
    found = objective.critic_step(critic, shown, step=2, generator=generator(5))
    assert found is not None
    scores = critic(
        shown.filled_BL,
        grid=given.grid,
        condition=shown.puzzle.condition,
        valid_mask=given.valid_mask,
        is_null=shown.puzzle.is_null_B,
    )
    torch.testing.assert_close(found[0], bce(scores, shown, given.valid_mask), rtol=1e-5, atol=1e-6)
    found[0].backward()
    assert all(p.grad is None for p in model.parameters())
    share = (hidden & (shown.filled_BL != given.ids_BL)).sum() / given.num_tokens
    assert float(found[1]["fake_share"]) == pytest.approx(float(share))


def test_the_self_critic_adds_its_weighted_loss() -> None:
    model = model_of()
    plain = Guesser(model, MaskingConfig())(batch(), generator=generator(4))
    both = Guesser(model, MaskingConfig(), self_weight=0.5)(batch(), generator=generator(4))
    assert both.shown is None
    torch.testing.assert_close(both.loss, plain.loss + 0.5 * both.metrics["critic_loss"])
    both.loss.backward()
    assert model.critic_head is not None
    assert model.critic_head.weight.grad is not None
    assert bool(model.critic_head.weight.grad.any())


@pytest.mark.parametrize("kind", ["token", "self"])
def test_a_generator_learns_from_what_its_critic_says(kind: str) -> None:
    """The term is -(reward - mean) log p of the draws; nothing of it reaches the critic, and none before its start."""
    model, critic = model_of(), critic_of()
    options: dict[str, Any] = {"shows": True} if kind == "token" else {"self_weight": 1.0}
    judge = critic if kind == "token" else None
    plain = Guesser(model, MaskingConfig(), **options)(batch(), generator=generator(4))
    guesser = Guesser(model, MaskingConfig(), **options, fooling=0.5, judge=judge)
    assert not any(name.startswith("_judge") for name, _ in guesser.named_parameters())
    found = guesser(batch(), generator=generator(4))
    torch.testing.assert_close(found.loss, plain.loss + 0.5 * found.metrics["fooling_loss"])
    assert 0 < float(found.metrics["fooled"]) < 1
    found.loss.backward()
    assert all(parameter.grad is None for parameter in critic.parameters())
    early = Masked(critic, start_step=3)(guesser, batch(), step=2, generator=generator(4))
    torch.testing.assert_close(early.loss, plain.loss)
    assert "fooling_loss" not in early.metrics


def test_the_fooling_loss_is_the_policy_gradient() -> None:
    model, features = model_of(), torch.randn(5, 32, generator=generator(2))
    given = batch(1)
    hidden = torch.arange(12)[None] < 5
    puzzle = posed(model, given, MaskingConfig(), encoder=None, generator=generator())._replace(is_masked_BL=hidden)
    draws, scores = torch.randint(0, 12, (1, 12), generator=generator(3)), torch.linspace(-2, 2, 12)[None]
    loss, _ = fooling_loss(model, Shown(puzzle, draws), features, scores)
    first, second = (logits.log_softmax(-1) for logits in model.logits(features))
    chosen = draws[0, :5]
    log_p = first.gather(1, chosen[:, None] % 4)[:, 0] + second.gather(1, chosen[:, None] // 4)[:, 0]
    reward = torch.sigmoid(-scores[0, :5])
    torch.testing.assert_close(loss, -((reward - reward.mean()) * log_p).mean())


def test_draws_that_a_critic_calls_fake_become_rare() -> None:
    """A critic that takes ids below 6 for fake, and nothing else to learn from."""
    model, given = model_of(null_probability=0.0), batch(16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    shares = []
    for step in range(60):
        puzzle = posed(model, given, MaskingConfig(), encoder=None, generator=generator(step))
        hidden, features = puzzle.is_masked_BL, _hidden_features(model, puzzle, generator(step))
        filled = drawn_into(model, puzzle, features, 1.0, generator(step))
        shares.append(float((filled[hidden] < 6).float().mean()))
        loss, _ = fooling_loss(model, Shown(puzzle, filled), features, (filled < 6).float() * 8 - 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert shares[0] > 0.3
    assert sum(shares[-5:]) / 5 < 0.1


@pytest.mark.parametrize("kind", ["token", "self"])
def test_a_critic_that_learns_after_leaves_the_generator_as_it_is(kind: str) -> None:
    model = model_of()
    alone = CriticAlone(model, critic_of() if kind == "token" else None, MaskingConfig()).train()
    learned = {name for name, parameter in alone.named_parameters() if parameter.requires_grad}
    if kind == "self":
        assert learned == {"critic.critic_head.weight", "critic.critic_head.bias"}
    else:
        assert learned == {f"critic.{name}" for name, _ in critic_of().named_parameters()}
    step = Masked()(alone, batch(), step=0, generator=generator(1))
    step.loss.backward()
    moved = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert moved == ([] if kind == "token" else ["critic_head.weight", "critic_head.bias"])
    assert {"critic_loss", "recall", "specificity"} <= step.metrics.keys()
    with pytest.raises(InputError, match="no self critic"):
        CriticAlone(model_of(self_critic=False), None, MaskingConfig())


@pytest.mark.parametrize("options", [{"self_weight": 1.0}, {"shows": True}])
def test_a_step_that_is_not_finite_is_left_to_the_loop(options: dict[str, Any]) -> None:
    model = model_of()
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    found = Guesser(model, MaskingConfig(), **options)(batch(), generator=generator())
    assert not torch.isfinite(found.loss)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"schedule": "cosinus"}, "schedule"), ({"label_smoothing": 1.0}, "smoothing"), ({"primed_share": 2.0}, "primed")],
)
def test_options_out_of_range_are_told(options: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=name):
        MaskingConfig(**options)
