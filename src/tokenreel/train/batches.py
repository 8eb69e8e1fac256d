"""Batches of clips for training a tokenizer: mixed, viewed at random, the same whoever makes them, resumable.

::

    config = BatchConfig(shape="stacked", batch_size=8, num_frames=17, size=128, patch_size=(4, 8, 8), is_causal=True)
    with BatchStream([Source(data="packed")], config, seed=0, num_workers=1) as stream:
        for batch in stream: ...                       # endless; batch.videos (B, C, T, H, W) in [-1, 1]
        state = stream.state_dict()                    # at any moment; load_state_dict goes on with the next batch

``batch_config``: what is wanted. ``mixing``: which example comes when. ``films`` and ``views``: what is seen of it.
Letters: B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

import itertools
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.media.pixels import to_video

from .batch_config import TITOK_VIDEO, BatchConfig, Shape, shapes
from .films import open_film
from .mixing import RENDERED, Mix, Source, rendered_clip
from .stream_state import check_stream_state
from .views import View, centre_view, random_view

__all__ = ["RENDERED", "TITOK_VIDEO", "Batch", "BatchConfig", "BatchStream", "Source", "validation_batches"]

_VERSION = 1
_TRIES = 64
_VIEW = 2
_VALIDATION_SCENES = 1 << 41  # beyond all scenes that training draws


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Clips to learn from.

    Attributes:
        videos: float32 in [-1, 1], (B, C, T, H, W), or a tuple of (C, T, H, W).
        token_counts: int32 (B,), queries of each clip; None where the model takes none.
        captions: of each clip, or None.
        sources: where each clip came from, for messages.
        index: the number of the batch in its stream.
    """

    videos: Tensor | tuple[Tensor, ...]
    token_counts: Tensor | None
    captions: tuple[str | None, ...]
    sources: tuple[str, ...]
    index: int

    def __post_init__(self) -> None:
        if isinstance(self.videos, Tensor):
            if self.videos.ndim != 5:
                raise InputError(f"Batch.videos must be (B, C, T, H, W), got {tuple(self.videos.shape)}")
        elif any(video.ndim != 4 for video in self.videos):
            raise InputError(f"Batch.videos must be (C, T, H, W) each, got {[tuple(one.shape) for one in self.videos]}")
        if not len(self.videos) or any(video.dtype != torch.float32 for video in self.videos):
            raise InputError("Batch.videos must be float32, and at least one clip")
        counts = self.token_counts
        if counts is not None and (counts.shape != (len(self),) or counts.dtype != torch.int32):
            raise InputError(f"Batch.token_counts must be int32 ({len(self)},), got {counts.dtype} {counts.shape}")
        if not len(self.captions) == len(self.sources) == len(self):
            raise InputError(
                f"Batch has {len(self)} videos, {len(self.captions)} captions and {len(self.sources)} sources"
            )

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        if isinstance(self.videos, Tensor):
            what = "x".join(map(str, self.videos.shape))
        else:
            what = ", ".join("x".join(map(str, video.shape)) for video in self.videos)
        return f"Batch({self.index}: {what})"


class Broken(NamedTuple):
    """An example that could not be read: number of its source, its own, its name, and why."""

    source: int
    number: int
    key: str
    reason: str


class _Plan(NamedTuple):
    """All that decides a batch: its number, the first of its places on this rank, and the shape of each clip."""

    number: int
    first: int
    shapes: tuple[Shape, ...]


class _Made(NamedTuple):
    plan: _Plan
    batch: Batch | None
    broken: list[Broken]
    error: str | None


