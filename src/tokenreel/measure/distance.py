"""Distances between two sets of feature vectors: Frechet distance of Gaussians, and polynomial-kernel MMD.

Letters: N vectors, D dim.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError, MismatchError

__all__ = ["Moments", "frechet_distance", "polynomial_mmd"]

Matrix = npt.NDArray[np.float64]


class Moments:
    """Mean and covariance of vectors that come in parts, in float64 (Chan et al. 1979, pairwise update).

    >>> moments = Moments()
    >>> moments.add(np.array([[0.0], [2.0]]))
    >>> moments.add(np.array([[4.0]]))
    >>> moments.mean_D.tolist(), moments.covariance_DD.tolist()
    ([2.0], [[4.0]])
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Matrix | None = None
        self._scatter: Matrix | None = None

    def add(self, vectors_ND: npt.NDArray[np.floating]) -> None:
        """More vectors, all of one width."""
        vectors = _vectors(vectors_ND)
        count, mean = len(vectors), vectors.mean(axis=0)
        centred = vectors - mean
        scatter = centred.T @ centred
        if self._mean is None or self._scatter is None:
            self.count, self._mean, self._scatter = count, mean, scatter
            return
        if mean.shape != self._mean.shape:
            raise MismatchError(f"features of {len(mean)} values came after features of {len(self._mean)}")
        total, step = self.count + count, mean - self._mean
        self._scatter += scatter + np.outer(step, step) * (self.count * count / total)
        self._mean += step * (count / total)
        self.count = total

    @property
    def mean_D(self) -> Matrix:
        """The mean."""
        if self._mean is None:
            raise InputError("there are no features yet; add some first")
        return self._mean

    @property
    def covariance_DD(self) -> Matrix:
        """The covariance, divided by N - 1."""
        if self._scatter is None or self.count < 2:
            raise InputError(f"a covariance needs at least 2 feature vectors, got {self.count}")
        return self._scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of the two Gaussians: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2).

    Dowson and Landau 1982, equation 4; of Inception features it is FID (arXiv 1706.08500), of I3D features FVD
    (arXiv 1812.01717). Square roots by eigen-decomposition of symmetric matrices; values below 0 are rounding and
    count as 0.
    """
    if a.mean_D.shape != b.mean_D.shape:
        raise MismatchError(f"features of {len(a.mean_D)} and of {len(b.mean_D)} values cannot be compared")
    shift = a.mean_D - b.mean_D
    first, second = a.covariance_DD, b.covariance_DD
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    inner = root @ second @ root
    cross = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(min=0)).sum()
    return max(0.0, float(shift @ shift + np.trace(first) + np.trace(second) - 2 * cross))


def polynomial_mmd(
    a_ND: npt.NDArray[np.floating],
    b_ND: npt.NDArray[np.floating],
    *,
    degree: int = 2,
    gamma: float | None = None,
    offset: float = 0.0,
) -> float:
    """Squared maximum mean discrepancy with the kernel (gamma x.y + offset)^degree, all pairs counted.

    Gretton et al. 2012, equation 5; with degree 2, gamma = 1/D and offset 0, on V-JEPA features, it is the distance of
    JEDi (arXiv 2410.05203), which is quoted times 100. Equal sets give 0.
    """
    a, b = _vectors(a_ND), _vectors(b_ND)
    if a.shape[1] != b.shape[1]:
        raise MismatchError(f"features of {a.shape[1]} and of {b.shape[1]} values cannot be compared")
    scale = 1 / a.shape[1] if gamma is None else gamma

    def mean_kernel(x: Matrix, y: Matrix) -> float:
        return float(((x @ y.T * scale + offset) ** degree).mean())

    return max(0.0, mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b))


def _vectors(values: npt.NDArray[np.floating]) -> Matrix:
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"features must be vectors (N, D), got shape {values.shape}")
    vectors = values.astype(np.float64)
    if not np.isfinite(vectors).all():
        raise InputError("the features hold values that are not finite (NaN or infinity)")
    return vectors
