from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenreel.errors import FormatError, InputError
from tokenreel.tokens.tensors import TensorReader, TensorWriter


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "uint16", "float16", "float32", "int64"]),
    parts=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    width=st.integers(1, 5),
    note=st.text(max_size=40),
)
def test_a_grown_file_is_an_ordinary_one(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, parts: list[int], width: int, note: str
) -> None:
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    rng = np.random.default_rng(sum(parts))
    blocks = [rng.integers(0, 100, (rows, width)).astype(dtype) for rows in parts]
    times, cells = rng.random(3), rng.integers(0, 9, (2, 3)).astype(np.int32)
    with TensorWriter(path, name="grown", dtype=dtype, row_shape=(width,)) as writer:
        writer.reserve({"note": note}, {"times": ("float64", 1), "cells": ("int32", 2)})
        for block in blocks:
            writer.append(block)
        writer.add("times", times)
        writer.add_blocks("cells", np.int32, (2, 3), iter(cells))
        writer.finish({"note": note})
    whole = np.concatenate(blocks)
    for read in (
        safetensors.numpy.load_file(path),
        {k: v.numpy() for k, v in safetensors.torch.load_file(path).items()},
    ):
        read.pop("_align", None)
        assert set(read) == {"grown", "times", "cells"}
        np.testing.assert_array_equal(read["grown"], whole)
        np.testing.assert_array_equal(read["times"], times)
        np.testing.assert_array_equal(read["cells"], cells)
    ours = TensorReader(path)
    assert ours.metadata == {"note": note}
    assert sorted(ours.names) == ["cells", "grown", "times"]
    np.testing.assert_array_equal(ours.rows("grown", 0, len(whole)), whole)
    middle = len(whole) // 2
    np.testing.assert_array_equal(ours.rows("grown", middle, len(whole)), whole[middle:])


def small(path: Path) -> Path:
    with TensorWriter(path, name="ids", dtype=np.uint8) as writer:
        writer.reserve({"format": "f", "version": "3"})
        writer.append(np.arange(100, dtype=np.uint8))
        writer.finish({"format": "f", "version": "3"})
    return path


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    data = small(tmp_path / "a.safetensors").read_bytes()
    for length in range(len(data)):
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes(data[:length])
        with pytest.raises(FormatError, match=r"cut\.safetensors"):
            TensorReader(cut)


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    path = small(tmp_path / "a.safetensors")
    reader = TensorReader(path)
    reader.check_format("f", 3)
    with pytest.raises(FormatError, match="version 3 of f; this tokenreel reads up to 2"):
        reader.check_format("f", 2)
    with pytest.raises(FormatError, match="expected g"):
        reader.check_format("g", 3)
    with pytest.raises(FormatError, match="no tensor 'x'"):
        reader.shape("x")
    with pytest.raises(FormatError, match="'note' is missing"):
        reader.json("note")
    with pytest.raises(InputError, match="not among its 100"):
        reader.rows("ids", 90, 101)
    with pytest.raises(FormatError, match="does not exist"):
        TensorReader(tmp_path / "none.safetensors")
    with pytest.raises(FormatError, match="is a folder"):
        TensorReader(tmp_path)


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def broken(fault: str) -> None:
        with TensorWriter(tmp_path / "a.safetensors", name="ids", dtype=np.uint8) as writer:
            writer.reserve({"note": "short"})
            writer.append(np.zeros(4, np.uint8 if fault != "dtype" else np.int8))
            if fault == "blocks":
                writer.add_blocks("cells", np.int32, (3,), [np.zeros(2, np.int32)])
            writer.finish({"note": "long" * (100 if fault == "metadata" else 1)})

    for fault, words in (("dtype", "grows by rows"), ("blocks", "its shape"), ("metadata", "grew past the room")):
        with pytest.raises(InputError, match=words):
            broken(fault)
        assert list(tmp_path.iterdir()) == []
