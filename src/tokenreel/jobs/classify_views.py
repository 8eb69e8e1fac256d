"""What a classifier reads of an example: some clips of a video at the model's size, or the ids of a token file.

Letters: C channels, T frames, H W pixels, N clips, K classes of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from einops import rearrange

from tokenreel.classify import Classifier, TokenViViT, ViViT
from tokenreel.classify.vivit_config import Fit
from tokenreel.data.example import Example
from tokenreel.errors import InputError, MediaError, MismatchError
from tokenreel.media.frames import Selection, uniform_indices
from tokenreel.train.classify_clips import fitted
from tokenreel.types import Clip

__all__ = ["Answer", "Fit", "Seen", "Views", "answers", "chosen_clips", "read_example", "window_starts"]

Key = TypeVar("Key")
Answer = dict[str, npt.NDArray[np.float64]]
"""Head -> probabilities (K,)."""

_BATCH_CLIPS = 16
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Which clips of a video are read, each as long as the model reads.

    Attributes:
        clips: at most so many; a video with room for fewer gives fewer.
        stride: None: each clip spans the whole video, as in training, and they take frames in turns. A number: each
            is a window, its frames so many frames of the video apart (less where the video is too short), and the
            windows are spread evenly.
        fit: how frames come to the model's size, ``crop`` or ``stretch`` (see ``ViViTConfig``); None: as the model
            was trained.
    """

    clips: int = 4
    stride: int | None = None
    fit: Fit | None = None

    def __post_init__(self) -> None:
        for name in ("clips", "stride"):
            value = getattr(self, name)
            if not (value is None and name == "stride") and (type(value) is not int or value < 1):
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.fit is not None and self.fit not in get_args(Fit):
            raise InputError(f"fit must be one of {', '.join(get_args(Fit))}, got {self.fit!r}")

    def of(self, model: Classifier) -> Views:
        """With the model's own fit where none is said."""
        return replace(self, fit=model.config.fit) if self.fit is None and isinstance(model, ViViT) else self


class Seen(NamedTuple):
    """What is read of an example.

    Attributes:
        inputs: what ``predict`` takes: videos uint8 (C, T, H, W), or one ``Tokens``.
        spans: seconds of the first and of the last frame of each clip; None for tokens without times.
        num_frames: of the first clip.
    """

    inputs: list[Any]
    spans: tuple[tuple[float, float] | None, ...]
    num_frames: int


