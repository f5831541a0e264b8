"""The loss along paths between two points, and the barriers on them."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from scipy.interpolate import PchipInterpolator

from landscape import nested, surface
from landscape.estimate import Estimate, PerExample, estimate
from landscape.nested import Coordinates
from landscape.path import Path
from landscape.results import Along, Array, Connection
from landscape.surface import Estimates, Point

NARROW = 1 / 32  # evaluations stand this near the highest one, on both sides
GAIN = 0.1  # of the tolerance: a top that is higher by less is not looked for
EVALUATIONS = 40  # of a path at most: 33 evenly spaced, and the rest for its tops
TOPS = 8  # evaluations spent at most on one top


@dataclass(frozen=True)
class Barriers:
    """The three barriers of one path; each with its standard error over examples.

    Attributes:
        chord: the largest loss above the straight line through the ends' losses.
        mean: the largest loss above the mean of the ends.
        larger: the largest loss above the larger end.
        t: of `chord`.
        top: t of the largest loss.
    """

    chord: Estimate
    mean: Estimate
    larger: Estimate
    t: float
    top: float


def profile(
    at: Callable[[float], Estimates],
    axis: Array,
    *,
    tolerance: float = 0.01,
    max_evaluations: int = EVALUATIONS,
    known: Mapping[Coordinates, Estimates] | None = None,
) -> Generator[Point, None, dict[Coordinates, Estimates]]:
    """Loss and metrics at chosen t, both ends included, looked at more closely at the top.

    Args:
        at: the loss and each metric at a place on the path.
        axis: ascending grid of t that holds 0 and 1.
        tolerance: of the range of the loss as drawn; 0 evaluates every grid point.
        max_evaluations: stop before it is exceeded; the ends are evaluated all the same.
        known: evaluations of an earlier run; they are not made again.

    Yields:
        Each evaluation as it is made.

    Returns:
        All evaluations, by (t,).
    """
    points = yield from surface.sample(
        lambda place: at(place[0]),
        [axis],
        tolerance=tolerance,
        max_evaluations=max_evaluations,
        known=known,
    )
    tries = 0
    while (t := _missing(points, tolerance, tries)) is not None:
        if t != 1.0 and len(points) >= max_evaluations:
            break
        tries += t != 1.0
        points[(t,)] = at(t)
        yield Point((t,), points[(t,)], len(points), len(points) + 1, float("nan"))
    return points


def _missing(points: Mapping[Coordinates, Estimates], tolerance: float, tries: int) -> float | None:
    """Where to look next: the far end, then around the two tops; None when nothing is missing."""
    if (1.0,) not in points:
        return 1.0
    t, loss = inside(points)
    if tries >= 2 * TOPS or not np.isfinite(loss).all():
        return None
    gain = GAIN * tolerance * float(np.ptp(loss))
    for height in (loss - chord(t, loss), loss):
        if (place := _nearer(t, height, gain)) is not None:
            return place
    return None


def inside(points: Mapping[Coordinates, Estimates]) -> tuple[Array, Array]:
    """Places and losses of the evaluations from t = 0 to 1, ascending."""
    chosen = sorted((at[0], e["loss"].mean) for at, e in points.items() if 0 <= at[0] <= 1)
    t, loss = np.array(chosen).T
    return t, loss


def chord(t: Array, loss: Array) -> Array:
    """The straight line through the losses at the first and the last t."""
    line: Array = (1 - t) * loss[0] + t * loss[-1]
    return line


def _nearer(t: Array, height: Array, gain: float) -> float | None:
    """The next place to evaluate near the highest one: half way to a neighbour, or the vertex."""
    top = int(height.argmax())
    around = [i for i in (top - 1, top + 1) if 0 <= i < len(t)]
    widest = max(around, key=lambda i: abs(t[i] - t[top]))
    if abs(t[widest] - t[top]) > NARROW:
        return float((t[widest] + t[top]) / 2)
    if len(around) < 2 or np.ptp(height[top - 1 : top + 2]) == 0:
        return None
    a, b, _ = np.polyfit(t[top - 1 : top + 2] - t[top], height[top - 1 : top + 2] - height[top], 2)
    if a >= 0 or -(b**2) / (4 * a) <= gain:
        return None
    place = float(t[top] - b / (2 * a))
    return place if t[top - 1] < place < t[top + 1] and place not in t else None


def barriers(
    losses: Callable[[float], PerExample], points: Mapping[Coordinates, Estimates]
) -> Barriers:
    """The barriers at the highest evaluations, with errors paired by example.

    Args:
        losses: totals and weights (N,) of the loss of each example at a place on the path.
        points: evaluations, both ends among them.
    """
    t, loss = inside(points)
    above = int((loss - chord(t, loss)).argmax())
    top = int(loss.argmax())
    first, last = losses(0.0), losses(1.0)
    larger = first if loss[0] >= loss[-1] else last

    def over(index: int, share: float) -> Estimate:
        """The loss at one place above a mix of the ends, `share` of it the last."""
        here = {0: first, len(t) - 1: last}.get(index) or losses(float(t[index]))
        below = (1 - share) * first.total + share * last.total
        return estimate(here._replace(total=here.total - below))

    return Barriers(
        chord=over(above, float(t[above])),
        mean=over(top, 0.5),
        larger=over(top, 0.0 if larger is first else 1.0),
        t=float(t[above]),
        top=float(t[top]),
    )


@dataclass(frozen=True)
class Found:
    """One path with everything known of it.

    Attributes:
        name: of the path.
        path: through weight space.
        points: evaluations by (t,).
        barriers: None before they are known.
        gradients: spent on finding the path.
        about: how it was found, in a line.
    """

    name: str
    path: Path
    points: Mapping[Coordinates, Estimates]
    barriers: Barriers | None
    gradients: int = 0
    about: str = ""


def assemble(
    found: Sequence[Found],
    axis: Array,
    own: Mapping[str, Sequence[float]],
    *,
    tolerance: float,
    complete: bool,
    names: tuple[str, str],
) -> Connection:
    """The record of the paths found so far.

    Args:
        found: the paths, each with some evaluations.
        axis: grid of t.
        own: each quantity at both ends, with the checkpoints' own buffers.
        tolerance: that was asked for.
        complete: nothing is missing.
        names: of the checkpoints.
    """
    lines = [
        surface.assemble(f.points, [axis], tolerance=tolerance, complete=complete) for f in found
    ]
    shapes = [_shape(f, line.loss.grid, axis) for f, line in zip(found, lines, strict=True)]
    columns: dict[str, Any] = {
        name: np.array([shape[name] for shape in shapes]) for name in shapes[0]
    }
    errors = [
        line.loss.error_of_log_range if line.loss.log else line.loss.error_of_range
        for line in lines
    ]
    quantities = {
        name: Along(
            value=np.array([_values(f, name, axis) for f in found])
            if name != "loss"
            else np.array([line.loss.grid for line in lines]),
            stderr=np.array([_stderr(f, name, axis) for f in found]),
            point=np.concatenate([line.quantities[name].point for line in lines]),
            point_stderr=np.concatenate([line.quantities[name].point_stderr for line in lines]),
            own=np.array(own[name], dtype=float),
        )
        for name in lines[0].quantities
    }
    return Connection(
        path=tuple(f.name for f in found),
        t=axis,
        quantities=quantities,
        point_path=np.repeat(np.arange(len(found)), [len(f.points) for f in found]),
        point_t=np.concatenate([line.point_alpha for line in lines]),
        error=np.array(errors),
        gradients=np.array([f.gradients for f in found]),
        about=tuple(f.about for f in found),
        names=names,
        tolerance=tolerance,
        complete=complete,
        **columns,
    )


def _values(found: Found, name: str, axis: Array) -> Array:
    """One quantity beside the loss, interpolated without overshooting (Fritsch, Carlson 1980)."""
    known = sorted((at[0], e[name].mean) for at, e in found.points.items())
    t, values = np.array(known).T
    if len(t) < 2 or not np.isfinite(values).all():
        return np.asarray(np.interp(axis, t, values, left=np.nan, right=np.nan))
    log = name.startswith("loss") and nested.spans_decades(values)
    grid = PchipInterpolator(t, np.log(values) if log else values, extrapolate=False)(axis)
    return np.asarray(np.exp(grid) if log else grid)


def _stderr(found: Found, name: str, axis: Array) -> Array:
    """Standard errors of one quantity, interpolated to the grid."""
    known = sorted((at[0], e[name].stderr) for at, e in found.points.items())
    t, errors = np.array(known).T
    between: Array = np.interp(axis, t, errors)
    return between


def _shape(found: Found, grid: Array, axis: Array) -> dict[str, float]:
    """The numbers of one path; NaN for what is not known yet."""
    t, loss = inside(found.points)
    names = ("barrier", "barrier_mean", "barrier_max")
    numbers = {f"{name}{end}": np.nan for name in names for end in ("", "_stderr")}
    ties = np.array([np.nan])
    if found.barriers is not None:
        values = (found.barriers.chord, found.barriers.mean, found.barriers.larger)
        for name, value in zip(names, values, strict=True):
            numbers |= {name: value.mean, f"{name}_stderr": value.stderr}
        excess = loss - chord(t, loss)
        near = excess >= excess.max() - np.nan_to_num(found.barriers.chord.stderr)
        ties = t[near]
    unit = (axis >= 0) & (axis <= 1)
    speed, between = found.path.speed(axis[unit]), grid[unit]
    return {
        **numbers,
        "barrier_t": np.nan if found.barriers is None else found.barriers.t,
        "barrier_t_low": float(ties[0]),
        "barrier_t_high": float(ties[-1]),
        "highest": float(loss.max()),
        "highest_t": float(t[loss.argmax()]),
        "lowest": float(loss.min()),
        "mean": _weighted_mean(between, speed, axis[unit]),
        "length": found.path.length(),
    }


def _weighted_mean(values: Array, speed: Array, t: Array) -> float:
    """The mean over the length of a path; the plain one where it has none."""
    weight = speed if speed.any() else np.ones_like(speed)
    return float(trapezoid(values * weight, t) / trapezoid(weight, t))
