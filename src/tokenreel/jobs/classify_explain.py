"""The attention rollout of a classifier over the video that it read: a heat map beside the original.

Letters: t h w grid, T frames, H W pixels, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tokenreel.classify import Classifier, ViViT
from tokenreel.classify.rollout import rollout
from tokenreel.data.collection import Collection
from tokenreel.data.example import Example
from tokenreel.errors import InputError, MismatchError
from tokenreel.media.write import open_writer

from .classify_views import Fit, Views, chosen_clips, read_example
from .sheet import INK, PAPER, font

__all__ = ["check_explainable", "frame_maps", "painted", "write_explanation"]

Pixels = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]
_STRONGEST = 0.75  # of the colour over the picture
_SIDES = (288, 480)  # the long side of a picture is brought between these
_GAP, _LINE = 8, 24
_SLOW_FPS = 8.0  # of films without a rate
_STOPS = np.array([(24, 20, 84), (30, 120, 180), (60, 190, 110), (250, 210, 60), (220, 40, 30)], np.float64)


def check_explainable(model: Classifier, files: Collection, output: str | os.PathLike[str]) -> None:
    """Told before anything is computed.

    Raises:
        InputError: several files, or a format that cannot be written. MismatchError: a model without pixels.
    """
    if len(files) != 1:
        raise InputError(f"--explain shows one video, got {len(files)}; name one file")
    if not isinstance(model, ViViT):
        raise MismatchError(f"--explain draws over pixels, and a {model.name} reads tokens; take a ViViT of pixels")
    open_writer(output)


def write_explanation(
    output: str | os.PathLike[str], model: Classifier, example: Example, views: Views, lines: Sequence[str]
) -> Path:
    """Write the frames that were read, each once and in order of time, beside the same under their heat map.

    Where clips overlap, a frame has the mean of their maps. Colours go from the least to the most of the whole video.

    Args:
        output: the suffix chooses the format.
        lines: texts that stand below.
    """
    assert isinstance(model, ViViT)
    frames: dict[float, Pixels] = {}
    maps: dict[float, list[Maps]] = {}
    inputs = read_example(example, model, views).inputs
    for clip, video_CTHW in zip(chosen_clips(example, model.config.num_frames, views), inputs):
        maps_THW = frame_maps(model, video_CTHW)
        for seconds, frame_HWC, map_HW in zip(clip.pts_seconds.tolist(), clip.frames_THWC, maps_THW):
            frames[seconds] = frame_HWC
            maps.setdefault(seconds, []).append(map_HW)
    means = {seconds: np.mean(found, axis=0) for seconds, found in maps.items()}
    low, high = min(one.min() for one in means.values()), max(one.max() for one in means.values())
    times = np.array(sorted(frames))
    with open_writer(output, fps=_rate(times, is_film=example.kind == "media")) as writer:
        for seconds in times.tolist():
            share_HW = (means[seconds] - low) / (high - low) if high > low else np.zeros_like(means[seconds])
            writer.write(_panel(Image.fromarray(frames[seconds]), share_HW, views.fit or model.config.fit, lines))
    return writer.path


def frame_maps(model: ViViT, video_CTHW: Pixels) -> list[Maps]:
    """The rollout of one clip on the pixels of each of its frames, float32 (H, W)."""
    pt, ph, pw = model.config.patch_size
    [map_thw] = rollout(model, [video_CTHW])
    steps = [_enlarged(map_hw, (ph, pw), video_CTHW.shape[2:4]) for map_hw in map_thw.numpy()]
    return [steps[min(frame // pt, len(steps) - 1)] for frame in range(video_CTHW.shape[1])]


def painted(image: Image.Image, share_HW: Maps, fit: Fit = "crop") -> Image.Image:
    """A picture under shares in [0, 1] of its largest centre crop of their shape, or of all of it; 0 has no colour."""
    height, width = share_HW.shape
    across, down = image.width / width, image.height / height
    if fit == "crop":
        across = down = min(across, down)
    crop = max(1, round(width * across)), max(1, round(height * down))
    left, top = (image.width - crop[0]) // 2, (image.height - crop[1]) // 2
    large = Image.fromarray(share_HW.astype(np.float32)).resize(crop, Image.Resampling.BILINEAR)
    share = np.zeros((image.height, image.width), np.float32)
    share[top : top + crop[1], left : left + crop[0]] = np.asarray(large)
    share_HW1 = share.clip(0, 1)[..., None]
    place = np.linspace(0, 1, len(_STOPS))
    colours = np.concatenate([np.interp(share_HW1, place, _STOPS[:, channel]) for channel in range(3)], axis=-1)
    weight = _STRONGEST * np.sqrt(share_HW1)
    mixed = np.asarray(image.convert("RGB"), np.float64) * (1 - weight) + colours * weight
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _enlarged(map_hw: Maps, patch: tuple[int, int], size: Sequence[int]) -> Maps:
    """A map of patches on the pixels of a frame: smooth between them, cut where the frame was padded."""
    h, w = map_hw.shape
    covered = w * patch[1], h * patch[0]
    smooth = np.asarray(Image.fromarray(map_hw).resize(covered, Image.Resampling.BILINEAR))[: size[0], : size[1]]
    return np.pad(smooth, [(0, side - have) for side, have in zip(size, smooth.shape)]).astype(np.float32)


def _panel(image: Image.Image, share_HW: Maps, fit: Fit, lines: Sequence[str]) -> Pixels:
    longest = max(image.size)
    scale = min(_SIDES[1], max(_SIDES[0], longest)) / longest
    width, height = (max(2, 2 * round(side * scale / 2)) for side in image.size)
    picture = image.resize((width, height), Image.Resampling.LANCZOS)
    tall = height + _LINE * len(lines) + _GAP
    sheet = Image.new("RGB", (2 * width + _GAP, tall + tall % 2), PAPER)
    sheet.paste(picture, (0, 0))
    sheet.paste(painted(picture, share_HW, fit), (width + _GAP, 0))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((_GAP, height + _GAP // 2 + number * _LINE), line, INK, font(16))
    return np.asarray(sheet)


def _rate(times: npt.NDArray[np.float64], *, is_film: bool) -> float:
    """Frames a second as it plays: as in the film, but no frame stands longer than a fifth of a second."""
    if not is_film or len(times) < 2:
        return _SLOW_FPS
    return float(max(5.0, min(60.0, 1 / np.median(np.diff(times)))))
