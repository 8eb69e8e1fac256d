"""What batches of tokens are made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tokenreel.errors import InputError

__all__ = ["StepwiseSource", "TokenBatchConfig"]

_ABOVE_ONE = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class StepwiseSource:
    """A source that is learned step by step: batches of its records' first 1, 2, ... steps, the last to be guessed.

    So clips are learned frame by frame, and pictures from coarse to fine (``tokenreel encode --coarse``).

    Attributes:
        source: its number among the sources, from 0 on; one may be named again, with another size or other steps.
        share: of the batches.
        batch_size: records of such a batch.
        least_steps: the fewest steps that are kept.
    """

    source: int
    share: float
    batch_size: int
    least_steps: int = 1

    def __post_init__(self) -> None:
        if self.source < 0 or self.batch_size < 1 or self.least_steps < 1:
            raise InputError(
                "source must be at least 0, batch_size and least_steps at least 1, got "
                f"{self.source}, {self.batch_size} and {self.least_steps}"
            )
        if not 0 < self.share <= 1:
            raise InputError(f"share must lie in (0, 1], got {self.share}")


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
        stepwise: sources that are learned step by step. Other batches hold none of their records.
    """

    batch_size: int
    max_steps: int | None = None
    image_share: float = 0.0
    still_share: float = 0.0
    still_size: int | None = None
    stepwise: tuple[StepwiseSource, ...] = ()

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_steps", "still_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"TokenBatchConfig.{name} must be at least 1, got {value}")
        for name in ("image_share", "still_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"TokenBatchConfig.{name} must lie in [0, 1], got {getattr(self, name)}")
        object.__setattr__(self, "stepwise", tuple(self.stepwise))
        shares = self.still_share + sum(one.share for one in self.stepwise)
        if shares > _ABOVE_ONE:
            raise InputError(f"still_share and the shares of stepwise make {shares:g} of the batches, more than 1")

    @property
    def has_cuts(self) -> bool:
        """Whether a record may be cut."""
        return self.max_steps is not None or self.image_share > 0 or self.still_share > 0 or bool(self.stepwise)

    @property
    def most_records(self) -> int:
        """Of any batch."""
        still = self.still_size or 0 if self.still_share else 0
        return max(self.batch_size, still, *(one.batch_size for one in self.stepwise))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        values["stepwise"] = list(values["stepwise"])
        unsaid: dict[str, Any] = {"still_share": 0.0, "still_size": None, "stepwise": []}
        return {name: value for name, value in values.items() if name not in unsaid or value != unsaid[name]}
