"""Makes the pictures of this manual from the sample clip: python docs/assets/make_pictures.py

``demo.png`` is what ``tokenreel demo`` leaves, reduced to 256 colours; ``patches.png`` shows one patch on its way from
the video to a row of the sequence.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import tokenreel
from tokenreel.jobs.demo import demo_steps
from tokenreel.samples import SAMPLE_CLIP

FOLDER = Path(__file__).parent
PATCH = (2, 36, 40)  # divides 180x320 into 5x8, few enough to see
CELL = (0, 3, 6)  # the cell of the grid that is followed
INK, PAPER, FAINT, LINE, MARK = (38, 40, 56), (250, 249, 245), (120, 122, 138), (255, 255, 255), (255, 214, 10)


def demo() -> None:
    """The picture of the tour, small enough for a README."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in demo_steps(None, folder, bar=lambda _: nullcontext(lambda *_: None)):
            pass
        picture = Image.open(Path(folder) / "demo.png").convert("RGB")
    picture.quantize(256, method=Image.Quantize.MEDIANCUT).save(FOLDER / "demo.png", optimize=True)


def patches() -> None:
    """Frames with the grid, one tubelet taken out, and its row among the L rows of the sequence."""
    clip = tokenreel.read(SAMPLE_CLIP, tokenreel.Selection(every=8, max_frames=4))
    sheet = Image.new("RGB", (1400, 560), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, frame in reversed(list(enumerate(clip.frames_THWC))):
        sheet.paste(_with_grid(frame, is_marked=number // PATCH[0] == CELL[0]), (40 + number * 54, 40 + number * 62))
    _say(draw, (40, 466), "video (T, H, W, C) = (4, 180, 320, 3)", "patch_size (2, 36, 40): grid (t, h, w) = (2, 5, 8)")
    _tubelet(sheet, draw, clip.frames_THWC)
    _sequence(sheet, draw, tokenreel.patchify(clip.frames_THWC, PATCH))
    for left in (592, 870):
        draw.line([(left, 250), (left + 50, 250)], INK, 3)
        draw.polygon([(left + 50, 242), (left + 64, 250), (left + 50, 258)], INK)
    sheet.quantize(256, method=Image.Quantize.MEDIANCUT).save(FOLDER / "patches.png", optimize=True)


def _with_grid(frame: np.ndarray, *, is_marked: bool) -> Image.Image:
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    _, ph, pw = PATCH
    for x in range(0, picture.width + 1, pw):
        draw.line([(min(x, picture.width - 1), 0), (min(x, picture.width - 1), picture.height)], LINE)
    for y in range(0, picture.height + 1, ph):
        draw.line([(0, min(y, picture.height - 1)), (picture.width, min(y, picture.height - 1))], LINE)
    if is_marked:
        _, h, w = CELL
        draw.rectangle([w * pw, h * ph, (w + 1) * pw, (h + 1) * ph], outline=MARK, width=3)
    return picture


def _tubelet(sheet: Image.Image, draw: ImageDraw.ImageDraw, frames: np.ndarray) -> None:
    (pt, ph, pw), (t, h, w) = PATCH, CELL
    for number in reversed(range(pt)):
        block = frames[t * pt + number, h * ph : (h + 1) * ph, w * pw : (w + 1) * pw]
        picture = Image.fromarray(np.ascontiguousarray(block)).resize((pw * 4, ph * 4), Image.Resampling.NEAREST)
        left, top = 676 + number * 22, 150 + number * 26
        draw.rectangle([left - 3, top - 3, left + pw * 4 + 2, top + ph * 4 + 2], fill=MARK)
        sheet.paste(picture, (left, top))
    _say(draw, (640, 466), "one patch: pt x ph x pw pixels", f"cell {CELL}, channels last")


def _sequence(sheet: Image.Image, draw: ImageDraw.ImageDraw, patches_LD: np.ndarray) -> None:
    t, h, w = CELL
    row = (t * 5 + h) * 8 + w
    shown = patches_LD[:, :: patches_LD.shape[1] // 400][:, :400]  # 8640 values a row are more than pixels here
    rows = np.repeat(shown, 5, axis=0)
    left, top = 954, 40
    sheet.paste(Image.fromarray(rows), (left, top))
    draw.rectangle([left - 3, top + row * 5 - 2, left + 402, top + row * 5 + 6], outline=MARK, width=2)
    _say(draw, (left, 466), f"patches (L, D) = {patches_LD.shape}", f"its row: (t*5 + h)*8 + w = {row}")


def _say(draw: ImageDraw.ImageDraw, place: tuple[int, int], first: str, second: str) -> None:
    draw.text(place, first, INK, ImageFont.load_default(20))
    draw.text((place[0], place[1] + 30), second, FAINT, ImageFont.load_default(18))


if __name__ == "__main__":
    demo()
    patches()
    print(*(f"{path.name}: {path.stat().st_size} bytes" for path in sorted(FOLDER.glob("*.png"))), sep="\n")
