"""``tokenreel generate``: a prompt or a storyboard to a video."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenreel.cli.options import Precise, Quality, precision_of
from tokenreel.cli.show import Json, Quiet, amount, show
from tokenreel.errors import InputError

if TYPE_CHECKING:
    from tokenreel.generate.sample import SampleStep
    from tokenreel.generate.scenes import SceneProgress

__all__ = ["generate"]

_OFTEN_SECONDS = 0.2

_Prompt = Annotated[str | None, typer.Argument(help="What is to be seen; a class for a generator told by classes.")]
_Output = Annotated[
    Path, typer.Option("--output", "-o", help="mp4, gif, webp, mkv, webm, png, or a folder for one png a frame.")
]
_Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A folder or hub id of a generator; by default world-maskgit, which ships."),
]
_Tokenizer = Annotated[
    str | None, typer.Option("--tokenizer", "-t", help="By default the one that the generator names.")
]
_Seconds = Annotated[
    float | None, typer.Option(help="Of the video; by default what the generator makes at once.", metavar="S")
]
_Size = Annotated[str | None, typer.Option(help="By default what the generator was trained on.", metavar="S|WxH")]
_Fps = Annotated[float | None, typer.Option(help="By default that of the training data.", metavar="F")]
_Steps = Annotated[int | None, typer.Option(help="Passes through the generator a window (18).")]
_StillSteps = Annotated[
    int | None, typer.Option(help="Passes for the first frame alone, before the others (0, or as the generator says).")
]
_FrameSteps = Annotated[
    int | None,
    typer.Option(help="Passes for each later frame, one after another; 0: all at once (0, or as the generator says)."),
]
_Guidance = Annotated[float | None, typer.Option(help="How much the prompt counts; 1: no guidance (3).")]
_Temperature = Annotated[float | None, typer.Option(help="Of the draws; 0 takes the likeliest (1).")]
_Order = Annotated[
    str | None, typer.Option(help="confidence, critic, self_critic, halton, random or front_to_back (confidence).")
]
_Seed = Annotated[int | None, typer.Option(help="Equal seeds, equal videos (0).")]
_Storyboard = Annotated[
    Path | None, typer.Option(help="A YAML file with scenes, instead of a prompt.", show_default=False)
]
_Prime = Annotated[Path | None, typer.Option(help="A picture or video to go on from.", show_default=False)]
_Grid = Annotated[str, typer.Option(help="Several videos in one, each of the next seed: rows x columns.")]
_Critic = Annotated[str | None, typer.Option(help="Folder of a token critic.", show_default=False)]
_ShowSteps = Annotated[Path | None, typer.Option(help="Write a sheet of the unmasking here (png).", show_default=False)]
_Window = Annotated[
    int | None, typer.Option(help="Frames made at once; by default as trained.", metavar="N", show_default=False)
]
_TextCache = Annotated[
    Path | None, typer.Option(help="Keep the states of an outside text encoder here.", show_default=False)
]
_Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]


def generate(
    prompt: _Prompt = None,
    output: _Output = Path("out.mp4"),
    model: _Model = None,
    tokenizer: _Tokenizer = None,
    seconds: _Seconds = None,
    size: _Size = None,
    fps: _Fps = None,
    steps: _Steps = None,
    still_steps: _StillSteps = None,
    frame_steps: _FrameSteps = None,
    guidance: _Guidance = None,
    temperature: _Temperature = None,
    order: _Order = None,
    seed: _Seed = None,
    storyboard: _Storyboard = None,
    prime: _Prime = None,
    grid: _Grid = "1x1",
    critic: _Critic = None,
    show_steps: _ShowSteps = None,
    window: _Window = None,
    text_cache: _TextCache = None,
    device: _Device = "auto",
    precision: Precise = "fp32",
    quality: Quality = 85,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """A prompt to a video, by the generator of drawn scenes that ships or by one that you trained.

    Example: [bold]tokenreel generate "a red circle moves left, then a blue square bounces" -o out.mp4[/bold]

    Example: [bold]tokenreel generate --storyboard story.yaml -o story.mp4[/bold]

    Example: [bold]tokenreel generate "a large red heart spins" --grid 3x3 --show-steps steps.png -o nine.gif[/bold]

    Example: [bold]tokenreel generate "a person waves" -m runs/tiny-maskgit/generator --prime start.png -o on.mp4[/bold]
    """
    from tokenreel.jobs.generate import generate_video
    from tokenreel.tokenizers.hub import GENERATOR

    changes: dict[str, Any] = {"fps": fps, "steps": steps, "guidance_scale": guidance, "temperature": temperature}
    changes |= {
        "order": order,
        "seed": seed,
        "window_frames": window,
        "still_steps": still_steps,
        "frame_steps": frame_steps,
    }
    line = _Line(quiet or as_json)
    try:
        result = generate_video(
            prompt,
            output,
            model=model or GENERATOR,
            tokenizer=tokenizer,
            storyboard=storyboard,
            seconds=seconds,
            size=size,
            changes=changes,
            prime=prime,
            critic=critic,
            sheet=_sheet(grid),
            show_steps=show_steps,
            text_cache=text_cache,
            device=device,
            precision=precision_of(precision),
            quality=quality,
            on_scene=line,
            on_step=line.step if line.is_live else None,
        )
    finally:
        line.end()
    values = result.as_json()
    show(values, _sentence(values), as_json=as_json, quiet=quiet)


def _sheet(text: str) -> tuple[int, int]:
    """
    >>> _sheet("2x3")
    (2, 3)
    """
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise InputError(f"--grid must be rows x columns, such as 3x3, got {text!r}")
    return int(rows), int(columns)


def _sentence(values: dict[str, Any]) -> str:
    several = f"{values['videos']} videos of " if values["videos"] > 1 else ""
    scenes = f", {len(values['prompts'])} scenes" if len(values["prompts"]) > 1 else ""
    bytes = f", {amount(values['bytes'])}" if values["bytes"] is not None else ""
    steps = f"; {values['show_steps']}" if values["show_steps"] is not None else ""
    return (
        f"{values['path']}: {several}{values['frames']} frames {values['width']}x{values['height']} at "
        f"{values['fps']:g} fps{scenes}{bytes}{steps}"
    )


class _Line:
    """How far the video is: rewritten on a terminal, one line a scene elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.is_live = quiet, sys.stderr.isatty()
        self.start, self.scene = time.monotonic(), 0
        self.told, self.text = 0.0, ""

    def __call__(self, now: SceneProgress) -> None:
        """Tell where the video stands."""
        if self.quiet or (not self.is_live and now.scene == self.scene and now.frames_done < now.num_frames):
            return
        self.scene = now.scene
        self.text = (
            f"scene {now.scene} of {now.num_scenes}  frame {now.frames_done} of {now.num_frames}  {now.window} windows"
        )
        self._tell(self.text)

    def step(self, video: int, step: SampleStep) -> None:
        """Tell which pass of which video it is, on a terminal and not too often."""
        if not self.quiet and time.monotonic() - self.told > _OFTEN_SECONDS:
            several = f"  video {video + 1}" if video else ""
            self._tell(f"{self.text}{several}  pass {step.step + 1} of {step.steps}")

    def _tell(self, text: str) -> None:
        self.told = time.monotonic()
        text = f"{text}  {self.told - self.start:.1f} s"
        typer.echo(f"\r\033[2K{text}" if self.is_live else text, nl=not self.is_live, err=True)

    def end(self) -> None:
        """Leave the live line as it stands."""
        if self.is_live and self.scene:
            typer.echo("", err=True)
