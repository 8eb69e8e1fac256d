from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenreel.data.opening import open_collection
from tokenreel.data.pixel_manifest import PixelSpec
from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.jobs.prepare import prepare_pixels
from tokenreel.media.pixels import to_video
from tokenreel.media.write import write
from tokenreel.train import batches as module
from tokenreel.train.batches import RENDERED, Batch, BatchConfig, BatchStream, Source, validation_batches
from tokenreel.types import Clip

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine's cores

STACKED = BatchConfig(
    shape="stacked", batch_size=3, num_frames=(1, 9), size=(16, 24), patch_size=(4, 8, 8), is_causal=True,
    stride=(1, 2),
)  # fmt: skip
PACKED = BatchConfig(
    shape="packed", budget=100, num_frames=(1, 8), size=(16, 24), aspect=(0.75, 1.5), patch_size=(2, 8, 8),
    token_counts=(4, 16), fps=(5.0, 10.0),
)  # fmt: skip


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of noise, three pictures, a caption; and the videos packed."""
    root = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for index, count in enumerate((12, 20, 5, 30)):
        pixels = rng.integers(0, 256, (count, 32, 40, 3), dtype=np.uint8)
        write(root / f"videos/{index}.mkv", Clip(frames_THWC=pixels, pts_seconds=np.arange(count) / 10, fps=10.0))
    (root / "videos/0.txt").write_text("noise")
    (root / "pictures").mkdir()
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(root / f"pictures/{index}.png")
    prepare_pixels([root / "videos"], root / "packed", spec=PixelSpec(quality=None))
    return root


def sources(media: Path) -> list[Source]:
    return [
        Source(data=media / "packed", weight=2),
        Source(data=media / "videos"),
        Source(data=media / "pictures", is_single=True),
    ]


def same(one: Batch, other: Batch) -> None:
    assert (one.index, one.captions, one.sources) == (other.index, other.captions, other.sources)
    assert len(one) == len(other)
    for a, b in zip(one.videos, other.videos, strict=True):
        assert torch.equal(a, b)
    assert (one.token_counts is None) == (other.token_counts is None)
    if one.token_counts is not None and other.token_counts is not None:
        assert torch.equal(one.token_counts, other.token_counts)


def all_same(some: list[Batch], others: list[Batch]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others):
        same(one, other)


def test_stacked_batches_are_of_one_size(media):
    found = list(islice(BatchStream(sources(media), STACKED, seed=3), 12))
    assert [batch.index for batch in found] == list(range(12))
    for batch in found:
        assert isinstance(batch.videos, torch.Tensor)
        assert batch.videos.shape[:2] == (3, 3)
        assert batch.videos.dtype == torch.float32
        assert -1 <= batch.videos.min() < -0.4
        assert 0.4 < batch.videos.max() <= 1
        assert batch.videos.shape[2] % 4 == 1
        assert batch.token_counts is None
    assert len({batch.videos.shape for batch in found}) > 3
    names = [name for batch in found for name in batch.sources]
    assert {Path(name.split(":")[0]).parts[len(media.parts)] for name in names} == {"packed", "videos", "pictures"}
    captions = {(Path(n.split(":")[-1]).name, c) for batch in found for n, c in zip(batch.sources, batch.captions)}
    assert ("0.mkv", "noise") in captions
    assert ("1.mkv", None) in captions


def test_packed_batches_hold_mixed_sizes_within_the_budget(media):
    found = list(islice(BatchStream(sources(media), PACKED), 12))
    shapes = {tuple(video.shape) for batch in found for video in batch.videos}
    assert len(shapes) > 10
    for batch in found:
        assert isinstance(batch.videos, tuple)
        assert batch.token_counts is not None
        counts = batch.token_counts.tolist()
        patches = [-(-v.shape[1] // 2) * v.shape[2] * v.shape[3] // 64 for v in batch.videos]
        assert sum(patches) + sum(counts) <= 100
        assert all(4 <= count <= 16 for count in counts)
        for video, name in zip(batch.videos, batch.sources):
            assert ("pictures" not in name) or video.shape[1] == 1


def test_the_pixels_are_those_of_the_source(media):
    """A view of whole size without mirroring is a run of the source's frames, bit for bit."""
    config = BatchConfig(
        shape="stacked", batch_size=2, num_frames=4, size=32, crop_scale=1.0, flip=0.0, stride=2,
    )  # fmt: skip
    whole = {one.key: one.array() for one in open_collection(media / "videos")}
    for batch in islice(BatchStream([Source(data=media / "packed")], config), 6):
        for video, name in zip(batch.videos, batch.sources):
            frames = whole[name.split(":")[-1]]
            matches = [
                torch.equal(video, to_video(frames[[at, at + 2, at + 4, at + 6]][:, :, left : left + 32]))
                for at in range(len(frames) - 6)
                for left in range(9)
            ]
            assert any(matches) or len(frames) < 7


