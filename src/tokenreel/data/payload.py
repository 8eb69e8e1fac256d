"""What an example holds, opened when it is asked for: a picture or video, an array, or tokens.

A payload is a few words (a path, an offset), so that examples are cheap to make and pickle. That of packed frames
stands in ``pixel_shards``.

Letters: T frames (or slices of a volume), H W pixels, C channels (1 grey, 3 RGB), L tokens.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError
from tokenreel.media.frames import Selection, uniform_indices
from tokenreel.media.pixels import parse_size, resize
from tokenreel.media.read import Reader, open_media, read
from tokenreel.tokens.file import load
from tokenreel.types import Clip, Tokens

__all__ = [
    "MEDIA_SUFFIXES",
    "ArrayPayload",
    "Kind",
    "MediaPayload",
    "NamedBytes",
    "Payload",
    "TokensPayload",
    "payload_of",
    "volume_of",
]

Kind = Literal["media", "array", "tokens", "pixels"]
Size = int | tuple[int, int] | str | None
Pixels = npt.NDArray[np.uint8]

PICTURE_SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".ogv", ".3gp", ".y4m",
)  # fmt: skip
MEDIA_SUFFIXES = frozenset(PICTURE_SUFFIXES + VIDEO_SUFFIXES)
"""File names that are taken for pictures and videos where a folder or a tar is searched."""


class NamedBytes(io.BytesIO):
    """Bytes in memory that carry the name which messages about them use."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


class Payload(ABC):
    """The three answers; a kind that cannot give one says so."""

    kind: Kind

    @abstractmethod
    def what(self) -> str:
        """For messages: ``a picture or video``."""

    def open(self, selection: Selection, size: Size) -> Reader:
        """The chosen frames as a stream."""
        raise InputError(f"{self.what()} cannot be streamed as frames; only pictures and videos can")

    def clip(self, selection: Selection, size: Size) -> Clip:
        """The chosen frames."""
        raise InputError(f"{self.what()} has no pixels; decode it with its tokenizer")

    def array(self) -> Pixels:
        """uint8 (T, H, W, C), C = 1 or 3."""
        raise InputError(f"{self.what()} has no pixels; decode it with its tokenizer")

    def tokens(self) -> Tokens:
        """The ids."""
        raise InputError(f"{self.what()} holds no tokens; encode it first")


@dataclass(frozen=True, slots=True)
class MediaPayload(Payload):
    """A picture or video; ``source`` gives its path, or an open file, each time it is called."""

    source: Callable[[], Path | IO[bytes]]
    kind = "media"

    def what(self) -> str:
        """For messages."""
        return "a picture or video"

    def open(self, selection: Selection, size: Size) -> Reader:
        """The chosen frames as a stream."""
        return open_media(self.source(), selection, size=size)

    def clip(self, selection: Selection, size: Size) -> Clip:
        """The chosen frames, RGB."""
        return read(self.source(), selection, size=size)

    def array(self) -> Pixels:
        """All frames, uint8 (T, H, W, 3)."""
        return self.clip(Selection(), None).frames_THWC


@dataclass(frozen=True, slots=True)
class ArrayPayload(Payload):
    """A picture or volume of an array; ``load`` gives uint8 (T, H, W, C). Its slices count as one a second."""

    load: Callable[[], Pixels]
    name: str
    kind = "array"

    def what(self) -> str:
        """For messages."""
        return f"the array {self.name}"

    def array(self) -> Pixels:
        """As stored: uint8 (T, H, W, C), C = 1 or 3."""
        return self.load()

    def clip(self, selection: Selection, size: Size) -> Clip:
        """The chosen slices, grey repeated to RGB; one slice a second, so a time range counts slices.

        Raises:
            InputError: a rate is asked for, which an array does not have.
        """
        if selection.fps is not None:
            raise InputError(f"{self.what()} has slices, not seconds: choose them with every= or uniform=, not fps=")
        frames = self.array()
        number = np.arange(len(frames))
        chosen = number[(number >= selection.start_seconds) & (number < selection.end_seconds)]
        if not len(chosen):
            raise InputError(f"{self.what()} has {len(frames)} slices, none in the range {selection.as_json()}")
        if selection.uniform is not None:
            chosen = chosen[uniform_indices(len(chosen), selection.uniform)]
        chosen = chosen[:: selection.every][: selection.max_frames]
        rgb = np.ascontiguousarray(np.broadcast_to(frames[chosen], (*frames[chosen].shape[:3], 3)))
        return Clip(frames_THWC=resize(rgb, parse_size(size)), pts_seconds=chosen.astype(np.float64), source=self.name)


@dataclass(frozen=True, slots=True)
class TokensPayload(Payload):
    """The ids of a clip; ``load`` reads them."""

    load: Callable[[], Tokens]
    name: str
    kind = "tokens"

    def what(self) -> str:
        """For messages."""
        return f"the token record {self.name}"

    def tokens(self) -> Tokens:
        """The ids."""
        return self.load()


def payload_of(path: Path) -> Payload:
    """The payload of one file by its suffix: ``.tokens``, ``.npy``, else a picture or video."""
    suffix = path.suffix.lower()
    if suffix == ".tokens":
        return TokensPayload(partial(load, path), str(path))
    if suffix == ".npy":
        return ArrayPayload(partial(_load_npy, path), str(path))
    return MediaPayload(partial(_same, path))


def volume_of(array: npt.NDArray[Any], name: str) -> Pixels:
    """uint8 (H, W), (H, W, C), (T, H, W) or (T, H, W, C) as (T, H, W, C); a third axis of 1 or 3 is taken for C.

    Raises:
        InputError: of another type or shape.
    """
    if array.dtype != np.uint8:
        raise InputError(f"{name} must hold uint8 values in [0, 255], got {array.dtype}; convert it first")
    has_channels = array.ndim in (3, 4) and array.shape[-1] in (1, 3)
    spatial = array if has_channels else array[..., None]
    if spatial.ndim not in (3, 4) or min(spatial.shape) < 1:
        raise InputError(f"{name} must be a picture or a volume, (H, W), (T, H, W) or with C last, got {array.shape}")
    return spatial[None] if spatial.ndim == 3 else spatial


def _load_npy(path: Path) -> Pixels:
    try:
        with path.open("rb") as file:
            return read_npy(file, str(path))
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error


def read_npy(file: IO[bytes], name: str) -> Pixels:
    """An ``.npy`` file (never pickled objects) as uint8 (T, H, W, C)."""
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(f"{name} is not a plain numpy array that can be read ({error})") from error
    return volume_of(array, name)


def _same(path: Path) -> Path:
    return path
