"""Paths through weight space: functions of t that begin at one checkpoint and end at another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from landscape.krylov import dots
from landscape.results import Array

KINDS = ("bezier", "polychain")


@dataclass(frozen=True)
class Path:
    """theta(t) = sum_k w_k(t) c_k over control points c_k, the first at t = 0, the last at 1.

    The weights w_k are Bernstein polynomials for "bezier" (Garipov et al. 2018, eq. 8) and hat
    functions for "polychain" (eq. 7); two control points make the straight line. Beyond the ends
    the formulas go on.

    Attributes:
        controls: (P,) each; two or more.
        kind: one of `KINDS`.
        knots: t of each control point of a polychain, from 0 to 1; evenly spaced if empty.
    """

    controls: tuple[Tensor, ...]
    kind: str = "polychain"
    knots: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no path.

        Raises:
            ValueError: an unknown kind, fewer than two control points, or knots out of order.
        """
        if self.kind not in KINDS or len(self.controls) < 2:
            raise ValueError(f"a path is one of {KINDS} over two control points or more")
        ends = self._knots[[0, -1]].tolist()
        if len(self._knots) != len(self.controls) or ends != [0.0, 1.0]:
            raise ValueError("a polychain has a knot for each control point, from 0 to 1")

    @property
    def _knots(self) -> Array:
        return np.array(self.knots or np.linspace(0.0, 1.0, len(self.controls)))

    @property
    def closed(self) -> bool:
        """Whether both ends are the same point."""
        return torch.equal(self.controls[0], self.controls[-1])

    def weights(self, t: float) -> Array:
        """w_k(t), one per control point (K,); they sum to 1."""
        degree = len(self.controls) - 1
        if self.kind == "bezier":
            k = np.arange(degree + 1)
            binomials = np.array([math.comb(degree, int(i)) for i in k])
            return np.asarray(binomials * float(t) ** k * (1 - float(t)) ** (degree - k))
        segment, share = self._segment(t)
        weights = np.zeros(degree + 1)
        weights[[segment, segment + 1]] = 1 - share, share
        return weights

    def at(self, t: float, out: Tensor | None = None) -> Tensor:
        """theta(t) (P,); at 0 and 1 the ends themselves, bit for bit.

        Args:
            t: the place, which may lie beyond the ends.
            out: (P,) written to, if given; none of the control points.
        """
        out = torch.empty_like(self.controls[0]) if out is None else out
        if self.kind == "polychain":
            segment, share = self._segment(t)
            return torch.lerp(self.controls[segment], self.controls[segment + 1], share, out=out)
        weights = self.weights(t).tolist()
        out.zero_()
        for weight, control in zip(weights, self.controls, strict=True):
            if weight:
                out.add_(control, alpha=weight)
        return out

    def speed(self, t: Sequence[float] | Array) -> Array:
        """|d theta / dt| at each t (T,); costs the inner products of the control points once."""
        steps = len(self.controls) - 1
        gram = self._gram
        if self.kind == "bezier":
            inner = Path(self.controls[1:], "bezier") if steps > 1 else None
            rates = np.array([steps * (inner.weights(x) if inner else np.ones(1)) for x in t])
        else:
            rates = np.zeros((len(t), steps))
            gaps = np.diff(self._knots)
            for row, x in enumerate(t):
                segment, _ = self._segment(x)
                rates[row, segment] = 1 / gaps[segment]
        squares = np.einsum("ti,ij,tj->t", rates, gram, rates)
        speeds: Array = np.sqrt(np.maximum(squares, 0.0))
        return speeds

    def length(self) -> float:
        """Euclidean length from t = 0 to 1, by the trapezoidal rule on 257 points."""
        if self.kind == "polychain":
            return float(np.sqrt(np.maximum(np.diag(self._gram), 0.0)).sum())
        t = np.linspace(0.0, 1.0, 257)
        return float(trapezoid(self.speed(t), t))

    @property
    def _gram(self) -> Array:
        """Inner products of the differences of neighbouring control points."""
        pairs = list(zip(self.controls, self.controls[1:], strict=False))
        gram = np.empty((len(pairs), len(pairs)))
        for i, (a, b) in enumerate(pairs):
            step = b - a
            for j, (c, d) in enumerate(pairs[: i + 1]):
                gram[i, j] = gram[j, i] = float(dots((d - c)[None], step)[0])
        return gram

    def _segment(self, t: float) -> tuple[int, float]:
        """The segment of a polychain that t lies on, and its share of it, to be lerped along."""
        knots = self._knots
        segment = int(np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2))
        share = (float(t) - knots[segment]) / (knots[segment + 1] - knots[segment])
        return segment, float(share)


def line(a: Tensor, b: Tensor) -> Path:
    """The straight line from a to b (P,)."""
    return Path((a, b))
