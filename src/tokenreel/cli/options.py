"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenreel.errors import InputError

if TYPE_CHECKING:
    from tokenreel.media.frames import Selection
    from tokenreel.tokenizers.learned import Precision

__all__ = [
    "Device",
    "Every",
    "Fps",
    "Frames",
    "Lossless",
    "MaxFrames",
    "Precise",
    "Quality",
    "Range",
    "Size",
    "Video",
    "patch_size_of",
    "precision_of",
    "selection_of",
]

Video = Annotated[Path, typer.Argument(help="A picture, animation or video file.", show_default=False)]
Every = Annotated[int, typer.Option(help="Take every n-th frame.", metavar="N")]
Fps = Annotated[float | None, typer.Option(help="Take the frame nearest to each tick of this rate.", metavar="F")]
Frames = Annotated[int | None, typer.Option("--frames", help="Take this many, spread evenly.", metavar="N")]
MaxFrames = Annotated[int | None, typer.Option(help="Stop after this many frames.", metavar="N")]
Range = Annotated[
    str | None,
    typer.Option("--range", help="Only from START to END seconds: 2:5.5, 2: or :5.5.", metavar="S:E"),
]
Size = Annotated[
    str | None, typer.Option(help="Resize: the short side (256) or width x height (320x180).", metavar="S|WxH")
]
Lossless = Annotated[bool, typer.Option("--lossless", help="Exact pixels (mkv and png always are; gif cannot be).")]
Device = Annotated[str, typer.Option(help="Where a learned tokenizer runs: auto, cpu, cuda or cuda:1.")]
Precise = Annotated[
    str, typer.Option("--precision", help="Of a learned tokenizer: fp32, or bf16 (faster on some machines, other ids).")
]
Quality = Annotated[int, typer.Option(min=0, max=100, help="Of lossy formats: 0 worst to 100 best.")]


def selection_of(every: int, fps: float | None, frames: int | None, seconds: str | None, most: int | None) -> Selection:
    """The chosen frames from the options above."""
    from tokenreel.media.frames import Selection  # brings numpy, which --help does without

    start, end = 0.0, float("inf")
    if seconds is not None:
        first, colon, last = seconds.partition(":")
        try:
            start, end = float(first or 0), float(last or "inf")
        except ValueError:
            colon = ""
        if not colon:
            raise InputError(f"--range must be START:END in seconds, such as 2:5.5, got {seconds!r}")
    return Selection(every=every, fps=fps, uniform=frames, start_seconds=start, end_seconds=end, max_frames=most)


def patch_size_of(text: str) -> tuple[int, int, int]:
    """A patch size as people write it: ``1,16,16``."""
    try:
        sides = [int(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        sides = []
    if len(sides) != 3 or min(sides) < 1:
        raise InputError(f"--patch-size must be frames,height,width, such as 1,16,16, got {text!r}")
    return sides[0], sides[1], sides[2]


def precision_of(text: str) -> Precision:
    """``fp32`` or ``bf16``."""
    if text == "fp32":
        return "fp32"
    if text == "bf16":
        return "bf16"
    raise InputError(f"--precision must be fp32 or bf16, got {text!r}")
