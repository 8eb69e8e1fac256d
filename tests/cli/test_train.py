"""``tokenreel train``: the list, the cost, the live line, one sentence and exit code 2 for what goes wrong."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import tokenreel.train.checkpoint as checkpoint
from tokenreel.cli import train as command
from tokenreel.cli.main import app
from tokenreel.cli.main import run as main
from tokenreel.train.losses import Losses
from tokenreel.train.recipes import recipe_names, recipe_title

torch.set_num_threads(1)

STACK = "{dim: 32, spatial_depth: 1, temporal_depth: 1, num_heads: 2, head_dim: 16, mlp_dim: 64}"
TINY = [
    *["tiny-cvivit", "--data", "rendered", "--device", "cpu"],
    *[f"model.changes.encoder={STACK}", f"model.changes.decoder={STACK}"],
    *["data.batches.size=16", "data.batches.num_frames=5", "data.batches.batch_size=2", "data.num_workers=0"],
    *["loop.steps=3", "loop.log_every=1", "loop.checkpoint_every=2", "loop.look_every=0", "optim.kind=adamw"],
]


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code and both outputs of the whole program."""
    monkeypatch.setattr(sys, "argv", ["tokenreel", "train", *words])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        warnings.simplefilter("default")
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_without_a_recipe_it_lists_them() -> None:
    result = CliRunner().invoke(app, ["train"])
    assert result.exit_code == 0
    for line, name in zip(result.stdout.splitlines(), recipe_names(), strict=True):
        assert line.split(maxsplit=1) == [name, recipe_title(name)]
    listed = json.loads(CliRunner().invoke(app, ["train", "--json"]).stdout)["recipes"]
    assert [one["name"] for one in listed] == recipe_names()
    assert all(one["about"] for one in listed)


def test_help_has_examples() -> None:
    text = CliRunner().invoke(app, ["train", "--help"]).stdout
    assert text.count("Example:") == 8
    assert "--resume" in text


def test_a_run_and_its_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    code, out, err = said(monkeypatch, capsys, *TINY, "-o", str(folder))
    assert code == 0
    assert out.startswith(f"{folder}/tokenizer: trained after 3 steps, ")
    assert "step 3/3  loss " in err
    for part in (" dB  ", " clips/s  ", " tokens/s  data "):
        assert part in err
    code, out, _ = said(monkeypatch, capsys, *TINY, "loop.steps=4", "-o", str(folder), "--resume", "--json")
    result = json.loads(out)
    assert (code, result["resumed_from"], result["steps"]) == (0, 3, 4)
    code, out, err = said(monkeypatch, capsys, *TINY, "loop.steps=5", "-o", str(folder), "--resume", "--quiet")
    assert (code, out, err) == (0, "", "")


def test_the_cost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = said(monkeypatch, capsys, *TINY, "--dry-run")
    assert code == 0
    for part in ("M parameters", "GFLOP", "steps/s", "of memory", "hours here (cpu)"):
        assert part in out
    cost = json.loads(said(monkeypatch, capsys, *TINY, "--dry-run", "--json")[1])
    assert cost["seconds_per_step"] > 0
    assert cost["peak_memory_bytes"] > 1 << 20
    assert not list(tmp_path.iterdir())  # nothing is kept


def full(*args: Any, **options: Any) -> Any:
    raise OSError(28, "No space left on device")


def exhausted(*args: Any, **options: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


def diverged(self: Losses, ours: torch.Tensor, theirs: torch.Tensor, **options: Any) -> Any:
    return ours.sum() * torch.nan, {}


@pytest.mark.parametrize(
    ("words", "patch", "message"),
    [
        (["optim.learning_rate=1"], None, "there is no field optim.learning_rate"),
        (["optim.lr=fast"], None, "optim.lr: expected float"),
        (["--device", "warp"], None, "warp"),
        (["model.init=nowhere"], None, "nowhere"),
        ([], (checkpoint.state_dict_saver, "save", full), "could not be written; free the disk"),
        ([], (Losses, "forward", exhausted), "out of memory at step 0; take smaller batches"),
        (["loop.max_bad_steps=1"], (Losses, "forward", diverged), "not finite (step 1); lower optim.lr"),
    ],
    ids=["field", "type", "device", "init", "disk", "memory", "nan"],
)
def test_what_goes_wrong_is_one_sentence_and_exit_code_2(
    words: list[str],
    patch: Any,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if patch is not None:
        monkeypatch.setattr(*patch)
    code, out, err = said(monkeypatch, capsys, *TINY, *words, "-o", str(tmp_path / "run"))
    assert (code, out) == (2, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("tokenreel: ")
    assert message in last
    assert "Traceback" not in err


def test_folders_and_data_that_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    for data, folder, message in (
        ("empty", "run", "empty"),
        ("missing", "run", "missing"),
        ("file", "run", "file"),
    ):
        words = ["tiny-cvivit", "--data", str(tmp_path / data), "-o", str(tmp_path / folder), *TINY[5:]]
        code, _, err = said(monkeypatch, capsys, *words)
        assert code == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1
    code, _, err = said(monkeypatch, capsys, *TINY, "-o", str(tmp_path / "file"))
    assert code == 2
    assert "is a file; name a folder" in err


def test_the_live_line() -> None:
    values = {"step": 7, "steps": 10, "loss": 0.25, "psnr_db": 21.5, "clips_per_second": 3.2, "bad_steps": 0}
    values |= {"tokens_per_second": 900.0, "data_wait_share": 0.031}
    text = command._line_text(values, 75.0)
    assert text == "step 7/10  loss 0.2500  21.50 dB  3.20 clips/s  900 tokens/s  data 3 %  1 min 15 s left"
    del values["psnr_db"]
    assert command._line_text({**values, "bad_steps": 2}, None).endswith("data 3 %  2 bad")
    assert "loss 0.2500  37.5 % right  3.20 clips/s" in command._line_text({**values, "accuracy": 0.375}, None)


def test_a_terminal_sees_one_line_rewritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = command._Line(quiet=False)
    names = ("loss", "clips_per_second", "tokens_per_second", "data_wait_share", "bad_steps")
    for step in (1, 2):
        line({"step": step, "steps": 2, **dict.fromkeys(names, 0)})
    line.end()
    text = capsys.readouterr().err
    assert text.count("\r\033[2K") == 2
    assert text.endswith("left\n")


@pytest.mark.parametrize(("quiet", "rank", "told"), [(False, "0", True), (True, "0", False), (False, "1", False)])
def test_a_start_that_takes_long_is_told(
    quiet: bool, rank: str, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("RANK", rank)
    line = command._Line(quiet=quiet)
    if told:
        line._waiting.join(timeout=10)
    line.end()
    assert ("reading the data and giving the weights their start" in capsys.readouterr().err) == told
