"""C-ViViT: exact causality, streams, masks, padding, quantizers, gradients, files, errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.quantize import FSQConfig, LFQConfig, VQConfig
from tokenreel.tokenizers.configs import BlockOptions, from_values, to_values
from tokenreel.tokenizers.cvivit import CViViT, CViViTConfig, FactorisedConfig

torch.set_num_threads(1)

HALF = FactorisedConfig(dim=32, spatial_depth=2, temporal_depth=2, num_heads=2, head_dim=16, mlp_dim=64)
TINY = CViViTConfig(
    patch_size=(2, 8, 8), encoder=HALF, decoder=HALF, quantizer=FSQConfig(levels=(8, 5, 5)), temporal_window=3
)
SIZES = [(1, 16, 16), (5, 17, 31), (4, 8, 8), (2, 1, 1), (9, 33, 16)]


def clip(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def made(seed: int = 0, **changes: Any) -> CViViT:
    return CViViT.untrained(replace(TINY, **changes), seed=seed)


VARIANTS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "bias": {"positions": "bias"},
    "no peg": {"peg": False},
    "linear path": {"linear_path": True},
    "options": {
        "blocks": BlockOptions(
            mlp="swiglu", norm="rms", num_kv_heads=1, qk_norm=True, gate="head", residual="scaled", bias=False
        )
    },
    "deepnorm": {"blocks": BlockOptions(residual="deepnorm", mlp="geglu")},
}


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> CViViT:
    return made(**VARIANTS[request.param])


def test_sizes_are_kept_and_grids_cover_them(model: CViViT) -> None:
    videos = [clip(*size) for size in SIZES]
    tokens = model.encode(videos)
    for item, (frames, height, width) in zip(tokens, SIZES):
        grid = (1 + -(-(frames - 1) // 2), -(-height // 8), -(-width // 8))
        assert (item.grid.t, item.grid.h, item.grid.w) == grid
        assert item.num_tokens == model.num_tokens_of((frames, height, width)) == np.prod(grid)
    for video, decoded in zip(videos, model.decode(tokens)):
        assert decoded.shape == video.shape
        assert decoded.dtype == torch.float32
        assert float(decoded.abs().max()) <= 1


def test_each_frame_edited_in_turn_changes_nothing_before_its_step(model: CViViT) -> None:
    video = clip(8, 16, 24)
    before = model(video[None])
    pixels = model.frames(before.codes)
    for edited in range(1, 8):
        changed = video.clone()
        changed[:, edited] = clip(1, 16, 24, seed=edited + 1)[:, 0]
        after = model(changed[None])
        step = 1 + (edited - 1) // 2  # of the grid; it begins with frame 1 + 2 * (step - 1)
        assert torch.equal(after.latents[:, :step], before.latents[:, :step])
        assert torch.equal(after.ids[:, :step], before.ids[:, :step])
        first = 1 + 2 * (step - 1)
        assert torch.equal(model.frames(after.codes)[:, :, :first], pixels[:, :, :first])
        assert not torch.equal(after.latents[:, step:], before.latents[:, step:])


def test_bf16_is_causal_bit_for_bit_and_finite() -> None:
    model, video = made(), clip(8, 16, 24)
    changed = video.clone()
    changed[:, -1] = -changed[:, -1]
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        before, after = model(video[None]), model(changed[None])
    assert torch.equal(before.latents[:, :4], after.latents[:, :4])
    assert torch.equal(before.video[:, :, :7], after.video[:, :, :7])
    assert bool(torch.isfinite(before.video).all())
    assert before.latents.dtype == torch.float32
    full = model(video[None])
    assert float((before.ids == full.ids).float().mean()) > 0.8


def test_the_non_causal_variant_looks_ahead() -> None:
    model, video = made(causal=False), clip(8, 16, 16)
    changed = video.clone()
    changed[:, -1] = -changed[:, -1]
    assert not torch.equal(model(video[None]).latents[:, :1], model(changed[None]).latents[:, :1])


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_the_first_frames_ids_are_the_images(model: CViViT, frames: int) -> None:
    video = clip(frames, 16, 24)
    (image,), (whole,) = model.encode([video[:, :1]]), model.encode([video])
    np.testing.assert_array_equal(image.ids_L, whole.ids_L[: image.num_tokens])


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 40])
def test_a_stream_is_the_whole(model: CViViT, chunk: int) -> None:
    video = clip(18, 16, 24)
    (whole,) = model.encode([video])
    stream, parts = model.encoder(), []
    for start in range(0, 18, chunk):
        parts += stream.push(video[:, start : start + chunk])
    parts += stream.finish()
    np.testing.assert_array_equal(np.concatenate([part.ids_L for part in parts]), whole.ids_L)
    assert sum(part.size[0] for part in parts) == 18
    assert sum(part.grid.t for part in parts) == whole.grid.t
    decoder = model.decoder()
    pieces = [piece for part in parts for piece in decoder.push(part)] + decoder.finish()
    torch.testing.assert_close(torch.cat(pieces, dim=1), model.decode([whole])[0], rtol=1e-5, atol=2e-6)


def test_a_window_is_held_in_the_one_pass_run_too() -> None:
    """Two temporal blocks of window 3 see back 4 steps, the position generator 2 more: 6 steps, no further."""
    model, video = made(), clip(19, 8, 8)
    changed = video.clone()
    changed[:, 0] = -changed[:, 0]
    with torch.no_grad():
        differs_t = (model.latents(video[None]) != model.latents(changed[None])).flatten(2).any(-1)[0]
    assert differs_t[:7].all()
    assert not differs_t[7:].any()


def test_a_streams_memory_is_one_window() -> None:
    model = made()
    stream = model.encoder()
    stream.push(clip(1, 16, 16))
    for _ in range(6):
        stream.push(clip(4, 16, 16))
    past = stream._state.past  # type: ignore[attr-defined]
    assert {keys.num_tokens for keys in past} == {2}
    assert all(keys.k_BSGd.untyped_storage().nbytes() == keys.k_BSGd.nbytes for keys in past)


def test_long_clips_stream_inside_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = made(), clip(21, 16, 16)
    (whole,) = model.encode([video])
    (decoded,) = model.decode([whole])
    monkeypatch.setattr("tokenreel.tokenizers.cvivit._PASS_TOKENS", 8)
    monkeypatch.setattr("tokenreel.tokenizers.cvivit_stream._PART_TOKENS", 12)
    np.testing.assert_array_equal(model.encode([video])[0].ids_L, whole.ids_L)
    torch.testing.assert_close(model.decode([whole])[0], decoded, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("positions", ["rotary", "bias"])
def test_frame_masks_give_what_each_clip_gives_alone(causal: bool, positions: Any) -> None:
    model = made(causal=causal, positions=positions)
    counts = [9, 4, 1, 6]
    batch = torch.full((4, 3, 9, 16, 24), 1e3)  # padding that would be seen at once
    for index, frames in enumerate(counts):
        batch[index, :, :frames] = clip(frames, 16, 24, seed=index)
    with torch.no_grad():
        together = model(batch, frame_counts=counts)
        for index, frames in enumerate(counts):
            alone = model(clip(frames, 16, 24, seed=index)[None])
            steps = alone.latents.shape[1]
            torch.testing.assert_close(together.latents[index, :steps], alone.latents[0], rtol=1e-5, atol=2e-6)
            torch.testing.assert_close(together.video[index, :, :frames], alone.video[0], rtol=1e-5, atol=2e-6)


def test_masked_frames_count_in_no_loss() -> None:
    model = made(quantizer=VQConfig(codebook_size=16, codebook_dim=4)).train()
    batch = torch.cat([clip(5, 8, 8)[None], torch.zeros(1, 3, 5, 8, 8)])
    batch[1, :, :1] = clip(1, 8, 8, seed=3)
    alone = model(batch[:1], frame_counts=[5]), model(batch[1:, :, :1])
    both = model(batch, frame_counts=[5, 1])
    for name, loss in both.aux.items():  # three steps and one
        expected = (3 * alone[0].aux[name] + alone[1].aux[name]) / 4
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "quantizer",
    [
        VQConfig(codebook_size=64, codebook_dim=32),
        VQConfig(codebook_size=64, codebook_dim=8, l2_norm=True, estimator="rotation"),
        FSQConfig(levels=(7, 7, 7, 5, 5)),
        LFQConfig(codebook_dim=6),
    ],
)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_learns(quantizer: Any, name: str) -> None:
    model = made(quantizer=quantizer, **VARIANTS[name]).train()
    video = clip(5, 16, 16)[None]
    out = model(video)
    loss = (out.video - video).square().mean() + sum(out.aux.values())
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert float(parameter.grad.abs().max()) > 0, key


def assert_one_graph(model: CViViT, **options: Any) -> None:
    torch._dynamo.reset()
    video = clip(5, 16, 24)[None]
    with torch.no_grad():
        expected = model(video, **options).video
        torch.testing.assert_close(
            torch.compile(model, fullgraph=True, backend="eager")(video, **options).video, expected
        )


def test_forward_compiles_to_one_graph() -> None:
    shallow = replace(HALF, spatial_depth=1, temporal_depth=1)
    assert_one_graph(made(encoder=shallow, decoder=shallow))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"frame_counts": [4]}])
@pytest.mark.parametrize("name", VARIANTS)
def test_all_variants_compile_to_one_graph(name: str, options: dict[str, Any]) -> None:
    assert_one_graph(made(**VARIANTS[name]), **options)


def test_forward_is_what_encode_and_decode_do(model: CViViT) -> None:
    video = clip(6, 17, 20)
    (tokens,) = model.encode([video])
    with torch.no_grad():
        out = model(video[None])
    np.testing.assert_array_equal(out.ids.flatten().numpy(), tokens.ids_L)
    torch.testing.assert_close(out.video[0].clamp(-1, 1), model.decode([tokens])[0])


def test_uint8_frames_are_taken() -> None:
    pixels = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    model = made()
    for given in (pixels, pixels.numpy()):
        np.testing.assert_array_equal(
            model.encode([given])[0].ids_L, model.encode([pixels.float() / 127.5 - 1])[0].ids_L
        )


def test_a_batch_tensor_is_a_list_of_clips() -> None:
    model = made()
    batch = torch.stack([clip(3, 8, 8), clip(3, 8, 8, seed=1)])
    assert [t.ids_L.tolist() for t in model.encode(batch)] == [t.ids_L.tolist() for t in model.encode(list(batch))]


def test_encode_leaves_the_mode_alone_and_is_eval_itself() -> None:
    model = made(quantizer=FSQConfig(levels=(8, 5, 5), noise=0.5), blocks=BlockOptions(drop_path=0.5)).train()
    model.encoder_half.eval()
    first, second = model.encode([clip(5, 16, 16)]), model.encode([clip(5, 16, 16)])
    np.testing.assert_array_equal(first[0].ids_L, second[0].ids_L)
    assert model.training
    assert model.quantizer.training
    assert not model.encoder_half.training


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model, video = made(seed=3), clip(5, 16, 16)
    model.save_pretrained(tmp_path / "m")
    loaded = CViViT.from_pretrained(tmp_path / "m")
    assert loaded.fingerprint == model.fingerprint
    assert loaded.config == model.config
    assert not loaded.training
    assert loaded.source == str(tmp_path / "m")
    (tokens,) = model.encode([video])
    np.testing.assert_array_equal(loaded.encode([video])[0].ids_L, tokens.ids_L)
    assert torch.equal(loaded.decode([tokens])[0], model.decode([tokens])[0])
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    card = (tmp_path / "m" / "README.md").read_text()
    assert f"{model.num_parameters:,}" in card
    assert model.fingerprint in card


def test_half_precision_files_have_a_fingerprint_of_their_own(tmp_path: Path) -> None:
    model = made()
    model.save_pretrained(tmp_path / "full")
    model.save_pretrained(tmp_path / "half", half=True)
    loaded = CViViT.from_pretrained(tmp_path / "half")
    assert loaded.fingerprint != model.fingerprint
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    agree = loaded.encode([clip(5, 32, 32)])[0].ids_L == model.encode([clip(5, 32, 32)])[0].ids_L
    assert agree.mean() > 0.95


def test_the_fingerprint_follows_the_weights() -> None:
    model, other = made(), made()
    assert model.fingerprint == other.fingerprint
    with torch.no_grad():
        model.to_latents.bias[0] += 1
    assert model.fingerprint != other.fingerprint
    assert made(seed=1).fingerprint != other.fingerprint
    assert made(temporal_window=4).fingerprint != other.fingerprint


@pytest.mark.parametrize("changes", VARIANTS.values())
def test_configs_go_through_json(changes: dict[str, Any]) -> None:
    import json

    config = replace(TINY, **changes)
    assert from_values(CViViTConfig, json.loads(json.dumps(to_values(config)))) == config


def test_damaged_folders_are_told_apart(tmp_path: Path) -> None:
    import json

    made().save_pretrained(tmp_path / "a")
    made(seed=1).save_pretrained(tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    with pytest.raises(FormatError, match="fingerprints differ"):
        CViViT.from_pretrained(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="not a readable safetensors"):
        CViViT.from_pretrained(tmp_path / "a")
    about = json.loads((tmp_path / "b" / "config.json").read_text())
    for change, message in (
        ({"temporal_windw": 3}, "did you mean 'temporal_window'"),
        ({"tokenizer": "titok"}, "family 'titok'"),
        ({"peg": False}, "unknown"),
        ({"encoder": {**about["encoder"], "dim": 48}}, "shape"),
    ):
        (tmp_path / "b" / "config.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(InputError, match=message):
            CViViT.from_pretrained(tmp_path / "b")
    with pytest.raises(InputError, match="no file"):
        CViViT.from_pretrained(tmp_path / "nothing here")


def test_wrong_pixels_are_refused_before_any_work() -> None:
    model = made()
    nan, far = clip(3, 8, 8), clip(3, 8, 8) * 127
    nan[0, 1, 2, 3] = torch.nan
    for wrong, message in (
        (nan, "not finite"),
        (far, "to_video"),
        (clip(3, 8, 8)[:2], r"\(3, T, H, W\)"),
        (clip(3, 8, 8)[:, :0], "at least one frame"),
        (clip(3, 8, 8).int(), "uint8"),
    ):
        with pytest.raises(InputError, match=message) as error:
            model.encode([clip(3, 8, 8), wrong])
        assert "video 1" in str(error.value)
        with pytest.raises(InputError, match=message):
            model.encoder().push(wrong)
    with pytest.raises(InputError, match="list of videos"):
        model.encode(clip(3, 8, 8))


def test_foreign_tokens_are_refused_before_any_work() -> None:
    model = made()
    (tokens,) = model.encode([clip(5, 16, 16)])
    for wrong, message in (
        (made(seed=1).encode([clip(5, 16, 16)])[0], "made by cvivit"),
        (replace(tokens, codebook_size=300), "codebook of 300"),
        (replace(tokens, layout="queries"), "layout 'grid'"),
        (replace(tokens, size=(6, 16, 16)), "must have the grid"),
    ):
        with pytest.raises(MismatchError, match=message):
            model.decode([tokens, wrong])
        with pytest.raises(MismatchError):
            model.decoder().push(wrong)
    with pytest.raises(InputError, match=r"decode\(\[tokens\]\)"):
        model.decode(tokens)  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_named() -> None:
    model = made()
    with torch.no_grad():
        model.to_latents.bias[0] = torch.nan
    with pytest.raises(InputError, match="weights"):
        model.encode([clip(1, 8, 8)])


def test_a_stream_of_changing_size_is_refused() -> None:
    stream = made().encoder()
    stream.push(clip(3, 16, 16))
    with pytest.raises(MismatchError, match="one size"):
        stream.push(clip(3, 16, 24))


def test_bad_configurations_and_counts_are_refused() -> None:
    with pytest.raises(InputError, match="temporal_window"):
        replace(TINY, temporal_window=0)
    with pytest.raises(InputError, match="positions"):
        made(positions="learned")
    with pytest.raises(InputError, match="no size 'huge'"):
        CViViT.untrained("huge")
    with pytest.raises(InputError, match="frame_counts"):
        made()(clip(3, 8, 8)[None], frame_counts=[4])
    model = made()
    model.precision = "fp8"  # type: ignore[assignment]
    with pytest.raises(InputError, match="fp8"):
        model.encode([clip(1, 8, 8)])


def test_bf16_precision_runs_and_mostly_agrees() -> None:
    model, video = made(), clip(9, 32, 32)
    full = model.encode([video])[0].ids_L
    model.precision = "bf16"
    (tokens,) = model.encode([video])
    assert (tokens.ids_L == full).mean() > 0.8
    assert model.decode([tokens])[0].dtype == torch.float32


@pytest.mark.slow
def test_one_clip_is_learned_by_heart() -> None:
    """Through the quantizer, to more than 40 dB."""
    half = FactorisedConfig(dim=96, spatial_depth=2, temporal_depth=2, num_heads=3, head_dim=32, mlp_dim=384)
    model = made(encoder=half, decoder=half, quantizer=FSQConfig(levels=(8, 8, 8, 8, 8, 8))).train()
    axis = torch.linspace(-1, 1, 32)
    video = torch.stack(
        [torch.stack([torch.sin(3 * axis[None] + 2 * axis[:, None] * c + t / 3) for t in range(5)]) for c in range(3)]
    )[None]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        loss = (model(video).video - video).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    (decoded,) = model.decode(model.encode([video[0]]))
    mse = float((decoded - video[0]).square().mean()) / 4  # on [0, 1]
    assert -10 * np.log10(mse) > 40


def smooth(frames: int, seed: int) -> torch.Tensor:
    """A clip of a few random waves: what a linear codec can hold."""
    generator = torch.Generator().manual_seed(seed)
    t, y, x = torch.meshgrid(torch.arange(frames), torch.arange(32), torch.arange(32), indexing="ij")
    a, b, c = torch.rand(3, 3, 1, 1, 1, generator=generator) * 0.3
    return torch.sin(a * t + b * y + c * x + seed) * 0.8


@pytest.mark.parametrize(
    "quantizer",
    [
        FSQConfig(levels=(5, 40, 8, 8)),
        VQConfig(codebook_size=64, codebook_dim=8, start="kmeans"),
        LFQConfig(codebook_dim=8),
    ],
)
def test_a_linear_start_is_the_transform_codec(quantizer: Any) -> None:
    """Far better than random weights, on other clips too, and exactly linear in between."""
    model = made(quantizer=quantizer, linear_path=True)
    other = smooth(9, 50)
    before = float((model.decode(model.encode([other]))[0] - other).square().mean())
    model.start_linear([smooth(9, seed) for seed in range(12)])
    after = float((model.decode(model.encode([other]))[0] - other).square().mean())
    assert after < 0.35 * float(other.var())
    assert after < 0.5 * before
    with torch.no_grad():
        latents = [model.latents(video[None]) for video in (other, -other, torch.zeros_like(other))]
    torch.testing.assert_close(latents[0] + latents[1], 2 * latents[2], rtol=1e-4, atol=1e-4)


def test_a_linear_start_gives_the_finest_level_the_most_variance() -> None:
    model = made(quantizer=FSQConfig(levels=(5, 40, 8)), linear_path=True)
    clips = [smooth(9, seed) for seed in range(12)]
    model.start_linear(clips)
    used = [len(digits.unique()) for digits in model.quantizer.digits(model(torch.stack(clips)).ids).flatten(0, -2).T]
    assert used[1] > used[2] >= used[0] - 1


def test_a_codebook_starts_as_k_means_of_patches() -> None:
    """Every patch becomes the nearest code in pixels, and what stands still has one id in all steps."""
    quantizer = VQConfig(codebook_size=24, codebook_dim=200, kmeans_iterations=5)
    model = made(quantizer=quantizer, linear_path=True, patch_size=(2, 4, 4))
    still = smooth(1, 3).expand(-1, 5, -1, -1)
    clips = [*(smooth(5, seed) for seed in range(8)), still]
    model.start_linear(clips)
    first, rest = model.linear_out.first, model.linear_out.rest  # type: ignore[union-attr]
    codes = rest(model.quantizer.codebook())  # the codes as patches of 2x4x4
    video = smooth(5, 60)
    [tokens] = model.encode([video])
    patches = video[:, 1:].reshape(3, 2, 2, 8, 4, 8, 4).permute(1, 3, 5, 2, 4, 6, 0).reshape(128, 96)
    nearest = torch.cdist(patches, codes.detach()).argmin(1)
    assert (torch.as_tensor(tokens.ids_L[64:].astype(int)) == nearest).float().mean() > 0.98
    frames = codes.view(24, 2, 48).mean(1)
    torch.testing.assert_close(first(model.quantizer.codebook()), frames, rtol=1e-4, atol=1e-4)
    [held] = model.encode([still])
    assert (held.ids_L.reshape(3, 64) == held.ids_L[:64]).all()


def test_equal_patches_of_a_clip_count_once() -> None:
    """A wall that stands still takes one code of four, not all."""
    model = made(quantizer=VQConfig(codebook_size=4, codebook_dim=12, kmeans_iterations=4), linear_path=True)
    clip_CTHW = torch.full((3, 9, 32, 32), -0.5)
    for step, value in enumerate((0.2, 0.6, 1.0)):
        clip_CTHW[:, 1 + 2 * step : 3 + 2 * step, :8, :8] = value
    model.start_linear([clip_CTHW])
    [tokens] = model.encode([clip_CTHW])
    assert len(set(tokens.ids_L.tolist())) == 4


def test_a_linear_start_needs_a_linear_path() -> None:
    with pytest.raises(InputError, match="linear_path"):
        made().start_linear([clip(3, 16, 16)])
