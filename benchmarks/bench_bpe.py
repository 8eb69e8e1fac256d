"""Byte-pair merges against the figures to reach, beside rustbpe and Hugging Face tokenizers where they are installed.

Outputs are compared first: with ten lines of plain Python on a slice, and encode against decode on everything.

    python benchmarks/bench_bpe.py [--quick] [--json benchmarks/results/bpe.json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.tokens import bpe

DATA = Path(os.environ.get("TOKENREEL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SIZE = 20_000_000


def pixel_bytes(size: int) -> tuple[np.ndarray, str]:
    """Raw bytes of 16x16 patches of film, or of the rendered sample where there is none."""
    from tokenreel.media.frames import Selection
    from tokenreel.media.read import read
    from tokenreel.patches.patchify import patchify
    from tokenreel.samples import SAMPLE_CLIP

    path = DATA / "bench" / "household-720p-20s.mp4"
    clip = read(path if path.is_file() else SAMPLE_CLIP, Selection(uniform=8 if path.is_file() else 60))
    data = patchify(clip.frames_THWC, (1, 16, 16)).reshape(-1)
    return np.resize(data, size), f"patches of {clip.source}"


def colour_planes() -> list[np.ndarray]:
    """Red, green and blue of eight frames, each (t, h, w)."""
    from tokenreel.media.frames import Selection
    from tokenreel.media.read import read
    from tokenreel.samples import SAMPLE_CLIP

    path = DATA / "bench" / "household-720p-20s.mp4"
    selection = Selection(start_seconds=5, max_frames=8) if path.is_file() else Selection()
    clip = read(path if path.is_file() else SAMPLE_CLIP, selection)
    return [np.ascontiguousarray(clip.frames_THWC[..., channel]) for channel in range(3)]


def decimal_text(size: int) -> np.ndarray:
    """Pixel values as decimal numbers and spaces, as min-patchnizer trains on."""
    values = pixel_bytes(size // 3)[0]
    return np.frombuffer(" ".join(map(str, values.tolist())).encode(), np.uint8)[:size]


def learned_ids(count: int = 2000, length: int = 1024, codes: int = 64_000) -> np.ndarray:
    """(count, length) ids with a skewed distribution and neighbours that depend on each other, as codes have."""
    rng = np.random.default_rng(0)
    common = np.minimum(rng.zipf(1.15, (count, length)), codes) - 1
    follows = (common[:, :-1] * 48271 + 11) % codes
    ids = common.copy()
    ids[:, 1:] = np.where(rng.random((count, length - 1)) < 0.4, follows, common[:, 1:])
    return ids.astype(np.uint16)


def reference(ids: list[int], num_merges: int) -> list[tuple[int, int]]:
    """Exact greedy merges in plain Python."""
    merges = []
    for new in range(256, 256 + num_merges):
        counts = Counter(itertools.pairwise(ids))
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(pair)
        out, i = [], 0
        while i < len(ids):
            hit = i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair
            out.append(new if hit else ids[i])
            i += 2 if hit else 1
        ids = out
    return merges


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, list[float]]:
    """Median seconds, and all."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), times


