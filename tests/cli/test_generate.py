"""``tokenreel generate``: from shards to a video on untrained models, and one sentence for what goes wrong."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokened import tokenizer_in

import tokenreel as tr
from tokenreel.cli.main import run as main
from tokenreel.errors import InputError
from tokenreel.generate import ByteTextConfig, MaskGIT, MaskGITConfig, TokenCritic, TokenCriticConfig
from tokenreel.generate.maskgit_config import tied
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.jobs.generate import generate_video
from tokenreel.samples import SAMPLE_CLIP
from tokenreel.tokenizers import load
from tokenreel.tokenizers.configs import Stack

torch.set_num_threads(1)

STACK = Stack(dim=32, depth=1, num_heads=2, head_dim=16, mlp_dim=32)
CONFIG = MaskGITConfig(
    vocabulary=Vocabulary(codebook_size=2, levels=(2,)),
    stack=STACK,
    extents=(3, 4, 4),
    context_dim=16,
    text=ByteTextConfig(stack=Stack(dim=16, depth=1, num_heads=1, head_dim=16, mlp_dim=16), max_bytes=60),
    self_critic=True,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and generators told by text, by a class and by nothing; the tokenizer lies within the first."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = load(tokenizer_in(folder / "tok"))
    told = tied(CONFIG, tokenizer, levels=(400, 160))
    MaskGIT.untrained(told).save_pretrained(folder / "model")
    shutil.copytree(folder / "tok", folder / "model" / "tokenizer")
    by_class = replace(told, context_dim=None, text=None, num_classes=3)
    MaskGIT.untrained(by_class).save_pretrained(folder / "classes")
    about = {"size": [16, 24], "num_frames": 5, "fps": 4.0, "labels": ["cat", "dog", "owl"]}
    (folder / "classes" / "trained_on.json").write_text(json.dumps(about))
    MaskGIT.untrained(replace(by_class, num_classes=None)).save_pretrained(folder / "free")
    critic = TokenCriticConfig(vocabulary=told.vocabulary, stack=STACK, extents=(3, 4, 4), context_dim=16)
    TokenCritic.untrained(critic).save_pretrained(folder / "critic")
    return folder


@pytest.fixture
def say(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Runs the whole program in an empty folder; gives exit code and both outputs."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, model: str | None = "model") -> tuple[int, str, str]:
        given = [] if model is None else ["--model", str(root / model)]
        argv = [
            "tokenreel",
            "generate",
            *words,
            *given,
            "--device",
            "cpu",
            *([] if "--steps" in words else ["--steps", "2"]),
        ]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def frames(path: str) -> np.ndarray[Any, Any]:
    return tr.read(path).frames_THWC


def test_a_prompt_becomes_a_video_of_one_window(say: Any) -> None:
    code, out, err = say("a red circle", "-o", "a.mp4")
    assert (code, out.split(",")[0]) == (0, "a.mp4: 9 frames 32x32 at 8 fps")
    assert err.splitlines()[0].startswith("scene 1 of 1  frame 0 of 9")
    assert err.splitlines()[-1].startswith("scene 1 of 1  frame 9 of 9  1 windows")
    assert frames("a.mp4").shape == (9, 32, 32, 3)


def test_a_generator_says_how_it_is_sampled_best_and_files_and_options_win(say: Any, root: Path) -> None:
    shutil.copytree(root / "model", "suited")
    about = {"size": [32, 32], "num_frames": 9, "fps": 8.0, "labels": []}
    Path("suited", "trained_on.json").write_text(json.dumps({**about, "sampling": {"still_steps": 3, "seed": 7}}))
    suited = ["--model", "suited", "-q"]
    for name, words in {
        "a": suited,
        "b": [*suited, "--seed", "7", "--still-steps", "3"],
        "c": [*suited, "--still-steps", "0"],
        "d": ["--model", str(root / "model"), "--seed", "7", "--still-steps", "3", "-q"],
    }.items():
        assert say("a red circle", "-o", f"{name}.mkv", *words, model=None) == (0, "", "")
    assert np.array_equal(frames("a.mkv"), frames("b.mkv"))
    assert not np.array_equal(frames("a.mkv"), frames("c.mkv"))
    assert np.array_equal(frames("a.mkv"), frames("d.mkv"))
    scenes = "window_frames: 9, scenes: [{prompt: a red circle, seconds: 1.125}]"
    Path("plain.yaml").write_text(f"{{size: 32x32, {scenes}}}")
    Path("other.yaml").write_text(f"{{size: 32x32, still_steps: 0, {scenes}}}")
    for name in ("plain", "other"):
        assert say("--storyboard", f"{name}.yaml", "-o", f"{name}.mkv", *suited, model=None) == (0, "", "")
    assert np.array_equal(frames("plain.mkv"), frames("a.mkv"))
    assert np.array_equal(frames("other.mkv"), frames("c.mkv"))
    Path("suited", "trained_on.json").write_text(json.dumps({**about, "sampling": {"stil_steps": 3}}))
    code, _, err = say("a red circle", "-o", "e.mkv", *suited, model=None)
    assert (code, "a storyboard has no field 'stil_steps'" in err) == (2, True)


def test_equal_seeds_are_equal_videos(say: Any) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert say("a red circle", "-o", f"{name}.mkv", "--seed", seed, "-q") == (0, "", "")
    assert np.array_equal(frames("a.mkv"), frames("b.mkv"))
    assert not np.array_equal(frames("a.mkv"), frames("c.mkv"))


def test_half_the_precision_is_chosen_and_repeats(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text_in_low: list[bool] = []
    condition = MaskGIT.condition

    def watched(self: MaskGIT, *args: Any, **options: Any) -> Any:
        text_in_low.append(torch.is_autocast_enabled("cpu"))
        return condition(self, *args, **options)

    monkeypatch.setattr(MaskGIT, "condition", watched)
    for name, precision in (("a", "bf16"), ("b", "bf16"), ("c", "fp32")):
        assert say("a red circle", "-o", f"{name}.mkv", "--precision", precision, "-q") == (0, "", "")
    assert np.array_equal(frames("a.mkv"), frames("b.mkv"))
    assert not np.array_equal(frames("a.mkv"), frames("c.mkv"))
    assert not any(text_in_low)  # states that are kept on disk are those of float32


def test_a_sheet_holds_the_videos_of_the_next_seeds(say: Any) -> None:
    code, out, _ = say("x", "-o", "four.mkv", "--grid", "2x2", "--seed", "5", "--seconds", "0.5", "--json")
    values = json.loads(out)
    assert (code, values["videos"], values["frames"]) == (0, 4, 4)
    say("x", "-o", "third.mkv", "--seed", "7", "--seconds", "0.5")
    sheet, third = frames("four.mkv"), frames("third.mkv")
    assert sheet.shape == (4, 66, 66, 3)
    assert np.array_equal(sheet[:, 34:, :32], third)
    assert (sheet[:, 32:34] == 255).all()


def test_the_unmasking_is_shown(say: Any) -> None:
    code, out, _ = say("x", "-o", "a.gif", "--show-steps", "steps.png", "--steps", "4")
    assert code == 0
    assert out.strip().endswith("; steps.png")
    assert np.asarray(Image.open("steps.png")).std() > 10


def test_only_the_first_window_is_shown(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first window of few open tokens ends early; the steps of the next one are no part of it."""
    shown: list[list[tuple[int, bool]]] = []

    def sheet(_: Any, seen: list[Any], **__: Any) -> np.ndarray[Any, Any]:
        shown.append([(step.step, bool(step.is_masked_BL.any())) for step in seen])
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr("tokenreel.generate.show.unmasking_sheet", sheet)
    story = tmp_path / "s.yaml"
    scenes = "{prompt: a, seconds: 0.5, frames_carried: 5}, {prompt: b, seconds: 1, frames_carried: 0}"
    story.write_text(f"{{size: 32x32, fps: 4, window_frames: 9, steps: 40, guidance_scale: 1, scenes: [{scenes}]}}")
    tr.write(tmp_path / "start.mkv", tr.read(SAMPLE_CLIP, tr.Selection(max_frames=5)))
    generate_video(
        None,
        tmp_path / "a.mkv",
        model=str(root / "model"),
        storyboard=story,
        prime=tmp_path / "start.mkv",
        show_steps=tmp_path / "steps.png",
    )
    assert [is_open for _, is_open in shown[0]] == [True] * (len(shown[0]) - 1) + [False]


