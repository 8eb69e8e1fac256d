"""C-ViViT with prediction: streams, causality, sizes, batches, masks, gradients, what a still clip gains, errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.quantize import FSQConfig, VQConfig
from tokenreel.tokenizers.configs import BlockOptions
from tokenreel.tokenizers.cvivit import CViViT, CViViTConfig, FactorisedConfig
from tokenreel.tokenizers.cvivit_head import FrameHead
from tokenreel.tokenizers.cvivit_loop import LoopState, decode_step, encode_step, steps_of
from tokenreel.types import Tokens

torch.set_num_threads(1)

HALF = FactorisedConfig(dim=32, spatial_depth=1, temporal_depth=2, num_heads=2, head_dim=16, mlp_dim=64)
TINY = CViViTConfig(
    patch_size=(2, 8, 8),
    encoder=HALF,
    decoder=HALF,
    quantizer=FSQConfig(levels=(8, 5, 5)),
    temporal_window=3,
    prediction="last",
)
LINEAR: dict[str, Any] = {"quantizer": FSQConfig(levels=(9, 9, 9, 9)), "linear_path": True}
CHOOSING: dict[str, Any] = {"quantizer": FSQConfig(levels=(5, 9, 9)), "num_transforms": 5, "transform_width": 24}
STARTED = {"linear path": LINEAR, "transforms": CHOOSING, "head": {**LINEAR, "head_channels": 4}}
SIZES = [(1, 16, 16), (5, 17, 31), (4, 8, 8), (2, 1, 1), (9, 9, 16)]


def clip(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def soft(*size: int, seed: int = 0) -> Tensor:
    """Slow shades that drift, within (-1, 1)."""
    frames, height, width = size
    draw = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    t, y, x = torch.meshgrid(
        torch.arange(frames) / 40, torch.arange(height) / 16, torch.arange(width) / 16, indexing="ij"
    )
    places_3N = torch.stack([t, y, x]).flatten(1)
    waves_KCN = torch.stack([torch.sin(6 * (draw[:, k, :3] @ places_3N) + 3 * draw[:, k, 3:]) for k in range(3)])
    video: Tensor = (waves_KCN.sum(0) / 4).view(3, *size)
    return video


def made(seed: int = 0, **changes: Any) -> CViViT:
    return CViViT.untrained(replace(TINY, **changes), seed=seed)


@cache
def _started(variant: str) -> CViViT:
    model = made(**STARTED[variant])
    model.start_linear([soft(7, 32, 32, seed=seed) for seed in range(12)])
    return model


def started(variant: str) -> CViViT:
    return deepcopy(_started(variant))


VARIANTS: dict[str, dict[str, Any]] = {"plain": {}, "bias, no peg": {"positions": "bias", "peg": False}}


@pytest.fixture(params=[*VARIANTS, *STARTED])
def model(request: pytest.FixtureRequest) -> CViViT:
    if request.param in VARIANTS:
        return made(**VARIANTS[request.param])
    model = started(request.param)
    with torch.no_grad():  # so that attention has its say
        generator = torch.Generator().manual_seed(1)
        model.to_latents.weight.copy_(torch.randn(model.to_latents.weight.shape, generator=generator) / 5)
    return model


def pushed(model: CViViT, video: Tensor, chunk: int) -> list[Tokens]:
    stream, parts = model.encoder(), []
    for start in range(0, video.shape[1], chunk):
        parts += stream.push(video[:, start : start + chunk])
    return parts + stream.finish()


def ids_of(parts: Iterable[Tokens]) -> np.ndarray[Any, Any]:
    return np.concatenate([part.ids_L for part in parts])


@pytest.mark.parametrize("chunk", [1, 3, 40])
def test_a_stream_in_any_pushes_is_the_whole_bit_for_bit(model: CViViT, chunk: int) -> None:
    video = soft(12, 16, 24)
    (whole,) = model.encode([video])
    parts = pushed(model, video, chunk)
    np.testing.assert_array_equal(ids_of(parts), whole.ids_L)
    assert sum(part.size[0] for part in parts) == 12
    assert sum(part.grid.t for part in parts) == whole.grid.t == 7
    decoder = model.decoder()
    pieces = [piece for part in parts for piece in decoder.push(part)] + decoder.finish()
    assert torch.equal(torch.cat(pieces, dim=1), model.decode([whole])[0])


def test_a_stream_starts_again_after_finish() -> None:
    model, videos = made(), [clip(4, 16, 16, seed=seed) for seed in range(2)]
    encoder, decoder = model.encoder(), model.decoder()
    for video in videos:
        parts = encoder.push(video) + encoder.finish()
        (whole,) = model.encode([video])
        np.testing.assert_array_equal(ids_of(parts), whole.ids_L)
        pieces = [piece for part in parts for piece in decoder.push(part)] + decoder.finish()
        assert torch.equal(torch.cat(pieces, dim=1), model.decode([whole])[0])


@pytest.mark.parametrize("frames", [1, 2, 8])
def test_the_first_frames_ids_are_the_images(model: CViViT, frames: int) -> None:
    video = soft(frames, 16, 24)
    (image,), (whole,) = model.encode([video[:, :1]]), model.encode([video])
    np.testing.assert_array_equal(image.ids_L, whole.ids_L[: image.num_tokens])
    assert torch.equal(model.decode([image])[0], model.decode([whole])[0][:, :1])


def test_each_frame_edited_in_turn_changes_nothing_before_its_step(model: CViViT) -> None:
    video = soft(6, 16, 16)
    with torch.no_grad():
        before = model(video[None])
        for edited in range(1, 6):
            changed = video.clone()
            changed[:, edited] = clip(1, 16, 16, seed=edited + 1)[:, 0]
            after = model(changed[None])
            step = 1 + (edited - 1) // 2  # of the grid; it begins with frame 1 + 2 * (step - 1)
            assert torch.equal(after.latents[:, :step], before.latents[:, :step])
            assert torch.equal(after.ids[:, :step], before.ids[:, :step])
            first = 1 + 2 * (step - 1)
            assert torch.equal(after.video[:, :, :first], before.video[:, :, :first])
            assert not torch.equal(after.latents[:, step], before.latents[:, step])


def test_a_steps_code_hangs_on_the_frame_that_was_decoded_before_it() -> None:
    """The same frames after another first frame are coded anew: what is known need not be said."""
    model = made(temporal_window=1, peg=False)  # no other way back
    video = clip(3, 8, 8)
    other = torch.cat([-video[:, :1], video[:, 1:]], dim=1)
    with torch.no_grad():
        one, two = model(video[None]), model(other[None])
        assert not torch.equal(one.latents[:, 1], two.latents[:, 1])
        plain = made(temporal_window=1, peg=False, prediction="none")
        assert torch.equal(plain.latents(video[None])[:, 1], plain.latents(other[None])[:, 1])


def test_a_decoder_that_says_nothing_new_repeats_the_last_frame() -> None:
    model = started("linear path")
    with torch.no_grad():
        assert model.linear_out is not None
        for parameter in (model.linear_out.rest.weight, model.linear_out.rest.bias):
            parameter.zero_()
    (decoded,) = model.decode(model.encode([soft(5, 16, 16)]))
    assert torch.equal(decoded, decoded[:, :1].expand_as(decoded))


def test_sizes_and_lengths_that_do_not_divide_are_kept(model: CViViT) -> None:
    videos = [clip(*size, seed=seed) for seed, size in enumerate(SIZES)]
    tokens = model.encode(videos)
    for item, video, decoded in zip(tokens, videos, model.decode(tokens), strict=True):
        frames, height, width = item.size
        assert (item.grid.t, item.grid.h, item.grid.w) == (1 + frames // 2, -(-height // 8), -(-width // 8))
        assert decoded.shape == video.shape
        assert decoded.dtype == torch.float32
        assert float(decoded.abs().max()) <= 1


def test_several_are_coded_as_one_by_one_bit_for_bit(model: CViViT) -> None:
    videos = [soft(*size, seed=seed) for seed, size in enumerate([*SIZES, SIZES[1], SIZES[0]])]
    tokens = model.encode(videos)
    decoded = model.decode(tokens)
    for video, item, pixels in zip(videos, tokens, decoded, strict=True):
        (alone,) = model.encode([video])
        np.testing.assert_array_equal(item.ids_L, alone.ids_L)
        assert torch.equal(pixels, model.decode([alone])[0])


def test_forward_is_what_encode_and_decode_do(model: CViViT) -> None:
    video = soft(6, 17, 20)
    (tokens,) = model.encode([video])
    with torch.no_grad():
        out = model.train()(video[None])
        assert torch.equal(model.latents(video[None]), out.latents)
        assert torch.equal(model.frames(out.codes)[:, :, :6, :17, :20], out.video)
    np.testing.assert_array_equal(out.ids.flatten().numpy(), tokens.ids_L)
    assert torch.equal(out.video[0].clamp(-1, 1), model.decode([tokens])[0])


@pytest.mark.parametrize("counts", [[7, 4, 1, 6], [1, 2, 1, 1]])
def test_padding_reaches_nothing(model: CViViT, counts: Sequence[int]) -> None:
    batch = torch.full((4, 3, 7, 16, 24), 1e3)
    for index, frames in enumerate(counts):
        batch[index, :, :frames] = soft(frames, 16, 24, seed=index)
    with torch.no_grad():
        together = model(batch, frame_counts=counts)
        batch[batch == 1e3] = -5.0
        again = model(batch, frame_counts=counts)
        assert torch.equal(together.video, again.video)
        for index, frames in enumerate(counts):
            alone = model(soft(frames, 16, 24, seed=index)[None])
            steps = alone.latents.shape[1]
            torch.testing.assert_close(together.latents[index, :steps], alone.latents[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(together.video[index, :, :frames], alone.video[0], rtol=1e-4, atol=1e-5)


def test_masked_steps_count_in_no_loss() -> None:
    model = made(quantizer=VQConfig(codebook_size=16, codebook_dim=4)).train()
    batch = torch.cat([clip(5, 8, 8)[None], clip(5, 8, 8, seed=1)[None]])
    alone = model(batch[:1]), model(batch[1:, :, :1])
    both = model(batch, frame_counts=[5, 1])
    assert both.aux
    for name, loss in both.aux.items():  # three steps and one
        torch.testing.assert_close(loss, (3 * alone[0].aux[name] + alone[1].aux[name]) / 4, rtol=1e-5, atol=1e-7)
    padded = model(batch[:1], frame_counts=[1])
    first = model(batch[:1, :, :1])
    for name, loss in padded.aux.items():
        torch.testing.assert_close(loss, first.aux[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"positions": "bias"},
        {"quantizer": VQConfig(codebook_size=64, codebook_dim=8)},
        {"linear_path": True},
        {"linear_path": True, "head_channels": 4},
        CHOOSING,
        {**CHOOSING, "head_channels": 4},
    ],
)
def test_every_parameter_learns(changes: dict[str, Any]) -> None:
    model = made(**changes)
    if model.transforms is not None:  # they start at zero
        kept = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("transforms")}
        model.start_linear([soft(7, 32, 32, seed=seed) for seed in range(8)])
        model.load_state_dict(kept, strict=False)
    video = soft(5, 32, 32, seed=3)[None]
    out = model.train()(video)
    ((out.video - video).square().mean() + sum(out.aux.values())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_gradients_reach_earlier_steps_through_the_frames() -> None:
    """The loss of the last frames alone moves the first frame's own map, though attention sees one step only."""
    model = made(temporal_window=1, peg=False).train()
    out = model(clip(3, 8, 8)[None])
    out.video[:, :, 1:].square().mean().backward()
    assert isinstance(model.embed.first.proj.weight.grad, Tensor)
    assert float(model.embed.first.proj.weight.grad.abs().max()) > 0


