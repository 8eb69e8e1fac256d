"""MaskGIT: a bidirectional transformer that guesses the ids of masked tokens from the others and from a prompt.

Letters: B videos, N rows (B, or 2 B when guided) or positions that count, L tokens, D dim, F factors, V levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError, MismatchError
from tokenreel.nn.initial import drawn
from tokenreel.tokenizers.saved import SavedModel
from tokenreel.types import Grid

from .condition import Condition, label_condition
from .loss_head import HeadLoss, head_cross_entropy, head_logits
from .maskgit_config import SIZES, MaskGITConfig
from .maskgit_network import Prepared, TokenNetwork, draw_null
from .text import ByteText, TextEncoder
from .vocabulary import Vocabulary

__all__ = ["MaskGIT"]


class MaskGIT(SavedModel):
    """Masked token modelling on any tokenizer's ids (arXiv 2202.04200), told by text as in Phenaki (arXiv 2210.02399).

    Training: hide some ids (``mask_for_training``), ``forward``, ``loss`` of the hidden positions.
    Sampling: ``prepare`` once, then ``features`` and ``logits`` of the open positions a step.
    """

    kind = "generator"
    name = "maskgit"
    config_type = MaskGITConfig
    sizes: ClassVar[Mapping[str, MaskGITConfig]] = SIZES
    summary = "A masked transformer over video tokens, told by text or labels."
    papers = ("2202.04200", "2210.02399")
    config: MaskGITConfig

    def __init__(self, config: MaskGITConfig) -> None:
        super().__init__(config)
        self.network = TokenNetwork(config)
        self.head = nn.Linear(config.feature_dim, sum(config.vocabulary.levels))
        self.chain: nn.Embedding | None = None
        if config.chained and len(config.vocabulary.levels) > 1:
            # Of all digits but the last; at zero they are guessed independently.
            self.chain = nn.Embedding(sum(config.vocabulary.levels[:-1]), config.feature_dim)
            nn.init.zeros_(self.chain.weight)
        self.text = None if config.text is None else ByteText(config.text)
        self.critic_head = nn.Linear(config.feature_dim, 1) if config.self_critic else None
        for head in (self.head, self.critic_head):
            if head is not None:
                drawn(head.weight, std=0.02)
                nn.init.zeros_(head.bias)

    @torch.no_grad()
    def start_from_codes(self, codes_KE: Tensor) -> None:
        """Embeddings and output layer begin as what the ids stand for, so that equal looks need not be learned.

        The codes are turned onto their principal axes and each axis scaled to the root of its spread, so that the first
        does not drown the others; what ``feature_dim`` has more of them stays nearly empty. A digit of several is the
        mean of the codes that have it.

        Args:
            codes_KE: (K, E), the tokenizer's code of every id.
        """
        if codes_KE.ndim != 2 or len(codes_KE) != self.vocab.codebook_size:
            raise InputError(f"expected a code for each of {self.vocab.codebook_size} ids, got {tuple(codes_KE.shape)}")
        digits_KF = self.vocab.split(torch.arange(len(codes_KE)))
        codes_KE, first = codes_KE.to("cpu", torch.float64), 0
        for factor, level in enumerate(self.vocab.levels):
            sums_VE = codes_KE.new_zeros(level, codes_KE.shape[1]).index_add_(0, digits_KF[:, factor], codes_KE)
            axes_VD = _principal(sums_VE * (level / len(codes_KE)), self.config.feature_dim)
            rows, places = slice(first, first + level), slice(first + factor, first + factor + level)
            for table, part, scale in ((self.head.weight, rows, 0.1), (self.network.embed.weight, places, 0.2)):
                table[part] = 0.2 * table[part] + scale * axes_VD.to(table)
            first += level

    @property
    def vocab(self) -> Vocabulary:
        """Of its ids."""
        return self.config.vocabulary

    def card_rows(self) -> Mapping[str, str]:
        """Codebook and tokenizer."""
        vocab = self.vocab
        factors = "" if len(vocab.levels) == 1 else f" as {' x '.join(map(str, vocab.levels))}"
        owner = f"{vocab.tokenizer} `{vocab.fingerprint[:12]}`" if vocab.tokenizer else "any of that codebook"
        return {"codebook": f"{vocab.codebook_size:,} codes{factors}", "tokenizer": owner}

    # What it is told.

    def condition(
        self,
        prompts: Sequence[str] | None = None,
        *,
        labels: Tensor | Sequence[int] | None = None,
        encoder: TextEncoder | None = None,
    ) -> Condition | None:
        """Prompts and labels -> ``Condition``; None where neither is given.

        Text is read by the encoder inside, or by ``encoder``, which must be the one of training if that is known.
        """
        labels_B = None if labels is None else torch.as_tensor(labels, device=self.device)
        if prompts is None:
            return None if labels_B is None else label_condition(labels_B)
        told = self._encoder(encoder).encode(prompts)
        return told if labels_B is None else told._replace(labels_B=label_condition(labels_B).labels_B)

    def check_text(self, encoder: TextEncoder) -> None:
        """MismatchError unless text states of this encoder are what the model was trained with."""
        config = self.config
        if config.text_fingerprint and encoder.fingerprint != config.text_fingerprint:
            raise MismatchError(
                f"this generator reads the states of {config.text_encoder or 'a text encoder'} "
                f"{config.text_fingerprint[:12]}, not of {encoder.name} {encoder.fingerprint[:12]}"
            )
        if encoder.dim != config.context_dim:
            raise MismatchError(
                f"this generator reads states {config.context_dim} wide, those of {encoder.name} are {encoder.dim} wide"
            )

    def _encoder(self, encoder: TextEncoder | None) -> TextEncoder:
        if encoder is None:
            if self.text is None:
                wanted = self.config.text_encoder or "a text encoder"
                raise InputError(
                    f"this generator has no text encoder inside; give {wanted} as encoder"
                    if self.config.context_dim is not None
                    else "this generator reads no text; leave prompts out"
                )
            return self.text
        if self.text is not None:
            raise InputError(f"this generator reads text by itself; leave encoder ({encoder.name}) out")
        self.check_text(encoder)
        return encoder

    # Training.

    def forward(
        self,
        ids_BL: Tensor,
        *,
        grid: Grid,
        condition: Condition | None,
        valid_mask: Tensor | None = None,
        is_null: Tensor | None = None,
        generator: torch.Generator | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """(B, L) ids, hidden ones as the mask id -> features (B, L, D); ``logits`` reads those of hidden positions.

        Args:
            ids_BL: int64 in [0, K].
            grid: of all rows; shorter or smaller videos are padded to it.
            condition: of 1 or B rows, or None.
            valid_mask: (B, L) bool, True = real token.
            is_null: (B,) bool, rows that are told nothing; None draws them in training with ``null_probability``.
            generator: source of that draw and of dropped branches.
            wanted: (B, L) bool, True = features that are read; the others may be anything. None: all.
        """
        num = ids_BL.shape[0]
        if is_null is None:
            share = self.config.null_probability if self.training else 0.0
            is_null = draw_null(num, share, generator=generator, device=ids_BL.device)
        prepared = self.network.prepare(condition, num=num, is_null_N=is_null)
        features_BLD: Tensor = self.network(
            ids_BL, grid=grid, prepared=prepared, valid_mask=valid_mask, generator=generator, wanted=wanted
        )
        return features_BLD

    def loss(
        self, features_ND: Tensor, ids_N: Tensor, *, label_smoothing: float = 0.0, weights_N: Tensor | None = None
    ) -> HeadLoss:
        """(N, D) features of hidden positions and their real ids -> cross-entropy in nats, and guesses.

        ``masked_cross_entropy`` of ``logits``, without holding the logits: quicker, and in bounded memory. A chained
        model is told the real digits before the one that it guesses.
        """
        if self.chain is not None:
            return self._chained_loss(features_ND, self.vocab.split(ids_N), label_smoothing, weights_N)
        return head_cross_entropy(
            features_ND,
            self.head.weight,
            self.head.bias,
            self.vocab.split(ids_N),
            levels=self.vocab.levels,
            label_smoothing=label_smoothing,
            weights_N=weights_N,
        )

    def _chained_loss(
        self, features_ND: Tensor, digits_NF: Tensor, label_smoothing: float, weights_N: Tensor | None
    ) -> HeadLoss:
        found = []
        for factor in range(digits_NF.shape[1]):
            digits_N1 = digits_NF[:, factor : factor + 1]
            told_ND, rows = self._told(features_ND, digits_NF[:, :factor]), self._rows(factor)
            weight_VD, bias_V, level = self.head.weight[rows], self.head.bias[rows], self.vocab.levels[factor]
            one = head_cross_entropy(
                told_ND,
                weight_VD,
                bias_V,
                digits_N1,
                levels=(level,),
                label_smoothing=label_smoothing,
                weights_N=weights_N,
            )
            found.append(one)
        guesses_NF = torch.cat([one.guesses_NF for one in found], dim=1)
        return HeadLoss(torch.stack([one.loss for one in found]).sum(), guesses_NF)

    def _told(self, features_ND: Tensor, digits_Nf: Tensor) -> Tensor:
        """Features with what the digits before are worth."""
        for factor, digits_N in enumerate(digits_Nf.unbind(1)):
            assert self.chain is not None
            features_ND = features_ND + self.chain(digits_N + self._rows(factor).start).to(features_ND.dtype)
        return features_ND

    def _rows(self, factor: int) -> slice:
        """Of the output layer, and of the table of digits."""
        first = sum(self.vocab.levels[:factor])
        return slice(first, first + self.vocab.levels[factor])

    # Sampling.

    def prepare(self, condition: Condition | None, *, num: int, guided: bool = False) -> Prepared:
        """A condition for ``num`` videos, its keys and values computed once for all steps.

        With ``guided`` there are 2 ``num`` rows: the conditional ones, then the same videos told nothing.
        """
        if guided and (condition is None or not self.config.is_conditional):
            raise InputError("guidance needs a condition to be guided by; give prompts or labels, or guidance_scale 1")
        is_null_N = torch.arange(2 * num if guided else num, device=self.device) >= num
        return self.network.prepare(condition, num=num, is_null_N=is_null_N, guided=guided)

    def features(
        self,
        ids_BL: Tensor,
        *,
        grid: Grid,
        prepared: Prepared,
        valid_mask: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """(B, L) ids, open ones as the mask id -> (N, L, D), N = 2 B when ``prepared`` is guided.

        The output layer is linear, so branches may be combined here: it then runs once and not twice. Where ``wanted``,
        bool (B, L), is given, the other positions are 0, and the last block is spared them.
        """
        features_NLD: Tensor = self.network(ids_BL, grid=grid, prepared=prepared, valid_mask=valid_mask, wanted=wanted)
        return features_NLD

    @property
    def is_chained(self) -> bool:
        """Whether a digit is told those before it, so that ``next_logits`` must be asked and not ``logits``."""
        return self.chain is not None

    def next_logits(self, features_ND: Tensor, digits_Nf: Tensor) -> Tensor:
        """(N, D) features and the first f digits of their ids, (N, f) -> float32 (N, V) of the next one."""
        rows = self._rows(digits_Nf.shape[1])
        return head_logits(self._told(features_ND, digits_Nf), self.head.weight[rows], self.head.bias[rows]).float()

    def logits(self, features_ND: Tensor) -> tuple[Tensor, ...]:
        """(N, D) features of the positions that are wanted -> one float32 (N, V) a factor; not of a chained model."""
        if self.is_chained:
            raise InputError("a chained model has no logits of all digits at once; ask next_logits, digit by digit")
        logits_NV = head_logits(features_ND, self.head.weight, self.head.bias).float()
        found: tuple[Tensor, ...] = torch.split(logits_NV, list(self.vocab.levels), dim=-1)
        return found

    def critic_scores(self, features_BLD: Tensor) -> Tensor:
        """(B, L, D) features of whole ids -> (B, L) float32, higher = more likely fake, by the head inside."""
        if self.critic_head is None:
            raise InputError("this generator has no self critic; its configuration has self_critic = False")
        scores_BL: Tensor = self.critic_head(features_BLD).float().squeeze(-1)
        return scores_BL


def _principal(codes_VE: Tensor, dim: int) -> Tensor:
    """(V, E) -> (V, dim): principal axes, each over the root of its spread, of spread 1 on the whole; 0 beyond them."""
    left_VR, spread_R, _ = torch.linalg.svd(codes_VE - codes_VE.mean(0), full_matrices=False)
    axes_VR = left_VR[:, :dim] * spread_R[:dim].sqrt()
    axes_VR = axes_VR / axes_VR.square().mean().sqrt().clamp(min=1e-12)
    return torch.nn.functional.pad(axes_VR, (0, dim - axes_VR.shape[1]))