def test_fields_that_are_not_to_be_changed_are_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no field 'prompt' to change here; there are fps"):
        generate_video("x", tmp_path / "a.mkv", model=str(root / "model"), changes={"prompt": "y"})


def test_a_picture_shorter_than_a_step_stands_still(say: Any, root: Path, tmp_path: Path) -> None:
    raw = replace(by_nothing(root), vocabulary=Vocabulary.of(load("raw:2,8,8")), extents=(2, 1, 384))
    MaskGIT.untrained(raw).save_pretrained(tmp_path / "bytes")
    Image.new("RGB", (8, 8), (200, 10, 30)).save("red.png")
    options = ["--prime", "red.png", "--size", "8x8", "--window", "4", "--temperature", "0"]
    code, out, _ = say("x", "-o", "a.mkv", *options, model=str(tmp_path / "bytes"))
    assert (code, out.split(",")[0]) == (0, "a.mkv: 4 frames 8x8 at 8 fps")


def by_nothing(root: Path) -> MaskGITConfig:
    return MaskGIT.from_pretrained(str(root / "free")).config


def test_a_storyboard_and_other_sizes(say: Any) -> None:
    Path("s.yaml").write_text(
        "{size: 24x16, fps: 4, window_frames: 5, steps: 2, scenes: [{prompt: a, seconds: 1}, {prompt: b, seconds: 2}]}"
    )
    code, out, _ = say("--storyboard", "s.yaml", "-o", "s.webp", "--fps", "2")
    assert (code, out.split(",")[:2]) == (0, ["s.webp: 6 frames 24x16 at 2 fps", " 2 scenes"])
    code, out, _ = say("a", "-o", "small.mkv", "--size", "16", "--window", "5")
    assert "5 frames 16x16" in out


