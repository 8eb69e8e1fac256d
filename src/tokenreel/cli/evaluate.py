"""``tokenreel eval``: what a tokenizer does to clips, in figures and on a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenreel.cli.options import Device, Precise, precision_of
from tokenreel.cli.show import Bar, Json, Quiet, show
from tokenreel.errors import InputError

if TYPE_CHECKING:
    from tokenreel.jobs.evaluate import Evaluation

__all__ = ["evaluate"]


def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Folders, tables, tars or files of clips or pictures.", show_default=False),
    ],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", "-t", help="A name (raw, raw:1,8,8) or a folder with config.json.")
    ] = "raw",
    frames: Annotated[str, typer.Option(help="The first N frames of each clip, or all.", metavar="N|all")] = "17",
    size: Annotated[
        str, typer.Option(help="Short side, then a centre crop to a square; or native.", metavar="S|native")
    ] = "256",
    fps: Annotated[str, typer.Option(help="Frames a second, or native.", metavar="F|native")] = "native",
    whole: Annotated[bool, typer.Option("--no-crop", help="Resize only; keep the shape of the picture.")] = False,
    split: Annotated[str, typer.Option(help="Which split of the sources.")] = "all",
    clips: Annotated[int | None, typer.Option(help="Only the first N clips.", metavar="N")] = None,
    token_count: Annotated[
        int | None, typer.Option(help="Tokens a frame or clip, for tokenizers that leave the choice.", metavar="N")
    ] = None,
    device: Device = "auto",
    precision: Precise = "fp32",
    codecs: Annotated[
        str | None,
        typer.Option(
            help="Codecs beside it: h264,h265,av1,jpeg,webp or none. With --report, by default all that fit.",
            show_default=False,
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: rfid, rfvd or jedi by a TorchScript extractor; may be repeated."),
    ] = None,
    lpips: Annotated[
        list[Path] | None, typer.Option(help="Safetensors with LPIPS weights; may be repeated.", show_default=False)
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page here (.html).", show_default=False)] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a tokenizer: clips to tokens and back, with PSNR, SSIM, bits, use of the codebook and speed.

    Example: [bold]tokenreel eval --tokenizer raw clips/ --report report.html[/bold]
    """
    from tokenreel.jobs.evaluate import evaluate_clips
    from tokenreel.measure.protocol import Protocol

    protocol = Protocol(
        frames="all" if frames == "all" else _whole("--frames", frames, "all"),
        size="native" if size == "native" else _whole("--size", size, "native"),
        fps="native" if fps == "native" else _rate(fps),
        crop="none" if whole else "centre",
    )
    with Bar("eval", unit="clips", quiet=quiet) as bar:
        result = evaluate_clips(
            sources,
            tokenizer=tokenizer,
            protocol=protocol,
            token_count=token_count,
            device=device,
            precision=precision_of(precision),
            split=split,
            num_clips=clips,
            features=features or [],
            lpips=lpips or [],
            codecs=_codecs(codecs, has_report=report is not None, is_video=protocol.frames != 1),
            report=report,
            progress=bar,
        )
    show(result.as_json(), _sentences(result), as_json=as_json, quiet=quiet)


def _codecs(text: str | None, *, has_report: bool, is_video: bool) -> list[str]:
    if text is None:
        chosen = ["h264", "h265", "av1", "jpeg", "webp"] if is_video else ["jpeg", "webp"]
        return chosen if has_report else []
    return [] if text == "none" else [name.strip() for name in text.split(",")]


def _sentences(result: Evaluation) -> str:
    from tokenreel.jobs.report_words import FIGURES, compared, counted

    scores = result.scores
    protocol = scores.protocol.sentence()
    lines = [f"{scores.tokenizer} on {counted(len(scores.clips), 'clip')}: {protocol}"]
    for name, value in scores.named():
        title, write, _ = FIGURES[name]
        lines.append(f"  {title:<22}{write(value)}")
    for score in scores.features:
        lines.append(
            f"{FIGURES[score.name][0]}: {score.num_vectors} {score.unit}, split {result.split}, {protocol}; "
            f"extractor {score.extractor.sentence()}, SHA-256 {score.sha256}"
        )
    if comparison := compared(scores, result.curves):
        lines.append(comparison)
    if scores.skipped:
        lines.append(f"{counted(len(scores.skipped), 'broken clip')} skipped")
    if result.report is not None:
        lines.append(f"{result.report}: look at this")
    return "\n".join(lines)


def _whole(option: str, text: str, word: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{option} must be a whole number of at least 1 or {word!r}, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--fps must be a number above 0 or 'native', got {text!r}") from None
