"""A random start that looks for eigenvalues which other starts have overlooked.

A Krylov space holds one vector of each eigenspace, so it shows a multiple eigenvalue once.
"""

import math
from collections.abc import Mapping

import numpy as np

from landscape.krylov import TINY, Array, Krylov

MISS = 0.1  # largest probability that a probe overlooks an eigenvalue
SURE = 0.1  # of its distance to the bar: a residual with which a value is sure to lie below it
STANDS_OUT = 0.1  # of the largest |eigenvalue|: the least that a probe into a dense end excludes


class Probe:
    """Lanczos from a random vector orthogonal to the first rows of a basis, the known ones.

    All is said by the sign of an end: +1, and -1 for the lower one, of which -A is the upper.
    A Ritz value beyond the level of its end is a find. Without one the probe ends when an
    eigenvalue beyond the level would have been seen but for a probability of `MISS`; where the
    spectrum comes so close to the level that this takes long, when its own largest value has
    converged and it has excluded, with the same probability, any that stands out.

    Attributes:
        known: rows that it leaves alone.
        found: a value beyond the level, at any end, after the last product.
        rivals: by sign of the ends without a find, the interval that is likely to hold the
            outermost of the values that are not known.
    """

    def __init__(
        self, krylov: Krylov, bars: Mapping[int, float], allowed: Mapping[int, float], most: float
    ) -> None:
        """Begin; nothing is multiplied yet.

        Args:
            krylov: its rows are the known ones.
            bars: by sign, sign * value of the last known eigenvalue that counts.
            allowed: by sign, the residual with which that has converged; the level lies so far
                beyond the bar.
            most: the largest |eigenvalue|.
        """
        self.krylov, self.known, self.bars, self.allowed = krylov, krylov.n, bars, allowed
        outstanding = np.array([0.0, STANDS_OUT * most])
        self._levels = {sign: bar + allowed[sign] + outstanding for sign, bar in bars.items()}
        self._carried = {sign: np.ones(2) for sign in bars}
        self._known = {sign: _last(sign * krylov.ritz()[0], bar) for sign, bar in bars.items()}
        self._first = krylov.n  # the row it began with, or, after restarts, the last of these with
        self.found, self.rivals = False, dict[int, tuple[float, float]]()
        krylov.begin()

    def over(self, values: Array, settled: bool) -> bool:
        """After a product, whether the probe has ended.

        values: the Ritz values of all rows; they show what known vectors that have not converged
            hide from the probe's own rows.
        settled: the known eigenpairs have converged anew, which ends a probe with a find.
        """
        own, _, residuals = self.krylov.ritz(self.known)
        over, self.found, self.rivals = True, False, {}
        for sign, bar in self.bars.items():
            top, level = int((sign * own).argmax()), float(self._levels[sign][0])
            value, residual = float(sign * own[top]), float(residuals[top])
            count, known = self._known[sign]
            last, following = np.r_[known, np.sort(sign * values)[::-1]][count : count + 2].tolist()
            if value > level or last > known + self.allowed[sign]:
                self.found = True
                over &= settled
                continue
            likely = min(max(value + residual, following) + self.allowed[sign], level)
            self.rivals[sign] = min(sign * value, sign * likely), max(sign * value, sign * likely)
            at_rest = residual <= max(min(self.allowed[sign], level - value), SURE * (bar - value))
            sure, sure_of_outstanding = self.miss(sign) <= MISS
            over &= bool(sure or (at_rest and sure_of_outstanding))
        return over

    def miss(self, sign: int) -> Array:
        """Bounds of the probability that an eigenvalue is overlooked: beyond the level, and far.

        Let u be a unit eigenvector of the eigenvalue x. From A Q' = Q'H + q_next coupling' its
        components along the rows are Q u = (x - H)^-1 coupling (u.q_next). They limit the one
        along the first row by |u| = 1, and the more so the further x lies beyond the spectrum of
        H. But that row is uniform on the sphere of P - known dimensions, where a component is
        less than a with a probability of at most a sqrt(2 (P - known) / pi).
        """
        first, length = self._components(sign)
        dimensions = self.krylov.size - self.known
        bounds: Array = self._carried[sign] * first / length
        return bounds * math.sqrt(2 * dimensions / math.pi)

    def compress(self, S: Array) -> None:
        """Restart thick from the own Ritz vectors S: what `miss` needs is carried over."""
        for sign in self.rivals:
            self._carried[sign] *= self._components(sign)[0]
        self.krylov.compress(S, self.known)
        self._first = self.krylov.n

    def _components(self, sign: int) -> tuple[Array, Array]:
        """Of eigenvectors at the levels: along the first row, and the length along all.

        In units of the component along the next vector, which is counted.
        """
        krylov = self.krylov
        own, S, _ = krylov.ritz(self.known)
        apart = np.maximum(self._levels[sign][:, None] - sign * own, krylov.eps * krylov.scale)
        along = krylov.coupling[self.known : krylov.n] @ S / np.maximum(apart, TINY)
        return np.abs(along @ S[self._first - self.known]), np.sqrt(1.0 + (along**2).sum(1))


def _last(values: Array, bar: float) -> tuple[int, float]:
    """How many of `values` reach the bar, and the last that does."""
    reaching = values[values >= bar]
    return len(reaching), float(reaching.min(initial=np.inf))
