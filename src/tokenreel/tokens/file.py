"""The ``.tokens`` file: the ids of one clip and all that is needed to read them. Specified in docs/formats.md.

``save`` and ``load`` take whole ``Tokens``; ``TokenWriter`` and ``TokenFile`` go part by part, so that an hour of raw
pixels never stands in memory. numpy and safetensors only.

Letters: L tokens, T frames, t h w grid.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError, MismatchError
from tokenreel.types import Grid, Layout, Tokens, smallest_unsigned

from .tensors import TensorReader, TensorWriter

__all__ = ["FORMAT", "VERSION", "TokenFile", "TokenHeader", "TokenWriter", "join", "load", "save"]

FORMAT = "tokenreel.tokens"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenHeader:
    """Everything in a ``.tokens`` file but the ids and times; fields as in ``Tokens``."""

    layout: Layout
    grid: Grid
    size: tuple[int, int, int]
    codebook_size: int
    tokenizer: str
    fingerprint: str
    fps: float | None
    meta: dict[str, Any]

    @classmethod
    def of(cls, tokens: Tokens) -> Self:
        """The header of these tokens."""
        return cls(
            layout=tokens.layout,
            grid=tokens.grid,
            size=tokens.size,
            codebook_size=tokens.codebook_size,
            tokenizer=tokens.tokenizer,
            fingerprint=tokens.fingerprint,
            fps=tokens.fps,
            meta=dict(tokens.meta),
        )

    def to_metadata(self) -> dict[str, str]:
        """Safetensors metadata: text to text."""
        values = {
            "layout": self.layout,
            "grid": [self.grid.t, self.grid.h, self.grid.w],
            "size": list(self.size),
            "codebook_size": self.codebook_size,
            "tokenizer": self.tokenizer,
            "fingerprint": self.fingerprint,
            "fps": self.fps,
            "meta": self.meta,
        }
        try:
            text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"Tokens.meta must hold JSON values only ({error})") from error
        return {"format": FORMAT, "version": str(VERSION), "tokens": text}

    @classmethod
    def from_json(cls, values: dict[str, Any], path: Path) -> Self:
        """Inverse of ``to_metadata``; a missing or wrong field is a FormatError."""
        try:
            t, h, w = values["grid"]
            frames, height, width = values["size"]
            layout = values["layout"]
            if min(frames, height, width) < 1:
                raise FormatError(f"{path}: its size {(frames, height, width)} must be at least one frame and pixel")
            if layout not in get_args(Layout):
                raise FormatError(f"{path}: the layout {layout!r} is unknown; known are {', '.join(get_args(Layout))}")
            return cls(
                layout=layout,
                grid=Grid(t=t, h=h, w=w),
                size=(int(frames), int(height), int(width)),
                codebook_size=int(values["codebook_size"]),
                tokenizer=str(values["tokenizer"]),
                fingerprint=str(values["fingerprint"]),
                fps=None if values.get("fps") is None else float(values["fps"]),
                meta=dict(values.get("meta") or {}),
            )
        except FormatError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: its description is damaged ({type(error).__name__}: {error})") from error


class TokenWriter:
    """A context manager that takes the tokens of one clip part by part, in order of time.

    The parts must agree in all but ids, times, and length in time; their grids and sizes add up along time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.header: TokenHeader | None = None
        self.num_tokens = 0
        # One block: small ones that stay between large ones that go cut up the heap, which then grows with the clip.
        self._pts = array("d")
        self._writer: TensorWriter | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def append(self, tokens: Tokens) -> None:
        """The next part. Raises MismatchError where it does not continue the parts before."""
        if self.header is None:
            self._open(tokens)
        else:
            if bool(self._pts) != (tokens.pts_seconds is not None):
                raise MismatchError("either all parts of a clip carry times or none does")
            self.header = _continued(self.header, tokens)
        assert self._writer is not None
        self._writer.append(tokens.ids_L)
        self.num_tokens += tokens.num_tokens
        if tokens.pts_seconds is not None:
            self._pts.extend(tokens.pts_seconds.tolist())

    def set(self, *, fps: float | None = None, **meta: Any) -> None:
        """What is known only at the end: the rate, and further metadata (which must be short)."""
        if self.header is not None:
            self.header = replace(self.header, fps=fps or self.header.fps, meta={**self.header.meta, **meta})

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._writer is None:
            if kind is None:
                raise InputError(f"no tokens were written to {self.path}")
            return
        if kind is not None:
            self._stack.__exit__(kind, value, tb)
            return
        with self._stack:
            assert self.header is not None
            if self._pts:
                self._writer.add("pts_seconds", np.array(self._pts))
            self._writer.finish(self.header.to_metadata())

    def _open(self, tokens: Tokens) -> None:
        self.header = TokenHeader.of(tokens)
        self._writer = self._stack.enter_context(
            TensorWriter(self.path, name="ids", dtype=smallest_unsigned(tokens.codebook_size))
        )
        large = replace(self.header, fps=1 / 3, size=(10**12, 10**6, 10**6), grid=Grid(t=10**12, h=10**6, w=10**6))
        self._writer.reserve(large.to_metadata(), {"pts_seconds": ("float64", 1), "_align": ("uint8", 1)})


