"""The spectral density of a matrix as a curve, from the nodes of its quadrature."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SHARE = 1 / 60  # of the range of the bulk: the kernel's width; found by trial
PER_WIDTH = 3  # grid points for each width, which integrate a Gaussian to 1e-7
REACH = 6 * PER_WIDTH  # grid points to each side of a node
MOST = 20_000  # grid points of an even grid: a narrower kernel is widened
FLOOR = 1e-6  # of the largest |value|: the linear part of the logarithmic axis


@dataclass(frozen=True)
class Nodes:
    """Gauss quadrature of the spectral density, one rule per random vector (Golub and Welsch).

    The density of A is that of `known`, 1/P each, and (P - n)/P times the mean over the rules.
    """

    known: Array  # (n,) Ritz values of the eigenspace taken exactly
    values: tuple[Array, ...]  # for each random vector its Ritz values
    weights: tuple[Array, ...]  # of these; they sum to 1
    size: int  # P


@dataclass(frozen=True)
class Density:
    """A density of eigenvalues that integrates to 1, and its mean is trace / P."""

    grid: Array  # (G,) eigenvalues, unevenly spaced
    density: Array  # (G,) per unit of the eigenvalue
    stderr: Array  # (G,) over the random vectors; NaN for one
    width: float  # of the Gaussian kernel: of the eigenvalue, or of the decades
    linear_below: float  # 0, or the |eigenvalue| above which the axis is logarithmic
    bulk: tuple[float, float]  # quantiles .01 and .99 of the eigenvalues


def curve(nodes: Nodes, *, log: bool = False, width: float | None = None) -> Density:
    """The density smoothed by a Gaussian kernel (Lin, Saad and Yang 2016, section 3.1).

    Args:
        nodes: of the quadrature.
        log: smooth over asinh(value / c) / ln 10, decades on both sides of zero; c is 1e-6 of
            the largest |value|.
        width: of the kernel, in eigenvalues or in decades; by default 1/60 of the range of the
            nodes (widened where the grid would exceed 20,000 points), or 0.1 decades.

    Raises:
        ValueError: no nodes, or a width that is not positive.
    """
    every = np.concatenate([nodes.known, *nodes.values])
    if not every.size or (width is not None and not width > 0):
        raise ValueError(f"{every.size} nodes and width {width}: both must be positive")
    largest = float(np.abs(every).max()) or 1.0
    c = FLOOR * largest if log else 0.0
    if width is None:
        bulk = np.concatenate(nodes.values) if nodes.values else every
        width = 0.1 if log else max(SHARE * np.ptp(bulk), np.ptp(every) / MOST, 1e-9 * largest)
    # E[sinh(u + n)] = sinh(u) exp(var n / 2): less by that, so that the mean is kept.
    less = np.exp(-((width * np.log(10)) ** 2) / 2)
    across = (lambda x: np.arcsinh(less * x / c) / np.log(10)) if log else np.asarray
    back = (lambda x: c * np.sinh(x * np.log(10))) if log else np.asarray
    step = width / PER_WIDTH
    grid = _grid(across(every) / step) * step
    known = _kernels(grid, across(nodes.known), np.ones(len(nodes.known)), width) / nodes.size
    share = 1 - len(nodes.known) / nodes.size
    rules = [
        share * _kernels(grid, across(values), weights, width)
        for values, weights in zip(nodes.values, nodes.weights, strict=True)
    ] or [np.zeros_like(grid)]
    values = back(grid)
    slope = np.hypot(values, c) * np.log(10) if log else 1.0  # of the value along the axis
    stderr = np.full_like(grid, np.nan)
    if len(rules) > 1:
        stderr = np.std(rules, axis=0, ddof=1) / np.sqrt(len(rules)) / slope
    return Density(
        grid=values,
        density=(known + np.mean(rules, axis=0)) / slope,
        stderr=stderr,
        width=float(width),
        linear_below=c,
        bulk=_quantiles(nodes),
    )


def _grid(at: Array) -> Array:
    """Whole numbers around each of `at`: where there is no node there is no density."""
    near = np.arange(-REACH, REACH + 1)
    grid: Array = np.unique(np.rint(at)[:, None] + near).astype(np.float64)
    return grid


def _kernels(grid: Array, at: Array, weights: Array, width: float) -> Array:
    """Sum of Gaussians of area `weights` at the nodes `at`."""
    total = np.zeros_like(grid)
    for x, weight in zip(at, weights, strict=True):
        reach = REACH * width / PER_WIDTH
        first, last = np.searchsorted(grid, (x - reach, x + reach))
        near = (grid[first:last] - x) / width
        total[first:last] += weight * np.exp(-near * near / 2)
    total /= width * np.sqrt(2 * np.pi)
    return total


def _quantiles(nodes: Nodes) -> tuple[float, float]:
    """Eigenvalues below which 1 % and 99 % of all lie, by the mean over the rules."""
    share = (1 - len(nodes.known) / nodes.size) / max(1, len(nodes.values))
    weights = [np.full(len(nodes.known), 1 / nodes.size), *(share * w for w in nodes.weights)]
    values = np.concatenate([nodes.known, *nodes.values])
    order = np.argsort(values)
    # Half of a node's mass lies on each side of it.
    mass = np.concatenate(weights)[order]
    below = np.cumsum(mass) - mass / 2
    low, high = np.interp((0.01, 0.99), below, values[order])
    return float(low), float(high)
