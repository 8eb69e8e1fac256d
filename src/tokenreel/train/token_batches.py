"""Batches of token records for training a generator: captions and labels beside ids, images and video mixed, resumable.

::

    with TokenStream([Source(data="shards")], TokenBatchConfig(batch_size=8), seed=0, num_workers=1) as stream:
        for batch in stream: ...             # endless; batch.ids_BL on batch.grid, nothing is decoded
        state = stream.state_dict()          # at any moment; load_state_dict goes on with the next batch

Letters: B records, L tokens of the common grid (t, h, w), l tokens of one record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tokenreel.data.collection import Collection
from tokenreel.data.example import Example
from tokenreel.errors import InputError, MismatchError
from tokenreel.generate.maskgit_batch import padded
from tokenreel.types import Grid, Tokens

from .batches import Broken
from .mixing import Mix, Source
from .threaded_stream import ThreadedStream
from .token_batches_config import StepwiseSource, TokenBatchConfig
from .token_batches_origin import TokenOrigin

__all__ = ["StepwiseSource", "TokenBatch", "TokenBatchConfig", "TokenStream", "readable"]

_TRIES = 64
_CUT = 5
_STILL = 2  # which batches hold images
_NEAR = 1e-6
_STEPS = 6  # how many steps of a source that is learned step by step


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenBatch:
    """Records to learn from.

    Attributes:
        ids_BL: int64 (B, L), 0 where padded.
        grid: of all rows.
        valid_mask: bool (B, L), True = real; None where all are.
        captions: of each record, or None.
        labels: of each record, the number of its class, or None.
        sources: where each record came from, for messages.
        index: the number of the batch in its stream.
        given_steps: first steps of the grid that are never to be guessed.
    """

    ids_BL: Tensor
    grid: Grid
    valid_mask: Tensor | None
    captions: tuple[str | None, ...]
    labels: tuple[int | None, ...]
    sources: tuple[str, ...]
    index: int
    given_steps: int = 0

    def __post_init__(self) -> None:
        if self.ids_BL.ndim != 2 or self.ids_BL.dtype != torch.int64 or not len(self.ids_BL):
            raise InputError(
                f"TokenBatch.ids_BL must be int64 (B, L), got {self.ids_BL.dtype} {tuple(self.ids_BL.shape)}"
            )
        if self.ids_BL.shape[1] != self.grid.num_cells:
            raise InputError(f"TokenBatch has {self.ids_BL.shape[1]} ids a row, its grid {self.grid} other cells")
        if self.valid_mask is not None and self.valid_mask.shape != self.ids_BL.shape:
            raise InputError(f"TokenBatch.valid_mask must be {tuple(self.ids_BL.shape)}, got {self.valid_mask.shape}")
        if not len(self.captions) == len(self.labels) == len(self.sources) == len(self):
            raise InputError(f"TokenBatch has {len(self)} records, but not as many captions, labels and sources")

    @property
    def num_tokens(self) -> int:
        """That are real."""
        return self.ids_BL.numel() if self.valid_mask is None else int(self.valid_mask.sum())

    def to(self, device: torch.device) -> TokenBatch:
        """The same on a device."""
        valid_mask = None if self.valid_mask is None else self.valid_mask.to(device, non_blocking=True)
        return replace(self, ids_BL=self.ids_BL.to(device, non_blocking=True), valid_mask=valid_mask)

    def __len__(self) -> int:
        return len(self.ids_BL)

    def __repr__(self) -> str:
        return f"TokenBatch({self.index}: {len(self)} records on {self.grid})"


class _Seen(NamedTuple):
    ids_l: Tensor
    grid: Grid
    caption: str | None
    label: int | None
    source: str


class _Row(NamedTuple):
    """Sources that share batches; ``first`` of them among all collections."""

    mix: Mix
    first: int
    stepwise: StepwiseSource | None
    most_steps: int


class TokenStream(ThreadedStream[TokenBatch]):
    """Batches without end; the one of a number depends on (seed, number, rank) alone.

    A record that cannot be read is replaced by the next of its source and named in one warning.

    Args:
        sources: folders of token shards or of token files, all of one tokenizer.
        config: what batches are made of.
        seed: of order and cuts.
        rank, world_size: this process among those that share the sources.
        num_workers: threads that read ahead; 0 reads where a batch is asked for.

    Raises:
        InputError: a source is empty, cannot be opened or holds no tokens. MismatchError: several tokenizers made them.

    Attributes:
        index: the number of the next batch.
        origin: the tokenizer behind the ids, as far as the records tell.
        broken: every broken record so far, each once.
    """

    item = "record"

    def __init__(
        self,
        sources: Sequence[Source],
        config: TokenBatchConfig,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        if world_size < 1 or not 0 <= rank < world_size or num_workers < 0:
            raise InputError(
                "rank must lie in [0, world_size) and num_workers be at least 0, got "
                f"rank={rank}, world_size={world_size}, num_workers={num_workers}"
            )
        super().__init__(num_workers)
        self.config = config
        self._rank, self._world_size = rank, world_size
        self._mixes = _mixes(sources, config, seed)
        self.collections: list[Collection] = [
            _of_tokens(found, source) for mix in self._mixes for found, source in zip(mix.collections, mix.sources)
        ]
        firsts = [_first(one) for one in self.collections]
        self.origin = TokenOrigin.of(firsts[0])
        for one, first in zip(self.collections, firsts):
            self.origin.check(first, one.name)
        self._rows = list(self._found_rows(firsts))
        if config.has_cuts or any(source.is_single for source in sources):
            self.origin.check_cuts()
        self._classes: dict[Any, int] | None = None

    @property
    def label_names(self) -> tuple[Any, ...]:
        """The classes of all sources, in the order of their numbers; whole numbers stand for themselves."""
        names = {name for one in self.collections for name in one.label_names}
        numbers = [name for name in names if isinstance(name, int) and name >= 0]
        if names and len(numbers) == len(names):
            return tuple(range(max(numbers) + 1))
        return tuple(sorted(names, key=lambda name: (isinstance(name, str), name)))

    def read_labels(self) -> tuple[Any, ...]:
        """From now on batches carry labels; gives ``label_names``. Looks through all sources once.

        Raises:
            InputError: no record has a label.
        """
        names = self.label_names
        if not names:
            raise InputError(
                f"no record of {', '.join(one.name for one in self.collections)} has a label; encode a folder with a "
                "folder for each class, or a table with a column label"
            )
        self._classes = {name: number for number, name in enumerate(names)}
        return names

    def has_captions(self, num_records: int = 64) -> bool:
        """Whether any of some records, spread over all sources, has a caption."""
        for one in self.collections:
            places = np.unique(np.linspace(0, len(one) - 1, min(num_records, len(one))).round().astype(int))
            if any(example.caption for example, _ in readable(one, places.tolist())):
                return True
        return False

    def _found_rows(self, firsts: Sequence[Tokens]) -> Iterator[_Row]:
        """Of each mix, beside the first records of all collections."""
        place, ordinary = 0, len(self._mixes) - len(self.config.stepwise)
        for mix, stepwise in zip(self._mixes, [*[None] * ordinary, *self.config.stepwise]):
            steps = self.origin.grid_of(firsts[place]).t
            if stepwise is not None and stepwise.least_steps > steps:
                raise InputError(
                    f"stepwise: least_steps is {stepwise.least_steps}, but records of {self.collections[place].name} "
                    f"have {steps}"
                )
            yield _Row(mix, place, stepwise, steps)
            place += len(mix.sources)

    def _batch_of(self, index: int, broken: list[Broken]) -> TokenBatch:
        first = index * self.config.most_records
        row, size, steps = self._kind_of(index)
        places = (place * self._world_size + self._rank for place in range(first, first + size))
        seen = [self._seen(row, place, broken, steps) for place in places]
        batch = padded([one.ids_l for one in seen], [one.grid for one in seen])
        return TokenBatch(
            ids_BL=batch.ids_BL,
            grid=batch.grid,
            valid_mask=batch.valid_mask,
            captions=tuple(one.caption for one in seen),
            labels=tuple(one.label for one in seen),
            sources=tuple(one.source for one in seen),
            index=index,
            given_steps=batch.grid.t - 1 if row.stepwise else 0,
        )

    def _kind_of(self, index: int) -> tuple[_Row, int, int | None]:
        """Where the records of a batch come from, how many there are, and how many steps of each are kept."""
        config, seed = self.config, self._mixes[0].seed
        draw = np.random.default_rng((seed, _STILL, index)).random()
        if draw < config.still_share:
            return self._rows[0], config.still_size or config.batch_size, 1
        draw -= config.still_share
        for row in self._rows:
            one = row.stepwise
            if one is None:
                continue
            if draw < one.share or (row is self._rows[-1] and self._rows[0].stepwise is not None):
                steps = np.random.default_rng((seed, _STEPS, index)).integers(one.least_steps, row.most_steps + 1)
                return row, one.batch_size, int(steps)
            draw -= one.share
        return self._rows[0], config.batch_size, config.max_steps

    def _seen(self, row: _Row, number: int, broken: list[Broken], steps: int | None) -> _Seen:
        """The record at a place of the row, its first steps; where it is broken, the next of its source that is not."""
        mix = row.mix
        place = mix.place(number)
        source = row.first + place.source
        collection = self.collections[source]
        draw = np.random.default_rng((mix.seed, _CUT, number)).random()
        is_image = not row.stepwise and (mix.sources[place.source].is_single or draw < self.config.image_share)
        for record in itertools.islice(mix.examples(place), _TRIES):
            try:
                example = collection[record]
                tokens = example.tokens()
                self.origin.check(tokens, example.source)
                ids_l, grid = self._cut(tokens, 1 if is_image else steps)
                label = None if self._classes is None or example.label is None else self._classes[example.label]
                return _Seen(ids_l, grid, example.caption, label, example.source)
            except MismatchError:
                raise
            except (InputError, OSError) as error:
                broken.append(Broken(source, record, collection.key(record), str(error)))
        tried = min(_TRIES, len(collection))
        raise InputError(
            f"none of {tried} records of {collection.name} that were tried can be used; the last, {broken[-1].key}: "
            f"{broken[-1].reason}"
        )

    def _cut(self, tokens: Tokens, steps: int | None) -> tuple[Tensor, Grid]:
        """The first steps of a record on its grid."""
        grid = self.origin.grid_of(tokens)
        if steps is not None and steps < grid.t:
            grid = Grid(t=steps, h=grid.h, w=grid.w)
        return torch.from_numpy(tokens.ids_L[: grid.num_cells].astype(np.int64)), grid

    def identity(self) -> dict[str, Any]:
        """What decides the batches, as JSON values."""
        return {
            "seed": self._mixes[0].seed,
            "world_size": self._world_size,
            "config": self.config.as_json(),
            "fingerprint": self.origin.fingerprint,
            "sources": [one for mix in self._mixes for one in mix.identity()],
        }


def _mixes(sources: Sequence[Source], config: TokenBatchConfig, seed: int) -> list[Mix]:
    """The sources that ordinary batches are made of, where there are any, then each that is learned step by step."""
    apart = [one.source for one in config.stepwise]
    missing = [number for number in apart if number >= len(sources)]
    others = [one for number, one in enumerate(sources) if number not in apart]
    if missing:
        raise InputError(
            f"stepwise names sources {', '.join(map(str, apart))} (counted from 0), and there are {len(sources)}; give "
            "all of them: --data FIRST --data SECOND"
        )
    shares = sum(one.share for one in config.stepwise)
    if not others and (config.still_share or abs(shares - 1) > _NEAR):
        raise InputError(
            f"all sources are learned step by step, in {shares:g} of the batches; let their shares make 1, and "
            "still_share 0"
        )
    kept = [others] if others else []
    return [Mix(some, seed=seed) for some in [*kept, *[[sources[number]] for number in apart]]]


def _of_tokens(found: Collection | None, source: Source) -> Collection:
    if found is None:
        raise InputError(
            "rendered scenes are no tokens; draw and encode them first: tokenreel prepare rendered:1000 -o scenes/, "
            "then tokenreel encode scenes/ -o shards/ --tokenizer FOLDER"
        )
    kind = _first_kind(found)
    if kind != "tokens":
        raise InputError(
            f"{found.name} holds pixels, not tokens (its first example is of kind {kind}); encode it first: "
            f"tokenreel encode {source.data} -o shards/ --tokenizer FOLDER"
        )
    return found


def readable(records: Collection, numbers: Iterable[int]) -> Iterator[tuple[Example, Tokens]]:
    """The records of these numbers that are not damaged; batches pass over the others too, and name them."""
    for number in numbers:
        try:
            example = records[number]
            yield example, example.tokens()
        except (InputError, OSError):
            continue


def _first_kind(collection: Collection) -> str:
    """Of the first example that opens."""
    for number in range(min(_TRIES, len(collection)) - 1):
        try:
            return collection[number].kind
        except (InputError, OSError):
            continue
    return collection[min(_TRIES, len(collection)) - 1].kind


def _first(collection: Collection) -> Tokens:
    """The first record that can be read."""
    reason = ""
    for number in range(min(_TRIES, len(collection))):
        try:
            return collection[number].tokens()
        except (InputError, OSError) as error:
            reason = str(error)
    raise InputError(f"no record of {collection.name} can be read; the last: {reason}")
