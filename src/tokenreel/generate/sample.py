"""Iterative unmasking as a pure function: every token starts open, and each step decides some until none is left.

MaskGIT, arXiv 2202.04200, section 3.2; guidance as in arXiv 2207.12598, equation 6.

Letters: B rows, L tokens (t * h * w), D dim, N open positions of all rows, F factors of an id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.nn.lowered import lowered
from tokenreel.types import Grid

from .sample_draw import Drawn, check_draw, draw_ids, gumbel
from .sample_orders import Order, OrderKind, decided, planned_places
from .sample_ramps import Ramp, ramp_values
from .schedule import masked_counts

if TYPE_CHECKING:
    from .condition import Condition
    from .critic import Scorer

__all__ = ["MaskedModel", "SampleStep", "sample", "scorer_of"]

_MOST_LOGITS = 1 << 25  # held at once: 128 MiB in float32


class MaskedModel(Protocol):
    """What ``sample`` asks of a generator; ``MaskGIT`` has it."""

    @property
    def vocab(self) -> Any:
        """``codebook_size``, ``levels``, ``mask_id`` and ``join``, as in ``Vocabulary``."""

    def prepare(self, condition: Condition | None, *, num: int, guided: bool) -> Any:
        """What stays the same at every step; ``guided`` stacks null rows below the conditional ones."""

    def features(
        self,
        ids_BL: Tensor,
        *,
        grid: Grid,
        prepared: Any,
        valid_mask: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Ids, the mask id where open -> (B, L, D), or (2B, L, D) where guided; anything where not ``wanted``."""

    def logits(self, features_ND: Tensor) -> tuple[Tensor, ...]:
        """(N, D) -> (N, V_f) a factor, an affine map. One with ``is_chained`` is asked ``next_logits`` instead."""


class SampleStep(NamedTuple):
    """What a callback is told after each step.

    Attributes:
        step, steps: counted from 0. Steps at which no row has a token to decide are passed over.
        ids_BL: int64 (B, L), the mask id where a token is open.
        is_masked_BL: bool (B, L), True = still open.
    """

    step: int
    steps: int
    ids_BL: Tensor
    is_masked_BL: Tensor