@pytest.mark.parametrize("changes", STARTED.values(), ids=STARTED)
def test_a_still_clip_gets_better_with_every_step(changes: dict[str, Any]) -> None:
    model = made(**changes)
    film = [soft(9, 32, 32, seed=seed) for seed in range(12)]
    model.start_linear([video[:, :1].expand(-1, 9, -1, -1) for video in film])
    still = torch.stack([soft(1, 32, 32, seed=seed).expand(-1, 9, -1, -1) for seed in range(20, 24)])
    decoded = torch.stack(model.decode(model.encode(list(still))))
    error_T = (decoded - still).square().mean(dim=(0, 1, 3, 4))
    ends = [float(error) for error in error_T[::2]]  # the last frame of each step
    assert ends[2] < ends[1] < ends[0]
    assert all(after < 1.002 * before for before, after in pairwise(ends)), ends  # what levels and map leave stays
    assert ends[-1] < ends[0] / 2


def test_the_started_codec_is_better_than_none_and_starts_equal_twice() -> None:
    film, video = [soft(7, 32, 32, seed=seed) for seed in range(12)], soft(9, 32, 32, seed=40)
    for variant in ("linear path", "transforms"):
        first, second = started(variant), made(**STARTED[variant])
        second.start_linear(film)
        assert first.fingerprint == second.fingerprint
        (decoded,) = first.decode(first.encode([video]))
        mean = torch.stack([one.mean(dim=(1, 2, 3)) for one in film]).mean(0)
        assert (decoded - video).square().mean() < (mean[:, None, None, None] - video).square().mean() / 4


