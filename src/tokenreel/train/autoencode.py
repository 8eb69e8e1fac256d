"""The objective of tokenizers: pixels to tokens to pixels.

Letters: B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokenreel.quantize import VQ, batch_usage
from tokenreel.tokenizers import CViViT, TiTok, TiTokVideo

from .adversarial_pair import AdversarialPair
from .batches import Batch, BatchStream
from .losses import Losses
from .objective import Step
from .runtime import Runtime

__all__ = ["Autoencode", "start_linear_path"]

_FIRST_BATCHES = 16
_FIRST_BATCHES_OF_MANY = 80  # for as many transforms
_PATCHES_A_CODE = 512  # of a codebook; most of a clip's patches are like others of it
_FIRST_CLIPS_OF_ROWS = 1000  # a clip has many patches, but only one spectrum

Pair = tuple[Tensor, Tensor]


class Autoencode:
    """``Losses`` of a tokenizer's reconstruction, its quantizer's losses, and the critic's term where there is one.

    ``passes`` are numbers of passes of a predictive tokenizer (``CViViT.forward``), one drawn for each batch.

    Packed batches are compared clip size by clip size; each size weighs as many clips as it has.
    """

    def __init__(self, losses: Losses, critic: AdversarialPair | None = None, *, passes: Sequence[int] = ()) -> None:
        self.losses, self.passes = losses, tuple(passes)
        self.critic: nn.Module | None = critic

    def __call__(self, model: nn.Module, batch: Batch, *, step: int, generator: torch.Generator) -> Step:
        """The loss of one batch."""
        options: dict[str, Any] = {}
        if batch.token_counts is not None:
            options["token_counts"] = batch.token_counts.tolist()
        if self.passes:
            drawn = torch.randint(len(self.passes), (), generator=generator, device=generator.device)
            options["passes"] = self.passes[int(drawn)]
        videos = _on(batch.videos, generator.device)
        out = model(videos, generator=generator, **options)
        pairs = _pairs(out.video, videos)
        loss, metrics = self._compared(pairs, step)
        for name, value in out.aux.items():
            loss = loss + value
            metrics[name] = value.detach()
        if isinstance(self.critic, AdversarialPair) and self.critic.is_active(step):
            term, more = self._adversarial(self.critic, pairs, step, loss, _unwrapped(model))
            loss, metrics = loss + term, metrics | more
        with torch.no_grad():
            usage, perplexity = _usage(out.ids, _unwrapped(model))
            squares = sum((ours - theirs).square().mean() * len(ours) for ours, theirs in pairs)
            mse = torch.as_tensor(squares / sum(len(ours) for ours, _ in pairs)) / 4  # on [0, 1]
        metrics |= {"psnr_db": -10 * mse.log10(), "perplexity": perplexity, "usage": usage}
        return Step(loss, metrics, pairs, len(batch), out.ids.numel())

    def critic_step(
        self, critic: nn.Module, seen: list[Pair], *, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The critic's loss on these reconstructions and their targets."""
        if not isinstance(self.critic, AdversarialPair) or not self.critic.is_active(step):
            return None
        return _mean([(len(ours), critic(ours, theirs, step=step, generator=generator)) for ours, theirs in seen])

    def _compared(self, pairs: list[Pair], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return _mean([(len(ours), self.losses(ours, theirs, step=step)) for ours, theirs in pairs])

    def _adversarial(
        self, critic: AdversarialPair, pairs: list[Pair], step: int, rest: Tensor, model: nn.Module
    ) -> tuple[Tensor, dict[str, Tensor]]:
        last = getattr(model, "last_weight", None)
        return _mean(
            [
                (len(ours), critic.generator_loss(ours, theirs, step=step, rest=rest, last_weight=last))
                for ours, theirs in pairs
            ]
        )


def start_linear_path(model: nn.Module, batches: BatchStream, runtime: Runtime) -> None:
    """Start a tokenizer that has a linear path or a spectrum as the codec that fits its first batches.

    The same on all processes.
    """
    if isinstance(model, CViViT) and (model.config.linear_path or model.transforms is not None):
        model.start_linear(_first_videos(model, batches))
    elif isinstance(model, TiTok | TiTokVideo) and model.spectrum is not None:
        videos = (video for number in itertools.count() for video in batches.batch(number).videos)
        if runtime.is_main:
            model.start_spectral(itertools.islice(videos, _FIRST_CLIPS_OF_ROWS))
    else:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        runtime.share(tensor)


def _first_videos(model: CViViT, batches: BatchStream) -> list[Tensor]:
    """What a codec is fitted to: the first batches."""
    if isinstance(model.quantizer, VQ):
        found, wanted = [], _PATCHES_A_CODE * model.quantizer.codebook_size
        for number in itertools.count():
            for video in batches.batch(number).videos:
                found.append(video)
                wanted -= model.num_tokens_of((video.shape[1], video.shape[2], video.shape[3]))
                if wanted <= 0:
                    return found
    count = _FIRST_BATCHES if model.transforms is None else _FIRST_BATCHES_OF_MANY
    return [video for number in range(count) for video in batches.batch(number).videos]


def _pairs(ours: Tensor | tuple[Tensor, ...], theirs: Tensor | tuple[Tensor, ...]) -> list[Pair]:
    """Reconstructions and targets as batches of equal size."""
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        return [(ours, theirs)]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, video in enumerate(theirs):
        sizes.setdefault(tuple(video.shape), []).append(index)
    return [
        (torch.stack([ours[i] for i in indices]), torch.stack([theirs[i] for i in indices]))
        for indices in sizes.values()
    ]


def _mean(parts: Sequence[tuple[int, tuple[Tensor, dict[str, Tensor]]]]) -> tuple[Tensor, dict[str, Tensor]]:
    """(clips, (loss, metrics)) of each size -> loss and metrics of a clip on average."""
    clips = sum(count for count, _ in parts)
    loss = torch.stack([part * (count / clips) for count, (part, _) in parts]).sum()
    names = parts[0][1][1]
    return loss, {
        name: torch.stack([metrics[name] * (count / clips) for count, (_, metrics) in parts]).sum() for name in names
    }


def _on(videos: Tensor | tuple[Tensor, ...], device: torch.device) -> Tensor | tuple[Tensor, ...]:
    if isinstance(videos, Tensor):
        return videos.to(device, non_blocking=True)
    return tuple(video.to(device, non_blocking=True) for video in videos)


def _unwrapped(model: nn.Module) -> nn.Module:
    inner = getattr(model, "module", model)
    return getattr(inner, "_orig_mod", inner)


def _usage(ids: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
    found = batch_usage(ids, int(model.codebook_size))  # type: ignore[arg-type]
    return torch.as_tensor(found[0], dtype=torch.float32), torch.as_tensor(found[1], dtype=torch.float32)