@torch.no_grad()
def sample(
    model: MaskedModel,
    *,
    grid: Grid,
    condition: Condition | None,
    order: OrderKind | Order = "confidence",
    steps: int = 18,
    guidance_scale: Ramp = 1.0,
    temperature: Ramp = 1.0,
    known_ids: Tensor | None = None,
    is_masked: Tensor | None = None,
    critic: Scorer | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator,
    callback: Callable[[SampleStep], object] | None = None,
    num: int | None = None,
    valid_mask: Tensor | None = None,
    schedule: str = "cosine",
) -> Tensor:
    """Draw ids (B, L) int64 on a grid.

    Equal generator state and arguments give equal ids. Known ids are never changed. The number of open tokens of a row
    follows ``masked_counts``: it never rises and ends at 0. Rows share one stream of random numbers, so a row also
    depends on which rows stand beside it.

    Args:
        model: a ``MaskGIT``, or whatever else is a ``MaskedModel``. It runs in eval mode and in its ``precision``,
            the critic too; where that is ``fp32``, autocast around the call holds.
        grid: L = t * h * w.
        condition: of B prompts or labels, or None for an unconditional model.
        order: what is decided first, by name or as an ``Order``.
        steps: passes through the model.
        guidance_scale: logits are null + scale * (conditional - null). At 1 the null branch is not computed, else
            both are one batch, combined before the output layer, which is affine. A ramp may change it.
        temperature: of the draws, 0 takes the likeliest; a ramp may change it.
        known_ids: int64 (B, L), what is given; only read where ``is_masked`` is False.
        is_masked: bool (B, L), True = to be decided. With ``known_ids``, and only with it.
        critic: scores tokens, for the orders ``critic`` and ``self_critic``; by default the latter asks the head inside
            the model.
        top_k, top_p: as in ``draw``, for each factor.
        generator: of any device.
        callback: is told a ``SampleStep`` after each step.
        num: B, where neither condition nor known ids tell it; 1 by default.
        valid_mask: bool (B, L), True = real: rows of different lengths. Padding is not decided; it comes back as
            it was given, or as 0.
        schedule: a name in ``SCHEDULES``.

    Raises:
        InputError: arguments are out of range or do not fit together.
    """
    order = Order(kind=order) if isinstance(order, str) else order
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps must be a whole number of at least 1, got {steps!r}")
    critic = scorer_of(order, model, critic)
    scales = ramp_values(guidance_scale, steps=steps, name="guidance_scale")
    temperatures = ramp_values(temperature, steps=steps, name="temperature")
    for value in temperatures:
        check_draw(value, top_k, top_p)
    if condition is None and any(scale != 1 for scale in scales):
        raise InputError(f"guidance_scale {guidance_scale} needs a condition; give one, or guidance_scale=1")
    device = _device_of(model, generator)
    ids_BL, is_free_BL = _start(model, grid, condition, known_ids, is_masked, num, valid_mask, device)
    if valid_mask is not None:
        valid_mask = valid_mask.to(device)
    with _running(device, model, critic):
        walk = _Walk(model, grid, condition, order, critic, generator, valid_mask, is_free_BL)
        counts = [masked_counts(steps, number, schedule) for number in is_free_BL.sum(1).tolist()]
        is_open_BL = is_free_BL
        for step in range(steps):
            left_B = torch.tensor([row[step + 1] for row in counts], device=device)
            if bool((is_open_BL.sum(1) == left_B).all()):
                continue
            choose = _Choice(scales[step], temperatures[step], top_k, top_p, 1 - (step + 1) / steps)
            ids_BL, is_open_BL = walk.step(ids_BL, is_open_BL, left_B, choose)
            if callback is not None:
                seen_BL = ids_BL.masked_fill(is_open_BL, model.vocab.mask_id)
                callback(SampleStep(step, steps, seen_BL, is_open_BL.clone()))
    return ids_BL


class _Choice(NamedTuple):
    """How the tokens of one step are drawn; ``noise`` is the share of the order's noise that is left."""

    scale: float
    temperature: float
    top_k: int | None
    top_p: float | None
    noise: float