def test_a_streams_memory_is_one_window() -> None:
    model = made(temporal_window=5)
    encoder, decoder, sizes = model.encoder(), model.decoder(), []
    for part in range(10):
        for tokens in encoder.push(clip(1 if part == 0 else 2, 16, 16, seed=part)):
            decoder.push(tokens)
        sizes.append((_held(encoder), _held(decoder)))
    assert sizes[3] > sizes[2] > sizes[1]  # it fills its window
    assert len(set(sizes[4:])) == 1, sizes


def _held(value: Any) -> int:
    """Bytes of all tensors, with what they are views of, that a stream holds on to besides its tokenizer."""
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, tuple | list):
        return sum(_held(part) for part in value)
    held = getattr(value, "__dict__", None)
    if held is None:
        held = {name: getattr(value, name) for name in getattr(type(value), "__slots__", ())}
    return sum(_held(part) for name, part in held.items() if name != "tokenizer")


def test_steps_cover_a_clip() -> None:
    video = clip(6, 8, 8)[None]
    assert [part.shape[2] for part in steps_of(video, 4)] == [1, 4, 1]
    assert [part.shape[2] for part in steps_of(video, 4, has_first=False)] == [4, 2]
    assert torch.equal(torch.cat(list(steps_of(video, 4)), dim=2), video)


