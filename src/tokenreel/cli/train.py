"""``tokenreel train``: a recipe to a trained tokenizer."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from tokenreel.cli.show import Json, Quiet, amount, show

__all__ = ["train"]


def train(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name or a .yaml file; none lists them.")] = None,
    changes: Annotated[
        list[str] | None, typer.Argument(help="Fields to change: loop.steps=500 optim.lr=1e-3.", show_default=False)
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", "-d", help="Folder or file to learn from; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the run (runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it will cost here: FLOPs, memory, hours; run two steps.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    lpips: Annotated[str | None, typer.Option(help="LPIPS weights, safetensors, where a recipe asks for them.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a tokenizer on your own clips. Stopped at any moment, --resume goes on exactly.

    Example: [bold]tokenreel train tiny-cvivit --data clips/ loop.steps=500[/bold]

    Example: [bold]torchrun --nproc-per-node 8 -m tokenreel.cli.main train cvivit-phenaki --data shards/[/bold]
    """
    if recipe is None:
        _list(as_json)
        return
    from tokenreel.jobs import train as jobs

    if dry_run:
        cost = jobs.dry_run(recipe, overrides=changes or [], data=data or [], device=device, lpips=lpips)
        sentence = (
            f"{cost['recipe']}: {cost['parameters'] / 1e6:.1f} M parameters, {cost['gflop_per_step']:g} GFLOP and "
            f"{cost['seconds_per_step']:g} s a step of {cost['clips_per_step']} clips ({cost['tokens_per_step']} "
            f"tokens), {amount(cost['peak_memory_bytes'])} of memory; {cost['steps']} steps take about "
            f"{cost['hours']:g} hours here"
        )
        show(cost, sentence, as_json=as_json, quiet=quiet)
        return
    line = _Line(quiet or as_json)
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
    line.end()
    state = "trained" if result["finished"] else "stopped"
    sentence = f"{result['tokenizer']}: {state} after {result['steps']} steps, {result['seconds']:.0f} s" + (
        "" if result["finished"] else "; --resume goes on"
    )
    show(result, sentence, as_json=as_json, quiet=quiet)


def _list(as_json: bool) -> None:
    from tokenreel.train.recipes import recipe_names

    names = recipe_names()
    show({"recipes": names}, "\n".join(names), as_json=as_json, quiet=False)


class _Line:
    """The live line of a run: rewritten on a terminal, printed now and then elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.is_live = quiet, sys.stderr.isatty()
        self.start, self.told = time.monotonic(), 0.0
        self.first: int | None = None

    def __call__(self, values: dict[str, float]) -> None:
        if self.quiet:
            return
        now, step, steps = time.monotonic(), int(values["step"]), int(values["steps"])
        if self.first is None:
            self.first, self.start = step, now
        left = (now - self.start) / (step - self.first) * (steps - step) if step > self.first else None
        text = f"step {step}/{steps}  loss {values['loss']:.4f}"
        if "psnr_db" in values:
            text += f"  {values['psnr_db']:.2f} dB"
        text += f"  {values['clips_per_second']:.2f} clips/s  {values['tokens_per_second']:.0f} tokens/s"
        text += "" if left is None else f"  {_span(left)} left"
        if self.is_live:
            typer.echo(f"\r\033[2K{text}", nl=False, err=True)
        elif now - self.told > 10 or step == steps:
            self.told = now
            typer.echo(text, err=True)

    def end(self) -> None:
        if self.is_live and not self.quiet:
            typer.echo("", err=True)


def _span(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {int(seconds % 60)} s"
