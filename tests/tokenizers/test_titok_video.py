from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError, MismatchError
from tokenreel.nn.rotary import bands_of
from tokenreel.patches.patchify import patchify
from tokenreel.quantize import FSQConfig, LFQConfig, QuantizerConfig, VQConfig
from tokenreel.tokenizers.configs import BlockOptions, Stack, from_values, to_values
from tokenreel.tokenizers.titok_video import TiTokVideo, TiTokVideoConfig
from tokenreel.tokenizers.titok_video_pack import (
    Piece,
    in_order,
    in_passes,
    patches_of,
    rotation_of,
    run,
    videos_of,
)
from tokenreel.types import Tokens

torch.set_num_threads(1)
STACK = Stack(dim=32, depth=2, num_heads=2, head_dim=16, mlp_dim=48)
CONFIG = TiTokVideoConfig(
    patch_size=(2, 8, 8),
    encoder=STACK,
    decoder=STACK,
    quantizer=FSQConfig(levels=(7, 5, 5)),
    token_count=6,
    max_frames=6,
    max_extents=(32, 8, 8, 8),
)
SIZES = [(1, 16, 16), (5, 17, 31), (4, 8, 8), (2, 1, 1), (9, 33, 16), (13, 20, 9)]
OPTIONS = {
    "plain": BlockOptions(),
    "of the seed": BlockOptions(
        mlp="geglu", norm="rms", num_kv_heads=1, gate="channel", residual="deepnorm", qk_norm=True, bias=False
    ),
    "scaled": BlockOptions(mlp="swiglu", gate="head", residual="scaled", drop_path=0.1),
}


def model(seed: int = 0, **changes: Any) -> TiTokVideo:
    """Weights are drawn wide, so that ids differ from place to place."""
    tokenizer = TiTokVideo.untrained(replace(CONFIG, **changes), seed=seed)
    with torch.no_grad():
        tokenizer.analysis.project.weight.mul_(8)
    return tokenizer


def videos(sizes: list[tuple[int, int, int]] = SIZES, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=generator) / 127.5 - 1 for size in sizes]


def assert_equal_ids(a: list[Tokens], b: list[Tokens]) -> None:
    """Runs of different shape: all ids but one in a hundred (those that lie on a border)."""
    one, other = (np.concatenate([item.ids_L for item in tokens]) for tokens in (a, b))
    assert one.shape == other.shape
    assert np.mean(one != other) <= 0.01


