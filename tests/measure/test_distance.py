"""Closed forms of Gaussians and of the quadratic kernel."""

from __future__ import annotations

import numpy as np
import pytest

from tokenreel.errors import InputError, MismatchError
from tokenreel.measure.distance import Moments, frechet_distance, polynomial_mmd


def moments_of(*parts: np.ndarray) -> Moments:
    moments = Moments()
    for part in parts:
        moments.add(part)
    return moments


def exact(mean: np.ndarray, covariance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vectors whose sample mean and covariance are exactly these."""
    x = rng.standard_normal((200, len(mean)))
    x -= x.mean(axis=0)
    whitened = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T).reshape(len(mean), -1))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_moments_in_parts_are_those_of_the_whole(rng: np.random.Generator) -> None:
    x = rng.standard_normal((97, 6)) * [1, 2, 3, 4, 5, 1e-3] + 1000
    moments = moments_of(x[:1], x[1:40], x[40:])
    assert moments.count == 97
    np.testing.assert_allclose(moments.mean_D, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance_DD, np.cov(x.T), rtol=1e-9, atol=1e-12)


def test_one_dimension(rng: np.random.Generator) -> None:
    a = exact(np.array([1.0]), np.array([[4.0]]), rng)
    b = exact(np.array([3.0]), np.array([[9.0]]), rng)
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2)


def test_covariances_that_commute(rng: np.random.Generator) -> None:
    basis, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    first, second = np.array([1.0, 2, 3, 4, 5]), np.array([9.0, 1, 4, 0.25, 16])
    shift = rng.standard_normal(5)
    a = exact(np.zeros(5), basis @ np.diag(first) @ basis.T, rng)
    b = exact(shift, basis @ np.diag(second) @ basis.T, rng)
    expected = (shift**2).sum() + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(expected)


def test_covariances_that_do_not_commute(rng: np.random.Generator) -> None:
    """tr (S1 S2)^1/2 is the sum of roots of the eigenvalues of S1 S2."""
    one, two = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    s1, s2 = one @ one.T + np.eye(4), two @ two.T + np.eye(4)
    expected = np.trace(s1) + np.trace(s2) - 2 * np.sqrt(np.linalg.eigvals(s1 @ s2).real).sum()
    a, b = moments_of(exact(np.zeros(4), s1, rng)), moments_of(exact(np.zeros(4), s2, rng))
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_equal_sets_and_fewer_vectors_than_values(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 40))
    assert frechet_distance(moments_of(x), moments_of(x)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(moments_of(x), moments_of(x + 1)) == pytest.approx(40, abs=1e-5)


def test_the_quadratic_kernel_compares_second_moments(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((30, 7)), rng.standard_normal((45, 7)) * 2 + 1
    gap = a.T @ a / len(a) - b.T @ b / len(b)
    assert polynomial_mmd(a, b, gamma=1.0) == pytest.approx((gap**2).sum())
    assert polynomial_mmd(a, b) == pytest.approx((gap**2).sum() / 49)
    assert polynomial_mmd(a, b, degree=1, gamma=1.0) == pytest.approx(((a.mean(0) - b.mean(0)) ** 2).sum())
    assert polynomial_mmd(a, a) == 0


def test_what_cannot_be_compared(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 3))
    with pytest.raises(InputError, match="not finite"):
        moments_of(np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="at least 2"):
        frechet_distance(moments_of(x[:1]), moments_of(x))
    with pytest.raises(InputError, match="no features yet"):
        Moments().mean_D  # noqa: B018
    with pytest.raises(MismatchError):
        moments_of(x, x[:, :2])
    with pytest.raises(MismatchError):
        frechet_distance(moments_of(x), moments_of(x[:, :2]))
    with pytest.raises(MismatchError):
        polynomial_mmd(x, x[:, :2])
    with pytest.raises(InputError, match="vectors"):
        polynomial_mmd(x[0], x)
