"""An evaluation as one page that needs nothing but itself: figures, curves, clips side by side, use of the codebook.

Letters: K codebook_size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from math import inf
from pathlib import Path

from tokenreel.files import whole_file
from tokenreel.measure.codecs import CodecCurve, CodecPoint
from tokenreel.measure.scores import Scores

from .report_gallery import ERROR_GAIN, Gallery, Shown, animation
from .report_plot import Line, Mark, curve_plot, usage_plot
from .report_style import STYLE
from .report_words import FIGURES, bits, compared, counted, level, plain

__all__ = ["report_page", "table_of", "write_report"]

_CARDS = ("psnr_db", "ssim", "bits_per_pixel", "codebook_usage", "temporal_psnr_db", "encode_frames_per_second")
_MOST_ROWS = 200
_ERRORS = (
    "The third picture is the error, dark where there is none and brightest from "
    f"{256 // ERROR_GAIN} of 255 levels on. Pictures are compressed again for this page."
)


def write_report(
    path: str | os.PathLike[str], scores: Scores, curves: Sequence[CodecCurve], gallery: Gallery, *, source: str
) -> Path:
    """Write the page; it appears whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(report_page(scores, curves, gallery, source=source), encoding="utf-8")
    return Path(path)


def report_page(scores: Scores, curves: Sequence[CodecCurve], gallery: Gallery, *, source: str) -> str:
    """The page as text: no scripts, no links, nothing loaded.

    Args:
        source: where the clips came from, in words.
    """
    title = f"{scores.tokenizer} on {counted(len(scores.clips), 'clip')}"
    sections = [
        _head(scores, curves, source),
        _curves(scores, curves),
        *_galleries(scores, gallery),
        _usage(scores),
        _figures(scores),
        _distances(scores, source),
        _table(scores),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )


def _head(scores: Scores, curves: Sequence[CodecCurve], source: str) -> str:
    named = dict(scores.named())
    cards = "".join(_card(name, named[name]) for name in _CARDS if name in named)
    exact = sum(clip.squared_error == 0 for clip in scores.clips)
    notes = [f"{exact} of {len(scores.clips)} clips come back exactly."] if exact else []
    if 0 < exact < len(scores.clips):
        notes[0] += " The levels above are means over the others."
    if scores.skipped:
        notes.append(f"{counted(len(scores.skipped), 'clip')} could not be read and {_is(scores.skipped)} left out.")
    clips = counted(len(scores.clips), "clip")
    return (
        f"<h1>{escape(scores.tokenizer)}: {escape(clips)} to tokens and back</h1>"
        f'<p class="lead">{escape(_verdict(scores))}</p>'
        f'<p class="soft">Protocol: {escape(clips)} of {escape(source)}; {escape(scores.protocol.sentence())}. '
        f"Levels and similarities are means over clips, on RGB in [0, 1]; bits are all bits over all pixels.</p>"
        f'<div class="cards">{cards}</div>'
        + "".join(f"<p>{escape(note)}</p>" for note in [compared(scores, curves), *notes] if note)
        + f'<p class="note">Tokenizer <code>{escape(scores.tokenizer)}</code>, '
        f"fingerprint <code>{escape(scores.fingerprint)}</code>.</p>"
    )


def _verdict(scores: Scores) -> str:
    tokens = scores.num_tokens / len(scores.clips)
    size = f"{scores.codebook_size:,}"
    psnr = scores.mean(lambda clip: clip.psnr_db)
    quality = "comes back exactly" if level(psnr) == "exact" else f"comes back at {level(psnr)}"
    frames = scores.num_frames / len(scores.clips)
    what = "A picture" if frames == 1 else f"A clip of {frames:.3g} frames"
    return f"{what} becomes {tokens:,.0f} ids of {size}, {bits(scores.bits_per_pixel)} bits a pixel, and {quality}."


def _card(name: str, value: float) -> str:
    title, write, _ = FIGURES[name]
    number, _, unit = write(value).partition(" ")
    small = f" <small>{escape(unit)}</small>" if unit else ""
    return f'<div class="card"><b class="num">{escape(number)}{small}</b><span>{escape(title)}</span></div>'


def _curves(scores: Scores, curves: Sequence[CodecCurve]) -> str:
    if not curves:
        return ""
    plots = []
    for what, title, most in (("psnr_db", "PSNR, dB", inf), ("ssim", "SSIM", 1.0)):
        lines = [Line(points, style) for style, curve in enumerate(curves) if (points := _points(curve.points, what))]
        ours = scores.mean(lambda clip, what=what: getattr(clip, what))  # type: ignore[misc]
        is_point = ours is not None and ours != inf
        mark = Mark(scores.tokenizer, scores.bits_per_pixel, ours if is_point else None)
        if lines:
            plot = curve_plot(lines, mark, x_title="bits a pixel", y_title=title, y_most=most)
            plots.append(f'<div class="panel">{plot}</div>')
    rows = [[escape(curve.title), *_at(curve, scores.bits_per_pixel), _range(curve.points)] for curve in curves]
    head = ["codec", f"PSNR at {bits(scores.bits_per_pixel)} bits", "SSIM there", "bits a pixel tried"]
    return (
        "<h2>Beside codecs, at the same bits</h2>"
        "<p>The same frames through codecs. Bits of video codecs are those of their packets, without a container; bits "
        "of JPEG and WebP are whole files, one a frame. Values between two points are read off the curve.</p>"
        + _legend(scores, curves)
        + f'<div class="pair">{"".join(plots)}</div>'
        + table_of(head, rows)
    )


