"""``tokenreel classify`` and ``eval --classifier``: what is printed, and one sentence for what goes wrong."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "classify"))

from small_vivit import HEADS, clip_of, saved, tokens_of, write_clips

from tokenreel.cli.main import run as main
from tokenreel.jobs.classify import classify_files
from tokenreel.jobs.classify_views import Views
from tokenreel.media.write import write
from tokenreel.tokens.file import save

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier, two clips, a folder a class, and tokens."""
    folder = tmp_path_factory.mktemp("root")
    saved(folder / "model")
    write_clips(folder / "clips", 30, 4)
    for index, name in enumerate(["left", "right", "left", "still"]):
        write(folder / "actions" / name / f"{index}.mkv", clip_of(4, index))
    save(folder / "a.tokens", tokens_of())
    return folder


@pytest.fixture
def say(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the whole program; gives exit code and both outputs."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the program puts its own there
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tokenreel", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_one_file_is_a_line_a_label(say: Any, root: Path) -> None:
    code, out, err = say("classify", "clips/0.mkv", "--model", "model", "--top", "2", "--device", "cpu")
    [prediction] = classify_files([root / "clips/0.mkv"], model=root / "model").predictions
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "clips/0.mkv: the mean of 4 clips of 4 frames"
    assert lines[1].split() == ["head", "label", "probability"]
    wanted = [(head, *one) for head in ("motion", "colour") for one in prediction.top(head, 2)]
    for line, (head, label, share) in zip(lines[2:], wanted, strict=True):
        words = line.replace("\u2588", "").split()
        expected = [label, f"{100 * share:.1f}", "%"]
        assert words == ([head, *expected] if label == prediction.label(head) else expected)


def test_json_is_one_object(say: Any, root: Path) -> None:
    words = ("--clips", "2", "--stride", "3", "--top", "1", "--json")
    code, out, _ = say("classify", "clips", "actions/left", "-m", "model", *words)
    values = json.loads(out)
    expected = classify_files(
        [root / "clips", root / "actions" / "left"], model=root / "model", views=Views(clips=2, stride=3)
    ).as_json(1)
    assert code == 0
    assert set(values) == {"model", "fingerprint", "clips", "stride", "fit", "files", "skipped", "explain"}
    assert (values["model"], values["clips"], values["stride"], values["fit"]) == ("model", 2, 3, "crop")
    assert [one["source"] for one in values["files"]] == [
        "clips/0.mkv", "clips/1.mkv", "actions/left/0.mkv", "actions/left/2.mkv"
    ]  # fmt: skip
    for one, wanted in zip(values["files"], expected["files"], strict=True):
        assert (one["clips"], one["frames"], one["seconds"]) == (wanted["clips"], 4, wanted["seconds"])
        for head, _ in HEADS:
            [(told, known)] = zip(one["heads"][head]["top"], wanted["heads"][head]["top"], strict=True)
            assert told["label"] == known["label"] == one["heads"][head]["label"]
            assert told["probability"] == pytest.approx(known["probability"], abs=1e-6)


def test_many_files_are_a_line_each(say: Any) -> None:
    code, out, _ = say("classify", "clips", "-m", "model", "--top", "1")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["file", "clips/0.mkv", "colour", "clips/1.mkv", "colour"]
    assert say("classify", "clips", "-m", "model", "-q") == (0, "", "")


def test_broken_files_are_told(say: Any, tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, out, err = say("classify", "clips", str(tmp_path / "b.mp4"), "-m", "model")
    assert (code, out.splitlines()[-1]) == (0, "1 broken file skipped")
    assert err.startswith(f"tokenreel: warning: skipped: {tmp_path / 'b.mp4'} is not a picture or video")


def test_explain(say: Any, tmp_path: Path) -> None:
    output = tmp_path / "look.gif"
    code, out, _ = say("classify", "clips/1.mkv", "-m", "model", "--explain", str(output))
    assert (code, out.splitlines()[-1]) == (0, f"{output}: look at this")
    assert output.stat().st_size > 1000


def test_a_classifier_is_measured(say: Any, tmp_path: Path) -> None:
    words = ("eval", "--classifier", "model", "actions", "--head", "motion")
    code, out, _ = say(*words, "--report", str(tmp_path / "r.html"))
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "model on 4 examples of actions"
    assert [line.split("  ")[1] for line in lines[1:5]] == ["Accuracy", "Top 5", "Macro F1", "Calibration error"]
    assert lines[1].count("%") == 3
    assert lines[5:] == ["in brackets: 95 % of a bootstrap over examples", f"{tmp_path / 'r.html'}: look at this"]
    code, out, _ = say(*words, "--json", "--clips", "3", "--views", "2", "--stride", "1", "--group", r"/(\d)")
    values = json.loads(out)
    assert (code, values["examples"], values["clips"], values["stride"]) == (0, 3, 2, 1)
    assert values["intervals_by_group"] is True
    assert values["heads"]["motion"]["examples"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["classify", "none.mp4", "-m", "model"], "none.mp4 does not exist"),
        (["classify", "clips", "-m", "nowhere"], "there is no file nowhere/config.json"),
        (["classify", "clips", "-m", "video-fsq"], "describes a tokenizer of the family"),
        (["classify", "a.tokens", "-m", "model"], "a.tokens holds tokens, and this classifier reads pixels"),
        (["classify", "clips", "-m", "model", "--fit", "pad"], "--fit must be crop or stretch, got 'pad'"),
        (["classify", "clips", "-m", "model", "--stride", "0"], "stride must be a whole number of at least 1"),
        (["classify", "clips", "-m", "model", "--explain", "a.mp4"], "--explain shows one video, got 2"),
        (["classify", "clips/0.mkv", "-m", "model", "--explain", "a.txt"], "cannot write '.txt' files"),
        (["eval", "actions", "--classifier", "model", "-t", "raw"], "--tokenizer and --classifier exclude each other"),
        (
            ["eval", "actions", "--classifier", "model", "--size", "64"],
            "--size goes with --tokenizer only; leave it out",
        ),
        (["eval", "actions", "--classifier", "model", "--no-crop"], "--no-crop goes with --tokenizer"),
        (["eval", "actions", "-t", "raw", "--views", "2"], "--views goes with --classifier"),
        (["eval", "actions", "clips", "--classifier", "model"], "measured on one labelled source, got 2"),
        (["eval", "actions", "--classifier", "model"], "say which is asked: --head"),
        (["eval", "actions", "--classifier", "model", "--split", "test", "--head", "motion"], "'test'"),
    ],
)
def test_what_goes_wrong_is_one_sentence(say: Any, words: list[str], message: str) -> None:
    code, out, err = say(*words)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["classify", "eval"])
def test_help_has_an_example(say: Any, command: str) -> None:
    code, out, _ = say(command, "--help")
    assert code == 0
    assert f"Example: tokenreel {command}" in out
    assert "--json" in out
