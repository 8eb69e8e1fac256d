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
    """

    batch_size: int
    max_steps: int | None = None
    image_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"TokenBatchConfig.{name} must be at least 1, got {value}")
        if not 0 <= self.image_share <= 1:
            raise InputError(f"TokenBatchConfig.image_share must lie in [0, 1], got {self.image_share}")

    @property
    def has_cuts(self) -> bool:
        """Whether a record may be cut."""
        return self.max_steps is not None or self.image_share > 0

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)
