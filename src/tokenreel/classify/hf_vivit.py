"""ViViT checkpoints of Hugging Face transformers: ``VivitForVideoClassification`` by name, without transformers.

Letters: D dim, C channels, P positions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.tokenizers.configs import Stack
from tokenreel.tokenizers.hub import resolved
from tokenreel.tokenizers.saved import CONFIG_NAME, WEIGHTS_NAME

from .vit_names import VitWeights, copy_into, fill_block, fill_linear, fill_norm, vit_weights
from .vivit import ViViT
from .vivit_config import ViViTConfig, numbered
from .vivit_encoders import SpatioTemporalEncoder

__all__ = ["from_hf", "hf_config"]

_ACTIVATIONS = {"gelu": "gelu", "gelu_fast": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "num_frames": 32,
    "tubelet_size": [2, 16, 16],
    "num_channels": 3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu_fast",
    "layer_norm_eps": 1e-6,
}
_PICKLE = "pytorch_model.bin"
_PIXELS = "preprocessor_config.json"


def from_hf(
    path_or_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> ViViT:
    """The classifier in a folder or hub repository of transformers' ``VivitForVideoClassification``.

    Model 1 with a class token; logits are those of transformers to rounding. It reads ``pixel_values`` transposed to
    (B, C, T, H, W). Where ``preprocessor_config.json`` stands beside the weights and asks for other values than
    [-1, 1], its scale and shift are folded into the embedding, so that the model takes [-1, 1] as every other one.

    Args:
        path_or_id: a folder with ``config.json`` and ``model.safetensors``, or ``owner/name``.
        revision: branch, tag or commit on the hub.
        token: for repositories that ask for one.
        local_files_only: fetch nothing.

    Raises:
        InputError: the files are not there. FormatError: they are damaged or of another model. MismatchError: weights
        and configuration do not fit.
    """
    source = os.fspath(path_or_id)
    download: dict[str, Any] = {"revision": revision, "token": token, "local_files_only": local_files_only}
    values = _read(resolved(source, CONFIG_NAME, **download))
    config = hf_config(values)
    weights = vit_weights(_tensors(source, download))
    model = ViViT.untrained(config)
    _fill(model, weights)
    try:
        pixels = _read(resolved(source, _PIXELS, **download))
    except InputError:
        pixels = {}
    _fold_pixels(model, pixels)
    model.source = source
    return model


def hf_config(values: Mapping[str, Any]) -> ViViTConfig:
    """The configuration that a ``config.json`` of transformers describes."""
    if values.get("model_type") != "vivit":
        raise FormatError(f"model_type must be 'vivit', got {values.get('model_type')!r}")
    own = {name: values.get(name, default) for name, default in _DEFAULTS.items()}
    if own["hidden_act"] not in _ACTIVATIONS:
        raise FormatError(f"hidden_act must be one of {', '.join(_ACTIVATIONS)}, got {own['hidden_act']!r}")
    names = values.get("id2label")
    if names is None:
        labels = numbered(int(values.get("num_labels", 2)))
    else:
        labels = tuple(str(names[key]) for key in sorted(names, key=int))
    if len(set(labels)) != len(labels):
        labels = tuple(f"{index} {label}" for index, label in enumerate(labels))
    size = own["image_size"]
    heads = int(own["num_attention_heads"])
    return ViViTConfig(
        model="spatio_temporal",
        num_frames=own["num_frames"],
        size=(size, size) if isinstance(size, int) else tuple(size),
        in_channels=own["num_channels"],
        patch_size=tuple(own["tubelet_size"]),
        edges="drop",
        encoder=Stack(
            dim=own["hidden_size"],
            depth=own["num_hidden_layers"],
            num_heads=heads,
            head_dim=values.get("head_dim") or own["hidden_size"] // heads,
            mlp_dim=own["intermediate_size"],
        ),
        pooling="class_token",
        heads=(("label", labels),),
        activation=_ACTIVATIONS[own["hidden_act"]],  # type: ignore[arg-type]
        eps=float(own["layer_norm_eps"]),
    )


def _tensors(source: str, download: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by name; of an older repository without safetensors its pickle, read as tensors and nothing else."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        path = resolved(source, WEIGHTS_NAME, **download)
    except InputError as missing:
        try:
            path = resolved(source, _PICKLE, **download)
        except InputError:
            raise missing from None
    try:
        if path.name == _PICKLE:
            return dict(torch.load(path, map_location="cpu", weights_only=True))
        return load_file(path)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise FormatError(f"{path} holds no weights that can be read ({error}); copy it again") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise FormatError(f"{path} does not hold named values ({error})") from error


@torch.no_grad()
def _fill(model: ViViT, weights: VitWeights) -> None:
    encoder = model.encoder
    assert isinstance(encoder, SpatioTemporalEncoder)
    stack, token_D = encoder.pooled.stack, encoder.pooled.class_token_D
    assert token_D is not None
    if len(weights.blocks) != len(stack.blocks):
        raise MismatchError(f"the checkpoint has {len(weights.blocks)} blocks, its configuration {len(stack.blocks)}")
    if not {"class_token", "patch.bias", "head.weight", "head.bias"} <= weights.top.keys():
        raise MismatchError(f"a video classifier has a class token and a head, found {', '.join(sorted(weights.top))}")
    projection = weights.top["patch.weight"]
    if projection.ndim != 5:
        raise MismatchError(f"the embedding must be of tubelets (D, C, pt, ph, pw), got {tuple(projection.shape)}")
    copy_into(model.embed.proj.weight, rearrange(projection, "D C t h w -> D (t h w C)"), "patch.weight")
    copy_into(model.embed.proj.bias, weights.top["patch.bias"], "patch.bias")
    table_PD, table = weights.top["positions"], encoder.positions.learned.table_thwD
    copy_into(token_D, weights.top["class_token"][0] + table_PD[0], "class_token")
    copy_into(table.flatten(0, 2), table_PD[1:], "positions")
    for block, own in zip(stack.blocks, weights.blocks):
        fill_block(block, own)  # type: ignore[arg-type]
    fill_norm(stack.norm, weights.top, "norm")
    fill_linear(model.out.out, weights.top, "head")


@torch.no_grad()
def _fold_pixels(model: ViViT, pixels: Mapping[str, Any]) -> None:
    """Make an embedding of a x + b one of x in [-1, 1]: weights a W, bias + W b."""
    channels = model.config.in_channels
    scale, shift = torch.full((channels,), 1.0), torch.zeros(channels)
    if pixels.get("do_rescale", True) and "rescale_factor" in pixels:
        factor = 127.5 * float(pixels["rescale_factor"])  # bytes are 127.5 (x + 1)
        scale, shift = scale * factor, shift + factor - (1 if pixels.get("offset", True) else 0)
    if pixels.get("do_normalize", False):
        mean, std = (_row(pixels, name, channels) for name in ("image_mean", "image_std"))
        scale, shift = scale / std, (shift - mean) / std
    if bool((scale - 1).abs().max() < 1e-4) and bool(shift.abs().max() < 1e-4):
        return
    weight_DPC = rearrange(model.embed.proj.weight, "D (P C) -> D P C", C=channels)
    model.embed.proj.bias.add_((weight_DPC * shift).sum((1, 2)))
    copy_into(model.embed.proj.weight, rearrange(weight_DPC * scale, "D P C -> D (P C)"), "patch.weight")


def _row(pixels: Mapping[str, Any], name: str, channels: int) -> Tensor:
    row = torch.tensor(pixels.get(name, 0.5), dtype=torch.float32).expand(channels)
    if name == "image_std" and bool((row <= 0).any()):
        raise FormatError(f"image_std must be above 0, got {row.tolist()}")
    return row
