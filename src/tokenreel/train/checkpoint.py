"""Checkpoints of a run: written whole or not at all, the last few kept, on ``torch.distributed.checkpoint``.

A checkpoint is a folder ``step-0001000`` with the tensors of all processes and ``state.json``. Its index is pickled by
torch: load only runs of your own. What is handed to others is the exported tokenizer (safetensors and JSON).
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException

from tokenreel.errors import FormatError, TokenReelWarning

from .runtime import Runtime

__all__ = ["latest", "load_checkpoint", "save_checkpoint"]

_PREFIX = "step-"
_STATE = "state.json"


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Any], values: dict[str, Any], *, keep: int, runtime: Runtime
) -> bool:
    """Write the state after ``step`` steps, then remove all but the last ``keep``; False if the disk would not take it.

    A failure leaves the older checkpoints and a warning; training goes on and tries again at the next.

    Args:
        folder: of all checkpoints of the run.
        step: steps done.
        tensors: nested dict of tensors and plain values, each process its own share.
        values: JSON values of this process; kept for each.
        keep: how many checkpoints stay.
        runtime: the processes.
    """
    name = f"{_PREFIX}{step:07d}"
    part, whole = folder / f".{name}.part", folder / name
    try:
        if runtime.is_main:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        runtime.wait()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that no process group is there, which is as it should be
            state_dict_saver.save(tensors, checkpoint_id=part, no_dist=runtime.world_size == 1)
        (part / f"rank-{runtime.rank}.json").write_text(json.dumps(values))
        runtime.wait()
        if runtime.is_main:
            (part / _STATE).write_text(json.dumps({"step": step, "world_size": runtime.world_size}))
            shutil.rmtree(whole, ignore_errors=True)
            part.rename(whole)
    except (OSError, CheckpointException) as error:
        if runtime.world_size > 1:
            raise
        shutil.rmtree(part, ignore_errors=True)
        reason = str(error).strip().splitlines()[-1]
        warnings.warn(f"the checkpoint of step {step} could not be written ({reason})", TokenReelWarning, stacklevel=2)
        return False
    if runtime.is_main:
        for old in _all(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    runtime.wait()
    return True


def latest(folder: Path) -> Path | None:
    """The last whole checkpoint of a run, or None."""
    found = _all(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path, tensors: dict[str, Any], *, runtime: Runtime) -> tuple[int, dict[str, Any]]:
    """Fill ``tensors`` in place; gives the steps done and this process's values.

    Raises:
        FormatError: it is damaged, or was written by another number of processes.
    """
    try:
        state = json.loads((path / _STATE).read_text())
        values = json.loads((path / f"rank-{min(runtime.rank, state['world_size'] - 1)}.json").read_text())
        if state["world_size"] != runtime.world_size:
            raise FormatError(
                f"{path} was written by {state['world_size']} processes, these are {runtime.world_size}; the order of "
                "the data would change, so resume with as many"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state_dict_loader.load(tensors, checkpoint_id=path, no_dist=runtime.world_size == 1)
    except (OSError, ValueError, KeyError, CheckpointException) as error:
        if isinstance(error, FormatError):
            raise
        reason = str(error).strip().splitlines()[-1]
        raise FormatError(
            f"the checkpoint {path} cannot be read ({reason}); remove it to go on from the one before"
        ) from error
    return int(state["step"]), values


def _all(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.startswith(_PREFIX) and (path / _STATE).is_file())
