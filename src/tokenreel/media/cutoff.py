"""Tells from what a file declares about itself whether it ends before it should; mends an animated WebP that does."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import IO

from .source import Source

__all__ = ["is_cut_off", "mended_webp"]

_PNG = b"\x89PNG\r\n\x1a\n"
_MATROSKA, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18\x53\x80\x67"
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"styp", b"moof")


def is_cut_off(source: Source) -> bool:
    """True if the file ends inside what it declares, or before its end mark.

    Told from MP4 boxes, the RIFF length (avi, webp), the Matroska segment, png chunks, the end mark of gif, and the
    packet size of MPEG-TS. Containers that declare nothing give False.
    """
    with source.bytes() as file:
        return _ends_early(file)


def _ends_early(file: IO[bytes]) -> bool:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(200)
    if head[:4] == b"RIFF" and len(head) >= 8:
        return bool(struct.unpack("<I", head[4:8])[0] + 8 > size)
    if head[:4] == _MATROSKA:
        return _matroska_ends_early(file, size)
    if head[4:8] in _FIRST_BOXES:
        return _boxes_end_early(file, size)
    if head[:8] == _PNG:
        return _png_ends_early(file, size)
    if head[:4] == b"GIF8":
        file.seek(max(0, size - 64))
        return not file.read(64).rstrip(b"\0\r\n").endswith(b";")
    for packet, sync in ((188, 0), (192, 4)):  # MPEG-TS, and its form with time stamps
        if len(head) > packet + sync and head[sync] == head[packet + sync] == 0x47:
            return size % packet != 0
    return False


def _boxes_end_early(file: IO[bytes], size: int) -> bool:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = struct.unpack(">I", head[:4])[0]
        if length == 0:  # to the end of the file
            return False
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        if length < 8:
            return True
        position += length
    return position > size


def _png_ends_early(file: IO[bytes], size: int) -> bool:
    position = len(_PNG)
    while position + 12 <= size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"IEND":
            return False
        position += length + 12
    return True


def _matroska_ends_early(file: IO[bytes], size: int) -> bool:
    file.seek(0)
    head = file.read(4096)
    at = head.find(_SEGMENT)
    if at < 0 or at + 5 > len(head):
        return True
    first = head[at + 4]
    length = 9 - first.bit_length()  # bytes of the variable-length integer: leading zeros + 1
    if length > 8 or at + 4 + length > len(head):
        return True
    value = int.from_bytes(head[at + 4 : at + 4 + length]) & ((1 << (7 * length)) - 1)
    is_unknown = value == (1 << (7 * length)) - 1  # live streams do not say
    return not is_unknown and at + 4 + length + value > size


def mended_webp(source: Source) -> bytes | None:
    """A cut-off animated WebP with its whole frames only, which decoders take; None where there is nothing to mend."""
    with source.bytes() as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WEBP" or not _ends_early(file):
            return None
        file.seek(0)
        data = file.read()
    chunks = list(_whole_chunks(data))
    if not any(kind == b"ANMF" for kind, _ in chunks):
        return None
    body = b"".join(chunk for _, chunk in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _whole_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], struct.unpack_from("<I", data, position + 4)[0]
        end = position + 8 + length + length % 2
        if end > len(data):
            return
        yield kind, data[position:end]
        position = end
