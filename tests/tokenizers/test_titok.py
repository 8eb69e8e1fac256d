from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tokenreel.errors import InputError, MismatchError
from tokenreel.quantize import FSQConfig, LFQConfig, Quantized, QuantizerConfig, VQConfig
from tokenreel.tokenizers.configs import BlockOptions, Stack, from_values, to_values
from tokenreel.tokenizers.titok import TiTok, TiTokConfig

torch.set_num_threads(1)

QUERIES = TiTokConfig(
    image_size=(24, 32),
    patch_size=(1, 8, 8),
    num_queries=6,
    encoder=Stack(dim=32, depth=2, num_heads=4, head_dim=8, mlp_dim=64),
    decoder=Stack(dim=24, depth=2, num_heads=3, head_dim=8, mlp_dim=48),
    quantizer=FSQConfig(levels=(8, 5, 5)),
    nested_dropout=True,
)
GRID = replace(QUERIES, num_queries=None, nested_dropout=False)
CONFIGS = {"queries": QUERIES, "grid": GRID}
QUANTIZERS: dict[str, QuantizerConfig] = {
    "vq": VQConfig(codebook_size=16, codebook_dim=4),
    "vq-l2": VQConfig(codebook_size=16, codebook_dim=4, l2_norm=True),
    "simvq": VQConfig(codebook_size=16, codebook_dim=4, learning="simvq"),
    "fsq": FSQConfig(levels=(5, 5)),
    "lfq": LFQConfig(codebook_dim=5),
}
SIZES = [(1, 24, 32), (3, 17, 31), (2, 1, 1), (1, 40, 8), (2, 24, 32)]


@pytest.fixture(params=CONFIGS)
def tokenizer(request: pytest.FixtureRequest) -> TiTok:
    return TiTok.untrained(CONFIGS[request.param])


@pytest.fixture
def queries() -> TiTok:
    return TiTok.untrained(QUERIES)


def video(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def videos() -> list[Tensor]:
    return [video(*size, seed=seed) for seed, size in enumerate(SIZES)]


# The laws.


def test_any_size_comes_back_in_its_shape_range_and_order(tokenizer: TiTok) -> None:
    tokens = tokenizer.encode(videos())
    for item, given in zip(tokens, videos(), strict=True):
        assert item.size == tuple(given.shape[1:])
        assert item.num_tokens == tokenizer.num_tokens_of(item.size)
        assert (item.layout, item.codebook_size, item.ids_L.dtype) == (tokenizer.layout, 200, np.uint8)
        assert item.fingerprint == tokenizer.fingerprint
        assert item.meta == {"tokenizer_config": to_values(tokenizer.config)}
    for given, decoded in zip(videos(), tokenizer.decode(tokens), strict=True):
        assert decoded.shape == given.shape
        assert decoded.dtype == torch.float32
        assert not decoded.is_inference()
        assert decoded.abs().max() <= 1
    assert tokenizer.encode([]) == tokenizer.decode([]) == []


def test_a_batch_and_single_frames_give_the_same_ids_and_latents(tokenizer: TiTok) -> None:
    for item, given in zip(tokenizer.encode(videos()), videos()):
        (alone,) = tokenizer.encode([given])
        frames = tokenizer.encode([given[:, t : t + 1] for t in range(given.shape[1])])
        np.testing.assert_array_equal(item.ids_L, alone.ids_L)
        np.testing.assert_array_equal(item.ids_L, np.concatenate([frame.ids_L for frame in frames]))
    pictures = torch.stack([video(1, 24, 32, seed=n)[:, 0] for n in range(5)])
    with tokenizer.running():
        together, alone = tokenizer._latents(pictures), tokenizer._latents(pictures[3:4])
    torch.testing.assert_close(together[3:4], alone, rtol=1e-5, atol=1e-6)


def test_equal_shapes_give_equal_bits(tokenizer: TiTok) -> None:
    first, second = (tokenizer.encode(videos()) for _ in range(2))
    for a, b in zip(tokenizer.decode(first), tokenizer.decode(second)):
        assert torch.equal(a, b)


def test_passes_are_bounded_and_change_nothing(queries: TiTok, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = queries.encode(videos())
    decoded = queries.decode(whole)
    monkeypatch.setattr("tokenreel.tokenizers.titok._TOKENS_AT_ONCE", 40)
    seen: list[tuple[int, int]] = []
    queries.encoder_stack.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[:2])))
    for a, b in zip(queries.encode(videos()), whole):
        np.testing.assert_array_equal(a.ids_L, b.ids_L)
    assert seen == [(2, 18), (1, 18), (2, 18), (1, 18), (2, 7), (1, 11)]
    for a, b in zip(queries.decode(whole), decoded):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_a_stream_gives_the_whole(tokenizer: TiTok, chunk: int) -> None:
    given = video(7, 17, 31)
    (whole,) = tokenizer.encode([given])
    encoder, parts = tokenizer.encoder(), []
    for start in range(0, 7, chunk):
        parts += encoder.push(given[:, start : start + chunk])
    assert encoder.finish() == []
    np.testing.assert_array_equal(np.concatenate([part.ids_L for part in parts]), whole.ids_L)
    assert sum(part.size[0] for part in parts) == 7
    assert sum(part.grid.t for part in parts) == whole.grid.t
    decoder = tokenizer.decoder()
    pieces = torch.cat([piece for part in parts for piece in decoder.push(part)], dim=1)
    assert decoder.finish() == []
    torch.testing.assert_close(pieces, tokenizer.decode([whole])[0], rtol=0, atol=1e-5)


