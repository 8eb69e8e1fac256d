from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.nn.blocks import Transformer, TransformerConfig
from tokenreel.nn.rotary import Rotary, Rotation, grid_positions

torch.set_num_threads(1)

SIZES = {"dim": 32, "depth": 2, "num_heads": 4, "head_dim": 8, "mlp_dim": 48}
OPTIONS: list[dict[str, object]] = [
    {},
    {"mlp": "swiglu", "norm": "rms", "qk_norm": True, "gate": "head", "num_kv_heads": 2},
    {"mlp": "geglu", "residual": "scaled", "gate": "channel", "bias": False},
    {"residual": "deepnorm", "context_dim": 12},
    {"context_dim": 12, "norm": "rms"},
]


def stack(**options: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(TransformerConfig(**SIZES | options))  # type: ignore[arg-type]


def angles(grid: tuple[int, int, int]) -> Rotation:
    return Rotary(head_dim=8, max_extents=(16, 16, 16))(grid_positions(*grid))


def context_of(model: Transformer, batch: int = 2) -> Tensor | None:
    return None if model.config.context_dim is None else torch.randn(batch, 5, 12)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_reach_every_parameter(options: dict) -> None:
    model = stack(**options)
    out = model(torch.randn(2, 6, 32), rotary=angles((1, 2, 3)), context=context_of(model))
    (out * torch.randn_like(out)).sum().backward()  # the sum of squares would be fixed by the last norm
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


@pytest.mark.parametrize("options", OPTIONS)
def test_bf16_autocast_is_finite_and_near(options: dict) -> None:
    model = stack(**options)
    x, context = torch.randn(2, 12, 32), context_of(model)
    exact = model(x, rotary=angles((2, 2, 3)), context=context)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, rotary=angles((2, 2, 3)), context=context)
        out.float().square().sum().backward()
    assert out.isfinite().all()
    assert (out.float() - exact).abs().max() < 0.1
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    half = model.bfloat16()
    with torch.no_grad():
        assert (
            half(x.bfloat16(), rotary=angles((2, 2, 3)), context=None if context is None else context.bfloat16())
            .isfinite()
            .all()
        )


@pytest.mark.parametrize("options", OPTIONS)
def test_without_gradients_the_answer_is_the_same_and_inputs_are_kept(options: dict) -> None:
    model = stack(**options)
    x, context = torch.randn(2, 6, 32), context_of(model)
    kept = x.clone()
    expected = model(x, context=context)
    with torch.no_grad():
        torch.testing.assert_close(model(x, context=context), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("causal", [False, True])
def test_packed_equals_alone(options: dict, causal: bool) -> None:
    model = stack(**options, causal=causal)
    grids = [(1, 2, 3), (2, 2, 2), (2, 2, 2), (3, 1, 1)]
    xs = [torch.randn(t * h * w, 32) for t, h, w in grids]
    contexts = [torch.randn(n, 12) for n in (3, 1, 4, 2)]
    has_context = model.config.context_dim is not None
    with torch.no_grad():
        alone = [
            model(x[None], rotary=angles(grid), context=context[None] if has_context else None)[0]
            for x, grid, context in zip(xs, grids, contexts)
        ]
        packed = model(
            torch.cat(xs),
            rotary=Rotation(*(torch.cat(tables) for tables in zip(*map(angles, grids)))),
            cu_seqlens=(0, 6, 14, 22, 25),
            context=torch.cat(contexts) if has_context else None,
            cu_seqlens_k=(0, 3, 4, 8, 10) if has_context else None,
        )
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True])
def test_a_causal_stack_is_causal_bit_for_bit(window: int | None, dtype: torch.dtype, grad: bool) -> None:
    model = stack(causal=True, window=window, qk_norm=True, gate="head", mlp="swiglu")
    x = torch.randn(6, 9, 32)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        before = model(x, rotary=angles((9, 1, 1)))
        for position in range(1, 9):
            edited = x.clone()
            edited[:, position] = torch.randn(6, 32) * 10
            after = model(edited, rotary=angles((9, 1, 1)))
            assert torch.equal(before[:, :position], after[:, :position])
            assert not torch.equal(before[:, position], after[:, position])


@pytest.mark.parametrize("window", [1, 3, None])
@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("residual", ["plain", "deepnorm"])
def test_a_stream_equals_one_pass(window: int | None, chunk: int, residual: str) -> None:
    model = stack(causal=True, window=window, context_dim=12, residual=residual)
    x, context = torch.randn(2, 10, 32), torch.randn(2, 5, 12)
    rotary = angles((10, 1, 1))
    with torch.no_grad():
        expected = model(x, rotary=rotary, context=context)
        known, past, outputs = model.keys_of(context), None, []
        for start in range(0, 10, chunk):
            part = slice(start, start + chunk)
            own = Rotation(*(table[part] for table in rotary))
            out, past = model.step(x[:, part], past, rotary=own, context=known)
            outputs.append(out)
    torch.testing.assert_close(torch.cat(outputs, 1), expected, rtol=1e-5, atol=2e-6)
    assert all(keys.num_tokens == (10 if window is None else window - 1) for keys in past)


