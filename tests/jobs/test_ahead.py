from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tokenreel.jobs.ahead import ahead


def test_same_items_in_order() -> None:
    assert list(ahead(iter(range(100)), depth=3)) == list(range(100))


def test_errors_come_through_after_the_items_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    got = []
    with pytest.raises(KeyError, match="gone"):
        for item in ahead(items()):
            got.append(item)
    assert got == [1]


def test_it_runs_at_most_depth_ahead_and_stops_with_its_reader() -> None:
    made = []

    def items() -> Iterator[int]:
        for item in range(1000):
            made.append(item)
            yield item

    reader = ahead(items(), depth=4)
    assert next(reader) == 0
    time.sleep(0.1)
    assert len(made) <= 1 + 4 + 2
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "tokenreel-ahead"]
    assert len(made) < 20
