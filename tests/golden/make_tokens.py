"""Wrote tests/golden/v1.tokens, once, with version 1 of the format. Never run it again: the file is frozen for ever."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tokenreel.tokens.file import save
from tokenreel.types import Grid, Tokens

if __name__ == "__main__":
    target = Path(__file__).with_name("v1.tokens")
    if target.exists():
        sys.exit(f"{target} is frozen")
    save(
        target,
        Tokens(
            ids_L=(np.arange(24) * 2741) % 64000,
            layout="grid",
            grid=Grid(t=2, h=3, w=4),
            size=(5, 23, 31),
            codebook_size=64000,
            tokenizer="video-fsq",
            fingerprint="0123456789abcdef" * 4,
            fps=15.0,
            pts_seconds=np.arange(5) / 15,
            meta={"caption": "a dog läuft 犬", "source": "dog.mp4", "label": 3},
        ),
    )
