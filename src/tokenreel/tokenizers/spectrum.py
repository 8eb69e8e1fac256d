"""A start for tokens without a grid: each says a few cosines of the whole clip, the strongest first.

A row of tokens that start at random learns nothing for thousands of steps. Here token 0 starts as the mean colour and
the slowest waves, token 1 as the next ones, in the order of their variance over real clips: a transform codec of the
whole clip, of which every prefix is a picture. Attention then improves on it. Where a wave's variance is so large that
what one number's levels leave of it outweighs the next wave, a later number codes that rest (reverse water-filling,
Cover and Thomas, Elements of Information Theory, section 10.3.3).

Clips differ in which waves are strong: some stand still, some have fine patterns. With several kinds, each kind has an
order of its own, the first numbers of token 0 say the kind, and a clip takes the kind that tells it best (classified
transform coding, Gersho and Gray, Vector Quantization and Signal Compression, section 8.6).

Tokenizers give it pixels, not patches: waves over patches would leave steps at every border of a patch.

Letters: B clips, N cells (t*h*w; pixels, in the tokenizers), P values of a cell (3 colours), G channels of a cell,
M kinds, Q tokens, E codebook_dim, X values of all waves (waves times channels) or all numbers (Q times E).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.nn.positions import GridSize
from tokenreel.quantize import FSQ, Quantizer

from .spectrum_fit import MOST_WAVES, fitted, numbers_in_order

__all__ = ["Spectrum"]

_JUDGED_BY = 64  # tokens: what they tell of a clip chooses its kind, so that shorter rows stay prefixes


class _Tables(NamedTuple):
    """What each number says: (kinds, Q, E) each, or (B, Q, E) for every clip of a batch."""

    inward: Tensor
    outward: Tensor
    place: Tensor
    before: Tensor
    depth: Tensor

    def of(self, kind_B: Tensor, count: int) -> _Tables:
        """Of the first ``count`` tokens of clips of these kinds."""
        return _Tables(*(table[:, :count][kind_B] for table in self))


class Spectrum(nn.Module):
    """Cells to the linear part of the first Q tokens' latents, and their codes back to cells.

    wave f of channel g: c_fg = mean over cells n of phi_f(n) (A x_n + a)_g, phi_f a product of cosines (DCT-II) of
    mean square 1, so that c does not depend on the number of cells; x_n = B sum_f c_fg phi_f(n) + b. Number e of
    token q holds wave ``place_MQE`` of a box of ``MOST_WAVES`` waves, or what earlier numbers leave of it (those that
    code the same wave, in order), times ``inward_MQE``. A place of -1 says nothing.

    Starts at zero, where it adds nothing; ``start`` fits it to clips. Tokens past Q get nothing.

    Args:
        kinds: M, 1 or the product of the first few levels of the quantizer.
    """

    place_MQE: Tensor

    def __init__(
        self, *, num_tokens: int, channels: int, cell_values: int, quantizer: Quantizer, kinds: int = 1
    ) -> None:
        super().__init__()
        if not isinstance(quantizer, FSQ):
            raise InputError("a spectral start needs FSQ, whose numbers are quantized one by one")
        if quantizer.config.noise + quantizer.config.skip > 0:
            raise InputError("a spectral start needs FSQ without noise and skip: later numbers code what earlier leave")
        if min(num_tokens, channels) < 1:
            raise InputError(f"a spectrum needs at least 1 of tokens and channels, got {num_tokens}, {channels}")
        if channels > cell_values:
            raise InputError(f"channels of a spectrum are at most the {cell_values} values of a cell, got {channels}")
        levels = quantizer.config.levels
        products = [math.prod(levels[:count]) for count in range(len(levels))]
        if kinds not in products:
            some = ", ".join(str(product) for product in products)
            raise InputError(f"kinds of a spectrum are told by whole numbers of a token: one of {some}, got {kinds}")
        width = quantizer.codebook_dim
        self.num_tokens, self.channels, self.kinds = num_tokens, channels, kinds
        self.num_kind_numbers = products.index(kinds)
        self.analyse = nn.Linear(cell_values, channels)
        self.synthesise = nn.Linear(channels, cell_values)
        self.inward_MQE = nn.Parameter(torch.zeros(kinds, num_tokens, width))
        self.outward_MQE = nn.Parameter(torch.zeros(kinds, num_tokens, width))
        self.register_buffer("place_MQE", torch.full((kinds, num_tokens, width), -1, dtype=torch.int32))
        if not self.inward_MQE.is_meta:
            for layer in (self.analyse, self.synthesise):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def latents(self, cells_BNP: Tensor, more_BQE: Tensor, grid: GridSize, quantizer: Quantizer) -> Tensor:
        """Latents (B, L, E) of what attention says, ``more_BQE`` (B, L, E), and of the waves together, float32.

        The numbers that say a clip's kind hold nothing else.
        """
        assert isinstance(quantizer, FSQ)
        count = min(more_BQE.shape[1], self.num_tokens)
        box_BthwG = _waves(self.analyse(cells_BNP.to(self.analyse.weight.dtype)).unflatten(1, grid))
        waves_BX, box = box_BthwG.flatten(1), box_BthwG.shape[1:4]
        tables = self._tables(box, quantizer)
        kind_B = self._kind(waves_BX, tables, quantizer)
        latents, _, _ = _told(waves_BX, more_BQE[:, :count].float(), tables.of(kind_B, count), quantizer)
        if self.num_kind_numbers and count:
            digits_BE = quantizer.digits(kind_B)[:, None]  # digits of an id below K: those of the first numbers
            says_kind = torch.zeros_like(latents[:1], dtype=torch.bool)
            says_kind[:, 0, : self.num_kind_numbers] = (self.place_MQE >= 0).any()  # not before the start
            latents = torch.where(says_kind, quantizer.latents_of(digits_BE), latents)
        return torch.cat([latents, more_BQE[:, count:].float()], dim=1)

    def cells(self, codes_BQE: Tensor, grid: GridSize, quantizer: Quantizer) -> Tensor:
        """Codes (B, L, E) -> what they say of each cell, (B, N, P). A code of 0 says nothing."""
        assert isinstance(quantizer, FSQ)
        count, num_clips = min(codes_BQE.shape[1], self.num_tokens), len(codes_BQE)
        kind_B = torch.zeros(num_clips, dtype=torch.int64, device=codes_BQE.device)
        if self.num_kind_numbers and count:
            weights = [math.prod(quantizer.config.levels[:e]) for e in range(self.num_kind_numbers)]
            digits_BE = quantizer.digits_of_codes(codes_BQE[:, 0].detach())
            kind_B = (digits_BE[:, : self.num_kind_numbers] * torch.tensor(weights, device=digits_BE.device)).sum(1)
        t, h, w = (min(most, size) for most, size in zip(MOST_WAVES, grid))
        table = self._tables((t, h, w), quantizer, has_chains=False).of(kind_B, count)
        told_BX = (codes_BQE[:, :count].float() * table.outward).flatten(1)
        box_BX = told_BX.new_zeros(num_clips, t * h * w * self.channels)
        box_BX = box_BX.scatter_add(1, table.place.flatten(1), told_BX)
        values_BthwG = _values(rearrange(box_BX, "B (t h w G) -> B t h w G", t=t, h=h, w=w), grid)
        cells: Tensor = self.synthesise(rearrange(values_BthwG, "B t h w G -> B (t h w) G"))
        return cells

    @torch.no_grad()
    def start(self, clips: Iterable[tuple[Tensor, GridSize]], quantizer: Quantizer) -> None:
        """Fit to clips, taken one by one: cells (N, P) and the grid of each.

        Channels are the principal components of cells; waves are taken greedily by the variance that is left of
        them; the scale of each number is the one of a few that leaves the least error. Kinds begin as groups of clips
        with like variances, and clips then move to the kind that tells them best (Lloyd's algorithm).
        """
        assert isinstance(quantizer, FSQ)
        boxes: list[Tensor] = []
        count, sum_P, products_PP = 0, torch.tensor(0.0), torch.tensor(0.0)
        for cells_NP, grid in clips:
            wide_NP = cells_NP.double()
            count, sum_P, products_PP = count + len(wide_NP), sum_P + wide_NP.sum(0), products_PP + wide_NP.T @ wide_NP
            boxes.append(_waves(cells_NP.reshape(1, *grid, -1))[0].cpu())
        if not boxes:
            raise InputError("a spectral start needs at least one clip, got none")
        mean_P = (sum_P / count).to(self.analyse.weight)
        vectors_PP = torch.linalg.eigh(products_PP / count - torch.outer(sum_P, sum_P) / count**2)[1]
        basis_PG = vectors_PP.flip(1)[:, : self.channels].to(self.analyse.weight)
        self.analyse.weight.copy_(basis_PG.T)
        self.analyse.bias.copy_(-mean_P @ basis_PG)
        self.synthesise.weight.copy_(basis_PG)
        self.synthesise.bias.copy_(mean_P)
        most = tuple(max(box.shape[axis] for box in boxes) for axis in range(3))
        waves_CthwG = torch.zeros(len(boxes), *most, self.channels)
        for waves_thwG, box in zip(waves_CthwG, boxes):
            t, h, w, _ = box.shape
            waves_thwG[:t, :h, :w] = box @ basis_PG.cpu()
        waves_CthwG[:, 0, 0, 0] -= (mean_P @ basis_PG).cpu()
        for table, value in zip(
            (self.place_MQE, self.inward_MQE, self.outward_MQE),
            fitted(
                waves_CthwG, self.place_MQE.shape, quantizer, kind_numbers=self.num_kind_numbers, judged_by=_JUDGED_BY
            ),
        ):
            table.copy_(value)

    def _kind(self, waves_BX: Tensor, tables: _Tables, quantizer: FSQ) -> Tensor:
        """(B,) int64: the kind whose first tokens tell most of each clip."""
        kinds_B = torch.zeros(len(waves_BX), dtype=torch.int64, device=waves_BX.device)
        if self.kinds == 1:
            return kinds_B
        gains = []
        with torch.no_grad():
            for kind in range(self.kinds):
                table = tables.of(kinds_B + kind, min(self.num_tokens, _JUDGED_BY))
                _, rest, told = _told(waves_BX, torch.zeros_like(table.inward), table, quantizer)
                # What a number tells takes rest^2 - (rest - told)^2 from the squared error.
                gains.append((told * (2 * rest - told)).double().sum((1, 2)))
        return torch.stack(gains).argmax(0)

    def _tables(self, box: Sequence[int], quantizer: FSQ, *, has_chains: bool = True) -> _Tables:
        """What the numbers of each kind say of clips that have ``box`` waves along t, h and w.

        ``has_chains``: with ``before`` and ``depth``, which only the way in needs.
        """
        t, h, w, g = torch.unravel_index(self.place_MQE.long().clamp(min=0), (*MOST_WAVES, self.channels))
        fits = (self.place_MQE >= 0) & (t < box[0]) & (h < box[1]) & (w < box[2])
        index = (((t * box[1] + h) * box[2] + w) * self.channels + g) * fits
        before, depth = _chains(self.place_MQE, numbers_in_order(quantizer)) if has_chains else (index, index)
        return _Tables(self.inward_MQE * fits, self.outward_MQE * fits, index, before, depth)


def _told(waves_BX: Tensor, more_BQE: Tensor, table: _Tables, quantizer: Quantizer) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, what is left of each number's wave before it, and what it tells of that: (B, Q, E) each."""
    rest = _taken(waves_BX, table.place)
    latents = more_BQE + table.inward * rest
    told = quantizer(latents).codes * table.outward
    for step in range(1, int(table.depth.max()) + 1 if table.depth.numel() else 0):
        is_step = table.depth == step
        rest = torch.where(is_step, _taken(rest - told, table.before), rest)
        latents = torch.where(is_step, more_BQE + table.inward * rest, latents)
        told = quantizer(latents).codes * table.outward
    return latents, rest, told


def _taken(values: Tensor, index_BQE: Tensor) -> Tensor:
    return values.flatten(1).gather(1, index_BQE.flatten(1)).view(index_BQE.shape)


def _chains(place_MQE: Tensor, order_E: Sequence[int]) -> tuple[Tensor, Tensor]:
    """For each number, the one (q * E + e) that told the same wave before it, and how many did: (M, Q, E) int64.

    Numbers follow each other token by token, within one in ``order_E``.
    """
    _, num_tokens, width = place_MQE.shape
    device = place_MQE.device
    order_X = (
        torch.arange(num_tokens, device=device)[:, None] * width + torch.tensor(order_E, device=device)
    ).flatten()
    places, sorted_MX = place_MQE.flatten(1)[:, order_X].sort(dim=1, stable=True)
    at_X = torch.arange(places.shape[1], device=device)
    is_first = torch.ones_like(places, dtype=torch.bool)
    is_first[:, 1:] = (places[:, 1:] != places[:, :-1]) | (places[:, 1:] < 0)
    depths = at_X - torch.where(is_first, at_X, 0).cummax(1).values
    numbers = order_X[sorted_MX]
    before, depth = torch.zeros_like(numbers), torch.zeros_like(numbers)
    before.scatter_(1, numbers, numbers.roll(1, 1))
    depth.scatter_(1, numbers, depths)
    return before.view(place_MQE.shape) * (depth > 0).view(place_MQE.shape), depth.view(place_MQE.shape)


def _waves(values_BthwG: Tensor) -> Tensor:
    """The slowest waves along each axis, at most ``MOST_WAVES``: means of products with cosines."""
    for axis in (3, 2, 1):  # the longest rows last would cost more
        size = values_BthwG.shape[axis]
        table = _cosines(size, values_BthwG.device)[: MOST_WAVES[axis - 1]]
        values_BthwG = torch.tensordot(values_BthwG, table / size, dims=([axis], [1])).movedim(-1, axis)
    return values_BthwG


def _values(box_BthwG: Tensor, grid: GridSize) -> Tensor:
    """Sums of cosines over a grid, of the waves in a box."""
    for axis in (1, 2, 3):
        table = _cosines(grid[axis - 1], box_BthwG.device)[: box_BthwG.shape[axis]]
        box_BthwG = torch.tensordot(box_BthwG, table, dims=([axis], [0])).movedim(-1, axis)
    return box_BthwG


@lru_cache(maxsize=64)
def _cosines(size: int, device: torch.device) -> Tensor:
    """(waves, size): the first DCT-II rows of mean square 1, as many as are ever used."""
    with torch.inference_mode(False), torch.no_grad():
        waves = torch.arange(min(size, max(MOST_WAVES)), device=device, dtype=torch.float64)[:, None]
        table = torch.cos(math.pi * (torch.arange(size, device=device) + 0.5) * waves / size)
        table[1:] *= math.sqrt(2)
        return table.float()
