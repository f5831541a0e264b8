"""What each analysis will take, in passes over the data and in vectors, before it is begun.

Counts that depend on the network come as a usual range: of the demo's networks and the benchmarks'.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from landscape.hessian import Settings
    from landscape.policy import Policy
    from landscape.recipe import Plan

    from .options_connect import Looking, Paths
    from .options_plane import Directions

SEARCH = (5, 60)  # products for an eigenvalue
KESKAR = (20, 100)  # gradients for one box


class Range(NamedTuple):
    """From the least to the most that is usual."""

    least: float = 0
    most: float = 0

    def times(self, factor: float) -> "Range":
        """So many times as much."""
        return Range(self.least * factor, self.most * factor)


NONE = Range()


@dataclass(frozen=True)
class Needs:
    """What an analysis takes, beyond the network and its batches.

    Attributes:
        vectors: of one number per parameter held at once, by what they are.
        evaluations: passes forward over all examples.
        gradients: passes forward and back.
        products: with a vector, of a matrix of second derivatives.
        least_basis: vectors that "Krylov basis" may be cut to by --basis; 0 for none.
    """

    vectors: Mapping[str, int] = field(default_factory=dict)
    evaluations: Range = NONE
    gradients: Range = NONE
    products: Range = NONE
    least_basis: int = 0


def surface(counts: Sequence[int], options: "Directions") -> Needs:
    """Of a plane, or of a line: the levels of the nested grid that usually suffice."""
    exact, most = options.exact or not options.tolerance, options.max_evaluations
    cells = math.prod(counts) + any(count % 2 == 0 for count in counts)  # and the checkpoint
    limit = min(cells, most or cells)
    least, usual = ((81, 289) if len(counts) == 2 else (9, 251)) if not exact else (cells, cells)
    first = least if least <= limit else min(5 ** len(counts), limit)  # the coarsest level
    found = Range(limit, limit) if exact else Range(first, min(usual, limit))
    vectors = {"directions": len(counts), "point": 1}
    searches = Range(*SEARCH).times(options.direction_eigen is not None)
    if options.curvature:
        points = min(limit, options.curvature_points)
        searches = Range(searches.least + 5 * min(points, 9), searches.most + 60 * points)
    if not searches.most:
        return Needs(vectors, found)
    return Needs({**vectors, "Krylov basis": 42}, found, Range(1, 1), searches)


def hessian(settings: "Settings", blocks: int) -> Needs:
    """Of eigenvalues, probes and blocks."""
    from landscape.lanczos import GUARDS, default_basis, least_basis

    ends = 2 if settings.which == "both" else 1
    wanted = ends * (settings.count + GUARDS)
    basis = settings.basis or default_basis(wanted)
    search = Range(default_basis(wanted), 4 * default_basis(wanted))
    if settings.max_products is not None:
        search = Range(*(min(value, settings.max_products) for value in search))
    probes = settings.probes * (settings.steps if settings.density else 1)
    each = Range(*SEARCH).times(blocks)
    return Needs(
        {"Krylov basis": basis + 1, "eigenvectors": ends * settings.count, "gradient": 2},
        Range(1, 1),
        Range(1, 1),
        Range(search.least + probes + each.least, search.most + probes + each.most),
        least_basis(settings.count, settings.which),
    )


def track(checkpoints: int, probes: int) -> Needs:
    """Of the largest eigenvalue and the trace at every checkpoint."""
    each = Range(SEARCH[0] + probes, SEARCH[1] + probes).times(checkpoints)
    passes = Range(checkpoints, checkpoints)
    return Needs({"Krylov basis": 30, "start": 2}, passes, passes, each)


def sharpness(plan: "Plan", share: float) -> Needs:
    """Of every norm and radius; `share` is the part of the examples that is in groups."""
    recipe, many = plan.recipe, len(plan.norms) * len(plan.rhos)
    gradients, forwards = len(plan.norms), 1
    if "worst" in plan.measures:
        gradients += many * (recipe.steps + 20 * recipe.restarts)
        forwards += 4 * many
    if "sam" in plan.measures:
        forwards += many
    if "average" in plan.measures:
        forwards += many * recipe.draws
    if "random" in plan.measures:
        forwards += len(plan.rhos) * recipe.trials
    boxes = Range(*KESKAR).times(len(plan.eps))
    products = Range(*SEARCH).times(len(plan.norms) if plan.quadratic else 0)
    return Needs(
        {"perturbations": 8, **({"Krylov basis": 30} if plan.quadratic else {})},
        Range(forwards, forwards).times(share),
        Range(gradients * share + boxes.least, gradients * share + boxes.most),
        products,
    )


def gate(policy: "Policy", *, models: int, groups: int, examples: int) -> Needs:
    """Of the first look to the last, for the candidate and its baseline."""
    how = policy.measure
    looks = Range(min(how.looks[0], groups), min(how.looks[-1], groups))
    passes = looks.times(models * how.m / examples)
    gradients = {"worst": 100, "sam": 1}.get(how.measure, 0)
    forwards = {"sam": 2, "worst": 5}.get(how.measure, 21)
    curved = any(rule.quantity == "lambda_max" for rule in policy.rules)
    return Needs(
        {"perturbations": 8, **({"Krylov basis": 30} if curved else {})},
        passes.times(forwards),
        passes.times(gradients),
        Range(*SEARCH).times(models if curved else 0),
    )


def connect(
    paths: "Paths", looking: "Looking", *, examples: int, statistics: bool, pairs: int = 1
) -> Needs:
    """Of all paths between two checkpoints; `statistics` of BatchNorm cost a pass for each."""
    bends = paths.bends or (3 if paths.method == "neb" else 1)
    trained = paths.method != "line"
    routes = 1 + (paths.align != "none") + trained
    looks = Range(9, looking.max_evaluations).times(pairs * routes * (2 if statistics else 1))
    steps = (paths.steps or (4000 if paths.method == "neb" else 2000)) if trained else 0
    most = steps * min(1.0, paths.m / examples)
    # The bends, and for each a gradient, its average and a copy.
    vectors = {"ends and point": 4, **({"bends in training": 4 * bends + 2} if trained else {})}
    return Needs(vectors, looks, Range(most / 8, most))
