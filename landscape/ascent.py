"""The largest rise in a ball, by projected ascent: a lower bound of the worst case."""

import itertools
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.around import Around
from landscape.geometry import Ball
from landscape.vectors import Vectors

ROUND = 20  # gradients of the first ascent, and of every schedule of step sizes
CHECKPOINTS = (5, 9, 12, 15, 17, 19)  # Croce and Hein (2020), section 3.1, for 20 steps
MOMENTUM = 0.75
SUCCESSES = 0.75
REACH = (-3.0, 0.5)  # of a secant step, in units of the step before; found by trial
SCREEN = 5  # gradients after which the better of two ascents goes on; found by trial
AWAY, EXPLORING = 5, 12  # ascents away from what was found, gradients of each; found by trial
_TINY = torch.finfo(torch.float64).tiny


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
    if ball.length(u) > 0:
        return u
    beside = ball.sample(u, rho, generator)
    slope = ball.stretch(around.slope(beside, ball.scale)[1])
    u = ball.steepest(slope, rho) if math.isfinite(ball.length(slope)) else beside
    return u if ball.length(u) > 0 else beside


def worst(
    around: Around,
    ball: Ball,
    rho: float,
    *,
    starts: Sequence[Point],
    beside: Tensor,
    fresh: Iterable[Tensor],
    steps: int,
) -> Point:
    """The largest rise found in the ball; a lower bound of the largest there is.

    Args:
        around: the loss around the centre.
        ball: of the perturbations.
        rho: its radius.
        starts: points of the ball with their rises; the search begins at the best of them.
        beside: (P,) a random point, at which it begins too.
        fresh: further starts (P,), from each of which an ascent of 20 gradients begins.
        steps: gradients of the search.

    Returns:
        The best of all points seen, never below 0, the centre.
    """
    centre = Point(torch.zeros_like(around.theta), 0.0)
    best = max((centre, *starts), key=_rise)
    begin = [max(starts, key=_rise).u, beside] if starts else [beside]
    ascents = [itertools.islice(search(around, ball, rho, begin), steps)]
    more = (itertools.islice(climb(around, ball, rho, u), ROUND) for u in fresh)
    for points in itertools.chain(ascents, more):
        if math.isinf(best.rise):
            break
        found = _best(points)
        if found.rise > best.rise:
            # Once more without the graph, so that all are compared by the same kernels.
            found = Point(found.u, around.rise(found.u, ball.scale))
            best = max(best, found, key=_rise)
    return best


def search(around: Around, ball: Ball, rho: float, starts: Sequence[Tensor]) -> Iterator[Point]:
    """The points visited in search of the highest summit, each with one gradient, without an end.

    Each start gets 5 gradients, the better ascent 20 less those. Then follow five ascents of 12
    gradients away from what was found, from u = -rho s / |s| with s the sum of the summits so far,
    and 20 more of the best of all ascents; and again. Where a classifier is pushed far enough to
    give every example the same class, there is a summit for each class, in directions that are
    opposed more often than not: from random points, or from the SAM step, most ascents end on the
    same few of them, and the highest was up to 1.9 times as high as those.
    """
    ascents = [_Ascent(climb(around, ball, rho, start)) for start in starts]
    for ascent in ascents:
        yield from ascent.advance(SCREEN)
    leading = max(ascents, key=lambda ascent: ascent.best.rise)
    yield from leading.advance(ROUND - SCREEN * len(ascents))
    del ascents
    found = leading.best.u / rho
    while True:
        for _ in range(AWAY):
            other = _Ascent(climb(around, ball, rho, ball.steepest(-found, rho)))
            yield from other.advance(EXPLORING)
            found += other.best.u / rho
            if other.best.rise > leading.best.rise:
                leading = other
        yield from leading.advance(ROUND)


class _Ascent:
    """An ascent that goes on when asked, and remembers its best point."""

    def __init__(self, points: Iterator[Point]) -> None:
        self._points, self.best = points, Point(torch.empty(0), -math.inf)

    def advance(self, count: int) -> Iterator[Point]:
        for point in itertools.islice(self._points, count):
            self.best = max(point, self.best, key=_rise)
            yield point