def test_a_stream_keeps_one_size_and_a_prefix(queries: TiTok) -> None:
    encoder = queries.encoder(token_count=2)
    (part,) = encoder.push(video(3, 24, 32))
    assert part.num_tokens == 6
    with pytest.raises(MismatchError, match=r"one size, got \(8, 8\) after \(24, 32\)"):
        encoder.push(video(1, 8, 8))
    with pytest.raises(InputError, match="got shape"):
        encoder.push(video(1, 24, 32)[0])
    encoder.finish()
    assert encoder.push(video(1, 8, 8))[0].num_tokens == 2


def test_strides_and_bytes_do_not_matter(tokenizer: TiTok) -> None:
    frames = (video(2, 17, 31) * 127.5 + 127.5).round().to(torch.uint8)
    wide = frames.float() / 127.5 - 1
    turned = wide.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    (wanted,) = tokenizer.encode([wide])
    for same in (turned, frames, frames.numpy(), wide.numpy(), turned.numpy()):
        np.testing.assert_array_equal(tokenizer.encode([same])[0].ids_L, wanted.ids_L)


def test_bf16_is_finite_and_mostly_the_same(tokenizer: TiTok) -> None:
    exact = tokenizer.encode(videos())
    tokenizer.precision = "bf16"
    rough = tokenizer.encode(videos())
    same = np.concatenate([a.ids_L == b.ids_L for a, b in zip(exact, rough)])
    assert same.mean() > 0.7
    for given, decoded in zip(videos(), tokenizer.decode(rough)):
        assert decoded.shape == given.shape
        assert decoded.dtype == torch.float32
        assert decoded.isfinite().all()
    with tokenizer.running():
        assert tokenizer._latents(video(1, 24, 32)[:, 0][None]).dtype == torch.float32


# What the model computes.


class Through(nn.Module):
    """Stands for a stack or a quantizer that changes nothing."""

    def forward(self, x: Tensor, *, generator: Any = None, valid_mask: Any = None) -> Any:
        return x


