"""The laws of every quantizer, and the table that builds them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.quantize import (
    FSQ,
    LFQ,
    VQ,
    FSQConfig,
    LFQConfig,
    Quantized,
    Quantizer,
    VQConfig,
    build_quantizer,
    config_from_values,
    config_values,
)
from tokenreel.quantize.base import masked_mean

CONFIGS: dict[str, Any] = {
    "vq": VQConfig(codebook_size=37, codebook_dim=6),
    "vq-cosine": VQConfig(codebook_size=37, codebook_dim=6, l2_norm=True, estimator="rotation"),
    "vq-ema": VQConfig(codebook_size=16, codebook_dim=3, learning="ema", start="kmeans", revive_every=2),
    "vq-simvq": VQConfig(codebook_size=37, codebook_dim=6, learning="simvq"),
    "fsq": FSQConfig(levels=(8, 5, 5, 4)),
    "fsq-symmetric": FSQConfig(levels=(2, 3, 6), symmetric=True),
    "fsq-video": FSQConfig(levels=(7, 7, 7, 5, 5)),
    "lfq": LFQConfig(codebook_dim=7),
    "lfq-wide": LFQConfig(codebook_dim=40),
}


@pytest.fixture(params=CONFIGS)
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return build_quantizer(CONFIGS[request.param]).eval()


def latents_for(quantizer: Quantizer, *shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, quantizer.codebook_dim, generator=torch.Generator().manual_seed(seed))


def test_ids_are_in_range_and_give_the_codes_exactly(quantizer: Quantizer) -> None:
    for mode, scale in itertools.product((False, True), (0.1, 1.0, 50.0)):
        latents = (latents_for(quantizer, 3, 50) * scale).requires_grad_(mode)
        codes, ids, losses = quantizer.train(mode)(latents)
        assert ids.shape == latents.shape[:-1]
        assert ids.dtype == torch.int64
        assert codes.dtype == torch.float32
        assert int(ids.min()) >= 0
        assert int(ids.max()) < quantizer.codebook_size
        assert bool(losses) == (mode and not isinstance(quantizer, FSQ))
        if not (mode and quantizer.config == CONFIGS["vq-ema"]):  # in training its codebook has moved on by now
            assert torch.equal(quantizer.codes(ids), codes)


def test_codes_are_fixpoints_and_every_code_is_reached(quantizer: Quantizer) -> None:
    count = min(quantizer.codebook_size, 9000)
    ids = torch.arange(count) * (quantizer.codebook_size // count)
    codes = quantizer.codes(ids)
    if isinstance(quantizer, FSQ) and not quantizer.config.symmetric:
        # the bound is not the identity: what it maps to the code's whole number comes back
        whole = codes.double() * (quantizer.levels_E // 2)
        offset = (1 - quantizer.levels_E % 2) / 2
        half = (quantizer.levels_E - 1).double() * 1.001 / 2
        latents = torch.atanh((whole + offset) / half) - torch.atanh(offset / half)
    elif isinstance(quantizer, FSQ):
        latents = torch.atanh(codes.double().clamp(-0.999, 0.999))
    else:
        latents = codes
    assert torch.equal(quantizer(latents.float()).ids, ids)
    assert torch.equal(quantizer(codes).ids, quantizer(quantizer(codes).codes).ids) or isinstance(quantizer, FSQ)


def test_a_batch_equals_one_by_one(quantizer: Quantizer) -> None:
    latents = latents_for(quantizer, 5, 7, 4)
    together = quantizer(latents)
    for index in itertools.product(range(5), range(7)):
        alone = quantizer(latents[index])
        assert torch.equal(alone.ids, together.ids[index])
        assert torch.equal(alone.codes, together.codes[index])
    turned = latents.permute(2, 1, 0, 3)
    assert torch.equal(quantizer(turned).ids, together.ids.permute(2, 1, 0))
    one = quantizer(latents[0, 0, 0])
    assert one.ids.shape == ()
    assert torch.equal(one.ids, together.ids[0, 0, 0])


def test_no_tokens_give_no_ids(quantizer: Quantizer) -> None:
    for mode in (False, True):
        if mode and isinstance(quantizer, VQ) and quantizer.config.start == "kmeans":
            continue  # there is nothing to start from
        for valid_mask in (None, torch.ones(2, 0, dtype=torch.bool)):
            empty = torch.zeros(2, 0, quantizer.codebook_dim)
            codes, ids, losses = quantizer.train(mode)(empty, valid_mask=valid_mask)
            assert codes.shape == (2, 0, quantizer.codebook_dim)
            assert ids.shape == (2, 0)
            assert all(abs(loss) < 1e-20 for loss in losses.values())
    assert quantizer.codes(ids).shape == codes.shape


@pytest.mark.parametrize("bits", [torch.bfloat16, torch.float16])
def test_low_precision_latents_are_quantized_in_float32(quantizer: Quantizer, bits: torch.dtype) -> None:
    latents = latents_for(quantizer, 200).to(bits)
    full = quantizer(latents.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = quantizer(latents)
        wide = quantizer(latents.float())
        codes = quantizer.codes(full.ids)
    for result in (low, wide):
        assert torch.equal(result.ids, full.ids)
        assert torch.equal(result.codes, full.codes)
    assert torch.equal(codes, full.codes)


def test_padded_tokens_count_in_no_loss(quantizer: Quantizer) -> None:
    latents = latents_for(quantizer, 3, 20)
    valid = torch.rand(3, 20, generator=torch.Generator().manual_seed(0)) < 0.6
    state = {name: value.clone() for name, value in quantizer.state_dict().items()}
    results = []
    for given, mask in (
        (torch.where(valid[..., None], latents, 1e4), valid),
        (torch.where(valid[..., None], latents, torch.nan), valid),
        (latents[valid], None),
    ):
        quantizer.train().load_state_dict(state)
        results.append(quantizer(given, valid_mask=mask))
        after = {name: value.clone() for name, value in quantizer.state_dict().items()}
        results[-1] = (results[-1], after)
    (far, far_state), (nan, nan_state), (alone, alone_state) = results
    for result, moved in ((far, far_state), (nan, nan_state)):
        assert torch.equal(result.ids[valid], alone.ids)
        torch.testing.assert_close(result.aux_losses, alone.aux_losses, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(moved, alone_state, rtol=1e-5, atol=1e-7)


def test_gradients_reach_the_latents(quantizer: Quantizer) -> None:
    latents = latents_for(quantizer, 3, 20).requires_grad_()
    codes, _, losses = quantizer.train()(latents)
    (codes.square().sum() + sum(losses.values())).backward()
    assert latents.grad is not None
    assert torch.isfinite(latents.grad).all()
    assert (latents.grad.norm(dim=-1) > 0).float().mean() > 0.9
    for parameter in quantizer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_eval_mode_compiles_into_one_graph(quantizer: Quantizer) -> None:
    latents = latents_for(quantizer, 2, 30)
    plain = quantizer(latents)
    torch.compiler.reset()
    compiled = torch.compile(quantizer, backend="eager", fullgraph=True)(latents)
    assert torch.equal(compiled.ids, plain.ids)
    assert torch.equal(compiled.codes, plain.codes)
    codes = torch.compile(quantizer.codes, backend="eager", fullgraph=True)(plain.ids)
    assert torch.equal(codes, plain.codes)


def test_state_is_saved_and_loaded(quantizer: Quantizer) -> None:
    batches = [latents_for(quantizer, 40, seed=seed) for seed in range(5)]
    quantizer.train()
    for batch in batches[:3]:
        quantizer(batch)
    other = build_quantizer(quantizer.config)  # type: ignore[arg-type]
    other.load_state_dict(quantizer.state_dict())
    for batch in batches[3:]:
        first, second = quantizer(batch), other(batch)
        assert torch.equal(first.ids, second.ids)
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_wrong_input_is_refused(quantizer: Quantizer) -> None:
    dim, size = quantizer.codebook_dim, quantizer.codebook_size
    with pytest.raises(InputError, match=rf"\(\.\.\., {dim}\)"):
        quantizer(torch.zeros(4, dim + 1))
    with pytest.raises(InputError, match="float"):
        quantizer(torch.zeros(4, dim, dtype=torch.int64))
    with pytest.raises(InputError, match="valid_mask"):
        quantizer(torch.zeros(4, dim), valid_mask=torch.ones(5, dtype=torch.bool))
    with pytest.raises(InputError, match="another tokenizer"):
        quantizer.codes(torch.tensor([0, size]))
    with pytest.raises(InputError, match="-1"):
        quantizer.codes(torch.tensor(-1))
    with pytest.raises(InputError, match="integers"):
        quantizer.codes(torch.tensor(0.0))
    narrow = torch.tensor([0, 1], dtype=torch.uint8)
    assert torch.equal(quantizer.codes(narrow), quantizer.codes(narrow.long()))


def test_configs_travel_as_json() -> None:
    for config in CONFIGS.values():
        assert config_from_values(json.loads(json.dumps(config_values(config)))) == config
    assert isinstance(build_quantizer(LFQConfig(codebook_dim=3)), LFQ)
    with pytest.raises(InputError, match="'levels'"):
        config_from_values({"kind": "fsq", "level": [3, 3]})
    with pytest.raises(InputError, match="kind must be one of vq, fsq, lfq"):
        config_from_values({"kind": "rvq"})
    with pytest.raises(InputError, match="codebook_dim"):
        config_from_values({"kind": "vq", "codebook_size": 4})
    with pytest.raises(InputError, match="got int"):
        build_quantizer(3)  # type: ignore[arg-type]


def test_quantized_unpacks_in_order() -> None:
    assert Quantized._fields == ("codes", "ids", "aux_losses")


def test_masked_mean_leaves_out_what_is_not_valid() -> None:
    values = torch.tensor([[1.0, 3.0], [torch.nan, torch.inf]])
    assert masked_mean(values, torch.tensor([True, False])) == 2
    assert masked_mean(values, torch.tensor([False, False])) == 0
    assert masked_mean(values[:1], None) == 2
