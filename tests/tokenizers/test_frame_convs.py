"""Convolutions that end TiTok's and TiTok-Video's decoders: nothing at first, then across the borders of patches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.quantize import FSQConfig
from tokenreel.tokenizers.configs import Stack
from tokenreel.tokenizers.frame_convs import FrameConvs
from tokenreel.tokenizers.titok import TiTok, TiTokConfig
from tokenreel.tokenizers.titok_video import TiTokVideo, TiTokVideoConfig

torch.set_num_threads(1)

STACK = Stack(dim=32, depth=1, num_heads=2, head_dim=16, mlp_dim=48)
FAMILIES: dict[str, tuple[Any, Any]] = {
    "titok": (
        TiTok,
        TiTokConfig(
            image_size=(16, 16), patch_size=(1, 4, 4), num_queries=6, encoder=STACK, decoder=STACK,
            quantizer=FSQConfig(levels=(9, 7, 5)), head_channels=4, spectral=True,
        ),
    ),
    "titok_video": (
        TiTokVideo,
        TiTokVideoConfig(
            patch_size=(2, 4, 4), encoder=STACK, decoder=STACK, quantizer=FSQConfig(levels=(9, 7, 5)), token_count=6,
            max_frames=4, max_extents=(32, 8, 8, 8), head_channels=4, spectral=True, spectral_tokens=6,
        ),
    ),
}  # fmt: skip


def clips(*sizes: tuple[int, int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) * 1.6 - 0.8 for size in sizes]


def learned(name: str) -> Any:
    """As after some steps: no weight is zero."""
    family, config = FAMILIES[name]
    made = family.untrained(config, seed=0)
    made.start_spectral(clips(*[(4, 16, 16)] * 6))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.convs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made.eval()


@pytest.fixture(params=FAMILIES)
def made(request: pytest.FixtureRequest) -> Any:
    return learned(request.param)


@pytest.mark.parametrize("name", FAMILIES)
def test_started_they_add_nothing(name: str) -> None:
    family, config = FAMILIES[name]
    videos = clips((4, 16, 16), (1, 13, 18))
    outputs = []
    for channels in (4, None):
        model = family.untrained(replace(config, head_channels=channels), seed=0)
        model.start_spectral(clips(*[(4, 16, 16)] * 6))
        outputs.append(model.decode(model.encode(videos)))
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_batch_is_one_by_one(made: Any) -> None:
    videos = clips((4, 16, 16), (1, 13, 18), (5, 16, 20), (4, 16, 16), (1, 3, 2))
    tokens = made.encode(videos)
    for video, item, decoded in zip(videos, tokens, made.decode(tokens), strict=True):
        assert decoded.shape == video.shape
        (alone,) = made.encode([video])
        np.testing.assert_array_equal(alone.ids_L, item.ids_L)
        torch.testing.assert_close(made.decode([item])[0], decoded, rtol=1e-5, atol=1e-5)


def test_forward_is_what_encode_and_decode_do(made: Any) -> None:
    (video,) = clips((4, 16, 16))
    (tokens,) = made.encode([video])
    with torch.no_grad():
        out = made(video[None])
    torch.testing.assert_close(out.video[0].clamp(-1, 1), made.decode([tokens])[0], rtol=1e-5, atol=1e-5)
    assert made.last_weight is made.convs.last.weight


def test_gradients_reach_every_weight(made: Any) -> None:
    batch = torch.stack(clips((4, 16, 16), (4, 16, 16)))
    (made(batch).video - batch).square().mean().backward()
    for name, parameter in made.convs.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_they_see_across_borders_within_their_reach_and_no_further() -> None:
    """Three 3x3 convolutions at half the size reach 3 places, 6 to 7 pixels; a step sees itself alone."""
    convs = FrameConvs(dim=8, patch_size=(2, 4, 4), channels=3, others=0).double()
    features, video = torch.zeros(1, 2, 6, 6, 8).double(), torch.zeros(1, 3, 4, 24, 24).double()
    before = convs(features, video)
    video[0, :, 1, 12, 12] = 1
    changed = (convs(features, video) - before).abs().sum((0, 1)) > 0
    rows = changed.any(2).nonzero()
    assert rows[:, 0].unique().tolist() == [0, 1]
    assert (int(rows[:, 1].min()), int(rows[:, 1].max())) == (6, 19)
    assert int(changed[0].any(0).nonzero().min()) == 6


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="even height and width, got 4x3"):
        FrameConvs(dim=8, patch_size=(1, 4, 3), channels=3, others=0)
    for _, config in FAMILIES.values():
        with pytest.raises(InputError, match="head_channels must be at least 1"):
            replace(config, head_channels=0)
