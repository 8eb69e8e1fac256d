"""The log of a run: whole lines, taken back to a step, null for what is not finite, events beside it."""

from __future__ import annotations

import errno
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.train.log import RunLog, read_log


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def test_lines_are_json_and_are_read_back(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    log.write({"step": 1, "loss": 0.123456789, "lr": 1e-7})
    log.write({"step": 2, "loss": float("nan"), "lr": float("inf")})
    log.close()
    assert lines(tmp_path) == [{"step": 1, "loss": 0.123457, "lr": 1e-07}, {"step": 2, "loss": None, "lr": None}]
    assert read_log(tmp_path / "metrics.jsonl") == lines(tmp_path)
    assert read_log(tmp_path / "none.jsonl") == []
    with pytest.raises(InputError, match="must have its step"):
        log.write({"loss": 1.0})


def test_a_resumed_log_goes_back_to_its_step(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    for step in range(1, 6):
        log.write({"step": step, "loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 6, "lo')  # killed
    again = RunLog(tmp_path, step=3, tensorboard=False)
    again.write({"step": 4, "loss": 40.0})
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_damage_costs_the_damaged_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\xff\xfe\n7\n[]\n{"step": 2}\n{"st')
    assert read_log(path) == [{"step": 1}, {"step": 2}]


def test_a_line_the_disk_does_not_take_is_lost_whole_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RunLog(tmp_path, tensorboard=False)
    log.write({"step": 1, "loss": 1.0})
    before, real = (tmp_path / "metrics.jsonl").read_bytes(), Path.open

    def fills_up(self: Path, *args: object, **options: object) -> object:
        file = real(self, *args, **options)  # type: ignore[call-overload]

        def write(line: bytes) -> None:
            file.write(line[:5])  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, "No space left on device")

        return Written(file, write)

    class Written:
        def __init__(self, file: object, write: object) -> None:
            self.file, self.write = file, write

        def __enter__(self) -> Written:
            return self

        def __exit__(self, *rest: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fills_up)
        with pytest.warns(TokenReelWarning, match="No space left on device"):
            log.write({"step": 2, "loss": 2.0})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            log.write({"step": 3, "loss": 3.0})
    log.write({"step": 4, "loss": 4.0})
    assert (tmp_path / "metrics.jsonl").read_bytes() == before + b'{"step": 4, "loss": 4.0}\n'


def test_events_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1 / step, "l1_loss": 2.0, "psnr_db": 20.0 + step})
    log.picture("reconstructions", np.zeros((8, 8, 3), np.uint8), 3)
    log.close()
    again = RunLog(tmp_path, step=2)  # what came after step 2 is forgotten
    again.write({"step": 3, "loss": 9.0})
    again.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
    assert {"train/loss/loss", "train/loss/l1", "train/psnr_db"} <= set(events.Tags()["scalars"])
    assert [(one.step, round(one.value, 3)) for one in events.Scalars("train/loss/loss")] == [(1, 1), (2, 0.5), (3, 9)]
