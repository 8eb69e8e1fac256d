"""A linear embedding made from a seed, in numpy: what ``tokenreel patchify --embed linear`` writes, and its inverse.

Letters: L patches, P values a patch, D width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tokenreel.errors import InputError

__all__ = ["LinearProjection"]


@dataclass(frozen=True, slots=True, eq=False)
class LinearProjection:
    """``y = x W^T + b`` with orthonormal W, so that ``x ~ (y - b) W``: exact where D >= P, the best guess where not.

    ViT's patch embedding (arXiv 2010.11929, equation 1) with an orthogonal start (arXiv 1312.6120).

    Attributes:
        weight_DP: float32 (D, P); orthonormal columns where D >= P, orthonormal rows where D < P.
        bias_D: float32 (D,).
    """

    weight_DP: npt.NDArray[np.float32]
    bias_D: npt.NDArray[np.float32]

    @classmethod
    def from_seed(cls, patch_values: int, dim: int, seed: int) -> Self:
        """Equal seed, equal weights (to the rounding of LAPACK; the file keeps the weights themselves)."""
        if dim < 1:
            raise InputError(f"dim must be at least 1, got {dim}")
        shape = (max(dim, patch_values), min(dim, patch_values))
        tall = np.random.default_rng(seed).standard_normal(shape, np.float32)
        q, r = np.linalg.qr(tall)
        q *= np.sign(np.diag(r))  # without the sign Q is not uniformly distributed
        weight = q if dim >= patch_values else q.T
        return cls(np.ascontiguousarray(weight, np.float32), np.zeros(dim, np.float32))

    def embed(self, values_LP: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(L, P) float -> (L, D)."""
        embedded = np.asarray(values_LP, np.float32) @ self.weight_DP.T + self.bias_D
        return embedded.astype(np.float32, copy=False)

    def invert(self, vectors_LD: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(L, D) -> (L, P): the least-squares inverse, which for orthonormal weights is the transpose."""
        values = (np.asarray(vectors_LD, np.float32) - self.bias_D) @ self.weight_DP
        return values.astype(np.float32, copy=False)

    @property
    def is_invertible(self) -> bool:
        """True if no information is lost but to rounding (D >= P)."""
        dim, values = self.weight_DP.shape
        return bool(dim >= values)
