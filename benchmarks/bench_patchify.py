"""patchify, check and restore beside their floors: whole processes, alternating, medians.

The floor of patchify is a bare script: PyAV decodes all frames, converts the chosen ones to rgb, writes their bytes.
The floor of check is the same without the writing; of restore, a bare loop that encodes the same rgb frames.

    python benchmarks/bench_patchify.py [--video V] [--repeats 5] [--json benchmarks/results/patchify.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np

from tokenreel.jobs.sequence import PatchSequence

DATA = Path(os.environ.get("TOKENREEL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

FLOOR_WRITE = """
import sys, av
video, out, every = sys.argv[1], sys.argv[2], int(sys.argv[3])
with av.open(video) as c, open(out, "wb", buffering=0) as f:
    s = c.streams.video[0]; s.thread_type = "AUTO"
    for i, frame in enumerate(c.decode(s)):
        if i % every == 0:
            f.write(frame.to_ndarray(format="rgb24").tobytes())
"""
FLOOR_READ = """
import sys, av
video, every = sys.argv[1], int(sys.argv[2])
with av.open(video) as c:
    s = c.streams.video[0]; s.thread_type = "AUTO"
    for i, frame in enumerate(c.decode(s)):
        if i % every == 0:
            frame.to_ndarray(format="rgb24")
"""
FLOOR_ENCODE = """
import sys, av, numpy as np
raw, out, height, width, count, codec = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]), sys.argv[6]
x264 = {"qp": "0", "preset": "ultrafast"}
ffv1 = {"level": "3", "slices": "12", "slicecrc": "1", "g": "1"}
options = {"libx264rgb": x264, "ffv1": ffv1}[codec]
with av.open(out, "w") as c, open(raw, "rb") as f:
    s = c.add_stream(codec, rate=3, options=options)
    s.width, s.height, s.pix_fmt = width, height, {"libx264rgb": "rgb24", "ffv1": "bgr0"}[codec]
    s.thread_type = "AUTO"
    for i in range(count):
        pixels = np.fromfile(f, np.uint8, height * width * 3).reshape(height, width, 3)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        c.mux(s.encode(frame.reformat(format=s.pix_fmt)))
    c.mux(s.encode(None))
