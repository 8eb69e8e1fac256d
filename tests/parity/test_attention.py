"""Our attention against torch's own: the function, ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer``."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tokenreel.nn.attention import attend
from tokenreel.nn.blocks import Transformer, TransformerConfig
from tokenreel.nn.heads import Attention, AttentionConfig

torch.set_num_threads(1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_function_is_sdpa(causal: bool, kv_heads: int) -> None:
    q, k, v = (torch.randn(2, 9, heads, 16) for heads in (4, kv_heads, kv_heads))
    heads = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
    expected = F.scaled_dot_product_attention(*heads, is_causal=causal, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(attend(q, k, v, causal=causal), expected, rtol=1e-6, atol=1e-6)
    scaled = F.scaled_dot_product_attention(*heads, is_causal=causal, enable_gqa=True, scale=0.5).transpose(1, 2)
    torch.testing.assert_close(attend(q, k, v, causal=causal, scale=0.5), scaled, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    ours.project.weight.copy_(theirs.in_proj_weight)
    ours.project.bias.copy_(theirs.in_proj_bias)
    ours.out.load_state_dict(theirs.out_proj.state_dict())


@pytest.mark.parametrize("causal", [False, True])
def test_the_layer_is_multihead_attention_on_the_same_weights(causal: bool) -> None:
    theirs = nn.MultiheadAttention(24, 4, batch_first=True)
    ours = Attention(AttentionConfig(dim=24, num_heads=4, head_dim=6, causal=causal))
    copy_attention(ours, theirs)
    x = torch.randn(2, 7, 24)
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    expected, _ = theirs(x, x, x, attn_mask=hidden, need_weights=False)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-6)
    if not causal:
        valid = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
        expected, _ = theirs(x, x, x, key_padding_mask=~valid, need_weights=False)
        torch.testing.assert_close(ours(x, valid_mask=valid), expected, rtol=1e-5, atol=1e-6)


def test_cross_attention_is_multihead_attention_on_the_same_weights() -> None:
    theirs = nn.MultiheadAttention(24, 4, batch_first=True)
    ours = Attention(AttentionConfig(dim=24, num_heads=4, head_dim=6, context_dim=24))
    with torch.no_grad():
        ours.project.weight.copy_(theirs.in_proj_weight[:24])
        ours.project.bias.copy_(theirs.in_proj_bias[:24])
        ours.project_context.weight.copy_(theirs.in_proj_weight[24:])
        ours.project_context.bias.copy_(theirs.in_proj_bias[24:])
        ours.out.load_state_dict(theirs.out_proj.state_dict())
    x, context = torch.randn(2, 7, 24), torch.randn(2, 5, 24)
    expected, _ = theirs(x, context, context, need_weights=False)
    torch.testing.assert_close(ours(x, context=context), expected, rtol=1e-5, atol=1e-6)


def test_the_stack_is_torchs_pre_norm_encoder_on_the_same_weights() -> None:
    layer = nn.TransformerEncoderLayer(
        24, 4, 48, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    ours = Transformer(TransformerConfig(dim=24, depth=1, num_heads=4, head_dim=6, mlp_dim=48))
    block = ours.blocks[0]
    copy_attention(block.attention, layer.self_attn)
    block.mlp.into.load_state_dict(layer.linear1.state_dict())
    block.mlp.out.load_state_dict(layer.linear2.state_dict())
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), ours.norm(layer(x)), rtol=1e-5, atol=1e-6)
