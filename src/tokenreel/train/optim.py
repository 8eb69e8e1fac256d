"""Parameter groups, optimizers, the learning rate over time, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tokenreel.errors import InputError

from .muon import CPUMuon
from .runtime import has_bf16

__all__ = ["Average", "OptimConfig", "factor_at", "make_optimizers"]

Kind = Literal["adamw", "muon"]
_KEPT = "blocks"  # matrices inside stacks of blocks are what Muon is for


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How weights are moved.

    Attributes:
        lr: the highest learning rate.
        kind: ``adamw`` (arXiv 1711.05101) for all; ``muon`` (orthogonalised momentum) for the matrices of transformer
            blocks, at the update size of AdamW (arXiv 2502.16982, eq. 4), AdamW for the rest. On CPUs it
            orthogonalises in float32, see ``muon``.
        rates: learning rates of some parts over ``lr``, by how the names of their parameters begin: what starts as a
            good codec wants slower steps than what starts at random.
        betas: of AdamW.
        weight_decay: of matrices; vectors (biases, norms, tokens) and positions have none.
        warmup_steps: linear from 0.
        final_share: learning rate at the last step over the highest; cosine between.
        clip_norm: gradients longer than this are scaled to it; None: never.
        ema_decay: of the moving average of the weights, which is what is evaluated and exported; None: no average.
            It starts faster: min(decay, (1 + step) / (10 + step)).
    """

    lr: float
    kind: Kind = "adamw"
    rates: Mapping[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.05
    warmup_steps: int = 100
    final_share: float = 0.05
    clip_norm: float | None = 1.0
    ema_decay: float | None = 0.999

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        if not self.lr > 0 or self.weight_decay < 0 or self.warmup_steps < 0 or not 0 <= self.final_share <= 1:
            raise InputError(
                f"OptimConfig needs lr > 0, weight_decay and warmup_steps >= 0 and final_share in [0, 1], got {self}"
            )
        if any(not rate >= 0 for rate in self.rates.values()):
            raise InputError(f"OptimConfig.rates must be at least 0, got {dict(self.rates)}")
        if self.kind not in get_args(Kind):
            raise InputError(f"OptimConfig.kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"OptimConfig.clip_norm must be above 0 or None, got {self.clip_norm}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InputError(f"OptimConfig.ema_decay must lie in [0, 1) or be None, got {self.ema_decay}")


def factor_at(step: int, steps: int, config: OptimConfig) -> float:
    """Learning rate over the highest, at a step counted from 0, of a run of ``steps``.

    >>> config = OptimConfig(lr=1e-3, warmup_steps=10, final_share=0.1)
    >>> [round(factor_at(step, 110, config), 2) for step in (0, 9, 10, 60, 110)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    share = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
    return config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * share)) / 2


def make_optimizers(module: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """Optimizers over all parameters that take gradients; each group keeps its highest rate as ``max_lr``."""
    learned = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not learned:
        raise InputError("there is nothing to learn: every parameter is frozen")

    def rate_of(name: str) -> float:
        return next((rate for part, rate in config.rates.items() if name.startswith(part)), 1.0)

    for part in config.rates:
        if not any(name.startswith(part) for name, _ in module.named_parameters()):
            raise InputError(f"OptimConfig.rates names {part!r}, but no parameter's name begins so")
    optimizers: list[torch.optim.Optimizer] = []
    inner = [(name, p) for name, p in learned if _is_muons(name, p, config)]
    rest = [(name, p) for name, p in learned if not _is_muons(name, p, config)]
    if rest:
        groups = [
            {"params": params, "weight_decay": config.weight_decay if is_decayed else 0.0, "max_lr": config.lr * rate}
            for (is_decayed, rate), params in _grouped(rest, lambda name, p: (_is_decayed(name, p), rate_of(name)))
        ]
        optimizers.append(torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-8, fused=True))
    if inner:
        groups = [
            {"params": params, "max_lr": config.lr * rate}
            for rate, params in _grouped(inner, lambda name, _: rate_of(name))
        ]
        optimizers.append(_muon(groups, config))
    return optimizers


def _is_muons(name: str, parameter: Tensor, config: OptimConfig) -> bool:
    return config.kind == "muon" and parameter.ndim == 2 and f".{_KEPT}." in f".{name}"


def _grouped(
    parameters: Iterable[tuple[str, nn.Parameter]], key: Callable[[str, nn.Parameter], Any]
) -> list[tuple[Any, list[nn.Parameter]]]:
    """Parameters of one key together, in order."""
    groups: dict[Any, list[nn.Parameter]] = {}
    for name, parameter in parameters:
        groups.setdefault(key(name, parameter), []).append(parameter)
    return list(groups.items())


def _muon(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    if all(type(one.data) is Tensor and one.device.type == "cpu" for group in groups for one in group["params"]):
        dtype = torch.bfloat16 if has_bf16(torch.device("cpu")) else torch.float32
        return CPUMuon(groups, lr=config.lr, weight_decay=config.weight_decay, dtype=dtype)
    if not hasattr(torch.optim, "Muon"):
        raise InputError(f"optim.kind=muon needs torch 2.9 or later, this is {torch.__version__}; say adamw")
    return torch.optim.Muon(groups, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")


def _is_decayed(name: str, parameter: Tensor) -> bool:
    is_position = "table" in name or "queries" in name or "codebook" in name
    return parameter.ndim >= 2 and not is_position


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to ``factor`` times its highest."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["max_lr"] * factor


class Average:
    """Exponential moving average of a module's parameters; buffers are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """After the optimizer's step number ``step``, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(module.named_parameters())
        torch._foreach_lerp_(
            list(self.weights.values()), [parameters[name].detach() for name in self.weights], 1 - decay
        )

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """Within, the module holds the averages."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    @torch.no_grad()
    def _swap(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            held = parameter.detach().clone()
            parameter.copy_(self.weights[name])
            self.weights[name].copy_(held)

    def state_dict(self) -> dict[str, Any]:
        """The averages by name."""
        return dict(self.weights)
