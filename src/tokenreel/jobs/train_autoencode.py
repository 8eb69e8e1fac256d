"""The parts of a tokenizer's run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from tokenreel.errors import InputError
from tokenreel.media.pixels import to_frames
from tokenreel.tokenizers.learned import LearnedTokenizer
from tokenreel.tokenizers.saved import SavedModel
from tokenreel.train.adversarial_pair import AdversarialPair
from tokenreel.train.autoencode import Autoencode, start_linear_path
from tokenreel.train.batches import BatchStream, validation_batches
from tokenreel.train.losses import Losses
from tokenreel.train.lpips import LPIPS, load_lpips
from tokenreel.train.recipes_autoencode import AutoencodeRecipe
from tokenreel.train.recipes_base import Recipe
from tokenreel.train.runtime import Runtime

from .train_parts import Fixed
from .train_resume import described

__all__ = ["AutoencodeParts"]

_SHOWN = 4  # clips in a picture
_FRAMES = 4  # frames of each


class AutoencodeParts:
    """A tokenizer, its losses, and batches of clips; see ``Parts``.

    Args:
        plan: the recipe.
        runtime: device and processes.
        lpips: weights of LPIPS, where the recipe asks for it.
        num_workers: processes that make batches; None: the recipe's.
    """

    fixed = Fixed(
        names=("model.family", "model.config", "model.frozen"),
        within=("model.config.", "losses.adversarial.discriminator."),
        presence=("losses.adversarial", "losses.adversarial.lecam"),
    )

    def __init__(
        self, plan: Recipe, runtime: Runtime, *, lpips: str | None = None, num_workers: int | None = None
    ) -> None:
        assert isinstance(plan, AutoencodeRecipe)
        self.plan, self.runtime = plan, runtime
        self.tokenizer, self.objective = _model_and_objective(plan, runtime, lpips)
        self.model: nn.Module = self.tokenizer
        self.stream = BatchStream(
            plan.data.opened(),
            plan.data.batches,
            seed=plan.loop.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
            num_workers=plan.data.num_workers if num_workers is None else num_workers,
        )
        self.frozen = _freeze(self.tokenizer, plan)
        self._shown: list[Tensor] | None = None

    def about(self) -> Mapping[str, Any]:
        """Family and full configuration."""
        return {"family": self.tokenizer.name, **described(self.tokenizer.config)}

    def start(self) -> None:
        """A tokenizer with a linear path begins as the codec that fits its first batches."""
        if self.plan.model.init is None:
            start_linear_path(self.model.to(self.runtime.device), self.stream, self.runtime)

    def exports(self, model: nn.Module) -> dict[str, SavedModel]:
        """The tokenizer."""
        assert isinstance(model, LearnedTokenizer)
        return {"tokenizer": model}

    def complete(self, folder: Path) -> None:
        """Nothing."""

    def measured(self, model: nn.Module, step: int, folder: Path) -> Mapping[str, float]:
        """Nothing."""
        return {}

    def picture(self, model: nn.Module, step: int) -> Any:
        """Originals beside reconstructions, a few frames of a few clips."""
        from tokenreel.jobs.sheet import contact_sheet

        assert isinstance(model, LearnedTokenizer)
        if self._shown is None:
            self._shown = _validation(self.plan)
        decoded = model.decode(model.encode(self._shown))
        strips = [_strip(video) for pair in zip(self._shown, decoded) for video in pair]
        names = [name for index in range(len(decoded)) for name in (f"clip {index}", f"step {step}")]
        return contact_sheet(strips, names, columns=2, width=1400)


def _model_and_objective(
    plan: AutoencodeRecipe, runtime: Runtime, lpips: str | None
) -> tuple[LearnedTokenizer, Autoencode]:
    from tokenreel.quantize import VQ
    from tokenreel.quantize.cluster import Group

    model = plan.model.build(seed=plan.loop.seed)
    if isinstance(model.quantizer, VQ) and runtime.world_size > 1:
        model.quantizer.group = Group(runtime.rank, runtime.world_size, runtime.all_reduce)
    weights: LPIPS | None = None
    if plan.losses.needs("lpips"):
        if lpips is None:
            raise InputError(
                "this recipe asks for LPIPS; name its weights with --lpips FILE.safetensors, or do without: "
                "losses.lpips=null losses.random=0.1"
            )
        weights = load_lpips(lpips)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.loop.seed + 1)
        critic = None if plan.losses.adversarial is None else AdversarialPair(plan.losses.adversarial)
        losses = Losses(plan.losses, lpips=weights).to(runtime.device)
    return model, Autoencode(losses, critic, passes=plan.model.passes)


def _freeze(model: LearnedTokenizer, plan: AutoencodeRecipe) -> list[nn.Module]:
    if plan.model.frozen is None:
        return []
    named = [getattr(model, name) for name in model.encoder_parts]
    parts: list[nn.Module] = [part for part in named if part is not None]
    for part in parts:
        part.requires_grad_(False)
    return parts


def _validation(plan: AutoencodeRecipe) -> list[Tensor]:
    """A few clips that are looked at again and again, some of every source."""
    each = -(-_SHOWN // len(plan.data.sources))
    found = validation_batches(plan.data.opened(), plan.data.batches, num_clips=each)
    return list(islice((video for batch in found for video in batch.videos), _SHOWN))


def _strip(video_CTHW: Tensor) -> Any:
    """A few frames side by side, uint8."""
    frames = to_frames(video_CTHW)
    index = np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int)
    return rearrange(frames[index], "n H W C -> H (n W) C")
