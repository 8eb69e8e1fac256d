from __future__ import annotations

import subprocess
import sys

import pytest

from tokenreel.nn.kept_memory import keep_freed_memory

WATCHED = """
import resource, sys
import torch
from tokenreel.nn.kept_memory import keep_freed_memory

torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(size << 20) for size in (16, 9, 12, 10)]  # 188 MiB
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
is_kept = keep_freed_memory()
print(given_back, is_kept, [faults() for _ in range(8)][-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_pages_are_not_asked_for_again() -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, timeout=120, check=True)
    given_back, is_kept, kept = done.stdout.split()
    if is_kept == "False":
        pytest.skip("the C library cannot be asked")
    assert int(given_back) > 1000
    assert int(kept) < 100


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
