"""ViViT on a tokenizer's ids: code embeddings in the place of tubelets, the same four models, the same heads.

Letters: B batch, t h w grid, L tokens of a clip, D dim, E = len(levels).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError, MismatchError
from tokenreel.nn.initial import drawn
from tokenreel.nn.positions import GridSize
from tokenreel.types import Tokens

from .classifier import Classifier
from .logits import Heads, Logits
from .vivit_config import EncoderConfig
from .vivit_encoders import ENCODERS

__all__ = ["CodeEmbed", "TokenViViT", "TokenViViTConfig"]

TokenLayout = Literal["grid", "queries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenViViTConfig(EncoderConfig):
    """Configuration of ``TokenViViT``; ``reading`` makes one from an example of the tokens.

    Attributes:
        made_by: family of the tokenizer, for messages.
        made_by_fingerprint: its fingerprint; ids of another tokenizer mean other things and are refused.
        layout: ``grid`` or ``queries``.
        grid: (t, h, w) that the positions are made for. Queries are (1, 1, L), or (t, 1, Q) where every step has its
            own row of Q.
        codebook_size: K.
        levels: None gives each id a vector of its own. FSQ levels (their product is K) give one to each value of each
            dimension, and an id the sum of its own: small where the codebook is large.
    """

    made_by: str
    made_by_fingerprint: str
    layout: TokenLayout
    grid: GridSize
    codebook_size: int
    levels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        object.__setattr__(self, "grid", tuple(self.grid))
        if self.levels is not None:
            object.__setattr__(self, "levels", tuple(self.levels))
        if self.layout not in get_args(TokenLayout):
            raise InputError(f"layout must be one of {', '.join(get_args(TokenLayout))}, got {self.layout!r}")
        if len(self.grid) != 3 or any(type(count) is not int or count < 1 for count in self.grid):
            raise InputError(f"grid must be whole (t, h, w) of at least 1, got {self.grid}")
        if self.layout == "queries" and self.grid[1] != 1:
            raise InputError(f"queries are rows: their grid is (t, 1, Q), got {self.grid}")
        if type(self.codebook_size) is not int or self.codebook_size < 2:
            raise InputError(f"codebook_size must be a whole number of at least 2, got {self.codebook_size!r}")
        if self.levels is not None and math.prod(self.levels) != self.codebook_size:
            raise InputError(f"levels {self.levels} make {math.prod(self.levels)} codes, not {self.codebook_size}")

    @classmethod
    def reading(cls, tokens: Tokens, *, rows: bool = False, **fields: Any) -> TokenViViTConfig:
        """The configuration that reads tokens like these; ``fields`` are the rest (model, encoder, heads, ...).

        Args:
            tokens: an example, as long as they come.
            rows: of queries, every step of the grid has its own (TiTok codes frame by frame).
            fields: of ``TokenViViTConfig``.
        """
        if tokens.layout not in get_args(TokenLayout):
            raise MismatchError(f"a classifier reads tokens of layout grid or queries, these are {tokens.layout}")
        grid = (tokens.grid.t, tokens.grid.h, tokens.grid.w)
        if tokens.layout == "queries":
            grid = _row_grid(tokens, grid[0] if rows else 1)
        return cls(
            made_by=tokens.tokenizer,
            made_by_fingerprint=tokens.fingerprint,
            layout=cast(TokenLayout, tokens.layout),
            grid=grid,
            codebook_size=tokens.codebook_size,
            **fields,
        )


class CodeEmbed(nn.Module):
    """A learned vector an id, or the sum of one for each of its FSQ digits: (...) -> (..., D).

    Digits count the first dimension fastest, as ``quantize.FSQ`` does.
    """

    def __init__(self, *, codebook_size: int, levels: tuple[int, ...] | None, dim: int) -> None:
        super().__init__()
        self.codebook_size, self.levels = codebook_size, levels
        rows = codebook_size if levels is None else sum(levels)
        self.table_KD = nn.Parameter(torch.empty(rows, dim))
        drawn(self.table_KD, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) int64 -> (..., D)."""
        if ids.numel():
            low, high = (int(end) for end in ids.aminmax())
            if low < 0 or high >= self.codebook_size:
                raise InputError(f"ids must lie in [0, {self.codebook_size}), found {low if low < 0 else high}")
        if self.levels is None:
            return F.embedding(ids, self.table_KD)
        rows, rest = [], ids
        for level, first in zip(self.levels, accumulate(self.levels, initial=0)):
            rows.append(rest % level + first)
            rest = rest // level
        rows_E = torch.stack(rows, dim=-1)
        summed_D: Tensor = F.embedding_bag(rows_E.view(-1, len(self.levels)), self.table_KD, mode="sum")
        return summed_D.view(*ids.shape, -1)


