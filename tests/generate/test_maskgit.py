from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.generate.condition import Condition, label_condition
from tokenreel.generate.critic import TokenCritic
from tokenreel.generate.loss import masked_cross_entropy, picked
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.maskgit_batch import padded, unpadded
from tokenreel.generate.maskgit_config import MaskGITConfig, tied
from tokenreel.generate.maskgit_network import draw_null
from tokenreel.generate.schedule import mask_for_training
from tokenreel.generate.text import ByteText, ByteTextConfig
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.tokenizers.configs import BlockOptions, Stack
from tokenreel.tokenizers.cvivit import CViViT
from tokenreel.types import Grid

torch.set_num_threads(1)

GRID = Grid(t=3, h=2, w=4)
STACK = Stack(dim=32, depth=2, num_heads=2, head_dim=16, mlp_dim=48)
TEXT = MaskGITConfig(
    vocabulary=Vocabulary(codebook_size=60, levels=(60,)),
    stack=STACK,
    extents=(3, 4, 4),
    context_dim=24,
    text=ByteTextConfig(stack=Stack(dim=24, depth=1, num_heads=2, head_dim=12, mlp_dim=32)),
    self_critic=True,
)
CONFIGS = {
    "text": TEXT,
    "factorised": replace(TEXT, vocabulary=Vocabulary(codebook_size=60, levels=(12, 5))),
    "labels": replace(TEXT, context_dim=None, text=None, num_classes=5),
    "both": replace(TEXT, num_classes=5, blocks=BlockOptions(mlp="swiglu", norm="rms", qk_norm=True, bias=False)),
    "bias": replace(TEXT, positions="bias"),
    "alone": replace(TEXT, context_dim=None, text=None),
    "grouped": replace(TEXT, group=(2, 1, 2)),  # the last box is half empty
    "local": replace(TEXT, group=(2, 1, 2), local_dim=40, local_depth=2, local_windows=((3, 5), (1, 3), (3, 3))),
}


