"""Batches of tokens: what is in them, cuts in time, order, exact resume, and what is refused."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokened import shards_in

import tokenreel as tr
from tokenreel.data.scenes import CaptionedScenes
from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.media.pixels import to_video
from tokenreel.tokenizers import load
from tokenreel.tokens.shards import ShardReader, ShardWriter
from tokenreel.train.mixing import Source
from tokenreel.train.token_batches import StepwiseSource, TokenBatch, TokenBatchConfig, TokenStream
from tokenreel.types import Grid, Tokens

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six captioned clips of 9 x 32 x 32: shards, their pixels and their tokenizer."""
    folder = tmp_path_factory.mktemp("tokens")
    shards_in(folder)
    return folder


def stream(root: Path, *, seed: int = 0, rank: int = 0, world_size: int = 1, workers: int = 0, **config: Any) -> Any:
    return TokenStream(
        [Source(data=root / "shards")],
        TokenBatchConfig(**{"batch_size": 2, **config}),
        seed=seed,
        rank=rank,
        world_size=world_size,
        num_workers=workers,
    )


def assert_same(ours: TokenBatch, theirs: TokenBatch) -> None:
    assert torch.equal(ours.ids_BL, theirs.ids_BL)
    assert (ours.index, ours.grid, ours.captions, ours.sources) == (
        theirs.index,
        theirs.grid,
        theirs.captions,
        theirs.sources,
    )


def test_batches_hold_the_records_and_every_one_once_an_epoch(root: Path) -> None:
    reader = ShardReader(root / "shards")
    batches = list(itertools.islice(stream(root), 6))
    assert [batch.index for batch in batches] == list(range(6))
    for batch in batches:
        assert batch.grid == Grid(t=3, h=4, w=4)
        assert batch.valid_mask is None
        assert batch.num_tokens == 2 * 48
        for row, source in enumerate(batch.sources):
            record = reader[int(source.rpartition(":")[2])]
            assert np.array_equal(batch.ids_BL[row].numpy(), record.ids_L)
            assert batch.captions[row] == record.meta["caption"]
    for epoch in (batches[:3], batches[3:]):
        assert len({source for batch in epoch for source in batch.sources}) == 6
    assert [batch.sources for batch in batches[:3]] != [batch.sources for batch in batches[3:]]


def test_what_is_cut_in_time_is_what_the_first_frames_become(root: Path) -> None:
    tokenizer = load(root / "tok")
    scenes = CaptionedScenes(6, 9, 32, 32)
    for steps, frames in ((1, 1), (2, 5)):
        batch = next(iter(stream(root, max_steps=steps, batch_size=6)))
        assert batch.grid == Grid(t=steps, h=4, w=4)
        for row, source in enumerate(batch.sources):
            video = to_video(scenes[int(source.rpartition(":")[2])].array()[:frames])
            assert np.array_equal(batch.ids_BL[row].numpy(), tokenizer.encode([video])[0].ids_L)


def test_images_and_videos_stand_in_one_batch(root: Path) -> None:
    batch = stream(root, image_share=0.5, batch_size=12).batch(0)
    assert batch.valid_mask is not None
    lengths = batch.valid_mask.sum(1)
    assert set(lengths.tolist()) == {16, 48}
    assert batch.num_tokens == lengths.sum()
    assert bool(batch.valid_mask[:, :16].all())
    only = TokenStream([Source(data=root / "shards", is_single=True)], TokenBatchConfig(batch_size=3)).batch(0)
    assert only.grid == Grid(t=1, h=4, w=4)


def test_some_batches_are_images_alone_and_larger(root: Path) -> None:
    given = stream(root, still_share=0.4, still_size=6, batch_size=2, seed=1)
    batches = [given.batch(number) for number in range(40)]
    still = [batch for batch in batches if batch.grid.t == 1]
    assert 8 <= len(still) <= 25
    assert {len(batch) for batch in still} == {6}
    assert {len(batch) for batch in batches if batch.grid.t > 1} == {2}
    assert all(batch.valid_mask is None for batch in still)
    again = stream(root, still_share=0.4, still_size=6, batch_size=2, seed=1)
    assert_same(again.batch(17), batches[17])
    assert "still_share" not in TokenBatchConfig(batch_size=2).as_json()  # runs begun before it was known go on
    with pytest.raises(InputError, match="still_share must lie in"):
        TokenBatchConfig(batch_size=1, still_share=1.5)