class TokenViViT(Classifier):
    """Ids to labels: the models of ViViT (arXiv 2103.15691) over the codes of a tokenizer, without its pixels.

    Clips of different grids and lengths make one batch; padding changes no logit.
    """

    name = "token_vivit"
    config_type = TokenViViTConfig
    sizes: ClassVar[Mapping[str, TokenViViTConfig]] = {}
    summary = "A video classifier that reads a tokenizer's ids."
    papers = ("2103.15691",)
    config: TokenViViTConfig

    def __init__(self, config: TokenViViTConfig) -> None:
        super().__init__(config)
        dim = config.encoder.dim
        self.embed = CodeEmbed(codebook_size=config.codebook_size, levels=config.levels, dim=dim)
        prefix = (0,) if config.layout == "grid" else (0, 2)
        self.encoder = ENCODERS[config.model](config, config.grid, prefix)
        self.out = Heads(dim=dim, heads=config.heads)

    def forward(
        self,
        ids: Sequence[Tensor] | Tensor,
        grids: Sequence[GridSize] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Logits:
        """Ids -> head name -> (B, classes).

        Args:
            ids: (B, t, h, w); or one (L,) a clip, row-major in (t, h, w).
            grids: with a list, (t, h, w) of each clip; None takes each as one row, (1, 1, L).
            generator: draws what ``drop_path`` drops in training; None takes torch's own.
        """
        ids_Bthw, own = (ids, None) if isinstance(ids, Tensor) else self._padded(ids, grids)
        if ids_Bthw.ndim != 4 or 0 in ids_Bthw.shape:
            raise InputError(f"expected ids (B, t, h, w), or a list of (L,), got shape {tuple(ids_Bthw.shape)}")
        longest = ids_Bthw.shape[3] if own is None else max(grid[2] for grid in own)
        if self.config.layout == "queries" and longest > self.config.grid[2]:
            raise InputError(f"rows of {longest} ids are longer than the {self.config.grid[2]} that positions are for")
        logits: Logits = self.out(self.encoder(self.embed(ids_Bthw.long()), own, generator=generator))
        return logits

    def batch_of(self, tokens: Sequence[Tokens]) -> tuple[list[Tensor], list[GridSize]]:
        """Tokens -> ids and grids for ``forward``, on this device; MismatchError if another tokenizer made them."""
        if not len(tokens):
            raise InputError("batch_of needs the tokens of at least one clip, got none")
        for item in tokens:
            self._check(item)
        grids = [
            (item.grid.t, item.grid.h, item.grid.w)
            if item.layout == "grid"
            else _row_grid(item, item.grid.t if self.config.grid[0] > 1 else 1)
            for item in tokens
        ]
        return [torch.from_numpy(item.ids_L.astype(np.int64)).to(self.device) for item in tokens], grids

    def predict(self, tokens: Sequence[Tokens]) -> Logits:
        """Tokens -> ``Logits`` on the CPU, in eval mode and without gradients."""
        ids, grids = self.batch_of(tokens)
        with self.running():
            logits = self(ids, grids)
        return Logits(logits.heads, tuple(score_BC.float().cpu() for score_BC in logits.scores))

    def card_rows(self) -> Mapping[str, str]:
        """What ids it reads, and one row a head."""
        config = self.config
        made_by = f"{config.made_by} `{config.made_by_fingerprint[:12]}`"
        return {"reads": f"{config.layout} ids of {config.codebook_size:,} by {made_by}", **super().card_rows()}

    def _check(self, tokens: Tokens) -> None:
        config = self.config
        if tokens.fingerprint != config.made_by_fingerprint:
            raise MismatchError(
                f"these tokens were made by {tokens.tokenizer} {tokens.fingerprint[:12]}, this classifier reads those "
                f"of {config.made_by} {config.made_by_fingerprint[:12]}"
            )
        if (tokens.layout, tokens.codebook_size) != (config.layout, config.codebook_size):
            raise MismatchError(
                f"these tokens are {tokens.layout} ids of {tokens.codebook_size}, this classifier reads "
                f"{config.layout} ids of {config.codebook_size}"
            )

    def _padded(self, ids: Sequence[Tensor], grids: Sequence[GridSize] | None) -> tuple[Tensor, list[GridSize] | None]:
        """(B, t, h, w) with zeros past each clip's own grid, and these grids; None if they are all the same."""
        if not len(ids):
            raise InputError("forward needs the ids of at least one clip, got none")
        own = [(1, 1, one.numel()) for one in ids] if grids is None else [(t, h, w) for t, h, w in grids]
        lengths, cells = [tuple(one.shape) for one in ids], [(math.prod(grid),) for grid in own]
        if lengths != cells:
            raise InputError(f"ids must be (t*h*w,) for each grid, got shapes {lengths} for grids {own}")
        most = cast(GridSize, tuple(max(grid[axis] for grid in own) for axis in range(3)))
        padded = []
        for one, (t, h, w) in zip(ids, own):
            padded.append(F.pad(one.view(t, h, w), (0, most[2] - w, 0, most[1] - h, 0, most[0] - t)))
        return torch.stack(padded), None if all(grid == most for grid in own) else own


def _row_grid(tokens: Tokens, num_rows: int) -> GridSize:
    """(t, 1, Q) of 1-D tokens in equal rows."""
    if tokens.num_tokens % num_rows or not tokens.num_tokens:
        raise MismatchError(f"{tokens.num_tokens} tokens are no {num_rows} equal rows")
    return num_rows, 1, tokens.num_tokens // num_rows
