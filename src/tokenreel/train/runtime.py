"""Where training runs: device, processes, and randomness that depends on seed, step and rank alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from tokenreel.errors import InputError

__all__ = ["Runtime", "generator_of", "has_bf16", "started"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One process of a run.

    Attributes:
        device: of this process.
        rank: of this process, in [0, world_size).
        world_size: processes.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same on each; one process gives the tensor itself."""
        if self.world_size > 1:
            tensor = tensor.contiguous().clone()
            dist.all_reduce(tensor)
        return tensor

    def means(self, metrics: Mapping[str, Tensor]) -> dict[str, float]:
        """Scalars averaged over processes, in one exchange; names must agree."""
        if not metrics:
            return {}
        names = sorted(metrics)
        stacked = torch.stack([metrics[name].detach().float().reshape(()) for name in names]).to(self.device)
        return dict(zip(names, (self.all_reduce(stacked) / self.world_size).tolist()))

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the mean of all, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                tensor.copy_(self.all_reduce(tensor) / self.world_size)

    def share(self, tensor: Tensor) -> None:
        """Give every process the values of the first one, in place."""
        if self.world_size > 1:
            dist.broadcast(tensor.detach(), 0)

    def wait(self) -> None:
        """Until every process is here."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def started(device: str = "auto") -> Iterator[Runtime]:
    """The runtime of this process: alone, or as ``torchrun`` started it (RANK, WORLD_SIZE, LOCAL_RANK).

    Args:
        device: ``auto`` takes CUDA where there is one; ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        InputError: the device is not there.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _device(device, local_rank if world_size > 1 else None)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    began = world_size > 1 and not dist.is_initialized()
    if began:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Runtime(device=chosen, rank=rank, world_size=world_size)
    finally:
        if began:
            dist.destroy_process_group()


def _device(device: str, local_rank: int | None) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if device == "auto":
        device = "cuda" if has_cuda else "cpu"
    if device.startswith("cuda") and not has_cuda:
        raise InputError(f"the device {device!r} is not there: torch sees no CUDA; say device=cpu")
    try:
        chosen = torch.device("cuda", local_rank or 0) if device == "cuda" else torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {device!r} is not there ({reason}); say auto, cpu, cuda or cuda:1") from error
    return chosen


def has_bf16(device: torch.device) -> bool:
    """Whether a device has units for products of bfloat16.

    Of CPUs those with AVX512-bf16 or AMX; torch offers bfloat16 on all, many times slower than float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Private, and the only word of torch on it; where it is missing the answer is no.
    asked = (getattr(torch.cpu, name, bool) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device.type == "cpu" and any(bool(one()) for one in asked)


def generator_of(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """The randomness of one step: nothing of it need be saved to go on exactly."""
    mixed = ((seed * 1_000_003 + step) * 65_537 + rank) % (1 << 63)
    return torch.Generator(device=device).manual_seed(mixed)