def test_pixels_return_to_where_their_patch_was_cut() -> None:
    dim = 8 * 4 * 3
    stack = Stack(dim=dim, depth=1, num_heads=1, head_dim=8, mlp_dim=8)
    config = replace(GRID, patch_size=(1, 8, 4), encoder=stack, decoder=stack, quantizer=LFQConfig(codebook_dim=32))
    model = TiTok.untrained(config)
    model.encoder_stack = model.decoder_stack = Through()  # type: ignore[assignment]
    with torch.no_grad():
        for positions in (model.encoder_positions, model.decoder_positions):
            positions.table_thwD.zero_()
        model.to_latents, model.from_codes = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for layer in (model.embed.proj, model.to_latents, model.from_codes, model.to_pixels):
            layer.weight.copy_(torch.eye(dim))
            layer.bias.zero_()

        class Same(Through):
            def forward(self, x: Tensor, *, generator: Any = None, valid_mask: Any = None) -> Any:
                return Quantized(x, x[..., 0].long(), {})

        model.quantizer = Same()  # type: ignore[assignment]
        given = torch.stack([video(3, 21, 30, seed=n) for n in range(2)])
        assert torch.equal(model(given).video, given)


def test_queries_read_all_patches_and_masks_read_all_codes() -> None:
    """The sequences, written out for one picture that fills the grid."""
    model = TiTok.untrained(QUERIES)
    picture = video(1, 24, 32)[:, 0]
    with torch.no_grad():
        cut = [
            picture[:, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].permute(1, 2, 0).flatten()
            for y in range(3)
            for x in range(4)
        ]
        patches = model.embed.proj(torch.stack(cut)) + model.encoder_positions.table_thwD.view(12, 32)
        latents = model.to_latents(model.encoder_stack(torch.cat([model.queries_QD, patches])[None]))[:, :6]
        codes, ids, _ = model.quantizer(latents)
        places = model.mask_D + model.decoder_positions.table_thwD.view(12, 24)
        read = torch.cat([model.from_codes(codes[0]) + model.code_positions_QD, places])[None]
        pixels = model.to_pixels(model.decoder_stack(read)[0, 6:]).view(3, 4, 8, 8, 3)
        wanted = pixels.permute(4, 0, 2, 1, 3).reshape(3, 24, 32)
        given = model(picture[None, :, None])
    torch.testing.assert_close(given.latents, latents, rtol=1e-5, atol=1e-6)
    assert torch.equal(given.ids, ids)
    torch.testing.assert_close(given.video[0, :, 0], wanted, rtol=0, atol=1e-5)


def test_forward_gives_what_encode_and_decode_give(tokenizer: TiTok) -> None:
    given = torch.stack([video(2, 17, 31, seed=n) for n in range(3)])
    with torch.no_grad():
        out = tokenizer(given)
    tokens = tokenizer.encode(list(given))
    np.testing.assert_array_equal(out.ids.numpy().reshape(3, -1), np.stack([item.ids_L for item in tokens]))
    decoded = torch.stack(tokenizer.decode(tokens))
    torch.testing.assert_close(out.video.clamp(-1, 1), decoded, rtol=0, atol=1e-5)
    length = tokenizer.num_tokens_of((1, 17, 31))
    assert out.latents.shape == out.codes.shape == (6, length, 3)
    assert out.ids.shape == (6, length)


def test_videos_pass_the_ends_of_the_range_only_in_forward(queries: TiTok) -> None:
    with torch.no_grad():
        queries.to_pixels.bias.fill_(5.0)
        assert queries(video(1, 8, 8)[None]).video.max() > 1
    assert queries.decode(queries.encode([video(1, 8, 8)]))[0].max() == 1


# Prefixes.


def test_fewer_tokens_are_a_prefix_and_decode_like_the_masked_row(queries: TiTok) -> None:
    given = videos()
    full = queries.encode(given)
    for count in (1, 4, 6):
        short = queries.encode(given, token_counts=count)
        decoded = queries.decode(short)
        for item, whole, clip, out in zip(short, full, given, decoded):
            rows = whole.ids_L.reshape(item.size[0], 6)
            np.testing.assert_array_equal(item.ids_L.reshape(item.size[0], count), rows[:, :count])
            with torch.no_grad():
                masked = queries(clip[None], token_counts=count).video[0].clamp(-1, 1)
            torch.testing.assert_close(out, masked, rtol=0, atol=1e-5)
    mixed = queries.encode(given, token_counts=[1, 2, 3, 4, 5])
    assert [item.num_tokens for item in mixed] == [T * count for (T, _, _), count in zip(SIZES, range(1, 6))]
    assert [tuple(out.shape[1:]) for out in queries.decode(mixed)] == SIZES