class _Maker(Dataset[_Made]):
    """Plans to batches; a function of the plan, in whatever process."""

    def __init__(self, mix: Mix, config: BatchConfig, *, rank: int, world_size: int) -> None:
        self.mix, self.config, self.rank, self.world_size = mix, config, rank, world_size

    def __getitem__(self, plan: _Plan) -> _Made:
        broken: list[Broken] = []
        clips: list[_Seen] = []
        try:
            for offset, shape in enumerate(plan.shapes):
                clips.append(self._seen(self.number(plan.first + offset), shape, broken))
        except InputError as error:
            return _Made(plan, None, broken, str(error))
        counts = [shape.token_count for shape in plan.shapes if shape.token_count is not None]
        return _Made(plan, _joined(clips, counts, plan.number, self.config), broken, None)

    def number(self, place: int) -> int:
        """The place in the row of all ranks."""
        return place * self.world_size + self.rank

    def places(self, first: int) -> Iterator[tuple[int, bool]]:
        """For each place of this rank from ``first`` on, its number and whether its source gives single frames."""
        for number in map(self.number, itertools.count(first)):
            yield number, self.mix.sources[self.mix.place(number).source].is_single

    def plan(self, index: int, first: int) -> _Plan:
        """Batch number ``index``, whose clips stand at this rank's places from ``first`` on."""
        places = self.places(first)
        return _Plan(
            index, first, tuple(shapes(self.config, seed=self.mix.seed, rank=self.rank, index=index, places=places))
        )

    def _seen(self, number: int, shape: Shape, broken: list[Broken]) -> _Seen:
        """The clip at a place of the row; where it is broken, the next of its source that is not."""
        place = self.mix.place(number)
        view = random_view(self.config, shape, np.random.default_rng((self.mix.seed, _VIEW, number)))
        collection = self.mix.collections[place.source]
        for example in itertools.islice(self.mix.examples(place), _TRIES):
            if collection is None:
                return _rendered(example, view)
            try:
                found = collection[example]
                with open_film(found) as film:
                    return _Seen(view.frames(film), found.caption, found.source)
            except MismatchError:
                raise
            except (InputError, OSError) as error:
                broken.append(Broken(place.source, example, collection.key(example), str(error)))
        assert collection is not None
        tried = min(_TRIES, len(collection))
        raise InputError(
            f"none of {tried} examples of {collection.name} that were tried can be used; the last, {broken[-1].key}: "
            f"{broken[-1].reason}"
        )


class _Seen(NamedTuple):
    frames_THWC: np.ndarray[Any, np.dtype[np.uint8]]
    caption: str | None
    source: str


class _Plans(Sampler[_Plan]):
    """The plans from where the stream stands on, without end."""

    def __init__(self, maker: _Maker) -> None:
        self.maker = maker
        self.index = self.first = 0

    def __iter__(self) -> Iterator[_Plan]:
        index, first = self.index, self.first
        while True:
            plan = self.maker.plan(index, first)
            yield plan
            index, first = index + 1, first + len(plan.shapes)