@pytest.mark.parametrize("config", [STACKED, PACKED])
def test_a_batch_depends_on_seed_number_and_rank_alone(media, config):
    found = list(islice(BatchStream(sources(media), config, seed=1), 6))
    fresh = BatchStream(sources(media), config, seed=1)
    for index in (5, 0, 3):
        same(fresh.batch(index), found[index])
    assert fresh.index == 0
    assert BatchStream(sources(media), config, seed=2).batch(0).sources != found[0].sources
    other = BatchStream(sources(media), config, seed=1, rank=1, world_size=2)
    assert other.batch(0).sources != found[0].sources


@pytest.mark.parametrize(("config", "cut", "workers"), [(STACKED, 3, (2, 1)), (PACKED, 5, (1, 0)), (PACKED, 2, (0, 2))])
def test_resume_is_exact_with_workers(media, config, cut, workers):
    whole = list(islice(BatchStream(sources(media), config, seed=4), 8))
    with BatchStream(
        sources(media), config, seed=4, num_workers=workers[0], start_method="fork" if workers[0] else None
    ) as first:  # fmt: skip
        begun = list(islice(first, cut))
        state = json.loads(json.dumps(first.state_dict()))
    with BatchStream(
        sources(media), config, seed=4, num_workers=workers[1], start_method="fork" if workers[1] else None
    ) as second:  # fmt: skip
        second.load_state_dict(state)
        all_same(begun + list(islice(second, 8 - cut)), whole)
        assert second.index == 8


KILLED = """
import hashlib, json, sys, time
from pathlib import Path
from tokenreel.train.batches import BatchConfig, BatchStream, Source

config = BatchConfig(**json.loads(sys.argv[2]))
with BatchStream([Source(data=sys.argv[1])], config, num_workers=1, start_method="fork") as stream:
    for batch in stream:
        digest = hashlib.sha256(b"".join(video.numpy().tobytes() for video in batch.videos)).hexdigest()
        print(json.dumps([digest, stream.state_dict()]), flush=True)
        time.sleep(0.05)
"""


def test_a_killed_run_goes_on_with_what_it_had_not_used(media):
    import hashlib

    words = [sys.executable, "-c", KILLED, str(media / "packed"), json.dumps(PACKED.as_json())]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        lines = [json.loads(run.stdout.readline()) for _ in range(5)]
        run.send_signal(signal.SIGKILL)
    alone = BatchStream([Source(data=media / "packed")], PACKED)
    resumed = BatchStream([Source(data=media / "packed")], PACKED)
    resumed.load_state_dict(lines[-1][1])
    whole = list(islice(alone, 8))
    digests = [hashlib.sha256(b"".join(v.numpy().tobytes() for v in batch.videos)).hexdigest() for batch in whole]
    assert [digest for digest, _ in lines] == digests[:5]
    all_same(list(islice(resumed, 3)), whole[5:])


def test_ranks_share_an_epoch(tmp_path):
    np.savez(tmp_path / "n.npz", train_images=np.zeros((60, 8, 8), np.uint8))
    config = BatchConfig(shape="stacked", batch_size=5, num_frames=1, size=8)
    seen = []
    for rank in range(3):
        stream = BatchStream([Source(data=tmp_path / "n.npz")], config, rank=rank, world_size=3)
        seen.append([name for batch in islice(stream, 4) for name in batch.sources])
    assert sorted(name for names in seen for name in names) == sorted(f"{tmp_path}/n.npz:train/{i}" for i in range(60))


