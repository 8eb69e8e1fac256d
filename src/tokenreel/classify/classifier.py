"""The base of every classifier: a saved model with named heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tokenreel.tokenizers.saved import SavedModel

from .logits import HeadLabels, Logits

__all__ = ["Classifier"]


class Classifier(SavedModel):
    """Base of the classifiers: ``forward`` gives ``Logits``, one tensor for each of ``heads``."""

    kind: ClassVar[str] = "classifier"

    def forward(self, *args: Any, **kwargs: Any) -> Logits:
        """What is to be classified -> ``Logits``."""
        raise NotImplementedError

    @property
    def heads(self) -> HeadLabels:
        """Names and labels."""
        heads: HeadLabels = self.config.heads
        return heads

    def card_rows(self) -> Mapping[str, str]:
        """One row a head."""
        rows = {"model": self.config.model.replace("_", " ")}
        for name, labels in self.heads:
            shown = ", ".join(labels[:12]) + (", ..." if len(labels) > 12 else "")
            rows[f"head {name}"] = f"{len(labels)} classes: {shown}"
        return rows
