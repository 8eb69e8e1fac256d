"""C-ViViT's Haar patches, full attention, spatial windows, and passes of a predictive tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.quantize import FSQConfig
from tokenreel.tokenizers.cvivit import CViViT, CViViTConfig
from tokenreel.tokenizers.cvivit_haar import Haar, haar_matrix
from tokenreel.tokenizers.cvivit_model import FactorisedConfig, bands

torch.set_num_threads(1)

SIZES = FactorisedConfig(dim=32, spatial_depth=2, temporal_depth=1, num_heads=2, head_dim=16, mlp_dim=64)


def made(**options: Any) -> CViViT:
    config = CViViTConfig(
        patch_size=(2, 4, 4),
        encoder=SIZES,
        decoder=SIZES,
        quantizer=FSQConfig(levels=(8, 5, 5)),
        temporal_window=4,
        **options,
    )
    return CViViT.untrained(config, seed=0)


def video(frames: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    return torch.rand(3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_haar_rows_are_orthonormal_and_the_first_is_the_mean(side: int) -> None:
    matrix = haar_matrix(side)
    torch.testing.assert_close(matrix @ matrix.t(), torch.eye(side))
    torch.testing.assert_close(matrix[0], torch.full((side,), side**-0.5))


def test_haar_sides_are_powers_of_two() -> None:
    with pytest.raises(InputError, match="powers of two, got 6"):
        haar_matrix(6)


@pytest.mark.parametrize("still", [False, True])
def test_haar_is_undone_and_keeps_energy_patch_by_patch(still: bool) -> None:
    haar, x = Haar((2, 4, 8)), video(4, 8, 16)[None]
    waves = haar(x, still=still)
    torch.testing.assert_close(haar(waves, still=still, inverse=True), x)
    torch.testing.assert_close(waves.square().sum(), x.square().sum())
    flat = torch.ones(1, 3, 4, 8, 16)
    found = haar(flat, still=still)
    pt = 1 if still else 2
    assert torch.count_nonzero(found.abs() > 1e-5) == 3 * (4 // pt) * 2 * 2  # one mean a patch


def test_haar_patches_start_as_other_weights_of_the_same_maps() -> None:
    pixels, waves = made(), made(patching="haar")
    haar = Haar((2, 4, 4))
    patch = haar(video(2, 4, 4)[None])
    torch.testing.assert_close(waves.embed.rest(patch), waves.embed(video(2, 4, 4)[None], has_first=False))
    assert sum(p.numel() for p in pixels.parameters()) == sum(p.numel() for p in waves.parameters())
    assert waves(video(5, 9, 10)[None]).video.shape == (1, 3, 5, 9, 10)


def test_full_attention_lets_every_step_see_all() -> None:
    full, half = made(causal=False, attention="full"), made(causal=False)
    x, y = video(5, 8, 8), video(5, 8, 8)
    y[:, 4, 7, 7] += 0.5
    assert not torch.equal(full.latents(x[None])[:, 0, 0, 0], full.latents(y[None])[:, 0, 0, 0])
    assert sum(p.numel() for p in full.encoder_half.joint.parameters()) > 0
    assert full.decode(full.encode([x]))[0].shape == half.decode(half.encode([x]))[0].shape == x.shape


def test_full_attention_hides_padded_steps() -> None:
    full = made(causal=False, attention="full")
    short, long = video(3, 8, 8), video(7, 8, 8)
    long[:, :3] = short
    alone = full(short[None]).latents
    padded = full(long[None], frame_counts=[3]).latents
    torch.testing.assert_close(padded[:, :2], alone, atol=1e-5, rtol=1e-5)


def test_bands_cover_a_length_once() -> None:
    for size in range(1, 70):
        for shift in (0, 4):
            covered = [
                place for start, side, count in bands(size, 8, shift) for place in range(start, start + side * count)
            ]
            assert covered == list(range(size))
            assert max(side for _, side, _ in bands(size, 8, shift)) <= 8


def test_a_grid_within_one_window_is_as_without() -> None:
    plain = made()
    windowed = CViViT(replace(plain.config, spatial_window=4)).eval()
    windowed.load_state_dict(plain.state_dict())
    x = video(5, 16, 16)[None]
    assert torch.equal(plain.latents(x), windowed.latents(x))
    wide = video(5, 16, 40)[None]
    assert not torch.equal(plain.latents(wide), windowed.latents(wide))


@pytest.mark.parametrize("positions", ["rotary", "bias"])
def test_windows_see_no_further_than_their_shifts_reach(positions: str) -> None:
    model = made(spatial_window=4, positions=positions, peg=False)
    x = video(1, 16, 128)
    y = x.clone()
    y[:, :, :, -4:] += 0.3
    before, after = model.latents(x[None]), model.latents(y[None])
    changed = (before != after).any(-1)[0, 0].any(0)
    assert changed[-1]
    assert not changed[: 32 - 8].any()  # one window, and the one that is shifted by half


def test_windows_stream_and_take_any_size() -> None:
    model = made(spatial_window=4)
    x = video(7, 30, 45)
    encoder, parts = model.encoder(), []
    for frame in range(7):
        parts += encoder.push(x[:, frame : frame + 1])
    parts += encoder.finish()
    whole = model.encode([x])[0]
    assert [int(i) for part in parts for i in part.ids_L] == whole.ids_L.tolist()


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_passes_compare_what_a_long_stream_gives(passes: int) -> None:
    model = made(prediction="last").eval()
    x = video(5, 8, 8)
    turns = [x, *(x[:, 1:] if turn % 2 == 0 else x.flip(1)[:, 1:] for turn in range(1, passes + 1))]
    stream = torch.cat(turns, dim=1)
    late = model(stream[None]).video[0, :, -5:]
    found = model(x[None], passes=passes)
    found = found.video[0].flip(1) if passes % 2 else found.video[0]
    torch.testing.assert_close(found[:, 1:], late[:, 1:])
    torch.testing.assert_close(found[:, 0], late[:, 0].clamp(-1, 1))


def test_passes_learn_from_the_last_one_alone() -> None:
    model = made(prediction="last").train()
    out = model(video(5, 8, 8)[None], passes=2)
    assert out.latents.shape[1] == out.ids.shape[1] == 2
    out.video.square().mean().backward()
    assert model.embed.first.proj.weight.grad is None
    assert model.embed.rest.proj.weight.grad is not None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attention": "full"}, "attention='full' needs causal=False"),
        ({"attention": "wide"}, "attention must be one of"),
        ({"patching": "dct"}, "patching must be one of"),
        ({"spatial_window": 1}, "spatial_window must be at least 2"),
        ({"spatial_window": 4, "attention": "full", "causal": False}, "spatial_window must be"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        made(**options)


def test_passes_are_for_predictive_tokenizers() -> None:
    with pytest.raises(InputError, match="passes are for tokenizers with prediction='last'"):
        made()(video(5, 8, 8)[None], passes=1)
