"""Shared by all tests: no network, one thread, seeded values."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

DATA = Path(os.environ.get("TOKENREEL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def data_dir() -> Path:
    """Real clips, where the machine has them."""
    if not DATA.is_dir():
        pytest.skip(f"no real clips at {DATA} (set TOKENREEL_DATA)")
    return DATA
