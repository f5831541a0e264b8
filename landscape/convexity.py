"""Where the loss is convex: the ends of the Hessian's spectrum over a plane or along a line."""

import itertools
import math
from collections.abc import Generator, Mapping, Sequence

import torch
from torch import Tensor

from landscape import lanczos, nested, surface
from landscape.errors import UserError
from landscape.estimate import Estimate
from landscape.nested import Coordinates
from landscape.objective import Objective
from landscape.results import LAMBDA_MAX, LAMBDA_MIN, RATIO, RESIDUAL, Array
from landscape.surface import Estimates, Point

MOST_POINTS = 81  # a grid of 9 a side: each costs as much as tens of gradients
TOLERANCE = 1e-3  # of the residuals, as in `lanczos.Search`
NOTHING = Estimate(math.nan, math.nan, RESIDUAL)


def evaluate(
    objective: Objective,
    theta: Tensor,
    directions: Sequence[Tensor],
    *,
    axes: Sequence[Array],
    known: Mapping[Coordinates, Estimates],
    tolerance: float = 0.01,
    max_points: int = MOST_POINTS,
    seed: int = 0,
) -> Generator[Point, None, None]:
    """lambda_min / lambda_max of the Hessian over theta + alpha d1 + beta d2.

    Li et al. (2018), section 6 and figure 7: what a plane of two random directions shows of the
    curvature is a mean over all directions; this is its extremes. Nested grids as in
    `surface.evaluate`, on the points of the loss, while the error of the ratio is above the
    tolerance. Each point starts from the eigenvectors of the one before, its neighbour.

    Args:
        objective: what is evaluated; tens of Hessian-vector products a point.
        theta: (P,) the centre.
        directions: one or two vectors (P,), in units of the weights.
        axes: for each direction the grid points, in multiples of the direction.
        known: the points of the surface, and the curvature that an earlier run has found at some.
        tolerance: of the range of the ratio.
        max_points: stop before it is exceeded, with whatever error is reached.
        seed: of the random start of Lanczos' iteration.

    Yields:
        Each point as it is measured: both eigenvalues and their ratio, whose error is the
        residual, and the loss where `known` has none.

    Raises:
        UserError: the loss has no second derivatives, or no finite ones at the centre; a metric of
            the task has a name that is taken.
    """
    _refuse_names(known)
    ratios = {at: found[RATIO].mean for at, found in known.items() if RATIO in found}
    levels = nested.choose({at: found["loss"].mean for at, found in known.items()}, axes)
    ends = Ends(seed=seed)
    last: Coordinates = (0.0,) * len(axes)
    error = math.nan
    while todo := nested.plan(
        ratios, axes, tolerance=tolerance, max_evaluations=max_points, levels=levels
    ):
        planned = len(ratios) + len(todo)
        for place in _in_short_steps(todo, last):
            point = surface.at(theta, directions, place)
            fresh = {} if place in known else objective.evaluate(point)
            loss = (fresh or known[place])["loss"].mean
            found = ends.measure(objective, point) if math.isfinite(loss) else ends.unknown()
            if not any(place) and math.isnan(found[RATIO].mean):
                raise UserError(
                    "second derivatives are not finite at the checkpoint, though the loss is: "
                    "`landscape hessian` says more"
                )
            ratios[place] = found[RATIO].mean
            yield Point(place, {**fresh, **found}, len(ratios), planned, error, ends.products)
            last = place
        if level := nested.best_level(ratios, levels):
            error = nested.fit(ratios, levels, level).error


class Ends:
    """Both ends of the Hessian's spectrum at one point after the other, each warm-started.

    Memory: one vector of P between points, and a Krylov basis while it works.

    Attributes:
        products: with a vector, at the last point.
    """

    def __init__(self, *, seed: int = 0) -> None:
        """Nothing is known yet: the first point starts from a random vector of this `seed`."""
        self.seed, self.products = seed, 0
        self._start: Tensor | None = None

    def unknown(self) -> dict[str, Estimate]:
        """What there is to say of a point where nothing can be known."""
        self.products = 0
        return dict.fromkeys((LAMBDA_MAX, LAMBDA_MIN, RATIO), NOTHING)

    def measure(self, objective: Objective, theta: Tensor) -> dict[str, Estimate]:
        """The largest and the smallest eigenvalue at `theta` (P,), and their ratio.

        The ratio is lambda_min / lambda_max, but -1 where the negative end is the larger: it
        says how much of the largest curvature is downwards. NaN where derivatives are not finite.
        """
        product = objective.settled(theta).hessian(theta)
        generator = torch.Generator().manual_seed(self.seed)
        known, where = self._start, objective.space
        search = lanczos.Search(
            product,
            torch.zeros_like(theta) if known is None else lanczos.warm(known, generator, where),
            1,
            "both",
            generator=generator,
            tolerance=TOLERANCE,
            multiplicity=False,
            vectors=where,
        )
        try:
            for _ in search:
                pass
        except FloatingPointError:
            return self.unknown()
        pairs = search.pairs()
        self._start = search.close()
        self.products = product.products
        high, low = (
            Estimate(float(pairs.values[i]), float(pairs.residuals[i]), RESIDUAL) for i in (0, -1)
        )
        return {LAMBDA_MAX: high, LAMBDA_MIN: low, RATIO: _ratio(low, high)}


def _refuse_names(known: Mapping[Coordinates, Estimates]) -> None:
    for found in known.values():
        for name in (LAMBDA_MAX, LAMBDA_MIN, RATIO):
            if name in found and found[name].basis != RESIDUAL:
                raise UserError(
                    f"the task's metrics has an entry {name!r}, which is the name of an eigenvalue "
                    "here: give it another name, or leave out --curvature"
                )


def _ratio(low: Estimate, high: Estimate) -> Estimate:
    """The ratio low / high, at least -1, with the error that theirs can make of it."""
    scale = max(high.mean, -low.mean)
    if scale <= 0:  # no curvature at all
        return Estimate(0.0, 0.0, RESIDUAL)
    ratio = low.mean / scale
    return Estimate(ratio, (low.stderr + abs(ratio) * high.stderr) / scale, RESIDUAL)


def _in_short_steps(todo: Sequence[Coordinates], place: Coordinates) -> list[Coordinates]:
    """Places in an order in which each is close to the one before; the first is close to `place`.

    In units of the step between places along each axis.
    """
    rows = [sorted({at[axis] for at in todo}) for axis in range(len(place))]
    steps = [min((b - a for a, b in itertools.pairwise(row)), default=1.0) for row in rows]
    left, path = list(todo), []
    while left:
        here = place
        place = min(
            left,
            key=lambda at: sum(
                ((x - y) / step) ** 2 for x, y, step in zip(at, here, steps, strict=True)
            ),
        )
        left.remove(place)
        path.append(place)
    return path
