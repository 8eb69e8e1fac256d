from __future__ import annotations

import pytest
import torch

from tokenreel.errors import InputError
from tokenreel.nn.heads import Attention, AttentionConfig, ContextPart, KeyValues
from tokenreel.nn.rotary import Rotary

torch.set_num_threads(1)
SIZES = {"dim": 24, "num_heads": 4, "head_dim": 6}


def layer(**options: object) -> Attention:
    torch.manual_seed(0)
    return Attention(AttentionConfig(**SIZES | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [None, 1, 3, 7])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_stream_equals_one_pass(window: int | None, chunk: int) -> None:
    attention = layer(causal=True, window=window, qk_norm=True, gate="head", num_kv_heads=2)
    x, rotary = torch.randn(2, 11, 24), Rotary(head_dim=6, max_extents=(16,))
    angles = rotary(torch.arange(11)[:, None])
    expected = attention(x, rotary=angles)
    past, outputs = None, []
    for start in range(0, 11, chunk):
        part = slice(start, start + chunk)
        out, past = attention.step(x[:, part], past, rotary=type(angles)(*(table[part] for table in angles)))
        outputs.append(out)
        assert past.num_tokens == min(part.stop, 11) if window is None else past.num_tokens <= window - 1
    torch.testing.assert_close(torch.cat(outputs, 1), expected, rtol=1e-5, atol=1e-6)


def test_what_a_stream_keeps_holds_no_more_memory_than_its_window() -> None:
    attention = layer(causal=True, window=4)
    _, past = attention.step(torch.randn(1, 50, 24), None)
    assert past.num_tokens == 3
    assert past.k_BSGd.untyped_storage().nbytes() == past.k_BSGd.numel() * 4


@pytest.mark.parametrize("gate", ["none", "head", "channel"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_every_option_reaches_every_parameter(gate: str, qk_norm: bool) -> None:
    for context_dim in (None, 10):
        attention = layer(gate=gate, qk_norm=qk_norm, num_kv_heads=2, context_dim=context_dim)
        context = None if context_dim is None else torch.randn(2, 5, 10)
        attention(torch.randn(2, 7, 24), context=context).square().sum().backward()
        missing = [name for name, p in attention.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert missing == []


def test_a_gate_is_a_sigmoid_on_the_attended_values() -> None:
    plain, gated = layer(), layer(gate="channel")
    x = torch.randn(2, 5, 24)
    with torch.no_grad():
        gated.project.weight[:72], gated.project.bias[:72] = plain.project.weight, plain.project.bias
        gated.project.weight[72:], gated.project.bias[72:] = 0, 100
        gated.out.load_state_dict(plain.out.state_dict())
    torch.testing.assert_close(gated(x), plain(x))
    with torch.no_grad():
        gated.project.bias[72:] = -100
    torch.testing.assert_close(gated(x), plain.out.bias.expand(2, 5, 24))


def test_query_key_norm_makes_scores_blind_to_scale() -> None:
    attention = layer(qk_norm=True, bias=False)
    q, (k, v), _ = attention._split(torch.randn(2, 5, 24), None)
    q2, (k2, _), _ = attention._split(torch.randn(2, 5, 24) * 1000, None)
    for x in (q, k, q2, k2):
        torch.testing.assert_close(x.square().mean(-1), torch.ones(2, 5, 4), rtol=1e-3, atol=1e-3)
    assert v.shape == (2, 5, 4, 6)


def test_cross_attention_takes_cached_keys_and_packs() -> None:
    attention = layer(context_dim=10, qk_norm=True, gate="head", num_kv_heads=1)
    x, context = torch.randn(2, 7, 24), torch.randn(2, 5, 10)
    out = attention(x, context=context)
    kept = attention.keys_of(context)
    assert isinstance(kept, KeyValues)
    assert torch.equal(attention(x, context=kept), out)
    packed = attention(x.flatten(0, 1), context=context.flatten(0, 1), cu_seqlens=(0, 7, 14), cu_seqlens_k=(0, 5, 10))
    torch.testing.assert_close(packed, out.flatten(0, 1), rtol=1e-5, atol=1e-6)
    valid = torch.tensor([[True, True, False, False, False]] * 2)
    torch.testing.assert_close(attention(x, context=context, valid_mask=valid), attention(x, context=context[:, :2]))


@pytest.mark.parametrize("gate", ["none", "head"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_an_only_key_needs_no_query_where_no_gradient_is_wanted(gate: str, qk_norm: bool) -> None:
    attention = layer(gate=gate, qk_norm=qk_norm, num_kv_heads=2, context_dim=10)
    x, context = torch.randn(2, 7, 24), torch.randn(2, 1, 10)
    wanted = attention(x, context=context)
    assert torch.autograd.grad(wanted.sum(), attention.project.weight)[0].shape == attention.project.weight.shape
    calls: list[int] = []
    attention.project.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        found = attention(x, context=context)
    assert len(calls) == (gate != "none")
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_shares_of_the_rows_attend_contexts_of_their_own() -> None:
    attention = layer(context_dim=10)
    x, told, mask = torch.randn(6, 7, 24), torch.randn(3, 5, 10), torch.arange(5) < torch.tensor([[5], [2], [4]])
    parts = (ContextPart(attention.keys_of(told), mask), ContextPart(attention.keys_of(torch.randn(3, 1, 10))))
    found = attention(x, context=parts)
    assert torch.equal(found[:3], attention(x[:3], context=told, valid_mask=mask))
    assert torch.equal(found[3:], attention(x[3:], context=parts[1].keys))
    with pytest.raises(InputError, match="2 parts of a context"):
        attention(x[:5], context=parts)


def test_bad_configs_and_calls_name_both_numbers() -> None:
    with pytest.raises(InputError, match=r"\(4\) must be divisible by num_kv_heads \(3\)"):
        layer(num_kv_heads=3)
    with pytest.raises(InputError, match="'wide'"):
        layer(gate="wide")
    with pytest.raises(InputError, match=r"window \(3\) needs causal"):
        layer(window=3)
    with pytest.raises(InputError, match="head_dim must be at least 1, got 0"):
        layer(head_dim=0)
    with pytest.raises(InputError, match="cannot be causal"):
        layer(context_dim=3, causal=True)
    with pytest.raises(InputError, match="context was not given"):
        layer(context_dim=3)(torch.randn(1, 2, 24))
    with pytest.raises(InputError, match="causal=False"):
        layer().step(torch.randn(1, 2, 24), None)
    rotary = Rotary(head_dim=6, max_extents=(4,))(torch.zeros(2, 1))
    with pytest.raises(InputError, match="no rotary"):
        layer(context_dim=3)(torch.randn(1, 2, 24), context=torch.randn(1, 2, 3), rotary=rotary)