@pytest.mark.parametrize("options", OPTIONS)
def test_count_order_shape_and_range_are_kept(options: str) -> None:
    tokenizer = model(blocks=OPTIONS[options])
    tokens = tokenizer.encode(videos())
    decoded = tokenizer.decode(tokens)
    for item, video, size in zip(tokens, decoded, SIZES, strict=True):
        assert item.size == size
        assert tuple(video.shape) == (3, *size)
        assert video.dtype == torch.float32
        assert float(video.abs().max()) <= 1
        assert not video.is_inference()
        assert item.layout == "queries"
        assert item.num_tokens == tokenizer.num_tokens_of(size) == 6 * -(-size[0] // 6)
        assert int(item.ids_L.max()) < tokenizer.codebook_size == 175
    assert len(np.unique(np.concatenate([item.ids_L for item in tokens]))) > 3
    assert tokenizer.encode([]) == tokenizer.decode([]) == []


def test_patches_and_videos_are_inverse_and_in_patchify_order() -> None:
    exact, odd = videos([(4, 16, 24), (3, 9, 15)])
    pieces = [Piece(2, 2, 3, 1), Piece(2, 2, 2, 1)]
    patches = patches_of([exact, odd], (2, 8, 8))
    reference = patchify(exact.permute(1, 2, 3, 0).numpy(), (2, 8, 8))
    np.testing.assert_array_equal(patches[:12].numpy(), reference.reshape(12, -1))
    again = videos_of(patches, pieces, (2, 8, 8))
    assert torch.equal(again[0], exact)
    assert torch.equal(again[1][:, :3, :9, :15], odd)
    assert torch.equal(again[1][:, 3], again[1][:, 2])
    assert torch.equal(again[1][:, :, :, 15], again[1][:, :, :, 14])


def test_positions_are_tokens_and_cells() -> None:
    piece = Piece(2, 2, 3, 4)
    rotation = rotation_of([piece, piece], head_dim=16, max_extents=(32, 8, 8, 8), device=torch.device("cpu"))
    positions = [(0, t, h, w) for t in range(2) for h in range(2) for w in range(3)]
    positions += [(count, 0, 0, 0) for count in (1, 2, 3, 4)]
    bands = np.array([bands_of(2, extent) for extent in (32, 8, 8, 8)])
    angles = (np.array(positions * 2, float)[:, :, None] * bands).reshape(32, 8)
    np.testing.assert_allclose(rotation.cos_Lf.numpy(), np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(rotation.sin_Lf.numpy(), np.sin(angles), atol=1e-6)


def test_passes_hold_every_piece_once_within_the_budget() -> None:
    generator = np.random.default_rng(0)
    pieces = [Piece(*(int(n) for n in row)) for row in generator.integers(1, 5, (40, 4))]
    passes = list(in_passes(pieces, 50))
    assert sorted(index for chosen in passes for index in chosen) == list(range(40))
    for chosen in passes:
        assert len(chosen) == 1 or sum(pieces[index].num_rows for index in chosen) <= 50
        taken = [pieces[index] for index in chosen]
        assert taken == sorted(taken, key=lambda piece: (piece.num_rows, piece))
    values = torch.arange(6)
    order = [2, 0, 1]
    assert in_order(in_order(values, [1, 2, 3], order), [3, 1, 2], [1, 2, 0]).tolist() == values.tolist()


@pytest.mark.parametrize("options", OPTIONS)
def test_wanted_rows_equal_those_of_the_whole_stack(options: str) -> None:
    tokenizer = model(blocks=OPTIONS[options])
    stack, pieces = tokenizer.analysis.stack.transformer, [Piece(1, 2, 2, 3), Piece(2, 1, 1, 3)]
    rotation = rotation_of(pieces, head_dim=16, max_extents=(32, 8, 8, 8), device=torch.device("cpu"))
    x_MD = torch.randn(12, 32, generator=torch.Generator().manual_seed(0))
    rows = [4, 5, 6, 9, 10, 11]
    found = run(
        stack, x_MD, lambda x: x[rows], rotary=rotation, cu_seqlens=(0, 7, 12), cu_wanted=(0, 3, 6), generator=None
    )
    torch.testing.assert_close(found, stack(x_MD, rotary=rotation, cu_seqlens=(0, 7, 12))[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_packed_equals_alone(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = model(blocks=OPTIONS[options])
    counts = [3, 6, 1, 2, 7, 3]
    given = tokenizer(videos(), token_counts=counts)
    start = 0
    for video, count, decoded in zip(videos(), counts, given.video):
        alone = tokenizer([video], token_counts=[count])
        stop = start + len(alone.latents)
        torch.testing.assert_close(given.latents[start:stop], alone.latents, rtol=1e-5, atol=1e-5)
        if torch.equal(given.ids[start:stop], alone.ids):
            torch.testing.assert_close(decoded, alone.video[0], rtol=1e-5, atol=1e-5)
        start = stop
    assert start == len(given.latents)
    together = tokenizer.encode(videos(), token_counts=counts)
    assert np.array_equal(np.concatenate([item.ids_L for item in together]), given.ids.numpy())
    assert_equal_ids(together, [tokenizer.encode([v], token_counts=c)[0] for v, c in zip(videos(), counts)])
    monkeypatch.setattr("tokenreel.tokenizers.titok_video._ROWS_AT_ONCE", 20)
    assert_equal_ids(together, tokenizer.encode(videos(), token_counts=torch.tensor(counts, dtype=torch.int32)))
    for one, other in zip(tokenizer.decode(together), given.video):
        torch.testing.assert_close(one, other.detach().clamp(-1, 1), rtol=1e-5, atol=1e-5)


def test_no_clip_sees_another() -> None:
    tokenizer, given = model(), videos()
    before = tokenizer.encode(given)
    num_changed = 0
    for edited in range(len(given)):
        changed = [torch.ones_like(video) if index == edited else video for index, video in enumerate(given)]
        after = tokenizer.encode(changed)
        same = [np.array_equal(one.ids_L, other.ids_L) for one, other in zip(before, after)]
        assert all(kept for index, kept in enumerate(same) if index != edited)
        num_changed += not same[edited]
    assert num_changed == len(given)
    decoded = tokenizer.decode(before)
    ids = (before[1].ids_L + 1) % 175
    others = tokenizer.decode([before[0], replace(before[1], ids_L=ids), *before[2:]])
    assert [torch.equal(one, other) for one, other in zip(decoded, others)] == [True, False, *[True] * 4]


def test_tokens_depend_on_place_and_time() -> None:
    """Turning a clip about any axis changes its ids, and one value of ids everywhere still gives different patches."""
    tokenizer = model()
    (video,) = videos([(4, 24, 24)])
    (tokens,) = tokenizer.encode([video])
    for axis in (1, 2, 3):
        assert not np.array_equal(tokenizer.encode([video.flip(axis)])[0].ids_L, tokens.ids_L)
    (decoded,) = tokenizer.decode([replace(tokens, ids_L=np.zeros_like(tokens.ids_L))])
    patches = patches_of([decoded], (2, 8, 8))
    assert torch.pdist(patches).min() > 1e-3
    (moved,) = tokenizer.decode([replace(tokens, ids_L=np.roll(tokens.ids_L, 1))])
    assert not torch.equal(moved, tokenizer.decode([tokens])[0])


def test_inputs_of_other_layouts_and_types_give_the_same_tokens() -> None:
    tokenizer = model()
    for video in videos(SIZES[:3]):
        (tokens,) = tokenizer.encode([video])
        frames = ((video + 1) * 127.5).round().to(torch.uint8)
        turned = video.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
        for same in (turned, frames, frames.numpy(), video.double(), video.numpy()):
            assert_equal_ids([tokens], tokenizer.encode([same]))


@pytest.mark.parametrize("chunk", [1, 4, 6, 13])
def test_a_stream_gives_the_tokens_and_pixels_of_the_whole(chunk: int) -> None:
    tokenizer = model()
    for video in videos():
        (whole,) = tokenizer.encode([video], token_counts=3)
        stream, parts = tokenizer.encoder(token_count=3), []
        for start in range(0, video.shape[1], chunk):
            parts += stream.push(video[:, start : start + chunk])
            held = stream._held
            assert held is not None
            assert held.shape[1] < 6
        parts += stream.finish()
        assert all(part.num_tokens == 3 for part in parts)
        joined = replace(whole, ids_L=np.concatenate([part.ids_L for part in parts]))
        assert_equal_ids([joined], [whole])
        assert sum(part.size[0] for part in parts) == whole.size[0]
        assert sum(part.grid.t for part in parts) == whole.grid.t
        assert all(part.grid.t == tokenizer.segment_steps == 3 for part in parts[:-1])
        decoder = tokenizer.decoder()
        pieces = [piece for part in parts for piece in decoder.push(part)] + decoder.finish()
        expected = tokenizer.decode([joined])[0]
        torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-5, atol=1e-5)


def test_streams_refuse_what_does_not_follow() -> None:
    tokenizer = model()
    stream = tokenizer.encoder()
    stream.push(torch.zeros(3, 6, 8, 8))
    with pytest.raises(MismatchError, match="one size"):
        stream.push(torch.zeros(3, 1, 8, 9))
    long, short, other = tokenizer.encode([torch.zeros(3, n, 8, w) for n, w in ((6, 8), (2, 8), (6, 9))])
    decoder = tokenizer.decoder()
    decoder.push(long)
    with pytest.raises(MismatchError, match="one size"):
        decoder.push(other)
    decoder.push(short)
    with pytest.raises(MismatchError, match="only the last part"):
        decoder.push(long)
    with pytest.raises(InputError, match="not finite"):
        tokenizer.encoder().push(torch.full((3, 1, 8, 8), torch.nan))


def test_long_videos_are_segments() -> None:
    tokenizer = model()
    (video,) = videos([(14, 16, 9)])
    (whole,) = tokenizer.encode([video])
    parts = tokenizer.encode(list(video.split(6, dim=1)))
    assert_equal_ids([whole], [replace(whole, ids_L=np.concatenate([part.ids_L for part in parts]))])
    assert whole.grid.t == 7


def test_a_prefix_decodes_as_if_it_were_all() -> None:
    tokenizer = model()
    tokens = tokenizer.encode(videos())
    cut = tokenizer.without_tail(tokens, 2)
    for item, short in zip(tokens, cut):
        np.testing.assert_array_equal(short.ids_L.reshape(-1, 2), item.ids_L.reshape(-1, 6)[:, :2])
    assert [tuple(video.shape[1:]) for video in tokenizer.decode(cut)] == SIZES
    assert not torch.equal(tokenizer.decode(cut)[1], tokenizer.decode(tokens)[1])
    for count in (0, 7):
        with pytest.raises(InputError, match="1 to 6"):
            tokenizer.without_tail(tokens, count)


def test_nested_dropout_decodes_prefixes_in_training_only() -> None:
    tokenizer = model(nested_dropout=True)
    batch = torch.stack(videos([(4, 16, 16)] * 8))
    full = tokenizer(batch)
    tokenizer.train()
    seeded = [tokenizer(batch, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(seeded[0].video, seeded[1].video)
    assert not torch.equal(seeded[0].video, seeded[2].video)
    torch.testing.assert_close(seeded[0].latents, full.latents)
    shares = torch.rand(8, generator=torch.Generator().manual_seed(1))
    for video, ids, share in zip(seeded[0].video, full.ids.view(8, 6), shares.tolist()):
        count = 1 + int(6 * share)
        tokens = tokenizer.without_tail(tokenizer.encode([batch[0]]), count)[0]
        (expected,) = tokenizer.decode([replace(tokens, ids_L=ids[:count].numpy())])
        torch.testing.assert_close(video.detach().clamp(-1, 1), expected, rtol=1e-4, atol=1e-4)


def test_forward_keeps_the_shape_it_was_given() -> None:
    tokenizer = model()
    batch = torch.stack(videos([(3, 9, 16)] * 2))
    given = tokenizer(batch, token_counts=4)
    assert given.video.shape == batch.shape
    assert given.latents.shape == given.codes.shape == (8, 3)
    assert given.ids.shape == (8,)
    many = tokenizer(videos())
    assert isinstance(many.video, tuple)
    assert [tuple(video.shape[1:]) for video in many.video] == SIZES
    assert torch.equal(many.codes, tokenizer.quantizer.codes(many.ids))
    with pytest.raises(InputError, match="at least one video"):
        tokenizer([])


QUANTIZERS: dict[str, QuantizerConfig] = {
    "fsq": FSQConfig(levels=(7, 5, 5)),
    "vq": VQConfig(codebook_size=32, codebook_dim=4),
    "lfq": LFQConfig(codebook_dim=6),
}


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_every_quantizer_trains(kind: str) -> None:
    tokenizer = model(quantizer=QUANTIZERS[kind], blocks=OPTIONS["of the seed"]).train()
    given = videos(SIZES[:4])
    found = tokenizer(given)
    assert int(found.ids.max()) < tokenizer.codebook_size
    loss = sum(F.mse_loss(one, other) for one, other in zip(found.video, given)) + sum(found.aux.values())
    assert (kind == "fsq") == (not found.aux)
    loss.backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    tokens = tokenizer.encode(given)
    assert tokenizer.training
    assert [tuple(video.shape) for video in tokenizer.decode(tokens)] == [tuple(video.shape) for video in given]


def test_tables_made_in_encode_serve_training() -> None:
    tokenizer, (video,) = model(), videos([(2, 56, 8)])
    tokenizer.encode([video])
    tokenizer.train()([video]).video[0].sum().backward()


def test_compiles_as_one_graph() -> None:
    torch._dynamo.reset()
    stack = replace(STACK, depth=1)
    tokenizer = model(encoder=stack, decoder=stack).train()
    compiled = torch.compile(tokenizer, fullgraph=True, backend="eager")
    given = videos([(3, 9, 8), (1, 8, 8)])
    expected, found = tokenizer(given), compiled(given)
    for one, other in zip(expected.video, found.video):
        torch.testing.assert_close(one, other)
    assert torch.equal(expected.ids, found.ids)


def test_bf16_keeps_shapes_and_most_ids() -> None:
    tokenizer = model()
    exact = tokenizer.encode(videos())
    tokenizer.precision = "bf16"
    rough = tokenizer.encode(videos())
    one, other = (np.concatenate([item.ids_L for item in tokens]) for tokens in (exact, rough))
    assert np.mean(one == other) > 0.5
    for video, size in zip(tokenizer.decode(exact), SIZES):
        assert tuple(video.shape[1:]) == size
        assert video.dtype == torch.float32
        assert video.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = tokenizer.train()(videos(SIZES[:2]))
    assert found.latents.dtype == found.codes.dtype == found.video[0].dtype == torch.float32


@pytest.mark.parametrize("half", [False, True])
def test_saved_and_loaded_it_is_the_same(half: bool, tmp_path: Path) -> None:
    tokenizer = model(blocks=OPTIONS["of the seed"])
    tokenizer.save_pretrained(tmp_path, half=half)
    again = TiTokVideo.from_pretrained(tmp_path)
    assert again.config == tokenizer.config
    assert (again.fingerprint == tokenizer.fingerprint) is not half
    tokens, found = tokenizer.encode(videos()), again.encode(videos())
    if half:
        with pytest.raises(MismatchError, match="load the tokenizer that made them"):
            again.decode(tokens)
    else:
        assert [item.ids_L.tolist() for item in tokens] == [item.ids_L.tolist() for item in found]
    assert [tuple(video.shape[1:]) for video in again.decode(found)] == SIZES
    assert found[0].meta["tokenizer_source"] == str(tmp_path)


def test_configurations_go_through_json() -> None:
    for config in (*TiTokVideo.sizes.values(), replace(CONFIG, blocks=OPTIONS["scaled"], nested_dropout=True)):
        assert from_values(TiTokVideoConfig, json.loads(json.dumps(to_values(config)))) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_frames": 5}, "multiple of the patch's 2 frames"),
        ({"token_count": 0}, "token_count must be at least 1"),
        ({"max_extents": (8, 8, 8)}, "four numbers"),
        ({"patch_size": (0, 8, 8)}, "patch_size"),
        ({"decoder": replace(STACK, head_dim=6)}, "decoder.head_dim must be even and at least 8"),
        ({"blocks": BlockOptions(num_kv_heads=3)}, "num_kv_heads"),
    ],
)
def test_bad_configurations_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.full((3, 1, 8, 8), torch.nan), "not finite"),
        (torch.full((3, 1, 8, 8), 255.0), r"lie in \[-1, 1\]"),
        (torch.zeros(3, 8, 8), "must be"),
        (torch.zeros(1, 1, 8, 8), "must be"),
        (torch.zeros(3, 1, 8, 8, dtype=torch.int64), "float"),
    ],
)
def test_what_is_no_video_is_refused(bad: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        model().encode([torch.zeros(3, 1, 8, 8), bad])


@pytest.mark.parametrize("counts", [0, [1], [1, 2, 3], 1.5, [2, 0], ["a", 1]])
def test_bad_counts_are_refused(counts: Any) -> None:
    with pytest.raises(InputError, match="token_counts"):
        model().encode([torch.zeros(3, 1, 8, 8)] * 2, token_counts=counts)


def test_foreign_tokens_are_refused() -> None:
    tokenizer = model()
    (tokens,) = tokenizer.encode(videos([(7, 16, 16)]))
    long = replace(tokens, ids_L=np.zeros(11, np.uint8))
    grid = replace(tokens, size=(7, 16, 32))
    for bad, words in (
        (replace(tokens, fingerprint="0" * 64), "load the tokenizer"),
        (replace(tokens, codebook_size=200), "codebook of 200"),
        (replace(tokens, layout="bytes"), "layout 'queries'"),
        (long, "11 ids do not divide among the 2 segments"),
        (grid, "grid of 4x2x4"),
    ):
        with pytest.raises(MismatchError, match=words):
            tokenizer.decode([tokens, bad])
    with pytest.raises(MismatchError, match="load the tokenizer"):
        model(seed=1).decode([tokens])


def test_damaged_weights_are_told() -> None:
    tokenizer = model()
    with torch.no_grad():
        tokenizer.analysis.query_D.fill_(torch.nan)
    with pytest.raises(InputError, match="latents are not finite"):
        tokenizer.encode([torch.zeros(3, 1, 8, 8)])


def test_named_sizes_are_those_of_titok_video() -> None:
    """6.8 M and 166 M parameters were counted on TiTok-Video's own; positions add 64 values a channel and stack."""
    for size, millions in (("tiny", 6.8), ("base", 166)):
        config = TiTokVideo.sizes[size]
        with torch.device("meta"):
            tokenizer = TiTokVideo(config)
        places = 64 * (config.encoder.dim + config.decoder.dim)
        assert (tokenizer.num_parameters - places) / 1e6 == pytest.approx(millions, rel=0.01)
        assert tokenizer.codebook_size == 8575


@pytest.mark.slow
def test_overfits_through_the_quantizer() -> None:
    """Two clips of one shape, so that what tells them apart must pass through the ids, and a picture."""
    stack = Stack(dim=64, depth=2, num_heads=2, head_dim=32, mlp_dim=128)
    blocks = BlockOptions(mlp="swiglu", norm="rms")
    config = replace(CONFIG, encoder=stack, decoder=stack, blocks=blocks, token_count=8)
    tokenizer = TiTokVideo.untrained(config).train()
    generator = torch.Generator().manual_seed(0)
    given = [
        F.interpolate(torch.rand(1, 3, 2, 3, 3, generator=generator) * 2 - 1, size=size, mode="trilinear")[0]
        for size in ((4, 16, 16), (4, 16, 16), (1, 16, 24))
    ]
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=5e-3)
    steps = 600
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        found = tokenizer(given)
        loss = sum(F.mse_loss(one, other) for one, other in zip(found.video, given))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, other in zip(tokenizer.decode(tokenizer.encode(given)), given):
        assert -10 * torch.log10(((one - other) / 2).square().mean()) > 40
