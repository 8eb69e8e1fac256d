from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.jobs.bpe import decode_merged, encode_merged, train_merges
from tokenreel.jobs.bpe_report import draw_report, report_on
from tokenreel.jobs.encode import decode_file, encode_file
from tokenreel.jobs.encode_many import encode_many
from tokenreel.jobs.inspect import inspect_file
from tokenreel.jobs.patchify import patchify_file
from tokenreel.media.frames import Selection
from tokenreel.media.read import read
from tokenreel.samples import SAMPLE_CLIP, SAMPLE_IMAGE
from tokenreel.tokens.bpe import Merges
from tokenreel.tokens.file import load, save
from tokenreel.tokens.shards import ShardReader
from tokenreel.types import Grid, Tokens


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    encode_file(SAMPLE_CLIP, tmp_path / "a.tokens", selection=Selection(max_frames=3), size="64x48")
    return tmp_path / "a.tokens"


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """Ids of a learned tokenizer, with structure along all axes."""
    rng = np.random.default_rng(0)
    ids = np.kron(rng.integers(0, 50, (2, 3, 4)), np.ones((2, 2, 2), np.int64)).astype(np.uint16)
    tokens = Tokens(
        ids_L=ids.reshape(-1),
        layout="grid",
        grid=Grid(t=4, h=6, w=8),
        size=(4, 48, 64),
        codebook_size=64,
        tokenizer="other",
        fingerprint="f" * 64,
    )
    return save(tmp_path / "learned.tokens", tokens)