def window_starts(num_frames: int, *, clip_frames: int, clips: int, stride: int) -> tuple[tuple[int, ...], int]:
    """The first frame of each window, and the stride: the middles of as many equal parts of all possible beginnings.

    >>> window_starts(100, clip_frames=8, clips=3, stride=2)
    ((14, 43, 71), 2)
    >>> window_starts(10, clip_frames=8, clips=3, stride=2)
    ((0, 1, 2), 1)
    """
    gaps = min(clip_frames, num_frames) - 1
    stride = min(stride, max(1, (num_frames - 1) // gaps)) if gaps else 1
    starts = np.unique(uniform_indices(num_frames - gaps * stride, clips))
    return tuple(starts.tolist()), stride


def chosen_clips(example: Example, num_frames: int, views: Views) -> list[Clip]:
    """The clips of an example of pixels, at its own size, each of at most ``num_frames`` frames.

    Raises:
        InputError: the file is broken.
    """
    if views.stride is None:
        return _spanning(example, num_frames, views.clips)
    total, fps = _length(example)
    if fps is None:
        whole = example.clip()
        starts, stride = window_starts(len(whole), clip_frames=num_frames, clips=views.clips, stride=views.stride)
        return [_part(whole, start + np.arange(min(num_frames, len(whole))) * stride) for start in starts]
    starts, stride = window_starts(total, clip_frames=num_frames, clips=views.clips, stride=views.stride)
    return [_window(example, start / fps, 0.5 / fps, stride, num_frames) for start in starts]


def read_example(example: Example, model: Classifier, views: Views) -> Seen:
    """The clips, or the ids, of one example as this model reads them.

    Raises:
        InputError: the file is broken. MismatchError: the model reads pixels and these are tokens, or the other way
            round, or another tokenizer made them.
    """
    if isinstance(model, TokenViViT):
        return _tokens(example, model)
    if not isinstance(model, ViViT):
        raise InputError(f"classification reads ViViT and TokenViViT, got {type(model).__name__}")
    if example.kind == "tokens":
        raise MismatchError(
            f"{example.source} holds tokens, and this classifier reads pixels; decode it first: tokenreel decode"
        )
    config = model.config
    clips = chosen_clips(example, config.num_frames, views)
    inputs = [
        _channels(fitted(clip.frames_THWC, config.size, views.fit or config.fit), config.in_channels) for clip in clips
    ]
    spans = tuple((float(clip.pts_seconds[0]), float(clip.pts_seconds[-1])) for clip in clips)
    return Seen(inputs, spans, len(clips[0]))


def answers(model: Classifier, seen: Iterable[tuple[Key, Seen]]) -> Iterator[tuple[Key, Seen, Answer]]:
    """The probabilities of each example, the mean over its clips; in batches of clips over examples."""
    waiting: list[tuple[Key, Seen]] = []
    for item in seen:
        waiting.append(item)
        if sum(len(one.inputs) for _, one in waiting) >= _BATCH_CLIPS:
            yield from _answered(model, waiting)
            waiting = []
    if waiting:
        yield from _answered(model, waiting)


def _answered(model: Classifier, waiting: list[tuple[Key, Seen]]) -> Iterator[tuple[Key, Seen, Answer]]:
    inputs = [one for _, seen in waiting for one in seen.inputs]
    parts = [
        model.predict(inputs[first : first + _BATCH_CLIPS]).probabilities()  # type: ignore[operator]
        for first in range(0, len(inputs), _BATCH_CLIPS)
    ]
    probs = {head: np.concatenate([part[head].double().numpy() for part in parts]) for head in parts[0]}
    first = 0
    for key, seen in waiting:
        own = slice(first, first := first + len(seen.inputs))
        yield key, seen, {head: probs_NK[own].mean(0) for head, probs_NK in probs.items()}


def _tokens(example: Example, model: TokenViViT) -> Seen:
    if example.kind != "tokens":
        raise MismatchError(
            f"{example.source} holds pixels, and this classifier reads tokens of {model.config.made_by} "
            f"{model.config.made_by_fingerprint[:12]}; encode it first: tokenreel encode"
        )
    tokens = example.tokens()
    try:
        model.batch_of([tokens])
    except MismatchError as error:
        raise MismatchError(f"{example.source}: {error}") from error
    times = tokens.pts_seconds
    return Seen([tokens], (None if times is None else (float(times[0]), float(times[-1])),), tokens.size[0])


def _spanning(example: Example, num_frames: int, clips: int) -> list[Clip]:
    """Clip n takes frames n, n + N, n + 2 N ... of the N * num_frames uniform ones of the whole."""
    most = num_frames * clips
    clip = example.clip(Selection(max_frames=most + 1))
    if len(clip) > most:
        clip = example.clip(Selection(uniform=most))
    if len(clip) <= num_frames:
        return [clip]
    count = min(clips, len(clip) // num_frames)
    numbers = uniform_indices(len(clip), num_frames * count)
    return [_part(clip, numbers[first::count]) for first in range(count)]


def _window(example: Example, seconds: float, half_frame: float, stride: int, num_frames: int) -> Clip:
    wanted = Selection(start_seconds=max(0.0, seconds - half_frame), every=stride, max_frames=num_frames)
    try:
        return example.clip(wanted)
    except MediaError:
        if not wanted.start_seconds:
            raise
        return example.clip(replace(wanted, start_seconds=0.0))  # the header promised more frames than there are


def _length(example: Example) -> tuple[int, float | None]:
    """Frames, and frames a second; the latter None where nothing but decoding tells."""
    if example.kind != "media":
        return 0, None
    with example.open() as reader:
        total = reader.estimated_frames()
        is_film = reader.info.kind == "video" and total is not None
        return total or 0, reader.info.fps if is_film else None


def _part(clip: Clip, numbers: npt.NDArray[np.int64]) -> Clip:
    return replace(clip, frames_THWC=clip.frames_THWC[numbers], pts_seconds=clip.pts_seconds[numbers])


def _channels(frames_THWC: npt.NDArray[np.uint8], channels: int) -> npt.NDArray[np.uint8]:
    """uint8 (T, H, W, 3) -> (C, T, H, W); grey is BT.601 luma, of equal channels that value."""
    if channels == 1:
        luma_THW: npt.NDArray[np.float64] = np.rint(frames_THWC @ _LUMA).clip(0, 255)
        return luma_THW.astype(np.uint8)[None]
    return np.ascontiguousarray(rearrange(frames_THWC, "T H W C -> C T H W"))
