"""Which batches are wanted: their shape, the ranges that views are drawn from, and the budget of a packed batch.

Letters: B batch, T frames, H W pixels, t h w grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np

from tokenreel.errors import InputError
from tokenreel.types import PatchSize, check_patch_size

__all__ = ["TITOK_VIDEO", "BatchConfig", "Shape", "shapes"]

Whole = int | tuple[int, int]
Real = float | tuple[float, float]

_PLAN, _WHOLE, _REAL = 1, ("num_frames", "size", "token_counts", "stride"), ("aspect", "fps", "crop_scale")

TITOK_VIDEO: dict[str, Any] = {
    "shape": "packed",
    "num_frames": (8, 20),
    "size": (144, 192),
    "aspect": (0.75, 4 / 3),
    "token_counts": (128, 1024),
    "patch_size": (4, 8, 8),
}
"""The ranges that TiTok-Video is trained on: ``BatchConfig(**TITOK_VIDEO, budget=...)``. The aspects are ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """What a batch is made of. A range is a pair (lowest, highest), both included; one number is a range of one.

    Attributes:
        shape: ``stacked``: (B, C, T, H, W), one T and size for all clips of a batch, drawn for each batch.
            ``packed``: a tuple of (C, T, H, W) of mixed sizes, as many as ``budget`` has room for.
        num_frames: T, any value that ``patch_size`` divides (``is_causal``: 1 + a multiple of it).
        size: side of the square of as many pixels as a frame has, so the side itself where ``aspect`` is 1.
        aspect: width over height, drawn evenly in its logarithm.
        batch_size: clips of a stacked batch.
        budget: most tokens of a packed batch, patches and queries of all clips together.
        token_counts: queries of a clip, drawn evenly in their logarithm; None where the model takes none.
        patch_size: frames, heights and widths are multiples of it, and it counts the patches.
        is_causal: the first frame stands alone before the tubelets.
        stride: a frame of the view every so many frames of the source; or instead
        fps: frames a second of the view. Where a source is too short for either, its frames stand closer, and where it
            has too few frames they go to and fro.
        crop_scale: side of the crop over that of the largest crop of this aspect. A crop is never smaller than
            the view where the source is large enough.
        flip: share of clips that are mirrored.
        one_frame_share: share of batches (stacked) or clips (packed) of one frame.
        image_motion: share of the pictures standing for T > 1 frames over which a camera moves; the others stand still.
    """

    shape: Literal["stacked", "packed"]
    num_frames: Whole
    size: Whole
    aspect: Real = 1.0
    batch_size: int | None = None
    budget: int | None = None
    token_counts: Whole | None = None
    patch_size: PatchSize = (1, 1, 1)
    is_causal: bool = False
    stride: Whole = 1
    fps: Real | None = None
    crop_scale: Real = (0.5, 1.0)
    flip: float = 0.5
    one_frame_share: float = 0.0
    image_motion: float = 1.0

    def __post_init__(self) -> None:
        if self.shape not in ("stacked", "packed"):
            raise InputError(f"shape must be 'stacked' or 'packed', got {self.shape!r}")
        needed, other = ("batch_size", "budget") if self.shape == "stacked" else ("budget", "batch_size")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise InputError(f"{self.shape} batches need {needed} and take no {other}")
        if not _is_whole(getattr(self, needed)) or getattr(self, needed) < 1:
            raise InputError(f"{needed} must be a whole number of at least 1, got {getattr(self, needed)!r}")
        object.__setattr__(self, "patch_size", check_patch_size(self.patch_size))
        for name in (*_WHOLE, *_REAL):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _range(name, getattr(self, name), whole=name in _WHOLE))
        if self.stride != (1, 1) and self.fps is not None:
            raise InputError(f"choose stride or fps, not both; got stride={self.stride} and fps={self.fps}")
        if self.high("crop_scale") > 1:
            raise InputError(f"crop_scale must lie in (0, 1], got {self.crop_scale}")
        for name in ("flip", "one_frame_share", "image_motion"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        self._check_sizes()

    def low(self, name: str) -> float:
        """The lowest value of a range."""
        return float(getattr(self, name)[0])

    def high(self, name: str) -> float:
        """The highest value of a range."""
        return float(getattr(self, name)[1])

    @property
    def frame_counts(self) -> list[int]:
        """All values of T that are drawn from."""
        step, first = self.patch_size[0], int(self.is_causal)
        low, high = int(self.low("num_frames")), int(self.high("num_frames"))
        return [count for count in range(low, high + 1) if count >= 1 and (count - first) % step == 0]

    def cost(self, shape: Shape) -> int:
        """Tokens that a clip takes of the budget: its patches and its queries."""
        (pt, ph, pw), first = self.patch_size, int(self.is_causal or shape.num_frames == 1)
        steps = first + -(-(shape.num_frames - first) // pt)
        return steps * -(-shape.height // ph) * -(-shape.width // pw) + (shape.token_count or 0)

    def frame_size(self, side: float, aspect: float) -> tuple[int, int]:
        """(height, width) in whole patches, nearest to this side and aspect."""
        _, ph, pw = self.patch_size
        root = math.sqrt(aspect)
        return max(1, round(side / root / ph)) * ph, max(1, round(side * root / pw)) * pw

    def middle(self) -> Shape:
        """The shape that validation uses: the middle of every range."""
        counts = self.frame_counts
        side, aspect = (self.low("size") + self.high("size")) / 2, math.sqrt(self.low("aspect") * self.high("aspect"))
        tokens = None
        if self.token_counts is not None:
            tokens = round(math.sqrt(self.low("token_counts") * self.high("token_counts")))
        return Shape(counts[len(counts) // 2], *self.frame_size(side, aspect), tokens)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def _check_sizes(self) -> None:
        pt, ph, pw = self.patch_size
        if not self.frame_counts:
            wanted = f"1 + a multiple of {pt}" if self.is_causal else f"a multiple of {pt}"
            raise InputError(f"num_frames={self.num_frames} holds no value that is {wanted}, as patch_size asks")
        if self.low("size") == self.high("size") and self.low("aspect") == self.high("aspect") == 1:
            side = int(self.low("size"))
            if side % ph or side % pw:
                raise InputError(f"size={side} is no multiple of the patch of {ph}x{pw} pixels")
        if self.budget is None:
            return
        tokens = None if self.token_counts is None else int(self.high("token_counts"))
        corners = {self.low("aspect"), self.high("aspect")}
        largest = max(
            self.cost(Shape(self.frame_counts[-1], *self.frame_size(self.high("size"), aspect), tokens))
            for aspect in corners
        )
        if largest > self.budget:
            raise InputError(f"budget={self.budget} has no room for the largest clip, which takes {largest} tokens")


class Shape(NamedTuple):
    """Frames and size of one clip in a batch, and its number of queries."""

    num_frames: int
    height: int
    width: int
    token_count: int | None

    def __str__(self) -> str:
        return f"{self.num_frames} frames {self.width}x{self.height}"


def shapes(config: BatchConfig, *, seed: int, rank: int, index: int, places: Iterator[tuple[int, bool]]) -> list[Shape]:
    """The shapes of the clips of batch number ``index`` of a rank.

    Stacked, they are a function of (seed, rank, index). Packed, each clip has the shape of its place, and a batch ends
    before the first clip that does not fit, which begins the next one: so no size comes more often than it is drawn.

    Args:
        places: ``(number, is_single)`` of the places in the row of all ranks that the batch begins with;
            ``is_single``: the clip must have one frame (packed only).
    """
    if config.shape == "stacked":
        rng = np.random.default_rng((seed, _PLAN, rank, index))
        one = _shape(config, rng, is_single=False)
        assert config.batch_size is not None
        return [one._replace(token_count=_token_count(config, rng)) for _ in range(config.batch_size)]
    assert config.budget is not None
    found: list[Shape] = []
    left = config.budget
    for number, is_single in places:
        rng = np.random.default_rng((seed, _PLAN, number))
        shape = _shape(config, rng, is_single=is_single)
        shape = shape._replace(token_count=_token_count(config, rng))
        left -= config.cost(shape)
        if left < 0:
            break
        found.append(shape)
    return found


def _shape(config: BatchConfig, rng: np.random.Generator, *, is_single: bool) -> Shape:
    counts = config.frame_counts
    draws = rng.random(4)
    side = config.low("size") + draws[1] * (config.high("size") - config.low("size"))
    aspect = config.low("aspect") * (config.high("aspect") / config.low("aspect")) ** draws[2]
    is_single = is_single or draws[3] < config.one_frame_share
    num_frames = 1 if is_single else counts[int(draws[0] * len(counts))]
    return Shape(num_frames, *config.frame_size(side, aspect), None)


def _token_count(config: BatchConfig, rng: np.random.Generator) -> int | None:
    if config.token_counts is None:
        return None
    low, high = config.low("token_counts"), config.high("token_counts")
    drawn: int = round(low * (high / low) ** float(rng.random()))
    return min(int(high), max(int(low), drawn))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _range(name: str, value: Any, *, whole: bool) -> tuple[Any, Any]:
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    kind = "whole numbers" if whole else "numbers"
    is_right = len(pair) == 2 and all(
        _is_whole(one) or (not whole and isinstance(one, float) and math.isfinite(one)) for one in pair
    )
    if not is_right or not 0 < pair[0] <= pair[1]:
        raise InputError(f"{name} must be one of the {kind} above 0, or a pair (lowest, highest), got {value!r}")
    return pair if whole else (float(pair[0]), float(pair[1]))
