"""A folder of clips to labels, by a classifier of your own; here one with random weights, which only guesses."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import tokenreel as tr
from tokenreel.classify import ViViT
from tokenreel.data.labelled_rendered import rendered_set
from tokenreel.jobs.classify import classify_files


def classify(folder: Path, model: Path) -> None:
    for prediction in classify_files([folder], model=model).predictions:
        [(label, probability)] = prediction.top(count=1)
        print(f"{Path(prediction.source).name:<16}{label:<4}{100 * probability:5.1f} %  {len(prediction.spans)} clips")


def main() -> None:
    if len(sys.argv) == 3:  # python classify_folder.py CLIPS CLASSIFIER
        classify(Path(sys.argv[1]), Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as root:
        for scene in rendered_set(4, num_frames=32, height=64, width=64):
            tr.write(Path(root) / "clips" / f"{scene.key}.mp4", scene.clip())
        model = ViViT.untrained("tiny").save_pretrained(Path(root) / "classifier")
        classify(Path(root) / "clips", model)


if __name__ == "__main__":
    main()
