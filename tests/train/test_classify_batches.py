"""Batches of a labelled set: each example once an epoch, balanced, resumed to the bit; pixels and ids."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokenreel.classify import TokenViViT, TokenViViTConfig, ViViT
from tokenreel.classify.vivit_config import ViViTConfig
from tokenreel.data.augment import VideoAugment, VolumeAugment
from tokenreel.data.collection import Collection
from tokenreel.data.example import Example
from tokenreel.data.labelled import LabelledSet
from tokenreel.data.payload import ArrayPayload, TokensPayload
from tokenreel.errors import FormatError, InputError, MismatchError, TokenReelWarning
from tokenreel.tokenizers.configs import Stack
from tokenreel.train.classify_batches import Kept, LabelledBatchConfig, LabelledStream, labelled_batches
from tokenreel.train.classify_clips import ClipReader, ClipView, fitted
from tokenreel.train.classify_codes import CodeAugment, CodeReader
from tokenreel.types import Grid, Tokens

torch.set_num_threads(1)

STACK = Stack(dim=16, depth=1, num_heads=1, head_dim=16, mlp_dim=16)


class Films(Collection):
    """Arrays whose every pixel is the number of the example, but for the time: frame t is brighter by t."""

    def __init__(self, num: int, *, frames: int = 8, broken: tuple[int, ...] = (), side: int = 8) -> None:
        super().__init__("films")
        self.num, self.frames, self.broken, self.side = num, frames, broken, side
        self.reads: Counter[int] = Counter()

    def __len__(self) -> int:
        return self.num

    def key(self, index: int) -> str:
        return f"film-{index}"

    def _example(self, index: int) -> Example:
        def load() -> np.ndarray[Any, np.dtype[np.uint8]]:
            self.reads[index] += 1
            if index in self.broken:
                raise FormatError("this one is torn")
            frames = np.arange(self.frames, dtype=np.uint8)[:, None, None, None] + np.uint8(10 * index)
            return np.broadcast_to(frames, (self.frames, self.side, self.side, 1)).copy()

        return Example(key=self.key(index), source=self.key(index), payload=ArrayPayload(load, self.key(index)))

    def _facts(self, index: int) -> dict[str, Any]:
        return {}


def labelled_of(films: Collection, targets: list[int] | None = None) -> LabelledSet:
    numbers = [index % 2 for index in range(len(films))] if targets is None else targets
    return LabelledSet(films, {"label": ("even", "odd")}, {"label": numbers})


def config_of(num_frames: int = 4, size: int = 8, channels: int = 1) -> ViViTConfig:
    return ViViTConfig(
        model="spatio_temporal",
        num_frames=num_frames,
        size=(size, size),
        in_channels=channels,
        patch_size=(2, 4, 4),
        encoder=STACK,
        pooling="mean",
        heads=(("label", ("even", "odd")),),
    )


STRONG = ClipView(video=VideoAugment(crop=0.2, shift=0.2, flip=0.5, brightness=0.2, contrast=0.3, time_crop=0.4))


def stream_of(films: Collection, *, view: ClipView = STRONG, size: int = 4, **options: Any) -> LabelledStream:
    batches = {name: options.pop(name) for name in ("balanced", "cache_bytes") if name in options}
    reader = ClipReader(config_of(), view, is_random=True)
    targets = options.pop("targets", None)
    return LabelledStream(
        labelled_of(films, targets), reader, LabelledBatchConfig(batch_size=size, **batches), **options
    )


def pixels(batch: Any) -> torch.Tensor:
    video: torch.Tensor = batch.inputs.video_BCTHW
    return video


def test_every_example_comes_once_an_epoch_over_all_ranks() -> None:
    streams = [stream_of(Films(6), size=3, rank=rank, world_size=2, seed=4) for rank in range(2)]
    epochs = []
    for epoch in range(3):
        seen = [source for stream in streams for source in stream.batch(epoch).sources]
        assert sorted(seen) == [f"film-{index}" for index in range(6)]
        epochs.append(tuple(seen))
    assert len(set(epochs)) > 1
    batch = streams[0].batch(0)
    assert batch.targets["label"].tolist() == [int(source[-1]) % 2 for source in batch.sources]


def test_balanced_classes_take_turns() -> None:
    targets = [0] * 9 + [1] * 3
    plain = Counter(
        t for i in range(6) for t in stream_of(Films(12), targets=targets).batch(i).targets["label"].tolist()
    )
    assert plain == {0: 18, 1: 6}
    stream = stream_of(Films(12), targets=targets, balanced=True, size=6)
    batches = [stream.batch(index) for index in range(3)]
    assert all(Counter(batch.targets["label"].tolist()) == {0: 3, 1: 3} for batch in batches)
    seen = Counter(source for batch in batches for source in batch.sources)
    assert [seen[f"film-{index}"] for index in range(12)] == [1] * 9 + [3] * 3
    for world in (2, 4):  # no rank sees one class alone
        ranks = [stream_of(Films(12), balanced=True, size=4, rank=rank, world_size=world) for rank in range(world)]
        assert all(Counter(one.batch(1).targets["label"].tolist()) == {0: 2, 1: 2} for one in ranks)
    two = LabelledSet(Films(2), {"a": ("x", "y"), "b": ("x", "y")}, {"a": [0, 1], "b": [0, 1]})
    with pytest.raises(InputError, match="several heads"):
        LabelledStream(
            two, ClipReader(config_of(), ClipView(), is_random=True), LabelledBatchConfig(batch_size=1, balanced=True)
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_batches_depend_on_seed_and_number_alone(workers: int, cache_bytes: int) -> None:
    reference = [stream_of(Films(6), seed=3).batch(index) for index in range(5)]
    with stream_of(Films(6), seed=3, num_workers=workers, cache_bytes=cache_bytes) as stream:
        found = list(itertools.islice(stream, 3))
        state = json.loads(json.dumps(stream.state_dict()))
    with stream_of(Films(6), seed=3, num_workers=2 - workers, cache_bytes=cache_bytes) as resumed:
        resumed.load_state_dict(state)
        found += list(itertools.islice(resumed, 2))
    for ours, theirs in zip(found, reference, strict=True):
        assert ours.sources == theirs.sources
        assert torch.equal(pixels(ours), pixels(theirs))
    assert not torch.equal(pixels(reference[0]), pixels(stream_of(Films(6), seed=4).batch(0)))
    assert not torch.equal(pixels(reference[0]), pixels(stream_of(Films(6), seed=3, rank=1, world_size=2).batch(0)))


def test_examples_are_kept_while_there_is_room() -> None:
    for room, reads in ((1 << 20, 1), (0, 3)):
        films = Films(4, frames=4)
        stream = stream_of(films, cache_bytes=room)
        for index in range(3):
            stream.batch(index)
        assert set(films.reads.values()) == {reads}
    films = Films(4, frames=4)
    stream = stream_of(films, cache_bytes=2 * 4 * 64)  # two clips
    for index in range(3):
        stream.batch(index)
    assert sorted(films.reads.values()) == [1, 1, 3, 3]


def test_what_is_measured_again_and_again_is_kept_while_there_is_room() -> None:
    films = Films(6)
    labelled, reader = labelled_of(films), ClipReader(config_of(), ClipView(), is_random=False)
    size = reader.num_bytes(reader.read(labelled[0]))
    films.reads.clear()
    kept = Kept(labelled, reader, 4 * size)
    for _ in range(3):
        assert sum(len(batch) for _, batch in labelled_batches(labelled, reader, batch_size=4, kept=kept)) == 6
    assert sorted(films.reads.values()) == [1, 1, 1, 1, 3, 3]


def test_a_state_of_other_data_or_changes_is_refused() -> None:
    state = stream_of(Films(6), seed=3).state_dict()
    for other, name in (
        (stream_of(Films(6), seed=4), "seed"),
        (stream_of(Films(7), seed=3), "examples"),
        (stream_of(Films(6), seed=3, targets=[1, 0, 0, 1, 0, 1]), "examples"),
        (stream_of(Films(6), seed=3, view=ClipView()), "reader"),
        (stream_of(Films(6), seed=3, size=3), "config"),
    ):
        with pytest.raises(MismatchError, match=f"saved with {name}="):
            other.load_state_dict(state)
    stream_of(Films(6), seed=3, cache_bytes=0, num_workers=1).load_state_dict(state)


def test_a_broken_example_is_replaced_and_named_once() -> None:
    stream = stream_of(Films(6, broken=(2,)), seed=3, size=6)
    with pytest.warns(TokenReelWarning, match="replaced the broken example film-2: this one is torn"):
        first = stream.batch(0)
    second = stream.batch(1)  # no second warning
    assert "film-2" not in first.sources + second.sources
    assert len(first) == 6
    assert [one.key for one in stream.broken] == ["film-2"]
    with pytest.warns(TokenReelWarning), pytest.raises(InputError, match="none of 6 examples"):
        stream_of(Films(6, broken=tuple(range(6)))).batch(0)


def test_measuring_sees_every_example_once_unchanged() -> None:
    labelled = labelled_of(Films(5, broken=(3,)))
    reader = ClipReader(config_of(), STRONG, is_random=False)
    with pytest.warns(TokenReelWarning, match="left out the broken example film-3"):
        found = list(labelled_batches(labelled, reader, batch_size=2))
    assert [numbers for numbers, _ in found] == [[0, 1], [2], [4]]
    video = pixels(found[1][1])
    assert video.shape == (1, 1, 4, 8, 8)
    wanted = torch.tensor([20 + t for t in (1, 3, 5, 7)]) / 127.5 - 1  # the middle frame of each quarter of 8
    assert torch.allclose(video[0, 0, :, 3, 5], wanted)


def test_a_stretch_of_time_is_drawn_from_more_frames_than_are_read() -> None:
    view = ClipView(video=VideoAugment(time_crop=0.5))
    stream = stream_of(Films(4, frames=40), view=view, seed=1)
    assert ClipReader(config_of(), view, is_random=True).most_frames == 8
    spans = []
    for index in range(30):
        levels_BT = ((pixels(stream.batch(index))[:, 0, :, 0, 0] + 1) * 127.5).round()
        frames_BT = levels_BT - levels_BT[:, :1]
        assert (frames_BT.diff(dim=1) > 0).all()  # no frame twice: a crop of half still has as many as are read
        spans += (frames_BT[:, -1]).tolist()
    assert 13 <= min(spans) < 17
    assert 25 < max(spans) <= 35


def test_short_clips_are_counted_and_the_model_does_not_see_what_fills_them() -> None:
    class Mixed(Films):
        def _example(self, index: int) -> Example:
            self.frames = 2 if index % 2 else 4
            return Films(self.num, frames=self.frames)._example(index)

    reader = ClipReader(config_of(), ClipView(), is_random=False)
    ((_, batch),) = labelled_batches(labelled_of(Mixed(2)), reader, batch_size=2)
    assert batch.inputs.frame_counts == (4, 2)
    model = ViViT.untrained(config_of(), seed=0)
    video = pixels(batch)
    alone = model(video[1:, :, :2])
    assert torch.allclose(batch.inputs.logits(model, None)["label"][1:], alone["label"], atol=1e-6)


def test_volumes_and_colours() -> None:
    reader = ClipReader(config_of(), ClipView(volume=VolumeAugment(noise=0.3)), is_random=True)
    still = ClipReader(config_of(), ClipView(volume=VolumeAugment(noise=0.3)), is_random=False)
    item = reader.read(labelled_of(Films(2))[1])
    assert item.dtype == torch.uint8
    assert item.shape == (1, 4, 8, 8)
    generator = torch.Generator().manual_seed(0)
    assert pixels_of(still, item, generator).std(dim=(-1, -2)).max() == 0
    assert pixels_of(reader, item, generator).std() > 0.2
    colour = ClipReader(config_of(channels=3), ClipView(), is_random=False).read(labelled_of(Films(2))[1])
    assert colour.shape == (3, 4, 8, 8)
    assert torch.equal(colour[0], colour[2])


def pixels_of(reader: ClipReader, item: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return reader.joined([item, item], generator).video_BCTHW


def test_colour_becomes_luma_for_a_grey_model(tmp_path: Any) -> None:
    from tokenreel.data.labelled_open import open_labelled

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / name / "one.png")
    labelled = open_labelled(tmp_path)
    item = ClipReader(config_of(), ClipView(), is_random=False).read(labelled[0])
    luma = np.asarray(Image.open(tmp_path / "a" / "one.png").convert("L"), np.int64)
    assert item.shape == (1, 1, 8, 8)
    assert np.abs(item[0, 0].numpy().astype(np.int64) - luma).max() <= 1


def test_frames_of_another_size_are_cropped_or_stretched() -> None:
    frames = np.zeros((2, 8, 16, 3), np.uint8)
    frames[:, :, 4:12] = 200  # the middle
    assert fitted(frames, (8, 16), "crop") is frames
    cropped, stretched = fitted(frames, (4, 4), "crop"), fitted(frames, (4, 4), "stretch")
    assert cropped.shape == stretched.shape == (2, 4, 4, 3)
    assert cropped[:, :, 1:3].min() > 190
    assert stretched[:, :, 0].max() < 60
    assert stretched[:, :, 1:3].min() > 150
    assert fitted(frames[..., :1], (4, 6), "crop").shape == (2, 4, 6, 1)
    with pytest.raises(InputError, match="fit must be one of crop, stretch"):
        replace(config_of(), fit="pad")  # type: ignore[arg-type]


# Ids.


class Records(Collection):
    """Token records on grids (2 + n % 3, 3, 4) whose ids tell where they stand: 12 step + place."""

    def __init__(self, num: int, fingerprint: str = "a" * 64) -> None:
        super().__init__("records")
        self.num, self.fingerprint = num, fingerprint

    def __len__(self) -> int:
        return self.num

    def key(self, index: int) -> str:
        return str(index)

    def tokens(self, index: int) -> Tokens:
        grid = Grid(t=2 + index % 3, h=3, w=4)
        return Tokens(
            ids_L=np.arange(grid.num_cells).astype(np.uint8),
            layout="grid",
            grid=grid,
            size=(grid.t, 6, 8),
            codebook_size=64,
            tokenizer="some",
            fingerprint=self.fingerprint,
        )

    def _example(self, index: int) -> Example:
        payload = TokensPayload(lambda: self.tokens(index), str(index))
        return Example(key=str(index), source=str(index), payload=payload)

    def _facts(self, index: int) -> dict[str, Any]:
        return {}


def token_model() -> TokenViViT:
    config = TokenViViTConfig.reading(
        Records(3).tokens(2),
        model="spatio_temporal",
        encoder=STACK,
        pooling="mean",
        heads=(("label", ("even", "odd")),),
    )
    return TokenViViT.untrained(config, seed=0)


def test_ids_come_as_they_are_and_the_classifier_reads_them() -> None:
    model, records = token_model(), Records(4)
    reader = CodeReader(model, None, is_random=True)
    with LabelledStream(labelled_of(records), reader, LabelledBatchConfig(batch_size=4), seed=1) as stream:
        batch = next(iter(stream))
    for source, ids_L, grid in zip(batch.sources, batch.inputs.ids, batch.inputs.grids, strict=True):  # type: ignore[attr-defined]
        tokens = records.tokens(int(source))
        assert ids_L.dtype == torch.int64
        assert ids_L.tolist() == tokens.ids_L.tolist()
        assert grid == (tokens.grid.t, 3, 4)
    assert batch.inputs.num_tokens == 12 * (2 + 3 + 4 + 2)
    answer = batch.inputs.logits(model, None)["label"]
    alone = model.predict([records.tokens(int(source)) for source in batch.sources])["label"]
    assert torch.allclose(answer, alone, atol=1e-6)
    with pytest.raises(InputError, match="ids of a tokenizer cannot be mixed"):
        batch.inputs.mixed({}, alpha=0.3, generator=torch.Generator())


def test_ids_of_another_tokenizer_end_the_run() -> None:
    stream = LabelledStream(
        labelled_of(Records(4, "b" * 64)),
        CodeReader(token_model(), None, is_random=True),
        LabelledBatchConfig(batch_size=2),
    )
    with pytest.raises(MismatchError, match="these tokens were made by some"):
        stream.batch(0)


def test_changes_of_ids() -> None:
    ids_thw = torch.arange(8 * 12).view(8, 3, 4)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(CodeAugment()(ids_thw, generator=generator), ids_thw)
    lengths, starts = set(), set()
    for _ in range(60):
        found = CodeAugment(time_crop=0.5)(ids_thw, generator=generator)
        start = int(found[1, 0, 0]) // 12
        assert torch.equal(found[0], ids_thw[0])
        assert torch.equal(found[1:], ids_thw[start : start + len(found) - 1])
        lengths.add(len(found))
        starts.add(start)
    assert lengths == {5, 6, 7, 8}
    assert {1, 2, 3, 4} <= starts
    shifts = set()
    for _ in range(60):
        found = CodeAugment(shift=1)(ids_thw, generator=generator)
        down, right = int(found[0, 1, 1]) // 4 - 1, int(found[0, 1, 1]) % 4 - 1
        rows, columns = (torch.arange(3) + down).clamp(0, 2), (torch.arange(4) + right).clamp(0, 3)
        assert torch.equal(found, ids_thw[:, rows][:, :, columns])
        shifts.add((down, right))
    assert len(shifts) == 9
    found = CodeAugment(noise=0.5)(ids_thw, generator=generator)
    assert torch.equal(found % 12, ids_thw % 12)  # each keeps its place
    assert torch.equal(found[0], ids_thw[0])
    assert int(found[1:].min()) >= 12
    assert 0.25 < (found != ids_thw).float()[1:].mean() < 0.6  # a seventh of the noise draws its own step
    with pytest.raises(InputError, match="time_crop must lie in"):
        CodeAugment(time_crop=1.0)


def test_clips_of_unequal_length_are_changed_and_mixed_without_their_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    reader = ClipReader(config_of(), ClipView(video=VideoAugment(contrast=0.5, flip=0.5)), is_random=True)
    long, short = (torch.full((3, frames, 8, 8), 200, dtype=torch.uint8) for frames in (4, 2))
    for _ in range(8):
        inputs = reader.joined([long, short], generator)
        assert inputs.frame_counts == (4, 2)
        # Contrast turns about the mean of the clip; even clips stay as they are, padded or not.
        torch.testing.assert_close(inputs.video_BCTHW[1, :, :2], inputs.video_BCTHW[0, :, :2])
        assert not inputs.video_BCTHW[1, :, 2:].any()
    three = reader.joined([long, short, short], generator)
    probs = {"label": torch.eye(3)}
    for seed in range(12):
        mixed, labels = three.mixed(probs, alpha=0.5, generator=torch.Generator().manual_seed(seed))
        assert mixed.frame_counts is not None
        for row, count in zip(labels["label"], mixed.frame_counts):
            assert count == (4 if row[0] > 0 else 2)


def test_a_batch_checks_itself_and_its_numbers() -> None:
    batch = stream_of(Films(4)).batch(0)
    assert repr(batch) == "LabelledBatch(0: 4 examples of label)"
    with pytest.raises(InputError, match="must be int64"):
        replace(batch, targets={"label": torch.zeros(3, dtype=torch.int64)})
    with pytest.raises(InputError, match="4 examples and 1 sources"):
        replace(batch, sources=("one",))
    for change in ({"rank": 2, "world_size": 2}, {"num_workers": -1}, {"seed": -1}):
        with pytest.raises(InputError, match="rank must lie in"):
            stream_of(Films(4), **change)
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        LabelledBatchConfig(batch_size=0)
