from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.nn import attention
from tokenreel.nn.attention import attend, packed_mask

torch.set_num_threads(1)


def qkv(*shape: int, heads: int = 4, kv_heads: int = 2, keys: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    *lead, length, d = shape
    kv = (*lead, keys or length, kv_heads, d)
    return tuple(torch.randn(s, generator=generator) for s in ((*lead, length, heads, d), kv, kv))  # type: ignore[return-value]


def written_out(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, bias: Tensor | float = 0.0) -> Tensor:
    """Equation 1 in float64, heads repeated; a row that sees nothing is 0."""
    k, v = (x.double().repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
    scores = torch.einsum("blad,bsad->bals", q.double(), k) * q.shape[-1] ** -0.5 + bias
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    return torch.einsum("bals,bsad->blad", scores.softmax(-1).nan_to_num(0.0), v).float()


def test_dense_is_the_written_equation() -> None:
    q, k, v = qkv(2, 7, 8, keys=5)
    torch.testing.assert_close(attend(q, k, v), written_out(q, k, v))
    bias = torch.randn(4, 7, 5)
    torch.testing.assert_close(attend(q, k, v, bias=bias), written_out(q, k, v, bias=bias.double()))


def test_valid_mask_hides_keys_and_an_empty_row_is_zero() -> None:
    q, k, v = qkv(3, 6, 8)
    valid = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [False] * 6])
    out = attend(q, k, v, valid_mask=valid)
    torch.testing.assert_close(out, written_out(q, k, v, valid[:, None, None]))
    torch.testing.assert_close(out[1:2], attend(q[1:2], k[1:2, :2], v[1:2, :2]))
    assert torch.equal(out[2], torch.zeros_like(out[2]))
    bias = torch.zeros(6, 6)
    torch.testing.assert_close(attend(q, k, v, valid_mask=valid, bias=bias), out)


@pytest.mark.parametrize("window", [None, 1, 3, 50])
@pytest.mark.parametrize("length", [9, 150])
@pytest.mark.parametrize("extra", [0, 4])
def test_causal_and_window_are_their_masks(window: int | None, length: int, extra: int) -> None:
    q, k, v = qkv(1, length, 8, keys=length + extra)
    back = torch.arange(length)[:, None] + extra - torch.arange(length + extra)[None, :]
    seen = (back >= 0) & (back < (window or length + extra))
    expected = written_out(q, k, v, seen)
    torch.testing.assert_close(attend(q, k, v, causal=True, window=window), expected)
    bias = torch.randn(4, length, length + extra)
    valid = torch.rand(1, length + extra) < 0.8
    torch.testing.assert_close(
        attend(q, k, v, causal=True, window=window, bias=bias, valid_mask=valid),
        written_out(q, k, v, seen & valid[:, None, None], bias.double()),
    )


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"valid": True}, {"bias": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [9, 80])
def test_later_keys_change_no_earlier_output_bit_for_bit(options: dict, dtype: torch.dtype, length: int) -> None:
    q, k, v = (x.to(dtype) for x in qkv(2, length, 16))
    given = {"window": options.get("window")}
    if "valid" in options:
        given["valid_mask"] = torch.ones(2, length, dtype=torch.bool)
    if "bias" in options:
        given["bias"] = torch.randn(4, length, length)
    before = attend(q, k, v, causal=True, **given)
    for position in range(1, length, 1 if length < 10 else 13):
        q2, k2, v2 = q.clone(), k.clone(), v.clone()
        for x in (q2, k2, v2):
            x[:, position:] += 100 * torch.randn_like(x[:, position:])
        after = attend(q2, k2, v2, causal=True, **given)
        assert torch.equal(before[:, :position], after[:, :position])
        assert not torch.equal(before[:, position], after[:, position])


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 3}])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_packed_equals_alone_and_the_block_mask(options: dict, as_tensor: bool) -> None:
    lengths = [5, 3, 3, 3, 0, 8, 1]
    bounds = (0, 5, 8, 11, 14, 14, 22, 23)
    q, k, v = (x.squeeze(0) for x in qkv(1, 23, 8))
    cu = torch.tensor(bounds, dtype=torch.int32)
    out = attend(q, k, v, cu_seqlens=cu if as_tensor else bounds, **options)
    alone = [attend(*(x[None] for x in xs), **options)[0] for xs in zip(*(x.split(lengths) for x in (q, k, v)))]
    torch.testing.assert_close(out, torch.cat(alone), rtol=1e-6, atol=1e-6)
    seen = packed_mask(cu, cu, 23, 23, causal=options.get("causal", False), window=options.get("window"))
    torch.testing.assert_close(out, written_out(q[None], k[None], v[None], seen)[0])


