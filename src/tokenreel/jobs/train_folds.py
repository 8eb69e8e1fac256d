"""Leave-one-group-out: a run for each group of a labelled set, the group held out; what all of them tell is summed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenreel.errors import InputError
from tokenreel.files import whole_file
from tokenreel.measure.classification import wilson
from tokenreel.train.checkpoint import latest
from tokenreel.train.recipes import load_recipe
from tokenreel.train.recipes_classify import ClassifyRecipe

from .train import OnLine, train
from .train_classify import SCORES_NAME

__all__ = ["FOLDS_NAME", "train_folds"]

FOLDS_NAME = "folds.json"
"""In the folder of all runs: what is told of every group, and in sum."""


def train_folds(
    recipe: str,
    *,
    folder: Path | None = None,
    overrides: Sequence[str] = (),
    data: Sequence[str] = (),
    device: str = "auto",
    on_line: OnLine | None = None,
    on_fold: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Train without each group in turn and measure on it: a folder a group in ``folder``, and ``folds.json``.

    Stopped, the same call goes on: groups that are done are only measured again, the one in the middle goes on from
    its checkpoint.

    Args:
        recipe, overrides, data, device, on_line: as for ``train``; of a classifier whose data has groups.
        folder: of all runs; ``runs/NAME-folds`` by default.
        on_fold: called with (group, how many are done, how many there are) before each.

    Returns:
        ``recipe``, ``folder``, ``finished``, ``folds`` (group, examples, mistakes), ``heads`` (examples, mistakes,
        accuracy, its 95 % interval by Wilson's score, classes, confusion).

    Raises:
        InputError: the recipe is of no classifier, or its data has no groups.
    """
    plan = load_recipe(recipe, overrides=overrides, data=data)
    if not isinstance(plan, ClassifyRecipe):
        raise InputError(f"folds are of classifiers with labelled data; {plan.name} trains something else")
    groups = plan.data.groups()
    if len(groups) < 2:
        raise InputError(
            f"folds need examples of at least two groups, got {len(groups)}; say data.group=REGEX, whose first bracket "
            "is the group (performer\\d+), or give a table with a column group"
        )
    folder = Path("runs") / f"{plan.name}-folds" if folder is None else folder
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for number, group in enumerate(groups):
        if on_fold is not None:
            on_fold(group, number, len(groups))
        place = folder / f"{number:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', group)}"
        chosen = [*overrides, f"data.hold_out={json.dumps(group, ensure_ascii=False)}"]
        result = train(
            recipe,
            folder=place,
            overrides=chosen,
            data=data,
            device=device,
            resume=(place / "metrics.jsonl").is_file() or latest(place / "checkpoints") is not None,
            on_line=on_line,
        )
        if not result["finished"]:
            return {"recipe": plan.name, "folder": str(folder), "finished": False, "folds": _folds(parts)}
        scores = json.loads((Path(result["classifier"]) / SCORES_NAME).read_text())
        parts[group] = scores["parts"]["test"]
    told = {"recipe": plan.name, "folder": str(folder), "finished": True, "folds": _folds(parts), "heads": _sums(parts)}
    with whole_file(folder / FOLDS_NAME) as path:
        path.write_text(json.dumps(told, indent=1) + "\n")
    return told


def _folds(parts: Mapping[str, list[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {
            "group": group,
            "examples": max(one["examples"] for one in heads),
            "mistakes": {one["head"]: one["mistakes"] for one in heads},
            "wrong": [
                f"{each['truth']}, told {each['predicted']}" for one in heads for each in one["confident_mistakes"]
            ],
        }
        for group, heads in parts.items()
    ]


def _sums(parts: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for heads in parts.values():
        for one in heads:
            told = {"examples": 0, "mistakes": 0, "classes": [each["name"] for each in one["classes"]], "confusion": []}
            into = found.setdefault(one["head"], told)
            into["examples"] += one["examples"]
            into["mistakes"] += one["mistakes"]
            rows = into["confusion"] or [[0] * len(row) for row in one["confusion"]]
            into["confusion"] = [[a + b for a, b in zip(old, new)] for old, new in zip(rows, one["confusion"])]
    for into in found.values():
        right = into["examples"] - into["mistakes"]
        into["accuracy"] = right / into["examples"]
        into["interval"] = list(wilson(right, into["examples"]))
    return found
