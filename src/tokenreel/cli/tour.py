"""``tokenreel demo``: the tour."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenreel.cli.show import Bar, Json, Quiet, show

__all__ = ["demo"]


def demo(
    video: Annotated[
        Path | None, typer.Argument(help="Your own video; by default a clip that ships.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("out"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The tour: read, patchify, check, embed, encode, restore; leaves the files and one picture in out/.

    Example: [bold]tokenreel demo my_clip.mp4[/bold]
    """
    from tokenreel.jobs.demo import demo_steps

    values: dict[str, object] = {}
    for step in demo_steps(video, output, bar=lambda what: Bar(what, quiet=quiet or as_json)):
        values.update(step.values)
        if not as_json and not quiet:
            typer.secho(f"{step.name:<10}", fg="cyan", bold=True, nl=False)
            typer.echo(f"{step.sentence}  [{step.seconds:.2f} s]")
    show(values, "", as_json=as_json, quiet=not as_json)
