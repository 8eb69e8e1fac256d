"""Weights of classes that are not equally frequent, for a loss. The mean weight over the examples is 1.

Letters: K classes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = ["effective_weights", "inverse_weights"]

Weights = npt.NDArray[np.float64]


def inverse_weights(counts_K: npt.ArrayLike) -> Weights:
    """Each class weighs as much as any other in sum: N / (K n_c), float64 (K,).

    Raises:
        InputError: a class without an example.

    >>> inverse_weights([1, 3]).round(3).tolist()
    [2.0, 0.667]
    """
    counts = _counts(counts_K)
    return _scaled(1 / counts, counts)


def effective_weights(counts_K: npt.ArrayLike, *, beta: float = 0.999) -> Weights:
    """One over the effective number of examples, (1 - beta) / (1 - beta^n_c), float64 (K,).

    Cui et al. 2019 (arXiv 1901.05555), equation 2; the paper scales the weights to the sum K. ``beta`` 0 weighs all
    alike, towards 1 the weights become ``inverse_weights``.

    Raises:
        InputError: a class without an example, or ``beta`` outside [0, 1).
    """
    if not 0 <= beta < 1:
        raise InputError(f"beta must lie in [0, 1), got {beta}; 0.99 to 0.9999 are usual")
    counts = _counts(counts_K)
    return _scaled((1 - beta) / -np.expm1(counts * np.log(beta)) if beta else np.ones_like(counts), counts)


def _counts(counts_K: npt.ArrayLike) -> Weights:
    counts = np.asarray(counts_K, np.float64)
    if counts.ndim != 1 or not counts.size or not (counts > 0).all():
        raise InputError(f"every class needs an example to be weighed, got counts {counts.tolist()}")
    return counts


def _scaled(weights: Weights, counts: Weights) -> Weights:
    scaled: Weights = weights * (counts.sum() / (weights * counts).sum())
    return scaled
