"""The transformer that masked generators and critics share: ids on a grid and a condition to features.

Letters: B examples, N rows (B, or 2 B when guided), L tokens of a grid (t, h, w), P positions, S text tokens, D dim,
E feature_dim, F factors, f rotary bands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.nn.blocks import Transformer
from tokenreel.nn.heads import Context, ContextPart
from tokenreel.nn.initial import drawn
from tokenreel.nn.positions import ContinuousBias
from tokenreel.nn.rotary import Rotary, grid_positions
from tokenreel.types import Grid

from .condition import Condition
from .maskgit_config import TokenNetworkConfig
from .maskgit_groups import Neighbours, TokenGroups, coarser

__all__ = ["Prepared", "TokenNetwork", "draw_null"]

_START = 0.2
"""Standard deviation of embeddings at first: near that of what the blocks add. At .02 a context task took three times
as many steps."""


class Prepared(NamedTuple):
    """A condition as the blocks read it, computed once for all steps of sampling.

    Attributes:
        num: B, videos that are made.
        guided: whether there are 2 B rows: the conditional ones, then those that are told nothing.
        keys: each block's keys and values of the text; None for a model that reads no text. Where guided, one part of
            the rows attends the text, the other the learned vector alone.
        context_mask: (N, S) bool, True = may be attended; None where all of it may, or where the parts tell.
        label_N1D: (N, 1, D), added to every token; None for a model without labels.
    """

    num: int
    guided: bool
    keys: tuple[Context, ...] | None
    context_mask: Tensor | None
    label_N1D: Tensor | None


def draw_null(
    num: int, probability: float, *, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """(num,) bool, True = trained without its condition (arXiv 2207.12598, algorithm 1)."""
    place = device if generator is None else generator.device
    return (torch.rand(num, generator=generator, device=place) < probability).to(device)


class TokenNetwork(nn.Module):
    """Ids and a condition to features (N, L, E): MaskGIT's bidirectional transformer, arXiv 2202.04200, section 3.

    An id is the sum of its digits' embeddings; the mask id has a row of its own in each table. A linear map of the
    position's cosines and sines is added: where every token is masked all values are equal, and rotation or a bias on
    the scores alone could not tell one place from another.
    """

    def __init__(self, config: TokenNetworkConfig) -> None:
        super().__init__()
        self.config = config
        levels, stack = config.vocabulary.levels, config.stack
        self.embed = nn.Embedding(sum(levels) + len(levels), config.feature_dim)
        self.groups: TokenGroups | None = None
        if config.is_grouped:
            self.groups = TokenGroups(group=config.group, token_dim=config.feature_dim, dim=stack.dim)
        self.neighbours: Neighbours | None = None
        if config.local_dim is not None:
            self.neighbours = Neighbours(
                token_dim=config.feature_dim,
                hidden_dim=config.local_dim,
                depth=config.local_depth,
                windows=config.local_windows,
            )
        extents = coarser(config.extents, config.group)
        self.rotary = Rotary(
            head_dim=stack.head_dim, max_extents=extents, num_bands=_bands(stack.head_dim // 2, extents)
        )
        self.place = nn.Linear(stack.head_dim, stack.dim, bias=False)
        self.bias = ContinuousBias(num_heads=stack.num_heads) if config.positions == "bias" else None
        if config.num_classes is not None:
            self.label = nn.Embedding(config.num_classes + 1, stack.dim)
            drawn(self.label.weight, std=_START)
        if config.context_dim is not None:
            self.null_D = nn.Parameter(torch.empty(config.context_dim))
            drawn(self.null_D, std=_START)
        self.stack = Transformer(config.transformer())
        drawn(self.embed.weight, std=_START)
        drawn(self.place.weight, std=_START * (stack.head_dim / 2) ** -0.5)

    def prepare(self, condition: Condition | None, *, num: int, is_null_N: Tensor, guided: bool = False) -> Prepared:
        """A condition of 1 or ``num`` rows, and which of the N rows are told nothing -> ``Prepared``.

        With ``guided`` the first ``num`` rows are told it, and as many after them nothing.
        """
        self._check(condition)
        repeats = len(is_null_N) // num
        if condition is not None:
            condition = condition.to(self.embed.weight.device).rows(num)
        labels_N1D = self._labels(condition, is_null_N, repeats)
        if guided and self.config.context_dim is not None:
            return Prepared(num, True, self._guided_keys(condition, num), None, labels_N1D)
        context_NSD, mask_NS = self._context(condition, is_null_N, repeats)
        keys = None if context_NSD is None else self.stack.keys_of(context_NSD)
        return Prepared(num, guided, keys, _needed(mask_NS), labels_N1D)

    def _guided_keys(self, condition: Condition | None, num: int) -> tuple[Context, ...]:
        """Text for the first rows, the learned vector once for the others: they need no queries."""
        null_N1D = self.null_D.expand(num, 1, -1)
        told_NSD, mask_NS = null_N1D, None
        if condition is not None and condition.context_BSD.shape[1]:
            told_NSD, mask_NS = condition.context_BSD.to(self.null_D.dtype), _needed(condition.valid_mask_BS)
        both = zip(self.stack.keys_of(told_NSD), self.stack.keys_of(null_N1D))
        return tuple((ContextPart(told, mask_NS), ContextPart(null)) for told, null in both)

    def forward(
        self,
        ids_BL: Tensor,
        *,
        grid: Grid,
        prepared: Prepared,
        valid_mask: Tensor | None = None,
        generator: torch.Generator | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """(B, L) ids in [0, K] -> (N, L, E), E the ``feature_dim``; anything where not ``wanted``, bool (B, L)."""
        self._check_ids(ids_BL, grid, prepared.num)
        x_BLE = self._embedded(ids_BL)
        if self.groups is None:
            return self._features(x_BLE, grid, prepared, valid_mask, generator, wanted)
        if valid_mask is not None:
            x_BLE = x_BLE * valid_mask[..., None]  # padding in a box is as a box that is part empty
        valid_BP, wanted_BP = (None if mask is None else self.groups.any(mask, grid) for mask in (valid_mask, wanted))
        coarse = self.groups.grid(grid)
        features_NPD = self._features(self.groups(x_BLE, grid), coarse, prepared, valid_BP, generator, wanted_BP)
        features_NLE = self.groups.spread(features_NPD, grid)
        if self.neighbours is None:
            return features_NLE
        found_NLE: Tensor = self.neighbours(features_NLE, x_BLE, grid, wanted)
        return found_NLE

    def _features(
        self,
        x_NLD: Tensor,
        grid: Grid,
        prepared: Prepared,
        valid_mask: Tensor | None,
        generator: torch.Generator | None,
        wanted: Tensor | None,
    ) -> Tensor:
        """(B, L, D) without their places -> (N, L, D); 0 where not ``wanted``."""
        rotation = self.rotary(grid_positions(grid.t, grid.h, grid.w, device=x_NLD.device))
        place_Lf = torch.cat([rotation.cos_Lf, rotation.sin_Lf], dim=-1)
        x_NLD = x_NLD + self.place(place_Lf)
        is_shared = prepared.guided and prepared.label_N1D is None  # equal rows up to the first look at the text
        if prepared.guided:
            x_NLD = x_NLD if is_shared else x_NLD.repeat(2, 1, 1)
            valid_mask = None if valid_mask is None else valid_mask.repeat(2, 1)
        if prepared.label_N1D is not None:
            x_NLD = x_NLD + prepared.label_N1D
        places_NM = None if wanted is None else _places(wanted.repeat(2, 1) if prepared.guided else wanted)
        features_NLD: Tensor = self.stack(
            x_NLD,
            rotary=rotation if self.bias is None else None,
            bias=None if self.bias is None else self.bias((grid.t, grid.h, grid.w)),
            valid_mask=valid_mask,
            context=prepared.keys,
            context_mask=prepared.context_mask,
            generator=generator,
            between=self._between(is_shared, places_NM) if is_shared or places_NM is not None else None,
        )
        if places_NM is None:
            return features_NLD
        whole_NLD = features_NLD.new_zeros(len(features_NLD), grid.num_cells, features_NLD.shape[2])
        return whole_NLD.scatter(1, places_NM[..., None].expand(-1, -1, whole_NLD.shape[2]), features_NLD)

    def _between(self, is_shared: bool, places_NM: Tensor | None) -> Callable[[int, Tensor], Tensor]:
        """What is left out of the blocks: equal rows in the first self-attention, tokens not wanted after the last."""
        last = len(self.stack.blocks) - 1

        def between(block: int, x_NLD: Tensor) -> Tensor:
            if is_shared and block == 0:
                x_NLD = x_NLD.repeat(2, 1, 1)
            if places_NM is not None and block == last:
                x_NLD = x_NLD.gather(1, places_NM[..., None].expand(-1, -1, x_NLD.shape[2]))
            return x_NLD

        return between

    def _embedded(self, ids_BL: Tensor) -> Tensor:
        vocabulary = self.config.vocabulary
        digits_BLF = vocabulary.split(ids_BL)
        if digits_BLF.shape[-1] == 1:
            single_BLD: Tensor = self.embed(digits_BLF[..., 0])
            return single_BLD
        starts = [sum(vocabulary.levels[:dim]) + dim for dim in range(len(vocabulary.levels))]
        summed_BLD: Tensor = self.embed(digits_BLF + torch.tensor(starts, device=ids_BL.device)).sum(-2)
        return summed_BLD

    def _context(
        self, condition: Condition | None, is_null_N: Tensor, repeats: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """(N, S, context_dim) and (N, S): rows that are told nothing attend to the learned vector S times over.

        Equal keys share the weight evenly, so S copies are worth one, and a batch of both kinds needs no padding.
        """
        if self.config.context_dim is None:
            return None, None
        is_null_N11 = is_null_N[:, None, None]
        if condition is None or not condition.context_BSD.shape[1]:
            return self.null_D.expand(len(is_null_N), 1, -1), None
        context_NSD = condition.context_BSD.to(self.null_D.dtype).repeat(repeats, 1, 1)
        mask_NS = condition.valid_mask_BS.repeat(repeats, 1)
        return torch.where(is_null_N11, self.null_D, context_NSD), mask_NS | is_null_N[:, None]

    def _labels(self, condition: Condition | None, is_null_N: Tensor, repeats: int) -> Tensor | None:
        """(N, 1, D): each row's label; the last row of the table stands for none."""
        num_classes = self.config.num_classes
        if num_classes is None:
            return None
        labels_N = torch.full_like(is_null_N, num_classes, dtype=torch.int64)
        if condition is not None and condition.labels_B is not None:
            labels_N = torch.where(is_null_N, labels_N, condition.labels_B.repeat(repeats))
        found_N1D: Tensor = self.label(labels_N)[:, None]
        return found_N1D

    def _check(self, condition: Condition | None) -> None:
        if condition is None:
            return
        width, num_text = condition.context_BSD.shape[2], condition.context_BSD.shape[1]
        if num_text and width != self.config.context_dim:
            wanted = "no text" if self.config.context_dim is None else f"text states {self.config.context_dim} wide"
            raise InputError(f"this model reads {wanted}, got states {width} wide; is it another text encoder?")
        labels_B, num_classes = condition.labels_B, self.config.num_classes
        if labels_B is None:
            return
        if num_classes is None:
            raise InputError("this model knows no class labels; leave labels out")
        if labels_B.device.type == "cpu" and ((labels_B < 0) | (labels_B >= num_classes)).any():
            raise InputError(f"labels must lie in [0, {num_classes}), got {labels_B.tolist()}")

    def _check_ids(self, ids_BL: Tensor, grid: Grid, num: int) -> None:
        if ids_BL.shape != (num, grid.num_cells):
            raise InputError(
                f"expected ids of shape {(num, grid.num_cells)} for {num} videos on the grid {grid}, "
                f"got {tuple(ids_BL.shape)}"
            )
        self.config.vocabulary.check_ids(ids_BL)


def _places(wanted_NL: Tensor) -> Tensor:
    """(N, M) int64: the tokens of each row that are wanted, M of the row that wants most; others fill the rest."""
    most = int(wanted_NL.sum(1).max())
    return wanted_NL.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[:, :most]


def _needed(mask_NS: Tensor | None) -> Tensor | None:
    """A mask, or None where it hides nothing, as far as that is known without waiting for a device."""
    return None if mask_NS is None or (mask_NS.device.type == "cpu" and bool(mask_NS.all())) else mask_NS


def _bands(total: int, extents: tuple[int, int, int]) -> tuple[int, ...]:
    """Rotary bands of each axis: shared evenly by those longer than 1."""
    long = [axis for axis in range(3) if extents[axis] > 1] or [2]
    shares = [total // len(long) + (place < total % len(long)) for place in range(len(long))]
    return tuple(shares[long.index(axis)] if axis in long else 0 for axis in range(3))
