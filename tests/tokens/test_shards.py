"""Shards: round trips, what a killed writer leaves, other tools, damage that is named."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.tokens.shards import MANIFEST_NAME, Manifest, ShardReader, ShardWriter, rebuild_manifest
from tokenreel.types import Grid, Tokens

SPEC: dict[str, Any] = {"tokenizer": "titok", "fingerprint": "f" * 64, "codebook_size": 4096, "layout": "queries"}
GRID, SIZE = Grid(t=1, h=8, w=8), (1, 128, 128)


def make(number: int, num_tokens: int = 32, **meta: Any) -> Tokens:
    ids = np.random.default_rng(number).integers(0, 4096, num_tokens).astype(np.uint16)
    return Tokens(ids_L=ids, grid=GRID, size=SIZE, meta=meta, **SPEC)


def write(directory: Path, records: Sequence[Tokens], **options: Any) -> Path:
    first = records[0]
    names = ("tokenizer", "fingerprint", "codebook_size", "layout")
    with ShardWriter(directory, **{name: getattr(first, name) for name in names}, **options) as writer:
        for tokens in records:
            writer.write(tokens)
    return directory


def same(left: Tokens, right: Tokens) -> bool:
    names = ("layout", "grid", "size", "codebook_size", "tokenizer", "fingerprint", "fps")
    return (
        left.ids_L.dtype == right.ids_L.dtype
        and np.array_equal(left.ids_L, right.ids_L)
        and all(getattr(left, name) == getattr(right, name) for name in names)
        and (left.pts_seconds is None) == (right.pts_seconds is None)
        and (left.pts_seconds is None or np.array_equal(left.pts_seconds, right.pts_seconds))
        and dict(left.meta) == dict(right.meta)
    )


# --- round trips -----------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
any_text = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates too
metas = st.fixed_dictionaries(
    {},
    optional={
        "caption": any_text | json_values,
        "label": any_text | st.integers() | json_values,
        "label_id": st.integers(),
        "source": any_text,
        "start_seconds": st.floats(allow_nan=False) | st.integers() | json_values,
        "end_seconds": st.floats(allow_nan=False, allow_infinity=False),
        "anything": json_values,
    },
)


@st.composite
def corpora(draw: st.DrawFn) -> list[Tokens]:
    layout = draw(st.sampled_from(["grid", "queries", "bytes"]))
    codebook_size = draw(st.sampled_from([2, 256, 257, 65536, 70000, 2**32, 2**32 + 1]))
    equal = draw(st.booleans())
    shape = st.builds(Grid, t=st.integers(1, 3), h=st.integers(1, 4), w=st.integers(1, 4))
    first = draw(shape)
    records = []
    for _ in range(draw(st.integers(1, 12))):
        grid = first if equal else draw(shape)
        num_tokens = grid.num_cells if layout == "grid" or equal else draw(st.integers(0, 20))
        ids = draw(st.lists(st.integers(0, codebook_size - 1), min_size=num_tokens, max_size=num_tokens))
        num_frames = draw(st.integers(1, 4))
        times = st.lists(st.floats(allow_nan=False), min_size=num_frames, max_size=num_frames)
        pts_seconds = draw(st.none() | times)
        records.append(
            Tokens(
                ids_L=np.array(ids, np.uint64),
                layout=layout,
                grid=grid,
                size=(num_frames, draw(st.integers(1, 9)), 7),
                codebook_size=codebook_size,
                tokenizer="raw",
                fingerprint="ab",
                fps=draw(st.none() | st.floats(1, 120)),
                pts_seconds=None if pts_seconds is None else np.array(pts_seconds),
                meta=draw(metas),
            )
        )
    return records


@settings(max_examples=40, deadline=None)
@given(
    records=corpora(),
    shard_bytes=st.sampled_from([1, 60, 1 << 20]),
    rows=st.sampled_from([1, 3, 100]),
    compression=st.sampled_from(["none", "zstd"]),
)
def test_every_field_comes_back(records: list[Tokens], shard_bytes: int, rows: int, compression: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = {"shard_bytes": shard_bytes, "row_group_rows": rows, "compression": compression}
        reader = ShardReader(write(Path(folder) / "out", records, **options))
        assert len(reader) == len(records)
        assert all(same(reader[index], tokens) for index, tokens in enumerate(records))
        assert all(same(got, tokens) for got, tokens in zip(reader.iter(1), records[1:], strict=True))
        ids, counts = reader.ids_batch(range(len(records)))
        assert np.array_equal(ids, np.concatenate([tokens.ids_L for tokens in records]))
        assert counts.tolist() == [tokens.num_tokens for tokens in records]
        parts = list(reader.iter_ids(batch_records=5))
        assert np.array_equal(np.concatenate([part for part, _ in parts]), ids)
        assert np.array_equal(np.concatenate([part for _, part in parts]), counts)
        reader.verify()


def test_captions_labels_and_times_are_columns(tmp_path: Path) -> None:
    metas = [
        {
            "caption": "ein roter Kreis, 赤い円 🔴",
            "label": "circle",
            "source": "a/b.mp4",
            "start_seconds": 0.5,
            "end_seconds": 2,
        },
        {"label": 7, "caption": None, "more": [1, {"a": None}]},
        {},
    ]
    reader = ShardReader(write(tmp_path / "out", [make(n, **meta) for n, meta in enumerate(metas)]))
    assert [dict(tokens.meta) for tokens in reader] == metas
    names = ("caption", "label", "label_id", "source", "start_seconds", "end_seconds", "meta", "num_tokens", "height")
    assert reader.columns(*names).to_pylist() == [
        dict(zip(names, (metas[0]["caption"], "circle", None, "a/b.mp4", 0.5, 2.0, None, 32, 128))),
        dict(zip(names, (None, None, 7, None, None, None, '{"caption":null,"more":[1,{"a":null}]}', 32, 128))),
        dict(zip(names, (None, None, None, None, None, None, None, 32, 128))),
    ]
    assert reader.columns("label_id", start=1, stop=2).to_pydict() == {"label_id": [7]}
    assert reader.columns("label", start=3).to_pydict() == {"label": []}
    with pytest.raises(InputError, match="no column 'title'"):
        reader.columns("title")


@pytest.mark.parametrize("num_records", [1, 39, 40, 41, 100])
def test_a_batch_is_its_records(tmp_path: Path, num_records: int) -> None:
    ids_NL = np.random.default_rng(0).integers(0, 4096, (num_records, 32)).astype(np.int64)
    captions = [f"clip {n}" if n % 3 else None for n in range(num_records)]
    labels = [["cat", 3, None][n % 3] for n in range(num_records)]
    with ShardWriter(tmp_path / "out", **SPEC, row_group_rows=40, shard_bytes=4096) as writer:
        writer.write(make(1))
        writer.write_batch(
            ids_NL,
            grid=GRID,
            size=SIZE,
            fps=25,
            captions=captions,
            labels=labels,
            end_seconds=np.arange(num_records) / 4,
        )
        assert writer.num_records == 1 + num_records
        writer.write_batch(ids_NL[:1], grid=GRID, size=SIZE, labels=np.array([5]))
    reader = ShardReader(tmp_path / "out")
    assert len(reader) == 2 + num_records
    assert same(reader[0], make(1))
    assert reader[-1].meta == {"label": 5}
    for n in range(num_records):
        meta = {"caption": captions[n], "label": labels[n], "end_seconds": n / 4}
        want = make(0, **{key: value for key, value in meta.items() if value is not None})
        assert same(reader[n + 1], replace(want, ids_L=ids_NL[n].astype(np.uint16), fps=25.0))


def test_random_access_equals_sequential(tmp_path: Path) -> None:
    records = [make(n, num_tokens=n % 50, caption=f"{n}") for n in range(300)]
    reader = ShardReader(write(tmp_path / "out", records, row_group_rows=17, shard_bytes=6000))
    assert len(reader.manifest.shards) > 2
    assert reader[0] is not None
    assert reader._file(0)._mapped.keys() == {0}, "ids of our own files must come from the memory map, not be decoded"
    indices = np.random.default_rng(0).integers(-300, 300, 500)
    assert all(same(reader[int(index)], records[index]) for index in indices)
    assert np.array_equal(reader.ids(7), records[7].ids_L)
    ids, counts = reader.ids_batch(indices)
    assert np.array_equal(ids, np.concatenate([records[index].ids_L for index in indices]))
    assert counts.tolist() == [records[index].num_tokens for index in indices]
    assert [tokens.meta["caption"] for tokens in reader.iter(40, 60)] == [str(n) for n in range(40, 60)]
    assert reader[3].ids_L.flags.writeable
    with pytest.raises(IndexError, match=r"300 of .* 300 records"):
        reader[300]
    empty, none = reader.ids_batch([])
    assert empty.dtype == np.uint16
    assert none.size == empty.size == 0


def test_one_file_is_a_reader_too(tmp_path: Path) -> None:
    records = [make(n) for n in range(5)]
    path = write(tmp_path / "out", records) / "shard-00000.parquet"
    reader = ShardReader(path)
    assert [same(got, want) for got, want in zip(reader, records, strict=True)] == [True] * 5
    with pytest.raises(FormatError, match="no checksum"):
        reader.verify()


def test_an_empty_corpus(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, **SPEC):
        pass
    reader = ShardReader(tmp_path)
    assert len(reader) == 0
    assert list(reader) == list(reader.iter_ids()) == []
    assert reader.manifest.complete


def test_readers_pickle_and_serve_threads(tmp_path: Path) -> None:
    records = [make(n, caption=f"{n}") for n in range(200)]
    reader = ShardReader(write(tmp_path / "out", records, row_group_rows=20, shard_bytes=4000), cache_bytes=2000)
    assert same(reader[3], records[3])
    copy = pickle.loads(pickle.dumps(reader))
    good: list[bool] = []

    def read(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 200, 100):
            good.append(same(copy[index], records[index]))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 400


# --- what a killed, broken or resumed writer leaves ------------------------------------------------------------------

WRITE_FOREVER = """
import sys, numpy as np
from tokenreel.tokens.shards import ShardWriter
from tokenreel.types import Grid
ids_NL = np.random.default_rng(0).integers(0, 4096, (10, 32))
with ShardWriter(sys.argv[1], tokenizer="titok", fingerprint="f" * 64, codebook_size=4096, layout="queries",
                 shard_bytes=40_000, row_group_rows=64) as writer:
    while True:
        writer.write_batch(ids_NL, grid=Grid(t=1, h=8, w=8), size=(1, 128, 128), sources=[str(writer.num_records)] * 10)
        print(writer.num_records, flush=True)
