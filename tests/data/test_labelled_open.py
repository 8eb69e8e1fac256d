from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_pixel_shards import EXACT, add, noise

from tokenreel.data.feed import Feeder
from tokenreel.data.labelled_open import open_labelled
from tokenreel.data.labelled_split import folds
from tokenreel.data.pixel_write import PixelWriter
from tokenreel.errors import FormatError, InputError
from tokenreel.media.frames import Selection
from tokenreel.tokens.file import save
from tokenreel.tokens.shards import ShardWriter
from tokenreel.train.films import open_film

NAMES = ("jack/performer1.mkv", "jack/performer2.mkv", "wave/performer1.mkv", "wave/performer2.mkv")


@pytest.fixture
def actions(make_media, tmp_path) -> Path:
    for index, name in enumerate(NAMES):
        make_media(f"actions/{name}", value=10 + 20 * index, count=3)
    return tmp_path / "actions"


def test_a_class_a_folder_with_groups_by_name(actions) -> None:
    whole = open_labelled(actions, group=r"(performer\d+)")
    assert (whole.heads, whole.targets().tolist()) == ({"label": ("jack", "wave")}, [0, 0, 1, 1])
    assert whole.groups == ["performer1", "performer2"] * 2
    example = whole[2]
    frames = example.frames()
    assert (frames.shape, frames.dtype, frames[0, 0, 0, 0]) == ((3, 16, 16, 3), np.uint8, 50)
    assert example.frames(Selection(uniform=1), size=8).shape == (1, 8, 8, 3)
    assert (example.source, example.split) == (str(actions / NAMES[2]), None)
    held = {group: [one.key for one in test] for group, _, test in folds(whole)}
    assert held["performer2"] == ["jack/performer2.mkv", "wave/performer2.mkv"]


def test_folders_of_splits(make_media, tmp_path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "valid/a/3.png", "test/b/4.png"):
        make_media(f"set/{name}")
    whole = open_labelled(tmp_path / "set")
    assert whole.heads == {"label": ("a", "b")}
    assert {split: whole.part(split).targets().tolist() for split in ("train", "val", "test")} == {
        "train": [0, 1],
        "val": [0],
        "test": [1],
    }
    assert open_labelled(tmp_path / "set", split="test")[0].key == "b/4.png"


def test_empty_and_single_classes(actions, make_media, tmp_path) -> None:
    (actions / "bend").mkdir()
    with pytest.raises(InputError, match=r"the class folder .*bend holds nothing"):
        open_labelled(actions)
    (actions / "bend").rmdir()
    make_media("one/a/1.png")
    with pytest.raises(InputError, match=r"one class only \(a\)"):
        open_labelled(tmp_path / "one")
    make_media("actions/loose.png")
    with pytest.raises(InputError, match=r"1 of 5 examples .* have no label, such as loose\.png"):
        open_labelled(actions)
    with pytest.raises(InputError, match="does not exist"):
        open_labelled(tmp_path / "none")
    with pytest.raises(InputError, match="are for tables"):
        open_labelled(actions, columns={"label": "x"})


def test_classes_of_a_trained_classifier(actions) -> None:
    assert open_labelled(actions, classes=["wave", "bend", "jack"]).targets().tolist() == [2, 2, 0, 0]
    with pytest.raises(InputError, match="'jack', which is none of the 2 classes wave, bend"):
        open_labelled(actions, classes=["wave", "bend"])


ROWS = [
    {"path": name, "label": "hop" if "jack" in name else "wave", "group": name[-5], "split": split, "mood": mood}
    for name, split, mood in zip(NAMES, ("train", "test", "train", "test"), ("sad", "glad", "glad", "sad"))
]


def written(folder: Path, suffix: str, rows=ROWS) -> Path:
    path = folder / f"table{suffix}"
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [rows[0].keys(), *(row.values() for row in rows)]
        path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables(actions, suffix) -> None:
    path = written(actions, suffix)
    whole = open_labelled(path)
    assert whole.heads == {"label": ("hop", "wave")}
    assert (whole.groups, whole.splits) == (["1", "2"] * 2, ("train", "test") * 2)
    assert whole.part("test").targets().tolist() == [0, 1]
    assert whole[1].frames().shape == (3, 16, 16, 3)
    assert whole[1].meta == {"mood": "glad"}
    moods = open_labelled(path, heads=["mood", "label"])
    assert moods.heads == {"mood": ("glad", "sad"), "label": ("hop", "wave")}
    assert moods[2].classes == {"mood": 0, "label": 1}
    with pytest.raises(InputError, match="have no colour"):
        open_labelled(path, heads=["colour"])
    renamed = open_labelled(path, columns={"label": "mood"}, split="train")
    assert renamed.labels == ["sad", "glad"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_group_in_two_splits_is_refused(actions, suffix) -> None:
    rows = [{**row, "group": "1"} for row in ROWS]
    with pytest.raises(InputError, match="the group '1' is in the splits train and test"):
        open_labelled(written(actions, suffix, rows))


def test_wrong_tables(actions, tmp_path) -> None:
    written(tmp_path, ".parquet", [{"label": "a"}])
    with pytest.raises(InputError):
        open_labelled(tmp_path / "table.parquet")
    with pytest.raises(InputError, match="row 1: the path is empty"):
        open_labelled(written(actions, ".parquet", [ROWS[0], {**ROWS[1], "path": ""}]))
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="not a Parquet file"):
        open_labelled(tmp_path / "x.parquet")


