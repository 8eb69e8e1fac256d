"""The laws of tokenizers/base.py, for every entry of TOKENIZERS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tokenreel.tokenizers import TOKENIZERS, Tokenizer, load
from tokenreel.types import Tokens

NAMES = [*TOKENIZERS, "raw:2,8,8", "raw:4,5,3"]
SIZES = [(1, 16, 16), (5, 17, 31), (4, 8, 8), (2, 1, 1), (9, 33, 16)]


def videos(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=generator) / 127.5 - 1 for size in SIZES]


def as_float(video: Any) -> np.ndarray:
    array = video if isinstance(video, np.ndarray) else video.numpy()
    return array / np.float32(127.5) - np.float32(1) if array.dtype == np.uint8 else array


@pytest.fixture(params=NAMES)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return load(request.param)


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
        np.testing.assert_array_equal(np.concatenate(pieces, axis=1), as_float(tokenizer.decode([whole])[0]))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("raw")])
def test_raw_is_bit_exact(name: str) -> None:
    tokenizer = load(name)
    for video, decoded in zip(videos(), tokenizer.decode(tokenizer.encode(videos()))):
        np.testing.assert_array_equal(decoded, np.rint((video.numpy() + 1) * 127.5).astype(np.uint8))


@pytest.mark.parametrize("name", ["raw"])
def test_causal_tokenizers_do_not_look_ahead(name: str) -> None:
    tokenizer = load(name)
    (video,) = videos()[1:2]
    (before,) = tokenizer.encode([video])
    step = before.num_tokens // before.grid.t
    for edited in range(video.shape[1]):
        changed = video.clone()
        changed[:, edited] = -changed[:, edited]
        (after,) = tokenizer.encode([changed])
        np.testing.assert_array_equal(after.ids_L[: edited * step], before.ids_L[: edited * step])
        assert not np.array_equal(after.ids_L, before.ids_L)
