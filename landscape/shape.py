"""What a surface looks like around its centre: curvature, width, convexity."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from landscape.results import Array, Surface

RAYS = 72  # directions in which the width is looked for


@dataclass(frozen=True)
class Shape:
    """Numbers of one surface, in its own coordinates.

    Attributes:
        centre: loss at the origin.
        curvature: second derivatives of the loss at the origin along alpha and beta, from the
            neighbouring grid points; NaN where the origin has none on both sides.
        width: how far one can walk from the origin before the loss has risen by the rise asked
            about, the median over all directions in the plane; inf where most never get there.
        nearest: the same in the direction in which it rises first.
        convex: share of the inner cells at which the discrete Hessian is positive semi-definite.
        within: share of all cells below the rise.
    """

    centre: float
    curvature: tuple[float, float]
    width: float
    nearest: float
    convex: float
    within: float


def shape(surface: Surface, rise: float) -> Shape:
    """The numbers of a surface that is computed everywhere.

    Args:
        surface: with two directions, and the origin within its ranges.
        rise: of the loss, for the widths.

    Raises:
        ValueError: a line, cells without a value, or an origin outside.
    """
    alpha, beta, loss = surface.alpha, surface.beta, surface.loss.grid
    if beta is None or min(alpha.size, beta.size) < 3:
        raise ValueError("has no two directions with three points each")
    if np.isnan(loss).any():
        raise ValueError("has cells without a value")
    if not (alpha[0] <= 0 <= alpha[-1] and beta[0] <= 0 <= beta[-1]):
        raise ValueError("does not hold the centre")
    at = RegularGridInterpolator((alpha, beta), loss)
    centre = float(at((0.0, 0.0)))
    widths = np.array([_walk(at, alpha, beta, centre + rise, k) for k in range(RAYS)])
    along = (np.array([at((x, 0.0)) for x in alpha]), np.array([at((0.0, y)) for y in beta]))
    curvature = (_second(alpha, along[0]), _second(beta, along[1]))
    return Shape(
        centre=centre,
        curvature=curvature,
        width=float(np.median(widths)),
        nearest=float(widths.min()),
        convex=_convex(alpha, beta, loss),
        within=float((loss <= centre + rise).mean()),
    )


def _walk(
    at: RegularGridInterpolator, alpha: Array, beta: Array, level: float, number: int
) -> float:
    """Distance from the origin at which one ray first meets a level; inf within the plane."""
    angle = 2 * np.pi * number / RAYS
    way = np.array([np.cos(angle), np.sin(angle)])
    ends = [
        (axis[-1] if step > 0 else axis[0]) / step
        for axis, step in zip((alpha, beta), way, strict=True)
        if abs(step) > 1e-9
    ]
    distances = np.linspace(0.0, min(ends) * (1 - 1e-12), 2 * max(alpha.size, beta.size))
    losses = at(distances[:, None] * way)
    above = np.flatnonzero(losses >= level)
    if not above.size or above[0] == 0:
        return float("inf") if not above.size else 0.0
    k = int(above[0])
    share = (level - losses[k - 1]) / (losses[k] - losses[k - 1])
    return float(distances[k - 1] + share * (distances[k] - distances[k - 1]))


def _second(axis: Array, values: Array) -> float:
    """Second derivative at 0 of the parabola through the grid point nearest to it and two more."""
    k = int(np.abs(axis).argmin())
    if not 0 < k < axis.size - 1:
        return float("nan")
    near = slice(k - 1, k + 2)
    return float(2 * np.polyfit(axis[near], values[near], 2)[0])


def _convex(alpha: Array, beta: Array, loss: Array) -> float:
    a, b = np.gradient(loss, alpha, beta)
    aa, ab = np.gradient(a, alpha, beta)
    _, bb = np.gradient(b, alpha, beta)
    inner = (slice(1, -1), slice(1, -1))
    trace, product = (aa + bb)[inner], (aa * bb - ab**2)[inner]
    return float(((trace >= 0) & (product >= 0)).mean())
