"""Lets these tests import ``coarse``; small clips as files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tokenreel.media.write import write
from tokenreel.types import Clip

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def make_clips(tmp_path: Path) -> Callable[..., Path]:
    """``make_clips(3)``: a folder of lossless clips of noise over gradients, clip i at 10 frames a second."""

    def make(count: int, *, frames: int = 4, height: int = 24, width: int = 32) -> Path:
        folder = tmp_path / "clips"
        rng = np.random.default_rng(5)
        for index in range(count):
            ramp = np.linspace(0, 200, width)[None, None, :, None] + np.arange(frames)[:, None, None, None] * 5
            pixels = (ramp + rng.uniform(0, 10 + 10 * index, (frames, height, width, 3))).clip(0, 255).astype(np.uint8)
            clip = Clip(frames_THWC=pixels, pts_seconds=np.arange(frames) / 10, fps=10.0)
            write(folder / f"{index}.mkv", clip)
        return folder

    return make