"""


def test_kill_9_leaves_whole_shards_and_resume_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        while len(list(tmp_path.glob("shard-*.parquet"))) < 3 or not list(tmp_path.glob(".shard-*")):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert list(tmp_path.glob(".shard-*.part.parquet"))
    reader = ShardReader(tmp_path)
    reader.verify()
    assert not reader.manifest.complete
    assert len(reader) > 0
    for shard in sorted(tmp_path.glob("shard-*.parquet")):
        assert len(ShardReader(shard)) > 0
    assert all(tokens.meta["source"] == str(n // 10 * 10) for n, tokens in enumerate(reader))

    with ShardWriter(tmp_path, **SPEC, resume=True) as writer:
        already = writer.num_records
        assert already >= len(reader)
        writer.write(make(1, caption="after"))
    reader = ShardReader(tmp_path)
    reader.verify()
    assert len(reader) == already + 1
    assert same(reader[-1], make(1, caption="after"))
    assert reader.manifest.complete
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_resume_takes_up_a_shard_that_is_whole_but_not_listed(tmp_path: Path) -> None:
    write(tmp_path, [make(n) for n in range(10)], row_group_rows=2, shard_bytes=1)
    manifest = Manifest.read(tmp_path)
    replace(manifest, shards=manifest.shards[:-1], complete=False).write(tmp_path)
    with ShardWriter(tmp_path, **SPEC, resume=True) as writer:
        assert writer.num_records == 10
    assert Manifest.read(tmp_path) == manifest


def test_resume_starts_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "._manifest.abc.part.json").touch()
    assert len(ShardReader(write(tmp_path / "new", [make(1)], resume=True))) == 1


def test_resume_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [make(1)])
    with (
        pytest.raises(MismatchError, match="fingerprint 'other', not 'fff"),
        ShardWriter(tmp_path, **{**SPEC, "fingerprint": "other"}, resume=True),
    ):
        pass


def test_a_used_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for options, message in (({}, "not empty"), ({"resume": True}, "holds something else")):
        with pytest.raises(InputError, match=message), ShardWriter(tmp_path, **SPEC, **options):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="it is a file"), ShardWriter(tmp_path / "thesis.txt", **SPEC):
        pass


def test_an_error_of_the_caller_keeps_what_was_written(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, **SPEC)
    with suppress(ZeroDivisionError), writer:
        writer.write(make(1))
        _ = 1 / 0
    reader = ShardReader(tmp_path)
    assert len(reader) == 1
    assert not reader.manifest.complete
    with pytest.raises(InputError, match="closed"):
        writer.write(make(1))


@pytest.mark.parametrize("num_writes", [0, 1, 5, 40])
def test_an_error_of_the_disk_leaves_whole_shards_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_writes: int
) -> None:
    from tokenreel.tokens import shards_newfile

    def fills_up(*_: object, left: list[int] = [0] * num_writes) -> int:
        if not left:
            raise OSError("No space left")
        return left.pop()

    with ShardWriter(tmp_path, **SPEC) as writer:
        writer.write(make(1))
        writer.finish_shard()
        writer.write(make(2))
        monkeypatch.setattr(shards_newfile.zlib, "crc32", fills_up)
        with pytest.raises(OSError, match="No space left"):
            writer.finish_shard()
        with pytest.raises(InputError, match="broken by an earlier error"):
            writer.write(make(3))
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST_NAME, "shard-00000.parquet"]
    ShardReader(tmp_path).verify()
    assert not ShardReader(tmp_path).manifest.complete


def test_wrong_input_is_named(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "out", **{**SPEC, "layout": "grid"}) as writer:
        ids_NL = np.zeros((2, 64), np.uint16)
        with pytest.raises(MismatchError, match="layout 'queries', not 'grid'"):
            writer.write(make(1))
        with pytest.raises(InputError, match="63 ids a record, its grid 1x8x8 has 64"):
            writer.write_batch(ids_NL[:, 1:], grid=GRID, size=SIZE)
        with pytest.raises(InputError, match=r"\[0, 4096\), found 4096"):
            writer.write_batch(ids_NL + 4096, grid=GRID, size=SIZE)
        with pytest.raises(InputError, match="found -1"):
            writer.write_batch(ids_NL.astype(np.int32) - 1, grid=GRID, size=SIZE)
        with pytest.raises(InputError, match="2 records and 1 values for caption"):
            writer.write_batch(ids_NL, grid=GRID, size=SIZE, captions=["one"])
        with pytest.raises(InputError, match="column caption cannot hold"):
            writer.write_batch(ids_NL, grid=GRID, size=SIZE, captions=["good", "lone surrogate \ud800"])
        with pytest.raises(InputError, match=r"below 2\*\*31"):
            writer.write_batch(ids_NL, grid=GRID, size=(1, 2**31, 1))
        with pytest.raises(InputError, match="whole-number array"):
            writer.write_batch(ids_NL / 2, grid=GRID, size=SIZE)
        writer.write_batch(ids_NL, grid=GRID, size=SIZE)
    assert len(ShardReader(tmp_path / "out")) == 2
    with ShardWriter(tmp_path / "meta", **SPEC) as writer, pytest.raises(InputError, match="JSON"):
        writer.write(make(1, thing=object()))
    with pytest.raises(InputError, match="not open yet"):
        ShardWriter(tmp_path / "x", **SPEC).write(make(1))
    for options in ({"row_group_rows": 0}, {"shard_bytes": 0}, {"compression": "lzma"}, {"layout": "cube"}):
        with pytest.raises(InputError):
            ShardWriter(tmp_path / "x", **{**SPEC, **options})


# --- damage, foreign files, versions ---------------------------------------------------------------------------------


def damaged(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_verify_names_the_broken_shard(tmp_path: Path) -> None:
    write(tmp_path, [make(n) for n in range(10)], row_group_rows=2, shard_bytes=1)
    ShardReader(tmp_path).verify()
    damaged(tmp_path / "shard-00003.parquet", 60)
    with pytest.raises(FormatError, match=r"shard-00003\.parquet \(CRC-32") as caught:
        ShardReader(tmp_path).verify()
    assert "shard-00002" not in str(caught.value)


def test_cut_off_missing_and_foreign_shards(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write(tmp_path, [make(n) for n in range(4)], row_group_rows=2, shard_bytes=1)
    path = tmp_path / "shard-00001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(FormatError, match=r"shard-00001\.parquet is cut off"):
        ShardReader(tmp_path)
    with pytest.raises(FormatError, match=r"shard-00001\.parquet cannot be read as Parquet"):
        ShardReader(path)
    with pytest.raises(FormatError, match=r"shard-00001\.parquet"):
        rebuild_manifest(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"shard-00001\.parquet"):
        ShardReader(path)
    path.unlink()
    with pytest.raises(FormatError, match=r"shard-00001\.parquet is missing"):
        ShardReader(tmp_path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(FormatError, match=r"shard-00001\.parquet is a Parquet file, but no tokenreel shard"):
        ShardReader(path)


def test_folders_that_are_no_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder or file"):
        ShardReader(tmp_path / "nothing")
    with pytest.raises(FormatError, match="is it the right folder"):
        ShardReader(tmp_path)
    with pytest.raises(FormatError, match="no Parquet files"):
        rebuild_manifest(tmp_path)
    (tmp_path / MANIFEST_NAME).write_text("{")
    with pytest.raises(FormatError, match="damaged"):
        ShardReader(tmp_path)


def test_newer_versions_are_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write(tmp_path, [make(1)])
    path = tmp_path / MANIFEST_NAME
    text = path.read_text()
    path.write_text(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(FormatError, match=r"version 2 of the shard format.*reads version 1; install a newer"):
        ShardReader(tmp_path)
    path.write_text(
        text.replace('"version": 1', '"version": 1, "format": "other"').replace('"tokenreel shards",', '"x",')
    )
    with pytest.raises(FormatError, match="not a tokenreel shard"):
        ShardReader(tmp_path)
    path.write_text(text.replace("shard-00000.parquet", "../shard-00000.parquet"))
    with pytest.raises(FormatError, match="not the name of a file beside it"):
        ShardReader(tmp_path)
    table = pq.read_table(tmp_path / "shard-00000.parquet")
    header = json.loads(table.schema.metadata[b"tokenreel"]) | {"version": 3}
    pq.write_table(table.replace_schema_metadata({"tokenreel": json.dumps(header)}), tmp_path / "new.parquet")
    with pytest.raises(FormatError, match=r"new\.parquet is in version 3"):
        ShardReader(tmp_path / "new.parquet")


def test_a_lost_manifest_is_rebuilt(tmp_path: Path) -> None:
    records = [make(n) for n in range(10)]
    write(tmp_path, records, row_group_rows=2, shard_bytes=1)
    manifest = Manifest.read(tmp_path)
    (tmp_path / MANIFEST_NAME).unlink()
    with pytest.raises(FormatError, match="rebuild_manifest"):
        ShardReader(tmp_path)
    assert rebuild_manifest(tmp_path) == manifest == Manifest.read(tmp_path)
    other = write(tmp_path / "other", [replace(make(1), fingerprint="other")])
    (other / "shard-00000.parquet").rename(tmp_path / "shard-00009.parquet")
    with pytest.raises(MismatchError, match=r"shard-00009\.parquet does not belong"):
        rebuild_manifest(tmp_path)


# --- other tools -----------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, list[Tokens]]:
    records = [make(n, num_tokens=n % 7, caption=f"clip {n}", label=n) for n in range(30)]
    return write(tmp_path / "corpus", records, row_group_rows=10, shard_bytes=1), records


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd"},
        {"use_dictionary": False, "compression": "none", "data_page_version": "2.0"},
        {"use_dictionary": False, "compression": "none", "data_page_size": 1, "write_batch_size": 1},
        {"use_dictionary": False, "compression": "none", "column_encoding": {"ids": "DELTA_LENGTH_BYTE_ARRAY"}},
    ],
)
def test_a_shard_rewritten_by_another_tool_is_still_read(
    corpus: tuple[Path, list[Tokens]], options: dict[str, Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, records = corpus
    table = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])
    for order in (table.column_names, table.column_names[::-1]):
        pq.write_table(table.select(order), folder.parent / "one.parquet", row_group_size=7, **options)
        reader = ShardReader(folder.parent / "one.parquet")
        assert [same(got, want) for got, want in zip(reader, records, strict=True)] == [True] * 30
        assert np.array_equal(reader.ids(20), records[20].ids_L)
    pq.write_table(table.drop_columns("caption"), folder.parent / "one.parquet")
    with pytest.raises(FormatError, match="lacks the columns caption"):
        ShardReader(folder.parent / "one.parquet")


def test_pandas_opens_the_folder(corpus: tuple[Path, list[Tokens]]) -> None:
    pandas = pytest.importorskip("pandas")
    folder, records = corpus
    frame = pandas.read_parquet(folder)
    assert frame["caption"].tolist() == [f"clip {n}" for n in range(30)]
    assert all(np.array_equal(np.frombuffer(ids, "<u2"), want.ids_L) for ids, want in zip(frame["ids"], records))


def test_duckdb_opens_the_files(corpus: tuple[Path, list[Tokens]]) -> None:
    duckdb = pytest.importorskip("duckdb")
    folder, records = corpus
    with duckdb.connect() as database:
        query = f"select ids, caption from '{folder}/*.parquet' where label_id >= 20 order by label_id"
        rows = database.sql(query).fetchall()
    assert [caption for _, caption in rows] == [f"clip {n}" for n in range(20, 30)]
    assert all(np.array_equal(np.frombuffer(ids, "<u2"), want.ids_L) for (ids, _), want in zip(rows, records[20:]))


def test_datasets_opens_the_folder(corpus: tuple[Path, list[Tokens]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    folder, records = corpus
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    assert rows["caption"][:] == [f"clip {n}" for n in range(30)]
    assert all(np.array_equal(np.frombuffer(rows[n]["ids"], "<u2"), want.ids_L) for n, want in enumerate(records))


def test_the_import_is_light() -> None:
    code = "import sys, tokenreel.tokens.shards; assert not {'pyarrow', 'torch', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
