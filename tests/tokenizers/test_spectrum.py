"""The spectral start: cosines, exact analysis, prefixes, refinement, grids, and the two tokenizers that use it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor

from tokenreel.errors import InputError
from tokenreel.quantize import FSQ, FSQConfig, LFQConfig, VQConfig, build_quantizer
from tokenreel.tokenizers import spectrum as spectrum_module
from tokenreel.tokenizers.configs import Stack
from tokenreel.tokenizers.spectrum import Spectrum, _chains, _cosines, _waves
from tokenreel.tokenizers.spectrum_fit import MOST_WAVES, numbers_in_order
from tokenreel.tokenizers.titok import TiTok, TiTokConfig
from tokenreel.tokenizers.titok_video import TiTokVideo, TiTokVideoConfig

torch.set_num_threads(1)

STACK = Stack(dim=32, depth=1, num_heads=2, head_dim=16, mlp_dim=48)
PICTURES = TiTokConfig(
    image_size=(16, 16),
    patch_size=(1, 4, 4),
    num_queries=12,
    encoder=STACK,
    decoder=STACK,
    quantizer=FSQConfig(levels=(9, 7, 5)),
    nested_dropout=True,
    spectral=True,
)
CLIPS = TiTokVideoConfig(
    patch_size=(2, 4, 4),
    encoder=STACK,
    decoder=STACK,
    quantizer=FSQConfig(levels=(9, 7, 5)),
    token_count=12,
    max_frames=4,
    max_extents=(32, 8, 8, 8),
    nested_dropout=True,
    spectral=True,
    spectral_tokens=10,
)
QUANTIZER = FSQ(PICTURES.quantizer)  # type: ignore[arg-type]
GRID = (2, 3, 4)
VALUES = 12
CPU = torch.device("cpu")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shades(*size: int, seed: int = 0) -> Tensor:
    """(3, T, H, W): a few slow waves of random colour, the slower the stronger."""
    grids = torch.meshgrid(*((torch.arange(n) + 0.5) / n for n in size), indexing="ij")
    video = torch.zeros(3, *size)
    for wave in product(range(2), range(3), range(3)):
        strength = drawn(3, seed=100 * seed + 9 * wave[0] + 3 * wave[1] + wave[2]) * 0.35 / (1 + sum(wave)) ** 1.5
        cosines = [torch.cos(math.pi * k * grid) for k, grid in zip(wave, grids)]
        video += strength[:, None, None, None] * cosines[0] * cosines[1] * cosines[2]
    return video.clamp(-1, 1)


def patches_of(video_CTHW: Tensor, size: tuple[int, int, int] = (1, 2, 2)) -> tuple[Tensor, tuple[int, int, int]]:
    pt, ph, pw = size
    patches = rearrange(video_CTHW, "C (t pt) (h ph) (w pw) -> (t h w) (pt ph pw C)", pt=pt, ph=ph, pw=pw)
    return patches, (video_CTHW.shape[1] // pt, video_CTHW.shape[2] // ph, video_CTHW.shape[3] // pw)


def spectrum(*, num_tokens: int = 20, channels: int = 6, values: int = VALUES) -> Spectrum:
    return Spectrum(num_tokens=num_tokens, channels=channels, cell_values=values, quantizer=QUANTIZER)


@cache
def _fitted(num_tokens: int) -> Spectrum:
    made = spectrum(num_tokens=num_tokens)
    made.start([patches_of(shades(2, 6, 8, seed=seed)) for seed in range(40)], QUANTIZER)
    return made


def depth_of(made: Spectrum, kind: int = 0) -> Tensor:
    """(Q, E): how many numbers tell a wave before each; -1 where a number tells none."""
    depth = _chains(made.place_MQE, numbers_in_order(QUANTIZER))[1][kind]
    return torch.where(made.place_MQE[kind] < 0, -1, depth)


def error_of(made: Spectrum, videos: list[Tensor], tokens: int, *, deepest: int = 9) -> float:
    """Mean squared error of clips coded by the spectrum alone, from the first tokens, refined no deeper than asked."""
    errors = []
    for video in videos:
        patches_NP, grid = patches_of(video)
        latents = made.latents(patches_NP[None], torch.zeros(1, made.num_tokens, 3), grid, QUANTIZER)
        codes = QUANTIZER(latents).codes * (depth_of(made) <= deepest)
        errors.append((made.cells(codes[:, :tokens], grid, QUANTIZER)[0] - patches_NP).square().mean())
    return float(torch.stack(errors).mean().detach())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 24])
def test_cosines_are_orthogonal_with_mean_square_1(size: int) -> None:
    table = _cosines(size, CPU)
    torch.testing.assert_close(table @ table.T / size, torch.eye(size), rtol=0, atol=1e-6)
    n = np.arange(size)
    for wave in range(1, size):
        expected = math.sqrt(2) * np.cos(math.pi * wave * (2 * n + 1) / (2 * size))
        np.testing.assert_allclose(table[wave].numpy(), expected, atol=1e-5)
    assert torch.equal(table[0], torch.ones(size))


@torch.no_grad()
def test_all_waves_unrounded_give_the_clip_back() -> None:
    t, h, w = GRID
    made = spectrum(num_tokens=t * h * w * VALUES // 3, channels=VALUES)
    made.start([(drawn(24, VALUES, seed=seed), GRID) for seed in range(5)], QUANTIZER)
    waves = torch.cartesian_prod(*(torch.arange(n) for n in (t, h, w, VALUES)))
    a, b, c, g = waves.unbind(1)
    made.place_MQE.copy_((((a * MOST_WAVES[1] + b) * MOST_WAVES[2] + c) * VALUES + g).view(1, -1, 3))
    made.inward_MQE.fill_(0.7)
    made.outward_MQE.fill_(1 / 0.7)
    patches = drawn(3, 24, VALUES, seed=9)
    latents = made.latents(patches, torch.zeros(3, made.num_tokens, 3), GRID, QUANTIZER)
    torch.testing.assert_close(made.cells(latents, GRID, QUANTIZER), patches, rtol=1e-4, atol=1e-5)
    # Each number is the mean of its wave times its channel, by sums over cells.
    phi = [_cosines(n, CPU) for n in GRID]
    channels = made.analyse(patches).unflatten(1, GRID)
    for index, (a, b, c) in enumerate(product(range(t), range(h), range(w))):
        expected = torch.einsum("bthwg,t,h,w->bg", channels, phi[0][a], phi[1][b], phi[2][c]) / 24
        found = latents.flatten(1)[:, index * VALUES : (index + 1) * VALUES]
        torch.testing.assert_close(found, 0.7 * expected, rtol=1e-4, atol=1e-5)


def test_an_unstarted_one_adds_nothing() -> None:
    made, more = spectrum(), drawn(2, 20, 3)
    patches = drawn(2, 24, VALUES)
    assert torch.equal(made.latents(patches, more, GRID, QUANTIZER), more)
    cells = made.cells(drawn(2, 20, 3), GRID, QUANTIZER)
    assert cells.shape == (2, 24, VALUES)
    assert not cells.any()


def test_each_prefix_is_a_better_picture_than_a_shorter_one() -> None:
    videos = [shades(2, 6, 8, seed=seed) for seed in range(50, 60)]
    errors = [error_of(_fitted(20), videos, tokens) for tokens in (0, 1, 2, 4, 8, 14, 20)]
    assert all(after < before for before, after in pairwise(errors)), errors
    assert errors[-1] < errors[0] / 20
    assert errors[2] < errors[0] / 2


def test_no_tokens_are_the_mean_patch() -> None:
    made = _fitted(20)
    flat = made.cells(torch.zeros(1, 0, 3), GRID, QUANTIZER)
    assert torch.equal(flat, made.synthesise.bias.expand_as(flat))


def test_strong_waves_are_told_again_and_finer() -> None:
    made, videos = _fitted(20), [shades(2, 6, 8, seed=seed) for seed in range(50, 60)]
    assert int(depth_of(made).max()) >= 1
    errors = [error_of(made, videos, 20, deepest=depth) for depth in range(int(depth_of(made).max()) + 1)]
    assert all(after < before for before, after in pairwise(errors)), errors


@torch.no_grad()
def test_a_later_number_codes_what_an_earlier_one_left() -> None:
    made = _fitted(20)
    patches, more = drawn(2, 24, VALUES) / 3, drawn(2, 20, 3, seed=1) / 10
    latents = made.latents(patches, more, GRID, QUANTIZER)
    codes = QUANTIZER(latents).codes
    boxed = torch.zeros(2, *MOST_WAVES, made.channels)
    boxed[:, : GRID[0], : GRID[1], : GRID[2]] = _waves(made.analyse(patches).unflatten(1, GRID))
    waves_BX = boxed.flatten(1)
    told: dict[int, Tensor] = {}
    seen = set()
    for depth in range(int(depth_of(made).max()) + 1):
        for q, e in (depth_of(made) == depth).nonzero().tolist():
            place = int(made.place_MQE[0, q, e])
            assert (place, depth) not in seen
            assert depth == 0 or (place, depth - 1) in seen
            seen.add((place, depth))
            left = waves_BX[:, place] - told.get(place, torch.zeros(2))
            expected = more[:, q, e] + made.inward_MQE[0, q, e] * left
            torch.testing.assert_close(latents[:, q, e], expected, rtol=1e-4, atol=1e-4)
            told[place] = told.get(place, torch.zeros(2)) + codes[:, q, e] * made.outward_MQE[0, q, e]


def test_a_number_is_told_by_no_earlier_token_than_what_it_refines() -> None:
    made = _fitted(20)
    first: dict[tuple[int, int], int] = {}
    depths = depth_of(made).tolist()
    for q, e in product(range(20), range(3)):
        first[int(made.place_MQE[0, q, e]), depths[q][e]] = q
    assert all(first[place, depth - 1] <= q for (place, depth), q in first.items() if depth > 0)


def test_stronger_waves_come_earlier() -> None:
    made = _fitted(20)
    deviation = 1 / made.inward_MQE.detach()[0][depth_of(made) == 0]  # up to the spread, 0.4 to 1.1
    assert float(deviation[:6].min()) > float(deviation[-6:].max())


def test_numbers_past_all_waves_say_nothing() -> None:
    """24 cells of one channel hold 24 waves, told 6 times at most; 60 tokens have 180 numbers."""
    made = spectrum(num_tokens=60, channels=1)
    clips = [patches_of(shades(2, 6, 8, seed=seed)) for seed in range(40)]
    made.start(clips, QUANTIZER)
    silent = depth_of(made) < 0
    assert int((~silent).sum()) == 144
    assert not made.outward_MQE[0][silent].any()
    assert not made.inward_MQE[0][silent].any()
    codes = QUANTIZER(drawn(1, 60, 3)).codes
    assert torch.equal(made.cells(codes, GRID, QUANTIZER), made.cells(codes * ~silent, GRID, QUANTIZER))
    short = spectrum(num_tokens=48, channels=1)
    short.start(clips, QUANTIZER)
    videos = [shades(2, 6, 8, seed=seed) for seed in range(50, 54)]
    assert error_of(made, videos, 60) == pytest.approx(error_of(short, videos, 48), rel=1e-4)


def test_a_second_start_forgets_the_first() -> None:
    made = spectrum()
    made.start([patches_of(shades(2, 4, 4, seed=seed) + drawn(3, 2, 4, 4, seed=seed)) for seed in range(9)], QUANTIZER)
    made.start([patches_of(shades(2, 6, 8, seed=seed)) for seed in range(40)], QUANTIZER)
    expected = _fitted(20).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("size", [(1, 6, 8), (2, 4, 12), (4, 10, 2), (1, 2, 2), (3, 60, 60)])
def test_grids_of_other_sizes_work(size: tuple[int, int, int]) -> None:
    made, videos = _fitted(20), [shades(*size, seed=seed) for seed in range(50, 54)]
    errors = [error_of(made, videos, tokens) for tokens in (0, 20)]
    assert math.isfinite(errors[1])
    assert errors[1] < errors[0] / 3


def test_the_slowest_waves_are_those_of_all() -> None:
    """A box of the slowest waves of a large grid holds what the sums over all its cells say, and gives it back."""
    values = drawn(1, 2, 70, 66, 1)
    box, (t, h, w) = spectrum_module._waves(values), (_cosines(n, CPU) for n in (2, 70, 66))
    assert box.shape == (1, 2, 64, 64, 1)
    expected = torch.einsum("bthwg,xt,yh,zw->bxyzg", values, t, h, w)[:, :, :64, :64] / (2 * 70 * 66)
    torch.testing.assert_close(box, expected, rtol=1e-4, atol=1e-6)
    again = spectrum_module._values(box, (2, 70, 66))
    torch.testing.assert_close(spectrum_module._waves(again), box, rtol=1e-4, atol=1e-6)


def test_waves_that_a_grid_is_too_small_for_are_silent() -> None:
    made, grid = _fitted(20), (1, 2, 1)
    waves = torch.unravel_index(made.place_MQE[0].long(), (*MOST_WAVES, made.channels))[:3]
    silent_QE = torch.stack([wave >= size for wave, size in zip(waves, grid)]).any(0)
    assert 0 < int(silent_QE.sum()) < silent_QE.numel()
    more = drawn(1, 20, 3)
    latents = made.latents(drawn(1, 2, VALUES), more, grid, QUANTIZER)
    at_depth_0 = silent_QE & (depth_of(made) == 0)
    assert torch.equal(latents[0][at_depth_0], more[0][at_depth_0])
    codes = QUANTIZER(drawn(1, 20, 3)).codes
    told, heard = (made.cells(kept, grid, QUANTIZER) for kept in (codes, codes * ~silent_QE))
    torch.testing.assert_close(told, heard, rtol=0, atol=0)


def test_tokens_past_the_last_get_nothing_and_fewer_are_a_prefix() -> None:
    made, patches, more = _fitted(20), drawn(1, 24, VALUES), drawn(1, 25, 3)
    latents = made.latents(patches, more, GRID, QUANTIZER)
    assert torch.equal(latents[:, 20:], more[:, 20:])
    torch.testing.assert_close(made.latents(patches, more[:, :7], GRID, QUANTIZER), latents[:, :7])
    codes = QUANTIZER(latents).codes
    assert torch.equal(made.cells(codes, GRID, QUANTIZER), made.cells(codes[:, :20], GRID, QUANTIZER))


# Kinds of clips.


def patterned(axis: int, seed: int) -> Tensor:
    """(3, 2, 8, 8): strong waves along one axis of the picture, weak ones along the other."""
    video = torch.zeros(3, 2, 8, 8)
    for wave in range(1, 6):
        strength = drawn(3, seed=31 * seed + wave)[:, None, None, None] * 0.4
        cosine = torch.cos(math.pi * wave * (torch.arange(8) + 0.5) / 8)
        video += strength * (cosine[:, None] if axis == 0 else cosine)
    return video


@cache
def _of_kinds(kinds: int) -> Spectrum:
    made = Spectrum(num_tokens=6, channels=3, cell_values=3, quantizer=QUANTIZER, kinds=kinds)
    films = [patterned(seed % 2, seed) for seed in range(60)]
    made.start([patches_of(film, (1, 1, 1)) for film in films], QUANTIZER)
    return made


@torch.no_grad()
def _kind_error(made: Spectrum, axis: int) -> tuple[float, list[int]]:
    errors, kinds = [], []
    for seed in range(100, 120):
        cells, grid = patches_of(patterned(axis, seed), (1, 1, 1))
        quantized = QUANTIZER(made.latents(cells[None], torch.zeros(1, 6, 3), grid, QUANTIZER))
        kinds.append(int(quantized.ids[0, 0]) % made.kinds)
        errors.append(float((made.cells(quantized.codes, grid, QUANTIZER)[0] - cells).square().mean()))
    return sum(errors) / len(errors), kinds


def test_kinds_tell_clips_better_that_differ_in_their_waves() -> None:
    for axis in (0, 1):
        assert _kind_error(_of_kinds(9), axis)[0] < 0.75 * _kind_error(_of_kinds(1), axis)[0]
    along, across = (set(_kind_error(_of_kinds(9), axis)[1]) for axis in (0, 1))
    assert not along & across


@torch.no_grad()
def test_the_kind_is_the_one_of_least_error_and_what_attention_says_does_not_change_it() -> None:
    made, (cells, grid) = _of_kinds(9), patches_of(patterned(1, 200), (1, 1, 1))
    found = made.latents(cells[None], torch.zeros(1, 6, 3), grid, QUANTIZER)
    more = made.latents(cells[None], drawn(1, 6, 3), grid, QUANTIZER)
    torch.testing.assert_close(more[0, 0, 0], found[0, 0, 0], rtol=0, atol=0)
    errors = []
    for kind in range(9):
        alone = Spectrum(num_tokens=6, channels=3, cell_values=3, quantizer=QUANTIZER)
        alone.load_state_dict(made.state_dict() | {name: made.state_dict()[name][kind : kind + 1] for name in TABLES})
        codes = QUANTIZER(alone.latents(cells[None], torch.zeros(1, 6, 3), grid, QUANTIZER)).codes
        errors.append(float((alone.cells(codes, grid, QUANTIZER)[0] - cells).square().mean()))
    assert int(QUANTIZER(found).ids[0, 0]) % 9 == min(range(9), key=errors.__getitem__)


def test_the_first_tokens_alone_choose_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    made, (cells, grid) = _of_kinds(9), patches_of(patterned(0, 300), (1, 1, 1))
    monkeypatch.setattr(spectrum_module, "_JUDGED_BY", 2)
    rows = [made.latents(cells[None], torch.zeros(1, count, 3), grid, QUANTIZER) for count in (2, 4, 6)]
    for row in rows[:2]:
        torch.testing.assert_close(row, rows[2][:, : row.shape[1]])


def test_a_start_from_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="at least one clip, got none"):
        spectrum().start([], QUANTIZER)
    with pytest.raises(InputError, match="at most the 12 values of a cell"):
        spectrum(channels=13)


TABLES = ("place_MQE", "inward_MQE", "outward_MQE")


def test_kinds_must_be_told_by_whole_numbers() -> None:
    with pytest.raises(InputError, match="one of 1, 9, 63, got 8"):
        Spectrum(num_tokens=4, channels=2, cell_values=12, quantizer=QUANTIZER, kinds=8)


@pytest.mark.parametrize("config", [VQConfig(codebook_size=16, codebook_dim=4), LFQConfig(codebook_dim=4)])
def test_other_quantizers_are_refused(config: Any) -> None:
    with pytest.raises(InputError, match="needs FSQ"):
        Spectrum(num_tokens=4, channels=2, cell_values=12, quantizer=build_quantizer(config))
    with pytest.raises(InputError, match="needs FSQ"):
        TiTok(replace(PICTURES, quantizer=config))
    with pytest.raises(InputError, match="needs FSQ"):
        TiTokVideo(replace(CLIPS, quantizer=config))


# The tokenizers.

CONFIGS: dict[str, tuple[Any, Any]] = {
    "titok": (TiTok, PICTURES),
    "titok_video": (TiTokVideo, CLIPS),
    "titok of kinds": (TiTok, replace(PICTURES, spectral_kinds=9)),
    "titok_video of kinds": (TiTokVideo, replace(CLIPS, spectral_kinds=9)),
    "titok of even levels": (TiTok, replace(PICTURES, quantizer=FSQConfig(levels=(4, 4, 4), symmetric=True))),
}
FILM = [shades(2, 16, 16, seed=seed) for seed in range(30)]
SIZES = [(2, 16, 16), (1, 13, 18), (5, 16, 20), (2, 16, 16), (1, 3, 2)]


@cache
def _tokenizer(name: str) -> Any:
    family, config = CONFIGS[name]
    made = family.untrained(config, seed=0)
    made.start_spectral(FILM)
    return made


@pytest.fixture(params=CONFIGS)
def started(request: pytest.FixtureRequest) -> Any:
    return _tokenizer(request.param)


def videos() -> list[Tensor]:
    return [shades(*size, seed=60 + seed) for seed, size in enumerate(SIZES)]


def test_sizes_are_kept_and_pictures_are_near(started: Any) -> None:
    tokens = started.encode(videos())
    for video, item, decoded in zip(videos(), tokens, started.decode(tokens), strict=True):
        assert decoded.shape == video.shape
        assert item.num_tokens == started.num_tokens_of(item.size)
        assert float(decoded.abs().max()) <= 1
    decoded = started.decode(started.encode(FILM))
    error = torch.stack([(one - other).square().mean() for one, other in zip(decoded, FILM)]).mean()
    assert error < torch.stack(FILM).var() / 10


def test_borders_of_patches_are_as_smooth_as_their_insides(started: Any) -> None:
    bends_X = torch.stack(started.decode(started.encode(FILM))).diff(dim=4).diff(dim=4).abs().mean((0, 1, 2, 3))
    at_border = torch.tensor([(x + 1) % 4 in (0, 3) for x in range(14)])  # of x, x + 1 and x + 2; patches are 4 wide
    assert bends_X[at_border].mean() < 1.2 * bends_X[~at_border].mean()


def test_a_batch_is_one_by_one(started: Any) -> None:
    tokens = started.encode(videos())
    for video, item, decoded in zip(videos(), tokens, started.decode(tokens), strict=True):
        (alone,) = started.encode([video])
        np.testing.assert_array_equal(alone.ids_L, item.ids_L)
        torch.testing.assert_close(started.decode([item])[0], decoded, rtol=1e-5, atol=1e-5)


def test_every_token_more_is_a_better_picture(started: Any) -> None:
    errors = []
    for count in (1, 2, 4, 8):
        decoded = started.decode(started.encode(FILM, token_counts=count))
        errors.append(sum(float((one - other).square().mean()) for one, other in zip(decoded, FILM)))
    assert all(after < before for before, after in pairwise(errors)), errors


def test_a_shorter_row_is_a_prefix(started: Any) -> None:
    (whole,), (short,) = started.encode(FILM[:1]), started.encode(FILM[:1], token_counts=5)
    np.testing.assert_array_equal(short.ids_L.reshape(-1, 5), whole.ids_L.reshape(-1, 12)[:, :5])


def test_nested_dropout_decodes_prefixes(started: Any) -> None:
    batch = torch.stack(FILM[:8])
    with torch.no_grad():
        started.train()
        one, two = (started(batch, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1))
        other = started(batch, generator=torch.Generator().manual_seed(2))
        started.eval()
        whole = started(batch)
    assert torch.equal(one.video, two.video)
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.ids, whole.ids)
    assert not torch.equal(one.video, other.video)
    assert (whole.video - batch).square().mean() < (one.video - batch).square().mean()


def test_a_share_of_pictures_stays_whole() -> None:
    made = TiTok.untrained(replace(PICTURES, whole_share=0.5), seed=0).train()
    kept = made._kept(torch.zeros(4000, 12, 3), None, torch.Generator().manual_seed(0))
    counts = kept.sum(1)
    assert float((counts == 12).float().mean()) == pytest.approx(0.5 + 0.5 / 12, abs=0.03)
    assert counts.bincount(minlength=13)[1:12].tolist() == pytest.approx([4000 / 24] * 11, rel=0.3)
    with pytest.raises(InputError, match=r"whole_share must lie in \[0, 1\], got 1.5"):
        replace(PICTURES, whole_share=1.5)


def test_forward_is_what_encode_and_decode_do(started: Any) -> None:
    (tokens,) = started.encode(FILM[:1])
    with torch.no_grad():
        out = started.eval()(FILM[0][None])
    np.testing.assert_array_equal(out.ids.flatten().numpy(), tokens.ids_L)
    torch.testing.assert_close(out.video[0].clamp(-1, 1), started.decode([tokens])[0], rtol=1e-5, atol=1e-5)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path, started: Any) -> None:
    started.save_pretrained(tmp_path / "m")
    loaded = type(started).from_pretrained(tmp_path / "m")
    assert loaded.fingerprint == started.fingerprint
    assert torch.equal(loaded.spectrum.place_MQE, started.spectrum.place_MQE)
    tokens = started.encode(FILM[:2])
    for item, again in zip(tokens, loaded.encode(FILM[:2])):
        np.testing.assert_array_equal(item.ids_L, again.ids_L)
    for one, other in zip(loaded.decode(tokens), started.decode(tokens)):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_start_is_a_function_of_its_clips(name: str) -> None:
    family, config = CONFIGS[name]
    again = family.untrained(config, seed=0)
    before = again.fingerprint
    again.start_spectral(FILM)
    assert again.fingerprint == _tokenizer(name).fingerprint != before


@pytest.mark.parametrize("name", CONFIGS)
def test_unstarted_the_spectrum_is_silent_and_learns(name: str) -> None:
    family, config = CONFIGS[name]
    made = family.untrained(config, seed=0)
    plain = family.untrained(replace(config, spectral=False, spectral_kinds=1), seed=0)
    plain.load_state_dict(
        {key: value for key, value in made.state_dict().items() if not key.startswith(("spectrum", "from_cells"))}
    )
    for item, expected in zip(made.encode(videos()), plain.encode(videos())):
        np.testing.assert_array_equal(item.ids_L, expected.ids_L)
    started = _tokenizer(name).train()
    batch = torch.stack(FILM[:4])
    started.zero_grad()
    (started(batch, generator=torch.Generator().manual_seed(0)).video - batch).square().mean().backward()
    for key, parameter in started.spectrum.named_parameters():
        assert parameter.grad is not None, key
        assert float(parameter.grad.abs().max()) > 0, key
    started.zero_grad(set_to_none=True)
    started.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_without_a_spectrum_there_is_nothing_to_start(name: str) -> None:
    family, config = CONFIGS[name]
    with pytest.raises(InputError, match="needs a tokenizer that is spectral"):
        family.untrained(replace(config, spectral=False, spectral_kinds=1), seed=0).start_spectral(FILM[:1])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("titok", {"quantizer": FSQConfig(levels=(9, 7, 5), noise=0.1)}),
        ("titok", {"quantizer": FSQConfig(levels=(9, 7, 5), skip=0.1)}),
        ("titok", {"num_queries": None, "nested_dropout": False}),
        ("titok_video", {"quantizer": FSQConfig(levels=(9, 7, 5), noise=0.1)}),
        ("titok_video", {"spectral_tokens": 0}),
        ("titok", {"spectral": False, "spectral_kinds": 9}),
    ],
)
def test_bad_options_are_refused(name: str, changes: dict[str, Any]) -> None:
    family, config = CONFIGS[name]
    with pytest.raises(InputError, match="spectral"):
        family(replace(config, **changes))