class BatchStream:
    """Batches without end; the one of a number depends on (seed, number, rank) alone.

    A clip that cannot be read is replaced by the next of its source and named in one warning. Two ranks never see the
    same example in one epoch of its source, but for such replacements.

    Args:
        sources: what batches are mixed from.
        config: what they are made of.
        seed: of order and views.
        rank, world_size: this process among those that share the sources.
        num_workers: processes that make batches; 0 makes them here, where they are asked for.
        prefetch_batches: that each worker may be ahead.
        start_method: of the workers; ``fork``, ``spawn`` or ``forkserver``, None for what the platform does.

    Raises:
        InputError: a source is empty or cannot be opened, or a number is out of range.

    Attributes:
        index: the number of the next batch.
        broken: every broken example so far, each once.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: BatchConfig,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch_batches: int = 2,
        start_method: Literal["fork", "spawn", "forkserver"] | None = None,
    ) -> None:
        if world_size < 1 or not 0 <= rank < world_size:
            raise InputError(f"rank must lie in [0, world_size), got rank={rank}, world_size={world_size}")
        if num_workers < 0 or prefetch_batches < 1:
            raise InputError(
                f"num_workers must be 0 or more and prefetch_batches 1, got {num_workers}, {prefetch_batches}"
            )
        self.config = config
        self._maker = _Maker(Mix(sources, seed=seed), config, rank=rank, world_size=world_size)
        self._plans = _Plans(self._maker)
        self._broken: dict[tuple[int, int], Broken] = {}
        self._run = 0
        # A generator of its own: a DataLoader otherwise draws from torch's global one, and a resumed run would see
        # other random numbers in the model.
        self._loader: DataLoader[_Made] = DataLoader(
            self._maker,
            batch_size=None,
            sampler=self._plans,
            num_workers=num_workers,
            collate_fn=_unchanged,
            prefetch_factor=prefetch_batches if num_workers else None,
            persistent_workers=num_workers > 0,
            multiprocessing_context=start_method if num_workers else None,
            generator=torch.Generator(),
            worker_init_fn=_undisturbed if num_workers else None,
        )

    @property
    def index(self) -> int:
        """The number of the next batch."""
        return self._plans.index

    @property
    def broken(self) -> list[Broken]:
        """Every broken example so far, each once."""
        return list(self._broken.values())

    def batch(self, index: int) -> Batch:
        """Batch number ``index``, made here; the stream does not move.

        Raises:
            InputError: no example of a source can be read.
        """
        return self._checked(self._maker[self._maker.plan(index, self._first_of(index))])

    def __iter__(self) -> Iterator[Batch]:
        """The batches from ``index`` on, without end.

        Raises:
            InputError: no example of a source can be read.
        """
        self._run += 1
        run = self._run
        for made in self._loader:
            if run != self._run:
                raise InputError("this iteration has ended: the stream was closed, moved, or iterated anew meanwhile")
            batch = self._checked(made)
            self._plans.index, self._plans.first = made.plan.number + 1, made.plan.first + len(made.plan.shapes)
            yield batch
            if run != self._run:
                raise InputError("this iteration has ended: the stream was closed, moved, or iterated anew meanwhile")

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, as JSON values: what was handed over counts, not what workers have prefetched."""
        return {
            "version": _VERSION,
            "index": self.index,
            "first": {str(self._maker.rank): self._plans.first},
            "broken": [list(broken) for broken in self.broken],
            **self._identity(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken, on this rank or another; the number of workers may be another.

        Raises:
            MismatchError: the state is of other sources, another config, seed, number of ranks or version.
        """
        check_stream_state(state, version=_VERSION, identity=self._identity())
        index = int(state["index"])
        first = dict(state["first"]).get(str(self._maker.rank))
        self._run += 1
        self._plans.index, self._plans.first = index, self._first_of(index) if first is None else int(first)
        noted = (Broken(*entry) for entry in state["broken"])
        self._broken = {(one.source, one.number): one for one in noted}

    def close(self) -> None:
        """End iterations under way and the worker processes."""
        self._run += 1
        iterator, self._loader._iterator = self._loader._iterator, None
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            with suppress(RuntimeError):  # a spawned worker may die of torch's own threads while it is being ended
                iterator._shutdown_workers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _first_of(self, index: int) -> int:
        """Places of this rank that the batches before ``index`` take; the sizes of packed ones must be drawn anew."""
        if self.config.batch_size is not None:
            return index * self.config.batch_size
        near = (self._plans.index, self._plans.first) if self._plans.index <= index else (0, 0)
        first = near[1]
        for number in range(near[0], index):
            first += len(self._maker.plan(number, first).shapes)
        return first

    def _checked(self, made: _Made) -> Batch:
        for one in made.broken:
            if (one.source, one.number) not in self._broken:
                self._broken[one.source, one.number] = one
                warnings.warn(f"replaced the broken example {one.key}: {one.reason}", TokenReelWarning, stacklevel=3)
        if made.batch is None:
            raise InputError(made.error or "no batch")
        return made.batch

    def _identity(self) -> dict[str, Any]:
        maker = self._maker
        return {
            "seed": maker.mix.seed,
            "world_size": maker.world_size,
            "config": self.config.as_json(),
            "sources": maker.mix.identity(),
        }


def validation_batches(
    sources: Sequence[Source], config: BatchConfig, *, num_clips: int | None = None
) -> Iterator[Batch]:
    """Every example once, in order: its first frames, the largest crop in the middle, the middle of every range.

    Broken examples are left out with a warning. Pictures stand still, or have one frame in packed batches.

    Args:
        sources: the examples; rendered scenes are others than training sees.
        config: as for training; nothing of it is drawn.
        num_clips: at most this many of each source; needed for rendered scenes.

    Raises:
        InputError: a source is empty, no example can be read, or ``num_clips`` is missing.
    """
    shape = config.middle()
    held: list[_Seen] = []
    index = size = 0
    for seen in _validation_clips(sources, config, shape, num_clips):
        frames = len(seen.frames_THWC)
        cost = 1 if config.budget is None else config.cost(shape._replace(num_frames=frames))
        if held and size + cost > (config.batch_size or config.budget or 0):
            yield _joined(held, [shape.token_count] * len(held), index, config)
            held, index, size = [], index + 1, 0
        held.append(seen)
        size += cost
    if held:
        yield _joined(held, [shape.token_count] * len(held), index, config)
    elif not index:
        raise InputError("none of the examples for validation can be used")


def _validation_clips(
    sources: Sequence[Source], config: BatchConfig, shape: Shape, num_clips: int | None
) -> Iterator[_Seen]:
    for source in sources:
        collection = source.open()
        view = centre_view(config, shape._replace(num_frames=1) if source.is_single else shape)
        if collection is None:
            if num_clips is None:
                raise InputError("rendered scenes have no end: say how many are for validation with num_clips=")
            yield from (_rendered(_VALIDATION_SCENES + number, view) for number in range(num_clips))
            continue
        for number in range(len(collection) if num_clips is None else min(num_clips, len(collection))):
            try:
                example = collection[number]
                with open_film(example) as film:
                    single = config.shape == "packed" and film.num_frames == 1
                    seen = centre_view(config, shape._replace(num_frames=1)) if single else view
                    yield _Seen(seen.frames(film), example.caption, example.source)
            except (InputError, OSError) as error:
                text = f"left out the broken example {collection.key(number)}: {error}"
                warnings.warn(text, TokenReelWarning, stacklevel=3)


def _rendered(number: int, view: View) -> _Seen:
    clip = rendered_clip(number, view.num_frames, view.height, view.width)
    return _Seen(clip.frames_THWC[:, :, ::-1] if view.is_mirrored else clip.frames_THWC, None, f"{RENDERED}:{number}")


def _joined(clips: Sequence[_Seen], counts: Sequence[int | None], index: int, config: BatchConfig) -> Batch:
    has_counts = config.token_counts is not None
    return Batch(
        videos=_stacked(clips) if config.shape == "stacked" else tuple(_video(clip) for clip in clips),
        token_counts=torch.tensor(counts, dtype=torch.int32) if has_counts else None,
        captions=tuple(clip.caption for clip in clips),
        sources=tuple(clip.source for clip in clips),
        index=index,
    )


def _video(clip: _Seen) -> Tensor:
    return to_video(np.ascontiguousarray(clip.frames_THWC))


def _stacked(clips: Sequence[_Seen]) -> Tensor:
    """What ``torch.stack`` of the videos is, without holding them twice."""
    num_frames, height, width, channels = clips[0].frames_THWC.shape
    videos_BCTHW = torch.empty(len(clips), channels, num_frames, height, width)
    for video_CTHW, clip in zip(videos_BCTHW, clips):
        frames = torch.from_numpy(np.ascontiguousarray(clip.frames_THWC))
        video_CTHW.copy_(rearrange(frames, "T H W C -> C T H W"))
    return videos_BCTHW.div_(127.5).sub_(1)  # as media.pixels.to_video does, to the bit


def _undisturbed(worker: int) -> None:
    """An interrupt at the terminal reaches workers, too; it is for the process that hands out the batches to obey."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(made: Any) -> Any:
    return made
