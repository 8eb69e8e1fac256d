"""A storyboard becomes one continuous video, scene after scene, and a sheet shows how its first window was unmasked.

The default draws noise, quickly: tokenizer and generator have random weights. ``--model`` and ``--tokenizer`` name
trained ones, ``--storyboard`` a file like the text below.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import yaml
from PIL import Image

import tokenreel as tr
from tokenreel.generate import MaskGIT
from tokenreel.generate.maskgit_config import tied
from tokenreel.generate.sample import SampleStep
from tokenreel.generate.scenes import SceneProgress, make_scenes
from tokenreel.generate.show import unmasking_sheet
from tokenreel.generate.storyboard import Storyboard
from tokenreel.generate.vocabulary import grouped
from tokenreel.tokenizers import CViViT

STORY = """
size: 48x32          # width x height
fps: 8
window_frames: 9     # what the model makes at once
frames_carried: 5    # what each window goes on from
steps: 6
guidance_scale: 2
seed: 0
scenes:
  - {prompt: a red circle moves right, seconds: 2}
  - {prompt: the circle turns into a blue square, seconds: 1}
  - {prompt: an empty wall, seconds: 1, frames_carried: 0}   # a cut
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id of a generator")
    parser.add_argument("--tokenizer", help="folder or hub id of its tokenizer")
    parser.add_argument("--storyboard", type=Path)
    parser.add_argument("--output", type=Path, default=Path("storyboard.gif"))
    args = parser.parse_args()
    if args.model:
        model, tokenizer = MaskGIT.from_pretrained(args.model), tr.load(args.tokenizer)
    else:
        tokenizer = CViViT.untrained("tiny")
        levels = grouped(tokenizer.config.quantizer.levels, most=512)
        model = MaskGIT.untrained(tied(MaskGIT.sizes["tiny"], tokenizer, levels=levels))
    story = Storyboard.load(args.storyboard) if args.storyboard else Storyboard.from_values(yaml.safe_load(STORY))

    seen: list[SampleStep] = []
    start = time.perf_counter()

    def progress(now: SceneProgress) -> None:
        spent = time.perf_counter() - start
        print(f"scene {now.scene} of {now.num_scenes}, frame {now.frames_done} of {now.num_frames}, {spent:.1f} s")

    parts = make_scenes(model, tokenizer, None, story, progress=progress, callback=seen.append)
    with tr.open_writer(args.output, fps=story.fps) as writer:
        for part in parts:
            for pixels_HWC in tr.to_frames(part.video_CTHW):
                writer.write(pixels_HWC)
    print(args.output, args.output.stat().st_size, "bytes")

    [template] = tokenizer.encode([torch.zeros(3, story.window_frames, *story.size)])
    sheet = args.output.with_name("unmasking.png")
    first_window = seen[: story.scenes[0].steps or story.steps]
    Image.fromarray(unmasking_sheet(tokenizer, first_window, template=template)).save(sheet)
    print(sheet, sheet.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