def test_dropped_codes_are_not_seen(queries: TiTok) -> None:
    codes = torch.randn(2, 6, 3)
    is_kept = torch.arange(6) < torch.tensor([2, 5])[:, None]
    other = torch.where(is_kept[..., None], codes, torch.randn(2, 6, 3))
    with torch.no_grad():
        first, second = (queries._pixels(given, (24, 32), is_kept) for given in (codes, other))
        assert torch.equal(first, second)
        assert not torch.allclose(first, queries._pixels(codes, (24, 32)))


def test_one_query_is_enough() -> None:
    model = TiTok.untrained(replace(QUERIES, num_queries=1))
    (tokens,) = model.encode([video(3, 9, 9)])
    assert tokens.num_tokens == 3
    assert model.decode([tokens])[0].shape == (3, 3, 9, 9)


def test_training_keeps_uniform_prefixes_of_its_generator(queries: TiTok) -> None:
    latents = torch.zeros(6000, 6, 3)
    assert queries.eval()._kept(latents, None, None) is None
    first, again, other = (
        queries.train()._kept(latents, None, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, first.cumprod(1).bool())
    counts = first.sum(1).bincount(minlength=7)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 5 * math.sqrt(1000)
    assert TiTok(replace(QUERIES, nested_dropout=False)).train()._kept(latents, None, None) is None


def test_dropped_tokens_count_in_no_loss() -> None:
    model = TiTok.untrained(replace(QUERIES, quantizer=QUANTIZERS["vq"])).train()
    counts = torch.tensor([1, 6, 3, 2])
    given = torch.stack([video(2, 24, 32, seed=n) for n in range(2)])
    out = model(given, token_counts=counts)
    latents, codes = out.latents.detach().numpy(), model.quantizer.codes(out.ids).detach().numpy()
    kept = np.concatenate([(latents[n] - codes[n])[: counts[n]] for n in range(4)])
    assert out.aux["codebook_loss"].item() == pytest.approx(np.square(kept).mean(), rel=1e-5)
    assert out.aux["commit_loss"].item() == pytest.approx(0.25 * np.square(kept).mean(), rel=1e-5)
    same = model(given, token_counts=[1, 6, 3, 2]).video
    assert torch.equal(out.video, same)


# Training.


@pytest.mark.parametrize("layout", CONFIGS)
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_gradients_reach_every_parameter(layout: str, kind: str) -> None:
    blocks = BlockOptions(mlp="swiglu", norm="rms", qk_norm=True) if kind == "fsq" else BlockOptions()
    model = TiTok.untrained(replace(CONFIGS[layout], quantizer=QUANTIZERS[kind], blocks=blocks)).train()
    given = torch.stack([video(3, 20, 28, seed=n) for n in range(2)])
    out = model(given, generator=torch.Generator().manual_seed(0))
    assert out.video.shape == given.shape
    assert int(out.ids.min()) >= 0
    assert int(out.ids.max()) < model.codebook_size
    (out.video.sub(given).square().mean() + sum(out.aux.values())).backward()
    missing = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.abs().sum() > 0
    ]
    assert missing == []


@pytest.mark.parametrize("layout", CONFIGS)
def test_forward_compiles_whole(layout: str) -> None:
    torch._dynamo.reset()
    shallow = replace(QUERIES.encoder, depth=1)
    model = TiTok.untrained(replace(CONFIGS[layout], encoder=shallow, decoder=shallow)).train()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    given = torch.stack([video(2, 17, 31, seed=n) for n in range(2)])
    torch.manual_seed(3)
    wanted = model(given)
    torch.manual_seed(3)
    out = compiled(given)
    torch.testing.assert_close(out.video, wanted.video)
    assert torch.equal(out.ids, wanted.ids)
    out.video.square().mean().backward()