def _legend(scores: Scores, curves: Sequence[CodecCurve]) -> str:
    names = [f'<span><i class="key-s{style}"></i>{escape(curve.title)}</span>' for style, curve in enumerate(curves)]
    ours = f'<span><i class="key-ours"></i>{escape(scores.tokenizer)}</span>'
    return f'<div class="legend">{"".join([ours, *names])}</div>'


def _points(points: Iterable[CodecPoint], what: str) -> list[tuple[float, float]]:
    found = ((point.bits_per_pixel, getattr(point, what)) for point in points)
    return [(x, y) for x, y in found if y is not None]


def _at(curve: CodecCurve, rate: float) -> tuple[str, str]:
    psnr, similarity = curve.at(rate), curve.at(rate, "ssim")
    return (
        "not within its range" if psnr is None else level(psnr),
        "" if similarity is None else plain(similarity),
    )


def _range(points: Sequence[CodecPoint]) -> str:
    return f"{bits(points[0].bits_per_pixel)} to {bits(points[-1].bits_per_pixel)}"


def _galleries(scores: Scores, gallery: Gallery) -> list[str]:
    if all(clip.squared_error == 0 for clip in scores.clips):
        return [_clips("Some clips", gallery.worst(), f"All come back exactly. {_ERRORS}")]
    return [
        _clips("Worst clips", gallery.worst(), f"Largest squared error first. {_ERRORS}"),
        _clips("Best clips", gallery.best(), "Smallest squared error first."),
    ]


def _clips(title: str, shown: Sequence[Shown], sentence: str) -> str:
    if not shown:
        return ""
    figures = []
    for one in shown:
        row = one.row
        facts = [level(row.psnr_db)]
        facts += [f"SSIM {plain(row.ssim)}"] if row.ssim is not None else []
        facts += [f"temporal {level(row.temporal_psnr_db)}"] if row.temporal_psnr_db is not None else []
        figures.append(
            '<figure><div class="heads"><span>original</span><span>decoded</span><span>error</span></div>'
            f'<img alt="{escape(row.key)}: original, decoded and error side by side" src="{animation(one)}">'
            f"<figcaption><b>{escape(row.key)}</b>"
            + "".join(f'<span class="num">{escape(fact)}</span>' for fact in facts)
            + "</figcaption></figure>"
        )
    return f'<h2>{title}</h2><p>{sentence}</p><div class="clips">{"".join(figures)}</div>'


def _usage(scores: Scores) -> str:
    counts = scores.counts
    used = int((counts.counts_K > 0).sum())
    return (
        "<h2>Use of the codebook</h2>"
        f"<p>{used:,} of {scores.codebook_size:,} ids came at least once in {counts.num_ids:,} tokens; perplexity "
        f"{FIGURES['perplexity'][1](counts.perplexity)}. A steep fall or a gap on the right means that part of the "
        f"codebook is not used.</p>"
        f'<div class="panel">{usage_plot(counts.counts_K)}</div>'
    )


def _figures(scores: Scores) -> str:
    rows = []
    for name, value in scores.named():
        title, write, meaning = FIGURES[name]
        rows.append([f"<b>{escape(title)}</b>", escape(write(value)), escape(meaning)])
    return "<h2>All figures, and what they mean</h2>" + table_of(["figure", "value", "meaning"], rows, right=(1,))


def _distances(scores: Scores, source: str) -> str:
    if not scores.features:
        return ""
    items = []
    for score in scores.features:
        title, write, _ = FIGURES[score.name]
        few = (
            f" With {score.num_vectors} vectors of {score.dim} values the figure is biased; compare it only with "
            "figures from as many."
            if score.num_vectors <= score.dim
            else ""
        )
        where = f"{escape(source)}; {escape(scores.protocol.sentence())}"
        items.append(
            f"<p><b>{escape(title)} {write(score.value)}</b> over {score.num_vectors} {score.unit} "
            f"of {where}; extractor {escape(score.extractor.sentence())}, SHA-256 "
            f"<code>{score.sha256}</code>.{few}</p>"
        )
    return "<h2>Distances between the two sets</h2>" + "".join(items)


def _table(scores: Scores) -> str:
    rows = []
    for row in scores.ranked()[:_MOST_ROWS]:
        frames, height, width = row.size
        similarity = "" if row.ssim is None else plain(row.ssim)
        temporal = "" if row.temporal_psnr_db is None else level(row.temporal_psnr_db)
        rows.append(
            [escape(row.key), f"{frames} x {width}x{height}", f"{row.num_tokens:,}", bits(row.bits_per_pixel),
             level(row.psnr_db), similarity, temporal]
        )  # fmt: skip
    head = ["clip", "frames", "tokens", "bits a pixel", "PSNR", "SSIM", "temporal PSNR"]
    left = len(scores.clips) - len(rows)
    more = f'<p class="note">{left:,} further clips are not listed.</p>' if left else ""
    skipped = "".join(f"<p><b>{escape(source)}</b>: {escape(why)}</p>" for source, why in scores.skipped[:_MOST_ROWS])
    return (
        "<h2>Every clip</h2><p>Worst first.</p>"
        + table_of(head, rows, right=(1, 2, 3, 4, 5, 6))
        + more
        + (f"<h2>Left out</h2>{skipped}" if skipped else "")
    )


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (1, 2, 3)) -> str:
    """A table; ``head`` is text, cells are HTML."""
    places = ['class="num"' if column in right else 'class="key"' for column in range(len(head))]
    top = "".join(f"<th {place}>{escape(name)}</th>" for place, name in zip(places, head))
    body = "".join(
        "<tr>" + "".join(f"<td {place}>{cell}</td>" for place, cell in zip(places, row)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _is(items: Sequence[object]) -> str:
    return "is" if len(items) == 1 else "are"
