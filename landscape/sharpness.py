"""The rise of the loss within radius rho of a point, in its standard definitions."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape import ascent, geometry, lanczos, ranks
from landscape.around import Around, Rounding, mean
from landscape.ascent import Point
from landscape.estimate import PerExample, estimate
from landscape.geometry import Ball
from landscape.objective import Objective
from landscape.quadratic import Model
from landscape.recipe import MEASURES, TENSOR, Plan, Recipe
from landscape.space import WeightSpace

VISIBLE = 0.01  # share of a rise at which its rounding counts
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Found:
    """One measure at one radius.

    Attributes:
        rises: (N,) paired per example; for an average over the perturbations.
        point: the perturbation of the largest rise seen, with that rise.
        pairs: mean rise of each pair of perturbations, for an average.
        rounding: error of the mean rise by rounding; NaN where it is not known.
    """

    measure: str
    rho: float
    rises: PerExample
    point: Point
    pairs: tuple[float, ...] = ()
    rounding: float = float("nan")
    gradients: int = 0
    forwards: int = 0


@dataclass(frozen=True)
class Group:
    """One group of m examples: means over its examples."""

    loss: float
    rise: float  # inf where the loss of a perturbed example is not finite
    metrics: Mapping[str, float]
    examples: int
    weight: float


def per_group(
    objective: Objective,
    theta: Tensor,
    groups: Iterable[Objective],
    *,
    measure: str,
    norm: str,
    rho: float,
    recipe: Recipe | None = None,
) -> Iterator[Group]:
    """The rise of each group of examples, each with a perturbation of its own (m-sharpness).

    Foret et al. (2021), section 4.1. Lazy: stopping early costs nothing further. A `sam` costs
    one gradient and two forwards of the group.

    Args:
        objective: the mean loss over all examples; gives the space of the ball.
        theta: (P,) the point.
        groups: `groups.Groups`, or the first few of them.
        measure: one of `MEASURES`.
        norm: one of `geometry.NORMS`; "tensor" for `random`.
        rho: radius.
        recipe: how; the default one if None.

    Raises:
        UserError: the loss of a group is not finite at `theta`.
        ValueError: an unknown name, or rho not positive.
    """
    recipe = recipe or Recipe()
    _check(measure, norm, rho)
    ball = None if measure == "random" else recipe.ball(objective, theta, norm)
    # Groups are small: a rank has whole ones.
    yield from ranks.each(lambda group: _group(group, theta, ball, measure, rho, recipe), groups)


def _group(
    group: Objective, theta: Tensor, ball: Ball | None, measure: str, rho: float, recipe: Recipe
) -> Group:
    """One group; what its perturbation took in memory is free again."""
    around = Around(group, theta)
    if ball is None:
        found = trials(around, rho, recipe)
    else:
        (found,) = rises(around, ball, (measure,), [rho], recipe=recipe)
    return Group(
        loss=around.loss,
        rise=mean(found.rises),
        metrics={name: estimate(values).mean for name, values in around.metrics.items()},
        examples=around.base.total.numel(),
        weight=float(around.base.weight.sum()),
    )


def _check(measure: str, norm: str, rho: float) -> None:
    norms = (TENSOR,) if measure == "random" else geometry.NORMS
    if measure not in MEASURES or norm not in norms:
        raise ValueError(
            f"measure {measure!r} with norm {norm!r}: the measures are {', '.join(MEASURES)}, the "
            f"norms of {measure!r} {', '.join(norms)}"
        )
    if not 0 < rho < math.inf:
        raise ValueError(f"rho {rho} must be positive and finite")


def rises(
    around: Around,
    ball: Ball,
    measures: Iterable[str],
    rhos: Iterable[float],
    *,
    recipe: Recipe,
    rounding: Rounding | None = None,
    guide: Model | None = None,
) -> Iterator[Found]:
    """`sam`, `average` and `worst`, those asked for, at every radius, radii ascending.

    `worst` begins at the best of: the SAM step, the perturbations of the average, the optimum of
    the radius before and its extension to this one, and the optimum of the quadratic model; so it
    is never below any of them.

    Args:
        around: the loss around the point.
        ball: of the perturbations.
        measures: some of `MEASURES`.
        rhos: radii.
        recipe: how.
        rounding: measures the error of each rise; None does not.
        guide: the quadratic model of the ball.
    """
    below: Point | None = None
    for rho in sorted(rhos):
        seen: list[Point] = [below] if below else []
        for measure in [m for m in ("sam", "average", "worst") if m in measures]:
            gradients, forwards = around.gradients, around.forwards
            if measure == "sam":
                found = _sam(around, ball, rho, recipe, rounding)
            elif measure == "average":
                found = _average(around, ball, rho, recipe, rounding)
            else:
                predictions = guide.predictions if guide else ()
                starts = [p.u for p in predictions if p.rho == rho]
                if below:
                    starts = [*starts, below.u * (rho / max(ball.size(below.u), _TINY))]
                if "sam" not in measures:
                    starts = [*starts, ascent.step(around, ball, rho, recipe.generator())]
                known = [*seen, *(Point(u, around.rise(u, ball.scale)) for u in starts)]
                top = guide.top * rho if guide and recipe.from_top else None
                found = _worst(around, ball, rho, recipe, known, rounding, top)
                below = found.point
            seen.append(found.point)
            yield replace(
                found,
                gradients=around.gradients - gradients,
                forwards=around.forwards - forwards,
            )
            del found  # its perturbation is no longer needed once `seen` begins anew
        del seen


def rounding_visible(objective: Objective, theta: Tensor, plan: Plan) -> float | None:
    """The share of rounding in a rise at the smallest radius, if it is above 1 %; else None.

    Measured on the first batch, for a SAM step and, where an average is asked for, for a pair of
    random perturbations in each norm: float64 forwards beside those of the objective.
    """
    first = objective.over([next(iter(objective.batches))])
    around = Around(first, theta)
    rounding = Rounding(around)
    measures = ("sam", "average") if "average" in plan.measures else ("sam",)
    recipe = replace(plan.recipe, draws=2)
    largest = 0.0
    for norm in plan.norms if plan.in_balls else ():
        ball = recipe.ball(objective, theta, norm)
        tried = rises(around, ball, measures, plan.rhos[:1], recipe=recipe, rounding=rounding)
        for found in tried:
            rise = abs(mean(found.rises))
            if found.rounding > 0:
                largest = max(largest, found.rounding / rise if rise > 0 else math.inf)
    return largest if largest > VISIBLE else None


def _sam(
    around: Around, ball: Ball, rho: float, recipe: Recipe, rounding: Rounding | None
) -> Found:
    """The rise after one ascent step."""
    u = ascent.step(around, ball, rho, recipe.generator())
    return _at("sam", around, ball, rho, u, rounding)


def _at(
    measure: str, around: Around, ball: Ball, rho: float, u: Tensor, rounding: Rounding | None
) -> Found:
    found = around.rises(u, ball.scale)
    error = abs(rounding.error(u, found, ball.scale)) if rounding else float("nan")
    return Found(measure, rho, found, Point(u, mean(found)), rounding=error)


def _average(
    around: Around, ball: Ball, rho: float, recipe: Recipe, rounding: Rounding | None
) -> Found:
    """The mean over random perturbations, in pairs e and -e, uniform on the sphere |u| = rho.

    The pairs take out what is linear in e. In the maximum norm u is uniform in the box. Two vectors
    are alive at once: u and theta + e.
    """
    generator = recipe.generator()
    total = torch.zeros_like(around.base.total)
    states: list[Tensor] = []  # of the generator: cheaper than to keep every perturbation
    values: list[float] = []
    errors: list[float] = []
    for _ in range(recipe.draws // 2):
        states.append(generator.get_state())
        u = ball.sample(around.theta, rho, generator)
        for _ in range(2):
            found = around.rises(u, ball.scale)
            total += found.total / recipe.draws
            values.append(mean(found))
            if rounding and len(errors) < 2:
                errors.append(rounding.error(u, found, ball.scale))
            u.neg_()
        del u  # before the next is drawn
    largest = max(range(len(values)), key=values.__getitem__)
    generator.set_state(states[largest // 2])
    u = ball.sample(around.theta, rho, generator)
    return Found(
        measure="average",
        rho=rho,
        rises=PerExample(total, around.base.weight, around.base.basis),
        point=Point(u.neg_() if largest % 2 else u, values[largest]),
        pairs=tuple((a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=True)),
        rounding=abs(sum(errors)) / 2 if errors else float("nan"),
    )


def _worst(
    around: Around,
    ball: Ball,
    rho: float,
    recipe: Recipe,
    known: list[Point],
    rounding: Rounding | None,
    top: Tensor | None,
) -> Found:
    """The largest rise that is found from the best of the `known` points."""
    generator = recipe.generator()
    generator.manual_seed(recipe.seed + 1)  # not the perturbations of the average again
    beside = ball.sample(around.theta, rho, generator)

    def fresh() -> Iterator[Tensor]:
        if top is not None:
            yield from (top, -top)
        for _ in range(recipe.restarts):
            yield ball.sample(around.theta, rho, generator)

    best = ascent.worst(
        around, ball, rho, starts=known, beside=beside, fresh=fresh(), steps=recipe.steps
    )
    return _at("worst", around, ball, rho, best.u, rounding)


def trials(around: Around, rho: float, recipe: Recipe, rounding: Rounding | None = None) -> Found:
    """The largest of random trials, as a common snippet has it.

    p += rho |p| z for each parameter tensor p, z ~ N(0, I): |e| of a tensor of n entries is about
    rho |p| sqrt(n), which is no ball of radius rho. With `random_scale` "norm", z is divided by
    its norm and |e| = rho |p|. Every parameter moves.
    """
    generator = recipe.generator()
    gradients, forwards = around.gradients, around.forwards
    best: Found | None = None
    for _ in range(recipe.trials):
        e = noise(around.objective.space, around.theta, rho, generator, recipe.random_scale)
        found = around.rises(e)
        if best is None or mean(found) > best.point.rise:
            best = Found("random", rho, found, Point(e, mean(found)))
    assert best is not None
    return replace(
        best,
        rounding=abs(rounding.error(best.point.u, best.rises)) if rounding else float("nan"),
        gradients=around.gradients - gradients,
        forwards=around.forwards - forwards,
    )


def noise(
    space: WeightSpace, theta: Tensor, rho: float, generator: torch.Generator, scale: str
) -> Tensor:
    """E (P,): rho |p| z for each tensor p, drawn in its own shape, one after the other."""
    e = torch.zeros_like(theta)
    weights = space.unravel(theta)
    for name, piece in space.unravel(e).items():
        z = torch.randn(piece.shape, generator=generator).to(piece)
        length = float(lanczos.norm(weights[name].flatten()))
        if scale == "norm":
            length /= max(float(lanczos.norm(z.flatten())), _TINY)
        piece.copy_(z * (rho * length))
    return e
