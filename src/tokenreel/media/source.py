"""What a caller calls a source (a path, bytes, an open file) made into one thing that can be opened and named."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from tokenreel.errors import MediaError

__all__ = ["Source", "open_source"]

Kind = Literal["picture", "video"]

_PICTURE_MAGIC: tuple[tuple[int, bytes], ...] = (
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"\xff\xd8\xff"),
    (0, b"GIF87a"),
    (0, b"GIF89a"),
    (8, b"WEBP"),
    (0, b"BM"),
    (0, b"II*\x00"),
    (0, b"MM\x00*"),
    (0, b"P5"),
    (0, b"P6"),
)
_AVIF, _HEIC = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_HDR_TRANSFERS = (16, 18)  # PQ and HLG, ISO 23091-2
_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """A seekable thing to read: ``path`` where it is a file, else ``file``; ``name`` stands in messages."""

    name: str
    path: Path | None
    file: IO[bytes] | None
    kind: Kind
    is_owned: bool = False

    def open(self) -> Any:
        """What Pillow and PyAV take: an absolute path (which can be no protocol) as text, or the file at its start."""
        if self.path is not None:
            return str(self.path.absolute())
        assert self.file is not None
        self.file.seek(0)
        return self.file

    @contextmanager
    def bytes(self) -> Iterator[IO[bytes]]:
        """The file at its start, for reading bytes."""
        opened = self.open()
        with open(opened, "rb") if isinstance(opened, str) else nullcontext(opened) as file:
            yield file

    def close(self) -> None:
        """Close the file if it was opened here; a caller's file stays open."""
        if self.is_owned and self.file is not None:
            self.file.close()


def open_source(source: str | os.PathLike[str] | bytes | IO[bytes]) -> Source:
    """Find out what ``source`` is. A file object or pipe that cannot seek is first copied to a temporary file.

    Raises:
        MediaError: it is missing, a folder, empty or unreadable.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _sniffed(f"<{len(source)} bytes>", io.BytesIO(source), is_owned=True)
    if isinstance(source, str | os.PathLike):
        return _path_source(Path(source))
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "<file object>"))
        if _can_seek(source, name):
            return _sniffed(name, source, is_owned=False)
        return _sniffed(name, _spooled(source, name), is_owned=True)
    raise MediaError(f"a source must be a path, bytes or an open binary file, got {type(source).__name__}")


def _path_source(path: Path) -> Source:
    if path.is_dir():
        raise MediaError(f"{path} is a folder; give one picture or video file")
    try:
        with path.open("rb") as file:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):  # such as <(command) in a shell
                return _sniffed(str(path), _spooled(file, str(path)), is_owned=True)
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise MediaError(f"{path} does not exist; check the name (the current folder is {Path.cwd()})") from None
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return Source(str(path), path, None, _kind(head, str(path)))


def _sniffed(name: str, file: IO[bytes], *, is_owned: bool) -> Source:
    try:
        file.seek(0)
        head = file.read(_HEAD_BYTES)
    except UnicodeDecodeError:
        head = ""  # type: ignore[assignment]
    except (OSError, ValueError) as error:
        raise MediaError(f"{name} cannot be read: {error}") from error
    if not isinstance(head, bytes):
        raise MediaError(f"{name} is opened as text; open it in binary mode ('rb')")
    return Source(name, None, file, _kind(head, name), is_owned)


def _kind(head: bytes, name: str) -> Kind:
    if not head:
        raise MediaError(f"{name} is empty (0 bytes); nothing can be read from it")
    if head[4:8] == b"ftyp":
        return _kind_by_brand(head, name)
    is_picture = any(head[at : at + len(magic)] == magic for at, magic in _PICTURE_MAGIC)
    return "picture" if is_picture else "video"


def _kind_by_brand(head: bytes, name: str) -> Kind:
    names = head[8 : min(int.from_bytes(head[:4]), 256)]
    brands = {names[at : at + 4] for at in range(0, len(names), 4)}
    if brands & _AVIF:
        # Pillow would give HDR as it is coded; PyAV's frames carry the transfer, and are tone-mapped.
        colours = head.find(b"colrnclx")
        is_hdr = colours >= 0 and int.from_bytes(head[colours + 10 : colours + 12]) in _HDR_TRANSFERS
        return "video" if is_hdr else "picture"
    if names[:4] in _HEIC:
        raise MediaError(f"{name} is a HEIC picture, which is not read here; convert it to jpg, png or avif first")
    return "video"


def _can_seek(file: IO[bytes], name: str) -> bool:
    try:
        return file.seekable()
    except AttributeError:
        return False
    except ValueError as error:
        raise MediaError(f"{name} cannot be read: {error}") from error


def _spooled(file: IO[bytes], name: str) -> IO[bytes]:
    spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the source)
    try:
        shutil.copyfileobj(file, spool, 1 << 20)
    except TypeError:
        spool.close()
        raise MediaError(f"{name} is opened as text; open it in binary mode ('rb')") from None
    except OSError as error:
        spool.close()
        raise MediaError(f"{name} cannot be read: {error.strerror}") from error
    return spool
