"""PSNR, SSIM and MS-SSIM against closed forms, plain numpy and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tokenreel.errors import MismatchError
from tokenreel.measure.fidelity import db, ms_ssim, squared_error, ssim, temporal_squared_error


def pair(size: tuple[int, int, int, int], noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size[0], size[1], 7, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size[2:], mode="bilinear")
    return smooth, (smooth + noise * torch.randn(size, generator=generator)).clamp(0, 1)


def test_known_levels() -> None:
    black, grey = torch.zeros(3, 2, 4, 4), torch.full((3, 2, 4, 4), 0.1)
    assert squared_error(black, grey) == pytest.approx(0.01, rel=1e-6)
    assert db(squared_error(black, grey)) == pytest.approx(20, abs=1e-5)
    assert db(squared_error(black, black)) == math.inf
    assert db(squared_error(black, torch.ones_like(black))) == 0


def test_squared_errors_are_those_of_plain_numpy() -> None:
    a, b = pair((3, 5, 21, 34), 0.2)
    x, y = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    assert squared_error(a, b) == pytest.approx(((x - y) ** 2).mean(), rel=1e-12)
    steps = (np.diff(x, axis=1) - np.diff(y, axis=1)) ** 2
    assert temporal_squared_error(a, b) == pytest.approx(steps.mean(), rel=1e-12)
    assert temporal_squared_error(a[:, :1], b[:, :1]) is None


def test_an_error_that_stands_still_has_no_temporal_error() -> None:
    a, _ = pair((3, 4, 16, 16), 0)
    still, flicker = a + 0.125, a.clone()
    flicker[:, 1::2] += 0.125
    assert temporal_squared_error(a, still) == pytest.approx(0, abs=1e-14)
    assert temporal_squared_error(a, flicker) == pytest.approx(0.125**2, rel=1e-5)
    assert squared_error(a, flicker) == pytest.approx(0.125**2 / 2, rel=1e-5)


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_ssim_is_that_of_torchmetrics(noise: float) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = pair((3, 2, 37, 50), noise)
    expected = structural_similarity_index_measure(
        b.transpose(0, 1).double(), a.transpose(0, 1).double(), data_range=1.0
    )
    assert ssim(a, b) == pytest.approx(float(expected), abs=2e-5)


@pytest.mark.parametrize("noise", [0.05, 0.4])
def test_ms_ssim_is_that_of_torchmetrics(noise: float) -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    a, b = pair((3, 1, 176, 181), noise)
    expected = multiscale_structural_similarity_index_measure(b.transpose(0, 1), a.transpose(0, 1), data_range=1.0)
    assert ms_ssim(a, b) == pytest.approx(float(expected), abs=1e-4)


def test_ssim_of_flat_pictures_is_its_luminance_term() -> None:
    a, b = torch.full((3, 1, 12, 12), 0.25), torch.full((3, 1, 12, 12), 0.75)
    assert ssim(a, b) == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4), abs=2e-4)


def test_equal_videos_and_small_ones() -> None:
    a, _ = pair((3, 2, 176, 176), 0)
    assert ssim(a, a) == 1
    assert ms_ssim(a, a) == 1
    assert ms_ssim(a[..., :175], a[..., :175]) is None
    assert ssim(a[..., :11], a[..., :11]) == 1
    assert ssim(a[..., :10], a[..., :10]) is None


def test_similarity_does_not_depend_on_how_frames_are_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair((3, 5, 30, 30), 0.1)
    whole = ssim(a, b)
    monkeypatch.setattr("tokenreel.measure.fidelity._GROUP_PIXELS", 30 * 30 * 2)
    assert ssim(a, b) == pytest.approx(whole, abs=1e-6)


def test_sizes_must_agree() -> None:
    with pytest.raises(MismatchError, match="of one size"):
        squared_error(torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 5))