def test_some_batches_are_of_a_source_of_pictures_from_coarse_to_fine(root: Path, tmp_path: Path) -> None:
    reader = ShardReader(root / "shards")
    shared = {"fingerprint": reader.fingerprint, "codebook_size": reader.codebook_size, "layout": "grid"}
    with ShardWriter(tmp_path / "pictures", tokenizer=reader.tokenizer, **shared) as writer:
        for tokens in reader:
            writer.write(replace(tokens, meta={"caption": f"a picture: {tokens.meta['caption']}"}))
    sources = [Source(data=tmp_path / "pictures"), Source(data=root / "shards")]
    config = TokenBatchConfig(batch_size=2, stepwise=(StepwiseSource(source=0, share=0.7, batch_size=3),))
    batches = list(itertools.islice(TokenStream(sources, config, seed=0), 60))
    stills = [batch for batch in batches if len(batch) == 3]
    steps = Counter(batch.grid.t for batch in stills)
    assert 30 < len(stills) < 54
    assert set(steps) == {1, 2, 3}
    assert min(steps.values()) > 4
    for batch in batches:
        is_still = len(batch) == 3
        assert all(str(caption).startswith("a picture") == is_still for caption in batch.captions)
        assert batch.given_steps == (batch.grid.t - 1 if is_still else 0)
        assert batch.valid_mask is None
        assert is_still or batch.grid.t == 3
    first = stills[0]
    known = {tokens.meta["caption"]: tokens for tokens in reader}
    for caption, ids in zip(first.captions, first.ids_BL):
        assert caption is not None
        whole = known[caption.removeprefix("a picture: ")].ids_L.astype(np.int64)
        assert torch.equal(ids, torch.from_numpy(whole[: len(ids)]))
    state = TokenStream(sources, config, seed=0)
    (kept,) = state.identity()["config"]["stepwise"]
    assert kept == {"source": 0, "share": 0.7, "batch_size": 3, "least_steps": 1}
    assert json.loads(json.dumps(state.identity())) == state.identity()
    assert [one["examples"] for one in state.identity()["sources"]] == [6, 6]
    all_stepwise(sources)
    a_source_named_twice(sources)
    refusals(sources, config)


def all_stepwise(sources: list[Source]) -> None:
    """Pictures from coarse to fine, and clips frame by frame, and nothing else."""
    both = (
        StepwiseSource(source=0, share=0.5, batch_size=3),
        StepwiseSource(source=1, share=0.5, batch_size=4, least_steps=2),
    )
    stream = TokenStream(sources, TokenBatchConfig(batch_size=1, stepwise=both), seed=0)
    batches = list(itertools.islice(stream, 80))
    seen = Counter((len(batch), batch.grid.t) for batch in batches)
    assert set(seen) == {(3, 1), (3, 2), (3, 3), (4, 2), (4, 3)}
    assert 24 < sum(seen[3, steps] for steps in (1, 2, 3)) < 56
    assert all(batch.given_steps == batch.grid.t - 1 for batch in batches)
    assert all(
        str(caption).startswith("a picture") == (len(batch) == 3) for batch in batches for caption in batch.captions
    )
    assert len({caption for batch in batches for caption in batch.captions}) == 12


def a_source_named_twice(sources: list[Source]) -> None:
    """Pictures from coarse to fine, and the finest of them more often."""
    both = (
        StepwiseSource(source=0, share=0.5, batch_size=3),
        StepwiseSource(source=0, share=0.3, batch_size=4, least_steps=3),
        StepwiseSource(source=1, share=0.2, batch_size=2),
    )
    stream = TokenStream(sources, TokenBatchConfig(batch_size=1, stepwise=both), seed=0)
    batches = list(itertools.islice(stream, 80))
    sizes = Counter(len(batch) for batch in batches)
    assert sizes[3] > sizes[4] > sizes[2] > 4
    assert {batch.grid.t for batch in batches if len(batch) == 4} == {3}
    for batch in batches:
        assert all(str(caption).startswith("a picture") == (len(batch) > 2) for caption in batch.captions)


