"""One example: its name, what is known about it, and the pixels or tokens behind it, opened when asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

if TYPE_CHECKING:
    from tokenreel.media.frames import Selection
    from tokenreel.media.read import Reader
    from tokenreel.types import Clip, Tokens

    from .payload import Kind, Payload, Size

__all__ = ["VIEW", "Example", "Label"]

Label = str | int

VIEW = "changed_view"
"""In ``meta`` of an example that was changed before it was encoded: which view it is, from 1 on."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One thing to learn from or to encode.

    Attributes:
        key: its name within the collection (a relative path, a key of a tar, a number).
        source: where it is, for messages and metadata.
        payload: the pixels or tokens behind it; use ``clip``, ``array``, ``open`` and ``tokens``.
        caption: what is seen, in words.
        label: its class, a name or a number.
        group: what must stay on one side of a split (a performer, a patient, a film).
        start_seconds, end_seconds: the part of the source that is meant; the whole where None.
        meta: all else the source says about it (further columns).
    """

    key: str
    source: str
    payload: Payload = field(repr=False)
    caption: str | None = None
    label: Label | None = None
    group: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        start, end = self.start_seconds or 0.0, math.inf if self.end_seconds is None else self.end_seconds
        if not (0 <= start < math.inf and end > start):
            raise InputError(
                f"{self.source}: the part from {start:g} to {end:g} s is empty; it must end after it starts"
            )

    @property
    def kind(self) -> Kind:
        """``media``, ``array``, ``tokens`` or ``pixels``."""
        return self.payload.kind

    def clip(self, selection: Selection | None = None, *, size: Size = None) -> Clip:
        """The chosen frames, uint8 (T, H, W, 3); a picture gives T = 1.

        Args:
            selection: which frames of this example (its time range counts from ``start_seconds``); all by default.
                The times of the clip are those of the source.
            size: short side, ``"WxH"`` or (height, width); native by default.

        Raises:
            InputError: the file is broken (MediaError), or the example holds tokens.
        """
        return self.payload.clip(self._within(selection), size)

    def open(self, selection: Selection | None = None, *, size: Size = None) -> Reader:
        """The chosen frames as a stream (``with example.open() as reader``); only for pictures and videos."""
        return self.payload.open(self._within(selection), size)

    def array(self) -> npt.NDArray[np.uint8]:
        """uint8 (T, H, W, C): arrays as they are stored, C = 1 or 3; all chosen frames of media and pixels, C = 3."""
        return self.clip().frames_THWC if self.kind in ("media", "pixels") else self.payload.array()

    def tokens(self) -> Tokens:
        """The ids of a token record.

        Raises:
            InputError: the file is broken (FormatError), or the example holds pixels.
        """
        return self.payload.tokens()

    def facts(self) -> dict[str, Any]:
        """What is known, as JSON values for ``Tokens.with_meta``; what is not known is left out."""
        names = ("source", "caption", "label", "group", "start_seconds", "end_seconds")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _within(self, selection: Selection | None) -> Selection:
        from tokenreel.media.frames import Selection

        wanted = selection or Selection()
        if self.start_seconds is None and self.end_seconds is None:
            return wanted
        start = self.start_seconds or 0.0
        end = min(start + wanted.end_seconds, math.inf if self.end_seconds is None else self.end_seconds)
        if not end > start + wanted.start_seconds:
            raise InputError(
                f"{self.source}: no frame of this example ({start:g} to {end:g} s) lies in {wanted.as_json()}"
            )
        return replace(wanted, start_seconds=start + wanted.start_seconds, end_seconds=end)
