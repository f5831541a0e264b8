"""The largest rise in a ball, by projected ascent: a lower bound of the worst case."""

import itertools
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
EXTRA = 0.3  # of such a step, on top of it; found by trial
FULL = 32.0  # in units of rho: a step that forgets where it came from
SCREEN = 4  # steps after which the better of two ascents goes on; found by trial


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

    Croce and Hein (2020), algorithm 1, with normalised gradients, in the coordinates u, but for its
    first steps: they go all the way to the maximum of the linear model there, which never falls
    where the loss is convex and is a power iteration where it is quadratic; the first time that
    they fail, their steps of rho begin. Every 20 steps the schedule begins anew at the best point
    with half the step, so that more steps go on where fewer end, and never find less.
    """
    best, _ = _advance(_climb(around, ball, rho, start), steps, None)
    assert best is not None
    return best


def race(around: Around, ball: Ball, rho: float, starts: Sequence[Tensor], *, steps: int) -> Point:
    """The best point of `steps` gradients shared by ascents from several starts.

    Each gets 4 steps in its turn, then the best of them goes on: one start may lead into a lower
    summit (0.88 of the other on a small CNN), and it shows early.
    """
    ascents = [_climb(around, ball, rho, start) for start in starts]
    bests: list[Point] = []
    for ascent in ascents:
        turn = min(SCREEN, steps)
        best, spent = _advance(ascent, turn, None)
        steps -= spent
        if best is not None:
            bests.append(best)
    leading = max(range(len(bests)), key=lambda i: bests[i].rise)
    found, _ = _advance(ascents[leading], steps, bests[leading])
    assert found is not None
    return found


def _advance(ascent: Iterator[Point], steps: int, best: Point | None) -> tuple[Point | None, int]:
    """The best point of so many more steps, and the steps taken."""
    spent = 0
    while spent < steps and (best is None or math.isfinite(best.rise)):
        point = next(ascent, None)
        if point is None:
            break
        spent += 1
        if best is None or point.rise > best.rise:
            best = point
    return best, spent


def _climb(around: Around, ball: Ball, rho: float, start: Tensor) -> Iterator[Point]:
    """The points visited, each with one gradient, without an end."""
    best, slope_of_best = Point(start, -math.inf), start
    for turn in itertools.count():
        u = last = start if turn == 0 else best.u
        known = None if turn == 0 else (best.rise, slope_of_best)
        eta = FULL * rho if turn == 0 else 2 * rho / 2**turn
        successes, previous, halved, best_before, mark = 0, -math.inf, True, -math.inf, 0
        for k in range(ROUND):
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
                    eta, u, last = min(eta / 2, rho), best.u, best.u
                    slope, rise = slope_of_best, best.rise
            z = ball.project(u + ball.steepest(slope, eta), rho)
            momentum = MOMENTUM if k and eta <= 2 * rho else 1.0
            following = u + momentum * (z - u) + (1 - momentum) * (u - last)
            if k and eta > 2 * rho:
                following = z + EXTRA * (z - u)
            u, last, previous, known = ball.project(following, rho), u, rise, None


def worst(
    around: Around,
    ball: Ball,
    rho: float,
    *,
    starts: Sequence[Point],
    beside: Tensor,
    fresh: Callable[[], Iterator[Tensor]],
    steps: int,
) -> Point:
    """The largest rise found in the ball; a lower bound of the largest there is.

    Args:
        around: the loss around the centre.
        ball: of the perturbations.
        rho: its radius.
        starts: points of the ball with their rises; the best of them begins the race.
        beside: (P,) a random point, which begins it too.
        fresh: gives further starts (P,), from each of which another ascent begins.
        steps: gradients of the race, and of each further ascent.

    Returns:
        The best of all points seen, never below 0, the centre.
    """
    centre = Point(torch.zeros_like(around.theta), 0.0)
    best = max((centre, *starts), key=lambda point: point.rise)
    first = max(starts, key=lambda point: point.rise, default=None)
    if math.isfinite(best.rise):
        racing = [first.u, beside] if first else [beside]
        for each in (racing, *([u] for u in fresh())):
            found = race(around, ball, rho, each, steps=steps)
            if found.rise > best.rise:
                # Once more without the graph, so that all are compared by the same kernels.
                found = Point(found.u, around.rise(ball.stretch(found.u)))
                best = found if found.rise > best.rise else best
    return best
