"""The largest rise in a ball, by projected ascent: a lower bound of the worst case."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.around import Around
from landscape.geometry import Ball

ROUND = 20  # steps after which the step size begins anew
CHECKPOINTS = (5, 9, 12, 15, 17, 19)  # Croce and Hein (2020), section 3.1, for 20 steps
MOMENTUM = 0.75
SUCCESSES = 0.75


@dataclass(frozen=True)
class Point:
    """A perturbation of the ball, e = scale * u, and the mean rise there."""

    u: Tensor  # (P,)
    rise: float


def step(around: Around, ball: Ball, rho: float, generator: torch.Generator) -> Tensor:
    """U (P,) of one ascent step: the maximum over the ball of the loss made linear.

    u = rho D g / |D g|, D the scale of the ball (Foret et al. 2021, eq. 2; Kwon et al. 2021,
    eq. 5). Where the gradient is 0, that of a random point beside the centre.
    """
    u = ball.steepest(ball.stretch(around.gradient), rho)
    if bool(u.any()):
        return u
    beside = ball.sample(u, rho, generator)
    slope = ball.stretch(around.slope(ball.stretch(beside))[1])
    u = ball.steepest(slope, rho) if bool(slope.isfinite().all()) else beside
    return u if bool(u.any()) else beside


def climb(around: Around, ball: Ball, rho: float, start: Tensor, *, steps: int) -> Point:
    """The best point of `steps` steps of Auto-PGD from `start` (P,); as many gradients.

    Croce and Hein (2020), algorithm 1, with normalised gradients, in the coordinates u. Every 20
    steps the schedule begins anew at the best point with half the step, so that more steps go on
    where fewer end, and never find less.
    """
    best: Point | None = None
    for point in _climb(around, ball, rho, start, steps):
        if best is None or point.rise > best.rise:
            best = point
        if not math.isfinite(best.rise):
            break
    assert best is not None
    return best


def _climb(around: Around, ball: Ball, rho: float, start: Tensor, steps: int) -> Iterator[Point]:
    """The points visited, each with one gradient."""
    best, slope_of_best, eta = Point(start, -math.inf), start, 2 * rho
    for first in range(0, steps, ROUND):
        u = last = start if first == 0 else best.u
        known = None if first == 0 else (best.rise, slope_of_best)
        eta = 2 * rho / 2 ** (first // ROUND)
        successes, previous, halved, best_before = 0, -math.inf, True, -math.inf
        mark = 0
        for k in range(min(ROUND, steps - first)):
            if known is None:
                rise, gradient = around.slope(ball.stretch(u))
                yield Point(u, rise)
                if not math.isfinite(rise) or not bool(gradient.isfinite().all()):
                    return
                known = rise, ball.stretch(gradient)
            rise, slope = known
            successes += rise > previous
            if rise > best.rise:
                best, slope_of_best = Point(u, rise), slope
            if k in CHECKPOINTS:
                few = successes < SUCCESSES * (k - mark)
                stuck = not halved and best.rise == best_before
                halved, best_before, successes, mark = few or stuck, best.rise, 0, k
                if halved:
                    eta, u, last, slope, rise = eta / 2, best.u, best.u, slope_of_best, best.rise
            z = ball.project(u + ball.steepest(slope, eta), rho)
            momentum = MOMENTUM if k else 1.0
            following = u + momentum * (z - u) + (1 - momentum) * (u - last)
            u, last, previous, known = ball.project(following, rho), u, rise, None


def worst(
    around: Around,
    ball: Ball,
    rho: float,
    *,
    starts: Sequence[Point],
    fresh: Callable[[], Iterator[Tensor]],
    steps: int,
) -> Point:
    """The largest rise found in the ball; a lower bound of the largest there is.

    Args:
        around: the loss around the centre.
        ball: of the perturbations.
        rho: its radius.
        starts: points of the ball with their rises; the ascent begins at the best of them.
        fresh: gives further starts (P,), from each of which another ascent begins.
        steps: gradients of each ascent.

    Returns:
        The best of all points seen, never below 0, the centre.
    """
    centre = Point(torch.zeros_like(around.theta), 0.0)
    best = max((centre, *starts), key=lambda point: point.rise)
    first = max(starts, key=lambda point: point.rise, default=None)
    if steps and math.isfinite(best.rise):
        for u in (*([first.u] if first else []), *fresh()):
            found = climb(around, ball, rho, u, steps=steps)
            if found.rise > best.rise:
                # Once more without the graph, so that all are compared by the same kernels.
                found = Point(found.u, around.rise(ball.stretch(found.u)))
                best = found if found.rise > best.rise else best
    return best
