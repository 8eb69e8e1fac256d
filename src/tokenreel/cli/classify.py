"""``tokenreel classify``: videos, pictures and token files to labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenreel.cli.options import precision_of
from tokenreel.cli.show import Bar, Json, Quiet, show
from tokenreel.errors import InputError

if TYPE_CHECKING:
    from tokenreel.jobs.classify import Classified, Prediction
    from tokenreel.jobs.classify_views import Fit

__all__ = ["CropFit", "Stride", "classify", "fit_of"]

Stride = Annotated[
    int | None,
    typer.Option(
        help="Clips are windows with frames so far apart; by default each clip spans the whole video.",
        metavar="N",
        show_default=False,
    ),
]
CropFit = Annotated[
    str | None,
    typer.Option(
        "--fit",
        help="To the model's size: crop (the middle) or stretch (all); by default as trained.",
        show_default=False,
    ),
]

_BAR = 20


def classify(
    files: Annotated[
        list[Path],
        typer.Argument(help="Videos, pictures, folders of them, or .tokens files.", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Name, folder or hub id of a classifier (vivit-motions).", show_default=False
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to tell, the likeliest first.", metavar="N")] = 5,
    clips: Annotated[
        int, typer.Option(min=1, help="Clips of a long video; their probabilities are averaged.", metavar="N")
    ] = 4,
    stride: Stride = None,
    fit: CropFit = None,
    explain: Annotated[
        Path | None,
        typer.Option(help="Write where the model looks: a heat map over the video (mp4, gif, webp).", metavar="FILE"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16: faster on some machines, a little less exact.")
    ] = "fp32",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Labels and their probabilities for videos, pictures and token files.

    Example: [bold]tokenreel classify clip.mp4 --model runs/my-vivit/classifier[/bold]

    Example: [bold]tokenreel classify clips/ more.gif --model MODEL --top 1 --json > labels.json[/bold]

    Example: [bold]tokenreel classify clip.mp4 --model MODEL --explain look.mp4[/bold]
    """
    from tokenreel.jobs.classify import classify_files
    from tokenreel.jobs.classify_views import Views

    with Bar("classify", unit="files", quiet=quiet) as bar:
        result = classify_files(
            files,
            model=model,
            views=Views(clips=clips, stride=stride, fit=fit_of(fit)),
            device=device,
            precision=precision_of(precision),
            explain=explain,
            progress=bar,
        )
    if as_json or quiet:
        show(result.as_json(top), "", as_json=as_json, quiet=True)
        return
    _print(result, top)


def fit_of(text: str | None) -> Fit | None:
    """``crop`` or ``stretch``; None where nothing is said."""
    if text is None:
        return None
    if text == "crop":
        return "crop"
    if text == "stretch":
        return "stretch"
    raise InputError(f"--fit must be crop or stretch, got {text!r}")


def _print(result: Classified, top: int) -> None:
    from rich.console import Console

    console = Console()
    if len(result.predictions) == 1:
        [prediction] = result.predictions
        console.print(f"{prediction.source}: {_read(prediction)}", highlight=False, markup=False, soft_wrap=True)
        console.print(_tall(prediction, top))
    else:
        console.print(_wide(result, top))
    if result.skipped:
        word = "file" if len(result.skipped) == 1 else "files"
        console.print(f"{len(result.skipped)} broken {word} skipped", highlight=False)
    if result.explanation is not None:
        console.print(f"{result.explanation}: look at this", highlight=False, markup=False, soft_wrap=True)


def _read(prediction: Prediction) -> str:
    count = len(prediction.spans)
    clips = "1 clip" if count == 1 else f"the mean of {count} clips"
    frames = "1 frame" if prediction.num_frames == 1 else f"{prediction.num_frames} frames"
    return f"{clips} of {frames}"


def _tall(prediction: Prediction, top: int) -> Any:
    """One file: a line a label, with a bar."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("head", "left"), ("label", "left"), ("probability", "right"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for head, _ in prediction.heads:
        for place, (label, share) in enumerate(prediction.top(head, top)):
            bar = "\u2588" * round(_BAR * share)
            table.add_row("" if place else head, label, f"{100 * share:.1f} %", bar, style=None if place else "bold")
    return table


def _wide(result: Classified, top: int) -> Any:
    """Many files: a line a file and head."""
    from rich.table import Table
    from rich.text import Text

    heads = [head for head, _ in result.predictions[0].heads]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("file", *(["head"] if len(heads) > 1 else []), "labels"):
        table.add_column(name, overflow="fold")
    for prediction in result.predictions:
        for place, head in enumerate(heads):
            told = Text("  ".join(f"{label} {100 * share:.1f} %" for label, share in prediction.top(head, top)))
            source = Text("" if place else prediction.source)
            table.add_row(source, *([Text(head)] if len(heads) > 1 else []), told)
    return table