def test_packed_cross_attention_has_bounds_of_its_own() -> None:
    q, k, v = (x.squeeze(0) for x in qkv(1, 5, 8, keys=9))
    out = attend(q, k, v, cu_seqlens=(0, 2, 4, 5), cu_seqlens_k=(0, 3, 9, 9))
    torch.testing.assert_close(out[2:4], attend(q[None, 2:4], k[None, 3:], v[None, 3:])[0])
    assert torch.equal(out[4:], torch.zeros(1, 4, 8))


def test_other_sequences_in_the_pack_change_nothing_bit_for_bit() -> None:
    q, k, v = (x.squeeze(0) for x in qkv(1, 10, 8))
    before = attend(q, k, v, cu_seqlens=(0, 4, 10))
    for x in (q, k, v):
        x[4:] += 7
    assert torch.equal(before[:4], attend(q, k, v, cu_seqlens=(0, 4, 10))[:4])


def test_no_copy_is_made_of_strided_projections() -> None:
    fused = torch.randn(2, 6, 3, 4, 8)
    q, k, v = fused.unbind(2)
    out = attend(q, k, v)
    assert out.is_contiguous() or out.transpose(1, 2).is_contiguous()
    torch.testing.assert_close(out, attend(q.clone(), k.clone(), v.clone()))


@pytest.mark.parametrize("options", [{"causal": True}, {"causal": True, "window": 2}, {"cu_seqlens": (0, 2, 5)}, {}])
def test_gradients_in_float64(options: dict) -> None:
    shape = (5, 2, 3) if "cu_seqlens" in options else (1, 5, 2, 3)
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, **options), inputs)


def test_a_bias_gets_its_gradient() -> None:
    q, k, v = qkv(1, 4, 8)
    bias = torch.randn(4, 4, 4, requires_grad=True)
    attend(q, k, v, bias=bias, causal=True).square().sum().backward()
    assert bias.grad is not None
    assert bias.grad.tril().abs().min(0).values.sum() > 0
    assert bias.grad.triu(1).abs().sum() == 0