def test_what_a_step_hands_on_is_the_last_frame_within_range() -> None:
    model, state = made(), LoopState()
    assert isinstance(model.head, FrameHead)
    with torch.no_grad():
        model.head.first.bias.fill_(3.0)
        latents, state = encode_step(model, clip(1, 16, 16)[None], state)
        assert state.last_BCHW is None
        frames, state = decode_step(model, model.quantizer(latents).codes, state)
    assert float(frames.max()) > 1
    assert state.last_BCHW is not None
    assert torch.equal(state.last_BCHW, frames[:, :, -1].clamp(-1, 1))
    assert (state.encoder.steps, state.decoder.steps) == (1, 1)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path, model: CViViT) -> None:
    model.save_pretrained(tmp_path / "m")
    loaded, video = CViViT.from_pretrained(tmp_path / "m"), soft(5, 16, 16)
    assert loaded.config == model.config
    assert loaded.fingerprint == model.fingerprint
    (tokens,) = model.encode([video])
    np.testing.assert_array_equal(loaded.encode([video])[0].ids_L, tokens.ids_L)
    assert torch.equal(loaded.decode([tokens])[0], model.decode([tokens])[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"causal": False}, "causal=True"),
        ({"blocks": BlockOptions(drop_path=0.1)}, "drop_path=0"),
        ({"prediction": "next"}, "none, last"),
        ({"linear_path": True, "num_transforms": 8}, "choose one"),
        ({"transform_width": 0}, "transform_width"),
        ({"head_channels": 0}, "head_channels"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes)


def test_without_a_linear_path_there_is_nothing_to_start() -> None:
    with pytest.raises(InputError, match="start_linear needs"):
        made().start_linear([clip(3, 16, 16)])
