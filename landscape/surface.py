"""The loss, and the metrics of the task, over a plane or along a line through a point."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from landscape import nested, ranks
from landscape.errors import UserError
from landscape.estimate import Estimate
from landscape.nested import Coordinates
from landscape.objective import Objective
from landscape.results import RESIDUAL, Array, Quantity, Status, Surface

Estimates = Mapping[str, Estimate]


@dataclass(frozen=True)
class Point:
    """One evaluation, as it is made.

    Attributes:
        at: (alpha,) or (alpha, beta).
        estimates: the loss and each metric.
        done: evaluations known, this one included.
        planned: evaluations in all if the present stage is the last.
        error: of the range as drawn, stated by the last complete level; NaN before there is one.
        products: with the Hessian, that it took.
    """

    at: Coordinates
    estimates: Estimates
    done: int
    planned: int
    error: float
    products: int = 0


def axis(low: float, high: float, count: int) -> Array:
    """`count` evenly spaced grid points, with an exact 0 where one falls on it.

    Raises:
        ValueError: not low < high, not finite, or count < 2.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low < high and count >= 2):
        raise ValueError(
            f"an axis needs finite low < high and 2 points, not {low}, {high}, {count}"
        )
    points = np.linspace(low, high, count)
    return np.where(np.abs(points) < 1e-12 * (high - low), 0.0, points)


def evaluate(
    objective: Objective,
    theta: Tensor,
    directions: Sequence[Tensor],
    *,
    axes: Sequence[Array],
    tolerance: float = 0.01,
    max_evaluations: int | None = None,
    known: Mapping[Coordinates, Estimates] | None = None,
) -> Generator[Point, None, Surface]:
    """The loss over theta + alpha d1 + beta d2, from as few evaluations as the tolerance needs.

    Li et al. (2018), section 4, for filter-normalised directions. Each point is computed afresh
    from theta, so nothing drifts. See `nested.plan` for which points are evaluated.

    Args:
        objective: what is evaluated; one pass over the data a point.
        theta: (P,) the centre.
        directions: one or two vectors (P,), in units of the weights.
        axes: for each direction the grid points, in multiples of the direction.
        tolerance: of the range of the loss as drawn; 0 evaluates every cell.
        max_evaluations: stop before it is exceeded, with whatever error is reached.
        known: points of an earlier run; they are not evaluated again.

    Yields:
        Each point as it is evaluated.

    Returns:
        The surface, or the line for one direction.

    Raises:
        UserError: the loss at the centre is not finite.
    """
    points = yield from sample(
        along(objective, theta, directions),
        axes,
        tolerance=tolerance,
        max_evaluations=max_evaluations,
        known=known,
    )
    return assemble(points, axes, tolerance=tolerance, complete=True)


def along(
    objective: Objective, theta: Tensor, directions: Sequence[Tensor]
) -> Callable[[Coordinates], Estimates]:
    """The loss and each metric as a function of the multiples of one or two directions (P,)."""
    theta, *directions = (vector.detach() for vector in (theta, *directions))
    point = torch.empty_like(theta)

    def values(place: Coordinates) -> Estimates:
        return objective.evaluate(at(theta, directions, place, out=point))

    return values


def at(
    theta: Tensor, directions: Sequence[Tensor], place: Coordinates, *, out: Tensor | None = None
) -> Tensor:
    """The point theta + alpha d1 + beta d2 (P,) of a place (alpha, beta); in `out`, if given."""
    out = torch.add(theta, directions[0], alpha=place[0], out=out)
    for direction, step in zip(directions[1:], place[1:], strict=True):
        out.add_(direction, alpha=step)
    return out


