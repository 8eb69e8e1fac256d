"""The values that travel between rooms: ``Clip``, ``Grid`` and ``Tokens``. Frozen, self-checking, numpy only.

Letters: T frames, H W pixels, C channels, t h w grid, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from .errors import InputError

__all__ = ["Clip", "Grid", "Layout", "PatchSize", "Tokens", "smallest_unsigned"]

PatchSize = tuple[int, int, int]
"""A block of pixels ``(pt, ph, pw)``; ``pt = 1`` for images."""

Layout = Literal["grid", "queries", "bytes", "merged"]
"""``grid``: one id a cell, row-major (t, h, w). ``queries``: 1-D tokens. ``bytes``: raw pixels in patch order.
``merged``: byte-pair merged ids of one of these; ``meta["bpe"]`` tells which, and the merges undo it."""


def smallest_unsigned(codebook_size: int) -> np.dtype[Any]:
    """The smallest unsigned dtype that holds ids in ``[0, codebook_size)``.

    >>> smallest_unsigned(256), smallest_unsigned(257)
    (dtype('uint8'), dtype('uint16'))
    """
    if codebook_size < 1:
        raise InputError(f"codebook_size must be at least 1, got {codebook_size}")
    return np.min_scalar_type(codebook_size - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Counts of patches along time, height and width.

    >>> Grid(t=2, h=3, w=4).num_cells
    24
    """

    t: int
    h: int
    w: int

    def __post_init__(self) -> None:
        for name in ("t", "h", "w"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"Grid.{name} must be a whole number of at least 1, got {value!r}")

    @property
    def num_cells(self) -> int:
        """t * h * w."""
        return self.t * self.h * self.w

    @classmethod
    def of(cls, num_frames: int, height: int, width: int, patch_size: PatchSize) -> Self:
        """The grid that covers a video; sizes that do not divide are rounded up (padded, later cropped)."""
        pt, ph, pw = check_patch_size(patch_size)
        return cls(t=-(-num_frames // pt), h=-(-height // ph), w=-(-width // pw))

    def __str__(self) -> str:
        return f"{self.t}x{self.h}x{self.w}"


def check_patch_size(patch_size: Any) -> PatchSize:
    """``patch_size`` as a triple of ints of at least 1, or an InputError that says what came."""
    try:
        pt, ph, pw = (int(side) for side in patch_size)
    except (TypeError, ValueError):
        raise InputError(f"patch_size must be three whole numbers (pt, ph, pw), got {patch_size!r}") from None
    if min(pt, ph, pw) < 1 or [pt, ph, pw] != list(patch_size):
        raise InputError(f"patch_size must be three whole numbers of at least 1, got {patch_size!r}")
    return pt, ph, pw


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """Frames chosen from one source, with their times.

    Attributes:
        frames_THWC: uint8 [0, 255], RGB, C = 3.
        pts_seconds: float64 (T,), when each frame is shown, in order.
        fps: frames a second where the source has a steady rate, else None.
        source: where it came from, for messages and metadata.
    """

    frames_THWC: npt.NDArray[np.uint8]
    pts_seconds: npt.NDArray[np.float64]
    fps: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        frames = self.frames_THWC
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
            raise InputError(f"Clip.frames_THWC must be a uint8 array (T, H, W, 3), got {got}")
        if min(frames.shape) < 1:
            raise InputError(f"Clip.frames_THWC must not be empty, got {frames.shape}")
        if self.pts_seconds.shape != frames.shape[:1]:
            raise InputError(
                f"Clip.pts_seconds must have one time a frame ({frames.shape[0]}), got {self.pts_seconds.shape}"
            )

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.frames_THWC)

    @property
    def size(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        t, h, w, _ = self.frames_THWC.shape
        return t, h, w

    def __len__(self) -> int:
        return self.num_frames

    def __repr__(self) -> str:
        t, h, w = self.size
        rate = f"{self.fps:g} fps" if self.fps else "no steady rate"
        span = f"{self.pts_seconds[0]:.3f}..{self.pts_seconds[-1]:.3f} s"
        return f"Clip({t} frames {w}x{h}, {rate}, {span}, source={self.source!r})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """The ids of one clip and what is needed to read them.

    Attributes:
        ids_L: (L,) in the smallest unsigned dtype that holds ``codebook_size`` (any integers are taken and narrowed).
        layout: ``grid`` (L = t*h*w), ``queries`` (1-D tokens), ``bytes`` (pixels in patch order) or ``merged`` (BPE).
        grid: counts of patches, padding included.
        size: (T, H, W) of the clip in pixels, padding excluded.
        codebook_size: ids lie in [0, codebook_size).
        tokenizer: name of the tokenizer's class in ``TOKENIZERS``.
        fingerprint: hash of the tokenizer's configuration and weights.
        fps: frames a second, or None.
        pts_seconds: float64 (T,) or None.
        meta: free JSON values (a caption, a label, a source).
    """

    ids_L: npt.NDArray[np.unsignedinteger[Any]]
    layout: Layout
    grid: Grid
    size: tuple[int, int, int]
    codebook_size: int
    tokenizer: str
    fingerprint: str
    fps: float | None = None
    pts_seconds: npt.NDArray[np.float64] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise InputError(f"Tokens.layout must be one of {', '.join(get_args(Layout))}, got {self.layout!r}")
        if not isinstance(self.ids_L, np.ndarray) or self.ids_L.ndim != 1:
            raise InputError(f"Tokens.ids_L must be a 1-D array, got {np.shape(self.ids_L)}")
        dtype = smallest_unsigned(self.codebook_size)
        if self.ids_L.dtype != dtype:
            object.__setattr__(self, "ids_L", self._narrowed(dtype))
        elif self.codebook_size - 1 < np.iinfo(dtype).max and self.ids_L.size:
            self._check_range()
        if self.layout == "grid" and self.ids_L.size != self.grid.num_cells:
            raise InputError(f"Tokens.ids_L has {self.ids_L.size} ids, its grid {self.grid} has {self.grid.num_cells}")
        if len(self.size) != 3 or min(self.size) < 1:
            raise InputError(f"Tokens.size must be (T, H, W), each at least 1, got {self.size}")
        if self.pts_seconds is not None and self.pts_seconds.shape != (self.size[0],):
            raise InputError(f"Tokens.pts_seconds must have {self.size[0]} times, got shape {self.pts_seconds.shape}")

    def _narrowed(self, dtype: np.dtype[Any]) -> npt.NDArray[np.unsignedinteger[Any]]:
        if self.ids_L.dtype.kind not in "ui":
            raise InputError(f"Tokens.ids_L must hold whole numbers, got dtype {self.ids_L.dtype}")
        if self.ids_L.size:
            self._check_range()
        return self.ids_L.astype(dtype)

    def _check_range(self) -> None:
        low, high = int(self.ids_L.min()), int(self.ids_L.max())
        if low < 0 or high >= self.codebook_size:
            wrong = low if low < 0 else high
            raise InputError(
                f"Tokens.ids_L must lie in [0, {self.codebook_size}), found {wrong}; are they from another tokenizer?"
            )

    @property
    def num_tokens(self) -> int:
        """L."""
        return int(self.ids_L.size)

    @property
    def num_bits(self) -> float:
        """Bits that the ids take at ``log2(codebook_size)`` each."""
        return self.num_tokens * float(np.log2(self.codebook_size))

    @property
    def bits_per_pixel(self) -> float:
        """``num_bits`` over the pixels of ``size``, padding excluded."""
        return self.num_bits / (self.size[0] * self.size[1] * self.size[2])

    @property
    def compression_ratio(self) -> float:
        """24 bits a pixel (RGB) over ``bits_per_pixel``."""
        return 24 / self.bits_per_pixel if self.num_bits else float("inf")

    def with_meta(self, **values: Any) -> Self:
        """A copy whose ``meta`` has these values added."""
        return replace(self, meta={**self.meta, **values})

    def __len__(self) -> int:
        return self.num_tokens

    def __repr__(self) -> str:
        t, h, w = self.size
        return (
            f"Tokens({self.num_tokens} {self.layout} ids of {self.codebook_size}, grid {self.grid}, "
            f"{t} frames {w}x{h}, {self.tokenizer} {self.fingerprint[:12]})"
        )
