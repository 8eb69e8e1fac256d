"""Makes the wall of generated videos in docs/results.md: what world-maskgit makes of prompts, the first of each set.

    python docs/assets/make_generated.py

Each with its prompt; a green line below it where the judge, or the pixels' tracks, find all that was asked for, a red
one where they do not. Nothing is chosen by hand.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tokenreel.classify import load as load_classifier
from tokenreel.jobs.sheet import INK, PAPER, font
from tokenreel.render import caption
from tokenreel.tokenizers.hub import GENERATOR

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "benchmarks"))
from bench_generate_quality import SETS, followed, judged, loaded, made, scenes_of  # noqa: E402

COLUMNS, SIDE, TEXT, GAP = 6, 112, 64, 8
RIGHT, WRONG = (34, 150, 84), (214, 62, 48)


def main() -> None:
    """Write generated.webp."""
    maker, judge = loaded(GENERATOR, "fp32"), load_classifier("vivit-motions")
    rows = []
    for name in SETS:
        scenes = scenes_of(name, COLUMNS)
        prompts = [caption(scene, number, is_full=True) for number, scene in enumerate(scenes)]
        clips = made(maker, prompts, maker.asked, 0, "fp32")
        for clip, scene, prompt in zip(clips, scenes, prompts):
            tell = judged(judge, [clip], [scene]) if name.startswith("one") else followed([clip], [scene])
            rows.append((prompt, clip, all(bool(right.all()) for right in tell.values())))
    high, wide = SIDE + TEXT + GAP, SIDE + GAP
    frames = []
    for time in range(maker.size[0]):
        wall = Image.new("RGB", (COLUMNS * wide + GAP, len(SETS) * high + GAP), PAPER)
        draw = ImageDraw.Draw(wall)
        for place, (prompt, clip, is_right) in enumerate(rows):
            left, top = GAP + place % COLUMNS * wide, GAP + place // COLUMNS * high
            picture = Image.fromarray(np.ascontiguousarray(clip[time])).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            wall.paste(picture, (left, top))
            draw.rectangle([left, top + SIDE, left + SIDE - 1, top + SIDE + 2], RIGHT if is_right else WRONG)
            lines = textwrap.wrap(prompt, 23)[:6]
            draw.multiline_text((left, top + SIDE + 4), "\n".join(lines), INK, font(9), spacing=0)
        frames.append(wall)
    path = FOLDER / "generated.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=125, loop=0, quality=60, method=6)
    print(path, f"{path.stat().st_size / 1e3:.0f} kB,", sum(is_right for *_, is_right in rows), "of", len(rows))


if __name__ == "__main__":
    main()
