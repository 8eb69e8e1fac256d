"""Recipes of generators: every one that ships is stepped once, shrunk; what does not fit is told by its field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokened import TINY, shards_in, tiny_t5

from tokenreel.errors import InputError, MismatchError
from tokenreel.generate import MaskGIT, TokenCritic
from tokenreel.jobs.train import dry_run, train
from tokenreel.tokens.shards import ShardReader, ShardWriter
from tokenreel.train.recipes import load_recipe

torch.set_num_threads(1)

STACK = "{dim: 32, depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 32}"
RUN = ["loop.steps=1", "loop.look_every=0", "data.num_workers=0", "data.batches.batch_size=2"]
PARTS = ", ".join(
    f"{{source: {number}, share: {share}, batch_size: 2}}" for number, share in enumerate((0.5, 0.3, 0.2))
)
STEPWISE = f"data.batches.stepwise=[{PARTS}]"
SHRUNK = {
    "tiny-maskgit": TINY,
    "phenaki-paper": [f"model.changes.stack={STACK}", f"critic.changes.stack={STACK}", "loop.precision=fp32"],
    "world-maskgit": [f"model.changes.stack={STACK}", "loop.precision=fp32", STEPWISE],
    "actions-maskgit": [f"model.changes.stack={STACK}", "loop.precision=fp32"],
    "maskgit-images": [f"model.changes.stack={STACK}", "loop.precision=fp32"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of captioned clips, and the same records with labels."""
    folder = tmp_path_factory.mktemp("shards")
    reader = ShardReader(shards_in(folder, num_clips=4))
    with ShardWriter(
        folder / "labelled",
        tokenizer=reader.tokenizer,
        fingerprint=reader.fingerprint,
        codebook_size=reader.codebook_size,
        layout="grid",
    ) as writer:
        for number, tokens in enumerate(reader):
            writer.write(replace(tokens, meta={**tokens.meta, "label": "ab"[number % 2]}))
    return folder


def step_of(name: str, root: Path, folder: Path, *changes: str) -> dict[str, object]:
    data = {"maskgit-images": ["labelled"], "world-maskgit": ["shards"] * 3, "actions-maskgit": ["shards"] * 2}.get(
        name, ["shards"]
    )
    overrides = [*RUN, *SHRUNK[name], *changes]
    return train(name, folder=folder, overrides=overrides, data=[str(root / one) for one in data], device="cpu")


