"""Scenes that the project draws, with captions, as a collection: ``rendered:COUNT`` wherever a folder is asked for."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError
from tokenreel.media.frames import Selection
from tokenreel.media.info import steady_fps
from tokenreel.media.pixels import parse_size, resize
from tokenreel.render import WorldScene, caption, draw_plain_scene, draw_scene, labels, render_clip
from tokenreel.types import Clip

from .collection import Collection
from .example import Example
from .labelled_rendered import RENDERED
from .payload import ArrayPayload
from .pixel_shards import chosen

__all__ = ["PLAIN", "CaptionedScenes"]

Pixels = npt.NDArray[np.uint8]
_SCENE_FPS = 8.0
PLAIN = ",plain"
"""What ends the name of drawn scenes where plain ones are asked for."""


class CaptionedScenes(Collection):
    """Scenes of the captioned world by number, each with one of its captions; a scene is a function of its number.

    Args:
        num_examples: how many.
        num_frames, height, width: of a clip.
        is_plain: the easiest ones: one thing of one colour on a wall of one colour (``rendered:1000,17,64,64,plain``).
    """

    def __init__(
        self, num_examples: int, num_frames: int = 17, height: int = 64, width: int = 64, *, is_plain: bool = False
    ) -> None:
        super().__init__(f"{RENDERED}{num_examples}{PLAIN if is_plain else ''}")
        self._num_examples, self._size, self._is_plain = num_examples, (num_frames, height, width), is_plain

    def __len__(self) -> int:
        return self._num_examples

    def key(self, index: int) -> str:
        """``scene-17``, by its number; ``plain-17`` of plain ones."""
        return f"{'plain' if self._is_plain else 'scene'}-{index}"

    def scene(self, index: int) -> WorldScene:
        """What example ``index`` shows."""
        return draw_plain_scene(index) if self._is_plain else draw_scene(index)

    def _example(self, index: int) -> Example:
        name = f"rendered/{self.key(index)}"
        payload = _ScenePayload(load=partial(self._pixels, index), name=name)
        return Example(key=self.key(index), source=name, payload=payload, **self._facts(index))

    def _facts(self, index: int) -> dict[str, Any]:
        scene = self.scene(index)
        return {"caption": caption(scene, index), "meta": labels(scene)}

    def _pixels(self, index: int) -> Pixels:
        return render_clip(self.scene(index), *self._size).frames_THWC


class _ScenePayload(ArrayPayload):
    """A drawn clip, with the times of its frames."""

    def clip(self, selection: Selection, size: Any) -> Clip:
        """The chosen frames.

        Raises:
            InputError: none lies in the range.
        """
        frames_THWC = self.load()
        numbers, times = chosen(np.arange(len(frames_THWC)) / _SCENE_FPS, selection, _SCENE_FPS)
        if not numbers:
            raise InputError(
                f"{self.name} lasts {len(frames_THWC) / _SCENE_FPS:g} s: no frame lies in the chosen range"
            )
        pts_seconds = np.array(times, np.float64)
        fps = selection.fps or steady_fps(pts_seconds) or _SCENE_FPS
        pixels = resize(np.ascontiguousarray(frames_THWC[numbers]), parse_size(size))
        return Clip(frames_THWC=pixels, pts_seconds=pts_seconds, fps=fps, source=self.name)