def refusals(sources: list[Source], config: TokenBatchConfig) -> None:
    """Of what cannot be."""
    (one,) = config.stepwise
    for wrong, message in (
        ((replace(one, source=2),), "stepwise names sources 2 .* there are 2; give all of them"),
        (
            (replace(one, share=0.3), replace(one, source=1, share=0.3)),
            "in 0.6 of the batches; let their shares make 1",
        ),
        ((replace(one, least_steps=4),), "least_steps is 4, but records of .* have 3"),
    ):
        with pytest.raises(InputError, match=message):
            TokenStream(sources, replace(config, stepwise=wrong), seed=0)
    with pytest.raises(InputError, match=r"make 1\.2 of the batches, more than 1"):
        replace(config, still_share=0.5)
    for wrong, message in (
        ({"share": 0.0}, "share must lie in"),
        ({"batch_size": 0}, "batch_size and least_steps at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            replace(one, **wrong)


def test_a_stream_from_before_pictures_has_the_same_identity(root: Path) -> None:
    assert set(stream(root).identity()["config"]) == {"batch_size", "max_steps", "image_share"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_exactly(root: Path, workers: int) -> None:
    options = {"image_share": 0.3, "seed": 3}
    whole = list(itertools.islice(stream(root, **options), 8))
    with stream(root, workers=workers, **options) as first:
        for _, batch in zip(range(3), first):
            assert_same(batch, whole[batch.index])
        state = json.loads(json.dumps(first.state_dict()))
        assert state["index"] == 3
    with stream(root, workers=2 - workers, **options) as second:
        second.load_state_dict(state)
        for batch in itertools.islice(second, 5):
            assert_same(batch, whole[batch.index])
        assert second.index == 8
    assert_same(stream(root, **options).batch(6), whole[6])


def test_ranks_share_an_epoch(root: Path) -> None:
    seen = [
        source
        for rank in range(3)
        for batch in itertools.islice(stream(root, rank=rank, world_size=3), 1)
        for source in batch.sources
    ]
    assert len(set(seen)) == 6


@pytest.mark.parametrize(
    ("options", "name"),
    [({"seed": 1}, "seed"), ({"batch_size": 3}, "config"), ({"max_steps": 2}, "config"), ({"world_size": 2}, "world")],
)
def test_the_state_of_another_run_is_refused(root: Path, options: dict[str, Any], name: str) -> None:
    state = stream(root).state_dict()
    with pytest.raises(MismatchError, match=name):
        stream(root, **options).load_state_dict(state)
    with pytest.raises(MismatchError, match="version"):
        stream(root).load_state_dict({**state, "version": 9})


def test_an_iteration_ends_when_the_stream_moves(root: Path) -> None:
    source = stream(root, workers=1)
    running = iter(source)
    next(running)
    source.load_state_dict(source.state_dict())
    with pytest.raises((InputError, RuntimeError)):
        next(running)
    source.close()


def test_what_holds_no_tokens_is_refused_with_the_command(root: Path, tmp_path: Path) -> None:
    config = TokenBatchConfig(batch_size=1)
    with pytest.raises(InputError, match=r"holds pixels, not tokens .* tokenreel encode"):
        TokenStream([Source(data=root / "scenes")], config)
    with pytest.raises(InputError, match=r"tokenreel prepare rendered:1000"):
        TokenStream([Source(data="rendered")], config)
    shards_in(tmp_path, num_clips=2, seed=1)
    with pytest.raises(MismatchError, match="encode all with one tokenizer"):
        TokenStream([Source(data=root / "shards"), Source(data=tmp_path / "shards")], config)


def record(number: int, **meta: Any) -> Tokens:
    ids = np.full(8, number)
    return Tokens(
        ids_L=ids, layout="grid", grid=Grid(t=2, h=2, w=2), size=(2, 4, 4), codebook_size=16, tokenizer="x",
        fingerprint="f", meta=meta,
    )  # fmt: skip


def written(folder: Path, records: list[Tokens]) -> Path:
    one = records[0]
    with ShardWriter(
        folder, tokenizer=one.tokenizer, fingerprint=one.fingerprint, codebook_size=16, layout="grid"
    ) as writer:
        for tokens in records:
            writer.write(tokens)
    return folder


def test_labels_are_numbered_in_order(tmp_path: Path) -> None:
    names = ["b", "a", "c", "a"]
    folder = written(tmp_path / "named", [record(n, label=name) for n, name in enumerate(names)])
    found = TokenStream([Source(data=folder)], TokenBatchConfig(batch_size=4))
    assert found.batch(0).labels == (None,) * 4
    assert found.read_labels() == ("a", "b", "c")
    batch = found.batch(0)
    assert [("a", "b", "c")[label or 0] for label in batch.labels] == [names[int(ids[0])] for ids in batch.ids_BL]
    numbered = written(tmp_path / "numbered", [record(0, label=5), record(1, label=2)])
    assert TokenStream([Source(data=numbered)], TokenBatchConfig(batch_size=1)).read_labels() == tuple(range(6))
    none = written(tmp_path / "none", [record(0)])
    silent = TokenStream([Source(data=none)], TokenBatchConfig(batch_size=1))
    assert not silent.has_captions()
    with pytest.raises(InputError, match="has a label"):
        silent.read_labels()


def test_a_broken_record_is_replaced_and_named_once(tmp_path: Path) -> None:
    for number in range(3):
        tr.save_tokens(tmp_path / f"{number}.tokens", record(number, caption=str(number)))
    whole = (tmp_path / "1.tokens").read_bytes()
    (tmp_path / "1.tokens").write_bytes(whole[: len(whole) // 2])
    found = TokenStream([Source(data=tmp_path)], TokenBatchConfig(batch_size=3))
    with pytest.warns(TokenReelWarning, match=r"replaced the broken record .*1"):
        batches = list(itertools.islice(found, 2))
    assert {caption for batch in batches for caption in batch.captions} == {"0", "2"}
    assert len(found.broken) == 1
    again = TokenStream([Source(data=tmp_path)], TokenBatchConfig(batch_size=3))
    again.load_state_dict(json.loads(json.dumps(found.state_dict())))
    assert again.broken == found.broken


def test_numbers_out_of_range_are_told() -> None:
    for options, name in (({"batch_size": 0}, "batch_size"), ({"max_steps": 0}, "max_steps")):
        with pytest.raises(InputError, match=name):
            TokenBatchConfig(**{"batch_size": 1, **options})
    with pytest.raises(InputError, match="image_share"):
        TokenBatchConfig(batch_size=1, image_share=1.5)
