"""How a job tells how far it is; the command line shows it, a library caller may pass any function or nothing."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[int, int | None], None]
"""Called with (done, total) from time to time; ``total`` is None where it is not known."""


def silent(done: int, total: int | None) -> None:
    """Says nothing."""