def test_token_files_by_folder_meta_and_table(make_tokens, tmp_path) -> None:
    for index, name in enumerate(NAMES):
        path = tmp_path / "tokens" / Path(name).with_suffix(".tokens")
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, make_tokens(index * 10))
    whole = open_labelled(tmp_path / "tokens", group=r"(performer\d)")
    assert (whole.labels, whole.groups[1]) == (["jack", "jack", "wave", "wave"], "performer2")
    assert whole[3].tokens().ids_L[0] == 30
    with pytest.raises(InputError, match="has no pixels"):
        whole[3].frames()
    table = written(tmp_path, ".csv")
    said = open_labelled(tmp_path / "tokens", labels=table)
    assert (said.labels, said.groups) == (["hop", "hop", "wave", "wave"], ["1", "2"] * 2)
    assert said.part("test").labels == ["hop", "wave"]
    moods = open_labelled(tmp_path / "tokens", labels=table, heads=["mood"])
    assert moods.targets("mood").tolist() == [1, 0, 0, 1]
    save(tmp_path / "tokens" / "wave" / "new.tokens", make_tokens())
    with pytest.raises(InputError, match=r"table\.csv has no row for wave/new\.tokens"):
        open_labelled(tmp_path / "tokens", labels=table)


def shards_of(folder: Path, make_tokens, **facts) -> Path:
    """Four records whose source is a file far away."""
    spec = {"tokenizer": "raw", "fingerprint": "f" * 16, "codebook_size": 1000, "layout": "grid"}
    with ShardWriter(folder / "shards", **spec) as writer:
        for index, row in enumerate(ROWS):
            known = {name: row[name] for name in facts.get("known", ())}
            writer.write(make_tokens(index * 10, source=f"/far/away/{row['path']}", **known))
    return folder / "shards"


def test_token_shards_with_labels(make_tokens, tmp_path) -> None:
    whole = open_labelled(shards_of(tmp_path, make_tokens, known=("label", "group")))
    assert (whole.labels, whole.groups) == (["hop", "hop", "wave", "wave"], ["1", "2"] * 2)
    assert [int(example.tokens().ids_L[0]) for example in whole] == [0, 10, 20, 30]
    with pytest.raises(InputError, match=r"4 of 4 examples .* have no label"):
        open_labelled(shards_of(tmp_path / "none", make_tokens))


@pytest.mark.parametrize("front", ["", "away/", "/far/away/", "/so/far/away/"])
def test_token_shards_labelled_by_a_table(make_tokens, tmp_path, front) -> None:
    rows = [{**row, "path": front + row["path"].replace(".mkv", ".mp4")} for row in reversed(ROWS)]
    shards = shards_of(tmp_path, make_tokens)
    whole = open_labelled(shards, labels=written(tmp_path, ".csv", rows))
    assert (whole.labels, whole.groups) == (["hop", "hop", "wave", "wave"], ["1", "2"] * 2)
    assert whole.splits == ("train", "test") * 2


def test_a_row_of_another_folder_or_two_rows_are_no_label(make_tokens, tmp_path) -> None:
    shards = shards_of(tmp_path, make_tokens)
    elsewhere = [*ROWS[1:], {**ROWS[0], "path": "bend/performer1.mkv"}]
    with pytest.raises(InputError, match=r"has no row for /far/away/jack/performer1\.mkv"):
        open_labelled(shards, labels=written(tmp_path, ".csv", elsewhere))
    numbered = [{**row, "path": f"{index}.mkv"} for index, row in enumerate(ROWS)]  # not the numbers of the records
    with pytest.raises(InputError, match=r"has no row for /far/away/jack/performer1\.mkv"):
        open_labelled(shards, labels=written(tmp_path, ".csv", numbered))
    with pytest.raises(InputError, match=r"has 2 rows for /far/away/jack/performer1\.mkv"):
        open_labelled(shards, labels=written(tmp_path, ".csv", [ROWS[0], *ROWS]))


def test_pixel_shards_with_splits(tmp_path) -> None:
    with PixelWriter(tmp_path / "packed", EXACT) as writer:
        for seed, (label, split) in enumerate([("a", "train"), ("b", "train"), ("b", "val")]):
            add(writer, noise(3, seed=seed), f"c{seed}", label=label, group=f"g{seed}", split=split)
    whole = open_labelled(tmp_path / "packed")
    assert (whole.labels, whole.groups) == (["a", "b", "b"], ["g0", "g1", "g2"])
    assert [example.key for example in whole.part("val")] == ["c2"]
    np.testing.assert_array_equal(whole[1].frames(), noise(3, seed=1))


def test_what_feeds_and_films_collections_takes_sets(actions) -> None:
    whole = open_labelled(actions)
    feeder = Feeder(whole, lambda example, rng: (example.key, example.target), batch_size=3, seed=0)
    assert sorted(one for batch in feeder for one in batch) == [(name, index // 2) for index, name in enumerate(NAMES)]
    with open_film(whole[2]) as film:
        assert film.num_frames == 3
    assert "2 labels (jack, wave)" in whole.describe()


def test_real_actions(data_dir) -> None:
    folder = data_dir / "actions-weizmann"
    if not folder.is_dir():
        pytest.skip("no actions")
    whole = open_labelled(folder, group=r"(performer\d+)")
    assert (len(whole), whole.counts().tolist()) == (36, [9] * 4)
    assert [len(held) for _, _, held in folds(whole)] == [4] * 9
