"""Ramps run through their colours; names are apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.colours import COLOURS, PALETTES, colourise, ramp


@pytest.mark.parametrize("name", PALETTES)
def test_ramp_begins_and_ends_with_the_palette(name):
    table = ramp(PALETTES[name])
    assert tuple(table[0]) == PALETTES[name][0]
    assert tuple(table[-1]) == PALETTES[name][-1]
    assert np.abs(np.diff(table.astype(int), axis=0)).max() <= 2, "no bands"


def test_colourise_clips():
    field = np.array([[-1, 0, 1, 2]], np.float32)
    assert colourise(field, [(0, 0, 0), (255, 255, 255)])[0, :, 0].tolist() == [0, 0, 255, 255]


def test_named_colours_are_apart():
    for a, b in combinations(COLOURS.values(), 2):
        assert np.linalg.norm(np.subtract(a, b)) > 60


def test_empty_palette_is_refused():
    with pytest.raises(InputError, match="at least one colour"):
        ramp([])
