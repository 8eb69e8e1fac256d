"""The losses of a tokenizer: one configuration, and the module that adds the terms up.

The adversarial terms, which need a second optimizer, are in ``adversarial_pair``.

Letters: B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.quantize.base import check_whole

from .adversarial_pair import AdversarialConfig
from .features import RandomFeatures, RandomFeaturesConfig, feature_loss, feature_pairs, gram_loss
from .frequency import haar_loss
from .lpips import LPIPS
from .pixels import charbonnier, check_pair, fill_frames, frames_mean, l1, l2, neighbours_valid, temporal
from .term import Term, check_weight

__all__ = ["TERMS", "LossConfig", "Losses"]

TERMS = ("l1", "l2", "charbonnier", "first", "temporal", "haar", "random", "lpips", "gram")
"""The terms of ``LossConfig``, in the order in which they are added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Which terms, how much each, and from which step on. None leaves a term out; one at least is needed.

    Attributes:
        l1, l2, charbonnier: differences of pixels, see ``pixels``.
        first: L2 once more of the first frames alone. A tokenizer that codes the first frame by itself learns pictures
            from it only, and among many frames it hardly counts.
        temporal: differences of temporal differences (flicker).
        haar: L1 of Haar details, see ``frequency``.
        random: features of a fixed random network, see ``features``.
        lpips: LPIPS; ``Losses`` then needs the weights.
        gram: Gram matrices of the features named by ``gram_features``.
        charbonnier_eps: of Charbonnier.
        haar_levels: of the Haar transform.
        random_features: the random network.
        gram_features: ``random`` or ``lpips``.
        max_frames: at most so many frames of a clip, evenly spaced and moving on with the step, go through networks
            that look at frames one by one (LPIPS, random features of ``dims=2``); None: all.
        adversarial: configuration of ``AdversarialPair``, which is built beside ``Losses``; None: no critic.
    """

    l1: Term | None = None
    l2: Term | None = None
    charbonnier: Term | None = None
    first: Term | None = None
    temporal: Term | None = None
    haar: Term | None = None
    random: Term | None = None
    lpips: Term | None = None
    gram: Term | None = None
    charbonnier_eps: float = 1e-3
    haar_levels: int = 3
    random_features: RandomFeaturesConfig = field(default_factory=RandomFeaturesConfig)
    gram_features: Literal["random", "lpips"] = "random"
    max_frames: int | None = None
    adversarial: AdversarialConfig | None = None

    def __post_init__(self) -> None:
        for name in TERMS:
            term = getattr(self, name)
            if term is not None and not isinstance(term, Term):
                raise InputError(f"LossConfig.{name} must be a Term or None, got {term!r}; Term(weight=...) makes one")
        if not self.terms():
            raise InputError(f"LossConfig needs at least one of {', '.join(TERMS)}")
        check_weight("LossConfig", "charbonnier_eps", self.charbonnier_eps)
        if self.charbonnier_eps == 0:
            raise InputError("LossConfig.charbonnier_eps must be above 0; with 0 it is l1")
        check_whole("LossConfig", "haar_levels", self.haar_levels, 1)
        if self.max_frames is not None:
            check_whole("LossConfig", "max_frames", self.max_frames, 1)
        if self.gram_features not in ("random", "lpips"):
            raise InputError(f"LossConfig.gram_features must be 'random' or 'lpips', got {self.gram_features!r}")
        if self.adversarial is not None and not isinstance(self.adversarial, AdversarialConfig):
            raise InputError(f"LossConfig.adversarial must be an AdversarialConfig or None, got {self.adversarial!r}")

    def terms(self) -> dict[str, Term]:
        """The terms that are not left out, by name."""
        return {name: getattr(self, name) for name in TERMS if getattr(self, name) is not None}

    def needs(self, features: str) -> bool:
        """Whether any term reads these features, ``random`` or ``lpips``."""
        terms = self.terms()
        return features in terms or ("gram" in terms and self.gram_features == features)


class Losses(nn.Module):
    """All terms but the adversarial ones: ``losses(reconstruction, target, step=...) -> (total, metrics)``.

    Has no parameters and nothing in its state: what is fixed is made again from the configuration.

    Args:
        config: the terms.
        lpips: from ``load_lpips``, where a term needs it.
    """

    def __init__(self, config: LossConfig, *, lpips: LPIPS | None = None) -> None:
        super().__init__()
        self.config = config
        if config.needs("lpips") and lpips is None:
            raise InputError("LossConfig asks for LPIPS features; give lpips=load_lpips(path of its weights)")
        self.random = RandomFeatures(config.random_features) if config.needs("random") else None
        self.lpips = lpips

    def forward(
        self,
        reconstruction_BCTHW: Tensor,
        target_BCTHW: Tensor,
        *,
        step: int,
        valid_frames: Tensor | None = None,
        aux_losses: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and every term by name (``l1_loss``, ...) without its weight and its gradient.

        Everything is computed in fp32 or wider, outside autocast. A term whose weight is 0 at this step is left out.

        Args:
            reconstruction_BCTHW: float, meant for [-1, 1], any float dtype.
            target_BCTHW: the same shape.
            step: of training, counted from 0.
            valid_frames: (B, T) bool, True = real. Terms are means over all valid frames of the batch.
            aux_losses: of the quantizer, already weighted (``Quantized.aux_losses``): added and reported as they are.
        """
        check_pair(reconstruction_BCTHW, target_BCTHW, valid_frames)
        weights = {name: term.at(step) for name, term in self.config.terms().items() if term.at(step) > 0}
        with torch.autocast(device_type=target_BCTHW.device.type, enabled=False):
            ours = fill_frames(reconstruction_BCTHW, valid_frames)
            theirs = fill_frames(target_BCTHW.detach(), valid_frames)
            values = self._pixel_terms(weights, ours, theirs, valid_frames)
            values |= self._feature_terms(weights, ours, theirs, valid_frames, step)
            total = ours.new_zeros(())
            for name, weight in weights.items():
                total = total + weight * values[name]
            metrics = {f"{name}_loss": values[name].detach() for name in weights}
            for name, loss in (aux_losses or {}).items():
                total = total + loss.to(total.dtype)
                metrics[name] = loss.detach()
        return total, metrics

    def _pixel_terms(
        self, weights: Mapping[str, float], ours: Tensor, theirs: Tensor, valid_frames: Tensor | None
    ) -> dict[str, Tensor]:
        config = self.config
        ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "l1": l1,
            "l2": l2,
            "charbonnier": lambda ours, theirs: charbonnier(ours, theirs, config.charbonnier_eps),
            "haar": lambda ours, theirs: haar_loss(ours, theirs, config.haar_levels),
        }
        values = {name: frames_mean(way(ours, theirs), valid_frames) for name, way in ways.items() if name in weights}
        if "first" in weights:
            valid = None if valid_frames is None else valid_frames[:, :1]
            values["first"] = frames_mean(l2(ours[:, :, :1], theirs[:, :, :1]), valid)
        if "temporal" in weights:
            values["temporal"] = frames_mean(temporal(ours, theirs), neighbours_valid(valid_frames))
        return values

    def _feature_terms(
        self, weights: Mapping[str, float], ours: Tensor, theirs: Tensor, valid_frames: Tensor | None, step: int
    ) -> dict[str, Tensor]:
        config = self.config
        values = {}
        for name, network, loss in (
            ("random", self.random, feature_loss),
            ("lpips", self.lpips, None if self.lpips is None else self.lpips.loss),
        ):
            has_gram = "gram" in weights and config.gram_features == name
            if network is None or loss is None or not (name in weights or has_gram):
                continue
            some = (ours, theirs, valid_frames)
            if config.max_frames is not None and not (name == "random" and config.random_features.dims == 3):
                some = _chosen_frames(ours, theirs, valid_frames, config.max_frames, step)
            pairs = feature_pairs(network, *some[:2])
            if name in weights:
                values[name] = loss(pairs, some[2])
            if has_gram:
                values["gram"] = gram_loss(pairs, some[2])
        return values


def _chosen_frames(
    ours: Tensor, theirs: Tensor, valid_frames: Tensor | None, count: int, step: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Both videos and the mask at ``count`` frames, evenly spaced from one that depends on the step."""
    total = ours.shape[2]
    if count >= total:
        return ours, theirs, valid_frames
    index = (torch.arange(count, device=ours.device) * total // count + step) % total
    chosen = None if valid_frames is None else valid_frames[:, index]
    return ours.index_select(2, index), theirs.index_select(2, index), chosen
