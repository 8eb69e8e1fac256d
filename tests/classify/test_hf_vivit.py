"""Checkpoints of transformers give transformers' logits, whatever names their weights have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokenreel.classify import ViViT, from_hf, load
from tokenreel.classify.hf_vivit import hf_config
from tokenreel.classify.vit_names import vit_weights
from tokenreel.errors import FormatError, InputError, MismatchError

torch.set_num_threads(1)

SMALL: dict[str, Any] = {
    "image_size": 16,
    "num_frames": 4,
    "tubelet_size": [2, 8, 8],
    "num_channels": 3,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
OLD = (
    (r"\.layers\.", ".encoder.layer."),
    (r"attention\.q_proj", "attention.attention.query"),
    (r"attention\.k_proj", "attention.attention.key"),
    (r"attention\.v_proj", "attention.attention.value"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
)


def saved(folder: Path, **change: Any) -> Any:
    """A random model of transformers, in a folder; its weights are large enough that everything matters."""
    pytest.importorskip("transformers")
    from transformers import VivitConfig, VivitForVideoClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = VivitConfig(**{**SMALL, **change}, id2label={0: "walk", 1: "run", 2: "jump"})  # type: ignore[arg-type]
    model = VivitForVideoClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model


def video(*shape: int) -> Tensor:
    return torch.rand(shape or (2, 3, 4, 16, 16), generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def assert_parity(theirs: Any, ours: ViViT, pixels: Tensor) -> None:
    wanted = theirs(pixels.transpose(1, 2)).logits
    assert float(wanted.std()) > 0.1
    torch.testing.assert_close(ours(pixels)["label"], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"hidden_act": "gelu"},
        {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 0.3},
        {"qkv_bias": False, "num_channels": 1},
        {"image_size": 20, "num_frames": 5},  # does not divide: transformers drops the edge
    ],
)
def test_logits_are_those_of_transformers(tmp_path: Path, change: dict[str, Any]) -> None:
    theirs = saved(tmp_path, **change)
    ours = from_hf(tmp_path)
    sizes = {**SMALL, **change}
    side = sizes["image_size"]
    assert_parity(theirs, ours, video(2, sizes["num_channels"], sizes["num_frames"], side, side))
    assert ours.heads == (("label", ("walk", "run", "jump")),)


def test_eps_and_activation_matter(tmp_path: Path) -> None:
    theirs = saved(tmp_path, layer_norm_eps=0.3)
    values = json.loads((tmp_path / "config.json").read_text())
    for change in ({"layer_norm_eps": 1e-6}, {"hidden_act": "gelu"}):
        (tmp_path / "config.json").write_text(json.dumps({**values, **change}))
        pixels = video()
        off = (from_hf(tmp_path)(pixels)["label"] - theirs(pixels.transpose(1, 2)).logits).detach().abs().max()
        assert float(off) > 1e-5, change


def test_both_generations_of_names_load(tmp_path: Path) -> None:
    theirs = saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in OLD:
            name = re.sub(new, old, name)
        renamed[name] = tensor
    other = [name for name in renamed if name not in tensors]
    save_file(renamed, tmp_path / "model.safetensors")
    assert_parity(theirs, from_hf(tmp_path), video())
    back = {}
    for name, tensor in renamed.items():
        for new, old in OLD:
            name = re.sub(old.replace(".", r"\."), new.replace("\\", ""), name)
        back[name] = tensor
    save_file(back, tmp_path / "model.safetensors")
    assert_parity(theirs, from_hf(tmp_path), video())
    assert other or set(back) != set(renamed)


def test_what_was_loaded_is_saved_and_loaded_as_ours(tmp_path: Path) -> None:
    saved(tmp_path / "theirs")
    ours = from_hf(tmp_path / "theirs")
    assert not ours.training
    again = load(ours.save_pretrained(tmp_path / "ours"))
    torch.testing.assert_close(again(video())["label"], ours(video())["label"], rtol=0, atol=1e-6)
    with pytest.raises(FormatError, match="from_hf"):
        load(tmp_path / "theirs")


@pytest.mark.parametrize(
    ("pixels", "change"),
    [
        ({"rescale_factor": 1 / 127.5, "offset": True, "do_normalize": False}, lambda x: x),
        (
            {"rescale_factor": 1 / 127.5, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True},
            lambda x: (x - 0.5) / 0.5,
        ),
        (
            {
                "rescale_factor": 1 / 255,
                "offset": False,
                "do_normalize": True,
                "image_mean": [0.4, 0.5, 0.6],
                "image_std": [0.2, 0.3, 0.4],
            },
            lambda x: (
                ((x + 1) / 2 - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1, 1))
                / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1, 1)
            ),
        ),
    ],
)
def test_a_preprocessor_is_folded_into_the_embedding(tmp_path: Path, pixels: dict[str, Any], change: Any) -> None:
    theirs = saved(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
    with torch.no_grad():
        wanted = theirs(change(video()).transpose(1, 2)).logits
        torch.testing.assert_close(from_hf(tmp_path)(video())["label"], wanted, rtol=0, atol=1e-4)


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        from_hf(tmp_path)
    saved(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    tensors = load_file(tmp_path / "model.safetensors")
    for change, words in (
        ({"model_type": "vit"}, "must be 'vivit', got 'vit'"),
        ({"hidden_act": "relu"}, "hidden_act must be one of gelu"),
        ({"num_hidden_layers": 2}, "has 3 blocks, its configuration 2"),
        ({"num_frames": 8}, r"positions is \(8, 32\) in the ViT, \(16, 32\)"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**values, **change}))
        with pytest.raises(InputError, match=words):
            from_hf(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values))
    save_file({**tensors, "vivit.extra.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(MismatchError, match=r"'vivit\.extra\.weight' is no weight of a ViT"):
        from_hf(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(FormatError, match="holds no weights that can be read"):
        from_hf(tmp_path)


def test_an_old_repository_s_pickle_is_read_as_tensors_alone(tmp_path: Path) -> None:
    theirs = saved(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert_parity(theirs, from_hf(tmp_path), video())
    torch.save({"vivit.layernorm.weight": Path("a")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FormatError, match="holds no weights that can be read"):
        from_hf(tmp_path)


def test_weights_that_are_missing_are_named() -> None:
    with pytest.raises(MismatchError, match=r"blocks 0, 1, 2, \.\.\.; found \[\]"):
        vit_weights({"cls_token": torch.zeros(1, 1, 4)})
    state = {"pos_embed": torch.zeros(1, 4, 4), "blocks.0.norm1.weight": torch.ones(4)}
    with pytest.raises(MismatchError, match=r"lacks the weights of 'patch\.weight'"):
        vit_weights(state)


def test_the_configuration_of_the_kinetics_checkpoint_is_model_1_at_b_16x2() -> None:
    config = hf_config({"model_type": "vivit", "num_labels": 400})
    assert (config.num_frames, config.size, config.patch_size) == (32, (224, 224), (2, 16, 16))
    assert (config.activation, config.eps, config.edges) == ("gelu_tanh", 1e-6, "drop")
    assert config.encoder.depth == config.encoder.num_heads == 12
    assert hf_config({"model_type": "vivit", "id2label": {"1": "x", "0": "x"}}).heads[0][1] == ("0 x", "1 x")


@pytest.mark.network
def test_the_kinetics_checkpoint_loads_by_its_id() -> None:
    model = from_hf("google/vivit-b-16x2-kinetics400")
    assert len(model.heads[0][1]) == 400
