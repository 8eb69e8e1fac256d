"""Pixel shards and batches: size and random access against the source, clips a second of one process, and the floor.

    python benchmarks/bench_batches.py --clips ../shared/data/clips/train --dir /tmp/bench-batches --json batches.json

A lossless shard is compared with its source, frame by frame, before it is timed. The floor is what Pillow takes to
decode the frames that the batches show, and nothing else. Milliseconds are of the processor, so that other work on the
machine counts little; one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
import torch
from PIL import Image, features

from tokenreel.data.opening import open_collection
from tokenreel.data.pixel_manifest import PixelSpec
from tokenreel.data.pixel_shards import PixelReader
from tokenreel.jobs.prepare import prepare_pixels
from tokenreel.media.frames import Selection
from tokenreel.train.batches import BatchConfig, BatchStream, Source

SPECS = {
    "webp 90": PixelSpec(),
    "jpeg 90": PixelSpec(codec="jpeg"),
    "webp lossless": PixelSpec(quality=None),
}
T, SIDE, BATCH = 17, 128, 8


def used_ms(work: Callable[[], Any]) -> float:
    """Milliseconds of processor time of all threads."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def compare(source: Path, folder: Path) -> None:
    """The first three clips of a lossless folder are their sources, to the bit."""
    packed = open_collection(folder, split="all")
    for index in range(min(3, len(packed))):
        example = packed[index]
        want = open_collection(example.meta["origin"])[0].clip()
        if min(want.size[1:]) <= 256 and (want.fps or 99) <= 15.2:
            assert np.array_equal(example.array(), want.frames_THWC[: example.payload.entry.num_frames]), example.key


def pack(source: Path, folder: Path, spec: PixelSpec) -> dict[str, Any]:
    begin = time.perf_counter()
    used = used_ms(lambda: prepare_pixels([source], folder, spec=spec))
    took = time.perf_counter() - begin
    manifest = PixelReader(folder).manifest
    pixels = sum(e.height * e.width * e.num_frames for e in map(PixelReader(folder).entry, range(manifest.num_clips)))
    return {
        "clips": manifest.num_clips,
        "frames": manifest.num_frames,
        "megabytes": round(manifest.num_bytes / 1e6, 1),
        "kilobytes_per_frame": round(manifest.num_bytes / 1e3 / manifest.num_frames, 2),
        "bits_per_pixel": round(8 * manifest.num_bytes / pixels, 3),
        "frames_per_second": round(manifest.num_frames / took, 1),
        "processor_ms_per_frame": round(used / manifest.num_frames, 2),
    }


def access(folder: Path, runs: int) -> dict[str, Any]:
    """Reading, and decoding, ``T`` consecutive frames of a random clip, milliseconds."""
    reader = PixelReader(folder)
    rng = np.random.default_rng(0)
    long = [index for index in range(len(reader)) if reader.entry(index).num_frames >= T]
    reading, decoding = [], []
    for index in rng.choice(long, runs).tolist():
        start = int(rng.integers(reader.entry(index).num_frames - T + 1))
        held: list[bytes] = []
        reading.append(used_ms(lambda: held.extend(reader.pictures(index, range(start, start + T)))))
        decoding.append(used_ms(lambda: [Image.open(io.BytesIO(one)).load() for one in held]))
    return {"read_ms": spread(reading), "decode_ms": spread(decoding)}


def source_access(source: Path, runs: int) -> dict[str, float]:
    """The same of the video files: opened, sought and decoded."""
    clips = open_collection(source, split="all")
    rng = np.random.default_rng(0)
    times = []
    for index in rng.integers(0, len(clips), runs).tolist():
        with clips[index].open() as film:
            room = max(0, (film.info.num_frames or 0) - T) / (film.info.fps or 15)
        selection = Selection(start_seconds=float(rng.random() * room), max_frames=T)
        times.append(used_ms(lambda: clips[index].clip(selection)))
    return spread(times)


def batches(folder: Path, count: int) -> dict[str, Any]:
    """Milliseconds a clip of batches of 17 frames at 128x128, and clips a second of one worker on the clock."""
    config = BatchConfig(
        shape="stacked", batch_size=BATCH, num_frames=T, size=SIDE, patch_size=(4, 8, 8), is_causal=True
    )
    sources = [Source(data=folder, split="all")]
    alone = BatchStream(sources, config)
    alone.batch(0)
    times = [used_ms(lambda: alone.batch(index)) / BATCH for index in range(1, count + 1)]
    with BatchStream(sources, config, num_workers=1) as stream:
        coming = iter(stream)
        for _ in range(4):
            next(coming)
        begin = time.perf_counter()
        for _ in range(count):
            next(coming)
        took = time.perf_counter() - begin
    return {"clip_ms": spread(times), "clips_per_second_of_one_worker": round(count * BATCH / took, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="a folder of videos")
    parser.add_argument("--runs", type=int, default=60, help="random accesses")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--dir", type=Path, required=True, help="a folder to make and to delete at the end")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.dir.mkdir(parents=True)
    result: dict[str, Any] = {
        "source_megabytes": round(sum(path.stat().st_size for path in args.clips.rglob("*.mp4")) / 1e6, 1),
        "source_17_frames_ms": source_access(args.clips, args.runs),
    }
    try:
        for name, spec in SPECS.items():
            folder = args.dir / name.replace(" ", "-")
            result[name] = pack(args.clips, folder, spec)
            if spec.quality is None:
                compare(args.clips, folder)
            result[name] |= access(folder, args.runs) | batches(folder, args.batches)
            print(name, result[name], flush=True)
    finally:
        shutil.rmtree(args.dir)
    result["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": sys.version.split()[0],
        "pillow": PIL.__version__,
        "webp": features.version("webp"),
        "pyarrow": pa.__version__,
        "torch": torch.__version__,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
