"""Eigenvalues and eigenvectors of a symmetric matrix that is known by its products only.

The basis is orthogonalised in full, so no eigenvalue appears twice that is not double, and
it is restarted thick (Wu and Simon 2000) when it has used the memory it may use. Everything
of length P stays on the device; the projected matrix is a small float64 one on the host.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

Matvec = Callable[[Tensor], Tensor]
Array = NDArray[np.float64]
Indices = NDArray[np.intp]

WHICH = ("magnitude", "largest", "smallest", "both")
GUARDS = 2  # converged beside those asked for, at each end, so that none is missed
SMALL = 0.01  # of the largest |Ritz value|: below, residuals are judged against that value
BREAKDOWN = 10.0  # in units of rounding: what is left of a product is nothing new
PROBES = 2  # random restarts in a row that must find nothing new
MISS = 0.1  # largest probability that one of them overlooks an eigenvalue
STANDS_OUT = 0.1  # of the width of the spectrum: the least that a probe into a dense end excludes
CHUNK = 1 << 14  # columns that are summed in the vectors' own precision
ROOM = 8  # rows of the basis beside the wanted pairs, at least


class Krylov:
    """Orthonormal rows Q (n, P) and H = Q A Q' (n, n), a row more for each product.

    A q_i = sum_j H_ij q_j + coupling_i q_next + a remainder of norm outside_i, orthogonal to
    all rows. In plain Lanczos H is tridiagonal, only the last row is coupled and nothing is
    outside. All entries of H are measured, so Q may begin with vectors of any origin.

    Attributes:
        matvec: v (P,) -> A v (P,); its result is not written to.
        rows: (m + 1, P) the basis; row n is the vector that is multiplied next.
        H: (m, m) the projected matrix; its leading (n, n) block counts.
        n: dimension of the basis.
        products: spent so far.
        scale: largest |A q| seen, a lower bound of the norm of A.
        invariant: nothing was left of the last product: the rows since the last new start span
            an invariant subspace, and the next vector is a random one.
    """

    def __init__(self, matvec: Matvec, like: Tensor, m: int, generator: torch.Generator) -> None:
        """Allocate room for `m` rows like the vector `like` (P,)."""
        self.matvec, self.generator = matvec, generator
        self.rows = torch.empty(m + 1, like.numel(), dtype=like.dtype, device=like.device)
        self.eps = torch.finfo(like.dtype).eps
        self.products, self.scale = 0, 0.0
        self.clear()

    @property
    def m(self) -> int:
        """The largest dimension."""
        return len(self.rows) - 1

    def clear(self) -> None:
        """Forget all rows."""
        self.n, self.invariant = 0, False
        self.H = np.zeros((self.m, self.m))
        self.coupling, self.outside = np.zeros(self.m), np.zeros(self.m)

    def begin(self, start: Tensor | None = None) -> None:
        """Go on from `start` (P,), or from a Gaussian vector, orthogonal to the rows."""
        self.outside[: self.n] += np.abs(self.coupling[: self.n])
        self.coupling[:] = 0.0
        row = self.rows[self.n]
        row.copy_(gaussian(row, self.generator) if start is None else start.detach())
        row.div_(norm(row).to(row.dtype))
        orthogonalise(row, self.rows[: self.n])
        row.div_(norm(row).to(row.dtype))

    def expand(self) -> None:
        """Multiply the next vector; one product, one transfer to the host.

        Raises:
            FloatingPointError: the product is not finite; what was known before stays.
        """
        n = self.n
        column, beta = self._multiply(self.rows[n], self.rows[n + 1])
        self.H[: n + 1, n] = self.H[n, : n + 1] = column
        self.n, self.coupling[:] = n + 1, 0.0
        self.scale = max(self.scale, math.hypot(float(np.linalg.norm(column)), beta))
        self.invariant = beta <= BREAKDOWN * self.eps * self.scale
        if self.invariant:
            self.outside[n] = beta
            if self.n < self.rows.shape[1]:
                self.begin()
        else:
            self.coupling[n] = beta
            self.rows[n + 1].div_(beta)

    def _multiply(self, v: Tensor, out: Tensor) -> tuple[Array, float]:
        """`out` = A v without its components along the rows; these, and the norm of `out`."""
        self.products += 1
        product = self.matvec(v)
        if product.shape != v.shape:
            raise ValueError(
                f"the product of the matrix with a vector of shape {tuple(v.shape)} has the shape "
                f"{tuple(product.shape)}"
            )
        out.copy_(product.detach())
        along = orthogonalise(out, self.rows[: self.n + 1])
        numbers = _host(torch.cat([along, norm(out)[None]]))
        if not np.isfinite(numbers).all():
            raise FloatingPointError(
                f"product {self.products} of the matrix with a unit vector is not finite"
            )
        return numbers[:-1], float(numbers[-1])

    def compress(self, S: Array, first: int = 0) -> None:
        """Replace the rows from `first` on by S' (l, n - first) times them; thick restart.

        The next vector stays the next. In place, by blocks of columns, with one vector's memory.
        """
        last, kept = self.n, first + S.shape[1]
        rotate(S, self.rows[first:last], self.rows[first:kept])
        self.rows[kept].copy_(self.rows[last].clone() if kept < last else self.rows[last])
        turn = np.zeros((last, kept))
        turn[:first, :first], turn[first:, first:] = np.eye(first), S
        H, coupling = turn.T @ self.H[:last, :last] @ turn, turn.T @ self.coupling[:last]
        outside = np.abs(turn).T @ self.outside[:last]
        self.H[:], self.coupling[:], self.outside[:] = 0.0, 0.0, 0.0
        self.n, self.H[:kept, :kept] = kept, H
        self.coupling[:kept], self.outside[:kept] = coupling, outside

    def ritz(self, first: int = 0) -> tuple[Array, Array, Array]:
        """Values, ascending, coefficients (n, n) and residuals, of the rows from `first` on.

        A residual is exact up to what is outside, which counts with its triangle inequality,
        and no less than the rounding of a product. Couplings to rows before `first` are left out.
        """
        window = slice(first, self.n)
        values, S = eigh(self.H[window, window])
        residuals = np.abs(self.coupling[window] @ S) + self.outside[window] @ np.abs(S)
        return values, S, np.maximum(residuals, self.eps * self.scale)


@dataclass(frozen=True)
class Eigenpairs:
    """Ritz pairs of a symmetric matrix, from the largest value down.

    Attributes:
        values: (K,) Ritz values.
        vectors: (K, P) orthonormal, on the device of the start.
        residuals: (K,) |A v - value v|; an eigenvalue lies within it, always.
        errors: (K,) estimates of the errors: the residual, or residual^2 / gap if smaller.
        relative: (K,) the residual was judged against the value; else, as |value| is less than
            0.01 of the largest |Ritz value|, against that.
        converged: (K,) the residual is within the tolerance.
        ends: (K,) "largest" or "smallest", or "magnitude".
        products: spent in all.
        probes: random restarts that looked for further copies.
        multiplicity_checked: the last two of them found none, or the space was exhausted.
    """

    values: Array
    vectors: Tensor
    residuals: Array
    errors: Array
    relative: NDArray[np.bool_]
    converged: NDArray[np.bool_]
    ends: tuple[str, ...]
    products: int
    probes: int
    multiplicity_checked: bool


@dataclass(frozen=True)
class Step:
    """What is known after a product.

    Attributes:
        products: spent so far.
        values: (K,) leading Ritz values, from the largest down.
        residuals: (K,) of these.
        converged: how many of the wanted ones are, guards included.
        wanted: how many must converge.
        probes: random restarts begun.
    """

    products: int
    values: Array
    residuals: Array
    converged: int
    wanted: int
    probes: int
