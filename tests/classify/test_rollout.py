"""Attention rollout: its equation by hand, against products of dense matrices, and that it leaves the model alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.classify import TokenViViT, TokenViViTConfig, ViViT, ViViTConfig
from tokenreel.classify.folds import Fold
from tokenreel.classify.rollout import head_weights, passed, rolled, rollout
from tokenreel.classify.vivit_blocks import DividedAttention
from tokenreel.errors import InputError
from tokenreel.nn.heads import Attention, AttentionConfig
from tokenreel.tokenizers.configs import BlockOptions, Stack
from tokenreel.types import Grid, Tokens

torch.set_num_threads(1)

STACK = Stack(dim=16, depth=2, num_heads=4, head_dim=4, mlp_dim=32)
BASE = ViViTConfig(
    model="spatio_temporal",
    num_frames=6,
    size=(8, 12),
    in_channels=3,
    patch_size=(2, 4, 4),
    encoder=STACK,
    pooling="class_token",
    heads=(("shape", ("round", "square")), ("colour", ("red", "blue", "green"))),
)
CONFIGS: dict[str, ViViTConfig] = {
    "1": BASE,
    "1 mean": replace(BASE, pooling="mean"),
    "1 modern": replace(BASE, blocks=BlockOptions(norm="rms", qk_norm=True, gate="head", num_kv_heads=2, bias=False)),
    "2": replace(BASE, model="factorised_encoder", temporal_depth=2),
    "2 mixed": replace(BASE, model="factorised_encoder", temporal_depth=1, temporal_pooling="mean"),
    "2 average": replace(BASE, model="factorised_encoder", temporal_depth=0),
    "3": replace(BASE, model="factorised_self_attention", pooling="mean"),
    "4": replace(BASE, model="factorised_dot_product", pooling="mean"),
}
EVERY = pytest.mark.parametrize("name", CONFIGS)
T_STEPS, PLACES = 3, 6
NUM = T_STEPS * PLACES


def model_of(config: Any, family: Any = ViViT) -> Any:
    """Untrained, its weights large enough that attention is far from uniform."""
    model = family.untrained(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def video(num_frames: int = 6, seed: int = 1) -> Tensor:
    return torch.rand(3, num_frames, 8, 12, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_uniform_attention_gives_a_uniform_map() -> None:
    layers = [[torch.full((1, 5, 5), 0.2)] * 2] * 3
    assert torch.allclose(rolled(torch.full((1, 5), 0.2), layers), torch.full((1, 5), 0.2))
    first = torch.tensor([[1.0, 0, 0, 0, 0]])
    expected = (1 - 0.125) / 5  # half of the token stays at each of three layers, the rest is spread
    assert rolled(first, layers)[0].tolist() == pytest.approx([expected + 0.125] + [expected] * 4)


def test_attention_of_all_rows_on_one_tubelet_puts_the_mass_there() -> None:
    on_third = torch.zeros(1, 4, 4)
    on_third[:, :, 2] = 1
    map_L = rolled(torch.tensor([[1.0, 0, 0, 0]]), [[on_third]] * 5)[0]
    assert map_L.tolist() == pytest.approx([1 / 32, 0, 1 - 1 / 32, 0])
    assert (map_L[1:] / map_L[1:].sum()).tolist() == pytest.approx([0, 1, 0])  # without the class token's own column


def test_layers_are_multiplied_from_the_last_to_the_first() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(3, 2, 1, 5, 5, generator=generator).softmax(-1)
    product = torch.eye(5)
    for layer in weights:
        product = (0.5 * layer.mean(0)[0] + 0.5 * torch.eye(5)) @ product
    for token in range(5):
        row = torch.eye(5)[token : token + 1]
        assert torch.allclose(rolled(row, list(weights)), product[token : token + 1], atol=1e-6)
    assert torch.allclose(passed(torch.eye(5)[:1], weights[0]), (weights[0].mean(0)[0][:1] + torch.eye(5)[:1]) / 2)


@pytest.mark.parametrize("options", [{}, {"num_kv_heads": 2}, {"qk_norm": True, "gate": "head"}, {"gate": "channel"}])
@pytest.mark.parametrize("masked", [False, True])
def test_weights_times_values_are_the_attention_itself(options: dict[str, Any], masked: bool) -> None:
    attention = Attention(AttentionConfig(dim=16, num_heads=4, head_dim=4, **options))
    generator = torch.Generator().manual_seed(0)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    x_BLD = torch.randn(2, 7, 16, generator=generator)
    valid_BL = torch.arange(7) < torch.tensor([[7], [4]]) if masked else None
    q, (k, v), gate = attention._split(x_BLD, None)
    each = list(head_weights(q, k, valid_BL))
    assert len(each) == 4
    assert all(torch.allclose(weights.sum(-1), torch.ones(2, 7)) for weights in each)
    values = v.repeat_interleave(4 // v.shape[2], dim=2)
    mixed = torch.stack([weights @ values[:, :, head] for head, weights in enumerate(each)], dim=2)
    torch.testing.assert_close(attention._merge(mixed, gate), attention(x_BLD, valid_mask=valid_BL), rtol=0, atol=1e-5)


def dense(attention: Attention, x_LD: Tensor) -> Tensor:
    """(A, L, L) for one sequence, from the projection's own rows."""
    config = attention.config
    width, kv_width = config.num_heads * config.head_dim, config.kv_heads * config.head_dim
    rows = attention.project(x_LD)
    q = rearrange(rows[:, :width], "L (A d) -> A L d", d=config.head_dim)
    k = rearrange(rows[:, width : width + kv_width], "L (A d) -> A L d", d=config.head_dim)
    if config.qk_norm:
        q = q / (q.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attention.q_scale_d
        k = k / (k.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attention.k_scale_d
    k = torch.stack([k[head * config.kv_heads // config.num_heads] for head in range(config.num_heads)])
    return (q @ k.mT / config.head_dim**0.5).softmax(-1)


def half(weights: Tensor) -> Tensor:
    return 0.5 * weights + 0.5 * torch.eye(len(weights))


def stack_product(pooled: Any, x_LD: Tensor) -> Tensor:
    """The pooled row of the product of all layers, without the class token, of sum 1."""
    has_token = pooled.class_token_D is not None
    if has_token:
        x_LD = torch.cat([pooled.class_token_D[None], x_LD])
    product = torch.eye(len(x_LD))
    for block in pooled.stack.blocks:
        product = half(dense(block.attention, block.attention_branch.before(x_LD)).mean(0)) @ product
        x_LD = block(x_LD[None])[0]
    row = product[0, 1:] if has_token else product.mean(0)
    return row / row.sum()


def folded_product(encoder: Any, x_LD: Tensor) -> Tensor:
    product, fold = torch.eye(NUM), Fold((T_STEPS, 2, 3))
    step, place = torch.arange(NUM) // PLACES, torch.arange(NUM) % PLACES
    same_step, same_place = step[:, None] == step, place[:, None] == place

    def among(attention: Attention, read_LD: Tensor, same: Tensor, heads: slice) -> Tensor:
        # All pairs at once, and only those of one step (or place) in the softmax.
        scores = dense(attention, read_LD)[heads].log().masked_fill(~same, -torch.inf)
        return scores.softmax(-1)

    for block in encoder.stack.blocks:
        read_LD = block.attention_branch.before(x_LD)
        if isinstance(block.attention, DividedAttention):
            both = torch.cat(
                [
                    among(block.attention, read_LD, same_step, slice(0, 2)),
                    among(block.attention, read_LD, same_place, slice(2, 4)),
                ]
            )
            product = half(both.mean(0)) @ product
        else:
            space = half(among(block.attention, read_LD, same_step, slice(None)).mean(0))
            steps = rearrange(read_LD, "(t S) D -> t S D", t=T_STEPS)
            after = block.attention_branch.after(x_LD, rearrange(block.attention(steps), "t S D -> (t S) D"), None)
            time = half(among(block.time, block.time_branch.before(after), same_place, slice(None)).mean(0))
            product = time @ space @ product
        x_LD = block(x_LD[None], fold, None)[0]
    return product.mean(0)


@EVERY
@torch.no_grad()
def test_maps_are_those_of_the_product_of_dense_matrices(name: str) -> None:
    model = model_of(CONFIGS[name])
    encoder = model.encoder
    x_thwD = model.embed(video()[None])[0]
    if name.startswith("2"):
        x_tSD = (x_thwD + encoder.space_positions((1, 2, 3))[0]).flatten(1, 2)
        space_tS = torch.stack([stack_product(encoder.space, x_SD) for x_SD in x_tSD])
        time_t = torch.full((T_STEPS,), 1 / T_STEPS)
        if encoder.time is not None:
            steps_tD = encoder.space(x_tSD, None, None)
            time_t = stack_product(encoder.time, steps_tD + encoder.time_positions((3, 1, 1)).flatten(0, 3))
        expected = (time_t[:, None] * space_tS).flatten()
    else:
        x_LD = (x_thwD + encoder.positions((3, 2, 3))[0]).flatten(0, 2)
        expected = stack_product(encoder.pooled, x_LD) if name.startswith("1") else folded_product(encoder, x_LD)
    [found] = rollout(model, [video()])
    assert found.shape == (3, 2, 3)
    assert float(expected.max() / expected.min()) > 1.05  # not just uniform
    torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=1e-6)


@EVERY
def test_each_example_has_its_own_grid_whatever_it_is_padded_to(name: str) -> None:
    model = model_of(CONFIGS[name])
    short, long = video(3, seed=2), video(6, seed=3)
    maps = rollout(model, [short, long])
    assert [tuple(one.shape) for one in maps] == [(2, 2, 3), (3, 2, 3)]
    for one, alone in zip(maps, (short, long)):
        assert float(one.sum()) == pytest.approx(1, abs=1e-6)
        assert float(one.min()) >= 0
        torch.testing.assert_close(one, rollout(model, [alone])[0], rtol=0, atol=1e-6)


@EVERY
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = model_of(CONFIGS[name])
    before = model.predict([video()])
    model.train()
    rollout(model, [video()])
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(getattr(module, "every_token", False) for module in model.modules())
    after = model.predict([video()])
    assert all(torch.equal(before[head], after[head]) for head in before)


def test_half_precision_and_bytes() -> None:
    model = model_of(CONFIGS["2"])
    as_bytes = (np.random.default_rng(0).random((3, 6, 8, 12)) * 255).astype(np.uint8)
    [exact] = rollout(model, [as_bytes])
    model.precision = "bf16"
    [rough] = rollout(model, [as_bytes])
    assert rough.dtype == torch.float32
    assert float((exact - rough).abs().max()) < 0.02
    assert float(rough.sum()) == pytest.approx(1, abs=1e-6)


def test_ids_of_a_tokenizer() -> None:
    config = TokenViViTConfig(
        model="factorised_self_attention",
        encoder=STACK,
        pooling="mean",
        heads=BASE.heads,
        made_by="cvivit",
        made_by_fingerprint="f" * 64,
        layout="grid",
        grid=(3, 2, 4),
        codebook_size=60,
    )
    clips = [
        Tokens(
            ids_L=np.arange(t * 8) % 60,
            layout="grid",
            grid=Grid(t=t, h=2, w=4),
            size=(t, 8, 16),
            codebook_size=60,
            tokenizer="cvivit",
            fingerprint="f" * 64,
        )
        for t in (3, 2)
    ]
    maps = rollout(model_of(config, TokenViViT), clips)
    assert [tuple(one.shape) for one in maps] == [(3, 2, 4), (2, 2, 4)]
    assert [float(one.sum()) for one in maps] == pytest.approx([1, 1])


def test_other_models_are_refused() -> None:
    with pytest.raises(InputError, match="reads the attention of ViViT and TokenViViT, got Linear"):
        rollout(nn.Linear(2, 2), [video()])  # type: ignore[arg-type]
