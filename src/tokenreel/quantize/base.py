"""What every quantizer is: ``Quantized``, the ``Quantizer`` base, and means over the tokens that count.

Letters: ... any leading axes, E codebook_dim, K codebook_size, N tokens. ``valid_mask``: True = real.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError

__all__ = ["Quantized", "Quantizer", "check_whole", "masked_mean"]

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


class Quantized(NamedTuple):
    """Latents after quantizing.

    Attributes:
        codes: (..., E) what the decoder reads; float32 (float64 for float64 latents), equal to ``codes(ids)``.
        ids: (...) int64 in [0, codebook_size).
        aux_losses: scalars by name, already weighted: add them all to the loss. Empty in eval mode.
    """

    codes: Tensor
    ids: Tensor
    aux_losses: dict[str, Tensor]


class Quantizer(nn.Module):
    """Base of ``VQ``, ``FSQ`` and ``LFQ``: checks the shape, leaves autocast, computes in float32 or wider.

    Projections to and from ``codebook_dim`` belong to the tokenizers. Codes stay in float32 whatever dtype the
    latents had, since a code rounded to bf16 is another code; the model that reads them casts. NaN latents give
    NaN codes or arbitrary ids: the tokenizers refuse NaN pixels at their door.

    Attributes:
        codebook_size: K, ids lie in [0, K).
        codebook_dim: E, width of latents and codes.
    """

    codebook_size: int
    codebook_dim: int

    def forward(
        self, latents: Tensor, *, valid_mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Quantized:
        """(..., E) -> codes (..., E), ids (...), losses.

        Args:
            latents: (..., E), any float dtype.
            valid_mask: (...) bool; tokens that are False are quantized too, but count in no loss and no statistic.
            generator: source of the randomness that a quantizer uses in training, if any.
        """
        if latents.ndim < 1 or latents.shape[-1] != self.codebook_dim or not latents.is_floating_point():
            raise InputError(
                f"{type(self).__name__} expects float latents (..., {self.codebook_dim}), "
                f"got {latents.dtype} {tuple(latents.shape)}"
            )
        if valid_mask is not None and (valid_mask.dtype != torch.bool or valid_mask.shape != latents.shape[:-1]):
            raise InputError(
                f"valid_mask must be bool {tuple(latents.shape[:-1])}, got {valid_mask.dtype} {tuple(valid_mask.shape)}"
            )
        with torch.autocast(device_type=latents.device.type, enabled=False):
            full = latents if latents.dtype in (torch.float32, torch.float64) else latents.float()
            return self._quantize(full, valid_mask, generator)

    def codes(self, ids: Tensor) -> Tensor:
        """(...) any integer dtype -> (..., E) float32; InputError for ids out of range (checked on the CPU only)."""
        if ids.dtype not in _WHOLE:
            raise InputError(f"ids must be integers, got {ids.dtype}")
        ids = ids.long()
        # On other devices the check would wait for the device; there the ids come from Tokens, which checked them.
        if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
            low, high = (int(end) for end in ids.aminmax())
            if low < 0 or high >= self.codebook_size:
                wrong = low if low < 0 else high
                raise InputError(
                    f"ids must lie in [0, {self.codebook_size}), found {wrong}; are they from another tokenizer?"
                )
        with torch.autocast(device_type=ids.device.type, enabled=False):
            return self._codes(ids)

    def _quantize(self, latents: Tensor, valid_mask: Tensor | None, generator: torch.Generator | None) -> Quantized:
        raise NotImplementedError

    def _codes(self, ids: Tensor) -> Tensor:
        raise NotImplementedError


def masked_mean(values: Tensor, valid_mask: Tensor | None) -> Tensor:
    """Mean of values (..., E) over the valid tokens and over E; 0 where no token is valid.

    >>> masked_mean(torch.tensor([[1.0, 3.0], [9.0, 9.0]]), torch.tensor([True, False]))
    tensor(2.)
    """
    if valid_mask is None:
        return values.mean() if values.numel() else values.sum()
    # where, not a product: a padded token may hold inf or NaN
    kept = torch.where(valid_mask[..., None], values, 0)
    return kept.sum() / (valid_mask.sum() * values.shape[-1]).clamp(min=1)


def check_whole(owner: str, name: str, value: object, least: int) -> None:
    """InputError unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{owner}.{name} must be a whole number of at least {least}, got {value!r}")
