"""A classifier of ids: the laws of the pixel one, and that it reads the ids of its own tokenizer alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel import load_tokens, save_tokens
from tokenreel.classify import Logits, TokenViViT, TokenViViTConfig, load
from tokenreel.classify.tokens import CodeEmbed
from tokenreel.errors import InputError, MismatchError
from tokenreel.quantize import FSQ, FSQConfig
from tokenreel.tokenizers.configs import BlockOptions, Stack
from tokenreel.types import Grid, Tokens

torch.set_num_threads(1)

LEVELS = (4, 3, 5)
K = 60
STACK = Stack(dim=16, depth=2, num_heads=2, head_dim=8, mlp_dim=32)
HEADS = (("label", ("a", "b", "c")),)
BASE = TokenViViTConfig(
    model="spatio_temporal",
    encoder=STACK,
    pooling="class_token",
    heads=HEADS,
    made_by="cvivit",
    made_by_fingerprint="f" * 64,
    layout="grid",
    grid=(3, 2, 4),
    codebook_size=K,
)
CONFIGS = {
    "1": BASE,
    "1 levels": replace(BASE, levels=LEVELS),
    "2": replace(BASE, model="factorised_encoder", temporal_depth=1),
    "3": replace(BASE, model="factorised_self_attention", pooling="mean"),
    "4": replace(BASE, model="factorised_dot_product", pooling="mean"),
    "queries": replace(BASE, layout="queries", grid=(1, 1, 24)),
    "rows": replace(BASE, layout="queries", grid=(3, 1, 8), model="factorised_encoder", temporal_depth=1),
}
EVERY = pytest.mark.parametrize("name", CONFIGS)


def model_of(config: TokenViViTConfig) -> TokenViViT:
    model = TokenViViT.untrained(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def ids_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, K, shape, generator=torch.Generator().manual_seed(seed))


def tokens_of(t: int = 3, h: int = 2, w: int = 4, count: int | None = None, **change: Any) -> Tokens:
    count = t * h * w if count is None else count
    values: dict[str, Any] = {
        "ids_L": np.random.default_rng(count).integers(0, K, count),
        "layout": "grid",
        "grid": Grid(t=t, h=h, w=w),
        "size": (t, 8 * h, 8 * w),
        "codebook_size": K,
        "tokenizer": "cvivit",
        "fingerprint": "f" * 64,
    }
    return Tokens(**{**values, **change})


def assert_same(first: Logits, second: Logits, atol: float = 2e-5) -> None:
    torch.testing.assert_close(first["label"], second["label"], rtol=0, atol=atol)


@EVERY
def test_a_batch_is_as_one_by_one(name: str) -> None:
    config = CONFIGS[name]
    model = model_of(config)
    grids = [(3, 2, 4), (1, 2, 4), (2, 1, 3), (4, 2, 5)] if config.layout == "grid" else [(3, 1, 8), (1, 1, 2)]
    if config.grid[0] == 1:
        grids = [(1, 1, 24), (1, 1, 5)]
    ids = [ids_of(t * h * w, seed=w) for t, h, w in grids]
    together = model(ids, grids)
    assert together["label"].shape == (len(grids), 3)
    for index, (one, grid) in enumerate(zip(ids, grids)):
        alone = model(one.view(1, *grid))
        assert_same(Logits(HEADS, (together["label"][index : index + 1],)), alone)
        assert_same(model([one], [grid]), alone, atol=0)


@EVERY
def test_every_parameter_learns_and_ids_matter(name: str) -> None:
    model = model_of(CONFIGS[name]).train()
    t, h, w = CONFIGS[name].grid
    ids = ids_of(8, t, h, w)
    F.cross_entropy(model(ids)["label"], torch.arange(8) % 3).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) > 0, parameter_name
    changed = ids.clone()
    changed[:, -1, -1, -1] = (changed[:, -1, -1, -1] + 1) % K
    with torch.no_grad():
        assert float((model(ids)["label"] - model(changed)["label"]).abs().amax(1).min()) > 1e-5


def test_each_id_or_each_digit_has_a_vector() -> None:
    ids = torch.arange(K).view(3, 20)
    plain = CodeEmbed(codebook_size=K, levels=None, dim=4)
    assert torch.equal(plain(ids).view(K, 4), plain.table_KD)
    embed = CodeEmbed(codebook_size=K, levels=LEVELS, dim=4)
    assert embed.table_KD.shape == (sum(LEVELS), 4)
    digits = FSQ(FSQConfig(levels=LEVELS)).digits(ids)
    rows = [embed.table_KD[first + digits[..., axis]] for axis, first in enumerate((0, 4, 7))]
    torch.testing.assert_close(embed(ids), rows[0] + rows[1] + rows[2], rtol=0, atol=1e-7)


def test_a_file_of_tokens_is_classified_without_its_pixels(tmp_path: Path) -> None:
    long, short = tokens_of(), tokens_of(t=1)
    config = TokenViViTConfig.reading(long, model="spatio_temporal", encoder=STACK, pooling="mean", heads=HEADS)
    assert config == replace(BASE, pooling="mean")
    model = model_of(config)
    save_tokens(tmp_path / "clip.tokens", long)
    logits = model.predict([load_tokens(tmp_path / "clip.tokens"), short])
    ids = torch.from_numpy(long.ids_L.astype(np.int64)).view(1, 3, 2, 4)
    assert_same(Logits(HEADS, (logits["label"][:1],)), model(ids))
    again = load(model.save_pretrained(tmp_path / "classifier"))
    assert isinstance(again, TokenViViT)
    assert again.config == config
    assert_same(again.predict([long, short]), logits, atol=1e-6)
    assert "grid ids of 60 by cvivit `ffffffffffff`" in (tmp_path / "classifier" / "README.md").read_text()


def test_queries_are_one_row_or_one_a_step() -> None:
    tokens = tokens_of(t=3, count=24, layout="queries", tokenizer="titok")
    rest: dict[str, Any] = {"model": "spatio_temporal", "encoder": STACK, "pooling": "mean", "heads": HEADS}
    assert TokenViViTConfig.reading(tokens, **rest).grid == (1, 1, 24)
    config = TokenViViTConfig.reading(tokens, rows=True, **rest)
    assert config.grid == (3, 1, 8)
    ids, grids = model_of(config).batch_of([tokens, tokens_of(t=2, count=10, layout="queries")])
    assert grids == [(3, 1, 8), (2, 1, 5)]
    assert [tuple(one.shape) for one in ids] == [(24,), (10,)]
    with pytest.raises(MismatchError, match="25 tokens are no 3 equal rows"):
        TokenViViTConfig.reading(tokens_of(t=3, count=25, layout="queries"), rows=True, **rest)
    with pytest.raises(InputError, match="rows of 9 ids are longer than the 8"):
        model_of(config)([ids_of(9)])
    with pytest.raises(MismatchError, match="layout grid or queries, these are bytes"):
        TokenViViTConfig.reading(tokens_of(layout="bytes"), **rest)


def test_ids_of_another_tokenizer_are_refused_by_name() -> None:
    model = model_of(BASE)
    for change, words in (
        ({"fingerprint": "e" * 64}, "made by cvivit eeeeeeeeeeee, this classifier reads those of cvivit ffffffffffff"),
        ({"codebook_size": 64}, "grid ids of 64, this classifier reads grid ids of 60"),
        ({"layout": "queries"}, "queries ids of 60, this classifier reads grid ids of 60"),
    ):
        with pytest.raises(MismatchError, match=words):
            model.predict([tokens_of(), tokens_of(**change)])


def test_drop_path_and_seeds() -> None:
    model = model_of(replace(BASE, blocks=BlockOptions(drop_path=0.6))).train()
    ids = ids_of(4, 3, 2, 4)
    with torch.no_grad():
        first, second, other = (model(ids, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first["label"], second["label"])
    assert not torch.equal(first["label"], other["label"])
    assert TokenViViT.untrained(BASE, seed=1).fingerprint == TokenViViT.untrained(BASE, seed=1).fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"levels": (4, 4)}, r"levels \(4, 4\) make 16 codes, not 60"),
        ({"layout": "bytes"}, "layout must be one of grid, queries"),
        ({"layout": "queries"}, r"their grid is \(t, 1, Q\)"),
        ({"grid": (3, 2)}, r"whole \(t, h, w\)"),
        ({"codebook_size": 1}, "codebook_size must be"),
    ],
)
def test_bad_configurations_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(BASE, **change)


def test_bad_ids_are_refused() -> None:
    model = model_of(BASE)
    for ids, words in (
        (torch.full((1, 3, 2, 4), K), r"ids must lie in \[0, 60\), found 60"),
        (torch.full((1, 3, 2, 4), -1), "found -1"),
        (torch.zeros(1, 24, dtype=torch.int64), r"expected ids \(B, t, h, w\)"),
    ):
        with pytest.raises(InputError, match=words):
            model(ids)
    with pytest.raises(InputError, match="for each grid"):
        model([ids_of(23)], [(3, 2, 4)])
    with pytest.raises(InputError, match="at least one clip"):
        model([])
    with pytest.raises(InputError, match="at least one clip"):
        model.batch_of([])
    with pytest.raises(InputError, match="has no named sizes; give its configuration, a TokenViViTConfig"):
        TokenViViT.untrained()
