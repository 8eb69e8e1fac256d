"""The promise of the data room: over 1 to 8 ranks and 0 to 3 workers each, nothing is lost and nothing comes twice."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
from functools import partial
from itertools import islice, zip_longest

import numpy as np
import pytest

from tokenreel.data.collection import Collection, Joined
from tokenreel.data.example import Example
from tokenreel.data.feed import Feeder
from tokenreel.data.opening import open_collection
from tokenreel.data.payload import ArrayPayload
from tokenreel.data.torch_dataset import make_loader
from tokenreel.errors import MediaError, TokenReelWarning
from tokenreel.media.write import write
from tokenreel.tokens.shards import ShardWriter
from tokenreel.types import Clip, Grid, Tokens

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine's cores


class Counted(Collection):
    """Example i is the number i; those in ``bad`` cannot be read."""

    def __init__(self, count, bad=()):
        super().__init__("counted")
        self.count, self.bad = count, frozenset(bad)

    def __len__(self):
        return self.count

    def key(self, index):
        return str(index)

    def _facts(self, index):
        return {}

    def _example(self, index):
        return Example(key=str(index), source=str(index), payload=ArrayPayload(partial(self.pixels, index), str(index)))

    def pixels(self, index):
        if index in self.bad:
            raise MediaError(f"{index} is broken")
        return np.zeros((1, 1, 1, 1), np.uint8)


def read(example, rng):
    if example.kind == "tokens":
        return example.key, int(example.tokens().ids_L.sum()), float(rng.random())
    return example.key, int(example.array().sum()), float(rng.random())


def merged(work, epoch, start, num_workers):
    """The chunks of all workers in the order in which a DataLoader hands them on: one of each in turn."""
    streams = [
        work.chunks(epoch, start, worker=worker, num_workers=max(1, num_workers))
        for worker in range(max(1, num_workers))
    ]
    return [chunk for turn in zip_longest(*streams) for chunk in turn if chunk is not None]


@pytest.mark.parametrize("num_workers", range(4))
@pytest.mark.parametrize("world_size", range(1, 9))
def test_every_example_once_and_in_the_order_of_one_process(world_size, num_workers):
    for count, batch_size in ((50, 3), (world_size, 1), (5, 4)):
        for epoch in range(2):
            taken = []
            for rank in range(world_size):
                feeder = Feeder(Counted(count), read, batch_size=batch_size, rank=rank, world_size=world_size)
                found = merged(feeder._work, epoch, 0, num_workers)
                assert [chunk.number for chunk in found] == list(range(len(found)))
                feeder.set_epoch(epoch)
                assert [[item for _, item in chunk.items] for chunk in found] == list(feeder)
                taken += [int(item[0]) for chunk in found for _, item in chunk.items]
            assert sorted(taken) == list(range(count))


@pytest.mark.parametrize("num_workers", range(4))
@pytest.mark.parametrize("world_size", [1, 2, 5, 8])
def test_resume_of_every_rank_with_other_workers(world_size, num_workers):
    count, batch_size = 50, 3
    for rank in range(world_size):
        whole = list(Feeder(Counted(count), read, batch_size=batch_size, rank=rank, world_size=world_size))
        for cut in range(len(whole) + 1):
            feeder = Feeder(Counted(count), read, batch_size=batch_size, rank=rank, world_size=world_size)
            begun = list(islice(feeder, cut))
            position = json.loads(json.dumps(feeder.state_dict()))["position"]
            rest = merged(feeder._work, 0, position, num_workers)
            assert begun + [[item for _, item in chunk.items] for chunk in rest] == whole


@pytest.mark.parametrize("num_workers", range(4))
@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_broken_examples_are_the_only_ones_missing(world_size, num_workers):
    bad = {0, 7, 8, 9, 31}
    read_keys, broken_keys = [], []
    for rank in range(world_size):
        feeder = Feeder(Counted(50, bad), read, batch_size=4, rank=rank, world_size=world_size)
        for chunk in merged(feeder._work, 0, 0, num_workers):
            read_keys += [int(item[0]) for _, item in chunk.items]
            broken_keys += [int(one.key) for one in chunk.broken]
    assert sorted(read_keys) == sorted(set(range(50)) - bad)
    assert sorted(broken_keys) == sorted(bad)


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 3), (2, 2), (8, 1)])
def test_real_worker_processes(world_size, num_workers):
    taken = []
    for rank in range(world_size):
        options = {"batch_size": 3, "rank": rank, "world_size": world_size, "seed": 4}
        with make_loader(Counted(53), read, num_workers=num_workers, start_method="fork", **options) as loader:
            batches = list(loader)
        assert batches == list(Feeder(Counted(53), read, **options))
        taken += [int(item[0]) for batch in batches for item in batch]
    assert sorted(taken) == list(range(53))


@pytest.fixture
def every_kind(tmp_path):
    """A folder, a table, an npz, two tars and shards, joined; one broken file in the folder and one in a tar."""
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    clip = Clip(frames_THWC=frames, pts_seconds=np.arange(3) / 10, fps=10.0)
    for name in ("a/1.mp4", "a/2.gif", "b/3.png", "b/4.webp"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, clip)
    (tmp_path / "folder/b/broken.mp4").write_bytes(b"no video")
    (tmp_path / "list.csv").write_text("path,start,end\nfolder/a/1.mp4,0,0.15\nfolder/a/1.mp4,0.15,9\n")
    np.savez_compressed(tmp_path / "m.npz", train_images=np.full((5, 4, 4), 7, np.uint8))
    png = (tmp_path / "folder/b/3.png").read_bytes()
    for shard in range(2):
        with tarfile.open(tmp_path / f"s-{shard}.tar", "w") as tar:
            for number in range(4):
                content = b"broken" if (shard, number) == (1, 2) else png
                info = tarfile.TarInfo(f"k{number}.png")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    spec = {"tokenizer": "raw", "fingerprint": "f" * 16, "codebook_size": 1000, "layout": "grid"}
    with ShardWriter(tmp_path / "shards", **spec) as writer:
        for number in range(6):
            ids = np.full(4, number, np.uint16)
            shape = {"grid": Grid(t=1, h=2, w=2), "size": (1, 16, 16)}
            kind = {name: spec[name] for name in ("tokenizer", "fingerprint", "codebook_size", "layout")}
            writer.write(Tokens(ids_L=ids, **shape, **kind))
    names = ("folder", "list.csv", "m.npz", "s-{0..1}.tar", "shards")
    return Joined([open_collection(tmp_path / name) for name in names])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_reader_feeds_and_resumes(every_kind, num_workers):
    def stream(rank, workers):
        options = {"batch_size": 2, "rank": rank, "world_size": 2, "seed": 1}
        return make_loader(every_kind, read, num_workers=workers, start_method="fork" if workers else None, **options)

    taken, broken = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TokenReelWarning)
        for rank in range(2):
            whole = list(stream(rank, 0).items())
            with stream(rank, num_workers) as first:
                begun = list(islice(first.items(), 5))
            with stream(rank, num_workers) as second:
                second.load_state_dict(json.loads(json.dumps(first.state_dict())))
                rest = list(second.items())
            assert begun + rest == whole
            taken += [key for key, _, _ in whole]
            broken += [one.key for one in second.broken]
    assert len(every_kind) == 5 + 2 + 5 + 8 + 6
    assert sorted(broken) == ["b/broken.mp4", "s-1/k2"]
    assert sorted(taken + broken) == sorted(example.key for example in every_kind)