def peak_mib(what: str) -> float:
    """Peak memory of training in a process of its own."""
    code = (
        f"import re, runpy, sys; sys.argv = ['x']; m = runpy.run_path({str(Path(__file__).resolve())!r})\n"
        "from tokenreel.tokens import bpe\n"
        f"d = m[{what!r}](m['SIZE']); d = d[0] if isinstance(d, tuple) else d\n"
        "bpe.train([d], vocab_size=512, boundaries=False)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return int(out.split()[-1]) / 1024


ROWS: list[dict[str, Any]] = []


def row(name: str, seconds: float, times: list[float], target: str, **more: Any) -> None:
    ROWS.append(
        {
            "name": name,
            "seconds": round(seconds, 4),
            "spread": [round(min(times), 4), round(max(times), 4)],
            "target": target,
            **more,
        }
    )
    extra = "  ".join(f"{key} {value}" for key, value in more.items())
    print(f"{name:58} {seconds:8.3f} s  [{min(times):.3f}, {max(times):.3f}]  target {target:14} {extra}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat, no other libraries")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    repeats = 1 if args.quick else 5
    pixels, source = pixel_bytes(SIZE)
    text = decimal_text(SIZE)
    print(f"{source}; {platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread")

    start = time.perf_counter()
    small = bpe.train([pixels[:3000]], vocab_size=296, boundaries=False)
    small.decode(small.encode(pixels[:3000]))
    print(f"first call, numba's compiling or loading of its cache included: {time.perf_counter() - start:.2f} s")
    for slice_ in (pixels[:3000], text[:3000]):
        merges = bpe.train([slice_], vocab_size=296, boundaries=False)
        assert merges.pairs.tolist() == [list(pair) for pair in reference(slice_.tolist(), 40)]
    print("merges equal plain Python's on 3,000 bytes of each")

    for name, data, target in (("decimal text", text, "1.2 s"), ("raw pixel bytes", pixels, "1.0 s")):
        merges = bpe.train([data], vocab_size=512, boundaries=False)
        assert np.array_equal(merges.decode(merges.encode(data)), data)
        seconds, times = timed(lambda: bpe.train([data], vocab_size=512, boundaries=False), repeats)
        row(f"train 256 merges, 20 MB of {name}", seconds, times, target)
        for size in (1_000_000, SIZE):
            part = data[:size]
            seconds, times = timed(lambda: merges.encode(part), repeats)
            row(f"encode {size / 1e6:.0f} MB of {name}", seconds, times, "0.1 s" if size < SIZE else "20 x that")
        merged = merges.encode(data)
        seconds, times = timed(lambda: merges.decode(merged), repeats)
        row(f"decode to 20 MB of {name}", seconds, times, "200 MB/s", mb_per_second=round(20 / seconds))
    for name, what in (("decimal text", "decimal_text"), ("raw pixel bytes", "pixel_bytes")):
        peak = peak_mib(what)
        ROWS.append({"name": f"peak memory, {name}", "mib": round(peak), "target": "1.2 GB"})
        print(f"peak memory of a process that trains on 20 MB of {name}: {peak:.0f} MiB with the data, target 1.2 GB")
    seconds, times = timed(
        lambda: bpe.train([pixels], vocab_size=256 + 32768, boundaries=False), 1 if args.quick else 2
    )
    row("train 32,768 merges, 20 MB of raw pixel bytes", seconds, times, "20 s")

    ids = learned_ids()
    merges = bpe.train(ids, vocab_size=64_000 + 8192, base_size=64_000)
    many = list(ids)
    assert all(np.array_equal(merges.decode(part), whole) for part, whole in zip(merges.encode_many(many), many))
    seconds, times = timed(lambda: bpe.train(ids, vocab_size=64_000 + 8192, base_size=64_000), repeats)
    row("train 8,192 merges, 2,000 x 1,024 ids of 64,000", seconds, times, "2.5 s", merges=merges.num_merges)
    seconds, times = timed(lambda: merges.encode_many(many), repeats)
    row("encode them", seconds, times, "3 M ids/s", million_per_second=round(ids.size / seconds / 1e6, 2))

    planes, squares = colour_planes(), [part.reshape(1, 32, 32) for part in ids]
    for name, parts in ((f"3 colour planes {planes[0].shape}", planes), ("2,000 grids 1x32x32 of ids", squares)):
        base, merges_wanted = (256, 256) if parts is planes else (64_000, 8192)
        flat_parts = [part.reshape(-1) for part in parts]
        found = bpe.train(parts, vocab_size=base + merges_wanted, base_size=base, axes="grid")
        assert all(np.array_equal(found.decode(found.encode(part), grid=part.shape), part) for part in parts[:3])
        bpe.train(flat_parts, vocab_size=base + merges_wanted, base_size=base)
        pairs = []
        for _ in range(repeats):
            flat, _ = timed(lambda: bpe.train(flat_parts, vocab_size=base + merges_wanted, base_size=base), 1)
            along, _ = timed(lambda: bpe.train(parts, vocab_size=base + merges_wanted, base_size=base, axes="grid"), 1)
            pairs.append((flat, along))
        ratio = statistics.median(along / flat for flat, along in pairs)
        row(
            f"train {merges_wanted:,} grid merges, {name}",
            statistics.median(a for _, a in pairs),
            [a for _, a in pairs],
            "2.5 x flat",
            ratio=round(ratio, 2),
        )
    if not args.quick:
        others(text, ids)
    if args.json:
        about = {"python": platform.python_version(), "numpy": np.__version__, "cores": os.cpu_count()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": about, "rows": ROWS}, indent=1))


def others(text: np.ndarray, ids: np.ndarray) -> None:
    """rustbpe on the decimal text (no splitting), tokenizers on the ids as characters."""
    try:
        import rustbpe
    except ImportError:
        print("rustbpe is not installed: pip install -e '.[bench]'")
    else:
        part = text.tobytes().decode()
        tokenizer = rustbpe.Tokenizer()
        start = time.perf_counter()
        tokenizer.train_from_iterator(iter([part]), 512, pattern=r"[\s\S]+")
        row("rustbpe: train 256 merges, 20 MB of decimal text", time.perf_counter() - start, [0, 0], "-")
    try:
        from tokenizers import Tokenizer, models, trainers
    except ImportError:
        print("tokenizers is not installed: pip install -e '.[bench]'")
        return
    words = ["".join(chr(0x10000 + int(i)) for i in part) for part in ids]
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=len(np.unique(ids)) + 8192, show_progress=False)
    start = time.perf_counter()
    tokenizer.train_from_iterator(words, trainer)
    seconds = time.perf_counter() - start
    row("tokenizers: train 8,192 merges, 2,000 x 1,024 ids", seconds, [seconds, seconds], "-")
    start = time.perf_counter()
    tokenizer.encode_batch(words)
    seconds = time.perf_counter() - start
    row(
        "tokenizers: encode them",
        seconds,
        [seconds, seconds],
        "-",
        million_per_second=round(ids.size / seconds / 1e6, 2),
    )


if __name__ == "__main__":
    main()
