"""What the recipes of all objectives share: a name, sources of data, optimizers, the loop."""

from __future__ import annotations

from dataclasses import dataclass

from tokenreel.errors import InputError

from .loop import LoopConfig
from .mixing import Source
from .optim import OptimConfig

__all__ = ["PLACEHOLDER", "START", "DataChoice", "Recipe", "SourceChoice", "check_start"]

PLACEHOLDER = "DATA"
"""As the ``data`` of a source: what ``--data`` names."""

START = "INIT"
"""As ``model.init``: a model that must be named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChoice:
    """One source of examples, fields as in ``batches.Source``; data ``DATA`` is what ``--data`` names."""

    data: str
    weight: float = 1.0
    split: str | None = None
    is_single: bool = False

    def source(self) -> Source:
        """To be opened."""
        return Source(data=self.data, weight=self.weight, split=self.split, is_single=self.is_single)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChoice:
    """What is learned from; each objective adds in which batches."""

    sources: tuple[SourceChoice, ...]
    num_workers: int = 1

    def opened(self) -> list[Source]:
        """The sources, to be opened."""
        return [choice.source() for choice in self.sources]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A complete experiment; each objective adds its model and its losses.

    Attributes:
        name: of the recipe, and of the folder of its runs.
        objective: a name in ``recipes.OBJECTIVES``.
        data: what is learned from.
        optim: of the model; ``critic_optim`` of a critic beside it, ``optim`` where it is None.
        loop: how long, how often.
    """

    name: str
    objective: str
    data: DataChoice
    optim: OptimConfig
    loop: LoopConfig
    critic_optim: OptimConfig | None = None

    def check(self) -> None:
        """InputError for what is wrong with the model, before anything is opened."""


def check_start(init: str | None, what: str) -> None:
    """InputError where ``model.init`` is still the placeholder."""
    if init == START:
        raise InputError(f"this recipe goes on from a trained {what}; name its folder: model.init=FOLDER")