def model_of(kind: str, seed: int = 0) -> MaskGIT:
    """Random weights, larger than those of a fresh model, so that what matters shows."""
    model = MaskGIT.untrained(CONFIGS[kind], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> MaskGIT:
    return model_of(request.param)


def told(model: MaskGIT, num: int = 2) -> Condition | None:
    """Two prompts and labels, as far as the model reads them."""
    prompts = ["a red ball", "two cats"][:num] if model.config.context_dim else None
    labels = [3, 1][:num] if model.config.num_classes else None
    with torch.no_grad():
        return model.condition(prompts, labels=labels)


def some_ids(num: int = 2, grid: Grid = GRID, seed: int = 0) -> Tensor:
    ids = torch.randint(0, 60, (num, grid.num_cells), generator=torch.Generator().manual_seed(seed))
    ids[:, ::3] = 60
    return ids


# The two ways through it.


@torch.no_grad()
def test_features_of_sampling_are_those_of_training(model: MaskGIT) -> None:
    ids, condition = some_ids(), told(model)
    wanted = model(ids, grid=GRID, condition=condition)
    prepared = model.prepare(condition, num=2, guided=False)
    assert wanted.shape == (2, 24, 32)
    torch.testing.assert_close(model.features(ids, grid=GRID, prepared=prepared), wanted, rtol=0, atol=0)


@torch.no_grad()
def test_guided_rows_are_the_conditional_ones_then_those_told_nothing(model: MaskGIT) -> None:
    ids, condition = some_ids(), told(model)
    if condition is None:
        with pytest.raises(InputError, match="guidance needs a condition"):
            model.prepare(None, num=2, guided=True)
        return
    both = model.features(ids, grid=GRID, prepared=model.prepare(condition, num=2, guided=True))
    first = model.features(ids, grid=GRID, prepared=model.prepare(condition, num=2, guided=False))
    nothing = model.features(ids, grid=GRID, prepared=model.prepare(None, num=2, guided=False))
    torch.testing.assert_close(both, torch.cat([first, nothing]), rtol=1e-5, atol=1e-5)
    assert (first - nothing).abs().max() > 1e-2
    trained = model(ids, grid=GRID, condition=condition, is_null=torch.tensor([False, True]))
    torch.testing.assert_close(trained, torch.stack([first[0], nothing[1]]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
def test_what_is_not_wanted_is_left_out_and_changes_nothing(kind: str, guided: bool, depth: int) -> None:
    model = MaskGIT.untrained(replace(CONFIGS[kind], stack=replace(STACK, depth=depth)))
    ids, condition = some_ids(), told(model)
    if guided and condition is None:
        return
    wanted = torch.arange(24) % 3 == torch.tensor([[0], [1]])
    wanted[1, 2:] = False
    valid = torch.arange(24) < torch.tensor([[24], [20]])
    prepared = model.prepare(condition, num=2, guided=guided)
    for mask in (None, valid):
        whole = model.features(ids, grid=GRID, prepared=prepared, valid_mask=mask)
        part = model.features(ids, grid=GRID, prepared=prepared, valid_mask=mask, wanted=wanted)
        both = wanted.repeat(1 + guided, 1)
        torch.testing.assert_close(part[both], whole[both], rtol=1e-5, atol=1e-5)
    rows: list[int] = []
    model.network.stack.blocks[-1].mlp.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[1]))
    model.features(ids, grid=GRID, prepared=prepared, wanted=wanted)
    assert rows == [8 if model.network.groups is None else 6]  # of 24 tokens or 8 pairs of steps


@torch.no_grad()
def test_rows_are_equal_up_to_the_first_look_at_the_text() -> None:
    model = model_of("text")
    rows: list[int] = []
    for block in model.network.stack._blocks():
        block.attention.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    model.features(some_ids(), grid=GRID, prepared=model.prepare(told(model), num=2, guided=True))
    assert rows == [2, 4]


@torch.no_grad()
def test_one_prompt_serves_many_videos(model: MaskGIT) -> None:
    ids = some_ids(3)
    one = told(model, 1)
    many = None if one is None else one.rows(3)
    prepared = [model.prepare(condition, num=3, guided=one is not None) for condition in (one, many)]
    torch.testing.assert_close(*(model.features(ids, grid=GRID, prepared=each) for each in prepared))


def test_the_text_is_read_once_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("text")
    calls: list[int] = []
    for block in model.network.stack._blocks():
        block.cross.project_context.register_forward_hook(lambda *_: calls.append(1))
    with model.running():
        prepared = model.prepare(told(model), num=2, guided=True)
        assert len(calls) == 4  # of two blocks, those that are told and those that are not
        for step in range(4):
            model.features(some_ids(seed=step), grid=GRID, prepared=prepared)
    assert len(calls) == 4


@torch.no_grad()
def test_padding_of_the_text_changes_nothing() -> None:
    model = model_of("text")
    condition = told(model)
    assert condition is not None
    assert not condition.valid_mask_BS.all()
    more = Condition(
        torch.cat([condition.context_BSD, torch.full((2, 3, 24), 7.0)], 1),
        torch.cat([condition.valid_mask_BS, torch.zeros(2, 3, dtype=torch.bool)], 1),
    )
    longer = more._replace(context_BSD=torch.where(more.valid_mask_BS[..., None], more.context_BSD, -99.0))
    wanted = model(some_ids(), grid=GRID, condition=condition)
    for padding in (more, longer):
        torch.testing.assert_close(model(some_ids(), grid=GRID, condition=padding), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_prompts_labels_and_every_id_and_place_count(model: MaskGIT) -> None:
    ids, condition = some_ids(), told(model)
    features = model(ids, grid=GRID, condition=condition)
    if condition is not None:
        turned = model(ids, grid=GRID, condition=Condition(*(None if x is None else x.flip(0) for x in condition)))
        assert (turned - features).abs().amax((1, 2)).min() > 1e-2
    for place in range(1, 24, 3):
        changed = ids.clone()
        changed[:, place] = (ids[:, place] + 1) % 60
        assert (model(changed, grid=GRID, condition=condition) - features).abs().amax(-1).min() > 0


@torch.no_grad()
def test_places_differ_where_all_is_masked(model: MaskGIT) -> None:
    """Rotation alone would give every place of a fully masked video the same features."""
    features = model(torch.full((1, 24), 60), grid=GRID, condition=told(model, 1))[0]
    apart = torch.cdist(features, features) + torch.eye(24) * 99
    assert apart.min() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("grid", [Grid(t=1, h=1, w=1), Grid(t=1, h=5, w=7), Grid(t=9, h=3, w=2), Grid(t=1, h=1, w=40)])
def test_any_grid_is_taken(model: MaskGIT, grid: Grid) -> None:
    features = model(some_ids(2, grid), grid=grid, condition=told(model))
    assert features.shape == (2, grid.num_cells, 32)
    assert features.isfinite().all()


@torch.no_grad()
def test_images_and_videos_of_any_size_share_a_batch(model: MaskGIT) -> None:
    if model.config.positions == "bias":  # its offsets are shared, too: the same law
        assert model.network.bias is not None
    grids = [Grid(t=1, h=2, w=4), GRID, Grid(t=2, h=1, w=3)]
    ids = [some_ids(1, grid, seed)[0] for seed, grid in enumerate(grids)]
    batch = padded(ids, grids)
    condition = told(model, 1)
    together = model(batch.ids_BL, grid=batch.grid, condition=condition, valid_mask=batch.valid_mask)
    for own, one, features in zip(grids, ids, unpadded(together, batch.grid, grids)):
        alone = model(one[None], grid=own, condition=condition)[0]
        torch.testing.assert_close(features, alone, rtol=1e-4, atol=1e-5)


def test_padding_and_unpadding_are_inverse_and_errors_name_the_video() -> None:
    grids = [Grid(t=1, h=1, w=2), Grid(t=2, h=3, w=1)]
    ids = [torch.tensor([4, 5]), torch.arange(6)]
    batch = padded(ids, grids)
    assert batch.grid == Grid(t=2, h=3, w=2)
    assert batch.valid_mask is not None
    assert batch.valid_mask.sum(1).tolist() == [2, 6]
    for found, wanted in zip(unpadded(batch.ids_BL, batch.grid, grids), ids):
        assert torch.equal(found, wanted)
    assert padded([ids[0]] * 2, [grids[0]] * 2).valid_mask is None
    with pytest.raises(InputError, match="video 1 has ids of shape"):
        padded([ids[0], ids[0]], grids)


# What it gives.


@torch.no_grad()
def test_logits_are_one_table_a_factor_in_float32(model: MaskGIT) -> None:
    features = model(some_ids(), grid=GRID, condition=told(model))[0, :7]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.logits(features)
    assert [tuple(logit.shape) for logit in logits] == [(7, level) for level in model.vocab.levels]
    assert {logit.dtype for logit in logits} == {torch.float32}
    mixed = torch.lerp(features[:3], features[3:6], 2.5)  # guidance before the output layer is guidance after it
    for before, first, second in zip(model.logits(mixed), model.logits(features[:3]), model.logits(features[3:6])):
        torch.testing.assert_close(before, torch.lerp(first, second, 2.5), rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_near_float32(model: MaskGIT) -> None:
    ids, found = some_ids(), []
    for precision in ("fp32", "bf16"):
        model.precision = precision  # type: ignore[assignment]
        with model.running():
            prepared = model.prepare(told(model), num=2)
            features = model.features(ids, grid=GRID, prepared=prepared)
            found.append(torch.cat(model.logits(features.flatten(0, 1)), -1))
    assert found[1].dtype == torch.float32
    assert not torch.equal(*found)
    assert (found[0] - found[1]).std() < 0.05 * found[0].std()


def test_a_fresh_model_knows_nothing_and_every_weight_learns(model: MaskGIT) -> None:
    fresh = MaskGIT.untrained(model.config).train()
    ids = some_ids()
    is_masked = mask_for_training(torch.ones_like(ids, dtype=torch.bool), generator=torch.Generator().manual_seed(0))
    labels = [3, 1] if fresh.config.num_classes else None
    condition = fresh.condition(["a", "bc"] if fresh.text else None, labels=labels)
    real = ids % 60
    features = fresh(
        torch.where(is_masked, 60, real), grid=GRID, condition=condition, is_null=torch.tensor([False, True])
    )
    loss = masked_cross_entropy(fresh.logits(picked(features, is_masked)), fresh.vocab.split(real[is_masked]))
    assert loss.item() == pytest.approx(math.log(60), abs=0.15)
    assert fresh.loss(picked(features, is_masked), real[is_masked]).loss.item() == pytest.approx(loss.item(), rel=1e-5)
    (loss + fresh.critic_scores(features).square().mean()).backward()
    for name, parameter in fresh.named_parameters():
        assert parameter.grad is not None, name
        if "bias.layers" not in name:
            assert parameter.grad.abs().sum() > 0, name


def test_the_null_condition_is_seen_with_its_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MaskGIT.untrained(replace(TEXT, null_probability=0.2)).train()
    condition = told(model, 1)
    seen: list[Tensor] = []
    prepare = model.network.prepare
    monkeypatch.setattr(
        model.network, "prepare", lambda *args, **named: seen.append(named["is_null_N"]) or prepare(*args, **named)
    )
    generator = torch.Generator().manual_seed(0)
    grid = Grid(t=1, h=1, w=2)
    for _ in range(4):
        model(some_ids(500, grid), grid=grid, condition=condition, generator=generator)
    share = torch.cat(seen).float().mean().item()
    assert abs(share - 0.2) < 3 * math.sqrt(0.2 * 0.8 / 2000)
    model.eval()
    model(some_ids(), grid=GRID, condition=condition)
    assert not seen[-1].any()


@torch.no_grad()
def test_rows_drawn_null_read_the_null_vector_and_nothing_of_the_prompt() -> None:
    model = model_of("both").train()
    is_null = draw_null(2, 0.5, generator=torch.Generator().manual_seed(1))
    seeds = [seed for seed in range(40) if draw_null(2, 0.1, generator=torch.Generator().manual_seed(seed)).any()]
    assert 1 < len(seeds) < 20
    assert is_null.dtype == torch.bool
    seed = seeds[0]
    drawn = draw_null(2, 0.1, generator=torch.Generator().manual_seed(seed))
    found = model(some_ids(), grid=GRID, condition=told(model), generator=torch.Generator().manual_seed(seed))
    wanted = model(some_ids(), grid=GRID, condition=told(model), is_null=drawn)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_four_captioned_videos_are_learned_by_heart() -> None:
    """Told by text, fully masked: the ids follow from the prompt alone, so the whole road from bytes must work."""
    torch.manual_seed(0)
    config = replace(CONFIGS["factorised"], blocks=BlockOptions(mlp="swiglu", norm="rms", qk_norm=True))
    model = MaskGIT.untrained(config).train()
    grid, prompts = Grid(t=2, h=2, w=2), ["a red ball", "a cat", "two cats", "snow"]
    real = torch.randint(0, 60, (4, 8), generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    everywhere = torch.ones_like(real, dtype=torch.bool)
    for step in range(140):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 140)
        is_masked = mask_for_training(everywhere, generator=generator)
        features = model(
            torch.where(is_masked, 60, real), grid=grid, condition=model.condition(prompts), generator=generator
        )
        loss = model.loss(picked(features, is_masked), real[is_masked]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with model.running():
        prepared = model.prepare(model.condition(prompts), num=4, guided=False)
        features = model.features(torch.full_like(real, 60), grid=grid, prepared=prepared)
        digits = torch.stack([logit.argmax(-1) for logit in model.logits(features.flatten(0, 1))], -1)
    assert torch.equal(model.vocab.join(digits).view(4, 8), real)


# At rest.


def test_a_folder_gives_the_model_again(model: MaskGIT, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = MaskGIT.from_pretrained(tmp_path)
    assert again.config == model.config
    assert again.fingerprint == model.fingerprint
    with torch.no_grad():
        pair = [each(some_ids(), grid=GRID, condition=told(each)) for each in (model, again)]
        assert torch.equal(*pair)
        assert torch.equal(*(each.critic_scores(features) for each, features in zip((model, again), pair)))
    with pytest.raises(FormatError, match="family 'maskgit', not 'token-critic'"):
        TokenCritic.from_pretrained(tmp_path)


def test_the_configuration_keeps_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = CViViT.untrained("tiny")
    config = tied(TEXT, tokenizer, levels=(400, 160))
    MaskGIT.untrained(config).save_pretrained(tmp_path)
    again = MaskGIT.from_pretrained(tmp_path)
    again.vocab.check(tokenizer)
    assert again.vocab.tokenizer_reference == tokenizer.reference
    assert "400 x 160" in (tmp_path / "README.md").read_text()
    with pytest.raises(MismatchError, match="was made for the ids of cvivit"):
        again.vocab.check(CViViT.untrained("tiny", seed=1))


def test_sizes_have_the_parameters_they_are_named_for() -> None:
    with torch.device("meta"):
        counts = {name: MaskGIT(config).num_parameters for name, config in MaskGIT.sizes.items()}
        phenaki = MaskGIT(MaskGIT.sizes["phenaki"])
    assert round(counts["phenaki"] / 1e6, 1) == 94.6
    assert phenaki.network.embed.weight.shape == (65537, 512)
    assert phenaki.head.weight.shape == (65536, 512)
    assert phenaki.network.stack._blocks()[0].cross.project_context.in_features == 768
    assert counts["tiny"] < 10e6
    assert counts["imagenet"] == pytest.approx(172.5e6, rel=0.01)


# Errors.


@pytest.mark.parametrize(
    ("kind", "call", "text"),
    [
        ("text", lambda m: m(some_ids(), grid=Grid(t=1, h=1, w=2), condition=None), r"ids of shape \(2, 2\)"),
        ("text", lambda m: m(some_ids() + 1, grid=GRID, condition=None), "mask id 60; found 61.*another tokenizer"),
        (
            "text",
            lambda m: m(some_ids(), grid=GRID, condition=label_condition(torch.tensor([0, 1]))),
            "no class labels",
        ),
        ("labels", lambda m: m.condition(["a"]), "reads no text; leave prompts out"),
        ("labels", lambda m: m(some_ids(), grid=GRID, condition=label_condition(torch.tensor([0, 5]))), r"\[0, 5\)"),
        ("alone", lambda m: m(some_ids(), grid=GRID, condition=told(model_of("text"))), "reads no text, got states 24"),
        ("text", lambda m: m.condition(["a"], encoder=m.text), "reads text by itself"),
        ("text", lambda m: m.condition(["a", "b", "c"]).rows(2), "3 prompts cannot stand for 2"),
    ],
)
def test_what_does_not_fit_is_told(kind: str, call: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        call(model_of(kind))


def test_a_foreign_text_encoder_is_refused_by_name() -> None:
    encoder = ByteText(ByteTextConfig(stack=Stack(dim=24, depth=1, num_heads=2, head_dim=12, mlp_dim=32)))
    outside = replace(TEXT, text=None, text_encoder="t5:some", text_fingerprint=encoder.fingerprint)
    model = MaskGIT.untrained(outside)
    condition = model.condition(["a"], encoder=encoder)
    assert condition is not None
    assert condition.context_BSD.shape == (1, 2, 24)
    with pytest.raises(InputError, match="give t5:some as encoder"):
        model.condition(["a"])
    with torch.no_grad():
        encoder.embed.weight.add_(1)
    with pytest.raises(MismatchError, match=r"reads the states of t5:some .*, not of bytes"):
        model.condition(["a"], encoder=encoder)
    with pytest.raises(MismatchError, match="24 wide, those of bytes are 12 wide"):
        narrow = replace(outside, text_fingerprint="")
        MaskGIT.untrained(narrow).check_text(
            ByteText(ByteTextConfig(stack=Stack(dim=12, depth=1, num_heads=2, head_dim=6, mlp_dim=32)))
        )


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"extents": (1, 2)}, r"extents must be \(t, h, w\)"),
        ({"num_classes": 0}, "num_classes must be"),
        ({"positions": "peg"}, "positions must be one of rotary, bias, got 'peg'"),
        ({"null_probability": 1.0}, r"null_probability must lie in \[0, 1\)"),
        ({"context_dim": 32}, r"text.stack.dim \(24\) must be context_dim \(32\)"),
        ({"text_encoder": "t5"}, "choose one"),
        ({"stack": replace(STACK, head_dim=15)}, "even head_dim, got 15"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        replace(TEXT, **changed)


def test_linear_layers_start_as_the_house_draws_them() -> None:
    model = MaskGIT.untrained(TEXT)
    assert isinstance(model.head, nn.Linear)
    assert not model.head.bias.any()
    assert torch.equal(model.head.weight, MaskGIT.untrained(TEXT).head.weight)
    assert not torch.equal(model.head.weight, MaskGIT.untrained(TEXT, seed=1).head.weight)


def test_it_can_start_as_the_codes_that_ids_stand_for() -> None:
    codes = torch.randn(60, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([9.0, 3, 1, 0.3, 0.1]) + 4
    codes[7] = codes[3] + 1e-4
    model, plain = MaskGIT.untrained(TEXT), MaskGIT.untrained(TEXT)
    model.start_from_codes(codes)
    for table, before in (
        (model.head.weight, plain.head.weight),
        (model.network.embed.weight, plain.network.embed.weight),
    ):
        axes = (table - 0.2 * before)[:60].detach()
        assert float((axes[3] - axes[7]).norm()) < 1e-3 * float(axes.norm())  # like ids are alike
        assert not bool(axes[:, 5:].abs().max() > 1e-6)
        near = torch.cdist(axes, axes).flatten()
        assert float(torch.corrcoef(torch.stack([near, torch.cdist(codes, codes).flatten()]))[0, 1]) > 0.8
        spread = axes.std(0)[:5]
        assert bool((spread[:-1] > spread[1:]).all())
        assert float(spread[0] / spread[4]) < 15  # of 90 in the codes
    assert torch.equal(model.network.embed.weight[60], plain.network.embed.weight[60])  # the mask


def test_digits_start_as_the_mean_of_their_codes() -> None:
    config = CONFIGS["factorised"]
    model, plain = MaskGIT.untrained(config), MaskGIT.untrained(config)
    ids = torch.arange(60)
    codes = torch.stack([ids % 12, ids // 12], 1).double()  # of each digit one number
    model.start_from_codes(codes)
    first = (model.head.weight - 0.2 * plain.head.weight)[:12, 0].detach()
    second = (model.network.embed.weight - 0.2 * plain.network.embed.weight)[13:18, 0].detach()
    for part in (first, second):
        steps = part.diff()
        torch.testing.assert_close(steps, steps.mean().expand_as(steps))
        assert abs(float(steps[0])) > 0.01
    with pytest.raises(InputError, match="expected a code for each of 60 ids, got \\(59, 2\\)"):
        model.start_from_codes(codes[:59])
