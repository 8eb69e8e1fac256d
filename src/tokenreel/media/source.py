"""What a caller calls a source (a path, bytes, an open file) made into one thing that can be opened and named."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from ..errors import MediaError

__all__ = ["Source", "open_source"]

Kind = Literal["picture", "video"]

_PICTURE_MAGIC: tuple[tuple[int, bytes], ...] = (
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"\xff\xd8\xff"),
    (0, b"GIF87a"),
    (0, b"GIF89a"),
    (8, b"WEBP"),
    (4, b"ftypavif"),
    (4, b"ftypavis"),
    (0, b"BM"),
    (0, b"II*\x00"),
    (0, b"MM\x00*"),
    (0, b"P5"),
    (0, b"P6"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A seekable thing to read: ``path`` where it is a file, else ``file``; ``name`` stands in messages."""

    name: str
    path: Path | None
    file: IO[bytes] | None
    kind: Kind

    def open(self) -> Any:
        """What Pillow and PyAV take: a path as text, or the file at its start."""
        if self.path is not None:
            return str(self.path)
        assert self.file is not None
        self.file.seek(0)
        return self.file


def open_source(source: str | os.PathLike[str] | bytes | IO[bytes]) -> Source:
    """Find out what ``source`` is. A file object that cannot seek is first copied to a temporary file.

    Raises:
        MediaError: it is missing, a folder, empty or unreadable.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        file: IO[bytes] = io.BytesIO(source)
        return _sniffed(f"<{len(source)} bytes>", None, file)
    if isinstance(source, str | os.PathLike):
        return _path_source(Path(source))
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "<file object>"))
        return _sniffed(name, None, source if _can_seek(source) else _spooled(source))
    raise MediaError(f"a source must be a path, bytes or an open binary file, got {type(source).__name__}")


def _path_source(path: Path) -> Source:
    if path.is_dir():
        raise MediaError(f"{path} is a folder; give one picture or video file")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise MediaError(f"{path} does not exist; check the name (the current folder is {Path.cwd()})") from None
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}") from error
    return Source(str(path), path, None, _kind(head, str(path)))


def _sniffed(name: str, path: Path | None, file: IO[bytes]) -> Source:
    file.seek(0)
    head = file.read(64)
    if not isinstance(head, bytes):
        raise MediaError(f"{name} is opened as text; open it in binary mode ('rb')")
    return Source(name, path, file, _kind(head, name))


def _kind(head: bytes, name: str) -> Kind:
    if not head:
        raise MediaError(f"{name} is empty (0 bytes); nothing can be read from it")
    is_picture = any(head[at : at + len(magic)] == magic for at, magic in _PICTURE_MAGIC)
    return "picture" if is_picture else "video"


def _can_seek(file: IO[bytes]) -> bool:
    try:
        return file.seekable()
    except AttributeError:
        return False


def _spooled(file: IO[bytes]) -> IO[bytes]:
    spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the source)
    shutil.copyfileobj(file, spool, 1 << 20)
    return spool
