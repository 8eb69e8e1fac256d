"""Renders the clip and the image that ship in src/tokenreel/samples: python dev/make_samples.py"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tokenreel.media.write import write
from tokenreel.render import sample_clip, sample_image

FOLDER = Path(__file__).resolve().parents[1] / "src" / "tokenreel" / "samples"


def main() -> None:
    """Write sample.mp4 (320x180, 60 frames, 15 fps) and sample.png (256x256)."""
    print(write(FOLDER / "sample.mp4", sample_clip(), quality=75))
    Image.fromarray(sample_image()).save(FOLDER / "sample.png", optimize=True)
    print(*(f"{path.name}: {path.stat().st_size} bytes" for path in FOLDER.glob("sample.*")), sep="\n")


if __name__ == "__main__":
    main()
