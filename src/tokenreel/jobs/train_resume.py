"""Whether a run may go on in a folder: its recipe then and now, compared field by field."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError, MismatchError, TokenReelWarning
from tokenreel.tokenizers.configs import chosen_values, to_values
from tokenreel.train.recipes import OBJECTIVES, Recipe

from .train_parts import Fixed, Parts

__all__ = ["about_run", "check_folder", "check_same", "described"]

_FIXED = ("name", "objective", "optim.kind", "critic_optim.kind")
_FIXED_PRESENCE = ("optim.ema_decay",)
_FREE = ("loop.steps", "loop.keep", "loop.log_every", "loop.look_every", "loop.checkpoint_every", "model.", "data.")


def check_folder(folder: Path, resume: bool) -> None:
    """InputError if the folder cannot be taken for a run."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the run with -o")
    has_run = (folder / "checkpoints").is_dir() or (folder / "metrics.jsonl").is_file()
    if has_run and not resume:
        raise InputError(f"{folder} holds a run; say --resume to go on with it, or -o for another folder")


def about_run(plan: Recipe, parts: Parts) -> dict[str, Any]:
    """The whole recipe as JSON values, with the model's configuration and what the critic is trained with."""
    values = asdict(plan)
    values["model"] |= parts.about()
    values["critic_optim"] = asdict(plan.critic_optim or plan.optim)
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def described(config: Any, name: str = "config") -> dict[str, Any]:
    """A configuration under this name, and which of its fields have their default.

    A run that began before such a field was known has it so, and goes on.
    """
    whole = to_values(config)
    return {name: whole, f"{name}_defaults": sorted(_flat(whole).keys() - _flat(chosen_values(config)).keys())}


def check_same(folder: Path, ours: dict[str, Any], fixed: Fixed, *, warn: bool) -> None:
    """MismatchError if the run in the folder cannot become ours; what else differs is named in a warning.

    Data and seed are for the stream of batches to judge.
    """
    try:
        theirs = json.loads((folder / "recipe.json").read_text())
    except (OSError, ValueError):  # killed before it was written
        return
    old, new = _flat({"objective": next(iter(OBJECTIVES)), **theirs}), _flat(ours)  # once there was one objective
    names = sorted(name for name in old.keys() | new.keys() if old.get(name, ...) != new.get(name, ...))
    unsaid = {
        f"model.{part.removesuffix('_defaults')}.{field}"
        for part, fields in ours["model"].items()
        if part.endswith("_defaults")
        for field in fields
    }
    for name in names:
        if name not in old and name in unsaid:
            continue
        is_fixed = name in (*_FIXED, *fixed.names) or name.startswith(fixed.within)
        needs_both = name in (*_FIXED_PRESENCE, *fixed.presence)
        if is_fixed or (needs_both and None in (old.get(name, ...), new.get(name, ...))):
            raise MismatchError(
                f"{folder} holds a run with {name}={old.get(name)!r}, this one has {new.get(name)!r}; a run keeps its "
                "recipe, model, critic and optimizer: give the same, or -o for another folder"
            )
    changed = [name for name in names if not name.startswith(_FREE)]
    if changed and warn:
        listed = ", ".join(f"{name} ({old.get(name)!r} -> {new.get(name)!r})" for name in changed)
        warnings.warn(f"the run goes on with other values than before: {listed}", TokenReelWarning, stacklevel=5)


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found
