"""Storyboards: fields, defaults, files, and errors that name scene and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenreel.errors import FormatError, InputError
from tokenreel.generate.storyboard import Scene, Storyboard

YAML = """
size: 96x64
fps: 12
seed: 3
scenes:
  - prompt: a red circle moves right
    seconds: 2
  - {prompt: it turns blue, seconds: 1.5, frames_carried: 5, seed: 9, guidance_scale: 2, steps: 6}
"""


def board(*seconds: float, fps: float = 8) -> Storyboard:
    return Storyboard(scenes=[Scene(prompt="a", seconds=one) for one in seconds], size=(8, 8), fps=fps)  # type: ignore[arg-type]


def test_a_file_is_the_same_as_values(tmp_path: Path) -> None:
    path = tmp_path / "story.yaml"
    path.write_text(YAML)
    expected = Storyboard(
        scenes=(
            Scene(prompt="a red circle moves right", seconds=2),
            Scene(prompt="it turns blue", seconds=1.5, frames_carried=5, seed=9, guidance_scale=2, steps=6),
        ),
        size=(64, 96),
        fps=12,
        seed=3,
    )
    assert Storyboard.load(path) == expected
    assert expected.seconds == 3.5
    assert expected.frame_counts() == [24, 18]


@pytest.mark.parametrize(
    ("text", "size"), [("64", (64, 64)), (64, (64, 64)), ("96x64", (64, 96)), ([64, 96], (64, 96))]
)
def test_sizes(text: Any, size: tuple[int, int]) -> None:
    assert Storyboard.from_values({"size": text, "scenes": [{"prompt": "a", "seconds": 1}]}).size == size


def test_rounding_does_not_add_up() -> None:
    assert sum(board(*[0.3] * 10).frame_counts()) == 24
    assert board(*[0.3] * 4).frame_counts() == [2, 3, 2, 3]
    with pytest.raises(InputError, match=r"scene 2: 0.01 seconds are less than a frame at 8 frames a second"):
        board(1, 0.01).frame_counts()


def scenes(**fields: Any) -> dict[str, Any]:
    return {"size": 64, "scenes": [{"prompt": "a", "seconds": 1}, {"prompt": "b", "seconds": 1, **fields}]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (scenes(seconds=0), "scene 2: seconds must be a number above 0, got 0"),
        (scenes(seconds="2"), "scene 2: seconds: expected float, got '2'"),
        (scenes(seconds=float("inf")), "scene 2: seconds"),
        (scenes(prompt=" "), "scene 2: prompt must be words"),
        (scenes(prompt=3), "scene 2: prompt"),
        (scenes(frames_carried=-1), "scene 2: frames_carried must be a whole number of at least 0, got -1"),
        (scenes(steps=0), "scene 2: steps must be a whole number of at least 1"),
        (scenes(seed=-1), "scene 2: seed must be a whole number in"),
        (scenes(guidance_scale=float("nan")), "scene 2: guidance_scale must be a number"),
        (scenes(guidence_scale=2), "scene 2: Scene has no field 'guidence_scale'; did you mean 'guidance_scale'?"),
        ({"size": 64, "scenes": [{"seconds": 1, "seed": 2}]}, "scene 1: prompt is missing"),
        (
            {"size": 64, "scenes": [{"promt": "a", "seconds": 1}]},
            "scene 1: Scene has no field 'promt'; did you mean 'p",
        ),
        ({"size": 64, "scenes": ["a"]}, "scene 1: must have a prompt and seconds, got 'a'"),
        ({"size": 64, "scenes": []}, "a storyboard needs scenes"),
        ({"size": 64}, "a storyboard needs scenes"),
        ([1], "described by named fields, got list"),
        ({**scenes(), "fps": 0}, "fps must be a number above 0"),
        ({**scenes(), "fsp": 8}, "Storyboard has no field 'fsp'; did you mean 'fps'?"),
        ({"scenes": scenes()["scenes"]}, "size is missing"),
        ({**scenes(), "size": "big"}, "size must be the short side"),
        ({**scenes(), "size": [64]}, r"size must be \(height, width\)"),
        ({**scenes(), "size": [64, 0]}, "size must be a whole number of at least 1, got 0"),
        ({**scenes(), "window_frames": 0}, "window_frames must be a whole number of at least 1"),
        ({**scenes(), "order": "best"}, "order must be one of confidence"),
        ({**scenes(), "temperature": -1}, "temperature must be a number of at least 0"),
        ({**scenes(), "steps": True}, "steps"),
    ],
)
def test_errors_name_scene_and_field(values: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Storyboard.from_values(values)


def test_scenes_in_python_are_checked_too() -> None:
    with pytest.raises(InputError, match="seconds must be a number above 0"):
        Scene(prompt="a", seconds=-1)
    with pytest.raises(InputError, match="scene 1 must be a Scene, got dict"):
        Storyboard(scenes=({"prompt": "a"},), size=(8, 8))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one scene"):
        Storyboard(scenes=(), size=(8, 8))


def test_files_that_are_no_storyboards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no storyboard file"):
        Storyboard.load(tmp_path / "none.yaml")
    path = tmp_path / "story.yaml"
    path.write_text("scenes: [")
    with pytest.raises(FormatError, match="is not YAML"):
        Storyboard.load(path)
    path.write_text(YAML.replace("seconds: 1.5", "seconds: 0"))
    with pytest.raises(InputError, match=r"story.yaml: scene 2: seconds must be"):
        Storyboard.load(path)