def test_autocast_trains(queries: TiTok) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = queries.train()(video(2, 24, 32)[None])
    assert out.latents.dtype == out.video.dtype == torch.float32
    out.video.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in queries.parameters())


@pytest.mark.slow
def test_one_picture_is_learned_past_40_db() -> None:
    stack = Stack(dim=128, depth=2, num_heads=4, head_dim=32, mlp_dim=256)
    config = replace(QUERIES, encoder=stack, decoder=stack, quantizer=FSQConfig(levels=(8, 8, 8, 8)))
    model = TiTok.untrained(replace(config, nested_dropout=False)).train()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 32), indexing="ij")
    picture = torch.stack([x * y, torch.sin(4 * x), (x.square() + y.square() < 0.5).float()])[None, :, None] * 0.9
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=400, pct_start=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        model(picture).video.sub(picture).square().mean().backward()
        optimizer.step()
        schedule.step()
    (decoded,) = model.decode(model.encode([picture[0]]))
    error = decoded.sub(picture[0]).div(2).square().mean().item()
    assert -10 * math.log10(error) > 40


# At rest.


@pytest.mark.parametrize("half", [False, True])
def test_saved_and_loaded_it_is_the_same(tokenizer: TiTok, half: bool, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path, half=half)
    loaded = TiTok.from_pretrained(tmp_path)
    assert loaded.config == tokenizer.config
    assert (loaded.fingerprint == tokenizer.fingerprint) is not half
    tokens, again = tokenizer.encode(videos()), loaded.encode(videos())
    if half:
        assert json.loads((tmp_path / "config.json").read_text())["fingerprint"] == loaded.fingerprint
        assert [item.num_tokens for item in again] == [item.num_tokens for item in tokens]
        with pytest.raises(MismatchError, match="were made by"):
            loaded.decode(tokens)
    else:
        for a, b, c, d in zip(tokens, again, tokenizer.decode(tokens), loaded.decode(tokens)):
            np.testing.assert_array_equal(a.ids_L, b.ids_L)
            assert torch.equal(c, d)
    assert again[0].meta["tokenizer_source"] == str(tmp_path)


# name: parameters, tokens and bits of one picture of 256x256
SIZE_FACTS = {
    "tiny": (7_702_276, 128, 1536),
    "s-128": (51_683_596, 128, 1536),
    "b-64": (171_853_836, 64, 768),
    "l-32": (606_863_116, 32, 384),
    "grid-16": (338_013_184, 16, 208),
    "small-128": (26_452_256, 128, 1152),
    "base-32": (172_048_416, 32, 416),
}


def test_named_sizes_are_what_the_manual_says() -> None:
    assert list(TiTok.sizes) == list(SIZE_FACTS)
    manual = (Path(__file__).parents[2] / "docs" / "titok.md").read_text().partition("## Sizes")[2].partition("##")[0]
    for name, config in TiTok.sizes.items():
        with torch.device("meta"):
            model = TiTok(config)
        tokens = model.num_tokens_of((1, 256, 256))
        bits = tokens * math.log2(model.codebook_size)
        assert (model.num_parameters, tokens, bits) == SIZE_FACTS[name]
        assert from_values(TiTokConfig, json.loads(json.dumps(to_values(config)))) == config
        (row,) = [line for line in manual.splitlines() if line.startswith(f"| `{name}`")]
        cells = [cell.strip() for cell in row.split("|")]
        shown = [f"{model.num_parameters / 1e6:.1f} M", f"{tokens}", f"{bits:.0f}", f"{bits / 65536:.4f}"]
        assert [cell for cell in (*shown, f"{24 * 65536 / bits:,.0f} : 1") if cell not in cells] == []


# Errors.


