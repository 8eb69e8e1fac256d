"""Tiny pictures, videos and token files, made by the project's own writers; lets these tests import ``listed``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tokenreel.media.write import write
from tokenreel.types import Clip, Grid, Tokens

sys.path.insert(0, str(Path(__file__).parent))

Make = Callable[..., Path]


def frames(count: int, value: int, side: int = 16) -> np.ndarray:
    """uint8 (T, H, W, 3) of one grey value; frame t is a little brighter."""
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None] + np.uint8(value)
    return np.broadcast_to(levels, (count, side, side, 3)).copy()


@pytest.fixture
def make_media(tmp_path: Path) -> Make:
    """``make_media("a/b.mp4", value=40, count=4)`` below ``tmp_path``; lossless where the format can."""

    def make(name: str, *, value: int = 40, count: int = 1, side: int = 16, root: Path | None = None) -> Path:
        path = (root or tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".bmp"):
            from PIL import Image

            Image.fromarray(frames(1, value, side)[0]).save(path)
            return path
        clip = Clip(frames_THWC=frames(count, value, side), pts_seconds=np.arange(count) / 10, fps=10.0)
        return write(path, clip)

    return make


@pytest.fixture
def make_tokens() -> Callable[..., Tokens]:
    def make(first: int = 0, **meta: object) -> Tokens:
        return Tokens(
            ids_L=np.arange(first, first + 8, dtype=np.uint16),
            layout="grid",
            grid=Grid(t=2, h=2, w=2),
            size=(2, 16, 16),
            codebook_size=1000,
            tokenizer="raw",
            fingerprint="f" * 16,
            fps=10.0,
            meta=meta,
        )

    return make
