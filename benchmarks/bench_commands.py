"""Whole commands on video: seconds, frames a second, start-up and memory of `tokenreel encode` and `tokenreel decode`.

    python benchmarks/bench_commands.py --tokenizer video-fsq [--video CLIP] [--seconds 10 30 120] [--json OUT]

Clips of 256x256 at 15 frames a second are written first: the video (by default the sample that ships), forward and
backward in turn until it is long enough. Start-up is the same command on one frame; memory is the most that the process
held (its resident set). A stream holds as much for a long clip as for a short one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tokenreel.media.pixels import center_crop, resize
from tokenreel.media.read import read
from tokenreel.media.write import open_writer
from tokenreel.samples import SAMPLE_CLIP

FPS, SIDE = 15, 256


def measured(*command: str) -> tuple[float, float]:
    """Wall seconds, and the largest resident set in MiB."""
    start = time.perf_counter()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "tokenreel.cli.main", *command],
        {**os.environ, "HF_HUB_OFFLINE": "1"},
        file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)],
    )
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"tokenreel {' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def clip_of(source: Path, frames: int, path: Path) -> Path:
    """So many frames, to and fro through the source."""
    pixels = [center_crop(resize(frame[None], SIDE), SIDE, SIDE)[0] for frame in read(source).frames_THWC[:300]]
    there_and_back = itertools.cycle([*pixels, *pixels[-2:0:-1]])
    with open_writer(path, fps=FPS, quality=85) as writer:
        for frame in itertools.islice(there_and_back, frames):
            writer.write(frame)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default="video-fsq")
    parser.add_argument("--video", type=Path, default=SAMPLE_CLIP)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30, 120])
    parser.add_argument("--repeats", type=int, default=3, help="of the start-up, and of clips up to 30 s; medians")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for seconds in (0, *args.seconds):
            frames = max(1, seconds * FPS)
            clip, tokens = clip_of(args.video, frames, here / f"{seconds}.mp4"), here / f"{seconds}.tokens"
            encode = ("encode", str(clip), "-o", str(tokens), "-t", args.tokenizer)
            decode = ("decode", str(tokens), "-o", str(here / "again.mp4"))
            row: dict[str, float] = {"frames": frames}
            for name, command in (("encode", encode), ("decode", decode)):
                runs = [measured(*command) for _ in range(args.repeats if seconds <= 30 else 1)]
                row[f"{name}_seconds"] = round(statistics.median(run[0] for run in runs), 2)
                row[f"{name}_mib"] = round(max(run[1] for run in runs))
                if rows:
                    spent = row[f"{name}_seconds"] - rows[0][f"{name}_seconds"]
                    row[f"{name}_fps"] = round((frames - 1) / spent, 1)
            rows.append(row)
            print(json.dumps(row), flush=True)
    found = {"tokenizer": args.tokenizer, "size": [SIDE, SIDE], "cores": os.cpu_count(), "load": os.getloadavg()}
    if args.json:
        args.json.write_text(json.dumps({**found, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
