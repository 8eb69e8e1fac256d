"""What batches of tokens are made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tokenreel.errors import InputError

__all__ = ["TokenBatchConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatchConfig:
    """How records of token shards become batches.

    A record is cut in time by leaving out its last steps, so the first step of a causal tokenizer stays the first.

    Attributes:
        batch_size: records a batch.
        max_steps: steps of the grid that are kept at most; None: all.
        image_share: share of the records of which the first step alone is kept: an image, where the tokenizer codes its
            first frame alone.
        still_share: share of the batches that hold such images and nothing else, so that they cost a fraction.
        still_size: records of such a batch; None: ``batch_size``.
        still_source: the number of the source, from 0 on, that such batches are taken from, and no others: pictures
            from coarse to fine (``tokenreel encode --coarse``). Each batch has their first 1, 2, ... steps; the last of
            them is to be guessed, and those before it are given. None: first steps of all sources.
    """

    batch_size: int
    max_steps: int | None = None
    image_share: float = 0.0
    still_share: float = 0.0
    still_size: int | None = None
    still_source: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_steps", "still_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"TokenBatchConfig.{name} must be at least 1, got {value}")
        if self.still_source is not None and (self.still_source < 0 or not self.still_share):
            raise InputError(
                "TokenBatchConfig.still_source must be the number of a source, with a still_share above 0, got "
                f"{self.still_source} and {self.still_share}"
            )
        for name in ("image_share", "still_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"TokenBatchConfig.{name} must lie in [0, 1], got {getattr(self, name)}")

    @property
    def has_cuts(self) -> bool:
        """Whether a record may be cut."""
        return self.max_steps is not None or self.image_share > 0 or self.still_share > 0

    @property
    def most_records(self) -> int:
        """Of any batch."""
        return max(self.batch_size, self.still_size or 0) if self.still_share else self.batch_size

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        unsaid = {"still_share": 0.0, "still_size": None, "still_source": None}
        return {name: value for name, value in values.items() if name not in unsaid or value != unsaid[name]}
