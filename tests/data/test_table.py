from __future__ import annotations

import json
import pickle

import pytest

from tokenreel.data.table import TableCollection
from tokenreel.errors import InputError, MediaError


def test_csv_with_all_columns(make_media, tmp_path):
    make_media("clips/a.mp4", count=10)
    make_media("clips/b.png")
    table = tmp_path / "list.csv"
    table.write_text(
        "path,label,caption,start,end,patient,score\n"
        'clips/a.mp4,2,"a ball, red",0.2,0.5,p1,0.5\n'
        "clips/b.png,10,,,,p2,\n"
        "clips/a.mp4,2,same film,0.5,,p1,1\n",
        encoding="utf-8-sig",
    )
    rows = TableCollection(table, columns={"group": "patient"})
    first, second, third = rows
    assert (first.label, first.caption, first.group, first.meta) == (2, "a ball, red", "p1", {"score": "0.5"})
    assert first.clip().num_frames == 3
    assert (second.label, second.caption, second.start_seconds, second.meta) == (10, None, None, {})
    assert [example.key for example in rows] == ["clips/a.mp4#0.2-0.5", "clips/b.png", "clips/a.mp4#0.5-inf"]
    assert third.clip().num_frames == 5
    assert rows.labels == [2, 10, 2]
    assert rows.label_names == (2, 10)
    assert rows.groups == ["p1", "p2", "p1"]
    assert pickle.loads(pickle.dumps(rows))[1].label == 10


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_names_and_roots(make_media, tmp_path, separator):
    make_media("far/a.png")
    table = tmp_path / ("list.tsv" if separator == "\t" else "list.csv")
    table.write_text(f"Video{separator}Class\na.png{separator}run\nb.png{separator}7\n")
    rows = TableCollection(table, root=tmp_path / "far", group=r"^(\w)")
    assert rows.labels == ["run", "7"]
    assert rows.groups == ["a", "b"]
    assert rows[0].clip().num_frames == 1
    with pytest.raises(MediaError, match=r"b\.png does not exist"):
        rows[1].clip()


def test_json_lines(make_media, tmp_path):
    make_media("a.png")
    table = tmp_path / "list.jsonl"
    rows = [{"file_name": "a.png", "text": "x", "label": 3, "more": [1]}, {"file_name": "b.png", "label": "three"}]
    table.write_text("\n\n".join(map(json.dumps, rows)))
    first, second = TableCollection(table)
    assert (first.caption, first.label, first.meta) == ("x", 3, {"more": [1]})
    assert second.label == "three"


def test_splits(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,split\na.png,train\nb.png,validation\nc.png,train\n")
    assert [one.key for one in TableCollection(table, split="train")] == ["a.png", "c.png"]
    assert [one.key for one in TableCollection(table, split="val")] == ["b.png"]
    assert len(TableCollection(table, split="all")) == 3
    with pytest.raises(InputError, match="splits train, validation: choose one"):
        TableCollection(table)
    with pytest.raises(InputError, match="no rows of split 'test'; it has train, validation"):
        TableCollection(table, split="test")
    table.write_text("path\na.png\n")
    with pytest.raises(InputError, match="no column named split"):
        TableCollection(table, split="train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("path,label\n", "no rows"),
        ("name,label\na,1\n", r"no column for the files .* it has name, label"),
        ("path,start\na.png,soon\n", "line 2: start must be a number of seconds, got 'soon'"),
        ("path,start,end\na.png,1,2\nb.png,2,1\n", "line 3: the part from 2 to 1 s is empty"),
        ("path,label\na.png,1\n,2\n", "line 3: the column 'path' is empty"),
        ("path,label\na.png,1,2\n", "line 2: it has more values"),
    ],
)
def test_faults_are_named_by_line(tmp_path, text, message):
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        TableCollection(table)


def test_wrong_columns_and_encodings(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,label\na.png,1\n")
    with pytest.raises(InputError, match="no column 'patient'; it has"):
        TableCollection(table, columns={"group": "patient"})
    with pytest.raises(InputError, match="unknown field; known are path"):
        TableCollection(table, columns={"patient": "label"})
    table.write_bytes("path\nä.png\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        TableCollection(table)
    with pytest.raises(InputError, match="No such file"):
        TableCollection(tmp_path / "gone.csv")
    lines = tmp_path / "x.jsonl"
    lines.write_text('{"path": "a.png", "label": 1.5}')
    with pytest.raises(InputError, match="line 1: a label must be a name or a whole number"):
        TableCollection(lines)
