"""The patch-sequence file: the vectors that a Vision Transformer reads, and all that is needed to go back to pixels.

A safetensors file, specified in docs/formats.md: ``patches`` (L, D), ``positions`` (L, 3), ``pts_seconds`` (T,), and
for linear embeddings ``embed.weight`` and ``embed.bias``. Written and read part by part.

Letters: L patches, P = pt*ph*pw*3 values a patch, D width of a vector, T frames, H W pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from tokenreel.errors import FormatError, InputError
from tokenreel.media.pixels import from_float, to_float
from tokenreel.patches.patchify import patchify, unpatchify
from tokenreel.patches.positions import index_positions, sincos_of
from tokenreel.patches.project import LinearProjection
from tokenreel.tokens.tensors import TensorReader, TensorWriter
from tokenreel.types import Grid, PatchSize, check_patch_size

__all__ = ["FORMAT", "VERSION", "PatchSequence", "SequenceConfig", "SequenceWriter"]

FORMAT = "tokenreel.patches"
VERSION = 1

Embed = Literal["none", "linear"]
Position = Literal["none", "sincos", "index"]
_DTYPES = ("uint8", "float16", "float32")
_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceConfig:
    """How patches become vectors.

    Attributes:
        patch_size: (pt, ph, pw).
        embed: ``none`` keeps pixel values, ``linear`` projects them (float pixels in [-1, 1], orthonormal weights).
        dim: D of the linear embedding.
        seed: of its weights.
        position: ``index`` writes (t, h, w) beside the vectors, ``sincos`` adds a 3-D table to them as well,
            ``none`` writes no positions.
        dtype: of the vectors; uint8 only for plain pixels.
    """

    patch_size: PatchSize = (1, 16, 16)
    embed: Embed = "none"
    dim: int | None = None
    seed: int = 0
    position: Position = "index"
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", check_patch_size(self.patch_size))
        for name, allowed in (
            ("embed", ("none", "linear")),
            ("position", ("none", "sincos", "index")),
            ("dtype", _DTYPES),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if (self.embed == "linear") != (self.dim is not None):
            raise InputError(
                "a linear embedding needs --dim, its width"
                if self.embed == "linear"
                else "--dim goes with --embed linear"
            )
        if self.dtype == "uint8" and not self.is_plain:
            what = "a linear embedding" if self.embed == "linear" else "a sincos table"
            raise InputError(f"{what} needs fractions, which uint8 cannot hold; choose --dtype float32 or float16")

    @property
    def is_plain(self) -> bool:
        """True if the vectors are pixel values and nothing is added."""
        return self.embed == "none" and self.position != "sincos"

    @property
    def patch_values(self) -> int:
        """P."""
        pt, ph, pw = self.patch_size
        return pt * ph * pw * 3

    @property
    def width(self) -> int:
        """D."""
        return self.dim if self.dim is not None else self.patch_values

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "patch_size": list(self.patch_size)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceHeader:
    """What the file's metadata says: the config, the size and grid, and how the source was read."""

    config: SequenceConfig
    size: tuple[int, int, int]
    fps: float | None = None
    reading: dict[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """Grid of the sequence."""
        return Grid.of(*self.size, self.config.patch_size)

    def to_metadata(self) -> dict[str, str]:
        """Safetensors metadata: text to text."""
        grid = self.grid
        values = {
            **self.config.as_json(),
            "size": list(self.size),
            "grid": [grid.t, grid.h, grid.w],
            "channels": 3,
            "pixel_range": "uint8" if self.config.dtype == "uint8" else "signed",
            "fps": self.fps,
            "reading": self.reading,
        }
        return {"format": FORMAT, "version": str(VERSION), "patches": json.dumps(values, ensure_ascii=False)}

    @classmethod
    def from_json(cls, values: dict[str, Any], path: Path) -> Self:
        """Inverse of ``to_metadata``."""
        try:
            names = ("embed", "dim", "seed", "position", "dtype")
            config = SequenceConfig(patch_size=tuple(values["patch_size"]), **{name: values[name] for name in names})
            frames, height, width = (int(side) for side in values["size"])
            return cls(config=config, size=(frames, height, width), fps=values["fps"], reading=values["reading"])
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: its description is damaged ({type(error).__name__}: {error})") from error


class SequenceWriter:
    """A context manager that takes frames one by one and writes their patches; memory does not grow with length.

    Args:
        path: the .safetensors file to write.
        config: how patches become vectors.
        reading: how the source was read, so that ``check`` can read it again.
    """

    def __init__(self, path: str | os.PathLike[str], config: SequenceConfig, reading: dict[str, Any]) -> None:
        self.path = Path(path)
        self.config = config
        self._reading = reading
        self._projection = (
            LinearProjection.from_seed(config.patch_values, config.dim, config.seed) if config.dim is not None else None
        )
        self._writer = TensorWriter(path, name="patches", dtype=config.dtype, row_shape=(config.width,))
        self._held: list[npt.NDArray[np.uint8]] = []
        self._pts: list[float] = []
        self._steps = 0
        self._frame_size: tuple[int, int] | None = None
        self._table: npt.NDArray[np.float32] | None = None
        self.header: SequenceHeader | None = None

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def write(self, pixels_HWC: npt.NDArray[np.uint8], pts_seconds: float) -> None:
        """One more frame, uint8 (H, W, 3)."""
        if self._frame_size is None:
            self._frame_size = pixels_HWC.shape[0], pixels_HWC.shape[1]
            largest = replace(self._header(10**12), fps=1 / 3)
            others = {"positions": ("int32", 2), "pts_seconds": ("float64", 1), "_align": ("uint8", 1)}
            weights = {"embed.weight": ("float32", 2), "embed.bias": ("float32", 1)} if self._projection else {}
            self._writer.reserve(largest.to_metadata(), others | weights)
        self._held.append(pixels_HWC)
        self._pts.append(pts_seconds)
        if len(self._held) == self.config.patch_size[0]:
            self._flush()

    def finish(self, fps: float | None) -> SequenceHeader:
        """Write the last, padded step and the small tensors; ``fps`` is known by now."""
        if self._frame_size is None:
            raise InputError("no frame was written")
        if self._held:
            self._flush()
        header = self.header = replace(self._header(len(self._pts)), fps=fps)
        if self.config.position != "none":
            steps = (index_positions(replace(header.grid, t=1), first_t=t) for t in range(header.grid.t))
            self._writer.add_blocks("positions", np.int32, (header.grid.num_cells, 3), steps)
        self._writer.add("pts_seconds", np.array(self._pts, np.float64))
        if self._projection is not None:
            self._writer.add("embed.weight", self._projection.weight_DP)
            self._writer.add("embed.bias", self._projection.bias_D)
        self._writer.finish(header.to_metadata())
        return header

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._writer.__exit__(kind, value, tb)

    def _header(self, num_frames: int) -> SequenceHeader:
        assert self._frame_size is not None
        return SequenceHeader(config=self.config, size=(num_frames, *self._frame_size), reading=self._reading)

    def _flush(self) -> None:
        frames = self._held[0][None] if len(self._held) == 1 else np.stack(self._held)
        self._held = []
        self._writer.append(self._vectors(patchify(frames, self.config.patch_size)))
        self._steps += 1

    def _vectors(self, patches_LP: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        config = self.config
        if config.dtype == "uint8":
            return patches_LP
        if config.is_plain:
            return to_float(patches_LP, dtype=config.dtype)
        values = to_float(patches_LP)
        vectors = values if self._projection is None else self._projection.embed(values)
        if config.position == "sincos":
            vectors = vectors + self._sincos()
        return vectors.astype(config.dtype, copy=False)

    def _sincos(self) -> npt.NDArray[np.float32]:
        assert self._frame_size is not None
        grid = Grid.of(1, *self._frame_size, (1, *self.config.patch_size[1:]))
        return sincos_of(index_positions(grid, first_t=self._steps), self.config.width)


class PatchSequence:
    """A patch-sequence file opened for reading; ``frames`` gives the pixels again, in order, in bounded memory.

    Raises:
        FormatError: it is missing, damaged, of another kind, or of a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._tensors = TensorReader(path)
        self.path = self._tensors.path
        self._tensors.check_format(FORMAT, VERSION)
        self.header = SequenceHeader.from_json(self._tensors.json("patches"), self.path)
        grid, config = self.header.grid, self.header.config
        if (
            self._tensors.shape("patches") != (grid.num_cells, config.width)
            or self._tensors.dtype("patches") != config.dtype
        ):
            raise FormatError(
                f"{self.path}: patches are {self._tensors.dtype('patches')} {self._tensors.shape('patches')}, its "
                f"description says {config.dtype} {(grid.num_cells, config.width)}; the file is damaged"
            )
        self.pts_seconds: npt.NDArray[np.float64] = self._tensors.whole("pts_seconds")
        if self.pts_seconds.shape != self.header.size[:1]:
            raise FormatError(
                f"{self.path}: {len(self.pts_seconds)} times for {self.header.size[0]} frames; it is damaged"
            )

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """uint8 (H, W, 3), one after another: the vectors turned back into pixels."""
        for frames, _ in self.reconstructed():
            yield from frames

    def reconstructed(self) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None]]:
        """Parts of the video, uint8 (T', H, W, 3), each with the pixel values before rounding ([-1, 1]) or None."""
        header, config = self.header, self.header.config
        grid, (num_frames, height, width) = header.grid, header.size
        pt, cells = config.patch_size[0], grid.h * grid.w
        row_bytes = cells * config.width * np.dtype(config.dtype).itemsize
        steps = max(1, _BLOCK_BYTES // max(row_bytes, cells * config.patch_values * 4))
        projection = self._projection()
        for start in range(0, grid.t, steps):
            stop = min(start + steps, grid.t)
            vectors = self._tensors.rows("patches", start * cells, stop * cells)
            size = (min(stop * pt, num_frames) - start * pt, height, width)
            if config.dtype == "uint8":
                yield unpatchify(vectors, config.patch_size, size), None
                continue
            values = vectors.astype(np.float32)
            if config.position == "sincos":
                values -= sincos_of(index_positions(replace(grid, t=stop - start), first_t=start), config.width)
            if projection is not None:
                values = projection.invert(values)
            pixels = unpatchify(values, config.patch_size, size)
            yield from_float(pixels), pixels

    def _projection(self) -> LinearProjection | None:
        if self.header.config.embed != "linear":
            return None
        projection = LinearProjection(self._tensors.whole("embed.weight"), self._tensors.whole("embed.bias"))
        width, values = self.header.config.width, self.header.config.patch_values
        if projection.weight_DP.shape != (width, values) or projection.bias_D.shape != (width,):
            raise FormatError(
                f"{self.path}: its embedding weights are {projection.weight_DP.shape}, expected {(width, values)}"
            )
        return projection
