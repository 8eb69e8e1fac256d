"""``tokenreel prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokenreel.cli.show import Bar, Json, Quiet, amount, show

__all__ = ["prepare"]


def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Files, folders, tables, tars, npz, or drawn scenes: rendered:COUNT[,FRAMES,H,W].", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder for the shards.", show_default=False)],
    short_side: Annotated[int, typer.Option(help="Shrink frames to this short side.", metavar="PIXELS")] = 256,
    fps: Annotated[float, typer.Option(help="At most this many frames a second; 0: all.", metavar="F")] = 15.0,
    quality: Annotated[int, typer.Option(min=0, max=100, help="Of the pictures: 0 worst to 100 best.")] = 90,
    lossless: Annotated[bool, typer.Option("--lossless", help="Exact pixels; four to five times the size.")] = False,
    codec: Annotated[
        str, typer.Option(help="webp, or jpeg: a third larger, decoded some three times faster.")
    ] = "webp",
    max_seconds: Annotated[
        float | None, typer.Option(help="Cut longer clips into pieces of this length.", metavar="S", show_default=False)
    ] = None,
    shard_mib: Annotated[float, typer.Option(help="No file is larger than this many MiB.")] = 20.0,
    split: Annotated[str, typer.Option(help="Which split of the sources.")] = "all",
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last whole shard.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pictures and videos to packed frames for training, which need no video decoder.

    Example: [bold]tokenreel prepare clips/ photos/ -o packed/ --short-side 256 --fps 15[/bold]
    """
    from tokenreel.data.pixel_manifest import PixelSpec
    from tokenreel.jobs.prepare import prepare_pixels

    spec = PixelSpec(
        short_side=short_side,
        fps=fps or None,
        codec=codec,  # type: ignore[arg-type]  # PixelSpec checks it
        quality=None if lossless else quality,
        max_seconds=max_seconds,
    )
    with Bar("prepare", unit="clips", quiet=quiet) as bar:
        result = prepare_pixels(
            sources,
            output,
            spec=spec,
            split=split,
            shard_bytes=int(shard_mib * (1 << 20)),
            resume=resume,
            progress=bar,
        )
    sentence = (
        f"{output}: {result.clips} clips, {result.frames} frames in {result.shards} shards, "
        f"{amount(result.num_bytes)}" + (f"; {len(result.skipped)} broken files skipped" if result.skipped else "")
    )
    show(result.as_json(), sentence, as_json=as_json, quiet=quiet)
