"""What one objective brings to a run; ``train`` wires it to loop, checkpoints, log and export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from torch import nn

from tokenreel.tokenizers.saved import SavedModel
from tokenreel.train.loop import Batches
from tokenreel.train.objective import Objective

__all__ = ["Fixed", "Parts", "Stream"]


class Fixed(NamedTuple):
    """Fields of ``recipe.json`` that a run keeps when it goes on, beside those of every run.

    Attributes:
        names: may not change.
        within: beginnings of such names.
        presence: may change, but not be given up or taken up.
    """

    names: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    presence: tuple[str, ...] = ()


class Stream(Batches, Protocol):
    """Batches with what a run tells of them at its end."""

    @property
    def broken(self) -> Sequence[Any]:
        """Examples that could not be read; each has a ``key``."""

    def close(self) -> None:
        """End what works ahead."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...


class Parts(Protocol):
    """The parts of one objective's run; made by a function of (recipe, runtime) in a table of ``jobs.train``."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    @property
    def objective(self) -> Objective:
        """Its loss."""

    @property
    def stream(self) -> Stream:
        """Its batches."""

    @property
    def frozen(self) -> Sequence[nn.Module]:
        """Parts of the model that stay in eval mode."""

    @property
    def fixed(self) -> Fixed:
        """What a run keeps when it goes on."""

    def about(self) -> Mapping[str, Any]:
        """What ``recipe.json`` tells of the model beside the recipe's field ``model``: JSON values."""

    def start(self) -> None:
        """Before the first step of a run that has no checkpoint yet."""

    def exports(self, model: nn.Module) -> dict[str, SavedModel]:
        """What is written to the run's folder, by the name of its own; the first is what the run is for."""

    def complete(self, folder: Path) -> Mapping[str, Any] | None:
        """What else belongs beside the exports; by the main process, after they are written.

        What it gives is told in the summary of the run.
        """

    def measured(self, model: nn.Module, step: int, folder: Path) -> Mapping[str, float]:
        """Every ``look_every`` steps, by the main process: figures for the log."""

    def picture(self, model: nn.Module, step: int) -> Any:
        """A PIL image of what the model does now, or None."""
