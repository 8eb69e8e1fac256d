"""``tokenreel tokenizers``: the families, and untrained ones to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenreel.cli.show import Json, Quiet, amount, show

__all__ = ["app"]

_TITLES = ("tokenizer", "weights", "patch", "layout", "codes", "tokens/s", "kbit/s", "1 : ratio")

app = typer.Typer(help="The tokenizer families and their sizes.", rich_markup_mode="rich")


@app.callback(invoke_without_command=True)
def families(context: typer.Context, as_json: Json = False) -> None:
    """The tokenizer families, their sizes, and what a second of 256x256 video at 15 fps costs in bits.

    Example: [bold]tokenreel tokenizers[/bold]
    """
    if context.invoked_subcommand is not None:
        return
    from tokenreel.jobs.tokenizers import list_tokenizers

    rows = list_tokenizers()
    if as_json:
        show({"tokenizers": rows}, "", as_json=True, quiet=False)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), caption="256x256 at 15 frames a second", caption_justify="left")
    for title in _TITLES:
        table.add_column(title, justify="left" if title in ("tokenizer", "patch", "layout") else "right", no_wrap=True)
    for row in rows:
        name = row["family"] + (f":{row['size']}" if row["size"] else "")
        table.add_row(
            name,
            f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "-",
            "x".join(map(str, row["patch_size"])),
            row["layout"],
            f"{row['codebook_size']:,}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['bits_per_second'] / 1000:,.1f}",
            f"{row['compression_ratio']:,.0f}",
        )
    Console().print(table)


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="FAMILY or FAMILY:SIZE, as listed.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an untrained tokenizer: something to measure, to train, or to try the commands with.

    Example: [bold]tokenreel tokenizers init cvivit:tiny -o untrained/[/bold]
    """
    from tokenreel.jobs.tokenizers import init_tokenizer

    values = init_tokenizer(name, output, seed=seed)
    sentence = (
        f"{output}: {values['tokenizer']}, {values['parameters'] / 1e6:.1f} M parameters, {amount(values['bytes'])}, "
        f"untrained: what it decodes is noise until it is trained"
    )
    show(values, sentence, as_json=as_json, quiet=quiet)
