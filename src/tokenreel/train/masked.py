"""The objective of generators: hidden tokens guessed from the others and from a prompt; and that of their critics.

MaskGIT, arXiv 2202.04200, equation 3; told by text as in Phenaki, arXiv 2210.02399; critics: arXiv 2209.04439.

Letters: B records, L tokens, N hidden tokens, D dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.generate.condition import Condition
from tokenreel.generate.critic import TokenCritic, critic_labels
from tokenreel.generate.loss import accuracies, critic_loss, critic_scores, picked
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.maskgit_network import draw_null
from tokenreel.generate.sample_draw import draw_ids
from tokenreel.generate.schedule import SCHEDULES, draw_primed, mask_for_training
from tokenreel.generate.text import TextEncoder
from tokenreel.types import Grid

from .given_noise import strayed
from .objective import Step
from .token_batches import TokenBatch

__all__ = ["CriticAlone", "Guesser", "Masked", "MaskingConfig", "Puzzle", "Shown"]

_ROUNDS = 8  # to a share of tokens within 1 % or so
_MOST_LOGITS = 1 << 24  # held at once where a critic's tokens are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingConfig:
    """What is hidden, and how guesses are scored.

    Attributes:
        schedule: a name in ``SCHEDULES``: the distribution of the hidden share (arXiv 2202.04200, section 3.1).
        label_smoothing: of the cross-entropy.
        primed_share: share of the records whose first steps are given and never hidden, as in a video that is gone on
            with (arXiv 2210.02399, section 2.3).
        primed_steps: how many first steps they are; None: any number of them.
        scored_share: share of the hidden tokens, drawn at random, whose guesses are scored. The softmax over a large
            codebook is dear, and the guesses of one clip teach much the same.
        scores_rare: rare ids of a batch are drawn rather than common ones, with probability ~ 1 / sqrt(count), and each
            guess weighs what it stands for, so that the loss is the same on average and less noisy where it matters: a
            wall is many equal tokens, a thing few that differ.
        tube_share, blank_share: share of the records that are hidden in tubes through all steps, and whole, so that the
            prompt is needed (``mask_for_training``).
        given_noise: of the tokens that are given a share of up to this, another for each record, takes the id of a
            token beside it: what a generator draws and then goes on from is not perfect either.
        seen_noise: the same of the tokens that are seen beside the hidden ones: what earlier passes drew.
    """

    schedule: str = "cosine"
    label_smoothing: float = 0.0
    primed_share: float = 0.0
    primed_steps: int | None = None
    scored_share: float = 1.0
    scores_rare: bool = False
    tube_share: float = 0.0
    blank_share: float = 0.0
    given_noise: float = 0.0
    seen_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        for name in ("primed_share", "tube_share", "blank_share", "given_noise", "seen_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.primed_steps is not None and self.primed_steps < 1:
            raise InputError(f"primed_steps must be at least 1 or null, got {self.primed_steps}")
        if not 0 < self.scored_share <= 1:
            raise InputError(f"scored_share must lie in (0, 1], got {self.scored_share}")


class Puzzle(NamedTuple):
    """A batch as a generator sees it.

    Attributes:
        ids_BL: int64, the real ids, but for those that strayed.
        is_masked_BL: bool, True = hidden, to be guessed.
        valid_mask: bool (B, L), True = real; None where all are.
        grid: of all rows.
        condition: what is told, with gradients to a text encoder inside; None where nothing is.
        is_null_B: bool, rows that are told nothing.
        is_strayed_BL: bool, True = seen, and not what is real there; None where all are.
    """

    ids_BL: Tensor
    is_masked_BL: Tensor
    valid_mask: Tensor | None
    grid: Grid
    condition: Condition | None
    is_null_B: Tensor
    is_strayed_BL: Tensor | None = None


class Shown(NamedTuple):
    """What a token critic judges: the hidden tokens filled in with draws of the generator."""

    puzzle: Puzzle
    filled_BL: Tensor


class _Guessed(NamedTuple):
    loss: Tensor
    metrics: dict[str, Tensor]
    shown: Shown | None


class Guesser(nn.Module):
    """A generator as it is trained: a batch to its loss in one call, as several processes need it.

    Args:
        generator: to train.
        masking: what is hidden.
        encoder: of the text, where it is not inside the generator.
        self_weight: of the loss of the critic inside the generator; 0: it does not learn.
        shows: whether hidden tokens are filled in for a critic beside it.
        temperature: of the draws that fill them in.
        fooling: the critic as a signal for the generator (``fooling_loss``), its weight; 0: none.
        judge: the critic beside it, which then tells how real the draws look; None: the one inside.
    """

    def __init__(
        self,
        generator: MaskGIT,
        masking: MaskingConfig,
        *,
        encoder: TextEncoder | None = None,
        self_weight: float = 0.0,
        shows: bool = False,
        temperature: float = 1.0,
        fooling: float = 0.0,
        judge: TokenCritic | None = None,
    ) -> None:
        super().__init__()
        self.generator, self.masking, self.encoder = generator, masking, encoder
        if generator.critic_head is not None:  # without gradients it has no state that a run could go on with
            generator.critic_head.requires_grad_(self_weight > 0)
        self.self_weight, self.shows, self.temperature = self_weight, shows, temperature
        self.fooling, self._judge = fooling, [judge]  # in a list it is no part of what is trained, averaged and saved

    def forward(self, batch: TokenBatch, *, generator: torch.Generator, is_judged: bool = True) -> _Guessed:
        """The loss over hidden tokens, and the self critic's where it learns.

        Not ``is_judged``: the critic has learned nothing yet that the generator could learn from.
        """
        model = self.generator
        puzzle = posed(model, batch, self.masking, encoder=self.encoder, generator=generator)
        features_ND = _hidden_features(model, puzzle, generator)
        wanted_N, scored_ND = puzzle.ids_BL[puzzle.is_masked_BL], features_ND
        weights_N: Tensor | None = None
        if self.masking.scored_share < 1:
            is_scored_N, weights_N = _thinned(wanted_N, self.masking, generator)
            wanted_N, scored_ND = wanted_N[is_scored_N], features_ND[is_scored_N]
        found = model.loss(scored_ND, wanted_N, label_smoothing=self.masking.label_smoothing, weights_N=weights_N)
        metrics = {"guess_loss": found.loss.detach(), **accuracies(found.guesses_NF, model.vocab.split(wanted_N))}
        real = puzzle.ids_BL.numel() if puzzle.valid_mask is None else puzzle.valid_mask.sum()
        metrics["masked_share"] = puzzle.is_masked_BL.sum() / real
        loss, shown = found.loss, None
        if self.self_weight or self.shows:
            shown = Shown(puzzle, drawn_into(model, puzzle, features_ND, self.temperature, generator))
        scores_BL: Tensor | None = None
        if self.self_weight and shown is not None:
            scores_BL = model.critic_scores(_read(model, shown, generator))
            term, more = _judged(scores_BL, shown)
            loss, metrics = loss + self.self_weight * term, metrics | more
        if self.fooling and is_judged and shown is not None:
            if self._judge[0] is not None:
                with torch.no_grad():
                    scores_BL = _read(self._judge[0], shown, generator)
            assert scores_BL is not None
            term, more = fooling_loss(model, shown, features_ND, scores_BL)
            loss, metrics = loss + self.fooling * term, metrics | more
        return _Guessed(loss, metrics, _cut_off(shown) if self.shows else None)


class CriticAlone(nn.Module):
    """A critic that learns after its generator, which stays as it is.

    Args:
        generator: trained.
        critic: a network of its own; None trains the critic's head inside the generator, and nothing else of it.
        masking, encoder, temperature: as in ``Guesser``.
    """

    def __init__(
        self,
        generator: MaskGIT,
        critic: TokenCritic | None,
        masking: MaskingConfig,
        *,
        encoder: TextEncoder | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.masking, self.encoder, self.temperature = masking, encoder, temperature
        generator.requires_grad_(False)
        self._kept = [generator]  # in a list it is no part of what is trained, averaged and saved
        self.critic: nn.Module = generator if critic is None else critic
        if critic is None:
            if generator.critic_head is None:
                raise InputError("this generator has no self critic; its configuration has self_critic = False")
            generator.critic_head.requires_grad_(True)

    @property
    def generator(self) -> MaskGIT:
        """The generator that stays as it is."""
        return self._kept[0]

    def forward(self, batch: TokenBatch, *, generator: torch.Generator, is_judged: bool = True) -> _Guessed:
        """The critic's loss on tokens that the generator fills in."""
        model = self.generator.to(generator.device).eval()
        with torch.no_grad():
            puzzle = posed(model, batch, self.masking, encoder=self.encoder, generator=generator)
            features_ND = _hidden_features(model, puzzle, generator)
            shown = Shown(puzzle, drawn_into(model, puzzle, features_ND, self.temperature, generator))
        if self.critic is model:
            loss, metrics = self_critic_loss(model, shown, generator=generator)
        else:
            loss, metrics = token_critic_loss(self.critic, shown, generator=generator)
        return _Guessed(loss, metrics, None)


