"""The page holds what it says, needs nothing but itself, and stays small."""

from __future__ import annotations

import base64
import io
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "measure"))

from coarse import CoarseTokenizer

from tokenreel.jobs.evaluate import evaluate_clips
from tokenreel.jobs.report_gallery import ERROR_GAIN, Gallery, Shown, animation, error_map
from tokenreel.jobs.report_plot import Line, Mark, curve_plot, usage_plot
from tokenreel.jobs.report_words import FIGURES, bits, compared
from tokenreel.measure.codecs import CodecCurve, CodecPoint
from tokenreel.measure.protocol import Protocol
from tokenreel.measure.roundtrip import Spent
from tokenreel.measure.scores import ClipScore
from tokenreel.media.write import write
from tokenreel.types import Clip, Grid

VOID = {"meta", "img", "br", "line", "circle", "rect", "polyline"}


class Page(HTMLParser):
    """Tags in order, what they refer to, and whether each that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def row(key: str, error: float, frames: int = 4) -> ClipScore:
    return ClipScore(
        key=key, size=(frames, 8, 8), seconds=frames / 10 if frames > 1 else None, grid=Grid(t=1, h=1, w=1),
        num_tokens=4, num_bits=8.0, squared_error=error, temporal_squared_error=None, ssim=None, ms_ssim=None,
        lpips=None, encoding=Spent(), decoding=Spent(),
    )  # fmt: skip


@pytest.fixture
def page(tmp_path: Path, rng: np.random.Generator) -> str:
    for index in range(3):
        frames = rng.integers(0, 60 * (index + 1), (3, 32, 32, 3)).astype(np.uint8)
        name = f"clip <{index}> & co.mkv"
        write(tmp_path / "c" / name, Clip(frames_THWC=frames, pts_seconds=np.arange(3) / 10, fps=10.0))
    (tmp_path / "c" / "broken.mkv").write_bytes(b"?")
    report = tmp_path / "r.html"
    with pytest.warns(UserWarning, match="skipped"):
        evaluate_clips(
            [tmp_path / "c"],
            tokenizer=CoarseTokenizer(),
            protocol=Protocol(frames=3, size=32),
            codecs=["jpeg"],
            report=report,
        )
    return report.read_text(encoding="utf-8")


def test_a_page_is_whole_and_loads_nothing(page: str) -> None:
    read = Page(page)
    assert read.open == []
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(read.tags)
    assert read.sources
    assert all(source.startswith("data:image/webp;base64,") for source in read.sources)
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|@font-face|https?:", style)
    assert not re.search(r"https?://", page)
    assert "prefers-color-scheme: dark" in style
    assert len(page) < 4 << 20


def test_a_page_tells_its_protocol_its_clips_and_what_was_left_out(page: str) -> None:
    words = " ".join("".join(Page(page).words).split())
    assert "Protocol: 3 clips of" in words
    assert "the first 3 frames of each clip at its own rate, short side resized to 32, centre crop 32x32" in words
    assert "1 clip could not be read and is left out." in words
    assert "broken.mkv" in words
    assert "clip <2> & co.mkv" in words
    assert "<2>" not in page  # names are escaped
    for name in ("psnr_db", "ssim", "bits_per_pixel", "perplexity", "codebook_usage"):
        assert FIGURES[name][2] in words
    assert "JPEG needed fewer bits than this at every quality that was tried." in words
    assert page.count("<svg") == 3


def test_a_gallery_keeps_the_worst_and_the_best(rng: np.random.Generator) -> None:
    errors = rng.permutation(20) / 20
    gallery = Gallery(each=3)
    for error in errors:
        value = round(float(error) * 20)
        gallery.add(row(f"{value:02}", float(error)), np.full((4, 8, 8, 3), value, np.uint8), torch.zeros(3, 4, 8, 8))
    assert [shown.row.key for shown in gallery.worst()] == ["19", "18", "17"]
    assert [shown.row.key for shown in gallery.best()] == ["00", "01", "02"]
    assert all((shown.original_THWC == int(shown.row.key)).all() for shown in gallery.worst() + gallery.best())


@pytest.mark.parametrize("count", range(6))
def test_no_clip_is_shown_twice(count: int) -> None:
    gallery = Gallery(each=2)
    for index in range(count):
        gallery.add(row(str(index), index / 10), np.zeros((4, 8, 8, 3), np.uint8), torch.zeros(3, 4, 8, 8))
    keys = [shown.row.key for shown in gallery.worst() + gallery.best()]
    assert len(set(keys)) == len(keys) == min(count, 4)
    assert keys[:1] == ([str(count - 1)] if count else [])


def test_an_animation_has_three_pictures_in_a_row() -> None:
    original = np.zeros((4, 16, 16, 3), np.uint8)
    original[:, :, :8] = np.array([40, 80, 120, 160], np.uint8)[:, None, None, None]
    decoded = original.copy()
    decoded[:, 8:] += 40
    shown = Shown(row("a", 0.1), original, decoded)
    data = base64.b64decode(animation(shown).removeprefix("data:image/webp;base64,"))
    picture = Image.open(io.BytesIO(data))
    assert picture.size == (48, 16)
    assert picture.n_frames == 4  # type: ignore[attr-defined]
    picture.seek(2)
    picture.load()
    assert picture.info["duration"] == 100
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert abs(pixels[2, 2] - 120).max() < 12
    assert abs(pixels[12, 18] - 160).max() < 12
    assert pixels[2, 40].sum() < 140 < 500 < pixels[12, 40].sum()  # dark where equal, bright where 40 levels off
    still = Image.open(io.BytesIO(base64.b64decode(animation(Shown(row("a", 0, 1), original[:1], original[:1]))[23:])))
    assert getattr(still, "n_frames", 1) == 1


def test_error_maps_grow_brighter() -> None:
    a = np.zeros((1, 1, 256, 3), np.uint8)
    b = np.arange(256, dtype=np.uint8)[None, None, :, None].repeat(3, axis=3)
    brightness = error_map(a, b)[0, 0].astype(int) @ [3, 6, 1]
    assert (np.diff(brightness[: 256 // ERROR_GAIN]) > 0).all()
    assert (np.diff(brightness[256 // ERROR_GAIN :]) == 0).all()


def test_a_curve_plot_puts_points_where_they_belong() -> None:
    line = Line(((0.01, 20.0), (0.1, 30.0), (1.0, 40.0)), 0)
    text = curve_plot([line], Mark("us <here>", 0.1, 25.0), x_title="bits", y_title="dB")
    points = re.search(r'<polyline class="line s0" points="([^"]+)"', text)
    assert points is not None
    (x0, y0), (x1, y1), (x2, y2) = ([float(v) for v in point.split(",")] for point in points[1].split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)  # decades are equally long
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    mark = re.search(r'class="mark" cx="([\d.]+)" cy="([\d.]+)"', text)
    assert mark is not None
    assert float(mark[1]) == pytest.approx(x1, abs=0.2)
    assert float(mark[2]) == pytest.approx((y0 + y1) / 2, abs=0.2)
    assert "us &lt;here&gt;" in text
    exact = curve_plot([line], Mark("us", 24.0, None), x_title="bits", y_title="dB")
    assert 'class="mark"' not in exact
    assert 'class="even"' in exact


@pytest.mark.parametrize("num_codes", [1, 3, 1000, 1 << 18])
def test_a_usage_plot_shows_all_codes(num_codes: int) -> None:
    counts = np.zeros(num_codes, np.int64)
    counts[: max(1, num_codes // 2)] = 7
    text = usage_plot(counts)
    bars = [float(x) for x in re.findall(r'class="bar" x="([\d.]+)"', text)]
    assert 0 < len(bars) <= 65
    assert bars == sorted(bars)
    assert max(bars) < 1064 / 2 + 60
    assert "nan" not in text


def test_the_comparison_in_words() -> None:
    class Fixed:
        bits_per_pixel = 0.02

        def mean(self, value: object) -> float:
            return 24.0

    def curve(name: str, low: float, high: float) -> CodecCurve:
        return CodecCurve(name, f"{name} (x)", (CodecPoint(40, low, 20.0, 0.5), CodecPoint(20, high, 30.0, 0.9)))

    text = compared(Fixed(), [curve("A", 0.01, 0.04), curve("B", 0.5, 1), curve("C", 0.001, 0.01)])  # type: ignore[arg-type]
    assert text == (
        "At these 0.02 bits a pixel A reaches 25.00 dB; this tokenizer, 24.00 dB. B cannot be had at so few bits. "
        "C needed fewer bits than this at every quality that was tried."
    )
    assert compared(Fixed(), []) == ""  # type: ignore[arg-type]
    assert bits(math.pi / 100) == "0.0314"
