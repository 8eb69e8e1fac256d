"""Every example several times: as it is, then changed at random, for what must be encoded before it is learned from.

Ids cannot be cropped, turned or brightened as pixels can; clips can, before they are encoded.

Letters: C channels, T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tokenreel.errors import InputError
from tokenreel.media.frames import Selection, uniform_indices
from tokenreel.media.pixels import to_frames, to_video
from tokenreel.types import Clip

from .augment import VideoAugment
from .collection import Collection
from .example import VIEW, Example
from .labelled import LabelledSet
from .payload import Payload, Pixels, Size

__all__ = ["ChangedViews", "grouped_by_clip", "unchanged"]


def unchanged(labelled: LabelledSet) -> LabelledSet:
    """The set without changed views of token records: those are to learn from, not to measure by.

    Records that cannot be read stay, for whoever measures to name.
    """
    metas = _metas(labelled)
    kept = [number for number, meta in enumerate(metas) if not meta.get(VIEW)]
    return labelled if len(kept) == len(metas) else labelled.take(kept, name=labelled.name)


def grouped_by_clip(labelled: LabelledSet) -> LabelledSet:
    """A set of token records without groups, grouped by what was encoded where that has several views.

    Views of one clip must lie on one side of a split.
    """
    if any(group is not None for group in labelled.groups):
        return labelled
    metas = _metas(labelled)
    if not any(meta.get(VIEW) for meta in metas):
        return labelled
    return LabelledSet(
        labelled.whole,
        labelled.heads,
        {head: labelled.targets(head) for head in labelled.heads},
        groups=[str(meta.get("origin", labelled.key(number))) for number, meta in enumerate(metas)],
        splits=labelled.splits,
        indices=labelled.indices,
        name=labelled.name,
    )


def _metas(labelled: LabelledSet) -> list[Mapping[str, Any]]:
    """What is known of each token record, nothing of those that cannot be read; of a set of pixels an empty list."""
    found: list[Mapping[str, Any]] = []
    for number in range(len(labelled)):
        try:
            example = labelled[number]
        except (InputError, OSError):
            found.append({})
            continue
        if example.kind != "tokens":
            return []
        found.append(example.meta)
    return found


class ChangedViews(Collection):
    """The views of example i are i n, i n + 1, ...: the first as it is, the others changed; equal seeds, equal bytes.

    Args:
        whole: examples of pixels.
        num_views: n, at least 1.
        augment: how the others are changed. Its ``time_crop`` takes a stretch out of twice the frames that are asked
            for, so that motion is not slowed down more than it must be.
        seed: of the changes.
    """

    def __init__(self, whole: Collection, num_views: int, augment: VideoAugment, *, seed: int = 0) -> None:
        super().__init__(whole.name)
        if num_views < 1 or seed < 0:
            raise InputError(f"views must be at least 1 and their seed at least 0, got {num_views} and {seed}")
        self.whole, self.num_views, self.augment, self.seed = whole, num_views, augment, seed

    def __len__(self) -> int:
        return len(self.whole) * self.num_views

    def key(self, index: int) -> str:
        """That of the example; of a changed view with ``#view`` and its number."""
        at, view = divmod(index, self.num_views)
        return f"{self.whole.key(at)}#view{view}" if view else self.whole.key(at)

    def _example(self, index: int) -> Example:
        at, view = divmod(index, self.num_views)
        example = self.whole[at]
        if not view:
            return example
        payload = _ChangedPayload(example, self.augment, (self.seed, at, view))
        return replace(example, key=self.key(index), payload=payload, meta={**example.meta, VIEW: view})

    def _facts(self, index: int) -> Mapping[str, Any]:
        at, view = divmod(index, self.num_views)
        facts = self.whole._facts(at)
        return {**facts, "meta": {**facts.get("meta", {}), VIEW: view}} if view else facts


@dataclass(frozen=True, slots=True)
class _ChangedPayload(Payload):
    example: Example
    augment: VideoAugment
    seeds: tuple[int, int, int]
    kind = "array"

    @property
    def view(self) -> int:
        """From 1 on."""
        return self.seeds[2]

    def what(self) -> str:
        """For messages."""
        return f"a changed view of {self.example.payload.what()}"

    def array(self) -> Pixels:
        """All frames, changed."""
        return self.clip(Selection(), None).frames_THWC

    def clip(self, selection: Selection, size: Size) -> Clip:
        """The chosen frames, changed; times are those of the frames that are seen."""
        drawn = int(np.random.SeedSequence(self.seeds).generate_state(1, np.uint64)[0]) >> 1
        generator = torch.Generator().manual_seed(drawn)
        clip = self._in_time(selection, size, generator)
        changed = replace(self.augment, time_crop=0.0)(to_video(clip.frames_THWC.copy()), generator=generator)
        return replace(clip, frames_THWC=to_frames(changed))

    def _in_time(self, selection: Selection, size: Size, generator: torch.Generator) -> Clip:
        if not self.augment.time_crop:
            return self.example.payload.clip(selection, size)
        wanted = selection.uniform
        more = selection if wanted is None else replace(selection, uniform=2 * wanted, max_frames=None)
        clip = self.example.payload.clip(more, size)
        first, second = torch.rand(2, generator=generator).tolist()
        length = max(1, round(len(clip) * (1 - self.augment.time_crop * first)))
        start = int(second * (len(clip) - length + 1))
        chosen = start + (np.arange(length) if wanted is None else uniform_indices(length, wanted))
        chosen = chosen[: selection.max_frames]
        return replace(clip, frames_THWC=clip.frames_THWC[chosen], pts_seconds=clip.pts_seconds[chosen])
