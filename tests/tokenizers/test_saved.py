"""Models in a folder: what is written, what is refused, and that a fingerprint names a model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tokenreel.errors import FormatError, InputError
from tokenreel.tokenizers import LEARNED, load
from tokenreel.tokenizers.configs import chosen_values, from_values, to_values
from tokenreel.tokenizers.learned import LearnedTokenizer
from tokenreel.tokenizers.saved import KINDS, SavedModel

torch.set_num_threads(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineConfig:
    dim: int
    names: tuple[str, ...] = ()


class Line(SavedModel):
    kind = "classifier"
    name = "line"
    config_type = LineConfig
    sizes: ClassVar[dict[str, LineConfig]] = {"small": LineConfig(dim=3), "wide": LineConfig(dim=5, names=("a", "b"))}
    summary = "One linear layer."
    papers = ("1234.56789",)

    def __init__(self, config: LineConfig) -> None:
        super().__init__(config)
        self.layer = nn.Linear(config.dim, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x_BD: Tensor) -> Tensor:
        answer: Tensor = self.drop(self.layer(x_BD))
        return answer


class Curve(Line):
    name = "curve"


class Maker(Line):
    kind = "generator"


def edited(folder: Path, change: Any) -> Path:
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_a_folder_gives_the_same_model(tmp_path: Path) -> None:
    model = Line.untrained("wide", seed=3)
    folder = model.save_pretrained(tmp_path / "line")
    values = json.loads((folder / "config.json").read_text())
    assert values == {"classifier": "line", "dim": 5, "names": ["a", "b"], "fingerprint": model.fingerprint}
    again = Line.from_pretrained(folder)
    assert again.config == model.config
    assert again.fingerprint == model.fingerprint
    assert again.source == str(folder)
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_the_card_states_family_parameters_and_fingerprint(tmp_path: Path) -> None:
    model = Line.untrained()
    card = (model.save_pretrained(tmp_path) / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: tokenreel\ntags: [video, image, classifier, line]\n---\n")
    assert "| parameters | 8 |" in card
    assert model.fingerprint in card
    assert "https://arxiv.org/abs/1234.56789" in card
    assert (model.save_pretrained(tmp_path, card="own words") / "README.md").read_text() == "own words"


def test_another_kind_or_family_is_refused_by_name(tmp_path: Path) -> None:
    folder = Line.untrained().save_pretrained(tmp_path)
    with pytest.raises(FormatError, match="a classifier of the family 'line', not a generator"):
        Maker.from_pretrained(folder)
    with pytest.raises(FormatError, match="of the family 'line', not 'curve'"):
        Curve.from_pretrained(folder)
    for tokenizer in LEARNED.values():
        with pytest.raises(FormatError, match="a classifier of the family 'line', not a tokenizer"):
            tokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", ["{}", "[]", "7", "{", '{"model_type": "vivit"}'])
def test_a_config_of_nobody_is_refused(tmp_path: Path, text: str) -> None:
    folder = Line.untrained().save_pretrained(tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(FormatError, match="classifier"):
        Line.from_pretrained(folder)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first, second = (Line.untrained(seed=seed).save_pretrained(tmp_path / str(seed)) for seed in (1, 2))
    (first / "model.safetensors").write_bytes((second / "model.safetensors").read_bytes())
    with pytest.raises(FormatError, match="fingerprints differ"):
        Line.from_pretrained(first)
    edited(first, lambda values: values.update(fingerprint=None, dim=4))
    with pytest.raises(FormatError, match="must have shape"):
        Line.from_pretrained(first)
    edited(second, lambda values: values.update(dimm=4))
    with pytest.raises(FormatError, match="no field 'dimm'; did you mean 'dim'"):
        Line.from_pretrained(second)


def test_the_fingerprint_tells_kind_family_and_weights_apart() -> None:
    prints = {kind.untrained(seed=0).fingerprint for kind in (Line, Curve, Maker)}
    prints |= {Line.untrained(seed=1).fingerprint, Line.untrained("wide").fingerprint}
    assert len(prints) == 5
    model = Line.untrained()
    before = model.fingerprint
    with torch.no_grad():
        model.layer.bias += 1
    assert model.fingerprint != before


def test_half_precision_files_load_as_they_are_hashed(tmp_path: Path) -> None:
    model = Line.untrained()
    folder = model.save_pretrained(tmp_path, half=True)
    again = Line.from_pretrained(folder)
    assert again.fingerprint != model.fingerprint
    assert again.layer.weight.dtype == torch.float32
    assert torch.equal(again.layer.weight, model.layer.weight.half().float())
    model.round_to_half()
    assert model.fingerprint == again.fingerprint


def test_running_is_eval_without_gradients_and_puts_modes_back() -> None:
    model = Line.untrained()
    model.train()
    x = torch.ones(4, 3)
    with model.running():
        assert torch.equal(model(x), model.layer(x))
        assert not model(x).requires_grad
    assert model.training
    assert model.drop.training
    model.precision = "fp8"  # type: ignore[assignment]
    with pytest.raises(InputError, match="precision must be one of fp32, bf16"), model.running():
        pass


def test_equal_seeds_are_equal_models_and_touch_no_global_generator() -> None:
    state = torch.random.get_rng_state()
    assert Line.untrained(seed=5).fingerprint == Line.untrained(seed=5).fingerprint
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(InputError, match="no size 'huge'; its sizes are small, wide"):
        Line.untrained("huge")
    with pytest.raises(InputError, match="seed"):
        Line.untrained(seed=-1)


def test_tokenizers_are_saved_models() -> None:
    assert issubclass(LearnedTokenizer, SavedModel)
    assert LearnedTokenizer.kind == KINDS[0] == "tokenizer"


def test_an_option_that_is_off_does_not_count_in_a_fingerprint() -> None:
    config = LEARNED["cvivit"].sizes["tiny"]
    chosen = chosen_values(config)
    assert set(chosen) < set(to_values(config))
    assert "prediction" not in chosen
    assert chosen["quantizer"] == {"kind": "fsq", "levels": [40, 10, 8, 5, 4]}
    assert chosen_values(replace(config, prediction="last"))["prediction"] == "last"
    assert from_values(type(config), chosen) == config


def test_what_is_pushed_is_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    seen: dict[str, Any] = {}

    class Hub:
        def __init__(self, token: str | None) -> None:
            seen["token"] = token

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            return SimpleNamespace(repo_id=f"https://hub/{repo_id}", **options)

        def upload_folder(self, *, folder_path: Path, **options: Any) -> Any:
            seen.update(options, files={path.name: path.read_bytes() for path in folder_path.iterdir()})
            return SimpleNamespace(commit_url="https://hub/commit")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    model = Line.untrained()
    assert model.push_to_hub("someone/line", half=True, token="t", branch="next") == "https://hub/commit"
    saved = model.save_pretrained(tmp_path, half=True)
    assert seen["files"] == {path.name: path.read_bytes() for path in saved.iterdir()}
    assert (seen["token"], seen["repo_id"], seen["revision"]) == ("t", "https://hub/someone/line", "next")


class Careful(Line):
    """One weight on which much hangs."""

    def is_kept_whole(self, name: str) -> bool:
        return name == "layer.bias"


def test_weights_on_which_much_hangs_stay_whole_in_half_precision_files(tmp_path: Path) -> None:
    model = Careful.untrained(seed=3)
    with torch.no_grad():
        model.layer.bias.add_(1e-5)
    folder = model.save_pretrained(tmp_path, half=True)
    stored = load_file(folder / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in stored.items()} == {
        "layer.weight": torch.float16,
        "layer.bias": torch.float32,
    }
    again = Careful.from_pretrained(folder)
    assert torch.equal(again.layer.bias, model.layer.bias)
    assert not torch.equal(again.layer.weight, model.layer.weight)
    model.round_to_half()
    assert torch.equal(again.layer.weight, model.layer.weight)
    assert again.fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("name", "part"), [("video-fsq", "transforms."), ("image-titok", "spectrum."), ("video-titok", "spectrum.")]
)
def test_what_ids_hang_on_is_a_small_part_of_a_tokenizer(name: str, part: str) -> None:
    model = load(name)
    assert isinstance(model, LearnedTokenizer)
    whole = [weight for weight in model.state_dict() if model.is_kept_whole(weight)]
    assert any(weight.startswith(part) for weight in whole)
    share = sum(model.state_dict()[weight].numel() for weight in whole) / model.num_parameters
    assert 0 < share < 0.12
