"""Output files that appear whole or not at all.

Whatever tokenreel writes is first written beside its place, under a hidden temporary name, and renamed
when it is complete: a crash, a full disk or an error leaves no half-written file under the real name,
and an older file of that name stays until the new one is ready.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

__all__ = ["whole_directory", "whole_file"]


def _beside(path: Path) -> Path:
    if not path.name:
        raise InputError(f"{str(path)!r} is not a file name to write to; give a path such as out/result.bin")
    if not path.parent.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create the folder {path.parent} for {path.name}: {error.strerror}") from error
    return path.parent


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends well, else remove it.

    The temporary name keeps the suffix, so that writers which choose by suffix work. Missing parent folders are made.

    Raises:
        InputError: ``path`` is a folder, or its folder cannot be created or written.
    """
    path = Path(path)
    folder = _beside(path)
    if path.is_dir():
        raise InputError(f"cannot write the file {path}: a folder of that name exists; choose another name")
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.stem}.", suffix=f".part{path.suffix}")
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; rename it to ``path`` when the block ends well, else remove it.

    Raises:
        InputError: ``path`` exists and is not an empty folder (nothing of the user's is ever deleted).
    """
    path = Path(path)
    folder = _beside(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"cannot write the folder {path}: it exists and is not empty; choose another name or empty it")
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
