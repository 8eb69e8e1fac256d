"""What commands print: results for people or as JSON, and progress on anything that takes over a second."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Annotated, Any, Self

import typer

__all__ = ["Bar", "Json", "Quiet", "amount", "show"]

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]

_PATIENCE_SECONDS = 1.0


class Bar:
    """A progress bar on the terminal's error stream with done, total, rate and time left.

    It appears after one second, so that short work stays silent; without a terminal, or if told to be quiet, never.
    Call it as a job's ``progress``.
    """

    def __init__(self, what: str, *, unit: str = "frames", quiet: bool = False) -> None:
        self.what, self.unit = what, unit
        self._lock = threading.Lock()
        self._bar: Any = None
        self._task: Any = None
        self._last: tuple[int, int | None] = (0, None)
        # A timer, not the first call, shows it: compiling or opening a file may take long before anything is done.
        self._timer = threading.Timer(_PATIENCE_SECONDS, self._open)
        self._timer.daemon = True
        self._is_shown = not quiet and sys.stderr.isatty()

    def __call__(self, done: int, total: int | None) -> None:
        """Tell how far the work is."""
        with self._lock:
            self._last = done, total
            if self._bar is not None:
                self._bar.update(self._task, completed=done, total=total)

    def __enter__(self) -> Self:
        if self._is_shown:
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            self._is_shown = False
            if self._bar is not None:
                self._bar.stop()
        self._timer.cancel()

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        with self._lock:
            if not self._is_shown:  # the work is done
                return
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self.unit),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(self.what, completed=self._last[0], total=self._last[1])
            self._bar.start()


def show(values: Mapping[str, Any], sentence: str, *, as_json: bool, quiet: bool) -> None:
    """Print a result: the JSON object, or the sentence for people, or nothing."""
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False, allow_nan=False))
    elif not quiet:
        typer.echo(sentence)


def amount(count: float) -> str:
    """Bytes as people read them.

    >>> amount(168_481_656)
    '168.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
