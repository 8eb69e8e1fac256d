"""A tokenizer's ids as a TokenViViT reads them: checked against the tokenizer, changed at random in training.

Letters: B batch, t h w grid, L ids of a clip, Q ids of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tokenreel.classify.logits import Logits
from tokenreel.classify.tokens import TokenViViT
from tokenreel.data.labelled import LabelledExample
from tokenreel.errors import InputError
from tokenreel.nn.positions import GridSize

__all__ = ["CodeAugment", "CodeInputs", "CodeReader", "Codes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeAugment:
    """Random changes of ids on their grid. The first step, in causal tokenizers the picture, stays the first.

    Attributes:
        time_crop: of the later steps a stretch of 1 - time_crop to 1, anywhere.
        shift: by at most so many cells along h and w (queries: none); what leaves is filled from the edge.
        noise: share of the ids of later steps of which each takes the id of another later step at its place.
    """

    time_crop: float = 0.0
    shift: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.time_crop < 1 or not 0 <= self.noise <= 1 or self.shift < 0:
            raise InputError(
                "time_crop must lie in [0, 1), noise in [0, 1], shift be at least 0 cells, got "
                f"{self.time_crop}, {self.noise}, {self.shift}"
            )

    def __call__(self, ids_thw: Tensor, *, generator: torch.Generator) -> Tensor:
        """(t, h, w) -> (t', h, w) with t' <= t."""
        if self.time_crop and len(ids_thw) > 1:
            later = ids_thw[1:]
            first, second = torch.rand(2, generator=generator).tolist()
            steps = max(1, round(len(later) * (1 - self.time_crop * first)))
            start = int(second * (len(later) - steps + 1))
            ids_thw = torch.cat([ids_thw[:1], later[start : start + steps]])
        if self.shift and ids_thw.shape[1] > 1:
            for axis in (1, 2):
                size = ids_thw.shape[axis]
                moved = int(torch.randint(-self.shift, self.shift + 1, (), generator=generator))
                ids_thw = ids_thw.index_select(axis, (torch.arange(size) + moved).clamp_(0, size - 1))
        if self.noise and len(ids_thw) > 1:
            later = ids_thw[1:]
            is_noise = torch.rand(later.shape, generator=generator) < self.noise
            other = torch.randint(len(later), later.shape, generator=generator)
            ids_thw = torch.cat([ids_thw[:1], torch.where(is_noise, later.gather(0, other), later)])
        return ids_thw


class Codes(NamedTuple):
    """The ids of one clip, int32 (L,), and their grid."""

    ids_L: Tensor
    grid: GridSize


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodeInputs:
    """Ids of one batch, one int64 (L,) and a grid for each clip."""

    ids: tuple[Tensor, ...]
    grids: tuple[GridSize, ...]

    @property
    def num_tokens(self) -> int:
        """Ids of all clips."""
        return sum(one.numel() for one in self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> CodeInputs:
        """The same on a device."""
        return replace(self, ids=tuple(one.to(device, non_blocking=True) for one in self.ids))

    def logits(self, model: nn.Module, generator: torch.Generator | None) -> Logits:
        """What a TokenViViT answers."""
        found: Logits = model(self.ids, self.grids, generator=generator)
        return found

    def mixed(
        self, probs: Mapping[str, Tensor], *, alpha: float, generator: torch.Generator
    ) -> tuple[CodeInputs, dict[str, Tensor]]:
        """InputError: there is no id between two ids."""
        raise InputError("ids of a tokenizer cannot be mixed; say loss.mixup=0")


class CodeReader:
    """Examples that hold tokens to ids and grids.

    Args:
        model: whose tokenizer is asked for; its weights are not used.
        augment: random changes in training; None: none.
        is_random: whether ids are changed at random, as in training.
    """

    def __init__(self, model: TokenViViT, augment: CodeAugment | None, *, is_random: bool) -> None:
        self.model, self.augment, self.is_random = model, augment, is_random

    def identity(self) -> dict[str, Any]:
        """What decides a batch beside its examples, as JSON values."""
        return {
            "fingerprint": self.model.config.made_by_fingerprint,
            "augment": None if self.augment is None else asdict(self.augment),
        }

    def read(self, example: LabelledExample) -> Codes:
        """The ids.

        Raises:
            InputError: the example cannot be read, or holds pixels. MismatchError: another tokenizer made them.
        """
        [ids_L], [grid] = self.model.batch_of([example.tokens()])
        return Codes(ids_L.to("cpu", torch.int32), grid)

    def num_bytes(self, item: Codes) -> int:
        """Of an example that is kept."""
        return 4 * item.ids_L.numel()

    def joined(self, items: Sequence[Codes], generator: torch.Generator) -> CodeInputs:
        """A batch; every draw is the generator's."""
        found = [item.ids_L.long().view(item.grid) for item in items]
        if self.is_random and self.augment is not None:
            found = [self.augment(ids_thw, generator=generator) for ids_thw in found]
        grids = tuple((one.shape[0], one.shape[1], one.shape[2]) for one in found)
        return CodeInputs(ids=tuple(one.reshape(-1) for one in found), grids=grids)

    def shown(self, item: Codes, num_frames: int) -> Any:
        """A few steps of the grid side by side, each id in a grey of its own, uint8 (h, n w, 3)."""
        steps = item.grid[0]
        index = np.linspace(0, steps - 1, min(num_frames, steps)).round().astype(int)
        ids_thw = item.ids_L.numpy().reshape(item.grid)[index]
        grey = (ids_thw.astype(np.float64) * 255 / max(1, self.model.config.codebook_size - 1)).astype(np.uint8)
        return np.repeat(np.concatenate(list(grey), axis=1)[..., None], 3, axis=2)