"""


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return seconds, usage.ru_maxrss / 1024


def compare(name: str, floor: list[str], ours: list[str], repeats: int, cleanup: list[Path]) -> dict[str, object]:
    """Alternate the two commands; a row of the table."""
    rows: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for _ in range(repeats + 1):  # the first pair warms the file cache and is dropped
        pair = []
        for command in (floor, ours):
            for path in cleanup:
                path.unlink(missing_ok=True)
            pair.append(timed(command))
        rows.append((pair[0], pair[1]))
    rows = rows[1:]
    floors, times = [f[0] for f, _ in rows], [o[0] for _, o in rows]
    row: dict[str, object] = {
        "name": name,
        "floor_s": round(statistics.median(floors), 3),
        "ours_s": round(statistics.median(times), 3),
        "ratio": round(statistics.median(o / f for f, o in zip(floors, times)), 3),
        "ratio_spread": [
            round(min(o / f for f, o in zip(floors, times)), 3),
            round(max(o / f for f, o in zip(floors, times)), 3),
        ],
        "floor_peak_mib": round(max(f[1] for f, _ in rows)),
        "ours_peak_mib": round(max(o[1] for _, o in rows)),
    }
    print(
        f"{name:34} floor {row['floor_s']:>7} s  ours {row['ours_s']:>7} s  x{row['ratio']:<6} "
        f"{row['ratio_spread']}  peak {row['floor_peak_mib']} / {row['ours_peak_mib']} MiB",
        flush=True,
    )
    return row


def verify(video: Path, folder: Path, every: int, tokenreel: list[str]) -> None:
    """Before anything is timed: our patches, put together, are the floor's bytes."""
    subprocess.run(
        [sys.executable, str(folder / "write.py"), str(video), str(folder / "floor.rgb"), str(every)], check=True
    )
    subprocess.run(
        [*tokenreel, "patchify", str(video), "-o", str(folder / "v.safetensors"), "--every", str(every), "-q"],
        check=True,
    )
    largest = 0
    with (folder / "floor.rgb").open("rb") as floor:  # part by part: a child's peak memory starts from its parent's
        for frame in PatchSequence(folder / "v.safetensors").frames():
            other = np.frombuffer(floor.read(frame.size), np.uint8).reshape(frame.shape)
            largest = max(largest, int(np.abs(frame.astype(np.int16) - other).max()))
        assert not floor.read(1)
    # the floor takes PyAV's defaults, which convert by the same matrix but might round differently
    print(f"outputs: {frame.shape} frames, largest difference from the floor's rgb {largest}/255")
    assert largest <= 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, default=DATA / "bench" / "household-720p-20s.mp4")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--long", action="store_true", help="also a clip ten times as long (peak memory)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tokenreel = [shutil.which("tokenreel") or "tokenreel"]
    video = str(args.video)
    results = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        for script, text in (("write", FLOOR_WRITE), ("read", FLOOR_READ), ("encode", FLOOR_ENCODE)):
            (folder / f"{script}.py").write_text(textwrap.dedent(text))
        python = sys.executable
        verify(args.video, folder, 10, tokenreel)
        rgb, out = folder / "f.rgb", folder / "o.safetensors"
        for every in (10, 1):
            floor = [python, str(folder / "write.py"), video, str(rgb), str(every)]
            ours = [*tokenreel, "patchify", video, "-o", str(out), "--every", str(every), "-q"]
            results.append(compare(f"patchify --every {every}", floor, ours, args.repeats, [rgb, out]))
            timed(ours)
            floor = [python, str(folder / "read.py"), video, str(every)]
            results.append(
                compare(f"check (every {every})", floor, [*tokenreel, "check", str(out), "-q"], args.repeats, [])
            )
        timed([*tokenreel, "patchify", video, "-o", str(out), "--every", "10", "-q"])
        timed([python, str(folder / "write.py"), video, str(rgb), "10"])
        count, height, width = PatchSequence(out).header.size
        for codec, suffix in (("libx264rgb", "mp4"), ("ffv1", "mkv")):
            target = [folder / f"floor.{suffix}", folder / f"ours.{suffix}"]
            floor = [
                python,
                str(folder / "encode.py"),
                str(rgb),
                str(target[0]),
                str(height),
                str(width),
                str(count),
                codec,
            ]
            ours = [*tokenreel, "restore", str(out), "-o", str(target[1]), "--lossless", "-q"]
            results.append(compare(f"restore --lossless .{suffix}", floor, ours, args.repeats, target))
        if args.long:
            long = folder / "long.mp4"
            listing = folder / "list.txt"
            listing.write_text(f"file '{args.video.resolve()}'\n" * 10)
            subprocess.run(
                ["ffmpeg", "-v", "error", "-f", "concat", "-safe", "0", "-i", str(listing), "-c", "copy", str(long)],
                check=True,
            )
            for every in (10, 1):
                ours = [*tokenreel, "patchify", str(long), "-o", str(out), "--every", str(every), "-q"]
                seconds, peak = timed(ours)
                print(f"ten times as long, --every {every}: {seconds:.2f} s, peak {peak:.0f} MiB", flush=True)
                results.append(
                    {"name": f"long --every {every}", "ours_s": round(seconds, 2), "ours_peak_mib": round(peak)}
                )
                out.unlink()
    if args.json:
        import av

        about = {
            "python": platform.python_version(),
            "av": av.__version__,
            "numpy": np.__version__,
            "cores": os.cpu_count(),
            "machine": platform.processor() or platform.machine(),
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": about, "video": args.video.name, "rows": results}, indent=1))


if __name__ == "__main__":
    main()
