"""Memory that is freed and soon wanted again: kept by the process, where the C library can be asked to."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 1 << 30


def keep_freed_memory() -> bool:
    """From now on blocks of up to 1 GiB are reused by this process and not given back; False where it cannot be asked.

    A training step on a CPU frees its gradients and largest activations, hundreds of MiB, and wants as many at the
    next step; sampling does so with logits. glibc gives blocks of 32 MiB and more back to the system, which then
    clears every page anew: a seventh of a training step of 95 M parameters. The price is that freed memory stays with
    the process, so this is for commands, and for programs that say so.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