def test_what_is_primed_goes_on(say: Any) -> None:
    tr.write("start.mp4", tr.read(SAMPLE_CLIP, tr.Selection(max_frames=9)))
    for name, more in (("on", ["--prime", "start.mp4"]), ("off", [])):
        assert say("x", "-o", f"{name}.mkv", *more)[0] == 0
    on, off = frames("on.mkv"), frames("off.mkv")
    assert on.shape == off.shape == (9, 32, 32, 3)
    assert not np.array_equal(on, off)
    Image.fromarray(frames("start.mp4")[0]).save("still.png")
    assert say("x", "-o", "still.mkv", "--prime", "still.png")[0] == 0


def test_critics_and_orders(say: Any, root: Path) -> None:
    code, out, _ = say("x", "-o", "a.mkv", "--critic", str(root / "critic"), "--json")
    assert (code, json.loads(out)["order"]) == (0, "critic")
    assert say("x", "-o", "b.mkv", "--order", "self_critic")[0] == 0
    assert say("x", "-o", "c.mkv", "--order", "halton", "--temperature", "0", "--guidance", "1")[0] == 0


def test_classes_and_nothing(say: Any, root: Path) -> None:
    tokenizer = ["--tokenizer", str(root / "tok")]
    code, out, _ = say("owl", "-o", "a.mkv", *tokenizer, model="classes")
    assert (code, out.split(",")[0]) == (0, "a.mkv: 5 frames 24x16 at 4 fps")
    assert say("2", "-o", "b.mkv", model="classes")[0] == 0  # its tokenizer is where it was when the ids were made
    assert np.array_equal(frames("a.mkv"), frames("b.mkv"))
    code, _, err = say("horse", "-o", "c.mkv", *tokenizer, model="classes")
    assert (code, "the nearest classes are" in err) == (2, True)
    assert say("anything", "-o", "d.mkv", *tokenizer, model="free")[0] == 0


