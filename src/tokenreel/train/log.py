"""What a run leaves to read: ``metrics.jsonl``, one object a line, and tensorboard's events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["RunLog", "read_log"]

_ABOUT_LOSSES = "_loss"


class RunLog:
    """Appends lines; what a killed run wrote past the step it goes on from is taken back first.

    Args:
        folder: of the run.
        step: steps done so far.
        tensorboard: whether events are written, too (needs the tensorboard package, which comes with tokenreel).
    """

    def __init__(self, folder: Path, *, step: int = 0, tensorboard: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_log(self.path) if line["step"] <= step]
        temporary = self.path.with_suffix(".part")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(self.path)
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, values: dict[str, float]) -> None:
        """One line; ``step`` must be among the values."""
        with self.path.open("a") as file:
            file.write(json.dumps({name: _short(value) for name, value in values.items()}) + "\n")
        if self._events is None:
            return
        for name, value in values.items():
            if name != "step":
                key = f"train/loss/{name.removesuffix(_ABOUT_LOSSES)}" if name.endswith("loss") else f"train/{name}"
                self._events.add_scalar(key, value, int(values["step"]))

    def picture(self, name: str, pixels_HWC: Any, step: int) -> None:
        """A uint8 picture (H, W, 3)."""
        if self._events is not None:
            self._events.add_image(name, pixels_HWC, step, dataformats="HWC")

    def close(self) -> None:
        """Flush."""
        if self._events is not None:
            self._events.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a crash cut short is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def _short(value: float) -> float:
    return int(value) if isinstance(value, int) else float(f"{value:.6g}")
