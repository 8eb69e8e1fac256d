"""Patterns cover their share, repeat, have edges a pixel wide, and are told from one another."""

from __future__ import annotations

import numpy as np
import pytest

from tokenreel.render.patterns import PATTERNS

SHARES = {"striped": 0.42, "checkered": 0.405, "dotted": np.pi * 0.21**2 / 0.68**2}
PERIODS = {"striped": (0.62 * 2**0.5, 0.0), "checkered": (1.0, 0.0), "dotted": (0.68, 0.68)}


def sampled(name, *, pixels=400, reach=6.0, shift=(0.0, 0.0)):
    axis = (np.linspace(-reach, reach, pixels, endpoint=False) + reach / pixels).astype(np.float32)
    u, v = axis[None, None, :] + np.float32(shift[0]), axis[None, :, None] + np.float32(shift[1])
    return PATTERNS[name](u, v, np.float32(pixels / 2 / reach))[0]


@pytest.mark.parametrize("name", PATTERNS)
def test_share_of_the_second_tone(name):
    share = sampled(name)
    assert share.dtype == np.float32
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.mean() == pytest.approx(SHARES[name], abs=0.02)


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_repeat(name):
    np.testing.assert_allclose(sampled(name, shift=PERIODS[name]), sampled(name), atol=2e-4)
    assert np.abs(sampled(name, shift=(0.2, 0.0)) - sampled(name)).mean() > 0.1


@pytest.mark.parametrize("name", PATTERNS)
def test_edges_are_a_pixel_wide(name):
    share = sampled(name, pixels=1600, shift=(0.01, 0.013))
    between = (share > 0.01) & (share < 0.99)
    assert 0 < between.mean() < 0.1


def test_patterns_differ():
    for a, b in (("striped", "checkered"), ("striped", "dotted"), ("checkered", "dotted")):
        assert np.abs(sampled(a) - sampled(b)).mean() > 0.2