class _Walk:
    """What the steps of one sampling share: prepared conditions, the plan, and the tokens that may be decided."""

    def __init__(
        self,
        model: MaskedModel,
        grid: Grid,
        condition: Condition | None,
        order: Order,
        critic: Scorer | None,
        generator: torch.Generator,
        valid_mask: Tensor | None,
        is_free_BL: Tensor,
    ) -> None:
        self.model, self.grid, self.order, self.critic = model, grid, order, critic
        self.condition = None if condition is None else condition.to(is_free_BL.device)
        self.generator, self.valid_mask, self.is_free_BL = generator, valid_mask, is_free_BL
        self._prepared: dict[bool, Any] = {}
        self._judged: Any = None
        self._plan_BL: Tensor | None = None
        num = len(is_free_BL)
        if order.is_planned:
            places_BL = planned_places(order.kind, grid=grid, num=num, generator=generator)
            self._plan_BL = -places_BL.to(is_free_BL.device)
        elif order.has_critic and critic is not None:
            self._judged = critic.prepare(self.condition, num=num)

    def step(self, ids_BL: Tensor, is_open_BL: Tensor, left_B: Tensor, choose: _Choice) -> tuple[Tensor, Tensor]:
        """Ids and open tokens after one step that leaves ``left_B`` open."""
        is_drawn_BL = is_open_BL
        if self._plan_BL is not None:
            is_drawn_BL = self._best(self._plan_BL.double(), is_open_BL, left_B)
        drawn = self._draw(ids_BL.masked_fill(is_open_BL, self.model.vocab.mask_id), is_drawn_BL, choose)
        filled_BL = ids_BL.masked_scatter(is_drawn_BL, self.model.vocab.join(drawn.ids_NF))
        if self._plan_BL is not None:
            return filled_BL, is_open_BL & ~is_drawn_BL
        if not bool(left_B.any()):
            return filled_BL, torch.zeros_like(is_open_BL)
        if self.order.has_critic:
            is_kept_BL = self._best(self._reality(filled_BL, choose), self.is_free_BL, left_B)
            return filled_BL, self.is_free_BL & ~is_kept_BL
        worth_BL = torch.zeros(ids_BL.shape, device=ids_BL.device)
        worth_BL = worth_BL.masked_scatter(is_open_BL, drawn.log_probs_N)
        is_kept_BL = self._best(self._noisy(worth_BL, is_open_BL, choose), is_open_BL, left_B)
        return torch.where(is_kept_BL, filled_BL, ids_BL), is_open_BL & ~is_kept_BL

    def _best(self, worth_BL: Tensor, among_BL: Tensor, left_B: Tensor) -> Tensor:
        """All but ``left_B`` of the tokens ``among``, those of the largest worth."""
        counts_B = among_BL.sum(1) - left_B
        return decided(worth_BL.masked_fill(~among_BL, float("-inf")), counts_B=counts_B) & among_BL

    def _draw(self, ids_BL: Tensor, is_drawn_BL: Tensor, choose: _Choice) -> Drawn:
        """One id for each of the N positions; the output layer sees no others."""
        features_ND = self._features(ids_BL, is_drawn_BL, choose.scale)
        rows = max(1, _MOST_LOGITS // max(self.model.vocab.levels))
        parts = [
            draw_ids(
                self.model,
                part_ND,
                temperature=choose.temperature,
                top_k=choose.top_k,
                top_p=choose.top_p,
                generator=self.generator,
            )
            for part_ND in torch.split(features_ND, rows)
        ]
        return Drawn(torch.cat([part.ids_NF for part in parts]), torch.cat([part.log_probs_N for part in parts]))

    def _features(self, ids_BL: Tensor, is_drawn_BL: Tensor, scale: float) -> Tensor:
        """(N, D), guided."""
        guided = scale != 1
        if guided not in self._prepared:
            self._prepared[guided] = self.model.prepare(self.condition, num=len(ids_BL), guided=guided)
        features = self.model.features(
            ids_BL,
            grid=self.grid,
            prepared=self._prepared[guided],
            valid_mask=self.valid_mask,
            wanted=is_drawn_BL,
        )
        if not guided:
            return features[is_drawn_BL]
        told_BLD, null_BLD = features.chunk(2)
        told_ND, null_ND = told_BLD[is_drawn_BL].float(), null_BLD[is_drawn_BL].float()
        return null_ND.add_(told_ND.sub_(null_ND), alpha=scale).to(features.dtype)

    def _reality(self, filled_BL: Tensor, choose: _Choice) -> Tensor:
        """The less a token looks fake, the larger."""
        assert self.critic is not None  # scorer_of has seen to it
        scores_BL = self.critic.scores(filled_BL, grid=self.grid, prepared=self._judged, valid_mask=self.valid_mask)
        return self._noisy(-scores_BL.float(), self.is_free_BL, choose)

    def _noisy(self, worth_BL: Tensor, where_BL: Tensor, choose: _Choice) -> Tensor:
        """With annealed Gumbel noise where a token is open; the random numbers of other positions are never drawn."""
        strength = self.order.start_noise * choose.noise
        if strength == 0:
            return worth_BL
        noise_N = gumbel(int(where_BL.sum()), generator=self.generator).to(worth_BL.device)
        return worth_BL + strength * torch.zeros_like(worth_BL).masked_scatter(where_BL, noise_N)


def scorer_of(order: Order, model: MaskedModel, critic: Scorer | None) -> Scorer | None:
    """The scorer of an order: the one that is given, or for ``self_critic`` the head inside the model.

    Raises:
        InputError: the order needs a scorer and there is none, or it asks none.
    """
    if critic is not None and not order.has_critic:
        raise InputError(f"the order {order.kind!r} asks no critic; leave critic= out, or take the order 'critic'")
    if critic is None and order.kind == "self_critic" and getattr(model, "critic_head", None) is not None:
        from .critic import SelfCritic

        return SelfCritic(model)  # type: ignore[arg-type]
    if critic is None and order.has_critic:
        inside = ", for this model has none inside" if order.kind == "self_critic" else ""
        raise InputError(f"the order {order.kind!r} needs a critic{inside}; give critic=, or order='confidence'")
    return critic


def _start(
    model: MaskedModel,
    grid: Grid,
    condition: Condition | None,
    known_ids: Tensor | None,
    is_masked: Tensor | None,
    num: int | None,
    valid_mask: Tensor | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Ids (B, L), 0 where nothing is known, and which of them are to be decided."""
    if (known_ids is None) != (is_masked is None):
        raise InputError("known_ids and is_masked go together: give both, or neither to start from nothing")
    told = {
        "num": num,
        "condition": None if condition is None else len(condition.context_BSD),
        "known_ids": None if known_ids is None else len(known_ids),
        "valid_mask": None if valid_mask is None else len(valid_mask),
    }
    rows = max((number for number in told.values() if number is not None), default=1)
    for name, number in told.items():
        if number not in (None, rows) and (name, number) != ("condition", 1):
            raise InputError(f"{name} stands for {number} rows, another argument for {rows}; they must agree")
    shape = (rows, grid.num_cells)
    for name, mask in (("is_masked", is_masked), ("valid_mask", valid_mask)):
        if mask is not None and (tuple(mask.shape) != shape or mask.dtype != torch.bool):
            raise InputError(f"{name} must be bool of shape {shape}, got {mask.dtype} {tuple(mask.shape)}")
    is_free_BL = torch.ones(shape, dtype=torch.bool, device=device)
    if valid_mask is not None:
        is_free_BL &= valid_mask.to(device)
    if known_ids is None or is_masked is None:
        return torch.zeros(shape, dtype=torch.int64, device=device), is_free_BL
    if tuple(known_ids.shape) != shape or known_ids.is_floating_point() or known_ids.dtype == torch.bool:
        raise InputError(f"known_ids must be int64 {shape}, got {known_ids.dtype} {tuple(known_ids.shape)}")
    is_masked = is_masked.to(device)
    ids_BL = known_ids.to(device, torch.int64).masked_fill(is_masked, 0)
    size = model.vocab.codebook_size
    if ids_BL.numel() and (int(ids_BL.min()) < 0 or int(ids_BL.max()) >= size):
        raise InputError(
            f"known_ids must lie in [0, {size}), found {int(ids_BL.min())} to {int(ids_BL.max())}; "
            "are they from another tokenizer?"
        )
    return ids_BL, is_free_BL & is_masked


def _device_of(model: MaskedModel, generator: torch.Generator) -> torch.device:
    if isinstance(model, nn.Module):
        for parameter in model.parameters():
            return parameter.device
    return generator.device


@contextmanager
def _running(device: torch.device, model: object, critic: object) -> Iterator[None]:
    """Eval mode for what is a module, each mode put back after; the model's precision, weights cast once."""
    roots = [root for root in (model, critic) if isinstance(root, nn.Module)]
    training = [module for root in roots for module in root.modules() if module.training]
    is_low = getattr(model, "precision", "fp32") == "bf16"
    for module in training:
        module.training = False
    try:
        with ExitStack() as stack:
            if is_low:
                stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
            if torch.is_autocast_enabled(device.type):
                stack.enter_context(lowered(roots, torch.get_autocast_dtype(device.type)))
            yield
    finally:
        for module in training:
            module.training = True
