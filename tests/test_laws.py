"""The laws of tokenizers/base.py, for every entry of TOKENIZERS."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tokenreel.errors import InputError, MismatchError
from tokenreel.media.pixels import to_video
from tokenreel.quantize import FSQConfig, VQConfig
from tokenreel.tokenizers import (
    LEARNED,
    TOKENIZERS,
    CViViTConfig,
    TiTokConfig,
    TiTokVideoConfig,
    Tokenizer,
    load,
)
from tokenreel.tokenizers.configs import Stack
from tokenreel.tokenizers.cvivit_model import FactorisedConfig
from tokenreel.tokenizers.learned import LearnedTokenizer
from tokenreel.tokens.file import TokenFile, TokenWriter
from tokenreel.types import Tokens

torch.set_num_threads(1)

SMALL = {"dim": 32, "num_heads": 2, "head_dim": 16, "mlp_dim": 64}


def stack(depth: int = 2) -> Stack:
    return Stack(depth=depth, **SMALL)


def half() -> FactorisedConfig:
    return FactorisedConfig(spatial_depth=1, temporal_depth=2, **SMALL)


CVIVIT = CViViTConfig(
    patch_size=(2, 8, 8),
    encoder=half(),
    decoder=half(),
    quantizer=FSQConfig(levels=(8, 5, 5)),
    temporal_window=3,
)
TITOK = TiTokConfig(
    image_size=(32, 32),
    patch_size=(1, 8, 8),
    num_queries=6,
    encoder=stack(),
    decoder=stack(),
    quantizer=VQConfig(codebook_size=64, codebook_dim=8, l2_norm=True),
)
TITOK_VIDEO = TiTokVideoConfig(
    patch_size=(4, 8, 8),
    encoder=stack(),
    decoder=stack(),
    quantizer=FSQConfig(levels=(7, 7, 7, 5, 5)),
    max_extents=(64, 16, 16, 16),
    token_count=10,
    max_frames=8,
)
LEARNED_CONFIGS: dict[str, Any] = {
    "cvivit": CVIVIT,
    "cvivit that looks ahead": replace(CVIVIT, causal=False),
    "titok": TITOK,
    "titok without queries": replace(TITOK, num_queries=None),
    "titok_video": TITOK_VIDEO,
}
NAMES = ["raw", "raw:2,8,8", "raw:4,5,3", *LEARNED_CONFIGS]
SIZES = [(1, 16, 16), (5, 17, 31), (4, 8, 8), (2, 1, 1), (9, 33, 16)]


def made(name: str) -> Tokenizer:
    if name not in LEARNED_CONFIGS:
        return load(name)
    return LEARNED[name.split()[0]].untrained(LEARNED_CONFIGS[name])


def test_every_family_is_here() -> None:
    assert {name.split()[0].partition(":")[0] for name in NAMES} == set(TOKENIZERS)


def videos(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=generator) / 127.5 - 1 for size in SIZES]


def as_float(video: Any) -> np.ndarray:
    array = video if isinstance(video, np.ndarray) else video.numpy()
    return array / np.float32(127.5) - np.float32(1) if array.dtype == np.uint8 else array


@pytest.fixture(params=NAMES)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return made(request.param)


def assert_same(a: Tokens, b: Tokens) -> None:
    np.testing.assert_array_equal(a.ids_L, b.ids_L)
    assert (a.grid, a.size, a.layout, a.codebook_size, a.fingerprint) == (
        b.grid,
        b.size,
        b.layout,
        b.codebook_size,
        b.fingerprint,
    )


def test_count_order_shape_and_range_are_kept(tokenizer: Tokenizer) -> None:
    given = videos()
    decoded = tokenizer.decode(tokenizer.encode(given))
    assert [tuple(video.shape) for video in decoded] == [tuple(video.shape) for video in given]
    for video in map(as_float, decoded):
        assert np.abs(video).max() <= 1


def test_ids_lie_in_the_codebook(tokenizer: Tokenizer) -> None:
    for tokens, video in zip(tokenizer.encode(videos()), videos()):
        assert tokens.codebook_size == tokenizer.codebook_size
        assert tokens.ids_L.dtype.kind == "u"
        assert int(tokens.ids_L.max()) < tokenizer.codebook_size
        assert tokens.size == tuple(video.shape[1:])
        assert tokens.tokenizer in TOKENIZERS
        assert tokens.layout != "grid" or tokens.num_tokens == tokens.grid.num_cells


def test_a_batch_equals_one_by_one(tokenizer: Tokenizer) -> None:
    together = tokenizer.encode(videos())
    alone = [tokenizer.encode([video])[0] for video in videos()]
    for a, b in zip(together, alone):
        assert_same(a, b)


def test_contiguity_does_not_matter(tokenizer: Tokenizer) -> None:
    for video in videos():
        turned = video.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
        assert not turned.is_contiguous() or min(video.shape) == 1
        assert_same(tokenizer.encode([turned])[0], tokenizer.encode([video])[0])


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_a_stream_gives_the_tokens_and_pixels_of_the_whole(tokenizer: Tokenizer, chunk: int) -> None:
    for video in videos():
        (whole,) = tokenizer.encode([video])
        stream, parts = tokenizer.encoder(), []
        for start in range(0, video.shape[1], chunk):
            parts += stream.push(video[:, start : start + chunk])
        parts += stream.finish()
        np.testing.assert_array_equal(np.concatenate([part.ids_L for part in parts]), whole.ids_L)
        assert sum(part.size[0] for part in parts) == whole.size[0]
        assert sum(part.grid.t for part in parts) == whole.grid.t
        decoder = tokenizer.decoder()
        pieces = [as_float(piece) for part in parts for piece in decoder.push(part)]
        pieces += [as_float(piece) for piece in decoder.finish()]
        assert_equal_pixels(tokenizer, np.concatenate(pieces, axis=1), as_float(tokenizer.decode([whole])[0]))


def assert_equal_pixels(tokenizer: Tokenizer, a: np.ndarray, b: np.ndarray) -> None:
    """Exact for bytes; learned ones compute a stream in other shapes."""
    if tokenizer.name == "raw":
        np.testing.assert_array_equal(a, b)
    else:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


def test_a_stream_starts_over_after_finish(tokenizer: Tokenizer) -> None:
    (video,) = videos()[1:2]
    (whole,) = tokenizer.encode([video])
    encoder, decoder = tokenizer.encoder(), tokenizer.decoder()
    expected = as_float(tokenizer.decode([whole])[0])
    for _ in range(2):
        parts = [*encoder.push(video[:, :2]), *encoder.push(video[:, 2:]), *encoder.finish()]
        np.testing.assert_array_equal(np.concatenate([part.ids_L for part in parts]), whole.ids_L)
        pieces = [as_float(piece) for part in parts for piece in decoder.push(part)]
        pieces += [as_float(piece) for piece in decoder.finish()]
        assert_equal_pixels(tokenizer, np.concatenate(pieces, axis=1), expected)


@pytest.mark.parametrize("name", LEARNED_CONFIGS)
def test_frames_of_another_size_are_refused_in_a_stream(name: str) -> None:
    tokenizer = made(name)
    encoder, decoder = tokenizer.encoder(), tokenizer.decoder()
    for size in ((16, 16), (16, 24)):
        stream = tokenizer.encoder()
        parts = [*stream.push(videos()[0][:, :, :, :1].expand(3, 8, *size).contiguous()), *stream.finish()]
        if size == (16, 16):
            encoder.push(torch.zeros(3, 2, *size))
            for part in parts:
                decoder.push(part)
    with pytest.raises(MismatchError, match="one size"):
        encoder.push(torch.zeros(3, 2, 16, 24))
    with pytest.raises(MismatchError):
        for part in parts:
            decoder.push(part)
        decoder.finish()
    encoder.finish()


@pytest.mark.parametrize("name", LEARNED_CONFIGS)
def test_uint8_pixels_are_what_to_video_makes_of_them(name: str) -> None:
    model = made(name)
    assert isinstance(model, LearnedTokenizer)
    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), np.uint8)
    for given in (np.moveaxis(frames, -1, 0), torch.from_numpy(frames).movedim(-1, 0)):
        (found,) = model.checked_videos([given])
        assert torch.equal(found, to_video(frames))


@pytest.mark.parametrize("name", ["titok", "titok_video"])
def test_token_counts_follow_one_rule(name: str) -> None:
    model: Any = made(name)
    for given in (3, [3], (3,), np.array([3]), torch.tensor([3])):
        (tokens,) = model.encode(videos()[:1], token_counts=given)
        assert tokens.num_tokens == 3
    stream = model.encoder(token_count=3)
    assert [part.num_tokens for part in [*stream.push(videos()[0]), *stream.finish()]] == [3]
    for wrong in (0, -1, 3.7, "3", [3, 3], 10**6):
        with pytest.raises(InputError, match="token_counts"):
            model.encode(videos()[:1], token_counts=wrong)
    for wrong in (0, 10**6):
        with pytest.raises(InputError, match="token_counts"):
            model.encoder(token_count=wrong)


@pytest.mark.parametrize("name", LEARNED_CONFIGS)
def test_damaged_folders_are_one_sentence(name: str, tmp_path: Path) -> None:
    model = made(name)
    assert isinstance(model, LearnedTokenizer)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    about = json.loads(path.read_text())
    for change in (
        {"tokenizer": []},
        {"encoder": None},
        {"encoder": {**about["encoder"], "dim": -5}},
        {"encoder": {**about["encoder"], "dim": 32.0}},
        {"encoder": {**about["encoder"], "head_dim": "x"}},
        {"quantizer": {"kind": "pq"}},
        {"patch_size": [1, 2]},
    ):
        path.write_text(json.dumps({**about, **change}))
        with pytest.raises(InputError):
            load(tmp_path)
    path.write_text(json.dumps(about))
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in weights.items()},
        tmp_path / "model.safetensors",
    )
    wide = load(tmp_path)
    assert wide.fingerprint == model.fingerprint
    wide.encode(videos()[:1])
    with torch.inference_mode():
        assert load(tmp_path).fingerprint == model.fingerprint


def test_tokens_are_as_many_as_was_said(tokenizer: Tokenizer) -> None:
    for tokens in tokenizer.encode(videos()):
        assert tokens.num_tokens == tokenizer.num_tokens_of(tokens.size)
        assert tokens.compression_ratio == pytest.approx(24 * np.prod(tokens.size) / tokens.num_bits)


def test_a_file_of_tokens_decodes_part_by_part(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """What commands do: write as a stream, read in parts of a few steps."""
    for index, video in enumerate(videos()):
        path = tmp_path / f"{index}.tokens"
        with TokenWriter(path) as writer:
            stream = tokenizer.encoder()
            for part in [*stream.push(video), *stream.finish()]:
                writer.append(part)
        (whole,) = tokenizer.encode([video])
        opened = TokenFile(path)
        assert_same(opened.tokens(), whole)
        decoder, pieces = tokenizer.decoder(), []
        for part in opened.slabs(
            2,
            first_frames=tokenizer.first_frames,
            step_frames=tokenizer.patch_size[0],
            segment_steps=tokenizer.segment_steps,
        ):
            pieces += [as_float(piece) for piece in decoder.push(part)]
        pieces += [as_float(piece) for piece in decoder.finish()]
        assert_equal_pixels(tokenizer, np.concatenate(pieces, axis=1), as_float(tokenizer.decode([whole])[0]))


def test_foreign_tokens_are_refused(tokenizer: Tokenizer) -> None:
    (tokens,) = tokenizer.encode(videos()[:1])
    with pytest.raises(MismatchError):
        tokenizer.decode([replace(tokens, fingerprint="0" * 64)])


@pytest.mark.parametrize("name", LEARNED_CONFIGS)
def test_in_bf16_all_is_finite_and_of_the_right_shape(name: str, record_property: Any) -> None:
    model = made(name)
    assert isinstance(model, LearnedTokenizer)
    full = model.encode(videos())
    model.precision = "bf16"
    half_precise = model.encode(videos())
    agree = np.mean(np.concatenate([a.ids_L == b.ids_L for a, b in zip(full, half_precise)]))
    record_property("ids_as_in_fp32", float(agree))
    assert agree > 0.5
    for decoded, video in zip(model.decode(half_precise), videos()):
        assert decoded.shape == video.shape
        assert bool(torch.isfinite(decoded).all())


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("raw")])
def test_raw_is_bit_exact(name: str) -> None:
    tokenizer = load(name)
    for video, decoded in zip(videos(), tokenizer.decode(tokenizer.encode(videos()))):
        np.testing.assert_array_equal(decoded, np.rint((video.numpy() + 1) * 127.5).astype(np.uint8))


@pytest.mark.parametrize("name", ["raw", "cvivit", "titok", "titok without queries"])
def test_causal_tokenizers_do_not_look_ahead(name: str) -> None:
    tokenizer = made(name)
    (video,) = videos()[1:2]
    (before,) = tokenizer.encode([video])
    step = before.num_tokens // before.grid.t
    for edited in range(video.shape[1]):
        changed = video.clone()
        changed[:, edited] = -changed[:, edited]
        (after,) = tokenizer.encode([changed])
        # the step of the grid that the frame is in
        first, pt = tokenizer.first_frames, tokenizer.patch_size[0]
        kept = 0 if edited < first else 1 + (edited - first) // pt
        np.testing.assert_array_equal(after.ids_L[: kept * step], before.ids_L[: kept * step])
        assert not np.array_equal(after.ids_L, before.ids_L)
