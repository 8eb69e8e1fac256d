"""Prompts to video files: one prompt or a storyboard, one video or a sheet of several.

Letters: C channels, T frames, H W pixels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tokenreel.errors import InputError, MismatchError
from tokenreel.generate.critic import Scorer, TokenCritic
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.prime import Timing
from tokenreel.generate.sample import SampleStep
from tokenreel.generate.scenes import SceneProgress, make_scenes
from tokenreel.generate.storyboard import Scene, Storyboard
from tokenreel.generate.text import TextEncoder
from tokenreel.media.frames import Selection
from tokenreel.media.pixels import center_crop, parse_size, resize, to_frames, to_video
from tokenreel.media.read import open_media
from tokenreel.media.write import Writer, open_writer
from tokenreel.nn.kept_memory import keep_freed_memory
from tokenreel.tokenizers import Tokenizer
from tokenreel.tokenizers.hub import pretrained_folder

from .generate_models import Prompted, TrainedOn, encoder_of, tokenizer_for, trained_on

if TYPE_CHECKING:
    from tokenreel.tokenizers.learned import Precision

__all__ = ["Generated", "OnScene", "OnStep", "generate_video"]

OnScene = Callable[[SceneProgress], object]
OnStep = Callable[[int, SampleStep], object]
_FPS = 8.0  # where neither command nor generator say
_GAP = 2  # pixels between the videos of a sheet
_PAPER = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What was written."""

    path: Path
    storyboard: Storyboard
    num_frames: int
    num_videos: int
    steps_picture: Path | None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        height, width = self.storyboard.size
        return {
            "path": str(self.path),
            "prompts": [scene.prompt for scene in self.storyboard.scenes],
            "frames": self.num_frames,
            "height": height,
            "width": width,
            "fps": self.storyboard.fps,
            "videos": self.num_videos,
            "seed": self.storyboard.seed,
            "order": self.storyboard.order,
            "bytes": self.path.stat().st_size if self.path.is_file() else None,
            "show_steps": None if self.steps_picture is None else str(self.steps_picture),
        }


def generate_video(
    prompt: str | None,
    output: str | os.PathLike[str],
    *,
    model: str,
    tokenizer: str | None = None,
    storyboard: str | os.PathLike[str] | None = None,
    seconds: float | None = None,
    size: str | None = None,
    changes: Mapping[str, Any] | None = None,
    prime: str | os.PathLike[str] | None = None,
    critic: str | None = None,
    sheet: tuple[int, int] = (1, 1),
    show_steps: str | os.PathLike[str] | None = None,
    text_cache: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    quality: int = 85,
    on_scene: OnScene | None = None,
    on_step: OnStep | None = None,
) -> Generated:
    """Write the video of a prompt, or of a storyboard, as it is made; nothing appears unless it is whole.

    Args:
        prompt: what is to be seen; the name or number of a class for a generator that is told classes.
        output: mp4, mov, mkv, webm, gif, webp, png or a folder.
        model: folder or hub id of a generator.
        tokenizer: folder, name or hub id; by default the one that the generator names.
        storyboard: a YAML file instead of a prompt.
        seconds: of the prompt's scene; by default one window of the generator.
        size: short side or width x height; by default what the generator was trained on.
        changes: other fields of the storyboard, those that are None left out.
        prime: a picture or video whose last frames come before the first scene; they are not repeated.
        critic: folder of a token critic; ``order`` then is ``critic`` by default.
        sheet: rows and columns of videos, each from the next seed.
        show_steps: a png of how the first window of the first video was unmasked.
        text_cache: folder that keeps the states of an outside text encoder.
        device, precision, quality: of the models and of the file.
        on_scene: told how far the first video is, before each window.
        on_step: told the number of a video, from 0, and each sampling step of its windows.

    Raises:
        InputError: something does not fit together; MismatchError: tokenizer, critic or text encoder are of others.
    """
    _check_asked(prompt, storyboard, seconds, sheet)
    _check_written(output, show_steps, quality)
    models = _loaded(model, tokenizer, critic, text_cache, device, precision)
    wanted = _named({name: value for name, value in (changes or {}).items() if value is not None})
    board = _board(prompt, storyboard, seconds, size, wanted, models)
    start_CTHW = None if prime is None else _primed(prime, board, Timing.of(models.tokenizer))
    seen: list[SampleStep] = []
    videos = [
        _frames(
            models,
            _seeded(board, number),
            start_CTHW,
            on_scene if number == 0 else None,
            _told(number, seen if show_steps is not None and number == 0 else None, on_step),
        )
        for number in range(sheet[0] * sheet[1])
    ]
    with open_writer(output, fps=board.fps, quality=quality) as writer:
        _write(writer, videos, sheet)
    return Generated(
        path=writer.path,
        storyboard=board,
        num_frames=writer.num_frames,
        num_videos=len(videos),
        steps_picture=None if show_steps is None else _steps_picture(show_steps, models.tokenizer, seen, board),
    )


