"""One network brought close to another by permutations that do not change its function."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape import activations, matching, permutations, symmetry, tree
from landscape.objective import Objective
from landscape.permutations import Group, Permutation
from landscape.symmetry import Symmetry
from landscape.trial import Trial, relative_change

Tensors = Mapping[str, Tensor]
METHODS = ("weights", "activations")
NOTICED = 1e-4  # relative change of the loss of an example that is no rounding
NOTHING = "nothing is permuted: some losses change, and no group alone is the cause"


@dataclass(frozen=True)
class Alignment:
    """A network that has been permuted towards another.

    Attributes:
        tensors: by name, parameters and buffers of the permuted network.
        groups: what could move.
        permutations: of each group.
        moved: how many units are elsewhere than before, of `units` that could be.
        units: how many could move, inner ones of each unit included.
        distance: Euclidean, between the parameters of the two networks as they were given.
        aligned_distance: the same after the permutation.
        scores: for weight matching, of each start: the sum of inner products that is maximised.
        change: the largest relative change of an output, loss or metric by the permutation.
        notes: in words, what keeps its order and why.
    """

    tensors: dict[str, Tensor]
    groups: tuple[Group, ...]
    permutations: tuple[Permutation, ...]
    moved: int
    units: int
    distance: float
    aligned_distance: float
    scores: tuple[float, ...]
    change: float
    notes: tuple[str, ...]


def align(
    objective: Objective,
    found: Symmetry,
    a: Tensors,
    b: Tensors,
    *,
    generator: torch.Generator,
    method: str = "weights",
    restarts: int = 5,
) -> Alignment:
    """The network `b` with its units in the order that brings it closest to `a`.

    Each group is tried on `b`: what changes its function (by more than a relative 1e-5) is left
    out and named in the notes. A few examples are tried first; at the end the losses of all of
    them have to be those of `b` still, else those that are not show which groups to leave out.

    Args:
        objective: gives network, task and data.
        found: what can be permuted, from `symmetry.find`.
        a: by name, all parameters and buffers of the network to come close to.
        b: by name, those of the network to permute; none is written to.
        generator: of the starts and orders of weight matching.
        method: `weights` (see `matching.weight_matching`: no data needed) or `activations` (see
            `activations.activation_matching`).
        restarts: starts of weight matching, of which the best is kept.

    Returns:
        Alignment. Running statistics move with their channels, tied tensors once; integers stay.

    Raises:
        ValueError: unknown `method`.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {METHODS}")
    here = Trial(objective, b)
    found = symmetry.verified(found, here, b)
    names = [name for name, _ in objective.net.named_parameters()]
    while True:
        orders, scores, said = _matched(objective, found, a, b, generator, method, restarts)
        tensors = permutations.apply(found.groups, orders, b, aliases=found.aliases)
        other = _changed(objective, b, tensors)
        if other is None:
            break
        fewer = symmetry.verified(found, other, b)
        if [*map(id, fewer.groups)] == [*map(id, found.groups)]:  # it takes them together, or all
            fewer = replace(found, groups=(), left_out=(*found.left_out, NOTHING))
        found = fewer
    return Alignment(
        tensors=tensors,
        groups=found.groups,
        permutations=orders,
        moved=sum(map(permutations.moved, orders)),
        units=sum(map(permutations.units, found.groups)),
        distance=_distance(a, b, names),
        aligned_distance=_distance(a, tensors, names),
        scores=scores,
        change=here.change(here.outputs(b), tensors),
        notes=(*found.left_out, *said),
    )


def _matched(
    objective: Objective,
    found: Symmetry,
    a: Tensors,
    b: Tensors,
    generator: torch.Generator,
    method: str,
    restarts: int,
) -> tuple[tuple[Permutation, ...], tuple[float, ...], tuple[str, ...]]:
    """The order of each group, the scores of the starts, and notes."""
    if method == "activations" and found.groups:
        orders, said = activations.activation_matching(objective, found.groups, a, b)
        return orders, (), (said,)
    names = [name for name, _ in objective.net.named_parameters()]
    mine, other = ({name: t[name] for name in names} for t in (a, b))
    matched = matching.weight_matching(found.groups, mine, other, generator, restarts=restarts)
    return matched.permutations, matched.scores, ()


def _changed(objective: Objective, before: Tensors, after: Tensors) -> Trial | None:
    """Examples whose loss is another one with `after`, beyond rounding; None if there are none.

    Costs two passes over the data, and two more to find the example that changes most.
    """

    def losses(over: Objective, tensors: Tensors) -> Tensor:
        still = {name: tensors[name] for name in objective.constants() if name in tensors}
        return over.losses(objective.space.ravel(tensors), buffers=still).total

    if relative_change(losses(objective, before), losses(objective, after)) <= NOTICED:
        return None
    worst, batch, row = -1.0, None, 0
    for candidate in objective.batches:
        one = objective.over([candidate])
        apart = (losses(one, after) - losses(one, before)).abs().nan_to_num(0.0)
        if float(apart.max()) > worst:
            worst, batch, row = float(apart.max()), candidate, int(apart.argmax())
    parts = [batch]  # alone, an example of a coupled batch shows nothing
    if tree.can_be_cut(batch) and row < (tree.size(batch) or 0):
        parts.insert(0, tree.rows(batch, slice(row, row + 1)))
    for part in parts:
        trial = Trial(objective, before, batch=part)
        if trial.change(trial.outputs(before), after) > NOTICED:
            return trial
    return None


def _distance(a: Tensors, b: Tensors, names: list[str]) -> float:
    squares = (float((a[n].detach().double() - b[n].detach()).square().sum()) for n in names)
    return math.sqrt(sum(squares))