@pytest.mark.parametrize(
    ("words", "model", "message"),
    [
        (["  "], "model", "the prompt is empty"),
        ([], "model", "neither came"),
        (["x", "--storyboard", "s.yaml"], "model", "both came"),
        (["x", "-o", "a.txt"], "model", "cannot write '.txt' files"),
        (["x"], "nowhere", "nowhere"),
        (["x"], "tok", "not a generator; name the folder of a generator"),
        (["x", "-t", "raw"], "model", "raw"),
        (["x", "-t", "OTHER"], "model", "was made for the ids of cvivit"),
        (["x" * 99], "model", "at most 60 are read"),
        (["x", "--order", "best"], "model", "order must be one of"),
        (["x", "--grid", "3"], "model", "--grid must be rows x columns"),
        (["x", "--grid", "0x1"], "model", "at least one row"),
        (["x", "--grid", "\u00b2x1"], "model", "--grid must be rows x columns"),
        (["\u00b2"], "classes", "told by a class"),
        (["a \udcff"], "model", "is not Unicode text"),
        (["x", "--show-steps", "steps.jpg"], "model", "is a png, got 'steps.jpg'"),
        (["x", "-o", "a.png", "--show-steps", "./a.png"], "model", "both the video and the sheet"),
        (["x", "--prime", "none.mp4"], "model", "none.mp4"),
        (["x", "--guidance", "2"], "free", "guidance"),
        (["x", "--order", "critic"], "model", "needs a critic"),
        (["x", "--size", "wide"], "model", "wide"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    say: Any, root: Path, words: list[str], model: str | None, message: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    if "OTHER" in words:
        tokenizer_in(other, seed=1)
        words = [str(other) if word == "OTHER" else word for word in words]
    given = words if "-o" in words else [*words, "-o", "a.mp4"]
    more = ["-t", str(root / "tok")] if model in ("free", "classes") else []
    code, out, err = say(*given, *more, model=model)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir() if path != other] == []


def test_a_tokenizer_that_ships_is_found_by_its_name(say: Any, root: Path, tmp_path: Path) -> None:
    shipped = load("video-fsq")
    MaskGIT.untrained(tied(CONFIG, shipped, levels=(400, 160))).save_pretrained(tmp_path / "model")
    code, out, _ = say("x", "-o", "a.mkv", "--size", "16", "--window", "5", model=str(tmp_path / "model"))
    assert (code, out.split(",")[0]) == (0, "a.mkv: 5 frames 16x16 at 8 fps")


def test_a_generator_without_its_tokenizer(say: Any, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "model", tmp_path / "alone")
    shutil.rmtree(tmp_path / "alone" / "tokenizer")
    source = json.loads((tmp_path / "alone" / "config.json").read_text())["vocabulary"]["reference"]
    assert str(root / "tok") in source
    (root / "tok").rename(root / "away")
    try:
        code, _, err = say("x", "-o", "a.mp4", model=str(tmp_path / "alone"))
        assert code == 2
        assert "name it with --tokenizer" in err
    finally:
        (root / "away").rename(root / "tok")
    assert say("x", "-o", "a.mp4", model=str(tmp_path / "alone"))[0] == 0


def test_a_terminal_shows_each_pass_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    from tokenreel.cli import generate as command
    from tokenreel.generate.sample import SampleStep
    from tokenreel.generate.scenes import SceneProgress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line = command._Line(quiet=False)
    line(SceneProgress(1, 1, 0, 16, 0))
    ids = torch.zeros(1, 4, dtype=torch.int64)
    for number, video in ((0, 0), (1, 0), (2, 1)):
        line.told -= 0.0 if number == 0 else 1.0  # the first pass comes too soon after the scene
        line.step(video, SampleStep(number, 6, ids, ids > 0))
    line.end()
    told = capsys.readouterr().err
    assert "pass 1 of 6" not in told
    assert "frame 0 of 16  0 windows  pass 2 of 6" in told
    assert "video 2  pass 3 of 6" in told
    quiet = command._Line(quiet=True)
    quiet.told -= 1.0
    quiet.step(0, SampleStep(0, 6, ids, ids > 0))
    assert capsys.readouterr().err == ""
