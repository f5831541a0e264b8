"""An orthonormal basis that grows by products with a symmetric matrix, and what it shows of it.

The basis is orthogonalised in full, so no eigenvalue appears twice that is not double, and
can be restarted thick (Wu and Simon 2000) when it has used the memory it may use. What is computed
with vectors is computed on their device, wherever the basis lies; the projected matrix is a small
float64 one on the host.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from landscape.basis import CHUNK, allocate, blocks
from landscape.vectors import WHOLE, Vectors

Matvec = Callable[[Tensor], Tensor]
Array = NDArray[np.float64]

BREAKDOWN = 10.0  # in units of rounding: what is left of a product is nothing new
ROUNDING = 4.0  # times rounding and the root of the products: residuals, measured in float64
TINY = float(np.finfo(np.float64).tiny)
PIECE = 1 << 20  # entries that are squared at a time


class Krylov:
    """Orthonormal rows Q (n, P) and H = Q A Q' (n, n), a row more for each product.

    A q_i = sum_j H_ij q_j + coupling_i q_next + a remainder of norm outside_i, orthogonal to
    all rows. In plain Lanczos H is tridiagonal, only the last row is coupled and nothing is
    outside. All entries of H are measured, so Q may begin with vectors of any origin.

    Attributes:
        matvec: v (P,) -> A v (P,); its result is not written to.
        rows: (m + 1, P) the basis; row n is the vector that is multiplied next.
        device: of the vectors that are multiplied; the rows may lie elsewhere.
        size: P.
        H: (m, m) the projected matrix; its leading (n, n) block counts.
        n: dimension of the basis.
        products: spent so far.
        scale: largest |A q| seen, a lower bound of the norm of A.
        invariant: nothing was left of the last product: the rows since the last new start span
            an invariant subspace, and the next vector is a random one.
    """

    def __init__(
        self,
        matvec: Matvec,
        like: Tensor,
        m: int,
        generator: torch.Generator,
        *,
        place: str = "auto",
        vectors: Vectors = WHOLE,
    ) -> None:
        """Allocate room for `m` rows like the vector `like` (P,), at one of `basis.PLACES`."""
        self.vectors, self.size = vectors, vectors.size_of(like)
        self.matvec, self.generator, self.device = matvec, generator, like.device
        self.rows = allocate(place, m + 1, like)
        self.eps = torch.finfo(like.dtype).eps
        self.products, self.n, self.scale, self.invariant = 0, 0, 0.0, False
        self.H = np.zeros((m, m))
        self.coupling, self.outside = np.zeros(m), np.zeros(m)

    @property
    def m(self) -> int:
        """The largest dimension."""
        return len(self.rows) - 1

    @property
    def rounding(self) -> float:
        """What rounding leaves of a residual, about; no less can be known or asked for."""
        return ROUNDING * self.eps * self.scale * math.sqrt(max(1, self.products))

    def cut(self, n: int) -> None:
        """Forget the rows from `n` on, and the next vector; row `n` takes its place."""
        self.outside[:n] += np.abs(self.coupling[:n])
        self.n, self.coupling[:] = n, 0.0

    def begin(self, start: Tensor | None = None) -> None:
        """Go on from `start` (P,), or from a Gaussian vector, orthogonal to the rows."""
        self.cut(self.n)
        row = self._room(self.n)
        row.copy_(gaussian(row, self.generator, self.vectors) if start is None else start.detach())
        row.div_(self.norm(row).to(row.dtype))
        orthogonalise(row, self.rows[: self.n], self.vectors)
        self._keep(self.n, row.div_(self.norm(row).to(row.dtype)))

    def norm(self, v: Tensor) -> Tensor:
        """Euclidean norm of `v` (P,), in float64 on the device."""
        return norm(v, self.vectors)

    def _room(self, i: int) -> Tensor:
        """A vector (P,) on the device: row i itself where it is there."""
        row = self.rows[i]
        return row if row.device == self.device else torch.empty_like(row, device=self.device)

    def _keep(self, i: int, vector: Tensor) -> None:
        if self.rows.device != self.device:
            self.rows[i].copy_(vector)

    def expand(self) -> None:
        """Multiply the next vector; one product, one transfer to the host.

        Raises:
            FloatingPointError: the product is not finite; what was known before stays.
        """
        n = self.n
        rest = self._room(n + 1)
        column, beta = self._multiply(self.rows[n].to(self.device), rest)
        self.H[: n + 1, n] = self.H[n, : n + 1] = column
        self.n, self.coupling[:] = n + 1, 0.0
        self.scale = max(self.scale, math.hypot(float(np.linalg.norm(column)), beta))
        self.invariant = beta <= BREAKDOWN * self.eps * self.scale
        self.outside[n] = beta if self.invariant else 0.0
        if self.invariant:
            if self.n < self.size:
                self.begin()
        else:
            self.coupling[n] = beta
            self._keep(n + 1, rest.div_(beta))

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
        along = orthogonalise(out, self.rows[: self.n + 1], self.vectors)
        numbers = host(torch.cat([along, self.norm(out)[None]]))
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
        rotate(S, self.rows[first:last], self.rows[first:kept], device=self.device)
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
        values, S = eigh(self.H[window, window], driver="evd")  # evr: less orthogonal
        residuals = np.abs(self.coupling[window] @ S) + self.outside[window] @ np.abs(S)
        return values, S, np.maximum(residuals, self.rounding)


def gaussian(like: Tensor, generator: torch.Generator, vectors: Vectors = WHOLE) -> Tensor:
    """A standard normal vector like `like` (P,); the same bits for every device and precision."""

    def draw(count: int) -> Tensor:
        device = generator.device
        return torch.randn(count, generator=generator, device=device, dtype=torch.float32)

    return vectors.drawn(like, draw)


def norm(v: Tensor, vectors: Vectors = WHOLE) -> Tensor:
    """Euclidean norm of `v` (P,), accumulated in float64; stays on the device.

    By pieces, as a CPU makes a copy in float64 of what it sums.
    """
    pieces = [torch.linalg.vector_norm(piece, dtype=_wide(v)) for piece in torch.split(v, PIECE)]
    length: Tensor = torch.linalg.vector_norm(torch.stack(pieces))
    return vectors.total(length.square()).sqrt() if vectors.split else length


def orthogonalise(v: Tensor, rows: Tensor, vectors: Vectors = WHOLE) -> Tensor:
    """Take the components along orthonormal `rows` (n, P) out of `v` (P,), in place.

    Two passes of classical Gram-Schmidt: the second also mends the rounding of the first in
    the coefficients (n,), which are returned in float64 and stay on the device.
    """
    total = torch.zeros(len(rows), dtype=_wide(v), device=v.device)
    for _ in range(2 if len(rows) else 0):
        along = dots(rows, v, vectors)
        for columns, block in blocks(rows, v.device):
            v[columns].addmv_(block.T, along.to(v.dtype), alpha=-1)
        total += along
    return total


def dots(rows: Tensor, v: Tensor, vectors: Vectors = WHOLE) -> Tensor:
    """Inner products (n,) of `rows` (n, P) with `v` (P,), in float64 on the device.

    Summed in the precision of the vectors within chunks and in float64 over them, which costs
    no more than a plain product: a float32 sum over a million entries errs by 1e-5.
    """
    parts = [_chunks(block, v[columns]) for columns, block in blocks(rows, v.device)]
    return vectors.total(torch.cat(parts).sum(0))


def _chunks(rows: Tensor, v: Tensor) -> Tensor:
    """Inner products (c, n) of `rows` (n, B) with `v` (B,), of every chunk and of what is left."""
    whole = v.numel() - v.numel() % CHUNK
    # A row times a matrix: with a column instead, CPUs take eight times as long.
    chunks = rows[:, :whole].view(len(rows), -1, CHUNK).permute(1, 2, 0)
    parts = torch.bmm(v[:whole].view(-1, 1, CHUNK), chunks).squeeze(1)
    if whole < v.numel():
        parts = torch.cat([parts, torch.mv(rows[:, whole:], v[whole:])[None]])
    return parts.to(_wide(v))


def rotate(S: Array, rows: Tensor, out: Tensor, *, device: torch.device | None = None) -> None:
    """`out` (l, P) = S' (l, n) times `rows` (n, P), in float64; `out` may be the first rows.

    By blocks of columns that take together about as much memory as one vector, on `device` or on
    that of `out`.
    """
    turn = torch.from_numpy(S.T.copy()).to(device or out.device, _wide(out))
    columns = max(1024, rows.shape[1] // (2 * max(1, len(rows) + len(out))))
    pairs = zip(torch.split(rows, columns, 1), torch.split(out, columns, 1), strict=True)
    for old, new in pairs:
        new.copy_(turn @ old.to(turn))


def _wide(v: Tensor) -> torch.dtype:
    return torch.float32 if v.device.type == "mps" else torch.float64


def host(numbers: Tensor) -> Array:
    """The one place where anything leaves the device."""
    return numbers.cpu().double().numpy()
