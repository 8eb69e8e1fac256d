"""The first frame of every example from coarse to fine, as a short clip: what a generator can begin with.

Letters: F levels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from tokenreel.errors import InputError
from tokenreel.media.frames import Selection
from tokenreel.types import Clip

from .collection import Collection
from .example import Example
from .payload import Payload, Pixels, Size

__all__ = ["COARSE", "CoarseToFine", "coarse_to_fine"]

COARSE = "coarse"
"""Key of a record's meta: the sides that its frames were averaged to."""


def coarse_to_fine(frame_HWC: Pixels, sides: Sequence[int]) -> Pixels:
    """uint8 (H, W, 3) -> (F + 1, H, W, 3): averaged to so many cells along the shorter side and drawn large again.

    The frame itself is last. Cells are averages of the pixels that they cover, between cells it is linear.
    """
    height, width = frame_HWC.shape[:2]
    picture, found = Image.fromarray(np.ascontiguousarray(frame_HWC)), []
    for side in sides:
        scale = side / min(height, width)
        cells = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = picture.resize(cells, Image.Resampling.BOX)
        found.append(np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)))
    return np.stack([*found, frame_HWC])


class CoarseToFine(Collection):
    """Clips of F + 1 frames: the first frame of each example, averaged to fewer and then to more cells, and whole.

    Args:
        whole: examples of pixels.
        sides: F whole numbers that grow: cells along the shorter side.
    """

    def __init__(self, whole: Collection, sides: Sequence[int]) -> None:
        super().__init__(whole.name)
        if not sides or any(a >= b for a, b in zip((0, *sides), sides)):
            raise InputError(f"coarse pictures need numbers of cells that grow, such as 8,16; got {list(sides)}")
        self.whole, self.sides = whole, tuple(sides)

    def __len__(self) -> int:
        return len(self.whole)

    def key(self, index: int) -> str:
        """That of the example."""
        return self.whole.key(index)

    def _example(self, index: int) -> Example:
        example = self.whole[index]
        return replace(example, payload=_CoarsePayload(example, self.sides))

    def _facts(self, index: int) -> Mapping[str, Any]:
        return self.whole._facts(index)


@dataclass(frozen=True, slots=True)
class _CoarsePayload(Payload):
    example: Example
    sides: tuple[int, ...]
    kind = "array"

    @property
    def view(self) -> int | None:
        """That of the clip, where it is one of several."""
        return getattr(self.example.payload, "view", None)

    @property
    def coarse(self) -> list[int]:
        """What the record's meta says."""
        return list(self.sides)

    def what(self) -> str:
        """For messages."""
        return f"the first frame of {self.example.payload.what()}, coarse to fine"

    def array(self) -> Pixels:
        """All levels."""
        return self.clip(Selection(), None).frames_THWC

    def clip(self, selection: Selection, size: Size) -> Clip:
        """The first frame that is chosen, coarse to fine; times are whole seconds."""
        clip = self.example.payload.clip(replace(selection, max_frames=1), size)
        frames_THWC = coarse_to_fine(clip.frames_THWC[0], self.sides)
        return replace(clip, frames_THWC=frames_THWC, pts_seconds=np.arange(len(frames_THWC), dtype=np.float64))
