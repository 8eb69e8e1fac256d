"""Recipes: every one that ships is built and stepped once, shrunk; what is wrong with one is told by its field."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tokenreel.errors import FormatError, InputError
from tokenreel.jobs.train import dry_run, train
from tokenreel.tokenizers import CViViT, load
from tokenreel.tokenizers.learned import LearnedTokenizer
from tokenreel.train.discriminator_style import StyleDiscriminatorConfig
from tokenreel.train.recipes import OBJECTIVES, load_recipe, recipe_names, recipe_title
from tokenreel.train.term import Term

torch.set_num_threads(1)

FACTORS = "{dim: 32, spatial_depth: 1, temporal_depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 64}"
STACK = "{dim: 32, depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 64}"
MODELS = {
    "cvivit": [f"model.changes.encoder={FACTORS}", f"model.changes.decoder={FACTORS}"],
    "titok": [
        *[f"model.changes.{part}={STACK}" for part in ("encoder", "decoder")],
        *["model.changes.image_size=[32, 32]", "model.changes.num_queries=4"],
    ],
    "titok_video": [
        *[f"model.changes.{part}={STACK}" for part in ("encoder", "decoder")],
        *["model.changes.blocks.num_kv_heads=1", "model.changes.token_count=4"],
    ],
}
CRITICS = {
    "PatchDiscriminatorConfig": ["dim=8", "depth=1"],
    "StyleDiscriminatorConfig": ["widths=[4, 8]"],
    "ViTDiscriminatorConfig": ["dim=32", "depth=1", "num_heads=2"],
}
BATCHES = {
    "stacked": ["batch_size=1", "size=32"],
    "packed": ["num_frames=[4, 8]", "size=[24, 32]", "token_counts=[2, 4]", "budget=64"],
}
RUN = ["loop.steps=1", "loop.look_every=0", "loop.accumulate=1", "data.num_workers=0"]


def trains(name: str) -> str:
    """The objective of a recipe that ships."""
    text = (resources.files("tokenreel") / "recipes" / f"{name}.yaml").read_text()
    return str(yaml.safe_load(text).get("objective", "autoencode"))


TOKENIZERS = [name for name in recipe_names() if trains(name) == "autoencode"]


def tiny_cvivit(folder: Path) -> Path:
    plan = load_recipe("tiny-cvivit", overrides=MODELS["cvivit"], data=["rendered"])
    return plan.model.build(seed=3).save_pretrained(folder)


def shrunk(name: str, init: Path) -> list[str]:
    """Changes that make a step of a recipe a matter of milliseconds; what it is made of stays."""
    given = [f"model.init={init}"] if name == "decoder-sharp" else []
    plan = load_recipe(name, overrides=given, data=["rendered"])
    changes = [*RUN, *given, *([] if given else MODELS[plan.model.family])]
    changes += [f"data.batches.{one}" for one in BATCHES[plan.data.batches.shape]]
    if plan.data.batches.shape == "stacked" and plan.data.batches.is_causal:
        changes.append(f"data.batches.num_frames={1 + plan.data.batches.patch_size[0]}")
    adversarial = plan.losses.adversarial
    if adversarial is not None:
        inner = CRITICS[type(adversarial.discriminator).__name__]
        changes += [f"losses.adversarial.discriminator.{one}" for one in inner]
        changes += ["losses.adversarial.generator.start_step=0", "losses.adversarial.generator.warmup_steps=0"]
    return changes


def lpips_weights(path: Path) -> Path:
    """VGG16's layout, four features wide, random."""
    generator, width, state = torch.Generator().manual_seed(0), 3, {}
    for stage, places in enumerate([(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)]):
        for place in places:
            state[f"features.{place}.weight"] = torch.randn(4, width, 3, 3, generator=generator) / 5
            state[f"features.{place}.bias"] = torch.zeros(4)
            width = 4
        state[f"lin{stage}.model.1.weight"] = torch.rand(1, 4, 1, 1, generator=generator)
    save_file(state, path)
    return path


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_recipe_is_stepped_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenreel.train.autoencode._FIRST_CLIPS_OF_ROWS", 40)
    monkeypatch.setattr("tokenreel.train.autoencode._PATCHES_A_CODE", 1)
    init = tiny_cvivit(tmp_path / "init")
    weights = lpips_weights(tmp_path / "lpips.safetensors")
    changes = shrunk(name, init)
    plan = load_recipe(name, overrides=changes, data=["rendered"])
    result = train(
        name, folder=tmp_path / "run", overrides=changes, data=["rendered"], device="cpu", lpips=str(weights)
    )
    assert (result["steps"], result["finished"], result["bad_steps"]) == (1, True, 0)
    (line,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert {f"{term}_loss" for term in plan.losses.terms()} <= line.keys()
    assert ("critic_loss" in line) == ("adv_loss" in line) == (plan.losses.adversarial is not None)
    assert None not in line.values()
    trained = load(tmp_path / "run" / "tokenizer")
    assert isinstance(trained, LearnedTokenizer)
    before = plan.model.build(seed=0)
    moved = [not torch.equal(p, q) for p, q in zip(trained.parameters(), before.parameters(), strict=True)]
    assert sum(moved) > 3  # layers behind one that starts at zero move at the second step
    (tokens,) = trained.encode([torch.rand(3, 5, 24, 24) * 2 - 1])
    assert trained.decode([tokens])[0].shape == (3, 5, 24, 24)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_it_is(name: str) -> None:
    text = (resources.files("tokenreel") / "recipes" / f"{name}.yaml").read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert recipe_title(name) == header[0].removeprefix("# ")
    for words in (("Paper",), ("Data:",), ("Machine:",), ("xpected", " dB"), (f"train {name}",)):
        assert any(word in line for line in header for word in words), words
    assert max(map(len, header)) <= 120


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optim.learning_rat=1", "no field optim.learning_rat; did you mean optim"),
        ("optim.warmup_stesp=1", "did you mean optim.warmup_steps?"),
        ("data.batches.batchsize=3", "did you mean data.batches.batch_size?"),
        ("data.sources.0.wieght=1", "did you mean data.sources.0.weight?"),
        ("losses.charbonier=1", "did you mean losses.charbonnier?"),
        ("losses.charbonnier.wieght=1", "did you mean losses.charbonnier.weight?"),
        ("model.changes.patchsize=1", "did you mean model.changes.patch_size?"),
        ("model.changes.encoder.dmi=1", "did you mean model.changes.encoder.dim?"),
        ("model.changes.quantizer.level=1", "did you mean model.changes.quantizer.levels?"),
        ("looop.steps=1", "no field looop; did you mean loop?"),
        ("losses.adversarial={generator: 1, discriminator: {kind: patch, dmi: 3}}", "discriminator.dim?"),
        ("losses.adversarial={generator: 1, discriminator: {kind: path}}", "losses.adversarial.discriminator.kind"),
        ("optim.lr=fast", "optim.lr: expected float, got 'fast'"),
        ("loop.steps=1.5", "loop.steps: expected int, got 1.5"),
        ("loop.steps=true", "loop.steps: expected int, got True"),
        ("loop.steps=0", "loop: LoopConfig.steps must be at least 1"),
        ("loop.precision=fp8", "loop.precision: expected"),
        ("optim.betas=[1, 2, 3]", "optim.betas: expected"),
        ("model.changes.encoder.dim=wide", "model.changes.encoder.dim: expected int"),
        ("model.changes.quantizer={kind: vq}", "model.changes.quantizer.codebook_size is missing"),
        ("model.family=cvit", "model: family must be one of"),
        ("model.size=huge", "has no size 'huge'"),
        ("data.sources=clips", "data.sources: expected a list"),
        ("data.sources.1.weight=1", "no place in a list of 1"),
        ("loop=3", "loop: expected named fields"),
        ("model.changes=3", "model.changes: expected named fields"),
        ("model.init=INIT", "name its folder: model.init=FOLDER"),
        ("loop.steps", "written field=value"),
        ("loop.steps=[1", "is not YAML"),
        ("name.first=1", "which has no field 'first'"),
        ("objective=guess", "objective must be one of autoencode, masked"),
        ("objective=[masked]", "objective must be one of"),
        ("objectve=masked", "did you mean objective?"),
        ("objective=masked", "there is no field losses"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(change: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("tiny-cvivit", overrides=["name=x", change], data=["rendered"])
    assert message in str(caught.value)


def test_every_objective_has_its_parts() -> None:
    from tokenreel.jobs.train import PARTS

    assert PARTS.keys() == OBJECTIVES.keys()
    assert {trains(name) for name in recipe_names()} <= OBJECTIVES.keys()


def test_short_forms_and_plain_types() -> None:
    changes = [
        *["optim.lr=1e-3", "losses.l1=2", "losses.l2.start_step=7", "optim.ema_decay=null"],
        *["model.changes.encoder.dim=96", "model.changes.quantizer={kind: lfq, codebook_dim: 4}"],
        "losses.adversarial={generator: 0.1, discriminator: {kind: style, widths: [4, 8]}}",
    ]
    plan = load_recipe("tiny-cvivit", overrides=changes, data=["a", "b"])
    assert plan.optim.lr == 0.001  # which YAML takes for text
    assert plan.optim.ema_decay is None
    assert plan.losses.l1 == Term(weight=2.0)
    assert plan.losses.l2 == Term(weight=1.0, start_step=7)
    assert plan.losses.adversarial is not None
    assert plan.losses.adversarial.discriminator == StyleDiscriminatorConfig(widths=(4, 8))
    assert [(one.data, one.weight) for one in plan.data.sources] == [("a", 0.5), ("b", 0.5)]
    config = plan.model.config()
    assert (config.encoder.dim, config.decoder.dim) == (96, CViViT.sizes["tiny"].decoder.dim)
    assert config.quantizer.codebook_dim == 4


def test_data_must_be_named_where_it_is_asked_for_and_only_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data FOLDER"):
        load_recipe("tiny-cvivit")
    own = tmp_path / "own.yaml"
    plan: dict[str, Any] = {
        "model": {"family": "cvivit"},
        "data": {"sources": [{"data": "rendered"}], "batches": {"shape": "stacked", "num_frames": 1, "size": 8}},
        "losses": {"l1": 1},
        "optim": {"lr": 0.1},
        "loop": {"steps": 1},
    }
    plan["data"]["batches"] |= {"batch_size": 1}
    own.write_text(json.dumps(plan))
    assert load_recipe(str(own)).name == "own"
    with pytest.raises(InputError, match="names its own data"):
        load_recipe(str(own), data=["x"])
    del plan["losses"]
    own.write_text(json.dumps(plan))
    with pytest.raises(InputError, match="the field losses is missing"):
        load_recipe(str(own))


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'tiny-cvivit'"):
        load_recipe("tiny-cvivt")
    with pytest.raises(InputError, match="no recipe file"):
        load_recipe(str(tmp_path / "none.yaml"))
    for text, message in (("- 1", "must be named fields"), ("a: [", "is not YAML")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(FormatError, match=message):
            load_recipe(str(tmp_path / "x.yaml"))


def test_lpips_is_asked_for_with_a_way_round_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"losses\.lpips=null"):
        train("titok-s-128", folder=tmp_path, overrides=shrunk("titok-s-128", tmp_path), data=["rendered"])


def test_a_dry_run_counts_what_training_does() -> None:
    changes = [*MODELS["cvivit"], "data.batches.size=32", "data.batches.num_frames=5", "data.batches.batch_size=2"]
    cost = dry_run("tiny-cvivit", overrides=[*changes, "optim.kind=adamw"], data=["rendered"], device="cpu")
    plan = load_recipe("tiny-cvivit", overrides=changes, data=["rendered"])
    assert cost["parameters"] == cost["learned_parameters"] == plan.model.build(seed=0).num_parameters
    assert (cost["clips_per_step"], cost["tokens_per_step"]) == (2, 2 * 2 * 4 * 4)
    assert cost["steps_per_second"] == pytest.approx(1 / cost["seconds_per_step"], rel=0.05)
    assert cost["hours"] == pytest.approx(cost["seconds_per_step"] * cost["steps"] / 3600, abs=0.006)
    assert cost["critic_parameters"] == 0
    twice = dry_run(
        "tiny-cvivit",
        overrides=[*changes, "optim.kind=adamw", "loop.accumulate=2"],
        data=["rendered"],
        device="cpu",
    )
    assert twice["gflop_per_step"] == pytest.approx(2 * cost["gflop_per_step"], abs=0.011)
    assert twice["clips_per_step"] == 4
    late = "losses.adversarial={generator: {weight: 1, start_step: 9}, discriminator: {kind: patch, dim: 8, depth: 1}}"
    more = dry_run(
        "tiny-cvivit", overrides=[*changes, "optim.kind=adamw", late], data=["rendered"], device="cpu"
    )  # a critic that rests at first is counted, too
    assert more["critic_parameters"] > 0
    assert more["gflop_per_step"] > cost["gflop_per_step"]
    assert more["parameters"] == cost["parameters"]
