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
GUARDS = 2  # followed beside those asked for, at each end, so that none is missed
SURE = 0.1  # of the distance to those asked for: a guard's residual, if the tolerance is less
SMALL = 0.01  # of the largest |Ritz value|: below, residuals are judged against that value
BREAKDOWN = 10.0  # in units of rounding: what is left of a product is nothing new
ROUNDING = 8.0  # in units of rounding: no residual can be asked to be smaller
PROBES = 2  # random restarts in a row that must find nothing new
MISS = 0.1  # largest probability that one of them overlooks an eigenvalue
STANDS_OUT = 0.1  # of the width of the spectrum: the least that a probe into a dense end excludes
TINY = np.finfo(float).tiny
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
        self.products, self.n, self.scale, self.invariant = 0, 0, 0.0, False
        self.H = np.zeros((m, m))
        self.coupling, self.outside = np.zeros(m), np.zeros(m)

    @property
    def m(self) -> int:
        """The largest dimension."""
        return len(self.rows) - 1

    def cut(self, n: int) -> None:
        """Forget the rows from `n` on, and the next vector."""
        self.n, self.coupling[:] = n, 0.0

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
        self.outside[n] = beta if self.invariant else 0.0
        if self.invariant:
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
    """Ritz pairs of a symmetric matrix, from the largest value down."""

    values: Array  # (K,)
    vectors: Tensor  # (K, P) orthonormal, where the start is
    residuals: Array  # (K,) |A v - value v|: an eigenvalue lies within it
    errors: Array  # (K,) estimate of the value's error: min(residual, residual^2 / gap)
    relative: NDArray[np.bool_]  # (K,) judged against |value|; else against the largest of all
    converged: NDArray[np.bool_]  # (K,) the residual is within the tolerance
    ends: tuple[str, ...]  # (K,) "largest" or "smallest", or "magnitude"
    products: int  # spent in all
    probes: int  # random restarts that looked for what was missed
    multiplicity_checked: bool  # the last two of them found nothing, or nothing is left to find


@dataclass(frozen=True)
class Step:
    """What is known after a product."""

    products: int
    values: Array  # (K,) leading Ritz values, guards included, ascending
    residuals: Array  # (K,)
    converged: int  # of these
    wanted: int  # that must converge
    probes: int  # begun so far