def test_videos_that_cannot_be_read_are_refused(tokenizer: TiTok) -> None:
    good, nan = video(1, 8, 8), video(1, 8, 8)
    nan[0, 0, 0, 0] = math.nan
    for wrong, message in (
        (nan, "not finite"),
        (good * 255, r"must lie in \[-1, 1\]"),
        (good[:2], r"must be \(3, T, H, W\)"),
        (good[0], r"must be \(3, T, H, W\)"),
        (good[:, :0], "at least one frame"),
    ):
        with pytest.raises(InputError, match=message):
            tokenizer.encode([good, wrong])
    with pytest.raises(InputError, match="takes a list"):
        tokenizer.encode(good)  # type: ignore[arg-type]


def test_broken_weights_are_told(tokenizer: TiTok) -> None:
    with torch.no_grad():
        tokenizer.to_latents.weight[0, 0] = math.nan
    with pytest.raises(InputError, match="latents that are not finite"):
        tokenizer.encode([video(1, 8, 8)])


def test_tokens_that_do_not_belong_are_refused(queries: TiTok) -> None:
    (tokens,) = queries.encode([video(3, 24, 32)])
    ids = tokens.ids_L
    for wrong, message in (
        (replace(tokens, fingerprint="0" * 64), "were made by titok 000000000000, not by titok"),
        (replace(tokens, codebook_size=201), "codebook of 201, titok has 200"),
        (replace(tokens, layout="bytes"), "layout 'queries', got 'bytes'"),
        (replace(tokens, ids_L=ids[:-1]), "17 ids do not fill 3 frames of 1 to 6 ids each"),
        (replace(tokens, ids_L=ids[:0]), "0 ids do not fill 3 frames"),
        (replace(tokens, ids_L=np.concatenate([ids, ids[:3]])), "21 ids do not fill 3 frames"),
        (replace(tokens, size=(3, 24, 33)), "have the grid 3x3x5, these say 3x3x4"),
    ):
        with pytest.raises(MismatchError, match=message):
            queries.decode([tokens, wrong])
    with pytest.raises(InputError, match="takes a list"):
        queries.decode(tokens)  # type: ignore[arg-type]


def test_token_counts_that_cannot_be_kept_are_refused(queries: TiTok) -> None:
    given = [video(1, 8, 8), video(2, 8, 8)]
    for counts in (0, 7, -1, [6, 7]):
        with pytest.raises(InputError, match=r"must lie in \[1, 6\], got"):
            queries.encode(given, token_counts=counts)
    with pytest.raises(InputError, match=r"one number a video, got 3 for 2"):
        queries.encode(given, token_counts=[1, 2, 3])
    for wrong, message in (
        (7, r"must lie in \[1, 6\], got 7"),
        (torch.tensor([0, 3]), r"must lie in \[1, 6\], got 0"),
        ([1, 2, 3], "2 whole numbers, one a picture"),
        (torch.ones(2), "2 whole numbers, one a picture"),
    ):
        with pytest.raises(InputError, match=message):
            queries(given[1][None], token_counts=wrong)
    grid = TiTok.untrained(GRID)
    with pytest.raises(InputError, match="needs a tokenizer with queries"):
        grid.encode(given, token_counts=1)
    with pytest.raises(InputError, match="needs a tokenizer with queries"):
        grid(given[1][None], token_counts=torch.tensor([1, 1]))


def test_configurations_that_cannot_be_built_are_refused() -> None:
    for changes, message in (
        ({"patch_size": (2, 8, 8)}, r"patch_size must be \(1, ph, pw\), got \(2, 8, 8\)"),
        ({"patch_size": (1, 8)}, "three whole numbers"),
        ({"image_size": (0, 8)}, r"image_size must be \(H, W\)"),
        ({"num_queries": 0}, "at least 1, or None"),
        ({"num_queries": None}, "nested_dropout needs num_queries"),
        ({"blocks": BlockOptions(num_kv_heads=3)}, "must be divisible by num_kv_heads"),
    ):
        with pytest.raises(InputError, match=message):
            replace(QUERIES, **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Stack\.depth must be a whole number"):
        replace(QUERIES.encoder, depth=0)
