"""A function on an interval or a rectangle from few evaluations, with a stated error.

Grids of 3, 5, 9, 17, 33 points a side nest: each contains the one below. Evaluate one level,
compare with the interpolant of the level below at the new points, and the comparison states
the error of that lower level; times the decay seen over the levels before, it states the
error of the level itself.

The interpolant is a cubic spline (de Boor 2001). On the loss surfaces of trained networks it
errs less than the polynomial on as many Clenshaw-Curtis points, which crowd at the rim while
the detail of a minimum is in the middle; `benchmarks/interpolation.py` has both. Where the
loss spans decades the grids are graded towards the middle for the same reason.

Everything here is a pure function of the points evaluated so far, so a run can stop and go
on anywhere. Values are plain floats; the module knows no networks.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import make_interp_spline

from landscape.results import Array

Coordinates = tuple[float, ...]
Values = Mapping[Coordinates, float]

FIRST_LEVEL = 2  # 5 points a side: the first that a half-done surface is drawn from
TRUSTED_LEVEL = 3  # 9 points a side: below, two levels can agree by chance
GRADE = 0.8  # spacing in the middle over the mean spacing; found by trial on nine networks
LEAST_DECAY = 1 / 6  # smaller ratios of two errors were chance as often as not, by trial
BEST_DECAY = 1 / 16  # of the error of a cubic spline when the spacing is halved
STALLED = 0.75  # a decay above this, once it can be trusted, is not worth another level
WASTE = 1.15  # all evaluations together, in units of the cells, if no level suffices
LOG_SPAN = 100.0  # a positive quantity over more than two decades is drawn as its logarithm


@dataclass(frozen=True)
class Fit:
    """The interpolant of one level on the grid, and how far from the function it may be.

    Errors are those of `Quantity`: of the range, of the log range, relative pointwise.
    """

    grid: Array  # (I, J) or (I,)
    log: bool
    error_of_range: float
    error_of_log_range: float
    error_relative: float
    basis: str  # "measured" or "extrapolated"
    decay: float  # of the error from the level before last to the last, at most 1

    @property
    def error(self) -> float:
        """The error of the range of the quantity as it is drawn."""
        return self.error_of_log_range if self.log else self.error_of_range


def cells(axes: Sequence[Array]) -> list[Coordinates]:
    """All grid points, coarse to fine, those nearest the middle first within a stage."""
    ranks = np.meshgrid(*(_coarseness(len(axis)) for axis in axes), indexing="ij")
    steps = np.meshgrid(*(np.arange(len(a)) - len(a) // 2 for a in axes), indexing="ij")
    stage = np.maximum.reduce(ranks).ravel()
    off = np.sum([step**2 for step in steps], axis=0).ravel()
    order = np.lexsort((off, stage))
    grids = np.meshgrid(*axes, indexing="ij")
    return list(zip(*(grid.ravel()[order].tolist() for grid in grids), strict=True))


def _coarseness(count: int) -> list[int]:
    """For each of `count` indices the stage at which halving steps from the middle reach it."""
    middle, stages = count // 2, max(count - 1, 1).bit_length()
    offsets = [abs(i - middle) for i in range(count)]
    return [next(s for s in range(stages + 1) if d % 2 ** (stages - s) == 0) for d in offsets]


def nodes(axis: Array, level: int, *, graded: bool) -> Array:
    """The 2^level + 1 points of one level on the interval that `axis` spans, ascending.

    Evenly spaced in t, at x = t or, graded, at x = 0.8 t + 0.2 t^3 for t in [-1, 1]. Points
    within rounding of a grid point are that grid point, so that evaluations serve both.
    """
    t = np.linspace(-1.0, 1.0, 2**level + 1)
    unit = GRADE * t + (1 - GRADE) * t**3 if graded else t
    low, high = float(axis[0]), float(axis[-1])
    points = (low + high) / 2 + (high - low) / 2 * unit
    points[0], points[-1] = low, high
    fixed = np.append(axis, 0.0)
    nearest = fixed[np.abs(points[:, None] - fixed).argmin(1)]
    snapped: Array = np.where(np.abs(points - nearest) <= 1e-12 * (high - low), nearest, points)
    return snapped


@dataclass(frozen=True)
class Levels:
    """The nested grids on given axes.

    Attributes:
        axes: one or two ascending arrays of grid points.
        graded: closer in the middle.
    """

    axes: Sequence[Array]
    graded: bool

    def grids(self, level: int) -> list[Array]:
        """The points of one level along each axis."""
        return [nodes(axis, level, graded=self.graded) for axis in self.axes]

    def points(self, level: int) -> list[Coordinates]:
        """The tensor grid of one level, the middle first."""
        grids = self.grids(level)
        middles = [float(grid[len(grid) // 2]) for grid in grids]
        points = itertools.product(*(grid.tolist() for grid in grids))
        return sorted(
            points, key=lambda p: sum((x - m) ** 2 for x, m in zip(p, middles, strict=True))
        )

    def finite(self, values: Values, level: int) -> bool:
        """Whether a level is evaluated, and finite everywhere."""
        points = itertools.product(*(grid.tolist() for grid in self.grids(level)))
        return all(math.isfinite(values.get(p, math.nan)) for p in points)

    def table(self, values: Values, level: int) -> Array:
        """The values of one level as an array over its grid."""
        grids = [grid.tolist() for grid in self.grids(level)]
        flat = [values[p] for p in itertools.product(*grids)]
        return np.array(flat).reshape([len(grid) for grid in grids])


def choose(values: Values, axes: Sequence[Array]) -> Levels:
    """Levels graded towards the middle if the first 3 points a side span decades, else even.

    Those points are the same for both, so the choice costs nothing.
    """
    even = Levels(axes, graded=False)
    return Levels(axes, graded=even.finite(values, 1) and spans_decades(even.table(values, 1)))


def plan(
    values: Values,
    axes: Sequence[Array],
    *,
    tolerance: float,
    max_evaluations: int | None = None,
    levels: Levels | None = None,
) -> list[Coordinates]:
    """The points to evaluate next, given the `values` known so far; empty when done.

    Levels up from 3 points a side while the error of the range as drawn is above `tolerance`
    and falls from level to level; otherwise every cell. A level is tried only where every cell
    can still follow it within `WASTE` times the cells, or could not in any case. A tolerance of 0
    means every cell from the start. The origin is evaluated first, always.

    Args:
        values: the quantity that decides, at the points evaluated so far.
        axes: one or two ascending arrays of grid points.
        tolerance: of the range of the quantity as drawn.
        max_evaluations: stop before a stage that would go beyond.
        levels: the nested grids; None for those that `choose` finds from the values.
    """
    origin = (0.0,) * len(axes)
    if origin not in values:
        return [origin]
    budget = float("inf") if max_evaluations is None else max_evaluations
    every_cell = cells(axes)
    levels, level = levels or choose(values, axes), 1
    while tolerance > 0 and _affordable(levels.points(level), values, every_cell, budget):
        if missing := [p for p in levels.points(level) if p not in values]:
            return missing
        if not levels.finite(values, level):
            break
        if level >= TRUSTED_LEVEL:
            found = fit(values, levels, level)
            if found.error <= tolerance:
                return []
            if found.decay > STALLED and level > TRUSTED_LEVEL:
                break
        level += 1
    missing = [p for p in every_cell if p not in values]
    if len(values) + len(missing) > budget:
        # Whatever the levels gave stands, with its error, unless there is no level at all.
        enough = best_level(values, levels) > 0
        return [] if enough else missing[: max(0, int(budget) - len(values))]
    return missing


def _affordable(
    points: list[Coordinates], values: Values, every_cell: list[Coordinates], budget: float
) -> bool:
    """Whether a level stays within the budget, and with every cell, if it fails, within `WASTE`.

    A budget that does not hold every cell leaves nothing to fail into.
    """
    together = len({*points, *values, *every_cell})
    follows = together <= WASTE * len(every_cell) or budget < len(every_cell)
    return follows and len({*points, *values}) <= budget


def best_level(values: Values, levels: Levels) -> int:
    """The highest level all of whose points are known and finite; 0 if there is none."""
    level = FIRST_LEVEL
    while levels.finite(values, level):
        level += 1
    return level - 1 if level > FIRST_LEVEL else 0


def fit(values: Values, levels: Levels, level: int) -> Fit:
    """Interpolate `level` on the grid and state the error of the result.

    Positive values over more than two decades are interpolated as logarithms. With d(l) the
    largest difference between the values of level l and the interpolant of level l - 1, the
    error stated is d(l) times the decay d(l) / d(l - 1), at least 1/6 and at most 1. A d(l)
    below d(l - 1) / 16 is small by chance, and counts as that once both levels are splines.
    """
    table = levels.table(values, level)
    log = spans_decades(table)
    forward, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    grid = back(_interpolate(forward(table), levels.grids(level), levels.axes))
    # Ringing must not make a loss negative.
    grid = np.maximum(grid, 0.0) if table.min() >= 0 else grid
    below = _from_below(forward(table), levels, level)
    coarser = forward(_every_other(table))
    new = _largest(forward(table) - below)
    before = _largest(coarser - _from_below(coarser, levels, level - 1))
    decay = min(1.0, max(LEAST_DECAY, new / before)) if before > 0 else 1.0
    by_chance = level > TRUSTED_LEVEL and 0 < new < before * BEST_DECAY
    scale = decay * (before * BEST_DECAY / new if by_chance else 1.0)
    off, logs = table - back(below), np.log(table) if table.min() > 0 else None
    off_log = None if logs is None else logs - np.log(np.maximum(back(below), table.min() * 1e-3))
    return Fit(
        grid=grid,
        log=log,
        error_of_range=_share(_largest(off) * scale, table),
        error_of_log_range=(
            float("nan")
            if logs is None or off_log is None
            else _share(_largest(off_log) * scale, logs)
        ),
        error_relative=_largest(off / np.where(table == 0, 1.0, table)) * scale,
        basis="extrapolated" if decay < 1 else "measured",
        decay=decay,
    )


def spans_decades(values: Array) -> bool:
    """Whether values are positive and spread so far that their logarithm is the better picture."""
    return bool(values.size and values.min() > 0 and values.max() > LOG_SPAN * values.min())


def _largest(differences: Array) -> float:
    return float(np.abs(differences).max())


def _share(difference: float, values: Array) -> float:
    """A difference in units of the range of `values`; rounding in a constant is no difference."""
    scale, rounding = float(np.ptp(values)), 1e-12 * float(np.abs(values).max())
    if difference <= rounding:
        return 0.0
    return difference / scale if scale > rounding else 1.0


def _every_other(table: Array) -> Array:
    return table[(slice(None, None, 2),) * table.ndim]


def _from_below(table: Array, levels: Levels, level: int) -> Array:
    """The interpolant of the level below, at the points of `level`."""
    return _interpolate(_every_other(table), levels.grids(level - 1), levels.grids(level))


def _interpolate(table: Array, grids: Sequence[Array], to: Sequence[Array]) -> Array:
    """Tensor-product spline: cubic, of lower degree where there are fewer than 4 points."""
    for dimension, (grid, points) in enumerate(zip(grids, to, strict=True)):
        degree = min(3, len(grid) - 1)
        table = make_interp_spline(grid, table, k=degree, axis=dimension)(points)
    return table
