"""Token shards: how fast they are written and read, in order and at random, and what a record costs.

    python benchmarks/bench_shards.py --records 1000000 --dir /tmp/bench-shards --json shards.json

Every record that was written is read back and compared before anything is timed. Each repeat first writes and reads
the same bytes as plain files in the same folder: the floor, what the machine can do at that moment.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenreel.tokens.shards import ShardReader, ShardWriter
from tokenreel.types import Grid

BATCH = 8192
SHIFT = 37
BLOCK = 2 << 20
SHARD = 256 << 20
GRID, SIZE = Grid(t=4, h=16, w=16), (13, 256, 256)
SPEC: dict[str, Any] = {"tokenizer": "cvivit", "fingerprint": "0" * 64, "codebook_size": 65536, "layout": "grid"}


class Corpus:
    """Records that are ready before the clock starts: shifted views into a pool of random ids, and their columns."""

    def __init__(self, num_records: int, num_tokens: int) -> None:
        self.num_records, self.num_tokens = num_records, num_tokens
        self._starts = range(0, num_records, BATCH)
        shape = BATCH + SHIFT * len(self._starts), num_tokens
        self._pool = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
        self.prepared = [self.columns(start, min(BATCH, num_records - start)) for start in self._starts]

    @property
    def raw_bytes(self) -> int:
        """Bytes of all ids."""
        return self.num_records * self.num_tokens * 2

    def batches(self) -> Iterator[tuple[int, Any]]:
        """``(number of the first record, ids_NL)``; no two batches are equal, and none is computed here."""
        for number, start in enumerate(self._starts):
            first = number * SHIFT
            yield start, self._pool[first : first + min(BATCH, self.num_records - start)]

    def columns(self, start: int, rows: int) -> dict[str, Any]:
        """What ``write_batch`` takes beside the ids; captions of 54 characters, a source for eight clips."""
        numbers = range(start, start + rows)
        return {
            "captions": [
                f"a {('red', 'green', 'blue')[n % 3]} circle moves left past a square, clip {n}" for n in numbers
            ],
            "labels": np.arange(start, start + rows) % 10,
            "sources": [f"clips/{n // 8:07d}.mp4" for n in numbers],
            "start_seconds": np.arange(start, start + rows) % 8 * 0.52,
            "end_seconds": np.arange(start, start + rows) % 8 * 0.52 + 0.52,
        }


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def evict(folder: Path) -> None:
    """Ask the system to forget the files of ``folder``, so that the next reading comes from the disk."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def floor_write(corpus: Corpus, folder: Path) -> float:
    folder.mkdir()
    begin = time.perf_counter()
    done, file = SHARD, None
    for start, ids in corpus.batches():
        if done >= SHARD:
            if file:
                file.close()
            file, done = (folder / f"{start}.raw").open("wb", buffering=0), 0
        view = memoryview(ids.reshape(-1).view(np.uint8))
        for at in range(0, len(view), BLOCK):
            file.write(view[at : at + BLOCK])
        done += len(view)
    if file:
        file.close()
    return time.perf_counter() - begin


def floor_read(folder: Path) -> float:
    buffer = bytearray(BLOCK)
    begin = time.perf_counter()
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - begin


def write(corpus: Corpus, folder: Path) -> tuple[float, float]:
    """Seconds on the clock from opening to closing, and seconds of processor time of all threads.

    Nothing of the benchmark's own runs in between: the writer's thread would use the time.
    """
    begin, begin_used = time.perf_counter(), time.process_time()
    with ShardWriter(folder, **SPEC, shard_bytes=SHARD) as writer:
        for (_, ids), columns in zip(corpus.batches(), corpus.prepared, strict=True):
            writer.write_batch(ids, grid=GRID, size=SIZE, fps=25.0, **columns)
    return time.perf_counter() - begin, time.process_time() - begin_used


