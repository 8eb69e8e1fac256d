"""``tokenreel eval``: what a tokenizer does to clips, or how well a classifier tells them, in figures and on a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenreel.cli.classify import CropFit, Stride, fit_of
from tokenreel.cli.options import Device, Precise, precision_of
from tokenreel.cli.show import Bar, Json, Quiet, show
from tokenreel.errors import InputError

if TYPE_CHECKING:
    from tokenreel.jobs.evaluate import Evaluation
    from tokenreel.jobs.evaluate_classifier import ClassifierEvaluation

__all__ = ["evaluate"]


_Sources = Annotated[
    list[Path],
    typer.Argument(
        help="Folders, tables, tars or files of clips or pictures; of a classifier one source with labels.",
        show_default=False,
    ),
]
_Tokenizer = Annotated[
    str, typer.Option("--tokenizer", "-t", help="A name (raw, raw:1,8,8) or a folder with config.json.")
]
_Classifier = Annotated[
    str | None,
    typer.Option(help="Measure this classifier instead: a name, folder or hub id.", metavar="X", show_default=False),
]
_Frames = Annotated[str, typer.Option(help="The first N frames of each clip, or all.", metavar="N|all")]
_Size = Annotated[str, typer.Option(help="Short side, then a centre crop to a square; or native.", metavar="S|native")]
_Fps = Annotated[str, typer.Option(help="Frames a second, or native.", metavar="F|native")]
_Whole = Annotated[bool, typer.Option("--no-crop", help="Resize only; keep the shape of the picture.")]
_Split = Annotated[str, typer.Option(help="Which split of the sources; of a classifier it must be said.")]
_Clips = Annotated[int | None, typer.Option(help="Only the first N clips.", metavar="N")]
_TokenCount = Annotated[
    int | None, typer.Option(help="Tokens a frame or clip, for tokenizers that leave the choice.", metavar="N")
]
_Codecs = Annotated[
    str | None,
    typer.Option(
        help="Codecs beside it: h264,h265,av1,jpeg,webp or none. With --report, by default all that fit.",
        show_default=False,
    ),
]
_Features = Annotated[
    list[str] | None, typer.Option(help="NAME=FILE: rfid, rfvd or jedi by a TorchScript extractor; may be repeated.")
]
_Lpips = Annotated[
    list[Path] | None, typer.Option(help="Safetensors with LPIPS weights; may be repeated.", show_default=False)
]
_Report = Annotated[Path | None, typer.Option(help="Write a page here (.html).", show_default=False)]
_Views = Annotated[int, typer.Option(min=1, help="Classifier: clips of each video that are averaged.", metavar="N")]
_Head = Annotated[
    str | None,
    typer.Option(help="Classifier: which head is asked, where the source has one label.", show_default=False),
]
_Group = Annotated[
    str | None,
    typer.Option(
        help="Classifier: a regular expression on the path whose bracket is the group, for intervals.",
        show_default=False,
    ),
]
_OF_TOKENIZER = ("tokenizer", "frames", "size", "fps", "whole", "token_count", "codecs", "features", "lpips")
_OF_CLASSIFIER = ("views", "stride", "fit", "head", "group")
_OPTIONS = {"whole": "--no-crop"}


def evaluate(
    context: typer.Context,
    sources: _Sources,
    tokenizer: _Tokenizer = "raw",
    classifier: _Classifier = None,
    frames: _Frames = "17",
    size: _Size = "256",
    fps: _Fps = "native",
    whole: _Whole = False,
    split: _Split = "all",
    clips: _Clips = None,
    token_count: _TokenCount = None,
    device: Device = "auto",
    precision: Precise = "fp32",
    codecs: _Codecs = None,
    features: _Features = None,
    lpips: _Lpips = None,
    views: _Views = 1,
    stride: Stride = None,
    fit: CropFit = None,
    head: _Head = None,
    group: _Group = None,
    report: _Report = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a tokenizer: clips to tokens and back, with PSNR, SSIM, bits, use of the codebook and speed.

    With --classifier: a classifier on labelled clips, with accuracy, AUC, F1 and calibration.

    Example: [bold]tokenreel eval --tokenizer raw clips/ --report report.html[/bold]

    Example: [bold]tokenreel eval --classifier MODEL actions/ --split test --report report.html[/bold]
    """
    given = _said(context)
    if {"tokenizer", "classifier"} <= given:
        raise InputError("--tokenizer and --classifier exclude each other; name one of the two")
    if wrong := [name for name in (_OF_CLASSIFIER if classifier is None else _OF_TOKENIZER) if name in given]:
        kind = "--classifier" if classifier is None else "--tokenizer"
        raise InputError(f"{_option(wrong[0])} goes with {kind} only; leave it out")
    if classifier is not None:
        options: dict[str, Any] = {
            "classifier": classifier,
            "split": split if "split" in given else None,
            "clips": clips,
        }
        options |= {"views": (views, stride, fit), "head": head, "group": group, "report": report}
        _measure_classifier(sources, device, precision, options, as_json=as_json, quiet=quiet)
        return
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


def _said(context: typer.Context) -> set[str]:
    """The options that were given and not left at their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and not source.name.startswith("DEFAULT")}


def _option(name: str) -> str:
    return _OPTIONS.get(name, "--" + name.replace("_", "-"))


def _measure_classifier(
    sources: list[Path], device: str, precision: str, options: dict[str, Any], *, as_json: bool, quiet: bool
) -> None:
    from tokenreel.jobs.classify_views import Views
    from tokenreel.jobs.evaluate_classifier import evaluate_classifier

    if len(sources) != 1:
        raise InputError(f"a classifier is measured on one labelled source, got {len(sources)}; join them in a table")
    clips, stride, fit = options["views"]
    with Bar("eval", unit="examples", quiet=quiet) as bar:
        result = evaluate_classifier(
            str(sources[0]),
            model=options["classifier"],
            split=options["split"],
            head=options["head"],
            group=options["group"],
            num_examples=options["clips"],
            views=Views(clips=clips, stride=stride, fit=fit_of(fit)),
            device=device,
            precision=precision_of(precision),
            report=options["report"],
            progress=bar,
        )
    show(result.as_json(), _class_sentences(result), as_json=as_json, quiet=quiet)


def _class_sentences(result: ClassifierEvaluation) -> str:
    from tokenreel.jobs.report_classifier import CLASS_FIGURES, intervals_of, with_interval
    from tokenreel.jobs.report_words import counted

    split = "" if result.split == "all" else f", split {result.split}"
    lines = [f"{result.model} on {counted(len(result.keys), 'example')} of {result.source}{split}"]
    for head, scores in result.scores.items():
        if len(result.scores) > 1:
            lines.append(head)
        known = intervals_of(scores)
        for name, value in scores.named():
            lines.append(f"  {CLASS_FIGURES[name][0]:<22}{with_interval(name, value, known.get(name))}")
    units = "groups" if result.by_group else "examples"
    lines.append(f"in brackets: 95 % of a bootstrap over {units}")
    if result.skipped:
        lines.append(f"{counted(len(result.skipped), 'broken example')} skipped")
    if result.report is not None:
        lines.append(f"{result.report}: look at this")
    return "\n".join(lines)


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
