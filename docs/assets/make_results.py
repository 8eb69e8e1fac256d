"""Makes the pictures of docs/results.md from clips and photographs that no tokenizer learned from.

python docs/assets/make_results.py curves CLIPS PICTURES
python docs/assets/make_results.py sheet CLIPS --tokenizers video-fsq runs/sharp/tokenizer -o sheet.webp
python docs/assets/make_results.py rows CLIPS --tokenizers video-titok --counts 64 128 512 -o rows.webp
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokenreel.data.opening import open_collection
from tokenreel.jobs.evaluate import evaluate_clips
from tokenreel.jobs.report_plot import Line, Mark, curve_plot
from tokenreel.jobs.sheet import contact_sheet
from tokenreel.measure.protocol import Protocol
from tokenreel.media.pixels import to_video
from tokenreel.tokenizers import load

FOLDER = Path(__file__).parent
COLOURS = ("#2563eb", "#0d9488", "#9333ea")
STYLE = (
    "text { font: 12px sans-serif; fill: #666a7a } .title, .here { font-weight: 600; fill: #262838 } "
    ".line { fill: none; stroke-width: 2 } .mark { fill: #d9480f } .halo { fill: #d9480f; opacity: .22 } "
    ".rule { stroke: #e4e1d8 } .even { stroke: #999; stroke-dasharray: 4 3 } "
    + " ".join(f".line.s{k} {{ stroke: {colour} }} .dot.s{k} {{ fill: {colour} }}" for k, colour in enumerate(COLOURS))
)


def curves(clips: str, pictures: str) -> None:
    """``video-fsq`` beside codecs, on clips and on pictures."""
    for name, source, frames, codecs in (
        ("clips", clips, 17, ("h264", "h265", "av1")),
        ("pictures", pictures, 1, ("jpeg", "webp")),
    ):
        found = evaluate_clips([source], tokenizer="video-fsq", protocol=Protocol(frames=frames), codecs=codecs)
        lines = [
            Line([(point.bits_per_pixel, point.psnr_db) for point in curve.points], style)
            for style, curve in enumerate(found.curves)
        ]
        ours = found.scores.mean(lambda clip: clip.psnr_db)
        mark = Mark("video-fsq", found.scores.bits_per_pixel, ours)
        plot = curve_plot(lines, mark, x_title="bits a pixel", y_title="PSNR, dB")
        legend = "".join(
            f'<text x="{60 + 90 * style}" y="40" style="fill: {COLOURS[style]}; font-weight: 600">'
            f"{_short(curve.title)}</text>"
            for style, curve in enumerate(found.curves)
        )
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 330"><style>{STYLE}</style>'
        body = plot[plot.index(">") + 1 : plot.rindex("</svg>")]
        (FOLDER / f"video-fsq-{name}.svg").write_text(
            f'{head}<rect width="520" height="330" fill="#faf9f5"/>{body}{legend}</svg>\n'
        )
        print(name, f"{ours:.2f} dB at {found.scores.bits_per_pixel:.4f} bits a pixel")
        for curve in found.curves:
            print("  at these bits", curve.title, curve.at(found.scores.bits_per_pixel))


def sheet(source: str, names: list[str], out: Path, chosen: list[int]) -> None:
    """Frames 0 and 12 of clips, each beside what every tokenizer makes of them."""
    videos = _videos_of(source, 17, 256, chosen)
    decoded = [model.decode(model.encode(videos)) for model in map(load, names)]
    cells, labels = [], []
    for index, video in enumerate(videos):
        for time in (0, 12):
            for label, shown in (("original", video), *((Path(n).name, d[index]) for n, d in zip(names, decoded))):
                cells.append(_picture(shown[:, time]))
                labels.append(f"{label}, frame {time}")
    _save(contact_sheet(cells, labels, columns=2 * (1 + len(names)), width=260 * 2 * (1 + len(names))), out)


def rows(source: str, name: str, counts: list[int], out: Path, chosen: list[int]) -> None:
    """Clips of 17 frames 128x128 beside what so many tokens make of them."""
    videos, model = _videos_of(source, 17, 128, chosen), load(name)
    decoded = [model.decode(model.encode(videos, token_counts=count)) for count in counts]
    cells, labels = [], []
    for index, video in enumerate(videos):
        for time in (2, 14):
            for label, shown in (("original", video), *((f"{c} tokens", d[index]) for c, d in zip(counts, decoded))):
                cells.append(_picture(shown[:, time]))
                labels.append(f"{label}, frame {time}")
    _save(contact_sheet(cells, labels, columns=2 * (1 + len(counts)), width=176 * 2 * (1 + len(counts))), out)


def _short(title: str) -> str:
    return title.partition(" (")[0].partition(",")[0]


def _videos_of(source: str, frames: int, size: int, chosen: list[int]) -> list[Tensor]:
    found, protocol = open_collection(source), Protocol(frames=frames, size=size)
    return [to_video(protocol.read(found[index]).frames_THWC) for index in chosen or range(len(found))]


def _picture(frame_CHW: Tensor) -> np.ndarray:
    return ((frame_CHW.permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).byte().numpy()


def _save(image: Image.Image, out: Path) -> None:
    image.save(out, quality=82, method=6)
    print(out, f"{out.stat().st_size / 1024:.0f} KiB")


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curves", "sheet", "rows"))
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--tokenizers", nargs="+", default=["video-fsq"])
    parser.add_argument("--counts", nargs="+", type=int, default=[64, 128, 512])
    parser.add_argument("--clips", nargs="*", type=int, default=[], help="which, by number; all without")
    parser.add_argument("-o", "--out", type=Path, default=FOLDER / "video-fsq.webp")
    options = parser.parse_args()
    with torch.inference_mode():
        if options.what == "curves":
            curves(*options.sources)
        elif options.what == "sheet":
            sheet(options.sources[0], options.tokenizers, options.out, options.clips)
        else:
            rows(options.sources[0], options.tokenizers[0], options.counts, options.out, options.clips)


if __name__ == "__main__":
    main()
