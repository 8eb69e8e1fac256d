"""Tells from a container's own declared sizes whether a file ends before it should."""

from __future__ import annotations

import io
import struct
from typing import IO

from .source import Source

__all__ = ["is_cut_off"]


def is_cut_off(source: Source) -> bool:
    """True if MP4 boxes, a RIFF length or a Matroska segment reach past the end of the file.

    MPEG-TS and other containers without declared sizes give False.
    """
    opened = source.open()
    if isinstance(opened, str):
        with open(opened, "rb") as file:
            return _ends_early(file)
    return _ends_early(opened)


def _ends_early(file: IO[bytes]) -> bool:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(16)
    if head[:4] == b"RIFF":
        return struct.unpack("<I", head[4:8])[0] + 8 > size
    if head[:4] == b"\x1aE\xdf\xa3":
        return _matroska_ends_early(file, size)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return _boxes_end_early(file, size)
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


def _matroska_ends_early(file: IO[bytes], size: int) -> bool:
    file.seek(0)
    head = file.read(4096)
    at = head.find(b"\x18\x53\x80\x67")
    if at < 0 or at + 5 > len(head):
        return True
    first = head[at + 4]
    length = 9 - first.bit_length()  # bytes of the variable-length integer: leading zeros + 1
    if length > 8 or at + 4 + length > len(head):
        return True
    value = int.from_bytes(head[at + 4 : at + 4 + length]) & ((1 << (7 * length)) - 1)
    is_unknown = value == (1 << (7 * length)) - 1  # live streams do not say
    return not is_unknown and at + 4 + length + value > size
