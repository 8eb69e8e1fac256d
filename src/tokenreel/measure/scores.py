"""What an evaluation found: one row a clip, and the figures of the whole set.

Letters: K codebook_size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenreel.types import Grid

from .features import FeatureScore
from .fidelity import db
from .merges import MergeSaving
from .protocol import Protocol
from .roundtrip import Spent
from .usage import IdCounts

__all__ = ["ClipScore", "Scores", "finite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScore:
    """One clip. Errors are means over its pixels on [0, 1]; what does not apply is None.

    Attributes:
        key: its name in the collection.
        size: (T, H, W) as measured.
        seconds: how long it plays; None for pictures and where times are not known.
        num_bits: num_tokens * log2(K).
    """

    key: str
    size: tuple[int, int, int]
    seconds: float | None
    grid: Grid
    num_tokens: int
    num_bits: float
    squared_error: float
    temporal_squared_error: float | None
    ssim: float | None
    ms_ssim: float | None
    lpips: float | None
    encoding: Spent
    decoding: Spent

    @property
    def num_pixels(self) -> int:
        """T * H * W."""
        frames, height, width = self.size
        return frames * height * width

    @property
    def bits_per_pixel(self) -> float:
        """Of the unpadded clip."""
        return self.num_bits / self.num_pixels

    @property
    def psnr_db(self) -> float:
        """-10 log10 of the squared error; infinity for an exact clip."""
        return db(self.squared_error)

    @property
    def temporal_psnr_db(self) -> float | None:
        """The same of differences between frames."""
        return None if self.temporal_squared_error is None else db(self.temporal_squared_error)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; an infinite level is null and ``exact`` true."""
        return {
            "key": self.key,
            "frames": self.size[0],
            "height": self.size[1],
            "width": self.size[2],
            "tokens": self.num_tokens,
            "grid": [self.grid.t, self.grid.h, self.grid.w],
            "bits_per_pixel": self.bits_per_pixel,
            "exact": self.squared_error == 0,
            "psnr_db": finite(self.psnr_db),
            "ssim": self.ssim,
            "ms_ssim": self.ms_ssim,
            "temporal_psnr_db": finite(self.temporal_psnr_db),
            "lpips": self.lpips,
            "encode_seconds": self.encoding.wall_seconds,
            "decode_seconds": self.decoding.wall_seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """The whole set: levels are means over clips that are not exact, similarities over all, bits all over all pixels.

    Attributes:
        skipped: (source, why) of each clip that could not be measured.
        merges: what byte-pair merges save, None where that cannot be told.
    """

    tokenizer: str
    fingerprint: str
    protocol: Protocol
    clips: tuple[ClipScore, ...]
    skipped: tuple[tuple[str, str], ...]
    counts: IdCounts
    merges: MergeSaving | None = None
    features: tuple[FeatureScore, ...] = ()
    codebook_size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "codebook_size", len(self.counts.counts_K))

    def mean(self, value: Callable[[ClipScore], float | None]) -> float | None:
        """The mean of a clip's figure over the clips that have it; None where none has.

        An exact clip has an infinite level: such clips are counted, not averaged, unless all are.
        """
        values = [found for clip in self.clips if (found := value(clip)) is not None]
        finite_values = [found for found in values if found != math.inf]
        return math.fsum(finite_values) / len(finite_values) if finite_values else max(values, default=None)

    @property
    def num_pixels(self) -> int:
        """Of all clips."""
        return sum(clip.num_pixels for clip in self.clips)

    @property
    def bits_per_pixel(self) -> float:
        """All bits over all pixels, each id at log2(K) bits."""
        return math.fsum(clip.num_bits for clip in self.clips) / self.num_pixels

    @property
    def num_tokens(self) -> int:
        """Of all clips."""
        return sum(clip.num_tokens for clip in self.clips)

    def named(self) -> Iterator[tuple[str, float]]:
        """Every figure that exists, by name."""
        values: dict[str, float | None] = {
            "psnr_db": self.mean(lambda clip: clip.psnr_db),
            "ssim": self.mean(lambda clip: clip.ssim),
            "ms_ssim": self.mean(lambda clip: clip.ms_ssim),
            "temporal_psnr_db": self.mean(lambda clip: clip.temporal_psnr_db),
            "lpips": self.mean(lambda clip: clip.lpips),
            "bits_per_pixel": self.bits_per_pixel,
            "entropy_bits_per_pixel": self.counts.entropy_bits * self.num_tokens / self.num_pixels,
            "merged_bits_per_pixel": None if self.merges is None else self.bits_per_pixel * (1 - self.merges.saved),
            "codebook_usage": self.counts.usage,
            "perplexity": self.counts.perplexity,
            "entropy_bits": self.counts.entropy_bits,
            **{score.name: score.value for score in self.features},
        }
        yield from ((name, value) for name, value in values.items() if value is not None)
        for way, spent in (("encode", self.spent("encoding")), ("decode", self.spent("decoding"))):
            yield f"{way}_frames_per_second", self.num_frames / max(spent.wall_seconds, 1e-9)

    @property
    def num_frames(self) -> int:
        """Of all clips."""
        return sum(clip.size[0] for clip in self.clips)

    def spent(self, way: str) -> Spent:
        """Time of all clips, ``encoding`` or ``decoding``."""
        return sum((getattr(clip, way) for clip in self.clips), Spent())

    def ranked(self) -> Sequence[ClipScore]:
        """The clips, worst first."""
        return sorted(self.clips, key=lambda clip: (-clip.squared_error, clip.key))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        figures = {name: finite(value) for name, value in self.named() if not name.endswith("_per_second")}
        for name in ("ssim", "ms_ssim", "temporal_psnr_db", "lpips"):
            figures.setdefault(name, None)
        return {
            "tokenizer": self.tokenizer,
            "fingerprint": self.fingerprint,
            "protocol": self.protocol.as_json(),
            "protocol_text": self.protocol.sentence(),
            "clips": len(self.clips),
            "frames": self.num_frames,
            "tokens": self.num_tokens,
            "codebook_size": self.codebook_size,
            "exact_clips": sum(clip.squared_error == 0 for clip in self.clips),
            **figures,
            "byte_pairs": None if self.merges is None else self.merges.as_json(),
            "features": [score.as_json() for score in self.features],
            "speed": {"encode": self._speed("encoding"), "decode": self._speed("decoding")},
            "per_clip": [clip.as_json() for clip in self.clips],
            "skipped": [{"source": source, "why": why} for source, why in self.skipped],
        }

    def _speed(self, way: str) -> dict[str, float | None]:
        spent = self.spent(way)
        known = [clip for clip in self.clips if clip.seconds is not None]
        seconds = math.fsum(clip.seconds or 0.0 for clip in known)
        wall = math.fsum(getattr(clip, way).wall_seconds for clip in known)
        return {
            "wall_seconds": spent.wall_seconds,
            "cpu_seconds": spent.cpu_seconds,
            "frames_per_second": self.num_frames / max(spent.wall_seconds, 1e-9),
            "video_seconds_per_second": seconds / max(wall, 1e-9) if known else None,
        }


def finite(value: float | None) -> float | None:
    """JSON has no infinity: None in its place."""
    return None if value is None or math.isinf(value) else value
