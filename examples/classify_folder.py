"""A folder of clips to labels: by the classifier that ships, or by one of your own.

python classify_folder.py [CLIPS [CLASSIFIER]]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import tokenreel as tr
from tokenreel.data.labelled_rendered import rendered_set
from tokenreel.jobs.classify import DEFAULT_CLASSIFIER, classify_files


def classify(folder: Path, model: str = DEFAULT_CLASSIFIER) -> None:
    for prediction in classify_files([folder], model=model).predictions:
        told = [f"{head} {prediction.label(head)} ({prediction.top(head)[0][1]:.0%})" for head, _ in prediction.heads]
        print(f"{Path(prediction.source).name}: {', '.join(told)}")


def main() -> None:
    if len(sys.argv) > 1:
        classify(Path(sys.argv[1]), *sys.argv[2:])
        return
    with tempfile.TemporaryDirectory() as folder:
        for scene in rendered_set(4, first=1 << 41, held_out=True):  # of combinations that it never saw
            shown = " ".join(scene.meta[head].replace(" ", "-") for head in ("colour", "shape", "motion"))
            tr.write(Path(folder) / f"{shown}.mp4", scene.clip())
        classify(Path(folder))


if __name__ == "__main__":
    main()
