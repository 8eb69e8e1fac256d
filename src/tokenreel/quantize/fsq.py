"""Finite scalar quantization: round each of a few bounded numbers (arXiv 2309.15505). No codebook, no loss.

Letters: ... any leading axes, N tokens, E = len(levels), K = product of levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from tokenreel.errors import InputError

from .base import Quantized, Quantizer, check_whole
from .gradient import straight_through

__all__ = ["FSQ", "FSQConfig"]

_MARGIN = 1e-3  # the bound reaches this share past the outermost level, so that both ends can be reached


@dataclass(frozen=True, slots=True, kw_only=True)
class FSQConfig:
    """Configuration of ``FSQ``.

    Attributes:
        levels: number of values of each dimension, even or odd; 2 only with ``symmetric``. Ids count the first
            dimension fastest.
        symmetric: codes at -1, ..., 1 with equal steps also for even levels (arXiv 2411.19842, section 3.2), instead of
            the paper's -1, ..., 1 - 2 / L, which hold 0.
        noise: share of tokens that get, in training, the bounded latent plus uniform noise of one step
            instead of its rounding (arXiv 2411.19842, section 3.2).
        skip: share of tokens that get, in training, the bounded latent itself.
    """

    levels: tuple[int, ...]
    symmetric: bool = False
    noise: float = 0.0
    skip: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if not self.levels:
            raise InputError("FSQConfig.levels must hold at least one number of levels, got none")
        for level in self.levels:
            check_whole("FSQConfig", "levels", level, 2)
        if 2 in self.levels and not self.symmetric:
            raise InputError(f"FSQConfig.levels {self.levels} has a 2, which needs symmetric=True (or use 3)")
        if max(self.levels) > 1 << 20 or math.prod(self.levels) >= 1 << 53:
            raise InputError(
                f"FSQConfig.levels must be at most {1 << 20} each, their product below 2^53, got {self.levels}"
            )
        if min(self.noise, self.skip) < 0 or self.noise + self.skip > 1:
            raise InputError(
                f"FSQConfig.noise and skip must be shares with a sum of at most 1, got {self.noise} and {self.skip}"
            )


class FSQ(Quantizer):
    """(..., E) -> codes (..., E) in [-1, 1], ids (...), no losses.

    arXiv 2309.15505, section 3.1 and appendix A: bound each latent to its L levels by
    f(z) = tanh(z + s) h - o with h = (L - 1)(1 + 1e-3) / 2, o = 1/2 for even L else 0, s = artanh(o / h), so that
    f(0) = 0; digit = round(f(z)) + floor(L / 2); code = round(f(z)) / floor(L / 2); straight-through in the rounding.
    (The appendix has tan for artanh and a narrower bound, which never reaches the ends of more than 1,000 levels.)
    With ``symmetric``, f(z) = (tanh(z) + 1)(L - 1) / 2, code = 2 round(f(z)) / (L - 1) - 1.

    Everything follows from whole numbers kept as int64: casting the module to bf16 changes no id.
    """

    levels_E: Tensor

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_dim = len(config.levels)
        self.codebook_size = math.prod(config.levels)
        # On the CPU even where the module is made on the meta device: the buffer is in no file that would fill it.
        self.register_buffer("levels_E", torch.tensor(config.levels, device="cpu"), persistent=False)

    def _quantize(self, latents: Tensor, valid_mask: Tensor | None, generator: torch.Generator | None) -> Quantized:
        # One row a dimension: a row of N is worked on by vector instructions, a row of E = 5 is not.
        bounded = self._bounded(rearrange(latents, "... E -> E (...)").contiguous())
        with torch.no_grad():
            digits = bounded.round()
            if max(self.config.levels) > 1000:  # the margin of 1e-3 then reaches half a level or more
                lowest = self._lowest(digits)
                digits = digits.clamp(lowest, lowest + (self.levels_E - 1)[:, None].to(digits))
            codes, ids = self._scaled(digits), self._ids(digits)
        if bounded.requires_grad:
            codes = straight_through(self._scaled(bounded), codes)
        if self.training and self.config.noise + self.config.skip > 0:
            codes = self._disturbed(codes, bounded, generator)
        return Quantized(codes.t().contiguous().view(latents.shape), ids.view(latents.shape[:-1]), {})

    def digits(self, ids: Tensor) -> Tensor:
        """(...) -> (..., E) int64, the level of each dimension in [0, L): ids as a number in mixed base."""
        digits, rest = [], ids.long()
        for level in self.config.levels:
            digits.append(rest % level)
            rest = rest // level
        return torch.stack(digits, -1)

    def digits_of_codes(self, codes: Tensor) -> Tensor:
        """(..., E) -> (..., E) int64, the level in [0, L) that each code is, or is nearest to."""
        levels = self.levels_E.to(codes.dtype)
        scaled = (codes + 1) * ((levels - 1) / 2) if self.config.symmetric else codes * (levels // 2) + levels // 2
        return scaled.round().long().clamp(min=0).minimum(self.levels_E - 1)

    def latents_of(self, digits: Tensor) -> Tensor:
        """(..., E) levels in [0, L) -> (..., E) float32 latents in the middle of what is quantized to them."""
        levels, digits = self.levels_E.float(), digits.float()
        inside = 0.25  # of a step: outermost levels are reached where tanh is flat
        digits = digits.clamp(min=inside).minimum(levels - 1 - inside)
        if self.config.symmetric:
            return torch.atanh(digits / ((levels - 1) / 2) - 1)
        half = (levels - 1) * (1 + _MARGIN) / 2
        offset = (1 - levels % 2) / 2
        return torch.atanh((digits - levels // 2 + offset) / half) - torch.atanh(offset / half)

    def _codes(self, ids: Tensor) -> Tensor:
        rest, digits = ids.flatten(), []
        for level in self.config.levels[:-1]:
            quotient = rest // level
            digits.append(rest - quotient * level)
            rest = quotient
        digits_EN = torch.stack([*digits, rest]).float()
        return self._scaled(digits_EN + self._lowest(digits_EN)).t().contiguous().view(*ids.shape, self.codebook_dim)

    def _bounded(self, latents_EN: Tensor) -> Tensor:
        """(E, N): latents squeezed so that rounding gives one of L whole numbers."""
        levels = self.levels_E[:, None].to(latents_EN.dtype)
        if self.config.symmetric:
            half = (levels - 1) / 2
            return latents_EN.tanh() * half + half
        half = (levels - 1) * (1 + _MARGIN) / 2
        offset = (1 - levels % 2) / 2
        return (latents_EN + torch.atanh(offset / half)).tanh() * half - offset

    def _lowest(self, like_EN: Tensor) -> Tensor:
        """(E, 1): the whole number that digit 0 stands for."""
        lowest: Tensor = self.levels_E * 0 if self.config.symmetric else -(self.levels_E // 2)
        return lowest[:, None].to(like_EN.dtype)

    def _scaled(self, values_EN: Tensor) -> Tensor:
        """(E, N) on the scale of the levels -> the scale of the codes."""
        levels = self.levels_E[:, None].to(values_EN.dtype)
        # Division, not a product with the inverse, in forward and codes(ids) alike: bit-equal codes.
        if self.config.symmetric:
            return values_EN / ((levels - 1) / 2) - 1
        return values_EN / (levels // 2)

    def _ids(self, digits_EN: Tensor) -> Tensor:
        """(E, N) whole numbers from ``_lowest`` on -> (N,) int64; exact, as floats hold whole numbers to 2^24 or 2^53.

        Row by row, not as a product with the basis, which a device may take in tf32.
        """
        digits = digits_EN.double() if self.codebook_size > 1 << 24 else digits_EN
        ids, offset = digits[-1], -self._half(-1)
        for dim in reversed(range(self.codebook_dim - 1)):
            level = self.config.levels[dim]
            ids, offset = ids * level + digits[dim], offset * level - self._half(dim)
        return (ids - offset).long()

    def _half(self, dim: int) -> int:
        return 0 if self.config.symmetric else self.config.levels[dim] // 2

    def _disturbed(self, codes_EN: Tensor, bounded_EN: Tensor, generator: torch.Generator | None) -> Tensor:
        device = codes_EN.device
        draw_N = torch.rand(codes_EN.shape[1], generator=generator, device=device)
        noise_EN = torch.rand(codes_EN.shape, generator=generator, device=device).to(codes_EN.dtype) - 0.5
        noise_share, open_share = self.config.noise, self.config.noise + self.config.skip
        codes_EN = torch.where(draw_N < open_share, self._scaled(bounded_EN), codes_EN)
        return torch.where(draw_N < noise_share, self._scaled(bounded_EN + noise_EN), codes_EN)
