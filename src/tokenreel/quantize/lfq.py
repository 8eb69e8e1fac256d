"""Look-up-free quantization: the signs of the latents are the code (MAGVIT-v2, arXiv 2310.05737).

Letters: ... any leading axes, N tokens, E codebook_dim, K = 2^E, b bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.errors import InputError

from .base import Quantized, Quantizer, check_whole, masked_mean
from .gradient import straight_through

__all__ = ["LFQ", "LFQConfig", "codebook_entropy", "token_entropy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LFQConfig:
    """Configuration of ``LFQ``.

    Attributes:
        codebook_dim: E, bits of an id; the codebook has 2^E codes.
        entropy_weight: weight of the entropy loss; 0 leaves it out.
        diversity: gamma, weight of the codebook's entropy within the entropy loss.
        temperature: T of q(c | z) = softmax(-|z - c|^2 / T).
        entropy_bits: the codebook's entropy is taken over groups of at most this many bits; exact where
            codebook_dim is not larger, else an upper bound (see ``codebook_entropy``).
        commit_weight: beta, weight of the commitment loss; 0 leaves it out.
    """

    codebook_dim: int
    entropy_weight: float = 0.1
    diversity: float = 1.0
    temperature: float = 0.01
    entropy_bits: int = 14
    commit_weight: float = 0.25

    def __post_init__(self) -> None:
        check_whole("LFQConfig", "codebook_dim", self.codebook_dim, 1)
        check_whole("LFQConfig", "entropy_bits", self.entropy_bits, 1)
        if self.codebook_dim > 62:
            raise InputError(f"LFQConfig.codebook_dim must be at most 62 (ids are int64), got {self.codebook_dim}")
        if self.entropy_bits > 20:
            raise InputError(f"LFQConfig.entropy_bits must be at most 20, got {self.entropy_bits}: 2^bits are held")
        if not self.temperature > 0 or min(self.entropy_weight, self.diversity, self.commit_weight) < 0:
            raise InputError(f"LFQConfig needs a temperature above 0 and no negative weight, got {self}")


class LFQ(Quantizer):
    """(..., E) -> codes (..., E) of -1 and 1, ids (...), entropy and commitment loss.

    arXiv 2310.05737, eq. 3 to 5: code_i = sign(z_i), with -1 for z_i <= 0; id = sum_i 2^(i-1) [z_i > 0] (the first
    dimension counts least); loss E[H(q(z))] - gamma H(E[q(z)]), in nats. Straight-through gradient.
    """

    def __init__(self, config: LFQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_dim = config.codebook_dim
        self.codebook_size = 1 << config.codebook_dim

    def _quantize(self, latents: Tensor, valid_mask: Tensor | None, generator: torch.Generator | None) -> Quantized:
        is_set = latents.detach() > 0
        codes = _signs(is_set, latents.dtype)
        shift = torch.arange(self.codebook_dim, device=latents.device)
        ids = (is_set.long() << shift).sum(-1)
        losses = self._losses(latents, codes, valid_mask) if self.training else {}
        return Quantized(straight_through(latents, codes), ids, losses)

    def _codes(self, ids: Tensor) -> Tensor:
        shift = torch.arange(self.codebook_dim, device=ids.device)
        return _signs((ids[..., None] >> shift) & 1 == 1, torch.float32)

    def _losses(self, latents: Tensor, codes: Tensor, valid_mask: Tensor | None) -> dict[str, Tensor]:
        config, losses = self.config, {}
        if config.commit_weight:
            losses["commit_loss"] = config.commit_weight * masked_mean((latents - codes).square(), valid_mask)
        if config.entropy_weight:
            kept_NE = latents.flatten(0, -2) if valid_mask is None else latents[valid_mask]
            # log q(+1) - log q(-1) = (|z + 1|^2 - |z - 1|^2) / T = 4 z / T
            logits_NE = kept_NE * (4 / config.temperature)
            spread = codebook_entropy(logits_NE, config.entropy_bits)
            entropy = token_entropy(logits_NE) - config.diversity * spread
            losses["entropy_loss"] = config.entropy_weight * entropy
        return losses


def _signs(is_set: Tensor, dtype: torch.dtype) -> Tensor:
    return is_set.to(dtype) * 2 - 1


def token_entropy(logits_NE: Tensor) -> Tensor:
    """E[H(q(z))] in nats, the first term of eq. 5: the bits of a token are independent, so their entropies add.

    Exact for any codebook: softmax over all 2^E signs factorises into one sigmoid a bit. 0 where there is no token.
    """
    size = logits_NE.abs()
    # H(sigmoid(x)) = softplus(-|x|) + |x| sigmoid(-|x|), which loses no digits for large |x|
    entropy_NE = F.softplus(-size) + size * torch.sigmoid(-size)
    return entropy_NE.sum() / max(len(logits_NE), 1)


def codebook_entropy(logits_NE: Tensor, entropy_bits: int) -> Tensor:
    """H(E[q(z)]) in nats, the second term of eq. 5, summed over groups of at most ``entropy_bits`` bits.

    For one group it is exact; for several it is an upper bound, as the groups' dependence is left out.
    The mean of the product distributions of b bits is Q_low^T Q_high / N with (N, 2^(b/2)) factors: one matrix product,
    where the plain way holds (N, 2^b). 0 where there is no token.
    """
    total = logits_NE.new_zeros(())
    groups = math.ceil(logits_NE.shape[1] / entropy_bits)
    for group_Nb in logits_NE.tensor_split(groups, dim=1):
        half = group_Nb.shape[1] // 2
        low, high = _joint(group_Nb[:, :half]), _joint(group_Nb[:, half:])
        mean = (low.t() @ high) / max(len(logits_NE), 1)
        # The clamp keeps the gradient -log p - 1 finite where no token has a share.
        total = total + torch.special.entr(mean.clamp(min=1e-30)).sum()
    return total


def _joint(logits_Nb: Tensor) -> Tensor:
    """(N, 2^b): the joint distribution of b independent bits, the first counting least."""
    joint = logits_Nb.new_ones(len(logits_Nb), 1)
    for bit in range(logits_Nb.shape[1]):
        share = logits_Nb[:, bit, None]
        joint = torch.cat([joint * torch.sigmoid(-share), joint * torch.sigmoid(share)], 1)
    return joint
