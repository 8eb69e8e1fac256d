"""An untrained classifier of two heads in a folder, and clips that it tells apart a little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokenreel.classify import TokenViViT, TokenViViTConfig, ViViT, ViViTConfig
from tokenreel.media.write import write
from tokenreel.tokenizers.configs import Stack
from tokenreel.types import Clip, Grid, Tokens

__all__ = ["CONFIG", "HEADS", "clip_of", "saved", "tokens_of", "write_clips"]

HEADS = (("motion", ("left", "right", "up", "down", "still", "round")), ("colour", ("red", "blue")))
STACK = Stack(dim=16, depth=2, num_heads=2, head_dim=8, mlp_dim=32)
CONFIG = ViViTConfig(
    model="factorised_encoder",
    num_frames=4,
    size=(16, 24),
    in_channels=3,
    patch_size=(2, 8, 8),
    encoder=STACK,
    temporal_depth=1,
    pooling="class_token",
    heads=HEADS,
)
TOKEN_CONFIG = TokenViViTConfig(
    model="spatio_temporal",
    encoder=STACK,
    pooling="mean",
    heads=HEADS,
    made_by="cvivit",
    made_by_fingerprint="f" * 64,
    layout="grid",
    grid=(2, 2, 3),
    codebook_size=60,
)


def saved(folder: Path, config: ViViTConfig | TokenViViTConfig = CONFIG) -> Any:
    """A model whose answers differ between clips, written to ``folder``."""
    family: Any = ViViT if isinstance(config, ViViTConfig) else TokenViViT
    model = family.untrained(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    return model


def clip_of(num_frames: int, seed: int = 0, *, fps: float = 10.0, size: tuple[int, int] = (32, 48)) -> Clip:
    """A square of some colour that moves over a gradient."""
    rng = np.random.default_rng(seed)
    height, width = size
    ground = np.linspace(0, 160, width)[None, None, :, None] * rng.uniform(0.3, 1, 3)
    frames = np.repeat(np.repeat(ground, height, 1), num_frames, 0)
    colour, speed = rng.uniform(0, 255, 3), int(rng.integers(1, 4))
    for index in range(num_frames):
        left = index * speed % (width - 12)
        frames[index, 8:20, left : left + 12] = colour
    return Clip(frames_THWC=frames.astype(np.uint8), pts_seconds=np.arange(num_frames) / fps, fps=fps)


def write_clips(folder: Path, *lengths: int) -> list[Path]:
    """Lossless clips of these numbers of frames, 0.mkv, 1.mkv ..."""
    return [write(folder / f"{index}.mkv", clip_of(length, index)) for index, length in enumerate(lengths)]


def tokens_of(num_steps: int = 2, seed: int = 0, fingerprint: str = "f" * 64) -> Tokens:
    """Ids as ``TOKEN_CONFIG`` reads them."""
    ids = np.random.default_rng(seed).integers(0, 60, num_steps * 6)
    return Tokens(
        ids_L=ids,
        layout="grid",
        grid=Grid(t=num_steps, h=2, w=3),
        size=(num_steps, 16, 24),
        codebook_size=60,
        tokenizer="cvivit",
        fingerprint=fingerprint,
    )
