"""``tokenreel bpe``: train, encode, decode, inspect, export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tokenreel.cli.show import Bar, Json, Quiet, amount, show

__all__ = ["app"]

app = typer.Typer(help="Byte-pair merges over tokens, patches or any bytes: lossless.", no_args_is_help=True)

MergesFile = Annotated[Path, typer.Argument(help="Merges (.json), as bpe train writes them.", show_default=False)]
MergesOption = Annotated[Path, typer.Option("--merges", "-m", help="Merges (.json).", show_default=False)]
Boundaries = Annotated[
    bool, typer.Option("--boundaries/--no-boundaries", help="Keep pairs inside a patch or record, or let them cross.")
]


class Axes(StrEnum):
    """Choices of --axes."""

    flat = "flat"
    grid = "grid"


@app.command()
def train(
    files: Annotated[
        list[Path], typer.Argument(help="Token files, shards, patch sequences, or any bytes.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .json file to write.", show_default=False)],
    vocab_size: Annotated[int, typer.Option(help="Base ids and merges together.", show_default=False)],
    boundaries: Boundaries = True,
    axes: Annotated[Axes, typer.Option(help="Pairs along the sequence, or along t, h and w of the grid.")] = Axes.flat,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn merges from files. Ctrl-C keeps what is learned by then, a shorter vocabulary.

    Example: [bold]tokenreel bpe train clip.tokens -o merges.json --vocab-size 1024[/bold]
    """
    from tokenreel.jobs.bpe import train_merges

    with Bar("train", unit="merges", quiet=quiet) as bar:
        result = train_merges(
            files, output, vocab_size=vocab_size, boundaries=boundaries, axes=axes.value, progress=bar
        )
    values = result.as_json()
    stopped = " (interrupted)" if result.interrupted else ""
    sentence = (
        f"{output}: {values['merges']} merges{stopped} over {values['base_size']} ids; {values['ids']} ids become "
        f"{values['merged_ids']}, {values['bits_before'] / max(1, values['bits_after']):.2f} x fewer bits"
    )
    show(values, sentence, as_json=as_json, quiet=quiet)


@app.command()
def encode(
    file: Annotated[Path, typer.Argument(help="A token file, shards, or any file as bytes.", show_default=False)],
    merges: MergesOption,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help=".tokens, a folder of shards, or .safetensors for bytes.", show_default=False
        ),
    ],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Merge the ids of a file.

    Example: [bold]tokenreel bpe encode clip.tokens -m merges.json -o merged.tokens[/bold]
    """
    from tokenreel.jobs.bpe import encode_merged
    from tokenreel.tokens.bpe import Merges

    with Bar("encode", unit="records", quiet=quiet) as bar:
        before, after = encode_merged(file, output, Merges.load(merges), progress=bar)
    values = {"path": str(output), "ids": before, "merged_ids": after}
    show(values, f"{output}: {before} ids merged to {after}", as_json=as_json, quiet=quiet)


@app.command()
def decode(
    file: Annotated[Path, typer.Argument(help="What bpe encode wrote.", show_default=False)],
    merges: MergesOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file or folder to write.", show_default=False)],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Undo bpe encode, exactly.

    Example: [bold]tokenreel bpe decode merged.tokens -m merges.json -o clip.tokens[/bold]
    """
    from tokenreel.jobs.bpe import decode_merged
    from tokenreel.tokens.bpe import Merges

    with Bar("decode", unit="records", quiet=quiet) as bar:
        count = decode_merged(file, output, Merges.load(merges), progress=bar)
    show({"path": str(output), "ids": count}, f"{output}: {count} ids", as_json=as_json, quiet=quiet)


@app.command()
def inspect(
    merges: MergesFile,
    file: Annotated[
        Path | None, typer.Argument(help="A file to try them on: bits, most used merges.", show_default=False)
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the merges here (png).", show_default=False)] = None,
    boundaries: Boundaries = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The longest and most used merges; bits per pixel before and after, beside PNG, FFV1 and zstd.

    Example: [bold]tokenreel bpe inspect merges.json clip.tokens --picture merges.png[/bold]
    """
    from tokenreel.jobs.bpe_report import draw_report, report_on
    from tokenreel.tokens.bpe import Merges

    report = report_on(Merges.load(merges), file, boundaries=boundaries)
    values = report.as_json()
    if picture is not None:
        values["picture"] = str(draw_report(report, picture))
    lines = [f"{values['vocab_size'] - values['base_size']} merges over {values['base_size']} ids, {values['axes']}"]
    lines.append("longest: " + ", ".join(f"{i} ({n} ids)" for i, n in report.longest[:8]))
    if report.num_ids:
        lines.append("most used: " + ", ".join(f"{i} ({n} times)" for i, n in report.most_used[:8]))
        lines.append(f"{report.num_ids} ids become {report.num_merged}")
        per_pixel = values.get("bits_per_pixel", {})
        for name, bits in report.bits.items():
            rate = f", {per_pixel[name]:.3f} bits a pixel" if per_pixel else ""
            lines.append(f"  {name:<15} {amount(bits / 8):>9}{rate}")
    if picture is not None:
        lines.append(f"picture: {picture}")
    show(values, "\n".join(lines), as_json=as_json, quiet=quiet)


@app.command()
def export(
    merges: MergesFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="The tokenizer.json to write.", show_default=False)],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write flat merges as a tokenizer.json of Hugging Face tokenizers.

    Example: [bold]tokenreel bpe export merges.json -o tokenizer.json[/bold]
    """
    from tokenreel.tokens.bpe import Merges

    Merges.load(merges).save_hf(output)
    show({"path": str(output)}, f"{output}: written", as_json=as_json, quiet=quiet)
