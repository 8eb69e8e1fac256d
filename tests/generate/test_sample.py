"""Sampling: its laws for every order, guidance, known tokens, critics, errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from sampled import Judge, Knower, Toy
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.generate.condition import Condition, label_condition
from tokenreel.generate.critic import SelfCritic, TokenCritic, TokenCriticConfig
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.maskgit_config import MaskGITConfig
from tokenreel.generate.sample import SampleStep, sample
from tokenreel.generate.sample_orders import Order, halton_places
from tokenreel.generate.sample_ramps import linear
from tokenreel.generate.schedule import masked_counts
from tokenreel.generate.text import ByteTextConfig
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.tokenizers.configs import Stack
from tokenreel.types import Grid

torch.set_num_threads(1)

GRID = Grid(t=3, h=2, w=4)
WHOLE = Vocabulary(codebook_size=60, levels=(60,))
FACTORS = Vocabulary(codebook_size=60, levels=(5, 4, 3))
ORDERS = ["confidence", "critic", "self_critic", "halton", "random", "front_to_back"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def told(num: int = 2) -> Condition:
    return Condition(torch.arange(1.0, num + 1).view(num, 1, 1), torch.ones(num, 1, dtype=torch.bool))


def run(model: Any, order: Any = "confidence", *, seed: int = 0, **options: Any) -> Tensor:
    kind = order.kind if isinstance(order, Order) else order
    given: dict[str, Any] = {"grid": GRID, "condition": told(), "steps": 6, "order": order}
    if kind in ("critic", "self_critic"):
        given["critic"] = Judge(30)
    return sample(model, generator=generator(seed), **{**given, **options})


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("vocab", [WHOLE, FACTORS], ids=["whole", "factors"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_equal_seeds_equal_ids_and_every_token_is_decided(order: str, vocab: Vocabulary, scale: float) -> None:
    seen: list[SampleStep] = []
    ids = run(Toy(vocab), order, guidance_scale=scale, callback=seen.append)
    assert ids.shape == (2, 24)
    assert ids.dtype == torch.int64
    assert int(ids.min()) >= 0
    assert int(ids.max()) < 60
    assert torch.equal(ids, run(Toy(vocab), order, guidance_scale=scale))
    assert not torch.equal(ids, run(Toy(vocab), order, guidance_scale=scale, seed=1))
    assert not bool(seen[-1].is_masked_BL.any())
    assert torch.equal(seen[-1].ids_BL, ids)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("schedule", ["cosine", "linear", "square"])
def test_open_tokens_follow_the_schedule(order: str, schedule: str) -> None:
    seen: list[SampleStep] = []
    run(Toy(WHOLE), order, callback=seen.append, schedule=schedule)
    counts = masked_counts(6, 24, schedule)
    assert [step.is_masked_BL.sum(1).tolist() for step in seen] == [[count] * 2 for count in counts[1:]]
    for step in seen:
        assert torch.equal(step.ids_BL == WHOLE.mask_id, step.is_masked_BL)
        assert (step.step, step.steps) == (seen.index(step), 6)


@pytest.mark.parametrize("order", ["confidence", "halton", "random", "front_to_back"])
def test_decided_tokens_stay_as_they_are_without_a_critic(order: str) -> None:
    seen: list[SampleStep] = []
    run(Toy(WHOLE), order, callback=seen.append)
    for before, after in pairwise(seen):
        assert not bool((after.is_masked_BL & ~before.is_masked_BL).any())
        kept = ~before.is_masked_BL
        assert torch.equal(before.ids_BL[kept], after.ids_BL[kept])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_known_tokens_are_never_changed(order: str, scale: float) -> None:
    known = torch.randint(0, 60, (2, 24), generator=generator(7))
    is_masked = torch.rand(2, 24, generator=generator(8)) < 0.6
    is_masked[1] = False
    is_masked[1, 5:8] = True  # rows of very different numbers of open tokens
    seen: list[SampleStep] = []
    ids = run(
        Toy(WHOLE), order, known_ids=known, is_masked=is_masked, guidance_scale=scale, callback=seen.append, steps=9
    )
    assert torch.equal(ids[~is_masked], known[~is_masked])
    assert not torch.equal(ids[is_masked], known[is_masked])
    for step in seen:
        assert torch.equal(step.ids_BL[~is_masked], known[~is_masked])
        assert not bool((step.is_masked_BL & ~is_masked).any())
    counts = [masked_counts(9, int(row.sum())) for row in is_masked]
    assert [step.is_masked_BL.sum(1).tolist() for step in seen] == [
        [row[step.step + 1] for row in counts] for step in seen
    ]


def test_what_lies_under_the_mask_does_not_matter() -> None:
    known = torch.randint(0, 60, (2, 24), generator=generator(7))
    is_masked = torch.rand(2, 24, generator=generator(8)) < 0.6
    other = torch.where(is_masked, 59, known)
    assert torch.equal(
        run(Toy(WHOLE), known_ids=known, is_masked=is_masked), run(Toy(WHOLE), known_ids=other, is_masked=is_masked)
    )


def test_all_known_is_nothing_to_do() -> None:
    known = torch.randint(0, 60, (2, 24), generator=generator(7))
    model = Toy(WHOLE)
    assert torch.equal(run(model, known_ids=known, is_masked=torch.zeros(2, 24, dtype=torch.bool)), known)
    assert model.calls == []


@pytest.mark.parametrize("order", ORDERS)
def test_guidance_one_is_no_guidance_and_costs_one_branch(order: str) -> None:
    plain, one, guided = Toy(WHOLE), Toy(WHOLE), Toy(WHOLE)
    without = sample(
        plain,
        grid=GRID,
        condition=told(),
        order=order,  # type: ignore[arg-type]
        steps=6,
        critic=Judge(30) if "critic" in order else None,
        generator=generator(),
    )
    assert torch.equal(run(one, order, guidance_scale=1.0), without)
    assert torch.equal(run(Toy(WHOLE), order, guidance_scale=lambda progress: 1.0), without)
    assert not torch.equal(run(guided, order, guidance_scale=4.0), without)
    assert [rows for rows, _ in one.calls if rows] == [2] * 6
    assert [rows for rows, _ in guided.calls if rows] == [4] * 6
    assert plain.prepared == one.prepared == guided.prepared == 1


def test_guidance_is_that_of_logits() -> None:
    """At temperature 0 and one step, against two passes combined after the output layer."""
    model, condition = Toy(FACTORS).eval(), told()
    ids = run(model, guidance_scale=2.5, temperature=0.0, steps=1)
    open_BL = torch.full((2, 24), FACTORS.mask_id)
    logits = []
    for shown in (condition, None):
        features = model.features(open_BL, grid=GRID, prepared=model.prepare(shown, num=2, guided=False))
        logits.append(model.logits(features.flatten(0, 1)))
    digits = [(null + 2.5 * (seen - null)).argmax(-1) for seen, null in zip(*logits)]
    assert torch.equal(ids.flatten(), FACTORS.join(torch.stack(digits, -1)))


def test_a_ramp_pays_for_the_null_branch_only_where_it_is_used() -> None:
    model = Toy(WHOLE)
    run(model, guidance_scale=linear(1, 3))
    assert [rows for rows, _ in model.calls if rows] == [2, 4, 4, 4, 4, 4]
    assert model.prepared == 2


@pytest.mark.parametrize("order", ["halton", "confidence"])
def test_the_output_layer_sees_only_open_positions(order: str) -> None:
    model = Toy(WHOLE)
    run(model, order)
    counts = masked_counts(6, 24)
    open_before = [2 * count for count in counts[:-1]]
    decided_now = [2 * (before - after) for before, after in pairwise(counts)]
    assert [num for _, num in model.calls if num] == (decided_now if order == "halton" else open_before)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("vocab", [WHOLE, FACTORS], ids=["whole", "factors"])
def test_a_model_that_knows_the_ids_gives_them_back(order: str, vocab: Vocabulary) -> None:
    truth = torch.randint(0, 60, (24,), generator=generator(5))
    assert torch.equal(run(Knower(vocab, truth), order), truth.expand(2, -1))


def test_confidence_without_noise_decides_the_surest_first() -> None:
    truth = torch.randint(0, 60, (24,), generator=generator(5))
    places = torch.randperm(24, generator=generator(6))
    model, seen = Knower(WHOLE, truth, strength_L=1.0 + places / 4.0), list[SampleStep]()
    run(model, Order(noise=0.0), temperature=0.0, callback=seen.append)
    for step, left in zip(seen, masked_counts(6, 24)[1:]):
        assert torch.equal(step.is_masked_BL[0], places < left)


@pytest.mark.parametrize("order", ["halton", "front_to_back"])
def test_planned_orders_are_kept(order: str) -> None:
    places = torch.from_numpy(halton_places(GRID)) if order == "halton" else torch.arange(24)
    seen: list[SampleStep] = []
    is_masked = torch.ones(2, 24, dtype=torch.bool)
    is_masked[:, 3] = is_masked[:, 11] = False
    run(Toy(WHOLE), order, callback=seen.append, known_ids=torch.zeros(2, 24, dtype=torch.int64), is_masked=is_masked)
    still_open = places[is_masked[0]].sort().values
    for step, left in zip(seen, masked_counts(6, 22)[1:]):
        assert sorted(places[step.is_masked_BL[1]].tolist()) == still_open[22 - left :].tolist()


class Fickle(Judge):
    """Takes back at every second call what it said."""

    def scores(self, ids_BL: Tensor, **options: Any) -> Tensor:
        scores_BL = super().scores(ids_BL, **options)
        return scores_BL if self.asked % 2 else -scores_BL


def test_a_critic_leaves_open_what_it_takes_for_fake() -> None:
    seen: list[SampleStep] = []
    judge = Judge(30)
    run(Toy(WHOLE), Order(kind="critic", noise=0.0), critic=judge, callback=seen.append, steps=8)
    assert judge.asked == 7  # not after the last step
    assert [((step.ids_BL < 30) & ~step.is_masked_BL).sum().item() for step in seen[:3]] == [0, 0, 0]


def test_a_critic_may_open_a_decided_token_again() -> None:
    seen: list[SampleStep] = []
    run(Toy(WHOLE), Order(kind="critic", noise=0.0), critic=Fickle(30), callback=seen.append, steps=8)
    reopened = [bool((after.is_masked_BL & ~before.is_masked_BL).any()) for before, after in pairwise(seen)]
    assert reopened[0]
    assert not reopened[-1]


def test_few_tokens_take_few_steps() -> None:
    model, seen = Toy(WHOLE), list[SampleStep]()
    is_masked = torch.zeros(2, 24, dtype=torch.bool)
    is_masked[:, :3] = True
    run(
        model,
        known_ids=torch.zeros(2, 24, dtype=torch.int64),
        is_masked=is_masked,
        steps=50,
        callback=seen.append,
    )
    assert len(seen) == len([rows for rows, _ in model.calls if rows]) <= 3


def test_padding_is_not_decided() -> None:
    valid = torch.ones(2, 24, dtype=torch.bool)
    valid[1, 8:] = False
    seen: list[SampleStep] = []
    ids = run(Toy(WHOLE), valid_mask=valid, callback=seen.append)
    assert not bool(ids[1, 8:].any())
    assert all(not bool(step.is_masked_BL[1, 8:].any()) for step in seen)
    assert bool(seen[0].is_masked_BL[1, :8].any())


def test_the_mode_of_the_model_is_put_back() -> None:
    model = Toy(WHOLE).train()
    run(model)
    assert model.training
    with pytest.raises(InputError):
        run(model, known_ids=torch.full((2, 24), 60), is_masked=torch.arange(48).view(2, 24) > 5)
    assert model.training


def test_unconditional_and_number_of_rows() -> None:
    ids = sample(Toy(WHOLE), grid=GRID, condition=None, steps=3, generator=generator())
    assert ids.shape == (1, 24)
    assert sample(Toy(WHOLE), grid=GRID, condition=None, num=3, generator=generator()).shape == (3, 24)
    assert run(Toy(WHOLE), condition=told(1), num=4).shape == (4, 24)
    assert not ids.requires_grad


def test_top_k_one_is_temperature_zero() -> None:
    assert torch.equal(run(Toy(WHOLE), "halton", top_k=1), run(Toy(WHOLE), "halton", temperature=0.0, seed=9))


KNOWN = torch.zeros(2, 24, dtype=torch.int64)
MASK = torch.ones(2, 24, dtype=torch.bool)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"order": "best"}, "order must be one of confidence"),
        ({"order": "critic", "critic": None}, "the order 'critic' needs a critic"),
        ({"critic": Judge(1)}, "the order 'confidence' asks no critic"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"top_p": 2.0}, "top_p"),
        ({"condition": None, "guidance_scale": 2.0}, "guidance_scale 2.0 needs a condition"),
        ({"known_ids": KNOWN}, "known_ids and is_masked go together"),
        ({"is_masked": MASK}, "known_ids and is_masked go together"),
        ({"known_ids": KNOWN, "is_masked": MASK[:, :5]}, r"is_masked must be bool of shape \(2, 24\)"),
        ({"known_ids": KNOWN, "is_masked": MASK.long()}, "is_masked must be bool"),
        ({"known_ids": KNOWN[:, :5], "is_masked": MASK}, r"known_ids must be int64 \(2, 24\)"),
        ({"known_ids": KNOWN.float(), "is_masked": MASK}, "known_ids must be int64"),
        ({"known_ids": KNOWN + 60, "is_masked": ~MASK}, r"known_ids must lie in \[0, 60\), found 60 to 60"),
        ({"known_ids": KNOWN[:1], "is_masked": MASK[:1]}, "known_ids stands for 1 rows, another"),
        ({"num": 3}, "stands for 2 rows, another argument for 3"),
        ({"valid_mask": MASK[:, :3]}, "valid_mask must be bool"),
        ({"schedule": "steep"}, "schedule must be one of"),
    ],
)
def test_errors(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(Toy(WHOLE), **options)


# The real generator: the laws hold for it as for the toys.

STACK = Stack(dim=32, depth=1, num_heads=2, head_dim=16, mlp_dim=32)
CONFIG = MaskGITConfig(
    vocabulary=FACTORS,
    stack=STACK,
    extents=(3, 2, 4),
    context_dim=24,
    text=ByteTextConfig(stack=Stack(dim=24, depth=1, num_heads=2, head_dim=12, mlp_dim=32)),
    self_critic=True,
)


@pytest.fixture(scope="module", params=[FACTORS, WHOLE], ids=["factors", "whole"])
def maskgit(request: pytest.FixtureRequest) -> MaskGIT:
    model = MaskGIT.untrained(replace(CONFIG, vocabulary=request.param))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that conditions and tokens matter
    return model


@pytest.mark.parametrize("order", ORDERS)
def test_maskgit_is_sampled(maskgit: MaskGIT, order: str) -> None:
    condition = maskgit.condition(["a red circle", "a blue square"])
    critic = TokenCritic.untrained(_critic(maskgit)) if order == "critic" else None
    known = torch.randint(0, 60, (2, 24), generator=generator(1))
    is_masked = torch.arange(24).expand(2, -1) >= 8
    options: dict[str, Any] = {"condition": condition, "known_ids": known, "is_masked": is_masked, "critic": critic}
    ids = run(maskgit, order, guidance_scale=3.0, **options)
    assert torch.equal(ids, run(maskgit, order, guidance_scale=3.0, **options))
    assert torch.equal(ids[:, :8], known[:, :8])
    assert int(ids.max()) < 60
    one = run(maskgit, order, guidance_scale=1.0, **options)
    plain = run(maskgit, order, **options)
    assert torch.equal(one, plain)
    assert not torch.equal(one, ids)


def _critic(maskgit: MaskGIT) -> TokenCriticConfig:
    return TokenCriticConfig(vocabulary=maskgit.vocab, stack=STACK, extents=(3, 2, 4), context_dim=24)


def test_maskgit_is_guided_before_its_output_layer(maskgit: MaskGIT) -> None:
    told_two = maskgit.condition(["a red circle", "a blue square"])
    ids = run(maskgit, condition=told_two, guidance_scale=3.0, temperature=0.0, steps=1)
    open_BL, logits = torch.full((2, 24), 60), []
    with torch.no_grad():
        for flag in (False, True):
            features = maskgit(open_BL, grid=GRID, condition=told_two, is_null=torch.tensor([flag, flag]))
            logits.append(maskgit.logits(features.flatten(0, 1)))
    combined = [null + 3.0 * (seen - null) for seen, null in zip(*logits)]
    for level, (chosen, guided) in enumerate(zip(maskgit.vocab.split(ids.flatten()).T, combined)):
        best = guided.max(-1).values
        assert torch.allclose(guided.gather(1, chosen[:, None])[:, 0], best, atol=1e-4), level


def test_the_critic_inside_is_the_default_of_self_critic(maskgit: MaskGIT) -> None:
    condition = maskgit.condition(["a", "b"])
    inside = run(maskgit, "self_critic", condition=condition, critic=None)
    assert torch.equal(inside, run(maskgit, "self_critic", condition=condition, critic=SelfCritic(maskgit)))
    with pytest.raises(InputError, match="needs a critic, for this model has none inside"):
        run(Toy(WHOLE), "self_critic", critic=None)


def test_autocast_holds(maskgit: MaskGIT) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ids = run(maskgit, condition=maskgit.condition(["a", "b"]), guidance_scale=2.0)
    assert ids.shape == (2, 24)
    assert int(ids.max()) < 60


def test_a_model_is_sampled_in_its_precision(maskgit: MaskGIT, monkeypatch: pytest.MonkeyPatch) -> None:
    condition, critic = maskgit.condition(["a", "b"]), TokenCritic.untrained(_critic(maskgit))
    weights = dict(maskgit.named_parameters())
    seen: list[torch.dtype] = []
    options: dict[str, Any] = {"condition": condition, "guidance_scale": 2.0, "critic": critic}

    def note(step: SampleStep) -> None:
        seen.extend(layer.weight.dtype for layer in (maskgit.head, critic.head))

    run(maskgit, "critic", callback=note, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        around = run(maskgit, "critic", callback=note, **options)
    monkeypatch.setattr(maskgit, "precision", "bf16")
    low = run(maskgit, "critic", callback=note, **options)
    assert seen == [torch.float32] * 12 + [torch.bfloat16] * 24  # cast once, for all steps
    assert torch.equal(low, around)
    assert torch.equal(low, run(maskgit, "critic", **options))
    assert all(parameter is weights[name] for name, parameter in maskgit.named_parameters())


def test_class_labels(maskgit: MaskGIT) -> None:
    model = MaskGIT.untrained(replace(CONFIG, text=None, context_dim=None, num_classes=5))
    ids = run(model, condition=label_condition(torch.tensor([1, 4])), guidance_scale=2.0)
    assert ids.shape == (2, 24)
