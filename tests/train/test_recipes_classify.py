"""Recipes of classifiers: every one that ships is stepped once, shrunk; data is divided; what is wrong is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tokenreel.classify import TokenViViT, ViViT, load
from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.jobs.train import dry_run, train
from tokenreel.render import HEADS
from tokenreel.tokens.file import save
from tokenreel.train.classify_data import LabelledChoice
from tokenreel.train.recipes import load_recipe
from tokenreel.train.recipes_base import SourceChoice
from tokenreel.types import Grid, Tokens

torch.set_num_threads(1)

STACK = "model.changes.encoder={dim: 32, depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 32}"
RUN = [STACK, "loop.steps=1", "loop.look_every=0", "scores.keep_best=false", "data.num_workers=0"]
RUN += ["data.batches.batch_size=4"]
SMALL = ["model.changes.num_frames=4", "model.changes.size=[16, 16]"]
CHANGES = {
    "tiny-vivit": [*SMALL, "model.changes.temporal_depth=1", "data.val_share=0.34"],
    "vivit-motions": [*SMALL, "data.sources.0.data=rendered:12,4,16,16", "data.val_share=0.25"],
    "vivit-organmnist3d": ["scores.batch_size=4"],
    "vivit-pneumoniamnist": [],
    "vivit-weizmann": SMALL,
    "vivit-weizmann-tokens": [],
}


def tokens_of(number: int, *, fingerprint: str = "a" * 64, levels: tuple[int, ...] = (4, 4)) -> Tokens:
    rng = np.random.default_rng(number)
    quantizer = {"kind": "fsq", "levels": list(levels)}
    return Tokens(
        ids_L=rng.integers(0, 16, 3 * 2 * 2).astype(np.uint8),
        layout="grid",
        grid=Grid(t=3, h=2, w=2),
        size=(9, 16, 16),
        codebook_size=16,
        tokenizer="some",
        fingerprint=fingerprint,
        meta={"tokenizer_config": {"quantizer": quantizer}},
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips and ids of two actions by three performers, and npz files of the two data sets."""
    folder, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for action in range(2):
        for kind in ("clips", "ids"):
            (folder / kind / f"action{action}").mkdir(parents=True)
        for performer in range(3):
            frames = [Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)) for _ in range(6)]
            path = folder / "clips" / f"action{action}" / f"performer{performer}.gif"
            frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
            save(folder / "ids" / f"action{action}" / f"performer{performer}.tokens", tokens_of(performer))
    for name, shape, classes in (("organmnist3d", (28, 28, 28), 11), ("pneumoniamnist", (28, 28), 2)):
        arrays = {}
        for split in ("train", "val", "test"):
            arrays[f"{split}_images"] = rng.integers(0, 256, (classes, *shape), np.uint8)
            arrays[f"{split}_labels"] = np.arange(classes, dtype=np.uint8)[:, None]
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


def data_of(name: str, root: Path) -> list[str]:
    if name == "vivit-motions":
        return []
    if "mnist" in name:
        return [str(root / f"{name.removeprefix('vivit-')}.npz")]
    return [str(root / ("ids" if name.endswith("tokens") else "clips"))]