class Search:
    """The outermost eigenvalues, a product at a time: iterate, and take `pairs()` at any time.

    A value has converged when its residual is at most `tolerance` |value|, or `tolerance` times
    the largest |Ritz value| of all if it is smaller than 0.01 of that. Two more than asked for
    must converge at each end. Then the search restarts from random vectors orthogonal to what
    was found, until two in a row have found nothing outside of it: a Krylov space holds one
    copy of a multiple eigenvalue only. Memory: basis + 1 vectors, and the result's.
    """

    def __init__(
        self,
        matvec: Matvec,
        start: Tensor,
        count: int = 5,
        which: str = "both",
        *,
        generator: torch.Generator,
        tolerance: float = 1e-3,
        basis: int | None = None,
        max_products: int | None = None,
        multiplicity: bool = True,
    ) -> None:
        """Check the arguments and allocate the basis; nothing is multiplied yet.

        Args:
            matvec: v (P,) -> A v (P,).
            start: (P,) float32 or float64; gives size, precision and device, and, unless it is
                zero, the first vector (a sum of earlier eigenvectors is a warm start).
            count: of eigenvalues, at each end for "both"; more than P means P.
            which: "magnitude", "largest", "smallest", or "both" (algebraic) ends.
            generator: of the random vectors, which are the same on every device.
            tolerance: of the residuals.
            basis: vectors kept at most; by default three for each one wanted and 20 more.
            max_products: stop there, converged or not.
            multiplicity: look for further copies.

        Raises:
            ValueError: an argument out of its range.
        """
        if which not in WHICH:
            raise ValueError(f"which {which!r} is none of {', '.join(WHICH)}")
        if count < 1 or not tolerance > 0:
            raise ValueError(f"count {count} and tolerance {tolerance} must be positive")
        if start.ndim != 1 or not len(start) or start.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"start must be a float32 or float64 vector, not {start.dtype} of shape "
                f"{tuple(start.shape)}"
            )
        self.size, self.which, self.tolerance = len(start), which, tolerance
        self.count, self.multiplicity = min(count, self.size), multiplicity
        self.max_products = math.inf if max_products is None else max_products
        self.wanted = len(self._leading(np.zeros(self.size), self.count + GUARDS))
        least = min(self.size, least_basis(self.count, which))
        if basis is not None and basis < least:
            raise ValueError(f"a basis of {basis} vectors is too small: this needs {least}")
        m = default_basis(self.wanted) if basis is None else basis
        self.krylov = Krylov(matvec, start, min(m, self.size), generator)
        length = float(_host(norm(start))[()])
        if not math.isfinite(length):
            raise ValueError("the start is not finite")
        self.krylov.begin(start if length > 0 else None)
        self.done = self.checked = False
        self.largest = 0.0  # |Ritz value| of all so far
        self.probes, self.quiet = 0, 0  # in all; in a row without a find
        self.locked, self.begun = 0, 0  # rows that a probe leaves alone; products before it
        self.bars: dict[int, float] = {}  # by sign: sign * value of what a find has to surpass

    def __iter__(self) -> Iterator[Step]:
        """Go on until done."""
        while not self.done and self.krylov.products < self.max_products:
            yield self.step()

    def step(self) -> Step:
        """One product, and what is known after it."""
        if self.krylov.n == self.krylov.m:
            self._restart()
        self.krylov.expand()
        values, S, residuals = self.krylov.ritz()
        self.largest = max(self.largest, float(np.abs(values).max()))
        lead = self._leading(values, self.count + GUARDS)
        settled = residuals <= self._enough(values, self._bars(values))
        probes = self.probes
        if self.krylov.n == self.size:
            self.done = self.checked = True
        else:
            self._turn(values, S, settled, lead)
        converged = int(settled[lead].sum())
        known = (values[lead], residuals[lead], converged)
        return Step(self.krylov.products, *known, self.wanted, probes)

    def pairs(self) -> Eigenpairs:
        """What is known now; a search that was stopped says which pairs had converged."""
        values, S, residuals = self.krylov.ritz()
        lead = self._leading(values, self.count)[::-1]
        vectors = self.krylov.rows.new_empty(len(lead), self.size)
        rotate(S[:, lead], self.krylov.rows[: len(values)], vectors)
        relative = self._relative(values[lead])
        apart = np.abs(values[lead, None] - values) - residuals
        apart[np.arange(len(lead)), lead] = np.inf
        # At an end that lies on the bulk, what Ritz values show of the gap means nothing.
        gap = np.where(relative, np.maximum(apart.min(1, initial=np.inf), residuals[lead]), 0.0)
        errors = residuals[lead] * np.minimum(residuals[lead] / np.maximum(gap, TINY), 1.0)
        upper = self._upper(len(lead))
        ends = ("largest",) * upper + ("smallest",) * (len(lead) - upper)
        return Eigenpairs(
            values=values[lead],
            vectors=vectors,
            residuals=residuals[lead],
            errors=np.maximum(errors, self.krylov.eps * self.krylov.scale),
            relative=relative,
            converged=(residuals <= self._allowed(values))[lead],
            ends=("magnitude",) * len(lead) if self.which == "magnitude" else ends,
            products=self.krylov.products,
            probes=self.probes,
            multiplicity_checked=self.checked,
        )

    def keep(self) -> Krylov:
        """The basis with the wanted Ritz vectors as its only rows, or with all P; ends the search.

        `pairs()` is to be asked before.
        """
        krylov = self.krylov
        if krylov.n < self.size and not self.locked:
            values, S, _ = krylov.ritz()
            krylov.compress(S[:, self._leading(values, self.count + GUARDS)])
        elif krylov.n < self.size:
            krylov.cut(self.locked)
        return krylov

    def _leading(self, values: Array, count: int) -> Indices:
        """Indices of the `count` outermost of ascending `values`, at each end for "both"."""
        n = len(values)
        if self.which == "magnitude":
            return np.sort(np.argsort(-np.abs(values), kind="stable")[:count])
        low = {"largest": 0, "both": n // 2}.get(self.which, n)
        high = {"smallest": 0, "both": n - n // 2}.get(self.which, n)
        indices: Indices = np.r_[0 : min(count, low), n - min(count, high) : n]
        return indices

    def _upper(self, n: int) -> int:
        """How many of `n` wanted values are at the upper end."""
        return {"largest": n, "smallest": 0}.get(self.which, (n + 1) // 2)

    def _relative(self, values: Array) -> NDArray[np.bool_]:
        return np.abs(values) >= SMALL * self.largest

    def _allowed(self, values: Array) -> Array:
        """The residuals at which `values` have converged."""
        scale = np.where(self._relative(values), np.abs(values), self.largest)
        return self.tolerance * scale

    def _restart(self) -> None:
        """Keep the outer third of what is not locked, and all that is wanted."""
        values, S, _ = self.krylov.ritz(self.locked)
        wanted = 0 if self.locked else self.wanted
        keep = wanted + (len(values) - wanted) // 3
        per_end = max(1, keep // 2) if self.which == "both" else keep
        self.krylov.compress(S[:, self._leading(values, per_end)], self.locked)

    def _turn(self, values: Array, S: Array, settled: NDArray[np.bool_], lead: Indices) -> None:
        """Go on, begin a probe, or be done, after a product."""
        found = True
        over = len(lead) == self.wanted and bool(settled[lead].all())
        if self.locked:
            over, found = self._verdict(values, settled)
        if not over:
            return
        self.quiet = 0 if found else self.quiet + 1
        self.checked = self.quiet == PROBES
        self.done = self.checked or not self.multiplicity
        if not found:  # what the probe has within the tolerance of the bar did not converge
            self.krylov.cut(self.locked)
        elif self.multiplicity:
            self.krylov.compress(S[:, lead])
            self.bars = self._bars(values[lead])
            self.locked = len(lead)
        if not self.done:
            self.krylov.begin()
            self.begun = self.krylov.products
            self.probes += 1

    def _bars(self, values: Array) -> dict[int, float]:
        """By sign of the end, sign * value of the last one asked for; others lie below."""
        asked = values[self._leading(values, self.count)]
        if self.which == "magnitude":
            return dict.fromkeys((1, -1), float(np.abs(asked).min()))
        upper = self._upper(len(asked))
        bars = {1: float(asked[-upper])} if upper else {}
        return bars if upper == len(asked) else {**bars, -1: -float(asked[-upper - 1])}

    def _enough(self, values: Array, bars: dict[int, float]) -> Array:
        """The residuals at which `values` need no more products.

        What lies below all bars is not asked for and only has to be sure to stay there.
        """
        below = np.min([bar - sign * values for sign, bar in bars.items()], axis=0)
        rounding = ROUNDING * self.krylov.eps * self.krylov.scale
        enough: Array = np.maximum(np.maximum(self._allowed(values), rounding), SURE * below)
        return enough

    def _verdict(self, values: Array, settled: NDArray[np.bool_]) -> tuple[bool, bool]:
        """Whether the probe is over, and whether it found anything beyond a bar.

        Found: a Ritz value of the probe's own rows beyond the bar; over when all wanted pairs
        have converged anew. Nothing found: over when a hidden value beyond the bar is improbable.
        """
        krylov = self.krylov
        own, _, residuals = krylov.ritz(self.locked)
        steps = krylov.products - self.begun
        rounding = ROUNDING * krylov.eps * krylov.scale
        over, found = True, False
        for sign, bar in self.bars.items():
            signed = sign * own
            top = int(signed.argmax())
            allowed = float(self._allowed(np.array([bar]))[0])
            if signed[top] > bar + max(allowed, rounding):
                found = True
                over &= bool(settled[self._leading(values, self.count)].all())
                continue
            width = max(bar - float((signed - residuals).min()), rounding)
            gap = max(bar - signed[top], 0.0) / width if width else 1.0
            at_rest = residuals[top] <= self._enough(own, {sign: bar})[top]
            unlikely = self._miss(gap, steps) <= MISS
            dense = krylov.invariant or self._miss(max(gap, STANDS_OUT), steps) <= MISS
            over &= unlikely or (at_rest and dense)
        return over, found

    def _miss(self, gap: float, steps: int) -> float:
        """Bound of the probability that the largest Ritz value errs by `gap` of the width.

        From a random start after `steps` products: 1.648 sqrt(P) exp(-sqrt(gap) (2 steps - 1)),
        Kuczynski and Wozniakowski (1992), theorem 4.2.
        """
        return 1.648 * math.sqrt(self.size) * math.exp(-math.sqrt(gap) * (2 * steps - 1))


def least_basis(count: int, which: str) -> int:
    """Krylov vectors without which no search for `count` eigenvalues at each end can go on."""
    return (2 if which == "both" else 1) * (count + GUARDS) + ROOM


def default_basis(wanted: int) -> int:
    """Krylov vectors for so many wanted pairs, guards included; found by trial."""
    return 3 * wanted + 20


def gaussian(like: Tensor, generator: torch.Generator) -> Tensor:
    """A standard normal vector like `like` (P,); the same bits for every device and precision."""
    shape, device = like.shape, generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(like)


def norm(v: Tensor) -> Tensor:
    """Euclidean norm of `v` (P,), accumulated in float64; stays on the device."""
    length: Tensor = torch.linalg.vector_norm(v, dtype=_wide(v))
    return length


def orthogonalise(v: Tensor, rows: Tensor) -> Tensor:
    """Take the components along orthonormal `rows` (n, P) out of `v` (P,), in place.

    Two passes of classical Gram-Schmidt: the second also mends the rounding of the first in
    the coefficients (n,), which are returned in float64 and stay on the device.
    """
    total = torch.zeros(len(rows), dtype=_wide(v), device=v.device)
    for _ in range(2 if len(rows) else 0):
        along = dots(rows, v)
        v.addmv_(rows.T, along.to(v.dtype), alpha=-1)
        total += along
    return total


def dots(rows: Tensor, v: Tensor) -> Tensor:
    """Inner products (n,) of `rows` (n, P) with `v` (P,), in float64 on the device.

    Summed in the precision of the vectors within chunks and in float64 over them, which costs
    no more than a plain product: a float32 sum over a million entries errs by 1e-5.
    """
    whole = v.numel() - v.numel() % CHUNK
    blocks = rows[:, :whole].view(len(rows), -1, CHUNK).transpose(0, 1)
    parts = torch.bmm(blocks, v[:whole].view(-1, CHUNK, 1)).squeeze(2)
    return parts.to(_wide(v)).sum(0) + torch.mv(rows[:, whole:], v[whole:]).to(_wide(v))


def rotate(S: Array, rows: Tensor, out: Tensor) -> None:
    """`out` (l, P) = S' (l, n) times `rows` (n, P), in float64; `out` may be the first rows.

    By blocks of columns that take together about as much memory as one vector.
    """
    turn = torch.from_numpy(S.T.copy()).to(out.device, _wide(out))
    columns = max(1024, rows.shape[1] // (2 * (len(rows) + len(out))))
    pairs = zip(torch.split(rows, columns, 1), torch.split(out, columns, 1), strict=True)
    for old, new in pairs:
        new.copy_(turn @ old.to(turn.dtype))


def _wide(v: Tensor) -> torch.dtype:
    return torch.float32 if v.device.type == "mps" else torch.float64


def _host(numbers: Tensor) -> Array:
    """The one place where anything leaves the device."""
    return numbers.cpu().double().numpy()