class Masked:
    """The objective of a ``Guesser`` or a ``CriticAlone``; a token critic beside the first learns by ``critic_step``.

    Args:
        critic: with an optimizer of its own.
        start_step: the critic learns from here on, and the generator from it.
    """

    def __init__(self, critic: TokenCritic | None = None, *, start_step: int = 0) -> None:
        self.critic: nn.Module | None = critic
        self.start_step = start_step

    def __call__(self, model: nn.Module, batch: TokenBatch, *, step: int, generator: torch.Generator) -> Step:
        """The loss of one batch."""
        is_judged = step >= self.start_step
        found: _Guessed = model(batch.to(generator.device), generator=generator, is_judged=is_judged)
        return Step(found.loss, found.metrics, found.shown, len(batch), batch.num_tokens)

    def critic_step(
        self, critic: nn.Module, seen: Any, *, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The critic's loss on what the generator filled in."""
        if seen is None or step < self.start_step:
            return None
        return token_critic_loss(critic, seen, generator=generator)


def posed(
    model: MaskGIT,
    batch: TokenBatch,
    masking: MaskingConfig,
    *,
    encoder: TextEncoder | None,
    generator: torch.Generator,
) -> Puzzle:
    """Draw what is hidden, which rows know their first steps, and which are told nothing.

    A record without what the model reads, caption or label, is told nothing.
    """
    num, device = len(batch), batch.ids_BL.device
    valid_BL = torch.ones_like(batch.ids_BL, dtype=torch.bool) if batch.valid_mask is None else batch.valid_mask
    known_BL = None
    if batch.given_steps:
        step_L = torch.arange(batch.grid.num_cells, device=device) // (batch.grid.h * batch.grid.w)
        known_BL = (step_L < batch.given_steps).expand_as(valid_BL)
    elif masking.primed_share:
        known_BL = draw_primed(
            batch.grid, num, probability=masking.primed_share, steps=masking.primed_steps, generator=generator
        ).to(device)
        known_BL = known_BL & (valid_BL & ~known_BL).any(1, keepdim=True)  # a short row would have nothing to guess
    is_masked_BL = mask_for_training(
        valid_BL,
        schedule=masking.schedule,
        generator=generator,
        known_mask=known_BL,
        grid=batch.grid,
        tube_share=masking.tube_share,
        blank_share=masking.blank_share,
    )
    condition, is_missing_B = _told(model, batch, encoder)
    share = model.config.null_probability if model.training else 0.0
    is_null_B = draw_null(num, share, generator=generator, device=device) | is_missing_B.to(device)
    ids_BL = batch.ids_BL
    if masking.given_noise and known_BL is not None:
        ids_BL = strayed(ids_BL, known_BL & valid_BL, grid=batch.grid, most=masking.given_noise, generator=generator)
    if masking.seen_noise:
        guessed_BL = valid_BL if known_BL is None else valid_BL & ~known_BL
        ids_BL = strayed(
            ids_BL,
            guessed_BL & ~is_masked_BL,
            from_BL=guessed_BL,
            grid=batch.grid,
            most=masking.seen_noise,
            generator=generator,
        )
    is_strayed_BL = None if ids_BL is batch.ids_BL else ids_BL != batch.ids_BL
    return Puzzle(ids_BL, is_masked_BL, batch.valid_mask, batch.grid, condition, is_null_B, is_strayed_BL)


def _told(model: MaskGIT, batch: TokenBatch, encoder: TextEncoder | None) -> tuple[Condition | None, Tensor]:
    """The condition, and (B,) bool, True = the record lacks what the model reads."""
    config, is_missing_B = model.config, torch.zeros(len(batch), dtype=torch.bool)
    prompts, labels = None, None
    if config.context_dim is not None:
        prompts = [caption or "" for caption in batch.captions]
        is_missing_B |= torch.tensor([not caption for caption in batch.captions])
    if config.num_classes is not None:
        labels = [0 if label is None else label for label in batch.labels]
        is_missing_B |= torch.tensor([label is None for label in batch.labels])
    if prompts is None and labels is None:
        return None, is_missing_B
    return model.condition(prompts, labels=labels, encoder=encoder), is_missing_B


def _hidden_features(model: MaskGIT, puzzle: Puzzle, generator: torch.Generator) -> Tensor:
    """(N, D) features of the hidden tokens."""
    features_BLD = model(
        puzzle.ids_BL.masked_fill(puzzle.is_masked_BL, model.vocab.mask_id),
        grid=puzzle.grid,
        condition=puzzle.condition,
        valid_mask=puzzle.valid_mask,
        is_null=puzzle.is_null_B,
        generator=generator,
        wanted=puzzle.is_masked_BL,
    )
    return picked(features_BLD, puzzle.is_masked_BL)


def _thinned(ids_N: Tensor, masking: MaskingConfig, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """(N,) bool: a share of the hidden tokens, at least one of any; and the weights of those, None where all are 1."""
    share_N = torch.full_like(ids_N, 1, dtype=torch.float32) * masking.scored_share
    if masking.scores_rare and len(ids_N):
        rarity_N = torch.bincount(ids_N)[ids_N].float().rsqrt()
        scale = masking.scored_share / rarity_N.mean()
        for _ in range(_ROUNDS):  # what is cut at 1 is made up for by the others
            share_N = (rarity_N * scale).clamp(max=1)
            scale = scale * masking.scored_share / share_N.mean()
    drawn_N = torch.rand(len(ids_N), generator=generator, device=generator.device).to(ids_N.device)
    is_one_N = drawn_N < share_N
    is_one_N[:1] |= ~is_one_N.any()
    if not masking.scores_rare:
        return is_one_N, None
    return is_one_N, is_one_N.float().mean() / share_N[is_one_N]


@torch.no_grad()
def drawn_into(
    model: MaskGIT, puzzle: Puzzle, features_ND: Tensor, temperature: float, generator: torch.Generator
) -> Tensor:
    """(B, L) ids with the hidden ones drawn from what the model makes of them, some logits at a time."""
    digits = []
    for part_nD in torch.split(features_ND.detach(), max(1, _MOST_LOGITS // max(model.vocab.levels))):
        found = draw_ids(model, part_nD, is_mended=True, temperature=temperature, generator=generator)
        digits.append(found.ids_NF)  # a bad step is the loop's to skip
    drawn_N = model.vocab.join(torch.cat(digits))
    return puzzle.ids_BL.masked_scatter(puzzle.is_masked_BL, drawn_N)


def self_critic_loss(model: MaskGIT, shown: Shown, *, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the head that scores a generator's own features of the filled tokens."""
    return _judged(model.critic_scores(_read(model, shown, generator)), shown)


def fooling_loss(
    model: MaskGIT, shown: Shown, features_ND: Tensor, scores_BL: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Draws that a critic takes for real become likelier, those that it takes for fake less likely.

    ``mean_i -(r_i - mean r) log p(draw_i)``, r = sigmoid(-score): the policy gradient of SeqGAN (arXiv 1609.05473,
    equation 6) with the mean as baseline and a reward for each token, since ids cannot be differentiated.
    """
    is_masked_BL = shown.puzzle.is_masked_BL
    reward_N = torch.sigmoid(-scores_BL.detach().float())[is_masked_BL]
    found = model.loss(features_ND, shown.filled_BL[is_masked_BL], weights_N=reward_N - reward_N.mean())
    return found.loss, {"fooling_loss": found.loss.detach(), "fooled": reward_N.mean()}


def token_critic_loss(
    critic: nn.Module, shown: Shown, *, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a critic of its own, told what the generator was told."""
    return _judged(_read(critic, shown, generator), shown)


def _read(model: nn.Module, shown: Shown, generator: torch.Generator) -> Tensor:
    """What a generator or a critic makes of the filled tokens."""
    puzzle = shown.puzzle
    out: Tensor = model(
        shown.filled_BL,
        grid=puzzle.grid,
        condition=puzzle.condition,
        valid_mask=puzzle.valid_mask,
        is_null=puzzle.is_null_B,
        generator=generator,
    )
    return out


def _judged(scores_BL: Tensor, shown: Shown) -> tuple[Tensor, dict[str, Tensor]]:
    puzzle = shown.puzzle
    labels_BL = critic_labels(puzzle.ids_BL, shown.filled_BL, puzzle.is_masked_BL)
    if puzzle.is_strayed_BL is not None:
        labels_BL = labels_BL | puzzle.is_strayed_BL
    loss = critic_loss(scores_BL, labels_BL, valid_mask=puzzle.valid_mask)
    return loss, {"critic_loss": loss.detach(), **critic_scores(scores_BL, labels_BL, valid_mask=puzzle.valid_mask)}


def _cut_off(shown: Shown | None) -> Shown | None:
    """Without graphs, for another module's step."""
    if shown is None or shown.puzzle.condition is None:
        return shown
    told = Condition(*(None if part is None else part.detach() for part in shown.puzzle.condition))  # type: ignore[arg-type]
    return Shown(shown.puzzle._replace(condition=told), shown.filled_BL)