@pytest.mark.parametrize("name", CHANGES)
def test_every_recipe_is_stepped_once(name: str, root: Path, tmp_path: Path) -> None:
    overrides = [*RUN, *CHANGES[name]]
    result = train(name, folder=tmp_path / "run", overrides=overrides, data=data_of(name, root), device="cpu")
    assert (result["steps"], result["finished"], result["bad_steps"], result["broken"]) == (1, True, 0, [])
    assert result["trained"] == "classifier"
    (line,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    heads = tuple(HEADS) if name == "vivit-motions" else ()
    assert {"loss", "accuracy", *(f"{head}_accuracy" for head in heads)} <= line.keys()
    model = load(result["classifier"])
    assert isinstance(model, TokenViViT if name.endswith("tokens") else ViViT)
    wanted = {
        "vivit-motions": tuple(HEADS.items()),
        "vivit-pneumoniamnist": (("label", ("normal", "pneumonia")),),
    }.get(name, model.heads)
    assert model.heads == wanted
    if isinstance(model, TokenViViT):
        assert (model.config.levels, model.config.grid, model.config.made_by) == ((4, 4), (3, 2, 2), "some")
    assert ("test" in result["scores"]) == (name != "tiny-vivit")
    assert ("val" in result["scores"]) == ("weizmann" not in name)
    cost = dry_run(name, overrides=overrides, data=data_of(name, root), device="cpu")
    assert (cost["recipe"], cost["clips_per_step"]) == (name, 4)


def test_the_sizes_of_the_recipes() -> None:
    motions = load_recipe("vivit-motions").model.build(tuple(HEADS.items()), seed=0)
    assert motions.num_parameters <= 1_500_000  # at most 3 MiB in half precision
    keras = load_recipe("vivit-organmnist3d", data=["x"])
    config = keras.model.config()
    assert (config.patch_size, config.encoder.depth, config.encoder.dim) == ((8, 8, 8), 8, 128)
    assert (keras.data.batches.batch_size, keras.optim.lr, keras.loop.steps) == (32, 1e-4, 60 * -(-971 // 32))
    assert load_recipe("vivit-pneumoniamnist", data=["x"]).model.config().num_frames == 1


# Parts of the data.


def choice_of(data: Path | str, **fields: Any) -> LabelledChoice:
    return LabelledChoice(sources=(SourceChoice(data=str(data)),), **fields)


def keys(part: Any) -> set[str]:
    return {part.key(index) for index in range(len(part))}


def test_one_performer_is_held_out(root: Path) -> None:
    choice = choice_of(root / "clips", group=r"(performer\d+)", hold_out="performer1", val_share=0.0)
    train_part, val, test = choice.parts(seed=0)
    assert val is None
    assert test is not None
    assert keys(test) == {"action0/performer1.gif", "action1/performer1.gif"}
    assert len(train_part) == 4
    assert not keys(train_part) & keys(test)
    several = replace(choice, hold_out=("performer0", "performer2")).parts(seed=0)
    assert len(several.test or ()) == 4
    with pytest.raises(InputError, match="has no group 'lena'"):
        replace(choice, hold_out="lena").parts(seed=0)
    # Whole performers go to validation, too.
    rest = replace(choice, val_share=0.5).parts(seed=0)
    assert rest.val is not None
    assert len(set(rest.val.groups)) == 1
    assert len(rest.val) == 2
    assert set(rest.val.groups).isdisjoint(rest.train.groups)


def test_splits_of_the_source_are_kept_and_others_are_drawn(root: Path) -> None:
    found = choice_of(root / "pneumoniamnist.npz").parts(seed=0)
    assert [keys(part) for part in found] == [{f"{name}/{n}" for n in range(2)} for name in ("train", "val", "test")]
    other = choice_of(root / "pneumoniamnist.npz", val=None, test="validation", val_share=0.0).parts(seed=0)
    assert other.val is None
    assert other.test is not None
    assert keys(other.test) == {"val/0", "val/1"}
    for change in ({"train": "learn"}, {"val": "learn"}, {"test": "learn"}):
        with pytest.raises(InputError, match="has no split 'learn'"):
            choice_of(root / "pneumoniamnist.npz", **change).parts(seed=0)
    drawn = choice_of(root / "clips", val_share=0.34).parts(seed=0)
    assert drawn.val is not None
    assert drawn.test is None
    assert len(drawn.train) == 4
    assert drawn.val.counts().tolist() == [1, 1]
    assert not keys(drawn.train) & keys(drawn.val)


def test_rendered_scenes_test_combinations_that_training_never_shows() -> None:
    found = choice_of("rendered:40,2,8,8", val_share=0.1).parts(seed=3)
    assert found.val is not None
    assert found.test is not None
    assert [len(part) for part in found] == [40, 4, 4]
    facts = [[part[index].meta["is_held_out"] for index in range(len(part))] for part in found]
    assert not any(facts[0] + facts[1])
    assert all(facts[2])
    assert len(keys(found.train) | keys(found.val) | keys(found.test)) == 48
    assert found.train[0].frames().shape == (2, 8, 8, 3)
    for text in ("rendered:", "rendered:1,2", "rendered:0", "rendered:a"):
        with pytest.raises(InputError, match="rendered scenes are asked for as"):
            choice_of(text).parts(seed=0)
    with pytest.raises(InputError, match="their own labels and parts"):
        choice_of("rendered:4", hold_out="x").parts(seed=0)


# The model.


def test_a_classifier_starts_from_another_and_keeps_its_heads_for_the_same_labels(root: Path, tmp_path: Path) -> None:
    choice = load_recipe("tiny-vivit", overrides=[STACK, *CHANGES["tiny-vivit"]], data=["x"]).model
    heads = (("label", ("a", "b")),)
    first = choice.build(heads, seed=0)
    first.save_pretrained(tmp_path / "first")
    again = replace(choice, init=str(tmp_path / "first"))
    same, other = again.build(heads, seed=1), again.build((("label", ("a", "b", "c")),), seed=1)
    assert same.fingerprint == first.fingerprint
    assert other.heads == (("label", ("a", "b", "c")),)
    ours, theirs = other.state_dict(), first.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if not name.startswith("out."))
    assert ours["out.out.weight"].shape == (3, 32)
    with pytest.raises(MismatchError, match="the data holds tokens, which a vivit does not read"):
        again.build(heads, tokens=tokens_of(0), seed=0)


def test_a_classifier_starts_from_an_image_vit(tmp_path: Path) -> None:
    changes = [STACK, *SMALL, "model.changes.temporal_depth=1"]
    choice = load_recipe("tiny-vivit", overrides=changes, data=["x"]).model
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    block = {"norm1": (32,), "norm2": (32,), "attn.qkv": (96, 32), "attn.proj": (32, 32)}
    block |= {"mlp.fc1": (32, 32), "mlp.fc2": (32, 32)}
    state = {f"blocks.0.{name}.weight": drawn(*shape) for name, shape in block.items()}
    state |= {f"blocks.0.{name}.bias": drawn(shape[0]) for name, shape in block.items()}
    state |= {"cls_token": drawn(1, 1, 32), "pos_embed": drawn(1, 5, 32), "norm.weight": drawn(32)}
    state |= {"norm.bias": drawn(32), "patch_embed.proj.weight": drawn(32, 3, 8, 8), "patch_embed.proj.bias": drawn(32)}
    save_file(state, tmp_path / "vit.safetensors")
    heads = (("label", ("a", "b")),)
    model = replace(choice, image=str(tmp_path / "vit.safetensors")).build(heads, seed=0)
    assert isinstance(model, ViViT)
    wanted = ViViT.untrained(model.config, seed=0)
    wanted.init_from_image_vit(state)
    assert model.fingerprint == wanted.fingerprint != choice.build(heads, seed=0).fingerprint
    with pytest.raises(InputError, match="there is no such file"):
        replace(choice, image="nowhere.safetensors").build(heads, seed=0)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        replace(choice, image=str(tmp_path / "torn.safetensors")).build(heads, seed=0)


def test_ids_of_a_large_codebook_are_read_by_their_levels() -> None:
    overrides = [STACK, "model.changes.levels=null"]
    choice = load_recipe("vivit-weizmann-tokens", overrides=[STACK], data=["x"]).model
    plain = load_recipe("vivit-weizmann-tokens", overrides=overrides, data=["x"]).model
    heads = (("label", ("a", "b")),)
    by_level, by_id = choice.build(heads, tokens=tokens_of(0), seed=0), plain.build(heads, tokens=tokens_of(0), seed=0)
    assert by_level.config.levels == (4, 4)
    assert by_id.config.levels is None
    assert by_level.num_parameters + 8 * 32 == by_id.num_parameters  # 8 rows for 16 ids
    assert by_level.config.made_by_fingerprint == "a" * 64


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tiny-vivit", "model.family=vivi", "model: family must be one of vivit, token_vivit"),
        ("tiny-vivit", "model.size=huge", "model: size must be one of tiny, keras-example"),
        ("tiny-vivit", "model.changes.heads=[]", "changes.heads is not a recipe's to say"),
        ("tiny-vivit", "model.changes.num_frame=3", "did you mean model.changes.num_frames?"),
        ("tiny-vivit", "model.changes.encoder.dmi=3", "did you mean model.changes.encoder.dim?"),
        ("tiny-vivit", "model.rows=true", "rows is for token_vivit"),
        ("tiny-vivit", "model.init=INIT", "name its folder: model.init=FOLDER"),
        ("tiny-vivit", "model.image_how=middle", "model.image_how: expected"),
        ("tiny-vivit", "data.clips.video.zoom=1", "no field data.clips.video.zoom"),
        ("tiny-vivit", "data.clips.video.flip=2", "data.clips.video: VideoAugment.flip must lie in"),
        ("tiny-vivit", "data.clips.fit=crop", "no field data.clips.fit"),
        ("tiny-vivit", "data.codes={shift: -1}", "data.codes: time_crop must lie in"),
        ("tiny-vivit", "data.val_share=1", "data: val_share must lie in"),
        ("tiny-vivit", "data.batches.batch_size=0", "data.batches: batch_size must be at least 1"),
        ("tiny-vivit", "loss.mixup=-1", "loss: mixup must be at least 0"),
        ("tiny-vivit", "loss.class_weights=some", "loss.class_weights: expected"),
        ("tiny-vivit", "scores.by=f1", "scores.by: expected"),
        ("tiny-vivit", "scores.batch_size=0", "scores: batch_size must be at least 1"),
        ("tiny-vivit", "loop.look_every=0", "scores.keep_best compares scores"),
        ("vivit-weizmann-tokens", "loss.mixup=0.2", "ids of a tokenizer cannot be mixed"),
        ("vivit-weizmann-tokens", "model.changes.codebook_size=3", "changes.codebook_size is not a recipe's"),
        ("vivit-weizmann-tokens", "model.image=x.safetensors", "image is for a vivit"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(name: str, change: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(name, overrides=[change], data=["x"])
    assert message in str(caught.value)


def test_what_does_not_fit_the_data_is_refused(root: Path, tmp_path: Path) -> None:
    overrides = [*RUN, *CHANGES["tiny-vivit"]]
    for data, change, error, message in (
        (["ids"], "data.group=null", MismatchError, "the data holds tokens, which a vivit does not read"),
        (["clips", "ids"], "data.group=null", InputError, "one labelled source"),
        (["clips"], "data.val_share=0", None, ""),
        (["nothing"], "data.group=null", InputError, "nothing"),
        (["clips"], "data.val_share=0.01", InputError, "say a larger data.val_share, or 0"),
    ):
        given = {"overrides": [*overrides, change], "data": [str(root / one) for one in data], "device": "cpu"}
        if error is None:
            train("tiny-vivit", folder=tmp_path / "fine", **given)  # type: ignore[arg-type]
            continue
        with pytest.raises(error, match=message):
            train("tiny-vivit", folder=tmp_path / "run", **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="keep_best needs a validation part"):
        train(
            "tiny-vivit",
            folder=tmp_path / "run",
            overrides=[*overrides, "data.val_share=0", "scores.keep_best=true", "loop.look_every=1"],
            data=[str(root / "clips")],
            device="cpu",
        )
    with pytest.raises(InputError, match="--lpips is for recipes of tokenizers"):
        train("tiny-vivit", folder=tmp_path / "run", overrides=overrides, data=[str(root / "clips")], lpips="x")
