"""An evaluation of a classifier as one page that needs nothing but itself: figures, confusion, reliability, mistakes.

Letters: N examples.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tokenreel.data.labelled import LabelledSet
from tokenreel.errors import InputError
from tokenreel.files import whole_file
from tokenreel.measure.classification import Interval, ReliabilityBin
from tokenreel.measure.classification_plot import confusion_picture
from tokenreel.measure.classification_scores import ClassificationScores
from tokenreel.media.frames import Selection

from .report import table_of
from .report_plot import axes, svg
from .report_style import STYLE
from .report_words import counted, plain, share
from .sheet import contact_sheet

if TYPE_CHECKING:
    from .evaluate_classifier import ClassifierEvaluation

__all__ = ["CLASS_FIGURES", "intervals_of", "reliability_plot", "with_interval", "write_classifier_report"]

CLASS_FIGURES: dict[str, tuple[str, str]] = {
    "accuracy": ("Accuracy", "The share of examples whose likeliest label is the right one."),
    "top_5_accuracy": ("Top 5", "The share whose label is among the five likeliest; with more than five classes."),
    "auc": (
        "AUC",
        "How often an example of a class scores higher for it than one of another; the mean over classes. 0.5 is "
        "chance. It does not exist where a class has no example.",
    ),
    "macro_f1": ("Macro F1", "The mean over classes of F1: rare classes count as much as frequent ones."),
    "calibration_error": (
        "Calibration error",
        "How far probabilities are from the shares that are right, on average; 0 is best.",
    ),
}
"""Figure -> its title and what it means, in the order of a report."""

_SHARES = ("accuracy", "top_5_accuracy")
_SIDE, _LEFT, _RIGHT, _TOP, _BOTTOM = 420.0, 46.0, 16.0, 26.0, 44.0


def write_classifier_report(path: str | os.PathLike[str], result: ClassifierEvaluation, labelled: LabelledSet) -> Path:
    """Write the page; it appears whole or not at all.

    Args:
        labelled: the examples that were told, in the order of ``result.keys``.
    """
    sections = [_head(result)]
    for head, scores in result.scores.items():
        title = f"<h2>{escape(head)}</h2>" if len(result.scores) > 1 else ""
        sections.append(title + _figures(scores) + _pictures(scores) + _mistakes(scores, result, labelled))
        sections.append(_classes(scores))
    if result.skipped:
        left = "".join(f"<p><b>{escape(source)}</b>: {escape(why)}</p>" for source, why in result.skipped[:200])
        sections.append(f"<h2>Left out</h2>{left}")
    title = f"{Path(result.model).name} on {counted(len(result.keys), 'example')}"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        f"<h1>{escape(title)}</h1>" + "\n".join(sections) + "\n</main></body></html>\n"
    )
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def with_interval(name: str, value: float, interval: Interval | None) -> str:
    """A figure as people read it, with its interval where there is one.

    >>> with_interval("accuracy", 0.875, Interval(low=0.75, high=1.0))
    '87.5 % (75.0 % to 100.0 %)'
    """
    write = share if name in _SHARES else plain
    return write(value) + ("" if interval is None else f" ({write(interval.low)} to {write(interval.high)})")


def intervals_of(scores: ClassificationScores) -> dict[str, Interval | None]:
    """The intervals of a head, by the name of their figure."""
    return {"accuracy": scores.accuracy_interval, "auc": scores.auc_interval}


def reliability_plot(bins: Sequence[ReliabilityBin]) -> str:
    """Accuracy over confidence of the bins that hold examples, as inline SVG; on the dashed line both agree."""

    def to_x(value: float) -> float:
        return _LEFT + value * (_SIDE - _LEFT - _RIGHT)

    def to_y(value: float) -> float:
        return _SIDE - _BOTTOM - value * (_SIDE - _TOP - _BOTTOM)

    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts = [axes(to_x, to_y, ticks, ticks, "confidence", "share that is right", width=_SIDE, height=_SIDE)]
    ends = f'x1="{to_x(0):.1f}" y1="{to_y(0):.1f}" x2="{to_x(1):.1f}" y2="{to_y(1):.1f}"'
    parts.append(f'<line class="even" {ends}/>')
    filled = [part for part in bins if part.confidence is not None and part.accuracy is not None]
    most = max((part.count for part in filled), default=1)
    points = [(to_x(part.confidence or 0.0), to_y(part.accuracy or 0.0)) for part in filled]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline class="line s0" points="{path}"/>')
    for (x, y), part in zip(points, filled):
        radius = 3 + 7 * (part.count / most) ** 0.5
        parts.append(
            f'<circle class="dot s0" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
            f"<title>{counted(part.count, 'example')}</title></circle>"
        )
    return svg(parts, "share that is right over confidence", width=_SIDE, height=_SIDE)


def _head(result: ClassifierEvaluation) -> str:
    views = result.views
    clips = "one clip" if views.clips == 1 else f"the mean of up to {views.clips} clips"
    how = "spanning it" if views.stride is None else f"windows of every {views.stride}. frame"
    units = "groups" if result.by_group else "examples"
    split = "" if result.split == "all" else f", split {result.split}"
    return (
        f'<p class="soft">{escape(result.source)}{escape(split)}: {counted(len(result.keys), "example")}, {clips} a '
        f"video ({how}), fit by {views.fit}. Intervals are 95 % of a bootstrap over {units}.</p>"
        f'<p class="note">Classifier <code>{escape(result.model)}</code>, fingerprint '
        f"<code>{escape(result.fingerprint)}</code>.</p>"
    )


def _figures(scores: ClassificationScores) -> str:
    known, cards, rows = intervals_of(scores), [], []
    for name, value in scores.named():
        title, meaning = CLASS_FIGURES[name]
        number, _, unit = with_interval(name, value, None).partition(" ")
        small = f" <small>{escape(unit)}</small>" if unit else ""
        cards.append(f'<div class="card"><b class="num">{number}{small}</b><span>{title}</span></div>')
        rows.append([f"<b>{title}</b>", escape(with_interval(name, value, known.get(name))), escape(meaning)])
    table = table_of(["figure", "value (95 %)", "meaning"], rows, right=(1,))
    return f'<div class="cards">{"".join(cards)}</div>{table}'


def _pictures(scores: ClassificationScores) -> str:
    picture = confusion_picture(scores.confusion, [part.name for part in scores.classes])
    return (
        "<h3>What was taken for what, and how far confidence can be trusted</h3><p>Rows are the true classes. On the "
        "right, points below the dashed line are answers more confident than right; large points hold more examples."
        f'</p><div class="pair"><div class="panel"><img alt="confusion matrix" style="width:100%" '
        f'src="{_address(picture)}"></div><div class="panel">{reliability_plot(scores.reliability)}</div></div>'
    )


def _mistakes(scores: ClassificationScores, result: ClassifierEvaluation, labelled: LabelledSet) -> str:
    if not scores.mistakes:
        return "<h3>Mistakes</h3><p>None.</p>"
    frames, labels, rows = [], [], []
    for mistake in scores.mistakes:
        key = result.keys[mistake.index]
        told = f"{mistake.predicted} {100 * mistake.confidence:.0f} %, is {mistake.truth}"
        rows.append([escape(key), escape(mistake.truth), escape(mistake.predicted), share(mistake.confidence),
                     share(mistake.probability)])  # fmt: skip
        example = labelled[mistake.index]
        try:
            if example.kind != "tokens":
                frames.append(example.clip(Selection(uniform=1)).frames_THWC[0])
                labels.append(told)
        except (InputError, OSError):
            continue
    sheet = ""
    if frames:
        picture = contact_sheet(frames, labels, columns=4)
        sheet = f'<figure><img alt="the most confident mistakes" src="{_address(picture)}"></figure>'
    head = ["example", "is", "taken for", "confidence", "of the true class"]
    return (
        f"<h3>Most confident mistakes</h3><p>{scores.num_mistakes:,} of {scores.num_examples:,} examples were told "
        f"wrong; these the most surely.</p>{sheet}{table_of(head, rows, right=(3, 4))}"
    )


def _classes(scores: ClassificationScores) -> str:
    rows = [
        [escape(part.name), f"{part.count:,}", *(_known(value) for value in (part.precision, part.recall, part.f1))]
        for part in scores.classes
    ]
    return "<h3>Every class</h3>" + table_of(
        ["class", "examples", "precision", "recall", "F1"], rows, right=(1, 2, 3, 4)
    )


def _known(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _address(picture: Image.Image) -> str:
    file = io.BytesIO()
    Image.fromarray(np.asarray(picture.convert("RGB"))).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
