from __future__ import annotations

from pathlib import Path

import pytest

from tokenreel.errors import InputError
from tokenreel.files import whole_directory, whole_file


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.bin"
    with whole_file(target) as temporary:
        temporary.write_bytes(b"abc")
        assert not target.exists()
        assert temporary.suffix == ".bin"
    assert target.read_bytes() == b"abc"
    assert [path.name for path in target.parent.iterdir()] == ["a.bin"]
    assert target.stat().st_mode & 0o600 == 0o600


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), whole_file(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder of that name"), whole_file(tmp_path):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="Not a directory"), whole_file(tmp_path / "file" / "a.bin"):
        pass


def test_a_folder_appears_whole_and_deletes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "frames"
    with whole_directory(target) as temporary:
        (temporary / "0.png").write_bytes(b"x")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["0.png"]
    with pytest.raises(InputError, match="not empty"), whole_directory(target):
        pass
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ZeroDivisionError), whole_directory(empty) as temporary:
        (temporary / "0.png").write_bytes(b"x")
        raise ZeroDivisionError
    assert list(empty.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"frames", "empty"}
