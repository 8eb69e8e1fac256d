"""Laws of every model of ViViT: padding, batches, gradients, drop path, saving, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.classify import CLASSIFIERS, Logits, TokenViViT, ViViT, ViViTConfig, load
from tokenreel.classify.vivit_config import SIZES
from tokenreel.errors import FormatError, InputError
from tokenreel.tokenizers import TiTok
from tokenreel.tokenizers.configs import BlockOptions, Stack

torch.set_num_threads(1)

HEADS = (("shape", ("round", "square", "star")), ("colour", ("red", "blue")))
STACK = Stack(dim=16, depth=2, num_heads=2, head_dim=8, mlp_dim=32)
BASE = ViViTConfig(
    model="spatio_temporal",
    num_frames=6,
    size=(12, 10),
    in_channels=3,
    patch_size=(2, 4, 4),
    encoder=STACK,
    pooling="class_token",
    heads=HEADS,
)
CONFIGS: dict[str, ViViTConfig] = {
    "1": BASE,
    "1 mean": replace(BASE, pooling="mean"),
    "2": replace(BASE, model="factorised_encoder", temporal_depth=2),
    "2 mean": replace(BASE, model="factorised_encoder", temporal_depth=1, pooling="mean"),
    "2 mixed": replace(BASE, model="factorised_encoder", temporal_depth=1, temporal_pooling="mean"),
    "2 average": replace(BASE, model="factorised_encoder", temporal_depth=0),
    "3": replace(BASE, model="factorised_self_attention", pooling="mean"),
    "4": replace(BASE, model="factorised_dot_product", pooling="mean"),
    "stem": replace(BASE, stem_channels=5),
}
MODERN = BlockOptions(mlp="swiglu", norm="rms", qk_norm=True, gate="head", residual="scaled", bias=False)
EVERY = pytest.mark.parametrize("name", CONFIGS)


def model_of(config: ViViTConfig, seed: int = 0) -> ViViT:
    """Untrained, its weights large enough that everything matters."""
    model = ViViT.untrained(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def videos(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def assert_same(first: Logits, second: Logits, atol: float = 2e-5) -> None:
    assert list(first) == list(second)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=atol)


def apart(first: Logits, second: Logits) -> float:
    return max(float((first[name] - second[name]).detach().abs().max()) for name in first)


@EVERY
@pytest.mark.parametrize("size", [(6, 12, 10), (1, 4, 4), (5, 11, 7), (9, 17, 20)])
def test_any_size_gives_one_row_a_head(name: str, size: tuple[int, int, int]) -> None:
    logits = model_of(CONFIGS[name])(videos(2, 3, *size))
    assert {head: tuple(score.shape) for head, score in logits.items()} == {"shape": (2, 3), "colour": (2, 2)}
    assert all(bool(score.isfinite().all()) for score in logits.values())


@EVERY
def test_padded_frames_change_no_logit(name: str) -> None:
    model = model_of(CONFIGS[name])
    short = videos(2, 3, 3, 12, 10)
    alone = model(short)
    rubbish = torch.cat([short, torch.full((2, 3, 6, 12, 10), float("nan"))], dim=2)
    assert_same(alone, model(rubbish, frame_counts=[3, 3]))
    assert_same(alone, model(rubbish[:, :, :4], frame_counts=torch.tensor([3, 3])))
    with torch.no_grad():
        assert apart(alone, model(rubbish.nan_to_num(0.5))) > 1e-3  # as real frames they do


@EVERY
def test_videos_of_unequal_length_are_as_one_by_one(name: str) -> None:
    model = model_of(CONFIGS[name])
    counts, video = [9, 2, 5], videos(3, 3, 9, 12, 10)  # 9 frames are more than positions are made for
    together = model(video, frame_counts=counts)
    for index, count in enumerate(counts):
        alone = model(video[index : index + 1, :, :count])
        assert_same(Logits(HEADS, tuple(score[index : index + 1] for score in together.scores)), alone)


@EVERY
def test_edges_are_padded_with_zeros_and_no_voxel_is_thrown_away(name: str) -> None:
    model = model_of(CONFIGS[name])
    video = videos(1, 3, 5, 11, 9)
    padded = F.pad(video, (0, 3, 0, 1, 0, 1))
    assert_same(model(video), model(padded), atol=0)
    for place in ((4, 0, 0), (0, 10, 0), (0, 0, 8)):
        changed = video.clone()
        changed[(0, 0, *place)] += 1
        assert apart(model(video), model(changed)) > 1e-6, place
    dropping = model_of(replace(CONFIGS[name], edges="drop"))
    assert_same(dropping(video), dropping(video[:, :, :4, :8, :8]), atol=0)
    assert_same(dropping(video), dropping(F.pad(video, (0, 0, 0, 0, 0, 4)), frame_counts=[5]))


@EVERY
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = model_of(CONFIGS[name]).train()
    logits = model(videos(2, 3, 6, 12, 10))
    sum(F.cross_entropy(score, torch.tensor([0, 1])) for score in logits.values()).backward()  # type: ignore[union-attr]
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert float(parameter.grad.abs().max()) > 0, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name


@EVERY
def test_gradients_of_padded_batches_are_finite_and_leave_padding_alone(name: str) -> None:
    model = model_of(CONFIGS[name]).train()
    video = videos(2, 3, 6, 12, 10).requires_grad_()
    sum(score.sum() for score in model(video, frame_counts=[2, 5]).values()).backward()  # type: ignore[union-attr]
    assert video.grad is not None
    assert float(video.grad[0, :, 2:].abs().max()) == 0
    assert float(video.grad[1, :, 5:].abs().max()) == 0
    assert float(video.grad[1, :, 4].abs().max()) > 0
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)


@EVERY
def test_drop_path_is_drawn_in_training_alone_from_the_generator(name: str) -> None:
    plain = model_of(CONFIGS[name])
    model = model_of(replace(CONFIGS[name], blocks=BlockOptions(drop_path=0.6)))
    video = videos(4, 3, 6, 12, 10)
    assert_same(plain(video), model(video), atol=0)
    model.train()
    with torch.no_grad():
        first, second, other = (model(video, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert_same(first, second, atol=0)
    assert apart(first, other) > 1e-4


@EVERY
def test_modern_blocks_fit_every_model(name: str) -> None:
    model = model_of(replace(CONFIGS[name], blocks=MODERN))
    video = videos(2, 3, 6, 12, 10)
    assert_same(model(video[:, :, :3]), model(video, frame_counts=[3, 3]))


@EVERY
def test_a_saved_classifier_is_the_same(name: str, tmp_path: Path) -> None:
    model = model_of(CONFIGS[name])
    folder = model.save_pretrained(tmp_path / "classifier")
    again = load(folder)
    assert isinstance(again, ViViT)
    assert again.config == CONFIGS[name]
    assert again.fingerprint == model.fingerprint
    video = videos(1, 3, 6, 12, 10)
    assert_same(model(video), again(video), atol=1e-6)  # equal weights, other addresses
    card = (folder / "README.md").read_text()
    assert "| head shape | 3 classes: round, square, star |" in card


def test_other_folders_are_refused_by_name(tmp_path: Path) -> None:
    folder = ViViT.untrained(BASE).save_pretrained(tmp_path / "vivit")
    with pytest.raises(FormatError, match="classifier of the family 'vivit', not a tokenizer"):
        TiTok.from_pretrained(folder)
    with pytest.raises(FormatError, match="'vivit', not 'token_vivit'"):
        TokenViViT.from_pretrained(folder)
    tokenizer = TiTok.untrained("tiny").save_pretrained(tmp_path / "titok")
    with pytest.raises(FormatError, match="a tokenizer of the family 'titok', not a classifier"):
        load(tokenizer)
    (folder / "config.json").write_text('{"model_type": "vivit"}')
    with pytest.raises(FormatError, match="from_hf"):
        load(folder)
    (folder / "config.json").write_text('{"classifier": "oracle"}')
    with pytest.raises(FormatError, match="'oracle'; this version knows vivit, token_vivit"):
        load(folder)
    assert set(CLASSIFIERS) == {"vivit", "token_vivit"}


def test_equal_seeds_are_equal_bytes() -> None:
    assert ViViT.untrained(BASE, seed=3).fingerprint == ViViT.untrained(BASE, seed=3).fingerprint
    assert ViViT.untrained(BASE, seed=3).fingerprint != ViViT.untrained(BASE, seed=4).fingerprint


def test_the_last_block_of_a_class_token_is_cut_without_a_trace() -> None:
    for name in ("1", "2"):
        for blocks in (BlockOptions(), replace(MODERN, num_kv_heads=1)):
            model = model_of(replace(CONFIGS[name], blocks=blocks))
            video = videos(2, 3, 6, 12, 10)
            short = model(video, frame_counts=[6, 3])
            for module in model.modules():
                if hasattr(module, "every_token"):
                    module.every_token = True
            assert_same(short, model(video, frame_counts=[6, 3]), atol=1e-5)


def test_predict_samples_uniformly_and_takes_bytes() -> None:
    model = model_of(CONFIGS["2"])
    long, short = videos(3, 18, 12, 10), videos(3, 4, 12, 10, seed=2)
    video, counts = model.batch_of([long, short])
    assert counts == [6, 4]
    assert torch.equal(video[0], long[:, 1::3])
    assert torch.equal(video[1, :, :4], short)
    logits = model.predict([long, short])
    assert_same(logits, model(video, frame_counts=counts))
    bytes_THWC = (torch.rand(6, 12, 10, 3, generator=torch.Generator().manual_seed(0)) * 255).byte()
    pixels = bytes_THWC.permute(3, 0, 1, 2)
    assert_same(model.predict([pixels]), model.predict([pixels.float() / 127.5 - 1]))
    assert model.predict([pixels.numpy()]).predicted()["colour"][0] in ("red", "blue")


def test_logits_check_themselves_and_say_what_they_mean() -> None:
    logits = Logits(HEADS, (torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([[2.0, 0.0]])))
    assert logits.predicted() == {"shape": ["square"], "colour": ["red"]}
    torch.testing.assert_close(logits.probabilities()["colour"], torch.tensor([[0.880797, 0.119203]]))
    assert repr(logits) == "Logits(shape (1, 3), colour (1, 2))"
    assert dict(logits).keys() == {"shape", "colour"}
    with pytest.raises(KeyError):
        logits["size"]
    with pytest.raises(InputError, match=r"shape \(B, 3\), colour \(B, 2\)"):
        Logits(HEADS, (torch.zeros(1, 2), torch.zeros(1, 2)))


def test_bfloat16_is_near_and_logits_stay_float32() -> None:
    for name, config in CONFIGS.items():
        model = model_of(config)
        exact = model.predict([videos(3, 6, 12, 10)])
        model.precision = "bf16"
        near = model.predict([videos(3, 6, 12, 10)])
        assert near["shape"].dtype == torch.float32
        assert 0 < apart(exact, near) < 0.15, name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "model_5"}, "model must be one of spatio_temporal"),
        ({"pooling": "max"}, "pooling must be one of class_token, mean"),
        ({"edges": "wrap"}, "edges must be one of pad, drop"),
        ({"model": "factorised_encoder"}, "needs temporal_depth, 0 or more blocks, got None"),
        ({"temporal_depth": 2}, "temporal_depth \\(2\\) is for factorised_encoder"),
        ({"temporal_pooling": "mean"}, "temporal_pooling must be None"),
        ({"model": "factorised_self_attention"}, "has no class token"),
        (
            {"model": "factorised_dot_product", "pooling": "mean", "encoder": replace(STACK, num_heads=3)},
            "must be even, got 3",
        ),
        ({"heads": ()}, "heads must be one or more"),
        ({"heads": (("a", ("x", "y")), ("a", ("x", "y")))}, "each with a name of its own"),
        ({"heads": (("a", ("x",)),)}, "two or more different labels"),
        ({"heads": "labels"}, "pairs of a name and its labels"),
        ({"in_channels": 2}, "in_channels must be 1 \\(grey\\) or 3"),
        ({"num_frames": 0}, "must be whole, at least 1"),
        ({"size": (12.0, 10)}, "must be whole, at least 1"),
        ({"num_frames": 1, "edges": "drop"}, "holds no patch"),
        ({"activation": "relu"}, "activation must be one of gelu, gelu_tanh"),
        ({"activation": "gelu_tanh", "blocks": BlockOptions(mlp="geglu")}, "not geglu"),
        ({"eps": 0.0}, "eps must lie in"),
        ({"patch_size": (2, 4)}, "patch_size must be three"),
        ({"stem_channels": 0}, "stem_channels must be at least 1"),
        ({"stem_channels": 4, "patch_size": (2, 4, 6)}, "divide by 4, got 4 and"),
    ],
)
def test_bad_configurations_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(BASE, **change)


def test_bad_videos_are_refused() -> None:
    model = ViViT.untrained(BASE)
    for shape in ((3, 6, 12, 10), (1, 1, 6, 12, 10), (1, 3, 0, 12, 10)):
        with pytest.raises(InputError, match=r"expected videos \(B, 3, T, H, W\)"):
            model(torch.zeros(shape))
    with pytest.raises(InputError, match="batch_of converts uint8"):
        model(torch.zeros(1, 3, 6, 12, 10, dtype=torch.uint8))
    for counts in ([0], [7], [1, 2]):
        with pytest.raises(InputError, match=r"1 counts in \[1, 6\]"):
            model(torch.zeros(1, 3, 6, 12, 10), frame_counts=counts)
    with pytest.raises(InputError, match="one frame size"):
        model.batch_of([torch.zeros(3, 2, 4, 4), torch.zeros(3, 2, 4, 5)])
    with pytest.raises(InputError, match="video 0 must be"):
        model.batch_of([torch.zeros(1, 2, 4, 4)])
    with pytest.raises(InputError, match=r"float in \[-1, 1\] or uint8, got torch.int64"):
        model.batch_of([torch.zeros(3, 2, 4, 4, dtype=torch.int64)])
    with pytest.raises(InputError, match="at least one video"):
        model.batch_of([])
    with pytest.raises(InputError, match="holds no patch"):
        ViViT.untrained(replace(BASE, edges="drop"))(torch.zeros(1, 3, 1, 12, 10))


def test_sizes_have_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        counted = {name: ViViT(config).num_parameters for name, config in SIZES.items()}
    # arXiv 2103.15691, table 2, in millions, 400 classes.
    paper = {"b-16x2": 88.9, "b-16x2-fe": 115.1, "b-16x2-fsa": 117.3, "b-16x2-fdp": 88.9}
    for name, millions in paper.items():
        assert abs(counted[name] / 1e6 - millions) < 0.06, name
    assert counted["tiny"] * 2 < 3 * 2**20  # ships in half precision within 3 MiB
    assert (SIZES["keras-example"].grid.num_cells, SIZES["keras-example-valid"].grid.num_cells) == (64, 27)
