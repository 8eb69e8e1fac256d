from __future__ import annotations

import io
import sys
import time

import pytest

from tokenreel.cli import show
from tokenreel.cli.show import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_appears_on_slow_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "_PATIENCE_SECONDS", 0.05)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Bar("quick") as bar:
        bar(1, 2)
    assert terminal.getvalue() == ""
    with Bar("slow") as bar:
        bar(1, 4)
        time.sleep(0.4)  # it appears without another call
        bar(2, 4)
        time.sleep(0.2)
    assert "slow" in terminal.getvalue()
    assert "2/4" in terminal.getvalue()


def test_no_bar_without_a_terminal_or_where_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "_PATIENCE_SECONDS", 0.01)
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Bar("work", quiet=quiet) as bar:
            bar(1, 2)
            time.sleep(0.1)
        assert stream.getvalue() == ""
