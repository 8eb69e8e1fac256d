"""The heads of C-ViViT's decoder: shapes, zero start, steps apart, reach across blocks, gradients, errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError
from tokenreel.quantize import FSQConfig
from tokenreel.tokenizers.cvivit import CViViT, CViViTConfig, FactorisedConfig
from tokenreel.tokenizers.cvivit_head import ConvHead, FrameHead

torch.set_num_threads(1)

PATCH = (2, 8, 4)
HALF = FactorisedConfig(dim=32, spatial_depth=1, temporal_depth=1, num_heads=2, head_dim=16, mlp_dim=64)
TINY = CViViTConfig(
    patch_size=PATCH,
    encoder=HALF,
    decoder=HALF,
    quantizer=FSQConfig(levels=(8, 5, 5)),
    temporal_window=3,
    head_channels=4,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def head(*, has_last: bool = False, channels: int = 5, dim: int = 6) -> ConvHead:
    made = ConvHead(dim=dim, patch_size=PATCH, channels=channels, has_last=has_last)
    with torch.no_grad():
        for seed, parameter in enumerate(made.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=seed) / 4)
    return made


@torch.no_grad()
def reference(convs: Any, features_BhwD: Tensor, frames_BCTHW: Tensor, last_BCHW: Tensor | None) -> Tensor:
    """One step by hand: 2x2 pixels to channels and back, in loops."""
    pt, ph, pw = convs.patch_size
    batch, grid_h, grid_w, _ = features_BhwD.shape
    size = (batch, grid_h * ph // 2, grid_w * pw // 2)
    spread = convs.spread(features_BhwD)
    inputs = []
    for place in range(convs.spread.out_features // ((ph // 2) * (pw // 2))):
        plane = torch.zeros(size)
        for y in range(size[1]):
            for x in range(size[2]):
                inner = (y % (ph // 2)) * (pw // 2) + x % (pw // 2)
                channels = spread.shape[-1] // ((ph // 2) * (pw // 2))
                plane[:, y, x] = spread[:, y // (ph // 2), x // (pw // 2), inner * channels + place]
        inputs.append(plane)
    inputs += [frames_BCTHW[:, c, t, a::2, b::2] for t in range(pt) for c in range(3) for a in (0, 1) for b in (0, 1)]
    if last_BCHW is not None:
        inputs += [last_BCHW[:, c, a::2, b::2] for c in range(3) for a in (0, 1) for b in (0, 1)]
    x_BFHW = F.gelu(F.conv2d(torch.stack(inputs, 1), convs.enter.weight, convs.enter.bias, padding=1))
    x_BFHW = F.gelu(F.conv2d(x_BFHW, convs.mix.weight, convs.mix.bias, padding=1))
    x_BFHW = F.conv2d(x_BFHW, convs.last.weight, convs.last.bias, padding=1)
    more = torch.zeros_like(frames_BCTHW)
    for index, (t, c, a, b) in enumerate(
        (t, c, a, b) for t in range(pt) for c in range(3) for a in (0, 1) for b in (0, 1)
    ):
        more[:, c, t, a::2, b::2] = x_BFHW[:, index]
    return frames_BCTHW + more


@pytest.mark.parametrize("has_last", [False, True])
def test_it_is_what_three_convolutions_by_hand_give(has_last: bool) -> None:
    made, features = head(has_last=has_last), drawn(2, 1, 3, 2, 6)
    first, rest, last = drawn(2, 3, 1, 24, 8, seed=1), drawn(2, 3, 2, 24, 8, seed=2), drawn(2, 3, 24, 8, seed=3)
    with torch.no_grad():
        torch.testing.assert_close(
            made(features, first), reference(made.first, features[:, 0], first, None), rtol=1e-4, atol=1e-4
        )
        seen = last if has_last else None
        torch.testing.assert_close(
            made(features, rest, last_BCHW=last, has_first=False),
            reference(made.rest, features[:, 0], rest, seen),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize(("steps", "has_first", "frames"), [(1, True, 1), (4, True, 7), (1, False, 2), (3, False, 6)])
def test_shapes(steps: int, has_first: bool, frames: int) -> None:
    made, video = head(), drawn(2, 3, frames, 16, 12)
    assert made(drawn(2, steps, 2, 3, 6), video, has_first=has_first).shape == video.shape
    linear = FrameHead(dim=6, patch_size=PATCH)
    assert linear(drawn(2, steps, 2, 3, 6), has_first=has_first).shape == video.shape


def test_a_zero_start_gives_the_frames_back_exactly() -> None:
    made, video = head(), drawn(2, 3, 5, 16, 12)
    features = drawn(2, 3, 2, 3, 6)
    assert not torch.equal(made(features, video), video)
    made.start_at_zero()
    assert torch.equal(made(features, video), video)
    later = head(has_last=True)
    later.start_at_zero()
    step = drawn(2, 1, 2, 3, 6)
    assert torch.equal(later(step, video[:, :, :2], last_BCHW=video[:, :, 4], has_first=False), video[:, :, :2])


def test_step_by_step_is_all_at_once() -> None:
    made, features, video = head(), drawn(2, 4, 2, 3, 6), drawn(2, 3, 7, 16, 12)
    with torch.no_grad():
        whole = made(features, video)
        parts = [made(features[:, :1], video[:, :, :1])]
        for step in range(1, 4):
            frames = video[:, :, 2 * step - 1 : 2 * step + 1]
            parts.append(made(features[:, step : step + 1], frames, has_first=False))
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=1e-5, atol=1e-5)


def test_no_step_sees_another() -> None:
    made, features, video = head(), drawn(1, 4, 2, 3, 6), drawn(1, 3, 7, 16, 12)
    with torch.no_grad():
        before = made(features, video)
        for step in range(4):
            other_features, other_video = features.clone(), video.clone()
            own = slice(0, 1) if step == 0 else slice(2 * step - 1, 2 * step + 1)
            other_features[:, step] += 1
            other_video[:, :, own] += 1
            changed = (made(other_features, other_video) != before).flatten(3).any(-1).any(1)[0]
            assert changed[own].all()
            assert int(changed.sum()) == own.stop - own.start


def test_it_reaches_across_the_border_of_a_block() -> None:
    """Three 3x3 convolutions at half the size: 3 places, 6 pixels to each side, and no further; a linear head 0."""
    made, video = head(), torch.zeros(1, 3, 1, 48, 48)
    features = drawn(1, 1, 6, 12, 6)
    edited = features.clone()
    edited[:, :, 3, 6] += 1  # rows 24 to 31, columns 24 to 27
    with torch.no_grad():
        differs_HW = (made(features, video) != made(edited, video)).any(dim=(0, 1, 2))
        linear = FrameHead(dim=6, patch_size=PATCH)
        within_HW = (linear(features) != linear(edited)).any(dim=(0, 1, 2))
    rows, columns = (differs_HW.any(dim).nonzero()[:, 0] for dim in (1, 0))
    assert (int(rows.min()), int(rows.max())) == (24 - 6, 31 + 6)
    assert (int(columns.min()), int(columns.max())) == (24 - 6, 27 + 6)
    assert int(within_HW.sum()) == int(within_HW[24:32, 24:28].sum()) == 32


def test_every_weight_of_both_parts_learns() -> None:
    made = head(has_last=True)
    step, frames, last = drawn(1, 1, 2, 3, 6), drawn(1, 3, 2, 16, 12), drawn(1, 3, 16, 12, seed=1)
    loss = made(step, frames[:, :, :1]).square().mean()
    (loss + made(step, frames, last_BCHW=last, has_first=False).square().mean()).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_the_frame_before_is_needed_where_it_is_looked_at() -> None:
    made, video = head(has_last=True), drawn(1, 3, 4, 16, 12)
    with pytest.raises(InputError, match="frame before"):
        made(drawn(1, 1, 2, 3, 6), video[:, :, :2], has_first=False)
    with pytest.raises(InputError, match="one step at a time"):
        made(drawn(1, 2, 2, 3, 6), video, last_BCHW=video[:, :, 0], has_first=False)


@pytest.mark.parametrize("patch_size", [(2, 7, 8), (2, 8, 5), (1, 1, 1)])
def test_an_odd_patch_is_refused(patch_size: Any) -> None:
    with pytest.raises(InputError, match=f"even height and width, got {patch_size[1]}x{patch_size[2]}"):
        ConvHead(dim=6, patch_size=patch_size, channels=4, has_last=False)
    with pytest.raises(InputError, match="even height and width"):
        CViViT(replace(TINY, patch_size=patch_size))


@pytest.mark.parametrize("linear_path", [False, True])
def test_a_tokenizer_with_it_streams_what_it_decodes_whole(linear_path: bool) -> None:
    model = CViViT.untrained(replace(TINY, linear_path=linear_path), seed=0)
    video = drawn(3, 8, 15, 14).clamp(-1, 1)
    (tokens,) = model.encode([video])
    (whole,) = model.decode([tokens])
    assert whole.shape == video.shape
    encoder, decoder = model.encoder(), model.decoder()
    parts = [part for start in range(8) for part in encoder.push(video[:, start : start + 1])] + encoder.finish()
    pieces = [piece for part in parts for piece in decoder.push(part)] + decoder.finish()
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-5)
    changed = video.clone()
    changed[:, 5:] *= -1
    (after,) = model.decode(model.encode([changed]))
    assert torch.equal(after[:, :5], whole[:, :5])
    assert not torch.equal(after[:, 5:], whole[:, 5:])


def test_started_it_adds_nothing_to_the_linear_codec() -> None:
    generator = torch.Generator().manual_seed(0)
    film = [torch.rand(3, 1, 2, 2, generator=generator).repeat(1, 5, 8, 8) * 2 - 1 for _ in range(9)]
    film = [rearrange(video, "C T (h a) (w b) -> C T (a h) (b w)", a=2, b=2).contiguous() for video in film]
    decoded = []
    for channels in (None, 4):
        model = CViViT.untrained(replace(TINY, linear_path=True, head_channels=channels), seed=0)
        model.start_linear(film)
        decoded.append(model.decode(model.encode(film[:2])))
        assert model.last_weight.abs().max() == 0
    for plain, convolved in zip(*decoded):
        assert torch.equal(plain, convolved)


def test_the_last_weight_is_the_last_convolutions() -> None:
    model = CViViT.untrained(TINY, seed=0)
    assert isinstance(model.head, ConvHead)
    assert model.last_weight is model.head.rest.last.weight
