"""Videos of real actions from captions: whether they are told right, and how near they lie to film that was learned.

    python benchmarks/bench_generate_actions.py --model GENERATOR --judge CLASSIFIER --train train.csv [--count 40]

``train.csv`` has the generator's clips: path, caption, label. The captions are asked for in turn; the judge must have
learned from performers that the generator never saw, so that it tells the action and not the person. The distance of a
clip to one that was learned is the root mean square difference of their pixels, 0..255, over frames spread evenly, as
``encode --frames`` takes them; beside it stands how far learned clips lie apart: what is far nearer is memory.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench_generate_quality import counted, loaded, made
from tokenreel.jobs.classify import classify_files
from tokenreel.media.frames import Selection
from tokenreel.media.read import read
from tokenreel.media.write import write
from tokenreel.types import Clip

Pixels = npt.NDArray[np.uint8]


def rows_of(table: Path) -> list[dict[str, str]]:
    """Of the table; paths are relative to it."""
    with table.open() as file:
        rows = list(csv.DictReader(file))
    return [{**row, "path": str(table.parent / row["path"])} for row in rows]


def spread(path: str, size: tuple[int, int, int]) -> Pixels:
    """(T, H, W, 3): so many frames of a clip, spread evenly."""
    return read(path, Selection(uniform=size[0]), size=size[1:]).frames_THWC


def distance(clip: Pixels, other: Pixels) -> float:
    """Root mean square."""
    return float(np.sqrt(np.square(clip.astype(np.float32) - other).mean()))


def told(judge: str, clips: list[Pixels], fps: float) -> list[str]:
    """What the judge says of each clip, read as any video is."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number:04}.mkv" for number in range(len(clips))]
        for path, clip in zip(paths, clips):
            write(path, Clip(frames_THWC=clip, pts_seconds=np.arange(len(clip)) / fps, fps=fps), lossless=True)
        return [prediction.label() for prediction in classify_files(paths, model=judge).predictions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    maker, rows = loaded(args.model, args.precision), rows_of(args.train)
    label_of = {row["caption"]: row["label"] for row in rows}
    prompts = [sorted(label_of)[number % len(label_of)] for number in range(args.count)]
    clips = made(maker, prompts, maker.asked, args.seed, args.precision)
    truths = [label_of[prompt] for prompt in prompts]
    is_right_N = np.array(told(args.judge, clips, 8.0)) == np.array(truths)
    learned = [spread(row["path"], maker.size) for row in rows]
    nearest = [min(distance(clip, other) for other in learned) for clip in clips]
    apart = [min(distance(one, other) for other in learned if other is not one) for one in learned]
    quantiles = {
        "distance to the nearest learned clip": nearest,
        "distance of learned clips to the nearest other": apart,
    }
    found = {
        "model": args.model,
        "judge": args.judge,
        **maker.asked._asdict(),
        "right": counted(is_right_N),
        "by action": {name: counted(is_right_N[np.array(truths) == name]) for name in sorted(set(truths))},
        **{name: [round(float(np.quantile(all_N, at)), 2) for at in (0, 0.5, 1)] for name, all_N in quantiles.items()},
    }
    print(json.dumps(found, indent=1))
    if args.output is not None:
        args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
