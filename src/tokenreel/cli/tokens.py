"""``tokenreel encode``, ``decode`` and ``inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenreel.cli.options import Every, Fps, Frames, Lossless, MaxFrames, Quality, Range, Size, selection_of
from tokenreel.cli.show import Bar, Json, Quiet, amount, show
from tokenreel.errors import InputError

if TYPE_CHECKING:
    from tokenreel.media.frames import Selection

__all__ = ["decode", "encode", "inspect"]


def encode(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="One file for a .tokens file; files, folders, tables or tars for shards.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .tokens file, or a folder for shards.", show_default=False)
    ],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", "-t", help="A name (raw, raw:1,8,8) or a folder with config.json.")
    ] = "raw",
    every: Every = 1,
    fps: Fps = None,
    frames: Frames = None,
    seconds: Range = None,
    max_frames: MaxFrames = None,
    size: Size = None,
    caption: Annotated[str | None, typer.Option(help="A caption to keep beside the tokens (one file).")] = None,
    split: Annotated[str, typer.Option(help="Which split of the sources (shards).")] = "all",
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last whole shard.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Video to a .tokens file, or many videos to a folder of token shards.

    Example: [bold]tokenreel encode clip.mp4 -o clip.tokens[/bold]

    Example: [bold]tokenreel encode clips/ more.csv -o shards/ --size 128[/bold]
    """
    selection = selection_of(every, fps, frames, seconds, max_frames)
    if output.suffix == ".tokens":
        _encode_one(sources, output, tokenizer, selection, size, caption, as_json, quiet)
        return
    if caption is not None:
        raise InputError(
            "--caption is for one file; for shards, captions stand beside the files (clip.txt) or in a table"
        )
    from tokenreel.jobs.encode_many import encode_many

    with Bar("encode", unit="clips", quiet=quiet) as bar:
        result = encode_many(
            sources,
            output,
            tokenizer=tokenizer,
            selection=selection,
            size=size,
            split=split,
            resume=resume,
            progress=bar,
        )
    sentence = (
        f"{output}: {result.records} records, {result.tokens} tokens in {result.shards} shards, "
        f"{amount(result.num_bytes)}" + (f"; {len(result.skipped)} broken files skipped" if result.skipped else "")
    )
    show(result.as_json(), sentence, as_json=as_json, quiet=quiet)


def _encode_one(
    sources: list[Path],
    output: Path,
    tokenizer: str,
    selection: Selection,
    size: str | None,
    caption: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from tokenreel.jobs.encode import encode_file

    if len(sources) != 1 or sources[0].is_dir():
        raise InputError(f"{output} holds one clip; for many files give a folder for shards, such as -o shards/")
    with Bar("encode", quiet=quiet) as bar:
        result = encode_file(
            sources[0], output, tokenizer=tokenizer, selection=selection, size=size, caption=caption, progress=bar
        )
    values = result.as_json()
    sentence = (
        f"{output}: {values['tokens']} tokens of {values['codebook_size']} codes from {values['frames']} frames "
        f"{values['width']}x{values['height']}, {values['bits_per_pixel']:.4g} bits a pixel, {amount(values['bytes'])}"
    )
    show(values, sentence, as_json=as_json, quiet=quiet)


def decode(
    tokens: Annotated[Path, typer.Argument(help="A .tokens file.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="mp4, mkv, webm, gif, webp, png, or a folder for one png a frame."),
    ],
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", "-t", help="By default the one that the file names.")
    ] = None,
    lossless: Lossless = False,
    quality: Quality = 85,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """A .tokens file to video again.

    Example: [bold]tokenreel decode clip.tokens -o clip.mp4[/bold]
    """
    from tokenreel.jobs.encode import decode_file

    with Bar("decode", quiet=quiet) as bar:
        path, frames = decode_file(
            tokens, output, tokenizer=tokenizer, lossless=lossless, quality=quality, progress=bar
        )
    size = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    values = {"path": str(path), "frames": frames, "bytes": size}
    show(values, f"{path}: {frames} frames, {amount(size)}", as_json=as_json, quiet=quiet)


def inspect(
    file: Annotated[Path, typer.Argument(help="Any file of ours, or a picture or video.", show_default=False)],
    picture: Annotated[
        Path | None, typer.Option(help="Write a sheet of thumbnails here (png).", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What is in a file: shapes, grid, tokenizer, fingerprint, sizes; with --picture, a sheet of its frames.

    Example: [bold]tokenreel inspect clip.tokens --picture sheet.png[/bold]
    """
    from tokenreel.jobs.inspect import inspect_file, sheet_of

    found = inspect_file(file)
    if picture is not None:
        found = {**found, "picture": str(sheet_of(file, picture))}
    if quiet:
        return
    if as_json:
        show(found, "", as_json=True, quiet=False)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in found.items():
        table.add_row(f"[bold]{name}[/bold]", amount(value) if name == "bytes" else str(value))
    Console().print(table)
