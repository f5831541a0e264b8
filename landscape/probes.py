"""Trace, squared norm, diagonal and spectral density of a matrix from random vectors.

What is known of an eigenspace is taken exactly, and the random vectors see the rest only: the
idea of Hutch++ (Meyer et al. 2021), with Ritz vectors for the sketch, which cost nothing more.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from landscape.density import Nodes
from landscape.lanczos import Krylov

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """An estimate over independent random vectors; exact where the error is 0."""

    value: float
    stderr: float  # NaN for a single vector


class Probes:
    """Random vectors y, uniform on the unit sphere orthogonal to n known rows Q.

    With R = I - Q'Q, unbiased for any orthonormal rows:

        tr A     = tr Q A Q' + (P - n) E[y'Ay]
        |A|_F^2  = |Q A Q'|^2 + (P - n) E[|RAy|^2 + 2 |QAy|^2]
        diag A   = diag Q'(QAQ')Q + (P - n) E[y * (RAy + 2 Q'QAy)]

    One product each, and `steps` of them where the density is asked for: Lanczos from y gives
    the nodes of its quadrature (Ubaru, Chen and Saad 2017), and the same first product the rest.

    Attributes:
        krylov: its n rows at the beginning are the known ones; further rows come and go.
    """

    def __init__(self, krylov: Krylov, *, steps: int = 1, diagonal: bool = False) -> None:
        """Begin with the rows that `krylov` has; nothing is multiplied yet.

        Args:
            krylov: has room for `steps` more rows, or for all that there are.
            steps: products per random vector.
            diagonal: accumulate it, which takes two vectors of P.
        """
        self.krylov, self.n, self.steps = krylov, krylov.n, steps
        self.size = krylov.size
        self.known = krylov.H[: self.n, : self.n].copy()
        self.values: list[Array] = []
        self.weights: list[Array] = []
        self.squares: list[float] = []
        self.rest_squares: list[float] = []  # |RAy|^2
        self._sums = krylov.rows.new_zeros(2, krylov.rows.shape[1]) if diagonal else None

    @property
    def rest(self) -> int:
        """P - n, the dimension that random vectors are drawn from."""
        return self.size - self.n

    def run(self, count: int) -> Iterator[int]:
        """Draw `count` random vectors; yields after every product how many are done.

        None is drawn where the known rows span everything.

        Raises:
            FloatingPointError: a product is not finite; what was known before stays.
        """
        for done in range(count if self.rest else 0):
            self.krylov.cut(self.n)
            self.krylov.begin()
            self.krylov.expand()
            column = self.krylov.H[: self.n + 1, self.n]
            beyond = float(self.krylov.coupling[self.n] + self.krylov.outside[self.n])
            rest_square = column[self.n] ** 2 + beyond**2
            square = rest_square + 2 * float(column[: self.n] @ column[: self.n])
            if self._sums is not None:
                self._add(self._sums, column, beyond)
            yield done
            for _ in range(min(self.steps, self.rest) - 1):
                if self.krylov.invariant:
                    break
                self.krylov.expand()
                yield done
            values, S = eigh(self.krylov.H[self.n : self.krylov.n, self.n : self.krylov.n])
            self.values.append(values)
            self.weights.append(S[0] ** 2)
            self.squares.append(square)
            self.rest_squares.append(rest_square)
        self.krylov.cut(self.n)

    def _add(self, sums: Tensor, column: Array, beyond: float) -> None:
        rows, n = self.krylov.rows, self.n
        coefficients = torch.from_numpy(np.append(2 * column[:n], column[n])).to(rows)
        product = torch.mv(rows[: n + 1].T, coefficients)
        if not self.krylov.invariant:
            product.add_(rows[n + 1], alpha=beyond)
        sample = product.mul_(rows[n]).mul_(self.rest)
        sums[0].add_(sample)
        sums[1].addcmul_(sample, sample)

    def trace(self) -> Mean:
        """Trace of A.

        The error is not that of so few samples, which is a matter of chance itself: with B = RAR
        and N = P - n, the variance of N y'By is 2 N / (N + 2) (|B|_F^2 - (tr B)^2 / N), and
        N |RAy|^2, whose mean is |B|_F^2, scatters little.
        """
        rules = zip(self.values, self.weights, strict=True)
        samples = np.array([values @ weights for values, weights in rules])
        found = self._mean(float(np.trace(self.known)), samples)
        if not self.rest or samples.size < 2:
            return found
        square = self.rest * float(np.mean(self.rest_squares))
        spread = max(0.0, square - self.rest * float(samples.mean()) ** 2)
        variance = 2 * self.rest / (self.rest + 2) * spread
        return Mean(found.value, math.sqrt(variance / samples.size))

    def square(self) -> Mean:
        """Squared Frobenius norm of A, the sum of the squared eigenvalues."""
        return self._mean(float((self.known**2).sum()), np.array(self.squares))

    def diagonal(self) -> tuple[Tensor, Tensor]:
        """The diagonal of A (P,) and the standard error of each entry (P,)."""
        assert self._sums is not None
        rows, count = self.krylov.rows[: self.n], len(self.values)
        H = torch.from_numpy(self.known).to(rows)
        exact = rows.new_empty(rows.shape[1])
        columns = max(1024, rows.shape[1] // max(1, self.n))
        pieces = zip(torch.split(rows, columns, 1), torch.split(exact, columns), strict=True)
        for old, new in pieces:
            new.copy_((old * (H @ old)).sum(0))
        if not self.rest:
            return exact, torch.zeros_like(exact)
        mean = self._sums[0] / count
        spread = (self._sums[1] / count - mean.square()).clamp_min_(0.0)
        stderr = spread.div_(count - 1).sqrt_() if count > 1 else torch.full_like(mean, math.nan)
        return mean.add_(exact), stderr

    def nodes(self) -> Nodes:
        """Nodes and weights of the density."""
        known = eigh(self.known, eigvals_only=True) if self.n else np.empty(0)
        return Nodes(known, tuple(self.values), tuple(self.weights), self.size)

    def _mean(self, exact: float, samples: Array) -> Mean:
        if not self.rest:
            return Mean(exact, 0.0)
        if not samples.size:
            return Mean(math.nan, math.nan)
        stderr = math.nan
        if samples.size > 1:
            stderr = self.rest * float(samples.std(ddof=1)) / math.sqrt(samples.size)
        return Mean(exact + self.rest * float(samples.mean()), stderr)
