"""The outermost eigenvalues of a symmetric matrix that is known by its products only."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.krylov import (
    TINY,
    Array,
    Krylov,
    Matvec,
    dots,
    gaussian,
    host,
    norm,
    orthogonalise,
    rotate,
)
from landscape.multiplicity import SURE, Probe
from landscape.vectors import WHOLE, Vectors

__all__ = [
    "GUARDS",
    "WHICH",
    "Eigenpairs",
    "Krylov",
    "Matvec",
    "Search",
    "Step",
    "default_basis",
    "dots",
    "gaussian",
    "least_basis",
    "norm",
    "orthogonalise",
    "rotate",
    "warm",
]

Indices = NDArray[np.intp]

WHICH = ("magnitude", "largest", "smallest", "both")
GUARDS = 2  # followed beside those asked for, at each end, so that none is missed
SMALL = 0.01  # of the largest |Ritz value|: below, residuals are judged against that value
PROBES = 2  # random restarts in a row that must find nothing new
ROOM = 8  # rows of the basis beside the wanted pairs, at least


@dataclass(frozen=True)
class Eigenpairs:
    """Ritz pairs of a symmetric matrix, from the largest value down.

    The k-th largest Ritz value is never above the k-th largest eigenvalue (rounding aside), and
    at the lower end never below. An error is the distance to an eigenvalue, not to the k-th one:
    eigenvalues that lie closer together than the tolerance are not told apart, and where the
    multiplicity is not checked a whole cluster may stand for one.
    """

    values: Array  # (K,)
    vectors: Tensor  # (K, P) orthonormal, in the memory where the basis is
    residuals: Array  # (K,) |A v - value v|: an eigenvalue lies within it
    errors: Array  # (K,) estimate: residual^2 / gap, or the residual where no gap is known
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
    copy of a multiple eigenvalue only (`multiplicity.Probe` says how rarely each errs). Memory:
    basis + 1 vectors, the result's, and up to two for a moment.
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
        place: str = "auto",
        vectors: Vectors = WHOLE,
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
            place: where the basis lies, one of `basis.PLACES`.
            vectors: how those of the matrix lie in memory.

        Raises:
            ValueError: an argument out of its range.
        """
        if which not in WHICH:
            raise ValueError(f"which {which!r} is none of {', '.join(WHICH)}")
        if count < 1 or not tolerance > 0:
            raise ValueError(f"count {count} and tolerance {tolerance} must be positive")
        if max_products is not None and max_products < 0:
            raise ValueError(f"max_products {max_products} is negative")
        self.size = vectors.size_of(start)
        if start.ndim != 1 or not self.size or start.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"start must be a float32 or float64 vector, not {start.dtype} of shape "
                f"{tuple(start.shape)}"
            )
        self.which, self.tolerance = which, tolerance
        self.count, self.multiplicity = min(count, self.size), multiplicity
        self.max_products = math.inf if max_products is None else max_products
        self.wanted = len(self._leading(np.zeros(self.size), self.count + GUARDS))
        least = min(self.size, least_basis(self.count, which))
        if basis is not None and basis < least:
            raise ValueError(f"a basis of {basis} vectors is too small: this needs {least}")
        m = default_basis(self.wanted) if basis is None else basis
        m = min(m, self.size)
        self.krylov = Krylov(matvec, start, m, generator, place=place, vectors=vectors)
        length = float(host(self.krylov.norm(start))[()])
        if not math.isfinite(length):
            raise ValueError("the start is not finite")
        self.krylov.begin(start if length > 0 else None)
        self.done = self.checked = False
        self.largest = 0.0  # |Ritz value| of all so far
        self.probe: Probe | None = None
        self.probes, self.quiet = 0, 0  # in all; in a row without a find
        self.rivals: list[tuple[float, float]] = []  # what quiet probes have left, see there

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
        excess = residuals - self._enough(values, self._bars(values))
        probes = self.probes
        if self.krylov.n == self.size:
            self.done = self.checked = True
        else:
            self._turn(values, S, excess, lead)
        converged = int((excess[lead] <= 0).sum())
        known = (values[lead], residuals[lead], converged)
        return Step(self.krylov.products, *known, self.wanted, probes)

    def pairs(self) -> Eigenpairs:
        """What is known now; a search that was stopped says which pairs had converged."""
        values, S, residuals = self.krylov.ritz()
        lead = self._leading(values, self.count)[::-1]
        vectors = self.krylov.rows.new_empty(len(lead), self.krylov.rows.shape[1])
        rotate(S[:, lead], self.krylov.rows[: len(values)], vectors, device=self.krylov.device)
        upper = self._upper(len(lead))
        ends = ("largest",) * upper + ("smallest",) * (len(lead) - upper)
        return Eigenpairs(
            values=values[lead],
            vectors=vectors,
            residuals=residuals[lead],
            errors=self._errors(values, residuals)[lead],
            relative=self._relative(values[lead]),
            converged=(residuals <= self._allowed(values))[lead],
            ends=("magnitude",) * len(lead) if self.which == "magnitude" else ends,
            products=self.krylov.products,
            probes=self.probes,
            multiplicity_checked=self.checked,
        )

    def close(self) -> Tensor:
        """A unit vector (P,) that holds a part of every wanted Ritz vector; ends the search.

        For `warm` at a matrix nearby. `pairs()` is to be asked before.
        """
        krylov = self.keep()
        known = krylov.rows[: krylov.n].sum(0).to(krylov.device)
        return known.div_(krylov.norm(known).to(known.dtype))

    def keep(self) -> Krylov:
        """The basis with the wanted Ritz vectors as its only rows, or with all P; ends the search.

        `pairs()` is to be asked before.
        """
        krylov = self.krylov
        if krylov.n < self.size and self.probe is None:
            values, S, _ = krylov.ritz()
            krylov.compress(S[:, self._leading(values, self.count + GUARDS)])
        elif krylov.n < self.size and self.probe is not None:
            krylov.cut(self.probe.known)
        return krylov

    def _errors(self, values: Array, residuals: Array) -> Array:
        """residual^2 / gap where it has converged, else the residual.

        The gap is to the nearest other Ritz value, with its residual, and to what probes have
        left. At an end that lies on the bulk what these show of it means nothing.
        """
        apart = np.abs(values[:, None] - values) - residuals
        np.fill_diagonal(apart, np.inf)
        left = [np.maximum(low - values, values - high) for low, high in self.rivals]
        apart = np.column_stack([apart, *left])
        isolated = self._relative(values) & (residuals <= self._allowed(values))
        gap = np.where(isolated, apart.min(1, initial=np.inf), 0.0)
        errors: Array = residuals * (residuals / np.maximum(gap, np.maximum(residuals, TINY)))
        return np.maximum(errors, self.krylov.rounding)

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
        """Keep the outer third of what is not known, and all that is wanted."""
        known = self.probe.known if self.probe else 0
        values, S, _ = self.krylov.ritz(known)
        wanted = 0 if known else self.wanted
        keep = wanted + (len(values) - wanted) // 3
        per_end = max(1, keep // 2) if self.which == "both" else keep
        S = S[:, self._leading(values, per_end)]
        if self.probe:
            self.probe.compress(S)
        else:
            self.krylov.compress(S)

    def _turn(self, values: Array, S: Array, excess: Array, lead: Indices) -> None:
        """Go on, begin a probe, or be done, after a product.

        excess: of the residuals over what is enough.
        """
        krylov = self.krylov
        coupled = excess - krylov.outside[: krylov.n] @ np.abs(S)
        over = len(lead) == self.wanted and float(coupled[lead].max()) <= 0
        if self.probe:
            over = self.probe.over(values, over)
        if not over:
            return
        if self.probe and not self.probe.found:
            self.quiet += 1
            self.rivals += self.probe.rivals.values()
            self.done = self.checked = self.quiet == PROBES
            krylov.cut(self.probe.known)  # what it has within the level did not converge
        elif float(excess[lead].max()) > 0:
            self._renew(S[:, lead[np.argsort(excess[lead], kind="stable")]])
            return
        else:
            self.quiet, self.rivals, self.done = 0, [], not self.multiplicity
            if self.multiplicity:
                krylov.compress(S[:, lead])
        if not self.done:
            self._probe(krylov.ritz()[0])

    def _renew(self, S: Array) -> None:
        """Keep these Ritz vectors, and go on from the last, whose product is made anew.

        What an earlier start has left outside of a Ritz vector does not get smaller otherwise.
        """
        self.krylov.compress(S)
        self.krylov.cut(S.shape[1] - 1)
        self.probe = None

    def _probe(self, values: Array) -> None:
        bars = self._bars(values)
        allowed = {
            sign: max(float(self._allowed(np.array([bar]))[0]), self.krylov.rounding)
            for sign, bar in bars.items()
        }
        self.probe = Probe(self.krylov, bars, allowed, self.largest)
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
        least = np.maximum(self._allowed(values), self.krylov.rounding)
        enough: Array = np.maximum(least, SURE * below)
        return enough


def warm(known: Tensor, generator: torch.Generator, vectors: Vectors = WHOLE) -> Tensor:
    """A start (P,) for a matrix near the one whose search has left the unit vector `known` (P,).

    Half of it is random, so that a direction of which the last matrix had nothing is seen.
    """
    start = gaussian(known, generator, vectors)
    return start.div_(norm(start, vectors).to(start.dtype)).add_(known)


def least_basis(count: int, which: str) -> int:
    """Krylov vectors without which no search for `count` eigenvalues at each end can go on."""
    return (2 if which == "both" else 1) * (count + GUARDS) + ROOM


def default_basis(wanted: int) -> int:
    """Krylov vectors for so many wanted pairs, guards included; found by trial."""
    return 3 * wanted + 20
