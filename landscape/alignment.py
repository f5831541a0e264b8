"""One network brought close to another by permutations that do not change its function."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape import activations, matching, permutations, symmetry
from landscape.objective import Objective
from landscape.permutations import Group, Permutation
from landscape.symmetry import Symmetry
from landscape.trial import Trial

Tensors = Mapping[str, Tensor]
METHODS = ("weights", "activations")


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

    Before, each group is tried on `b`: what changes its function (by more than a relative 1e-5)
    is left out and named in the notes.

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
    trial = Trial(objective, b)
    found = symmetry.verified(found, trial, b)
    names = [name for name, _ in objective.net.named_parameters()]
    notes = found.left_out
    scores: tuple[float, ...] = ()
    if method == "weights" or not found.groups:
        mine, other = ({name: t[name] for name in names} for t in (a, b))
        matched = matching.weight_matching(found.groups, mine, other, generator, restarts=restarts)
        orders, scores = matched.permutations, matched.scores
    else:
        orders, said = activations.activation_matching(objective, found.groups, a, b)
        notes += (said,)
    tensors = permutations.apply(found.groups, orders, b, aliases=found.aliases)
    return Alignment(
        tensors=tensors,
        groups=found.groups,
        permutations=orders,
        moved=sum(map(permutations.moved, orders)),
        units=sum(map(permutations.units, found.groups)),
        distance=_distance(a, b, names),
        aligned_distance=_distance(a, tensors, names),
        scores=scores,
        change=trial.change(trial.outputs(b), tensors),
        notes=notes,
    )


def _distance(a: Tensors, b: Tensors, names: list[str]) -> float:
    squares = (float((a[n].detach().double() - b[n].detach()).square().sum()) for n in names)
    return math.sqrt(sum(squares))