def test_a_state_of_another_rank_and_wrong_states(media):
    states = []
    for rank in range(2):
        stream = BatchStream(sources(media), PACKED, rank=rank, world_size=2)
        list(islice(stream, 3))
        states.append(stream.state_dict())
    other = BatchStream(sources(media), PACKED, rank=1, world_size=2)
    other.load_state_dict(states[0])
    same(next(iter(other)), BatchStream(sources(media), PACKED, rank=1, world_size=2).batch(3))
    assert states[0]["first"] != states[1]["first"]
    for changes, message in [
        ({"seed": 9}, "saved with seed=0, this run has 9"),
        ({"world_size": 4}, "saved with world_size=2"),
    ]:
        wrong = BatchStream(sources(media), PACKED, **{"rank": 0, "world_size": 2, **changes})
        with pytest.raises(MismatchError, match=message):
            wrong.load_state_dict(states[0])
    with pytest.raises(MismatchError, match="saved with sources="):
        BatchStream(sources(media)[:1], PACKED, world_size=2).load_state_dict(states[0])
    with pytest.raises(MismatchError, match="saved with config="):
        BatchStream(sources(media), STACKED, world_size=2).load_state_dict(states[0])
    with pytest.raises(MismatchError, match="has version 7, expected 1"):
        BatchStream(sources(media), PACKED, world_size=2).load_state_dict({**states[0], "version": 7})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_clips_are_replaced_and_named_once(media, tmp_path, num_workers):
    for index in range(4):
        (tmp_path / f"{index}.mkv").write_bytes((media / f"videos/{index}.mkv").read_bytes())
    (tmp_path / "bad.mkv").write_bytes(b"nothing")
    options = {"num_workers": num_workers, "start_method": "fork" if num_workers else None}
    config = BatchConfig(shape="stacked", batch_size=4, num_frames=3, size=16)
    with BatchStream([Source(data=tmp_path)], config, **options) as stream:  # type: ignore[arg-type]
        with pytest.warns(TokenReelWarning, match=r"replaced the broken example bad\.mkv") as caught:
            found = list(islice(stream, 6))
        assert [str(one.message).split(":")[0] for one in caught] == ["replaced the broken example bad.mkv"]
        assert [one.key for one in stream.broken] == ["bad.mkv"]
        state = stream.state_dict()
    assert all(len(batch) == 4 for batch in found)
    alone = BatchStream([Source(data=tmp_path)], config)
    alone.load_state_dict({**state, "index": 0, "first": {}})  # it knows of the broken one: no second warning
    all_same(list(islice(alone, 6)), found)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_but_broken_clips_is_an_error(tmp_path, num_workers):
    for index in range(3):
        (tmp_path / f"{index}.mp4").write_bytes(b"nothing")
    config = BatchConfig(shape="stacked", batch_size=4, num_frames=3, size=16)
    options = {"num_workers": num_workers, "start_method": "fork" if num_workers else None}
    with (
        BatchStream([Source(data=tmp_path)], config, **options) as stream,  # type: ignore[arg-type]
        pytest.warns(TokenReelWarning),
        pytest.raises(InputError, match=r"none of 3 examples of .* that were tried can be used"),
    ):
        next(iter(stream))


def test_empty_and_wrong_arguments_are_refused(media, tmp_path):
    with pytest.raises(InputError, match="it is empty"):
        BatchStream([Source(data=tmp_path)], STACKED)
    with pytest.raises(InputError, match="at least one source"):
        BatchStream([], STACKED)
    with pytest.raises(InputError, match="rank must lie in"):
        BatchStream(sources(media), STACKED, rank=2, world_size=2)
    with pytest.raises(InputError, match="num_workers must be 0 or more"):
        BatchStream(sources(media), STACKED, num_workers=-1)


def test_an_iteration_ends_when_another_begins(media):
    stream = BatchStream(sources(media), STACKED)
    old = iter(stream)
    first = next(old)
    fresh = next(iter(stream))
    assert (first.index, fresh.index) == (0, 1)
    with pytest.raises(InputError, match="this iteration has ended"):
        next(old)


def test_rendered_scenes_mix_with_files(media):
    config = BatchConfig(shape="stacked", batch_size=8, num_frames=2, size=8)
    mixed = [Source(data=media / "packed"), Source(data=RENDERED)]
    batch = BatchStream(mixed, config).batch(0)
    rendered = [name for name in batch.sources if name.startswith("rendered:")]
    assert 0 < len(rendered) < 8
    assert len(set(rendered)) == len(rendered)
    same(BatchStream(mixed, config).batch(0), batch)