@pytest.mark.parametrize("axes", ["flat", "grid"])
@pytest.mark.parametrize("which", ["clip", "learned"])
def test_tokens_go_round_exactly(axes: str, which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source: Path = request.getfixturevalue(which)
    merges_path = tmp_path / "m.json"
    vocab = 400 if which == "clip" else 90
    result = train_merges([source], merges_path, vocab_size=vocab, axes=axes)  # type: ignore[arg-type]
    merges = Merges.load(merges_path)
    before, after = encode_merged(source, tmp_path / "b.tokens", merges)
    assert after == result.num_merged < before
    changed = load(tmp_path / "b.tokens")
    assert (changed.layout, changed.codebook_size) == ("merged", merges.vocab_size)
    assert changed.fingerprint != load(source).fingerprint
    decode_merged(tmp_path / "b.tokens", tmp_path / "c.tokens", merges)
    assert (tmp_path / "c.tokens").read_bytes() == source.read_bytes()
    with pytest.raises(InputError, match="bpe decode"):
        decode_file(tmp_path / "b.tokens", tmp_path / "x.mkv")


def test_shards_go_round_exactly(tmp_path: Path) -> None:
    encode_many([SAMPLE_CLIP, SAMPLE_IMAGE], tmp_path / "s", selection=Selection(max_frames=2), size=32)
    train_merges([tmp_path / "s"], tmp_path / "m.json", vocab_size=300)
    merges = Merges.load(tmp_path / "m.json")
    before, after = encode_merged(tmp_path / "s", tmp_path / "t", merges)
    assert after < before
    assert inspect_file(tmp_path / "t")["layout"] == "merged"
    decode_merged(tmp_path / "t", tmp_path / "u", merges)
    for a, b in zip(ShardReader(tmp_path / "s"), ShardReader(tmp_path / "u"), strict=True):
        np.testing.assert_array_equal(a.ids_L, b.ids_L)
        assert (a.meta, a.fingerprint, a.layout) == (b.meta, b.fingerprint, b.layout)


def test_any_file_is_bytes(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat, the cat sat on the hat. " * 20)
    train_merges([text], tmp_path / "m.json", vocab_size=280)
    merges = Merges.load(tmp_path / "m.json")
    before, after = encode_merged(text, tmp_path / "t.safetensors", merges)
    assert after * 5 < before
    decode_merged(tmp_path / "t.safetensors", tmp_path / "again.txt", merges)
    assert (tmp_path / "again.txt").read_bytes() == text.read_bytes()
    with pytest.raises(InputError, match="no grid"):
        train_merges([text], tmp_path / "g.json", vocab_size=280, axes="grid")


def test_patch_sequences_are_sequences_of_patches(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    patchify_file(SAMPLE_IMAGE, path)
    inside = train_merges([path], tmp_path / "a.json", vocab_size=300)
    across = train_merges([path], tmp_path / "b.json", vocab_size=300, boundaries=False)
    assert inside.merges.meta["num_sequences"] == 256
    assert inside.num_ids == across.num_ids == 256 * 768
    grid = train_merges([path], tmp_path / "c.json", vocab_size=300, axes="grid")
    assert grid.num_ids == 256 * 256 * 3


def test_an_interruption_leaves_a_shorter_vocabulary(clip: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    result = train_merges([clip], tmp_path / "m.json", vocab_size=5000, progress=stop)
    assert result.interrupted
    merges = Merges.load(tmp_path / "m.json")
    assert 256 <= merges.vocab_size < 5000
    ids = load(clip).ids_L
    np.testing.assert_array_equal(merges.decode(merges.encode(ids)), ids)


def test_the_report_counts_right(clip: Path, learned: Path, tmp_path: Path) -> None:
    train_merges([clip], tmp_path / "m.json", vocab_size=400)
    merges = Merges.load(tmp_path / "m.json")
    report = report_on(merges, clip)
    values = report.as_json()
    assert report.num_pixels == 3 * 48 * 64
    assert values["bits_per_pixel"]["fixed"] == pytest.approx(24)
    assert set(report.bits) == {"fixed", "merged", "merged_entropy", "zstd", "png", "ffv1"}
    assert report.bits["merged"] == pytest.approx(report.num_merged * np.log2(400))
    assert report.bits["merged_entropy"] < report.bits["merged"]
    longest, size = report.longest[0]
    assert merges.expansion(longest).size == size == max(merges.expansion(i).size for i in range(256, 400))
    assert json.dumps(values)
    assert read(draw_report(report, tmp_path / "m.png")).size[2] == 1200
    train_merges([learned], tmp_path / "l.json", vocab_size=90, axes="grid")
    blocks = report_on(Merges.load(tmp_path / "l.json"), learned)
    assert blocks.num_pixels is None
    assert read(draw_report(blocks, tmp_path / "l.png")).size[0] == 1
    assert report_on(merges).most_used == []


def test_what_does_not_belong_together_is_refused(clip: Path, learned: Path, tmp_path: Path) -> None:
    train_merges([clip], tmp_path / "m.json", vocab_size=300)
    train_merges([clip], tmp_path / "n.json", vocab_size=301)
    merges, others = Merges.load(tmp_path / "m.json"), Merges.load(tmp_path / "n.json")
    with pytest.raises(MismatchError, match="different codebooks"):
        train_merges([clip, learned], tmp_path / "x.json", vocab_size=300)
    with pytest.raises(MismatchError, match="over 256 ids, the tokens have 64"):
        encode_merged(learned, tmp_path / "x.tokens", merges)
    encode_merged(clip, tmp_path / "b.tokens", merges)
    with pytest.raises(MismatchError, match="by other merges"):
        decode_merged(tmp_path / "b.tokens", tmp_path / "x.tokens", others)
    with pytest.raises(MismatchError, match="not merged"):
        decode_merged(clip, tmp_path / "x.tokens", merges)
    with pytest.raises(FormatError, match="holds no merged ids"):
        decode_merged(SAMPLE_CLIP, tmp_path / "x.tokens", merges)
    with pytest.raises(InputError, match="merged already"):
        encode_merged(tmp_path / "b.tokens", tmp_path / "x.tokens", Merges.load(tmp_path / "m.json"))
    with pytest.raises(InputError, match=r"\.json"):
        train_merges([clip], tmp_path / "x.txt", vocab_size=300)
    with pytest.raises(InputError, match=r"\.tokens file"):
        encode_merged(clip, tmp_path / "x.bin", merges)
    assert not list(tmp_path.glob("x.*"))