@pytest.mark.parametrize("name", SHRUNK)
def test_every_recipe_is_stepped_once(name: str, root: Path, tmp_path: Path) -> None:
    more = []
    if name == "phenaki-paper":
        pytest.importorskip("transformers")
        more = [f"model.text_encoder={tiny_t5(tmp_path / 't5')}", f"model.text_cache={tmp_path / 'states'}"]
    result = step_of(name, root, tmp_path / "run", *more)
    assert (result["steps"], result["finished"], result["bad_steps"]) == (1, True, 0)
    assert result["trained"] == "generator"
    (line,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert {"guess_loss", "accuracy", "masked_share"} <= line.keys()
    assert ("critic_loss" in line) == (name == "phenaki-paper")
    model = MaskGIT.from_pretrained(tmp_path / "run" / "generator")
    assert model.vocab.fingerprint == ShardReader(root / "shards").fingerprint
    assert (model.vocab.codebook_size, len(model.vocab.levels)) == (64000, 2 if name == "tiny-maskgit" else 1)
    about = json.loads((tmp_path / "run" / "generator" / "trained_on.json").read_text())
    assert (about["size"], about["num_frames"], about["fps"]) == ([32, 32], 9, 8.0)
    kept = {"still_steps": 16, "coarse_levels": 2, "frame_steps": 6, "order": "halton"}
    kept |= {"temperature": 0.4 if name == "world-maskgit" else 0.85, "guidance_scale": 2.0}
    assert about.get("sampling") == (kept if name in ("world-maskgit", "actions-maskgit") else None)
    assert about["labels"] == (["a", "b"] if name == "maskgit-images" else [])
    if name == "phenaki-paper":
        assert len(list((tmp_path / "states").rglob("*.safetensors"))) == 2  # of the captions of one step
        assert model.config.context_dim == 16
        assert model.config.text_encoder == f"t5:{tmp_path / 't5'}"
        assert TokenCritic.from_pretrained(tmp_path / "run" / "critic").config.context_dim == 16


def test_a_recipe_of_clips_and_pictures_needs_both(root: Path, tmp_path: Path) -> None:
    message = r"stepwise names sources 0, 1, 1, 2 .* there are 1; give all of them: --data FIRST --data SECOND"
    with pytest.raises(InputError, match=message):
        train("world-maskgit", folder=tmp_path / "run", overrides=RUN, data=[str(root / "shards")], device="cpu")


def test_the_published_figures_stand_in_the_recipes() -> None:
    images = load_recipe("maskgit-images", data=["x"])
    config = images.model.config()
    assert (config.stack.depth, config.stack.dim, config.stack.num_heads, config.stack.mlp_dim) == (24, 768, 8, 3072)
    assert (images.optim.lr, images.masking.label_smoothing) == (1e-4, 0.1)
    assert images.data.batches.batch_size * 8 == 256
    paper = load_recipe("phenaki-paper", data=["x"])
    assert (paper.model.config().stack.dim, paper.model.config().stack.depth) == (512, 6)
    assert paper.data.batches.batch_size * 8 == 512
    assert paper.loop.steps == 1_000_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.sise=tiny", "did you mean model.size?"),
        ("model.size=huge", "model: size must be one of tiny"),
        ("model.changes.stack.dmi=3", "did you mean model.changes.stack.dim?"),
        ("model.changes.vocabulary={codebook_size: 3}", "model.changes.vocabulary is not a recipe's to say"),
        ("model.changes.text.stack.dim=64", "text.stack.dim (64) must be context_dim (128)"),
        ("model.init=INIT", "name its folder: model.init=FOLDER"),
        ("model.most_levels=1", "most_levels must be at least 2"),
        ("masking.schedul=cosine", "did you mean masking.schedule?"),
        ("masking.schedule=cosinus", "masking: schedule must be one of"),
        ("critic.kind=both", "critic.kind: expected"),
        ("critic={kind: self, size: tiny}", "a self critic is a head of the model"),
        ("critic={kind: token, changes: {stakc: 3}}", "did you mean critic.changes.stack?"),
        ("critic={kind: token, after: true}", "critic.after trains a critic for a generator that is trained"),
        ("critic={kind: token, fooling: -1}", "start_step and fooling at least 0"),
        ("critic={kind: token, fooling: 0.1, temperature: 0.5}", "from draws of temperature 1"),
        ("data.batches.batchsize=3", "did you mean data.batches.batch_size?"),
        ("data.sources.0.wieght=1", "did you mean data.sources.0.weight?"),
        ("losses.l1=1", "there is no field losses"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(change: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("tiny-maskgit", overrides=[change], data=["x"])
    assert message in str(caught.value)


def test_what_does_not_fit_the_data_is_told(root: Path, tmp_path: Path) -> None:
    def refused(
        name: str, *changes: str, data: str = "shards", message: str, kind: type[InputError] = InputError
    ) -> None:
        with pytest.raises(kind, match=message):
            train(
                name,
                folder=tmp_path / "run",
                overrides=[*RUN, *SHRUNK[name], *changes],
                data=[str(root / data)],
                device="cpu",
            )
        assert not (tmp_path / "run").exists()

    refused("maskgit-images", message="has a label")
    refused("maskgit-images", "model.changes.num_classes=1", data="labelled", message="num_classes=2")
    refused("phenaki-paper", "model.text_encoder=null", message="model.text_encoder=")
    refused("tiny-maskgit", data="scenes", message="holds pixels, not tokens")
    bare = ShardReader(root / "shards")
    with ShardWriter(tmp_path / "bare", tokenizer="x", fingerprint="f", codebook_size=64000, layout="grid") as writer:
        writer.write(replace(bare[0], tokenizer="x", fingerprint="f", meta={}))
    (tmp_path / "bare").rename(root / "bare")
    refused("tiny-maskgit", "model.most_levels=null", data="bare", message="have none; put a text")
    refused("tiny-maskgit", data="bare", message="model.most_levels=null")
    step_of("tiny-maskgit", root, tmp_path / "first")
    trained = f"model.init={tmp_path / 'first' / 'generator'}"
    refused("tiny-maskgit", trained, data="bare", message="was made for the ids of cvivit", kind=MismatchError)


def test_a_dry_run_counts_the_generator_and_its_critic(root: Path) -> None:
    critic = f"critic={{kind: token, changes: {{stack: {STACK}, context_dim: 16}}}}"
    cost = dry_run("tiny-maskgit", overrides=[*RUN, *TINY, critic], data=[str(root / "shards")], device="cpu")
    assert (cost["clips_per_step"], cost["tokens_per_step"]) == (2, 2 * 48)
    assert cost["parameters"] > cost["critic_parameters"] > 0
    assert cost["gflop_per_step"] > 0


def test_sampling_of_a_recipe_is_checked_before_anything_is_opened(root: Path, tmp_path: Path) -> None:
    for changes, text in (
        ("sampling={still: 3}", "sampling takes .*still_steps, coarse_levels, frame_steps, got still"),
        ("sampling={still_steps: -1}", "still_steps must be a whole number"),
    ):
        with pytest.raises(InputError, match=text):
            step_of("tiny-maskgit", root, tmp_path / "run", changes)
