"""How far interpolated surfaces are from exact ones, and what the tool states of it.

Trains eight networks on digits, evaluates each 51x51 surface cell by cell, and compares what
`landscape surface` makes of far fewer evaluations, and polynomials on as many Clenshaw-Curtis
points. About four minutes on two cores:

    python benchmarks/interpolation.py
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from networks import NETWORKS, objective, trained
from scipy.interpolate import BarycentricInterpolator

from landscape import directions, nested, surface

SIDE = 51


def main() -> None:
    rows = [(name, seed) for name in NETWORKS for seed in (0, 1 if "MLP" not in name else 0)]
    print(f"51x51 cells; errors in % of the range of the loss as drawn\n{HEADER}")
    for name, seed in dict.fromkeys(rows):
        compare(f"{name}, seed {seed}", trained(NETWORKS[name], seed=seed))


HEADER = (
    f"{'network':28s}{'scale':>7s}{'evaluations':>12s}{'stated':>8s}{'true':>7s}{'stated/true':>12s}"
    f"{'17x17 spline':>14s}{'17x17 polynomial':>18s}"
)


def compare(name: str, net: torch.nn.Module) -> None:
    """Print one line: stated and true errors, and those of both interpolants of 289 points."""
    target = objective(net)
    theta = target.theta()
    generator = torch.Generator().manual_seed(0)
    plane = [directions.random(target.space, theta, generator) for _ in range(2)]
    axes = [surface.axis(-1, 1, SIDE)] * 2

    seen: dict[tuple[float, ...], float] = {}

    def loss(at: tuple[float, ...]) -> float:
        if at not in seen:
            seen[at] = target.loss(theta + at[0] * plane[0] + at[1] * plane[1])
        return seen[at]

    exact = np.array([[loss((float(a), float(b))) for b in axes[1]] for a in axes[0]])
    log = nested.spans_decades(exact)
    scale = np.log if log else np.asarray
    values: dict[tuple[float, ...], float] = {}
    while todo := nested.plan(values, axes, tolerance=0.01):
        values |= {at: loss(at) for at in todo}
    levels = nested.choose(values, axes)
    found = nested.fit(values, levels, min(nested.best_level(values, levels), 4))
    full = {at: loss(at) for at in levels.points(4)}
    spline = nested.fit(full, levels, 4).grid
    true, stated = share(found.grid, exact, scale), found.error
    print(
        f"{name:28s}{'log' if log else 'linear':>7s}{len(values):12d}"
        f"{100 * stated:8.2f}{100 * true:7.2f}"
        f"{stated / true:12.1f}{100 * share(spline, exact, scale):14.2f}"
        f"{100 * share(polynomial(loss, axes, scale), exact, scale):18.2f}",
        flush=True,
    )


def polynomial(loss, axes, scale):
    """The interpolant of 17x17 Clenshaw-Curtis points on the grid."""
    points = -np.cos(np.pi * np.arange(17) / 16)
    points[8] = 0.0
    table = scale(np.array([[loss((float(a), float(b))) for b in points] for a in points]))
    table = BarycentricInterpolator(points, table)(axes[0])
    grid = BarycentricInterpolator(points, table.T)(axes[1]).T
    return np.exp(grid) if scale is np.log else grid


def share(grid, exact, scale) -> float:
    """The largest error in units of the range."""
    return float(np.abs(scale(grid) - scale(exact)).max() / np.ptp(scale(exact)))


if __name__ == "__main__":
    main()