def test_padding_never_reaches_a_token_that_counts() -> None:
    model = stack()
    x = torch.randn(2, 7, 32)
    valid = torch.tensor([[True] * 4 + [False] * 3, [True] * 7])
    out = model(x, valid_mask=valid)
    torch.testing.assert_close(out[0, :4], model(x[:1, :4])[0], rtol=1e-5, atol=1e-6)
    x[0, 4:] = 1e4
    assert torch.equal(model(x, valid_mask=valid)[0, :4], out[0, :4])


def test_drop_path_is_drawn_from_the_generator_and_rises_with_depth() -> None:
    model = stack(drop_path=0.5).train()
    x = torch.randn(64, 3, 32)
    draw = lambda seed: model(x, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    keeps = model._keeps(x, None, torch.Generator().manual_seed(0))
    assert keeps is not None
    assert keeps.shape == (2, 2, 64, 1, 1)
    assert keeps[0].unique().tolist() == [1.0]
    assert keeps[1].unique().tolist() == [0.0, 2.0]
    packed = model._keeps(x[0], (0, 1, 3), torch.Generator().manual_seed(0))
    assert packed is not None
    assert packed.shape == (2, 2, 3, 1)
    assert torch.equal(packed[:, :, 1], packed[:, :, 2])
    model(x[0], cu_seqlens=(0, 1, 3)).sum().backward()
    model.eval()
    assert torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("residual", ["plain", "scaled", "deepnorm"])
def test_weights_start_at_a_sound_scale(residual: str) -> None:
    model = stack(residual=residual, dim=128, depth=8, head_dim=32, mlp_dim=512)
    x = torch.randn(4, 16, 128)
    hidden = x
    for block in model.blocks:
        hidden = block(hidden)
    assert 0.8 < hidden.std() < 2.0
    if residual == "plain":
        block = model.blocks[0]
        assert block.attention.project.weight.std().item() == pytest.approx(math.sqrt(2 / 5 / 128), rel=0.03)
        assert block.mlp.out.weight.std().item() == pytest.approx(math.sqrt(2 / 5 / 128 / 16), rel=0.03)
    twin = stack(residual=residual, dim=128, depth=8, head_dim=32, mlp_dim=512)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values()))


@pytest.fixture
def dynamo() -> None:
    torch._dynamo.reset()


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("options", [OPTIONS[1], OPTIONS[3], {"causal": True, "window": 2}])
def test_it_compiles_to_one_graph(options: dict) -> None:
    model, x = stack(**options | {"depth": 1}), torch.randn(2, 6, 32)
    arguments = {"rotary": angles((1, 2, 3)), "context": context_of(model)}
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, **arguments), model(x, **arguments))


@pytest.mark.slow
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("options", [*OPTIONS, {"causal": True}])
def test_it_compiles_to_one_graph_in_training(options: dict) -> None:
    model, x = stack(**options, drop_path=0.1).train(), torch.randn(2, 6, 32)
    out = torch.compile(model, fullgraph=True, backend="aot_eager")(x, context=context_of(model))
    (out * torch.randn_like(out)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.usefixtures("dynamo")
def test_packed_compiles_to_one_graph_for_any_lengths() -> None:
    model = stack(causal=True, depth=1).requires_grad_(False)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x = torch.randn(12, 32)
    for bounds in ((0, 5, 12), (0, 3, 12)):
        cu = torch.tensor(bounds, dtype=torch.int32)
        torch.testing.assert_close(compiled(x, cu_seqlens=cu), model(x, cu_seqlens=cu), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(compiled(x, cu_seqlens=(0, 5, 12)), model(x, cu_seqlens=(0, 5, 12)))


@pytest.mark.slow
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("options", OPTIONS[:2])
def test_inductor_agrees(options: dict) -> None:
    model, x = stack(**options), torch.randn(2, 6, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, fullgraph=True)
        out = compiled(x, rotary=angles((1, 2, 3)))
    torch.testing.assert_close(out, model(x, rotary=angles((1, 2, 3))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_tokens_are_left_out_and_rows_repeated_between(options: dict) -> None:
    model, x, rotary = stack(**options), torch.randn(2, 6, 32), angles((1, 2, 3))
    context = context_of(model, 4)
    valid = torch.arange(6) < torch.tensor([[6], [4]])

    def between(block: int, x_BLD: Tensor) -> Tensor:
        return x_BLD.repeat(2, 1, 1) if block == 0 else x_BLD[:, 1:3]

    wanted = model(x.repeat(2, 1, 1), rotary=rotary, context=context, valid_mask=valid.repeat(2, 1))[:, 1:3]
    found = model(x, rotary=rotary, context=context, valid_mask=valid.repeat(2, 1), between=between)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_bad_configs_say_what_came() -> None:
    for wrong, message in (
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"mlp_dim": 0}, "mlp_dim must be at least 1, got 0"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"mlp": "relu"}, "got 'relu'"),
        ({"norm": "batch"}, "got 'batch'"),
        ({"residual": "post"}, "got 'post'"),
        ({"drop_path": 1.0}, "got 1.0"),
        ({"num_kv_heads": 3}, r"\(4\) must be divisible by num_kv_heads \(3\)"),
        ({"context_dim": 0}, "context_dim must be at least 1, got 0"),
    ):
        with pytest.raises(InputError, match=message):
            stack(**wrong)
    with pytest.raises(InputError, match="without context_dim"):
        stack()(torch.randn(1, 2, 32), context=torch.randn(1, 2, 3))
    with pytest.raises(TypeError):
        TransformerConfig(dim=32)  # type: ignore[call-arg]
