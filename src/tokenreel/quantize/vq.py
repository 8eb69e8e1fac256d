"""Vector quantization: each latent becomes the nearest row of a learned codebook (VQ-VAE, arXiv 1711.00937).

Letters: ... any leading axes, N tokens, K codebook_size, E codebook_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.errors import InputError

from .base import Quantized, Quantizer, check_whole, masked_mean
from .cluster import ALONE, Group, draw, kmeans, totals
from .gradient import rotation_trick, straight_through
from .lookup import nearest

__all__ = ["VQ", "VQConfig"]

Learning = Literal["gradient", "ema", "simvq"]
Estimator = Literal["straight_through", "rotation"]
Start = Literal["normal", "kmeans"]

_ESTIMATORS = {"straight_through": straight_through, "rotation": rotation_trick}
_FORGOTTEN = 1e-5  # a code with a smaller average count keeps its place


@dataclass(frozen=True, slots=True, kw_only=True)
class VQConfig:
    """Configuration of ``VQ``.

    Attributes:
        codebook_size: K, number of codes.
        codebook_dim: E, width of a code.
        learning: how the codebook learns: ``gradient`` of the codebook loss; ``ema``, moving averages of its latents
            (arXiv 1711.00937, appendix A.1); ``simvq``, one learned linear map of a frozen codebook
            (arXiv 2411.02038, section 4).
        l2_norm: latents and codes are scaled to norm 1, so the look-up is by cosine (arXiv 2110.04627, section 3.2).
        estimator: gradient through the look-up, see ``gradient.py``.
        start: ``normal`` random codes, or ``kmeans`` of the first training batch.
        kmeans_iterations: of the start.
        commit_weight: beta of the commitment loss.
        ema_decay: gamma of the moving averages.
        revive_every: after every so many training batches, codes that none of them used become random latents of the
            next one; None: never. Not with ``simvq``, whose map moves all codes together.
        seed: of the start and the revivals, where ``forward`` is given no generator.
    """

    codebook_size: int
    codebook_dim: int
    learning: Learning = "gradient"
    l2_norm: bool = False
    estimator: Estimator = "straight_through"
    start: Start = "normal"
    kmeans_iterations: int = 10
    commit_weight: float = 0.25
    ema_decay: float = 0.99
    revive_every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("codebook_size", 1), ("codebook_dim", 1), ("kmeans_iterations", 0), ("seed", 0)):
            check_whole("VQConfig", name, getattr(self, name), least)
        for name, choices in (("learning", Learning), ("estimator", Estimator), ("start", Start)):
            if getattr(self, name) not in get_args(choices):
                raise InputError(
                    f"VQConfig.{name} must be one of {', '.join(get_args(choices))}, got {getattr(self, name)!r}"
                )
        if self.revive_every is not None:
            check_whole("VQConfig", "revive_every", self.revive_every, 1)
            if self.learning == "simvq":
                raise InputError("VQConfig.revive_every must be None with learning='simvq': its codebook is frozen")
        if not 0 <= self.ema_decay < 1 or self.commit_weight < 0:
            raise InputError(
                f"VQConfig needs 0 <= ema_decay < 1 and commit_weight >= 0, got {self.ema_decay}, {self.commit_weight}"
            )


class VQ(Quantizer):
    """(..., E) -> codes (..., E), ids (...), ``codebook_loss`` and ``commit_loss``.

    z is replaced by e, the nearest row of the codebook (arXiv 1711.00937, eq. 1 and 2; lowest id among equals). Losses
    (eq. 3): codebook |sg(z) - e|^2 (none with ``ema``) and commitment beta |z - sg(e)|^2, both as means over the valid
    tokens and over E. In training mode a call also moves the averages, and starts or revives codes before looking up.

    Latents reach the codebook in float32: train in float32 with autocast, not with the module cast to bf16.

    Attributes:
        group: the processes that train this codebook together; set it before training on several.
    """

    codebook_KE: Tensor
    is_started: Tensor
    num_batches: Tensor
    hits_K: Tensor
    ema_counts_K: Tensor
    ema_sums_KE: Tensor

    def __init__(self, config: VQConfig, *, group: Group = ALONE) -> None:
        super().__init__()
        self.config, self.group = config, group
        self.codebook_size, self.codebook_dim = config.codebook_size, config.codebook_dim
        codebook_KE = torch.empty(config.codebook_size, config.codebook_dim)
        if not codebook_KE.is_meta:  # drawing on the meta device, into which files are loaded, imports a compiler
            codebook_KE.normal_(std=config.codebook_dim**-0.5)
        if config.learning == "gradient":
            self.codebook_KE = nn.Parameter(codebook_KE)
        else:
            self.register_buffer("codebook_KE", codebook_KE)
        if config.learning == "ema":
            self.register_buffer("ema_counts_K", torch.ones(config.codebook_size))
            self.register_buffer("ema_sums_KE", codebook_KE.clone())
        if config.learning == "simvq":
            # From the identity, so that a k-means start is a start; the paper draws it at random.
            self.transform_EE = nn.Parameter(torch.eye(config.codebook_dim))
        if config.revive_every is not None:
            self.register_buffer("hits_K", torch.zeros(config.codebook_size, dtype=torch.int64))
        self.register_buffer("is_started", torch.tensor(config.start != "kmeans"))
        self.register_buffer("num_batches", torch.tensor(0))

    def codebook(self) -> Tensor:
        """(K, E) the codes as they are looked up: mapped (``simvq``), of norm 1 (``l2_norm``), float32 or wider."""
        codebook_KE = self.codebook_KE
        if codebook_KE.dtype not in (torch.float32, torch.float64):
            codebook_KE = codebook_KE.float()
        if self.config.learning == "simvq":
            codebook_KE = codebook_KE @ self.transform_EE.to(codebook_KE.dtype).t()
        return F.normalize(codebook_KE, dim=-1) if self.config.l2_norm else codebook_KE

    @torch.no_grad()
    def start_from(self, latents: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Set the codebook to the k-means centres of latents (..., E)."""
        latents_NE = self._scaled(latents.to(self.codebook_KE.dtype).flatten(0, -2))
        centres_KE = kmeans(
            latents_NE,
            self.codebook_KE,
            iterations=self.config.kmeans_iterations,
            is_unit=self.config.l2_norm,
            generator=generator or self._generator(),
            group=self.group,
        )
        self._place(torch.arange(self.codebook_size, device=centres_KE.device), centres_KE)
        self.is_started.fill_(True)

    def _quantize(self, latents: Tensor, valid_mask: Tensor | None, generator: torch.Generator | None) -> Quantized:
        latents = self._scaled(latents)
        if self.training:
            self._prepare(latents.detach(), valid_mask, generator)
        codebook_KE = self.codebook().to(latents.dtype)
        ids = nearest(latents.detach().reshape(-1, self.codebook_dim), codebook_KE.detach()).view(latents.shape[:-1])
        codes = F.embedding(ids, codebook_KE)
        losses: dict[str, Tensor] = {}
        if self.training:
            losses = self._losses(latents, codes, valid_mask)
            self._observe(latents.detach(), ids, valid_mask)
        return Quantized(_ESTIMATORS[self.config.estimator](latents, codes), ids, losses)

    def _codes(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.codebook())

    def _scaled(self, latents: Tensor) -> Tensor:
        return F.normalize(latents, dim=-1) if self.config.l2_norm else latents

    def _losses(self, latents: Tensor, codes: Tensor, valid_mask: Tensor | None) -> dict[str, Tensor]:
        commit = masked_mean((latents - codes.detach()).square(), valid_mask)
        losses = {"commit_loss": self.config.commit_weight * commit}
        if self.config.learning != "ema":
            losses["codebook_loss"] = masked_mean((latents.detach() - codes).square(), valid_mask)
        return losses

    @torch.no_grad()
    def _prepare(self, latents: Tensor, valid_mask: Tensor | None, generator: torch.Generator | None) -> None:
        """Start or revive codes: before the look-up, so that no tensor changes between forward and backward."""
        every = self.config.revive_every
        if self.config.start == "kmeans" and not bool(self.is_started):
            self.start_from(_valid(latents, valid_mask), generator=generator)
        elif every is not None and int(self.num_batches) > 0 and int(self.num_batches) % every == 0:
            (dead,) = torch.nonzero(self.hits_K == 0, as_tuple=True)
            source = generator or self._generator()
            drawn, has_one = draw(_valid(latents, valid_mask), len(dead), generator=source, group=self.group)
            self._place(dead[has_one], drawn[has_one])
            self.hits_K.zero_()

    @torch.no_grad()
    def _observe(self, latents: Tensor, ids: Tensor, valid_mask: Tensor | None) -> None:
        """Count the ids and move the averages: N = g N + (1 - g) n, m = g m + (1 - g) sum z, e = m / N.

        arXiv 1711.00937, appendix A.1, eq. 6 to 8. No Laplace smoothing, which draws codes that are seldom used to
        the origin: they stay where they are.
        """
        self.num_batches += 1
        if self.config.learning != "ema" and self.config.revive_every is None:
            return
        kept_N = ids.flatten() if valid_mask is None else ids[valid_mask]
        latents_NE = _valid(latents, valid_mask).to(self.codebook_KE.dtype)
        counts_K, sums_KE = totals(latents_NE, kept_N, self.codebook_size, self.group)
        if self.config.revive_every is not None:
            self.hits_K += counts_K
        if self.config.learning == "ema":
            self.ema_counts_K.lerp_(counts_K.to(self.ema_counts_K.dtype), 1 - self.config.ema_decay)
            self.ema_sums_KE.lerp_(sums_KE, 1 - self.config.ema_decay)
            is_known = self.ema_counts_K[:, None] > _FORGOTTEN
            means_KE = self.ema_sums_KE / self.ema_counts_K.clamp(min=_FORGOTTEN)[:, None]
            self.codebook_KE.copy_(torch.where(is_known, means_KE, self.codebook_KE))

    def _place(self, ids_n: Tensor, codes_nE: Tensor) -> None:
        """Put codes (n, E) at ids (n,), with averages as if each had been used by one token."""
        self.codebook_KE[ids_n] = codes_nE.to(self.codebook_KE.dtype)
        if self.config.learning == "ema":
            self.ema_counts_K[ids_n] = 1.0
            self.ema_sums_KE[ids_n] = codes_nE.to(self.ema_sums_KE.dtype)

    def _generator(self) -> torch.Generator:
        """A source that depends on the seed, the batch and the process alone, so that a resumed run draws the same."""
        mixed = (self.config.seed * 1_000_003 + int(self.num_batches)) * 65_537 + self.group.rank
        return torch.Generator().manual_seed(mixed % (1 << 63))


def _valid(latents: Tensor, valid_mask: Tensor | None) -> Tensor:
    """(..., E) -> (N, E) of the valid tokens."""
    return latents.reshape(-1, latents.shape[-1]) if valid_mask is None else latents[valid_mask]
