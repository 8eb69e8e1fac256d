"""Masks against geometry: area, range, rotation, translation, blur."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tokenreel.errors import InputError
from tokenreel.render.shapes import AREAS, SHAPES, composite, coverage


def mask(shape: str, *, radius: float = 40.0, size: int = 100, **where: float) -> np.ndarray:
    place = {"x": size / 2, "y": size / 2} | where
    return coverage(shape, height=size, width=size, radius=radius, **place)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 0.3, 1.234])
def test_area_is_the_analytic_one(shape, angle):
    alpha = mask(shape, angle=angle, x=50.3, y=49.6)
    assert alpha.dtype == np.float32
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert alpha.sum() == pytest.approx(AREAS[shape] * 40**2, rel=0.02)


def test_every_shape_has_an_area():
    assert AREAS.keys() == SHAPES.keys()


@pytest.mark.parametrize("shape", SHAPES)
def test_inside_the_unit_circle(shape):
    alpha = mask(shape)
    y, x = np.mgrid[:100, :100] + 0.5
    assert alpha[np.hypot(x - 50, y - 50) > 41.5].max() == 0
    assert alpha[np.hypot(x - 50, y - 50) > 38].max() > 0, "and reaches out to it"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_right_angle_turns_the_mask(shape):
    np.testing.assert_allclose(mask(shape, angle=math.pi / 2), np.rot90(mask(shape), -1), atol=1e-3)


@pytest.mark.parametrize(("shape", "fold"), [("square", 4), ("triangle", 3), ("star", 5), ("cross", 4)])
def test_symmetric_under_its_own_rotation(shape, fold):
    np.testing.assert_allclose(mask(shape, angle=2 * math.pi / fold), mask(shape), atol=1e-3)


@pytest.mark.parametrize("shape", ["triangle", "star", "heart"])
def test_mirror_symmetric_and_upright(shape):
    alpha = mask(shape)
    np.testing.assert_allclose(alpha, alpha[:, ::-1], atol=1e-3)
    rows = np.flatnonzero(alpha.max(axis=1) > 0.5)
    tip = rows[-1] if shape == "heart" else rows[0]
    assert alpha[tip].sum() < 6, "the tip is a point"


def test_whole_pixels_move_the_mask_and_parts_of_pixels_keep_its_area():
    np.testing.assert_allclose(mask("star", x=53.0), np.roll(mask("star"), 3, axis=1), atol=1e-4)
    assert mask("star", x=50.37).sum() == pytest.approx(mask("star").sum(), rel=2e-3)


def test_softness_widens_the_edge_and_keeps_the_area():
    sharp, soft = mask("circle", radius=30), mask("circle", radius=30, softness=8)
    partial = [int(((a > 0.01) & (a < 0.99)).sum()) for a in (sharp, soft)]
    assert partial[1] > 4 * partial[0]
    assert soft.sum() == pytest.approx(sharp.sum(), rel=0.02)


def test_partly_outside_is_cut_off():
    alpha = mask("circle", x=0.0)
    assert alpha.sum() == pytest.approx(math.pi * 40**2 / 2, rel=0.02)


def test_composite_mixes_and_leaves_the_rest():
    image = np.full((2, 2, 3), 100, np.uint8)
    out = composite(image, np.array([[0, 1], [0.5, 0]], np.float32), (200, 0, 100))
    assert out.tolist() == [[[100] * 3, [200, 0, 100]], [[150, 50, 100], [100] * 3]]
    assert image.min() == image.max() == 100


def test_refusals():
    with pytest.raises(InputError, match=r"circle.*'blob'"):
        mask("blob")
    with pytest.raises(InputError, match="radius"):
        mask("circle", radius=0)