def test_global_random_numbers_are_left_alone(media):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    list(islice(BatchStream(sources(media), STACKED), 2))
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])  # noqa: NPY002


def test_validation_is_every_example_once_from_its_middle(media):
    config = BatchConfig(
        shape="stacked", batch_size=3, num_frames=(5, 9), size=24, patch_size=(4, 8, 8), is_causal=True
    )
    both = [Source(data=media / "packed"), Source(data=media / "pictures")]
    found = list(validation_batches(both, config))
    assert [(batch.index, len(batch), batch.videos[0].shape) for batch in found] == [
        (0, 3, (3, 9, 24, 24)), (1, 3, (3, 9, 24, 24)), (2, 1, (3, 9, 24, 24)),
    ]  # fmt: skip
    all_same(found, list(validation_batches(both, config)))
    frames = open_collection(media / "videos")[1].array()[:9, :, 4:36]
    means = to_video(frames).mean((2, 3))
    torch.testing.assert_close(found[0].videos[1].mean((2, 3)), means, atol=0.02, rtol=0)
    assert torch.equal(found[2].videos[0][:, :1].expand(3, 9, 24, 24), found[2].videos[0])
    native = BatchConfig(shape="packed", budget=700, num_frames=4, size=32, patch_size=(1, 8, 8), token_counts=(4, 16))
    packed = list(validation_batches(both, native))
    assert torch.equal(packed[0].videos[1], to_video(open_collection(media / "videos")[1].array()[:4, :, 4:36]))
    shapes = [video.shape[1] for batch in packed for video in batch.videos]
    assert shapes == [4, 4, 4, 4, 1, 1, 1]
    assert packed[0].token_counts is not None
    assert set(packed[0].token_counts.tolist()) == {8}


def test_validation_of_scenes_and_broken_files(media, tmp_path):
    config = BatchConfig(shape="stacked", batch_size=2, num_frames=2, size=8)
    with pytest.raises(InputError, match="say how many"):
        list(validation_batches([Source(data=RENDERED)], config))
    assert [len(batch) for batch in validation_batches([Source(data=RENDERED)], config, num_clips=3)] == [2, 1]
    (tmp_path / "bad.mkv").write_bytes(b"nothing")
    with pytest.warns(TokenReelWarning, match="left out"), pytest.raises(InputError, match="none of the examples"):
        list(validation_batches([Source(data=tmp_path)], config))


def test_a_batch_checks_itself():
    videos = torch.zeros(2, 3, 1, 8, 8)
    good = {"videos": videos, "token_counts": None, "captions": (None, None), "sources": ("a", "b"), "index": 0}
    assert repr(Batch(**good)) == "Batch(0: 2x3x1x8x8)"
    assert len(Batch(**{**good, "videos": tuple(videos)})) == 2
    for changes, message in [
        ({"videos": videos[0]}, r"must be \(B, C, T, H, W\)"),
        ({"videos": (videos,)}, r"must be \(C, T, H, W\) each"),
        ({"videos": videos.double()}, "must be float32"),
        ({"videos": ()}, "at least one clip"),
        ({"token_counts": torch.zeros(3, dtype=torch.int32)}, r"int32 \(2,\)"),
        ({"token_counts": torch.zeros(2)}, r"int32 \(2,\)"),
        ({"captions": (None,)}, "2 videos, 1 captions and 2 sources"),
    ]:
        with pytest.raises(InputError, match=message):
            Batch(**{**good, **changes})


def test_it_is_one_place_that_draws_scenes(monkeypatch):
    calls = []

    def drawn(seed: int, num_frames: int, height: int, width: int) -> Clip:
        calls.append((num_frames, height, width))
        return Clip(frames_THWC=np.zeros((num_frames, height, width, 3), np.uint8), pts_seconds=np.arange(num_frames))

    monkeypatch.setattr(module, "rendered_clip", drawn)
    config = BatchConfig(shape="stacked", batch_size=2, num_frames=4, size=8, aspect=2.0, patch_size=(1, 2, 2))
    batch = BatchStream([Source(data=RENDERED)], config).batch(0)
    assert batch.videos[0].shape == (3, 4, 6, 12)
    assert calls == [(4, 6, 12)] * 2
