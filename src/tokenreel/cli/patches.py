"""``tokenreel patchify``, ``check`` and ``restore``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tokenreel.cli.options import (
    Every,
    Fps,
    Frames,
    Lossless,
    MaxFrames,
    Quality,
    Range,
    Size,
    Video,
    patch_size_of,
    selection_of,
)
from tokenreel.cli.show import Bar, Json, Quiet, amount, show

__all__ = ["check", "patchify", "restore"]


class Embed(StrEnum):
    """Choices of --embed."""

    none = "none"
    linear = "linear"


class PositionKind(StrEnum):
    """Choices of --position."""

    none = "none"
    sincos = "sincos"
    grid_index = "index"


class Dtype(StrEnum):
    """Choices of --dtype."""

    uint8 = "uint8"
    float16 = "float16"
    float32 = "float32"


Sequence = Annotated[Path, typer.Argument(help="A patch sequence (.safetensors).", show_default=False)]


def patchify(
    video: Video,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.", show_default=False)],
    patch_size: Annotated[str, typer.Option(help="Frames, height and width of a patch.", metavar="T,H,W")] = "1,16,16",
    every: Every = 1,
    fps: Fps = None,
    frames: Frames = None,
    seconds: Range = None,
    max_frames: MaxFrames = None,
    size: Size = None,
    embed: Annotated[Embed, typer.Option(help="Keep pixels, or project them linearly (orthonormal).")] = Embed.none,
    dim: Annotated[int | None, typer.Option(help="Width of the linear embedding.", metavar="D")] = None,
    seed: Annotated[int, typer.Option(help="Of the embedding's weights.")] = 0,
    position: Annotated[
        PositionKind, typer.Option(help="index: (t, h, w) beside the vectors; sincos: a table added too.")
    ] = PositionKind.grid_index,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of the vectors. Default: uint8; float32 where they are fractions.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Video to a sequence of patch vectors, as a Vision Transformer reads them.

    The file opens with [bold]safetensors.torch.load_file[/bold]: patches (L, D) and positions (L, 3).
    Memory does not grow with the length of the video.

    Example: [bold]tokenreel patchify clip.mp4 -o clip.safetensors --every 10[/bold]
    """
    from tokenreel.jobs.patchify import patchify_file
    from tokenreel.jobs.sequence import SequenceConfig

    is_plain = embed is Embed.none and position is not PositionKind.sincos
    config = SequenceConfig(
        patch_size=patch_size_of(patch_size),
        embed=embed.value,
        dim=dim,
        seed=seed,
        position=position.value,
        dtype=dtype.value if dtype else "uint8" if is_plain else "float32",
    )
    selection = selection_of(every, fps, frames, seconds, max_frames)
    with Bar("patchify", quiet=quiet) as bar:
        result = patchify_file(video, output, config, selection, size=size, progress=bar)
    values = result.as_json()
    sentence = (
        f"{output}: {values['patches']} patches of {values['values']} values ({values['dtype']}) "
        f"from {values['frames']} frames {values['width']}x{values['height']}, {amount(values['bytes'])}"
    )
    show(values, sentence, as_json=as_json, quiet=quiet)


def check(
    sequence: Sequence,
    video: Annotated[
        Path | None,
        typer.Argument(help="What it was made from; by default where that was then.", show_default=False),
    ] = None,
    at_least: Annotated[
        float | None, typer.Option(help="Accept differences if the PSNR reaches this (dB).", metavar="DB")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put every frame together from the file alone and compare it with the decoded video.

    Exit code 0 if all are exact (or reach [bold]--at-least[/bold]), 1 if not. A linear embedding is inverted first.

    Example: [bold]tokenreel check clip.safetensors clip.mp4 --json[/bold]
    """
    from tokenreel.jobs.check import check_file

    with Bar("check", quiet=quiet) as bar:
        result = check_file(sequence, video, progress=bar)
    count = len(result.squared_errors)
    if result.exact:
        sentence = f"{sequence}: exact, all {count} frames are equal to {result.video}"
    else:
        sentence = f"{sequence}: differs from {result.video}: PSNR {result.psnr_db} dB over {count} frames"
    if result.embedding_error is not None:
        sentence += f"; largest error of a value before rounding {result.embedding_error:.2g} (range [-1, 1])"
    show(result.as_json(), sentence, as_json=as_json, quiet=quiet)
    is_good_enough = result.psnr_db is not None and at_least is not None and result.psnr_db >= at_least
    if not result.exact and not is_good_enough:
        raise typer.Exit(1)


def restore(
    sequence: Sequence,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="mp4, mkv, webm, gif, webp, png, or a folder for one png a frame."),
    ],
    lossless: Lossless = False,
    quality: Quality = 85,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """A patch sequence to video again.

    Example: [bold]tokenreel restore clip.safetensors -o clip.mp4 --lossless[/bold]
    """
    from tokenreel.jobs.patchify import restore_file

    with Bar("restore", quiet=quiet) as bar:
        path, frames = restore_file(sequence, output, lossless=lossless, quality=quality, progress=bar)
    size = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    values = {"path": str(path), "frames": frames, "bytes": size}
    show(values, f"{path}: {frames} frames, {amount(size)}", as_json=as_json, quiet=quiet)
