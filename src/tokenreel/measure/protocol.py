"""Which pixels a figure is measured on: the frames, the rate, the size and the crop, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from tokenreel.data.example import Example
from tokenreel.errors import InputError
from tokenreel.media.frames import Selection
from tokenreel.media.pixels import center_crop
from tokenreel.types import Clip

__all__ = ["Protocol"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How each clip is prepared before it is encoded. Two figures compare only if their protocols are equal.

    Attributes:
        frames: the first this many of each clip (fewer where it is shorter), or ``all``.
        size: the short side after a bicubic resize (smaller pictures are enlarged), or ``native``.
        fps: ``native``, or the frame nearest to each tick of this rate.
        start: where in the clip: its first frame.
        crop: ``centre`` (a square of ``size``; nothing at native size) or ``none``.
    """

    frames: int | Literal["all"] = 17
    size: int | Literal["native"] = 256
    fps: float | Literal["native"] = "native"
    start: Literal["first"] = "first"
    crop: Literal["centre", "none"] = "centre"

    def __post_init__(self) -> None:
        _check("frames", self.frames, "all")
        _check("size", self.size, "native")
        if self.fps != "native" and not (isinstance(self.fps, int | float) and 0 < self.fps < 1e6):
            raise InputError(f"fps must be a number above 0 or 'native', got {self.fps!r}")
        if self.start != "first":
            raise InputError(f"start must be 'first', got {self.start!r}")
        if self.crop not in ("centre", "none"):
            raise InputError(f"crop must be 'centre' or 'none', got {self.crop!r}")

    @property
    def selection(self) -> Selection:
        """The chosen frames."""
        fps = None if self.fps == "native" else float(self.fps)
        return Selection(fps=fps, max_frames=None if self.frames == "all" else self.frames)

    def read(self, example: Example) -> Clip:
        """The pixels of this example that are measured.

        Raises:
            InputError: the file is broken, or holds no pixels.
        """
        if self.size == "native":
            return example.clip(self.selection)
        clip = example.clip(self.selection, size=self.size)
        if self.crop == "none":
            return clip
        frames = center_crop(clip.frames_THWC, self.size, self.size)
        return Clip(frames_THWC=frames.copy(), pts_seconds=clip.pts_seconds, fps=clip.fps, source=clip.source)

    def sentence(self) -> str:
        """The protocol in words.

        >>> Protocol().sentence()
        'the first 17 frames of each clip at its own rate, short side resized to 256, centre crop 256x256'
        """
        frames = "all frames" if self.frames == "all" else f"the first {self.frames} frames"
        rate = "its own rate" if self.fps == "native" else f"{self.fps:g} frames a second"
        chosen = "the first frame of each clip" if self.frames == 1 else f"{frames} of each clip at {rate}"
        if self.size == "native":
            return f"{chosen}, at its own size"
        crop = f", centre crop {self.size}x{self.size}" if self.crop == "centre" else ""
        return f"{chosen}, short side resized to {self.size}{crop}"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of ``as_json``; what is missing has its default."""
        unknown = set(values) - set(cls.__slots__)
        if unknown:
            raise InputError(f"unknown protocol fields {sorted(unknown)}; known are {', '.join(cls.__slots__)}")
        return cls(**values)


def _check(name: str, value: object, word: str) -> None:
    if value != word and not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        raise InputError(f"{name} must be a whole number of at least 1 or {word!r}, got {value!r}")
