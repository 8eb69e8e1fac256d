"""``tokenreel encode``, ``decode`` and ``inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokenreel.cli.options import (
    Device,
    Every,
    Fps,
    Frames,
    Lossless,
    MaxFrames,
    Precise,
    Quality,
    Range,
    Size,
    precision_of,
    selection_of,
)
from tokenreel.cli.show import Bar, Json, Quiet, amount, show
from tokenreel.errors import InputError

__all__ = ["decode", "encode", "inspect"]

Views = Annotated[
    int, typer.Option(min=1, help="Every clip so often: as it is, then changed at random (shards).", metavar="N")
]
Changes = Annotated[
    str | None,
    typer.Option(help="How views are changed: 'shift: 0.06, flip: 0.5, time_crop: 0.5'.", show_default=False),
]

Coarse = Annotated[
    str | None,
    typer.Option(
        help="In place of clips their first frames, averaged to so many cells a side, then whole: '8,16' (shards).",
        show_default=False,
    ),
]


def encode(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="One file for a .tokens file; files, folders, tables or tars for shards.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .tokens file, or a folder for shards; by default the name of the one file with .tokens, here.",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str,
        typer.Option(
            "--tokenizer",
            "-t",
            help="A name (video-fsq, trained; raw or raw:1,8,8, lossless), a folder with config.json, or a hub id.",
        ),
    ] = "video-fsq",
    every: Every = 1,
    fps: Fps = None,
    frames: Frames = None,
    seconds: Range = None,
    max_frames: MaxFrames = None,
    size: Size = None,
    token_count: Annotated[
        int | None, typer.Option(help="Tokens a frame or clip, for 1-D tokenizers.", metavar="N")
    ] = None,
    device: Device = "auto",
    precision: Precise = "fp32",
    caption: Annotated[str | None, typer.Option(help="A caption to keep beside the tokens (one file).")] = None,
    split: Annotated[str, typer.Option(help="Which split of the sources (shards).")] = "all",
    views: Views = 1,
    changes: Changes = None,
    coarse: Coarse = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last whole shard.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Video to a .tokens file, or many videos to a folder of token shards.

    Example: [bold]tokenreel encode clip.mp4[/bold]

    Example: [bold]tokenreel encode clip.mp4 -o exact.tokens --tokenizer raw[/bold]

    Example: [bold]tokenreel encode clips/ more.csv -o shards/ --size 128[/bold]

    Example: [bold]tokenreel encode rendered:40000,1,64,64 -o pictures/ -t world-codes --coarse 8,16[/bold]
    """
    options: dict[str, Any] = {
        "tokenizer": tokenizer,
        "selection": selection_of(every, fps, frames, seconds, max_frames),
        "size": size,
        "token_count": token_count,
        "device": device,
        "precision": precision_of(precision),
    }
    if output is None or output.suffix == ".tokens":
        _check_one(sources, output)
    if output is None:
        output = Path(f"{sources[0].stem}.tokens")
    if output.suffix == ".tokens":
        if views != 1 or changes is not None or coarse is not None:
            raise InputError("--views, --changes and --coarse are for shards; name a folder: -o shards/")
        _encode_one(sources, output, {**options, "caption": caption}, as_json, quiet)
        return
    _check_many(caption)
    _encode_many(
        sources,
        output,
        {**options, "split": split, "resume": resume, "views": views, **_changed(changes, views), **_coarse(coarse)},
        as_json,
        quiet,
    )


def _check_one(sources: list[Path], output: Path | None) -> None:
    if any(str(source).startswith("rendered:") and not source.exists() for source in sources):
        raise InputError("drawn scenes become a folder of shards; name it: -o shards/")
    if output is None and (len(sources) != 1 or sources[0].is_dir()):
        raise InputError("many files become a folder of shards; name it: -o shards/")


def _check_many(caption: str | None) -> None:
    if caption is not None:
        raise InputError(
            "--caption is for one file; for shards, captions stand beside the files (clip.txt) or in a table"
        )


def _changed(text: str | None, views: int) -> dict[str, Any]:
    """The changes as a recipe would say them."""
    if text is None:
        return {}
    if views == 1:
        raise InputError("--changes are of further views; say how many: --views 16")
    import yaml

    from tokenreel.data.augment import VideoAugment
    from tokenreel.tokenizers.configs import from_values

    try:
        values = yaml.safe_load("{" + text.strip().strip("{}") + "}")
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict) or not values:
        raise InputError(f"--changes must be named numbers such as 'shift: 0.06, flip: 0.5', got {text!r}")
    return {"changes": from_values(VideoAugment, values)}


def _coarse(text: str | None) -> dict[str, Any]:
    """The sides that pictures are averaged to."""
    if text is None:
        return {}
    try:
        return {"coarse": [int(part) for part in text.split(",")]}
    except ValueError:
        raise InputError(f"--coarse must be whole numbers such as 8,16, got {text!r}") from None


def _encode_one(sources: list[Path], output: Path, options: dict[str, Any], as_json: bool, quiet: bool) -> None:
    from tokenreel.jobs.encode import encode_file

    if len(sources) != 1 or sources[0].is_dir():
        raise InputError(f"{output} holds one clip; for many files give a folder for shards, such as -o shards/")
    with Bar("encode", quiet=quiet) as bar:
        values = encode_file(sources[0], output, progress=bar, **options).as_json()
    sentence = (
        f"{output}: {values['tokens']} tokens of {values['codebook_size']} codes from {values['frames']} frames "
        f"{values['width']}x{values['height']}, {values['bits_per_pixel']:.4g} bits a pixel "
        f"(1:{values['compression_ratio']:g} of 24-bit RGB), {amount(values['bytes'])}"
    )
    show(values, sentence, as_json=as_json, quiet=quiet)


def _encode_many(sources: list[Path], output: Path, options: dict[str, Any], as_json: bool, quiet: bool) -> None:
    from tokenreel.jobs.encode_many import encode_many

    with Bar("encode", unit="clips", quiet=quiet) as bar:
        result = encode_many(sources, output, progress=bar, **options)
    sentence = (
        f"{output}: {result.records} records, {result.tokens} tokens in {result.shards} shards, "
        f"{amount(result.num_bytes)}" + (f"; {len(result.skipped)} broken files skipped" if result.skipped else "")
    )
    show(result.as_json(), sentence, as_json=as_json, quiet=quiet)


def decode(
    tokens: Annotated[Path, typer.Argument(help="A .tokens file.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="mp4, mkv, webm, gif, webp, png, or a folder for one png a frame."),
    ],
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", "-t", help="By default the one that the file names.")
    ] = None,
    device: Device = "auto",
    precision: Precise = "fp32",
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
            tokens,
            output,
            tokenizer=tokenizer,
            device=device,
            precision=precision_of(precision),
            lossless=lossless,
            quality=quality,
            progress=bar,
        )
    size = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    values = {"path": str(path), "frames": frames, "bytes": size}
    show(values, f"{path}: {frames} frames, {amount(size)}", as_json=as_json, quiet=quiet)


def inspect(
    file: Annotated[
        Path, typer.Argument(help="Any file or folder of ours, or a picture or video.", show_default=False)
    ],
    picture: Annotated[
        Path | None, typer.Option(help="Write a sheet of thumbnails here (png).", show_default=False)
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", "-t", help="Of tokens, for --picture; by default the one they name.")
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
        found = {**found, "picture": str(sheet_of(file, picture, tokenizer=tokenizer))}
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
