from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.tokens.file import TokenFile, TokenWriter, load, save
from tokenreel.types import Grid, Tokens

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=5,
)


@st.composite
def some_tokens(draw: st.DrawFn) -> Tokens:
    grid = Grid(t=draw(st.integers(1, 4)), h=draw(st.integers(1, 4)), w=draw(st.integers(1, 4)))
    layout = draw(st.sampled_from(["grid", "queries", "bytes"]))
    codebook_size = 256 if layout == "bytes" else draw(st.sampled_from([1, 2, 256, 257, 65536, 65537, 2**20]))
    length = {"grid": grid.num_cells, "queries": draw(st.integers(1, 40)), "bytes": grid.num_cells * 12}[layout]
    ids = np.random.default_rng(length).integers(0, codebook_size, length)
    frames = draw(st.integers(1, 6))
    return Tokens(
        ids_L=ids,
        layout=layout,  # type: ignore[arg-type]
        grid=grid,
        size=(frames, draw(st.integers(1, 99)), draw(st.integers(1, 99))),
        codebook_size=codebook_size,
        tokenizer=draw(st.text(min_size=1, max_size=12)),
        fingerprint=draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        fps=draw(st.none() | st.floats(0.1, 240)),
        pts_seconds=draw(st.none() | st.just(np.arange(frames) / 7)),
        meta=draw(st.dictionaries(st.text(max_size=6), json_values, max_size=3)),
    )


def assert_equal(a: Tokens, b: Tokens) -> None:
    for field in dataclasses.fields(Tokens):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right, field.name


@settings(max_examples=80, deadline=None)
@given(tokens=some_tokens())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens) -> None:
    path = save(tmp_path_factory.mktemp("t") / "a.tokens", tokens)
    assert_equal(load(path), tokens)


def test_the_frozen_file_of_version_1_reads_for_ever() -> None:
    tokens = load(Path(__file__).parents[1] / "golden" / "v1.tokens")
    assert tokens.ids_L.dtype == np.uint16
    assert tokens.ids_L.tolist() == [(i * 2741) % 64000 for i in range(24)]
    assert (tokens.grid, tokens.size, tokens.fps) == (Grid(t=2, h=3, w=4), (5, 23, 31), 15.0)
    assert (tokens.layout, tokens.codebook_size, tokens.tokenizer) == ("grid", 64000, "video-fsq")
    assert tokens.fingerprint == "0123456789abcdef" * 4
    assert tokens.pts_seconds is not None
    assert tokens.pts_seconds.tolist() == [i / 15 for i in range(5)]
    assert tokens.meta == {"caption": "a dog läuft 犬", "source": "dog.mp4", "label": 3}


def part(t: int, frames: int, **changes: object) -> Tokens:
    values = {
        "ids_L": np.arange(t * 4) % 7,
        "layout": "grid",
        "grid": Grid(t=t, h=2, w=2),
        "size": (frames, 20, 20),
        "codebook_size": 7,
        "tokenizer": "x",
        "fingerprint": "a" * 64,
        "pts_seconds": np.arange(frames) / 10,
    }
    return Tokens(**(values | changes))  # type: ignore[arg-type]


def test_parts_add_up_and_come_back_as_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    with TokenWriter(path) as writer:
        for tokens in (part(1, 1), part(2, 8), part(1, 3)):
            writer.append(tokens)
        writer.set(fps=10.0, note="x")
    opened = TokenFile(path)
    assert (opened.header.grid, opened.header.size) == (Grid(t=4, h=2, w=2), (12, 20, 20))
    assert (opened.header.fps, opened.header.meta, opened.num_tokens) == (10.0, {"note": "x"}, 16)
    slabs = list(opened.slabs(2, first_frames=1, step_frames=4))
    assert [slab.size[0] for slab in slabs] == [5, 7]
    np.testing.assert_array_equal(np.concatenate([slab.ids_L for slab in slabs]), opened.tokens().ids_L)
    with pytest.raises(FormatError, match="longer than its 12 frames"):
        list(opened.slabs(1, first_frames=4, step_frames=4))


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "b" * 64},
        {"grid": Grid(t=1, h=4, w=1)},
        {"size": (1, 20, 21)},
        {"codebook_size": 8},
        {"pts_seconds": None},
        {"layout": "merged"},
    ],
)
def test_parts_that_do_not_continue_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    first = part(1, 1, layout="merged") if change == {"layout": "merged"} else part(1, 1)
    with pytest.raises(MismatchError), TokenWriter(tmp_path / "a.tokens") as writer:
        writer.append(first)
        writer.append(part(1, 1, **change))
    assert list(tmp_path.iterdir()) == []


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokens"), TokenWriter(tmp_path / "a.tokens"):
        pass
    with pytest.raises(InputError, match="JSON"):
        save(tmp_path / "a.tokens", part(1, 1, meta={"x": object()}))
    assert list(tmp_path.iterdir()) == []


def tampered(path: Path, **changes: object) -> Path:
    """The frozen file with its metadata changed."""
    golden = Path(__file__).parents[1] / "golden" / "v1.tokens"
    reader = TokenFile(golden)._tensors
    metadata = dict(reader.metadata)
    inner = json.loads(metadata["tokens"])
    for key, value in changes.items():
        if key in metadata:
            metadata[key] = str(value)
        elif value is None:
            del inner[key]
        else:
            inner[key] = value
    metadata["tokens"] = json.dumps(inner)
    arrays = {name: reader.whole(name) for name in reader.names}
    safetensors.numpy.save_file(arrays, path, metadata)
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "has version 2 of tokenreel.tokens; this tokenreel reads up to 1"),
        ({"version": "x"}, "does not say its version"),
        ({"format": "other"}, "expected tokenreel.tokens"),
        ({"layout": "spiral"}, "layout 'spiral' is unknown"),
        ({"grid": [2, 3, 5]}, "do not fill its grid"),
        ({"grid": [2, 3]}, "damaged"),
        ({"grid": None}, "damaged"),
        ({"size": [6, 23, 31]}, "times for 6 frames"),
        ({"codebook_size": 100}, "ids must be"),
        ({"layout": "bytes", "grid": [1, 5, 1]}, "do not fill"),
    ],
)
def test_damaged_and_newer_files_are_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    path = tampered(tmp_path / "a.tokens", **changes)
    with pytest.raises(FormatError, match=words) as caught:
        TokenFile(path)
    assert "\n" not in str(caught.value)
    assert "a.tokens" in str(caught.value)


def test_an_id_beyond_the_codebook_is_refused(tmp_path: Path) -> None:
    path = tampered(tmp_path / "a.tokens", codebook_size=60000)
    with pytest.raises(InputError, match="found 63"):
        load(path)
