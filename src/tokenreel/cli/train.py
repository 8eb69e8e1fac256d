"""``tokenreel train``: a recipe to a trained model."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenreel.cli.show import Json, Quiet, amount, show
from tokenreel.errors import InputError

__all__ = ["train"]

_TOLD_EVERY_SECONDS = 10.0  # where there is no terminal to rewrite a line on
_PATIENCE_SECONDS = 3.0  # before it is told that a run is on its way


def train(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name or a .yaml file; none lists them.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="Fields to change: loop.steps=500 optim.lr=1e-3 losses.random=0.1.", show_default=False),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="Folder, file or shards to learn from, or 'rendered'; repeatable."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the run (runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it costs here: FLOPs, memory, hours; runs a few steps.")
    ] = False,
    folds: Annotated[
        bool,
        typer.Option("--folds", help="A run for each group of labelled data, held out; goes on by itself."),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    lpips: Annotated[str | None, typer.Option(help="LPIPS weights, safetensors, where a recipe asks for them.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a tokenizer or a classifier on your clips, a generator on token shards. Stopped runs go on with --resume.

    Without a recipe: what there is. The folder of the run gets checkpoints/, metrics.jsonl, tensorboard/, pictures/
    and, at the end, tokenizer/, generator/ or classifier/, which other commands take.

    Example: [bold]tokenreel train tiny-cvivit --data clips/ loop.steps=500[/bold]

    Example: [bold]tokenreel train tiny-cvivit --data clips/ --dry-run[/bold]

    Example: [bold]tokenreel train tiny-cvivit --data clips/ loop.steps=1000 --resume[/bold]

    Example: [bold]tokenreel train decoder-sharp --data clips/ model.init=runs/tiny-cvivit/tokenizer[/bold]

    Example: [bold]tokenreel train tiny-maskgit --data token_shards/[/bold]

    Example: [bold]tokenreel train tiny-vivit --data folder_per_class/[/bold]

    Example: [bold]tokenreel train vivit-weizmann --data actions/ --folds[/bold]

    Example: [bold]torchrun --nproc-per-node 8 -m tokenreel.cli.main train cvivit-base --data shards/[/bold]
    """
    if recipe is None:
        _list(as_json, quiet)
        return
    from tokenreel.jobs import train as jobs

    if dry_run:
        cost = jobs.dry_run(recipe, overrides=changes or [], data=data or [], device=device, lpips=lpips)
        show(cost, _cost_sentence(cost), as_json=as_json, quiet=quiet)
        return
    line = _Line(quiet or as_json)
    if folds:
        if resume or lpips:
            raise InputError("--folds goes on by itself where it was stopped, and takes no --resume and no --lpips")
        _folds(recipe, changes or [], data or [], output, device, line, as_json=as_json, quiet=quiet)
        return
    try:
        result = jobs.train(
            recipe,
            folder=output,
            overrides=changes or [],
            data=data or [],
            resume=resume,
            device=device,
            lpips=lpips,
            on_line=line,
        )
    finally:
        line.end()
    if result["rank"] == 0:
        show(result, _result_sentence(result), as_json=as_json, quiet=quiet)


