"""Videos of real actions from captions: whether they are told right, and how near they lie to film that was learned.

    python benchmarks/bench_generate_actions.py --model GENERATOR --judge CLASSIFIER --train train.csv [--count 40]

``train.csv`` has the generator's clips: path, caption, label. The captions are asked for in turn; the judge must have
learned from performers that the generator never saw, so that it tells the action and not the person. The distance of a
clip to one that was learned is the root mean square difference of their pixels, 0..255, the least over all
starts of the learned clip; beside it stands how far learned clips lie from each other: what is far nearer is memory.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench_generate_quality import counted, loaded, made
from tokenreel.classify import load as load_classifier
from tokenreel.media.frames import Selection
from tokenreel.media.read import read

Pixels = npt.NDArray[np.uint8]


def rows_of(table: Path) -> list[dict[str, str]]:
    """Of the table; paths are relative to it."""
    with table.open() as file:
        rows = list(csv.DictReader(file))
    return [{**row, "path": str(table.parent / row["path"])} for row in rows]


def windows(path: str, size: tuple[int, int, int], fps: float) -> npt.NDArray[np.float32]:
    """(N, T, H, W, 3): every stretch of T frames of a clip, its last frame repeated where it is short."""
    frames = read(path, Selection(fps=fps), size=size[1:]).frames_THWC.astype(np.float32)
    if len(frames) < size[0]:
        frames = np.concatenate([frames, np.repeat(frames[-1:], size[0] - len(frames), 0)])
    return np.stack([frames[start : start + size[0]] for start in range(len(frames) - size[0] + 1)])


def distance(clip: Pixels, others: npt.NDArray[np.float32]) -> float:
    """Root mean square to the nearest."""
    return float(np.sqrt(np.square(others - clip.astype(np.float32)).mean(axis=(1, 2, 3, 4))).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--fps", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    maker, judge, rows = loaded(args.model, args.precision), load_classifier(args.judge), rows_of(args.train)
    label_of = {row["caption"]: row["label"] for row in rows}
    prompts = [sorted(label_of)[number % len(label_of)] for number in range(args.count)]
    clips = made(maker, prompts, maker.asked, args.seed, args.precision)
    told: list[Any] = []
    for clip in clips:
        told += judge.predict([torch.from_numpy(clip.copy()).permute(3, 0, 1, 2)]).predicted()["label"]
    truths = [label_of[prompt] for prompt in prompts]
    learned = {row["path"]: windows(row["path"], maker.size, args.fps) for row in rows}
    nearest = [min(distance(clip, others) for others in learned.values()) for clip in clips]
    apart = [
        min(distance(own[0].astype(np.uint8), learned[two["path"]]) for two in rows if two["path"] != path)
        for path, own in learned.items()
    ]
    right = counted(np.array([one == truth for one, truth in zip(told, truths)]))
    quantiles = {
        "distance to the nearest learned clip": nearest,
        "distance of learned clips to the nearest other": apart,
    }
    found = {
        "model": args.model,
        "judge": args.judge,
        **maker.asked._asdict(),
        "right": right,
        "by action": {
            name: counted(np.array([one == truth for one, truth in zip(told, truths) if truth == name]))
            for name in sorted(set(truths))
        },
        **{name: [round(float(np.quantile(all_N, at)), 2) for at in (0, 0.5, 1)] for name, all_N in quantiles.items()},
    }
    print(json.dumps(found, indent=1))
    if args.output is not None:
        args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