def finish(steps: Generator[Point, None, Surface]) -> Surface:
    """What `evaluate` returns, for those who do not look at its points on the way."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: Surface = stop.value
            return result


def sample(
    at: Callable[[Coordinates], Estimates],
    axes: Sequence[Array],
    *,
    tolerance: float,
    max_evaluations: int | None = None,
    known: Mapping[Coordinates, Estimates] | None = None,
    apart: bool = False,
) -> Generator[Point, None, dict[Coordinates, Estimates]]:
    """The points of any function of one or two coordinates that `evaluate` chooses.

    Args:
        at: the loss and each metric at a place.
        axes: the grid points along each coordinate.
        tolerance: of the range of the loss as drawn; 0 evaluates every cell.
        max_evaluations: stop before it is exceeded.
        known: points of an earlier run; they are not evaluated again.
        apart: several ranks share the points; else every rank has a part in each.

    Yields:
        Each point as it is evaluated.

    Returns:
        All points, the known ones included.

    Raises:
        UserError: the loss at the origin is not finite.
    """
    points = dict(known or {})
    error = float("nan")
    origin = (0.0,) * len(axes)
    if origin in points:
        _refuse_non_finite(points[origin]["loss"])
    while todo := nested.plan(
        _means(points, "loss"), axes, tolerance=tolerance, max_evaluations=max_evaluations
    ):
        planned = len(points) + len(todo)
        found = ranks.each(at, todo) if apart else map(at, todo)
        for place, estimates in zip(todo, found, strict=True):
            points[place] = estimates
            if place == origin:
                _refuse_non_finite(points[place]["loss"])
            yield Point(place, points[place], len(points), planned, error)
        losses = _means(points, "loss")
        if fit := _fit(losses, nested.choose(losses, axes)):
            error = fit.error
    return points


def _refuse_non_finite(loss: Estimate) -> None:
    if not np.isfinite(loss.mean):
        raise UserError(
            f"the loss at the checkpoint itself is {loss.mean}: check the weights, the data, and "
            "whether --dtype float64 helps"
        )


def _means(points: Mapping[Coordinates, Estimates], name: str) -> dict[Coordinates, float]:
    return {at: found[name].mean for at, found in points.items() if name in found}


def assemble(
    points: Mapping[Coordinates, Estimates],
    axes: Sequence[Array],
    *,
    tolerance: float,
    complete: bool,
) -> Surface:
    """The record of the points evaluated so far, which may be any part of a run.

    Evaluated cells hold exactly what was evaluated; the others are interpolated from the
    highest complete level, or are NaN if there is none. The loss is known at every point, other
    quantities may be known at some.
    """
    names = dict.fromkeys(name for estimates in points.values() for name in estimates)
    quantities = {name: _quantity(points, axes, name) for name in names}
    loss = quantities["loss"]
    at = np.array(list(points))
    exact = loss.error_basis == "none"
    error = loss.error_of_log_range if loss.log else loss.error_of_range
    return Surface(
        alpha=axes[0],
        beta=axes[1] if len(axes) > 1 else None,
        status=_status(points, loss.grid, axes),
        point_alpha=at[:, 0],
        point_beta=at[:, 1] if len(axes) > 1 else None,
        quantities=quantities,
        method="exact" if exact else "nested",
        tolerance=tolerance,
        converged=exact or bool(error <= tolerance),
        complete=complete,
        marker_beta=np.empty(0) if len(axes) > 1 else None,
    )


def _fit(values: Mapping[Coordinates, float], levels: nested.Levels) -> nested.Fit | None:
    level = nested.best_level(values, levels)
    return nested.fit(values, levels, level) if level else None


def _quantity(
    points: Mapping[Coordinates, Estimates], axes: Sequence[Array], name: str
) -> Quantity:
    values = _means(points, name)
    fit = _fit(values, nested.choose(_means(points, "loss"), axes))
    grid = np.full([len(axis) for axis in axes], np.nan) if fit is None else fit.grid
    if fit is not None and len(axes) == 1:
        grid = _through(values, axes[0], grid, fit.log)
    basis = next(e[name].basis for e in points.values() if name in e)
    if name != "loss" and all(0 <= value <= 1 for value in values.values()):
        grid = np.clip(grid, 0.0, 1.0)  # a share of the examples: ringing must not pass its ends
    if basis == RESIDUAL:  # ringing must not make a Hessian definite
        known = [value for value in values.values() if np.isfinite(value)]
        grid = np.clip(grid, min(known, default=np.nan), max(known, default=np.nan))
    evaluated, indices = _evaluated_cells(values, axes)
    grid[indices] = [values[at] for at in evaluated]
    exact = len(evaluated) == grid.size
    errors = (
        (fit.error_of_range, fit.error_of_log_range, fit.error_relative) if fit else (np.nan,) * 3
    )
    nothing = Estimate(np.nan, np.nan, basis)
    point, stderr = zip(
        *((e.mean, e.stderr) for e in (found.get(name, nothing) for found in points.values())),
        strict=True,
    )
    return Quantity(
        grid=grid,
        point=np.array(point),
        point_stderr=np.array(stderr),
        log=nested.spans_decades(grid[np.isfinite(grid)]) if exact or fit is None else fit.log,
        error_of_range=0.0 if exact else errors[0],
        error_of_log_range=0.0 if exact else errors[1],
        error_relative=0.0 if exact else errors[2],
        error_basis="none" if exact else fit.basis if fit else "unknown",
        stderr_basis=basis,
    )


def _through(values: Mapping[Coordinates, float], axis: Array, grid: Array, log: bool) -> Array:
    """A line (N,) from some of the points, bent so that it goes through all of them."""
    t, known = np.array(sorted((at[0], value) for at, value in values.items())).T
    scale, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    inside = np.isfinite(known) & np.isfinite(at := np.interp(t, axis, grid))
    with np.errstate(divide="ignore", invalid="ignore"):
        off = scale(known) - scale(at)
    inside &= np.isfinite(off)
    if inside.sum() < 2 or not off[inside].any():
        return grid
    bend = PchipInterpolator(t[inside], off[inside])
    bent: Array = back(scale(grid) + bend(np.clip(axis, *t[inside][[0, -1]])))
    return bent


def _evaluated_cells(
    points: Iterable[Coordinates], axes: Sequence[Array]
) -> tuple[list[Coordinates], tuple[Array, ...]]:
    """The points that are cells of the grid, and their indices along each axis."""
    lookups = [{float(x): i for i, x in enumerate(axis)} for axis in axes]
    cells = [p for p in points if all(x in found for x, found in zip(p, lookups, strict=True))]
    indices = (
        np.array([lookup[cell[axis]] for cell in cells], dtype=int)
        for axis, lookup in enumerate(lookups)
    )
    return cells, tuple(indices)


def _status(
    points: Mapping[Coordinates, Estimates], grid: Array, axes: Sequence[Array]
) -> NDArray[np.int8]:
    status = np.where(np.isnan(grid), Status.NOT_COMPUTED, Status.INTERPOLATED).astype(np.int8)
    evaluated, indices = _evaluated_cells(points, axes)
    finite = [np.isfinite(points[at]["loss"].mean) for at in evaluated]
    status[indices] = np.where(finite, Status.EVALUATED, Status.NON_FINITE)
    return status
