"""One clip and one image, rendered by the project (dev/make_samples.py), for the demo and the examples."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SAMPLE_CLIP", "SAMPLE_IMAGE"]

SAMPLE_CLIP = Path(__file__).with_name("sample.mp4")
"""320x180, 60 frames, 15 fps, H.264."""
SAMPLE_IMAGE = Path(__file__).with_name("sample.png")
"""256x256."""
