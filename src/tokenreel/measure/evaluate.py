"""``Evaluator``: a set of clips through a tokenizer and back, and every figure of it.

It knows the ``Tokenizer`` protocol and nothing else of a model, prints nothing and writes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tokenreel.data.collection import Collection
from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.tokenizers.base import Tokenizer
from tokenreel.types import Clip

from .features import Extractor, FeatureMeter
from .fidelity import ms_ssim, squared_error, ssim, temporal_squared_error
from .merges import MOST_IDS, merge_saving
from .protocol import Protocol
from .roundtrip import RoundTrip, round_trip, unit_video
from .scores import ClipScore, Scores
from .usage import IdCounts

__all__ = ["Evaluator", "Perceptual", "Watcher"]

Perceptual = Callable[[Tensor, Tensor], float]
"""Distance of two videos (C, T, H, W) in [-1, 1], such as LPIPS: the mean over their frames."""

Watcher = Callable[[ClipScore, npt.NDArray[np.uint8], Tensor], None]
"""Sees each clip: its row, the original (T, H, W, C), and the decoded video (C, T, H, W) in [0, 1]."""


class Evaluator:
    """Measures tokenizers on one set of clips under one protocol. A broken clip is skipped, named and counted.

    Args:
        examples: pictures and videos (``tokenreel.data``).
        protocol: which frames, rate, size and crop.
        token_count: ids a frame or clip, for tokenizers that leave the choice.
        perceptual: a further distance, reported as ``lpips``.
        features: (name, extractor) of distances between the two sets as a network sees them.
        with_merges: whether to tell what byte-pair merges save.
        progress: called with (clips done, clips in all).
        watch: sees each clip when it is measured.
    """

    def __init__(
        self,
        examples: Collection,
        *,
        protocol: Protocol | None = None,
        token_count: int | None = None,
        perceptual: Perceptual | None = None,
        features: Sequence[tuple[str, Extractor]] = (),
        with_merges: bool = True,
        progress: Callable[[int, int | None], object] | None = None,
        watch: Watcher | None = None,
    ) -> None:
        self.examples = examples
        self.protocol, self.token_count = protocol or Protocol(), token_count
        self.perceptual, self.features, self.with_merges = perceptual, tuple(features), with_merges
        self._progress, self._watch = progress, watch

    def run(self, model: Tokenizer) -> Iterator[tuple[str, float]]:
        """(name, value) of every figure that applies; infinity where every pixel of a clip is exact."""
        yield from self.measure(model).named()

    def measure(self, model: Tokenizer) -> Scores:
        """All figures with the rows behind them.

        The first clip is coded once more beforehand, so that no time contains what is done only once.

        Raises:
            InputError: there is no clip, or none can be measured.
        """
        counts = IdCounts(model.codebook_size)
        meters = [FeatureMeter(name, extractor) for name, extractor in self.features]
        rows: list[ClipScore] = []
        skipped: list[tuple[str, str]] = []
        ids: list[npt.NDArray[np.unsignedinteger]] = []
        for index in range(len(self.examples)):
            self._tell(index)
            clip = self._read(index, skipped)
            if clip is None:
                continue
            if not rows:
                round_trip(model, clip.frames_THWC, token_count=self.token_count)
            key = self.examples.key(index)
            coded = round_trip(model, clip.frames_THWC, token_count=self.token_count)
            original = unit_video(np.moveaxis(clip.frames_THWC, 3, 0))
            rows.append(self._score(key, clip, original, coded))
            counts.add(coded.tokens.ids_L)
            if self.with_merges and not _is_enough(ids):
                ids.append(coded.tokens.ids_L)
            for meter in meters:
                meter.add(original, coded.decoded_CTHW)
            if self._watch is not None:
                self._watch(rows[-1], clip.frames_THWC, coded.decoded_CTHW)
        self._tell(len(self.examples))
        if not rows:
            first = f"; the first: {skipped[0][1]}" if skipped else ""
            raise InputError(f"none of the {len(self.examples)} clips of {self.examples.name} can be measured{first}")
        return Scores(
            tokenizer=model.name,
            fingerprint=model.fingerprint,
            protocol=self.protocol,
            clips=tuple(rows),
            skipped=tuple(skipped),
            counts=counts,
            merges=merge_saving(ids, codebook_size=model.codebook_size) if self.with_merges else None,
            features=tuple(meter.score() for meter in meters),
        )

    def _read(self, index: int, skipped: list[tuple[str, str]]) -> Clip | None:
        source = self.examples.key(index)
        try:
            example = self.examples[index]
            source = example.source
            return self.protocol.read(example)
        except (InputError, OSError) as error:
            skipped.append((source, str(error)))
            warnings.warn(f"skipped: {error}", TokenReelWarning, stacklevel=3)
            return None

    def _score(self, key: str, clip: Clip, original_CTHW: Tensor, coded: RoundTrip) -> ClipScore:
        decoded = coded.decoded_CTHW
        lpips = None
        if self.perceptual is not None:
            lpips = float(self.perceptual(original_CTHW * 2 - 1, decoded * 2 - 1))
        return ClipScore(
            key=key,
            size=clip.size,
            seconds=_seconds(clip),
            grid=coded.tokens.grid,
            num_tokens=coded.tokens.num_tokens,
            num_bits=coded.tokens.num_bits,
            squared_error=squared_error(original_CTHW, decoded),
            temporal_squared_error=temporal_squared_error(original_CTHW, decoded),
            ssim=ssim(original_CTHW, decoded),
            ms_ssim=ms_ssim(original_CTHW, decoded),
            lpips=lpips,
            encoding=coded.encoding,
            decoding=coded.decoding,
        )

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(done, len(self.examples))


def _is_enough(ids: Sequence[npt.NDArray[np.unsignedinteger]]) -> bool:
    """Whether both halves hold as many ids as merges are learned on and counted on."""
    return all(sum(part.size for part in half) >= MOST_IDS for half in (ids[0::2], ids[1::2]))


def _seconds(clip: Clip) -> float | None:
    """How long a clip plays: the steady rate, or from its first time to its last and one step more."""
    if clip.num_frames < 2:
        return None
    if clip.fps:
        return clip.num_frames / clip.fps
    span = float(clip.pts_seconds[-1] - clip.pts_seconds[0])
    return span * clip.num_frames / (clip.num_frames - 1) or None