def climb(around: Around, ball: Ball, rho: float, start: Tensor) -> Iterator[Point]:
    """The points of one ascent from `start` (P,), each with one gradient.

    Auto-PGD (Croce and Hein 2020, algorithm 1) with normalised gradients, in the coordinates u,
    but for its first steps. Those go to the maximum of the linear model, which never falls where
    the loss is convex and is a power iteration where it is quadratic, with a secant step along the
    last of them. When they fail for the first time, Auto-PGD begins at the best point, and every 20
    steps anew with half the step. Ends where the loss or its gradient is not finite.
    """
    best, uphill = Point(start, -math.inf), start
    u, before = start, None
    while True:
        point, slope = _look(around, ball, u)
        yield point
        if slope is None:
            return
        if point.rise <= best.rise:
            break
        best, uphill = point, slope
        target = ball.steepest(slope, rho)
        miss = target - u
        u = target if before is None else _secant(target, miss, *before, ball.vectors)
        u, before = ball.project(u, rho), (target, miss)
    del before
    for turn in itertools.count():
        found = yield from _auto_pgd(around, ball, rho, best, uphill, eta=2 * rho / 2**turn)
        if found is None:
            return
        best, uphill = found


def _secant(
    target: Tensor, miss: Tensor, last_target: Tensor, last_miss: Tensor, vectors: Vectors
) -> Tensor:
    """Where the fixed point of u -> target(u) would be if it were linear along the last step.

    Anderson mixing with a memory of one.
    """
    change = miss - last_miss
    along, square = (float(vectors.total(torch.dot(x, change))) for x in (miss, change))
    share = along / max(square, _TINY)
    return torch.lerp(target, last_target, min(max(share, REACH[0]), REACH[1]))


def _auto_pgd(
    around: Around, ball: Ball, rho: float, best: Point, uphill: Tensor, *, eta: float
) -> Generator[Point, None, tuple[Point, Tensor] | None]:
    """One schedule of step sizes from the best point, `uphill` (P,) its slope: the same after it.

    The 19 points between are looked at; None where the loss is not finite.
    """
    u = last = best.u
    rise, slope = best.rise, uphill
    successes, previous, halved, best_before, mark = 0, -math.inf, True, -math.inf, 0
    for k in range(ROUND):
        if k:
            point, seen = _look(around, ball, u)
            yield point
            if seen is None:
                return None
            rise, slope = point.rise, seen
            successes += rise > previous
            if rise > best.rise:
                best, uphill = point, slope
        if k in CHECKPOINTS:
            few = successes < SUCCESSES * (k - mark)
            stuck = not halved and best.rise == best_before
            halved, best_before, successes, mark = few or stuck, best.rise, 0, k
            if halved:
                eta, u, last = eta / 2, best.u, best.u
                rise, slope = best.rise, uphill
        z = ball.project(u + ball.steepest(slope, eta), rho)
        momentum = MOMENTUM if k else 1.0
        following = u + momentum * (z - u) + (1 - momentum) * (u - last)
        u, last, previous = ball.project(following, rho), u, rise
    return best, uphill


def _look(around: Around, ball: Ball, u: Tensor) -> tuple[Point, Tensor | None]:
    """The rise at u (P,) and its slope (P,), None where either is not finite; one gradient."""
    rise, gradient = around.slope(u, ball.scale)
    finite = math.isfinite(rise) and ball.vectors.finite(gradient)
    return Point(u, rise), ball.stretch(gradient) if finite else None


def _best(points: Iterable[Point]) -> Point:
    """The highest of them, or the first of an infinite rise."""
    best = Point(torch.empty(0), -math.inf)
    for point in points:
        best = max(point, best, key=_rise)
        if math.isinf(point.rise):
            break
    return best


def _rise(point: Point) -> float:
    return point.rise