class TokenFile:
    """A ``.tokens`` file opened for reading, whole or part by part.

    Raises:
        FormatError: it is missing, damaged, of another kind, or of a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._tensors = TensorReader(path)
        self.path = self._tensors.path
        self._tensors.check_format(FORMAT, VERSION)
        self.header = TokenHeader.from_json(self._tensors.json("tokens"), self.path)
        self._check()
        self.pts_seconds = self._tensors.whole("pts_seconds") if "pts_seconds" in self._tensors.names else None

    @property
    def num_tokens(self) -> int:
        """L."""
        return self._tensors.shape("ids")[0]

    def tokens(self) -> Tokens:
        """The whole clip."""
        return self._part(self._tensors.whole("ids"), self.header.grid, self.header.size, self.pts_seconds)

    def slabs(
        self, grid_steps: int, *, first_frames: int, step_frames: int, segment_steps: int = 1
    ) -> Iterator[Tokens]:
        """The clip in parts of about ``grid_steps`` steps of time; the layout ``merged`` comes as one part.

        Args:
            grid_steps: rounded up to whole segments.
            first_frames: how many frames the first step of the grid stands for: 1 for a causal tokenizer, else pt.
            step_frames: how many each later step stands for: pt. The tokenizer knows all three.
            segment_steps: how many steps share their ids, so that no part may end between them.
        """
        header = self.header
        if header.layout == "merged":
            yield self.tokens()
            return
        grid_steps = -(-grid_steps // segment_steps) * segment_steps
        segments = -(-header.grid.t // segment_steps)
        if self.num_tokens % segments:
            raise FormatError(f"{self.path}: {self.num_tokens} ids do not divide into {segments} segments of time")
        segment_ids = self.num_tokens // segments

        def frame(step: int) -> int:
            return min(0 if step == 0 else first_frames + (step - 1) * step_frames, header.size[0])

        for start in range(0, header.grid.t, grid_steps):
            stop = min(start + grid_steps, header.grid.t)
            first, last = frame(start), frame(stop)
            if first >= last:
                raise FormatError(f"{self.path}: its grid {header.grid} is longer than its {header.size[0]} frames")
            pts = None if self.pts_seconds is None else self.pts_seconds[first:last]
            first_segment, last_segment = start // segment_steps, -(-stop // segment_steps)
            ids = self._tensors.rows("ids", first_segment * segment_ids, last_segment * segment_ids)
            yield self._part(ids, replace(header.grid, t=stop - start), (last - first, *header.size[1:]), pts)

    def _part(
        self, ids: npt.NDArray[Any], grid: Grid, size: tuple[int, int, int], pts: npt.NDArray[np.float64] | None
    ) -> Tokens:
        header = self.header
        return Tokens(
            ids_L=ids,
            layout=header.layout,
            grid=grid,
            size=size,
            codebook_size=header.codebook_size,
            tokenizer=header.tokenizer,
            fingerprint=header.fingerprint,
            fps=header.fps,
            pts_seconds=pts,
            meta=header.meta,
        )

    def _check(self) -> None:
        tensors, header = self._tensors, self.header
        shape = tensors.shape("ids")
        if len(shape) != 1 or tensors.dtype("ids") != smallest_unsigned(header.codebook_size):
            raise FormatError(
                f"{self.path}: ids must be a 1-D tensor of {smallest_unsigned(header.codebook_size)} for "
                f"{header.codebook_size} codes, found {tensors.dtype('ids')} {shape}"
            )
        if header.layout == "grid" and shape[0] != header.grid.num_cells:
            raise FormatError(f"{self.path}: {shape[0]} ids do not fill its grid {header.grid}; the file is damaged")
        if header.layout == "bytes" and shape[0] % header.grid.num_cells:
            raise FormatError(f"{self.path}: {shape[0]} bytes do not fill its grid {header.grid}; the file is damaged")
        if "pts_seconds" in tensors.names and tensors.shape("pts_seconds") != header.size[:1]:
            raise FormatError(f"{self.path}: it holds {tensors.shape('pts_seconds')} times for {header.size[0]} frames")


def join(parts: Sequence[Tokens]) -> Tokens:
    """Parts of one clip, in order of time, as one ``Tokens``. Raises MismatchError where one does not continue."""
    if not parts:
        raise InputError("there are no parts to join")
    header = TokenHeader.of(parts[0])
    for part in parts[1:]:
        header = _continued(header, part)
    times = [part.pts_seconds for part in parts if part.pts_seconds is not None]
    if times and len(times) != len(parts):
        raise MismatchError("either all parts of a clip carry times or none does")
    pts = np.concatenate(times) if times else None
    return replace(
        parts[0], ids_L=np.concatenate([p.ids_L for p in parts]), grid=header.grid, size=header.size, pts_seconds=pts
    )


def _continued(header: TokenHeader, tokens: Tokens) -> TokenHeader:
    """The header of a clip with one part more."""
    if header.layout == "merged":
        raise MismatchError("byte-pair merged ids cannot be put together from parts; merge after joining")
    following = TokenHeader.of(tokens)
    grid = replace(header.grid, t=header.grid.t + tokens.grid.t)
    size = (header.size[0] + tokens.size[0], *header.size[1:])
    same = replace(following, grid=header.grid, size=header.size, fps=header.fps, meta=header.meta)
    is_cut_alike = (tokens.grid.h, tokens.grid.w) == (header.grid.h, header.grid.w)
    if same != header or not is_cut_alike or tokens.size[1:] != header.size[1:]:
        raise MismatchError(f"{tokens!r} does not continue the tokens before it (another size, grid or tokenizer)")
    return replace(header, grid=grid, size=size)


def save(path: str | os.PathLike[str], tokens: Tokens) -> Path:
    """Write one clip's tokens; the file appears whole or not at all."""
    with TokenWriter(path) as writer:
        writer.append(tokens)
    return writer.path


def load(path: str | os.PathLike[str]) -> Tokens:
    """Read one clip's tokens whole; errors as ``TokenFile``."""
    return TokenFile(path).tokens()