def compare(corpus: Corpus, folder: Path) -> None:
    reader = ShardReader(folder)
    assert len(reader) == corpus.num_records
    got = reader.iter_ids(batch_records=BATCH)
    for start, ids in corpus.batches():
        ids_N, counts_B = next(got)
        assert np.array_equal(ids_N.reshape(ids.shape), ids)
        assert (counts_B == corpus.num_tokens).all()
        for row in (0, len(ids) // 2, len(ids) - 1):
            tokens, want = reader[start + row], corpus.columns(start + row, 1)
            assert np.array_equal(tokens.ids_L, ids[row])
            assert tokens.meta == {
                key.removesuffix("s") if key in ("captions", "labels", "sources") else key: value[0]
                for key, value in want.items()
            }
    assert next(got, None) is None


def read_all(folder: Path) -> float:
    def work() -> None:
        for _ in ShardReader(folder).iter_ids(batch_records=1024):
            pass

    return seconds(work)


def write_one_by_one(reader: ShardReader, folder: Path) -> float:
    """Records a second through ``write``, of 20,000 (or fewer) Tokens that lie in memory."""
    records = list(reader.iter(0, 20_000))
    with ShardWriter(folder, **SPEC) as writer:
        took = seconds(lambda: [writer.write(tokens) for tokens in records])
    return len(records) / took


def access_times(read: Callable[[int], Any], indices: Any) -> dict[str, float]:
    times = np.empty(len(indices))
    for number, index in enumerate(indices.tolist()):
        begin = time.perf_counter()
        read(index)
        times[number] = time.perf_counter() - begin
    milliseconds = 1e3 * times
    names = {"median_ms": 50, "p99_ms": 99, "p99.9_ms": 99.9, "max_ms": 100}
    return {name: round(float(np.percentile(milliseconds, share)), 4) for name, share in names.items()}


def sizes(corpus: Corpus, folder: Path) -> dict[str, Any]:
    columns: dict[str, int] = {}
    total = 0
    for path in sorted(folder.glob("*.parquet")):
        metadata = pq.read_metadata(path)
        total += path.stat().st_size
        for group in range(metadata.num_row_groups):
            for leaf in range(metadata.num_columns):
                column = metadata.row_group(group).column(leaf)
                name = column.path_in_schema.split(".")[0]
                columns[name] = columns.get(name, 0) + column.total_compressed_size
    records = corpus.num_records
    return {
        "ids_over_raw": round(columns["ids"] / corpus.raw_bytes, 5),
        "other_columns_bytes_per_record": round((sum(columns.values()) - columns["ids"]) / records, 2),
        "footer_bytes_per_record": round((total - sum(columns.values())) / records, 2),
        "bytes_per_record": {name: round(size / records, 2) for name, size in columns.items()},
    }


def repeat(corpus: Corpus, folder: Path, first: bool) -> dict[str, float]:
    """One round of writing and reading, MB/s: the floor, ours, and the floor of writing once more."""
    raw, out, megabytes = folder / "raw", folder / "shards", corpus.raw_bytes / 1e6
    rates = {"floor_write": floor_write(corpus, raw)}
    rates["floor_read"] = floor_read(raw)
    evict(raw)
    rates["floor_read_from_disk"] = floor_read(raw)
    shutil.rmtree(raw)
    rates["write"], rates["write_per_processor_second"] = write(corpus, out)
    if first:
        compare(corpus, out)
    rates["read"] = read_all(out)
    evict(out)
    rates["read_from_disk"] = read_all(out)
    rates["verify"] = seconds(ShardReader(out).verify)
    rates["floor_write_after"] = floor_write(corpus, raw)
    shutil.rmtree(raw)
    return {name: round(megabytes / took, 1) for name, took in rates.items()}


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    corpus = Corpus(args.records, args.tokens)
    rounds = []
    for number in range(args.repeats):
        shutil.rmtree(folder / "shards", ignore_errors=True)
        rounds.append(repeat(corpus, folder, first=number == 0))
        print(" ", rounds[-1], flush=True)
    result: dict[str, Any] = {"sizes": sizes(corpus, folder / "shards")}
    result["MB_per_second"] = {
        name: {
            "median": statistics.median(values := [row[name] for row in rounds]),
            "min": min(values),
            "max": max(values),
        }
        for name in rounds[0]
    }
    indices = np.random.default_rng(1).integers(0, args.records, args.accesses)
    reader = ShardReader(folder / "shards")
    result["random_access"] = {
        "tokens_fresh_reader": access_times(reader.__getitem__, indices),
        "tokens_again": access_times(reader.__getitem__, indices[::-1]),
        "ids_fresh_reader": access_times(ShardReader(folder / "shards").ids, indices),
    }
    result["write_tokens_records_per_second"] = round(write_one_by_one(reader, folder / "single"))
    count = min(args.records, 100_000)
    took = seconds(lambda: [None for _ in reader.iter(0, count)])
    result["iter_tokens_records_per_second"] = round(count / took)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=1024, choices=[1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--accesses", type=int, default=100_000)
    parser.add_argument("--dir", type=Path, required=True, help="a folder to make and to delete at the end")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.dir.mkdir(parents=True)
    try:
        result = measure(args, args.dir)
    finally:
        shutil.rmtree(args.dir)
    result["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
    }
    result["records"], result["raw_bytes"] = args.records, args.records * args.tokens * 2
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