class _Models(NamedTuple):
    generator: MaskGIT
    tokenizer: Tokenizer
    encoder: TextEncoder | None
    critic: Scorer | None
    about: TrainedOn


def _loaded(
    model: str,
    tokenizer: str | None,
    critic: str | None,
    text_cache: str | os.PathLike[str] | None,
    device: str,
    precision: Precision,
) -> _Models:
    generator = MaskGIT.from_pretrained(model, device=device, precision=precision)
    if generator.device.type == "cpu":
        keep_freed_memory()
    folder = Path(model) if Path(model).is_dir() else pretrained_folder(model)
    return _Models(
        generator,
        tokenizer_for(generator.vocab, given=tokenizer, beside=folder, device=device, precision=precision),
        encoder_of(generator, cache=text_cache, device=str(generator.device)),
        None if critic is None else _critic(critic, generator, device, precision),
        TrainedOn() if folder is None else trained_on(folder),
    )


def _frames(
    models: _Models,
    board: Storyboard,
    start_CTHW: Tensor | None,
    progress: OnScene | None,
    callback: Callable[[SampleStep], object] | None,
) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames of one video, uint8 (H, W, 3), in order."""
    parts = make_scenes(
        Prompted(models.generator, models.about.labels),
        models.tokenizer,
        models.encoder,
        board,
        progress=progress,
        start_CTHW=start_CTHW,
        critic=models.critic,
        callback=callback,
    )
    for part in parts:
        yield from to_frames(part.video_CTHW)


def _told(number: int, seen: list[SampleStep] | None, on_step: OnStep | None) -> Callable[[SampleStep], object] | None:
    """Tells of each step, and keeps those of the first window, up to the one that leaves no token open."""
    if seen is None and on_step is None:
        return None

    def note(step: SampleStep) -> None:
        if seen is not None and (not seen or bool(seen[-1].is_masked_BL.any())):
            seen.append(step)
        if on_step is not None:
            on_step(number, step)

    return note


def _check_asked(prompt: str | None, storyboard: Any, seconds: float | None, sheet: tuple[int, int]) -> None:
    if (prompt is None) == (storyboard is None):
        both = "both came" if prompt is not None else "neither came"
        raise InputError(f"say what is to be seen: a prompt, or --storyboard FILE with several; {both}")
    if prompt is not None and not prompt.strip():
        raise InputError("the prompt is empty; say what is to be seen, such as 'a red circle moves right'")
    if storyboard is not None and seconds is not None:
        raise InputError("the storyboard says how long each scene is; leave --seconds out")
    if min(sheet) < 1:
        raise InputError(f"a sheet has at least one row and one column, got {sheet[0]}x{sheet[1]}")


def _check_written(output: str | os.PathLike[str], show_steps: str | os.PathLike[str] | None, quality: int) -> None:
    """InputError for what could not be written, before anything is loaded."""
    open_writer(output, quality=quality)
    if show_steps is None:
        return
    path = Path(show_steps)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise InputError(f"the sheet of the unmasking is a png, got {str(path)!r}; write --show-steps steps.png")
    if path.absolute() == Path(output).absolute():
        raise InputError(f"{str(path)!r} is both the video and the sheet of its unmasking; choose another name for one")


def _named(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """InputError unless all are fields of a storyboard that may be changed here."""
    known = [field.name for field in fields(Storyboard) if field.name not in ("scenes", "size")]
    for name in changes:
        if name not in known:
            raise InputError(f"a storyboard has no field {name!r} to change here; there are {', '.join(known)}")
    return changes


def _critic(critic: str, generator: MaskGIT, device: str, precision: Precision) -> Scorer:
    found = TokenCritic.from_pretrained(critic, device=device, precision=precision)
    ours, theirs = generator.vocab, found.vocab
    if (ours.codebook_size, ours.tokenizer, ours.fingerprint) != (
        theirs.codebook_size,
        theirs.tokenizer,
        theirs.fingerprint,
    ):
        raise MismatchError(
            f"the critic {critic} judges {theirs.codebook_size} ids of {theirs.tokenizer or 'no tokenizer'} "
            f"{theirs.fingerprint[:12]}, the generator speaks {ours.codebook_size} of {ours.tokenizer or 'none'} "
            f"{ours.fingerprint[:12]}; train one for it: tokenreel train ... critic.kind=token critic.after=true"
        )
    return found


def _board(
    prompt: str | None,
    storyboard: str | os.PathLike[str] | None,
    seconds: float | None,
    size: str | None,
    changes: Mapping[str, Any],
    models: _Models,
) -> Storyboard:
    """The storyboard, what is not said filled in from what the generator was trained on."""
    about, told = models.about, dict(changes)
    suits = _named(about.sampling)
    if models.critic is not None:
        told.setdefault("order", "critic")
    if not models.generator.config.is_conditional:
        told.setdefault("guidance_scale", 1.0)
    if storyboard is not None:
        if size is not None:
            told["size"] = _size(size, models)
        return replace(Storyboard.load(storyboard, defaults=suits), **told)
    assert prompt is not None
    told = {**suits, **told}
    trained = about.num_frames or Timing.of(models.tokenizer).frames(models.generator.config.extents[0])
    frames = told.setdefault("window_frames", trained)
    fps = told.setdefault("fps", about.fps or _FPS)
    lasts = frames / fps if seconds is None and fps > 0 else seconds
    scene = Scene(prompt=prompt, seconds=1.0 if lasts is None else lasts)
    return Storyboard(scenes=(scene,), size=_size(size, models), **told)


def _size(text: str | None, models: _Models) -> tuple[int, int]:
    """(height, width): as asked, a short side with the shape of what the generator was trained on; else that itself."""
    found = parse_size(text)
    if isinstance(found, tuple):
        return found
    trained, (_, rows, columns) = models.about.size, models.generator.config.extents
    if trained is None and rows > 1:
        _, ph, pw = models.tokenizer.patch_size
        trained = (rows * ph, columns * pw)
    if found is not None:
        height, width = trained or (found, found)
        scale = found / min(height, width)
        return round(height * scale), round(width * scale)
    if trained is None:
        raise InputError("this generator does not say which size it was trained on; give one: --size 128x128")
    return trained


def _seeded(board: Storyboard, number: int) -> Storyboard:
    """The storyboard of one video of a sheet."""
    scenes = [scene if scene.seed is None else replace(scene, seed=scene.seed + number) for scene in board.scenes]
    return replace(board, seed=board.seed + number, scenes=tuple(scenes))


def _primed(path: str | os.PathLike[str], board: Storyboard, timing: Timing) -> Tensor:
    """The last frames of a picture or video (3, T, H, W) at the storyboard's rate, cut to its shape and size.

    What is shorter than a step of the grid stands still before it begins.
    """
    height, width = board.size
    last: deque[npt.NDArray[np.uint8]] = deque(maxlen=max(timing.first_frames, board.window_frames - 1))
    with open_media(path) as reader:
        rate = reader.info.fps
        if reader.info.kind != "picture" and (rate is None or abs(rate - board.fps) > 0.01):
            reader.selection = Selection(fps=board.fps)
        for frame in reader:
            last.append(frame.pixels_HWC)
    if not last:
        raise InputError(f"{os.fspath(path)} has no frame to go on from")
    last.extendleft([last[0]] * (timing.first_frames - len(last)))
    frames_THWC = np.stack(last)[-timing.whole(len(last)) :]
    full_height, full_width = frames_THWC.shape[1:3]
    scale = max(height / full_height, width / full_width)
    fitted = (max(height, round(full_height * scale)), max(width, round(full_width * scale)))
    return to_video(center_crop(resize(frames_THWC, fitted), height, width))


def _write(writer: Writer, videos: list[Iterator[npt.NDArray[np.uint8]]], sheet: tuple[int, int]) -> None:
    """Frame by frame, the videos of a sheet side by side."""
    for frames in zip(*videos, strict=True):
        writer.write(frames[0] if len(frames) == 1 else _tiled(frames, sheet))


def _tiled(frames: tuple[npt.NDArray[np.uint8], ...], sheet: tuple[int, int]) -> npt.NDArray[np.uint8]:
    rows, columns = sheet
    height, width = frames[0].shape[:2]
    down, right = height + _GAP, width + _GAP
    tiled = np.full((rows * down - _GAP, columns * right - _GAP, 3), _PAPER, np.uint8)
    for number, frame_HWC in enumerate(frames):
        top, left = number // columns * down, number % columns * right
        tiled[top : top + height, left : left + width] = frame_HWC
    return tiled


def _steps_picture(
    path: str | os.PathLike[str], tokenizer: Tokenizer, seen: list[SampleStep], board: Storyboard
) -> Path:
    from PIL import Image

    from tokenreel.generate.show import unmasking_sheet
    from tokenreel.jobs.sheet import save_picture

    (template,) = tokenizer.encode([torch.zeros(3, board.window_frames, *board.size)])
    pixels = unmasking_sheet(tokenizer, seen, template=template)
    return save_picture(Image.fromarray(pixels), path)