def test_bad_calls_say_what_came() -> None:
    q, k, v = qkv(2, 4, 8)
    with pytest.raises(InputError, match="window=3, causal=False"):
        attend(q, k, v, window=3)
    with pytest.raises(InputError, match="heads must divide"):
        attend(q[:, :, :3], k, v)
    with pytest.raises(InputError, match=r"\(2, 4\), got torch.float32"):
        attend(q, k, v, valid_mask=torch.ones(2, 4))
    with pytest.raises(InputError, match="4 queries, 3 keys"):
        attend(q, k[:, :3], v[:, :3], causal=True)
    with pytest.raises(InputError, match="without cu_seqlens"):
        attend(q, k, v, cu_seqlens_k=(0, 4))
    with pytest.raises(InputError, match="takes"):
        attend(q, k, v, cu_seqlens=(0, 4))
    with pytest.raises(InputError, match="from 0 to 4 packed tokens"):
        attend(q[0], k[0], v[0], cu_seqlens=(0, 3))
    with pytest.raises(InputError, match="names 1 sequences"):
        attend(q[0], k[0], v[0], cu_seqlens=(0, 4), cu_seqlens_k=(0, 2, 4))
    with pytest.raises(InputError, match="neither valid_mask nor bias"):
        attend(q[0], k[0], v[0], cu_seqlens=(0, 4), bias=torch.zeros(4, 4))
    with pytest.raises(InputError, match="1-D tensor of integers"):
        attend(q[0], k[0], v[0], cu_seqlens=torch.tensor([0.0, 4.0]))


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 3}])
def test_the_flash_kernel_agrees_with_the_plain_path(options: dict) -> None:
    from tokenreel.nn.varlen import has_varlen

    q, k, v = (x.squeeze(0).cuda() for x in qkv(1, 23, 64))
    bounds = (0, 5, 8, 22, 23)
    half = [x.bfloat16() for x in (q, k, v)]
    assert has_varlen(half[0])
    for given in (bounds, torch.tensor(bounds, dtype=torch.int32, device="cuda")):
        out = attend(*half, cu_seqlens=given, **options)
        plain = attend(*(x.float() for x in half), cu_seqlens=bounds, **options)
        torch.testing.assert_close(out.float(), plain, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("mask", ["none", "causal", "window", "valid", "both"])
@pytest.mark.parametrize(
    ("length", "extra", "is_short"), [(12, 0, True), (9, 5, True), (32, 0, True), (100, 0, True), (600, 0, False)]
)
def test_short_rows_in_bfloat16_are_the_equation_to_its_rounding(
    mask: str, length: int, extra: int, is_short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = attention._written_out
    monkeypatch.setattr(attention, "_written_out", lambda *given: (calls.append(1), real(*given))[1])
    keys = length + extra
    q, k, v = qkv(3, length, 8, heads=2, keys=keys)
    back = torch.arange(length)[:, None] + extra - torch.arange(keys)[None, :]
    seen, options = torch.ones(length, keys, dtype=torch.bool), {}
    if mask in ("causal", "window", "both"):
        options["causal"], seen = True, back >= 0
    if mask == "window":
        options["window"], seen = 3, (back >= 0) & (back < 3)
    seen = seen.expand(3, 1, length, keys)
    if mask in ("valid", "both"):
        options["valid_mask"] = valid = torch.arange(keys) < torch.tensor([[keys], [5], [0]])
        seen = seen & valid[:, None, None]
    half = [x.bfloat16().requires_grad_() for x in (q, k, v)]
    out = attend(*half, **options)
    assert bool(calls) == (is_short or mask == "window")
    assert out.dtype == torch.bfloat16
    expected = written_out(*(x.detach().float() for x in half), seen)
    torch.testing.assert_close(out.float(), expected, atol=3e-2, rtol=3e-2)
    torch.testing.assert_close(out, attend(*half, **options), atol=0, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(attend(*half, **options), out, atol=0, rtol=0)
    out.float().square().sum().backward()
    plain = [x.detach().float().requires_grad_() for x in half]
    attend(*plain, **options).square().sum().backward()
    for found, wanted in zip(half, plain):
        torch.testing.assert_close(found.grad.float(), wanted.grad, atol=0.1, rtol=0.1)


def test_other_precisions_are_answered_in_their_own() -> None:
    q, k, v = qkv(2, 12, 8, heads=2)
    for dtype in (torch.float32, torch.float64):
        assert attend(*(x.to(dtype) for x in (q, k, v))).dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(*(x.double() for x in (q, k, v))).dtype == torch.float64
    with torch.autocast("cpu", torch.float16):
        assert attend(*(x.bfloat16() for x in (q, k, v))).dtype == torch.float16


def test_bfloat16_rows_see_nothing_of_what_is_hidden() -> None:
    q, k, v = (x.bfloat16() for x in qkv(2, 12, 8, heads=2))
    before = attend(q, k, v, causal=True)
    k[:, 7:], v[:, 7:] = 99.0, -99.0
    assert torch.equal(attend(q, k, v, causal=True)[:, :7], before[:, :7])