def _folds(
    recipe: str,
    changes: list[str],
    data: list[str],
    output: Path | None,
    device: str,
    line: _Line,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from tokenreel.jobs.train_folds import train_folds

    def on_fold(group: str, done: int, total: int) -> None:
        line.end()
        line.restart()
        if not (quiet or as_json):
            typer.echo(f"without {group} ({done + 1} of {total})", err=True)

    try:
        result = train_folds(
            recipe, folder=output, overrides=changes, data=data, device=device, on_line=line, on_fold=on_fold
        )
    finally:
        line.end()
    show(result, _folds_sentence(result), as_json=as_json, quiet=quiet)


def _folds_sentence(result: Mapping[str, Any]) -> str:
    lines = []
    for fold in result["folds"]:
        mistakes = "; ".join(fold["wrong"]) or "all right"
        lines.append(f"{fold['group']}: {fold['examples']} examples, {mistakes}")
    if not result["finished"]:
        return "\n".join([*lines, f"{result['folder']}: stopped; the same command goes on"])
    for head, sums in result["heads"].items():
        low, high = (100 * side for side in sums["interval"])
        lines.append(
            f"{head}: {sums['mistakes']} of {sums['examples']} wrong, {100 * sums['accuracy']:.2f} % right "
            f"({low:.1f} to {high:.1f} with 95 %)"
        )
    return "\n".join(lines)


def _list(as_json: bool, quiet: bool) -> None:
    from tokenreel.train.recipes import recipe_names, recipe_title

    titles = {name: recipe_title(name) for name in recipe_names()}
    width = max(map(len, titles))
    text = "\n".join(f"{name:{width}}  {title}" for name, title in titles.items())
    recipes = [{"name": name, "about": title} for name, title in titles.items()]
    show({"recipes": recipes}, text, as_json=as_json, quiet=quiet)


def _cost_sentence(cost: Mapping[str, Any]) -> str:
    critic = f" and a critic of {cost['critic_parameters'] / 1e6:.1f} M" if cost["critic_parameters"] else ""
    return (
        f"{cost['recipe']}: {cost['parameters'] / 1e6:.1f} M parameters{critic}; a step of {cost['clips_per_step']:g} "
        f"clips ({cost['tokens_per_step']} tokens) takes {cost['gflop_per_step']:g} GFLOP, "
        f"{cost['seconds_per_step']:.3g} s ({cost['steps_per_second']:.3g} steps/s) and "
        f"{amount(cost['peak_memory_bytes'])} of memory, its clips {cost['data_seconds_per_step']:.2g} s of a worker; "
        f"{cost['steps']} steps take about {cost['hours']:g} hours here ({cost['device']})"
    )


def _result_sentence(result: Mapping[str, Any]) -> str:
    notes = ""
    if result["bad_steps"]:
        notes += f"; {result['bad_steps']} steps were not finite and skipped"
    if result["broken"]:
        notes += f"; {len(result['broken'])} broken examples replaced"
    if not result["finished"]:
        notes += "; --resume goes on"
    for part, figures in result.get("scores", {}).items():
        area = f", AUC {figures['auc']:.4f}" if "auc" in figures else ""
        notes += f"; {part}: {100 * figures['accuracy']:.2f} % right{area}"
    state = "trained" if result["finished"] else "stopped"
    return f"{result[result['trained']]}: {state} after {result['steps']} steps, {result['seconds']:.0f} s{notes}"


class _Line:
    """The live line of a run: rewritten on a terminal, printed now and then elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.is_live = quiet, sys.stderr.isatty()
        self.start, self.told = time.monotonic(), 0.0
        self.first: int | None = None
        self._waiting = threading.Timer(_PATIENCE_SECONDS, self._wait)
        self._waiting.daemon = True
        if not quiet and os.environ.get("RANK", "0") == "0":
            self._waiting.start()

    def _wait(self) -> None:
        typer.echo("reading the data and giving the weights their start", err=True)

    def __call__(self, values: Mapping[str, float]) -> None:
        """Tell a line of the log, if it is time to."""
        self._waiting.cancel()
        if self.quiet:
            return
        now, step, steps = time.monotonic(), int(values["step"]), int(values["steps"])
        if self.first is None:
            self.first, self.start = step, now
        left = (now - self.start) / (step - self.first) * (steps - step) if step > self.first else None
        text = _line_text(values, left)
        if self.is_live:
            typer.echo(f"\r\033[2K{text}", nl=False, err=True)
        elif now - self.told > _TOLD_EVERY_SECONDS or step == steps:
            self.told = now
            typer.echo(text, err=True)

    def restart(self) -> None:
        """Another run begins."""
        self.first, self.told = None, 0.0

    def end(self) -> None:
        """Leave the live line as it stands."""
        self._waiting.cancel()
        if self.is_live and self.first is not None:
            typer.echo("", err=True)


def _line_text(values: Mapping[str, float], left_seconds: float | None) -> str:
    parts = [f"step {int(values['step'])}/{int(values['steps'])}", f"loss {values['loss']:.4f}"]
    if "psnr_db" in values:
        parts.append(f"{values['psnr_db']:.2f} dB")
    if "accuracy" in values:
        parts.append(f"{100 * values['accuracy']:.1f} % right")
    parts.append(f"{values['clips_per_second']:.2f} clips/s")
    parts.append(f"{values['tokens_per_second']:.0f} tokens/s")
    parts.append(f"data {100 * values['data_wait_share']:.0f} %")
    if values["bad_steps"]:
        parts.append(f"{int(values['bad_steps'])} bad")
    if left_seconds is not None:
        parts.append(f"{_span(left_seconds)} left")
    return "  ".join(parts)


def _span(seconds: float) -> str:
    """
    >>> _span(75), _span(7500)
    ('1 min 15 s', '2 h 5 min')
    """
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {int(seconds % 60)} s"
