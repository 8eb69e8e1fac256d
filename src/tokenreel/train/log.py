"""What a run leaves to read: ``metrics.jsonl``, one object a line, and tensorboard's events."""

from __future__ import annotations

import errno
import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError, TokenReelWarning

__all__ = ["RunLog", "read_log"]

_ABOUT_LOSSES = "_loss"


class RunLog:
    """Appends lines; what a killed run wrote past the step it goes on from is taken back first.

    A line that the disk does not take is lost with a warning: a run must not end for its log.

    Args:
        folder: of the run.
        step: steps done so far.
        tensorboard: whether events are written, too (needs the tensorboard package, which comes with tokenreel).
    """

    def __init__(self, folder: Path, *, step: int = 0, tensorboard: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_log(self.path) if line.get("step", 0) <= step]
        temporary = self.path.with_suffix(".part")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(self.path)
        self._has_warned = False
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, values: Mapping[str, float]) -> None:
        """One line; ``step`` must be among the values. Values that are not finite are written as null."""
        if "step" not in values:
            raise InputError(f"a line of the log must have its step, got {', '.join(values)}")
        line = {name: _short(value) for name, value in values.items()}
        try:
            self._append(json.dumps(line, allow_nan=False) + "\n")
            if self._events is not None:
                for name, value in values.items():
                    if name != "step":
                        self._events.add_scalar(_event(name), value, int(values["step"]))
        except OSError as error:
            self._lost(error)

    def picture(self, name: str, pixels_HWC: Any, step: int) -> None:
        """A uint8 picture (H, W, 3)."""
        if self._events is not None:
            try:
                self._events.add_image(name, pixels_HWC, step, dataformats="HWC")
            except OSError as error:
                self._lost(error)

    def close(self) -> None:
        """Flush."""
        if self._events is not None:
            try:
                self._events.close()
            except OSError as error:
                self._lost(error)

    def _append(self, text: str) -> None:
        """Whole or not at all: a line that was cut short is taken back."""
        with self.path.open("ab", buffering=0) as file:  # what a buffer held would come out later, at its close
            end, line = file.tell(), text.encode()
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                os.truncate(self.path, end)
                raise

    def _lost(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            text = f"the log {self.path} could not be written ({error.strerror or error}); training goes on without"
            warnings.warn(text, TokenReelWarning, stacklevel=3)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a crash cut short is left out."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _event(name: str) -> str:
    return f"train/loss/{name.removesuffix(_ABOUT_LOSSES)}" if name.endswith("loss") else f"train/{name}"


def _short(value: float) -> float | None:
    if isinstance(value, int):
        return int(value)
    return float(f"{value:.6g}") if math.isfinite(value) else None
