"""Permutations that bring the weights of one network close to those of another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from landscape import permutations
from landscape.permutations import Group, Permutation, Place

Tensors = Mapping[str, Tensor]
SWEEPS = 100  # visits of all groups; some ten are enough, and each one has to gain
GAIN = 1e-12  # of the sum of squares: less is rounding


@dataclass(frozen=True)
class Similarity:
    """How alike the units of a group are in two networks, to be maximised.

    Attributes:
        units: (n, n) unit i of the first with unit j of the second, but for its inner groups.
        inner: (n, n, k, k) for each inner group: the k units inside of i with those inside of j.
    """

    units: Tensor
    inner: tuple[Tensor, ...] = ()

    def plus(self, other: "Similarity") -> "Similarity":
        """The sum."""
        inner = tuple(a + b for a, b in zip(self.inner, other.inner, strict=True))
        return Similarity(self.units + other.units, inner)


@dataclass(frozen=True)
class Matched:
    """What a matching found.

    Attributes:
        permutations: of the second network, one for each group.
        score: sum over all weights that move of the inner products of the two networks.
        scores: of each start.
    """

    permutations: tuple[Permutation, ...]
    score: float
    scores: tuple[float, ...]


def assign(similarity: Similarity) -> Permutation:
    """The permutation of the second network's units of the largest total similarity.

    A linear assignment problem (O(n^3)); with inner groups one of them for each pair of units,
    whose optima are the similarities of the pairs: exact for units and inner units together.
    """
    gains = similarity.units.numpy().copy()
    n = len(gains)
    best = [np.zeros((n, n, part.shape[-1]), dtype=np.int64) for part in similarity.inner]
    for part, orders in zip(similarity.inner, best, strict=True):
        blocks = part.numpy()
        for i, j in np.ndindex(n, n):
            rows, orders[i, j] = linear_sum_assignment(blocks[i, j], maximize=True)
            gains[i, j] += blocks[i, j][rows, orders[i, j]].sum()
    rows, order = linear_sum_assignment(gains, maximize=True)
    inner = tuple(torch.from_numpy(orders[rows, order]) for orders in best)
    return Permutation(torch.from_numpy(order.astype(np.int64)), inner)


def unique(group: Group, *, seen: bool = False) -> list[list[Place]]:
    """Places of a group without what its inner groups cover, then those of each inner group."""
    whole, *inner = [list(g.seen if seen else g.places) for g in (group, *group.inner)]
    return [uncovered(whole, [place for places in inner for place in places]), *inner]


def uncovered(places: Sequence[Place], inner: Sequence[Place]) -> list[Place]:
    """The places of a group without what those of its inner groups cover of them."""
    left = []
    for place in places:
        covered = torch.zeros(place.length, dtype=torch.bool)
        for other in inner:
            if (other.tensor, other.step, other.axis) == (place.tensor, place.step, place.axis):
                covered[other.positions] = True
        kept = ~covered[place.positions[0, 0]]
        if bool(kept.any()):
            left.append(replace(place, positions=place.positions[..., kept]))
    return left


def weight_matching(
    groups: Sequence[Group],
    a: Tensors,
    b: Tensors,
    generator: torch.Generator,
    *,
    restarts: int,
) -> Matched:
    """Permutations of `b` that maximise the sum over the weights of <a, P b>.

    Ainsworth et al. (2023), algorithm 1: coordinate descent, each group in turn solved exactly
    while the others stay (`assign`), in random order until no visit gains. It differs in this:
    the first start goes through the groups in the order of the network and looks, on its first
    sweep, at weights alone whose other groups have been matched (or stays where it is, if that
    is better); the others start from random permutations; and where a group meets itself
    (recurrent weights) a step that loses is not taken. Groups are revisited only if one that
    shares a weight has changed.

    Args:
        groups: what may move.
        a: by name, the parameters to come close to; not the statistics, whose scale is another.
        b: by name, the parameters that are permuted.
        generator: of orders and starts.
        restarts: how many starts; the best is kept.

    Returns:
        Matched. Costs no pass over data; for each visit, n^2 inner products and an assignment.
    """
    scores: list[float] = []
    best: tuple[Permutation, ...] = tuple(map(permutations.identity, groups))
    names = {name for group in groups for name in group.tensors if name in a}
    wide = [{name: t[name].detach().cpu().double() for name in names} for t in (a, b)]
    bound = sum(float(t.square().sum()) for tensors in wide for t in tensors.values()) / 2
    for start in range(max(1, restarts)):
        descent = _Descent(groups, *wide)
        if start == 0:
            descent.first_sweep()
        else:
            descent.start(generator)
        descent.run(generator, GAIN * bound)
        scores.append(descent.score())
        if scores[-1] > max(scores[:-1], default=-math.inf):
            best = tuple(descent.permutations)
        if scores[-1] >= bound * (1 - 1e-10):  # the two are one network
            break
    return Matched(best, max(scores), tuple(scores))


class _Descent:
    """Coordinate descent from one start."""

    def __init__(self, groups: Sequence[Group], a: Tensors, b: Tensors) -> None:
        self.groups, self.a, self.b = groups, a, dict(b)
        self.permutations = [permutations.identity(group) for group in groups]
        self._own = [unique(group)[0] for group in groups]
        self._names = [[name for name in group.tensors if name in a] for group in groups]
        self._axes = [[(p.tensor, p.axis) for p in group.places] for group in groups]

    def score(self) -> float:
        """Sum of the inner products of all weights that a group moves."""
        return self._products(sorted({name for names in self._names for name in names}))

    def _products(self, names: Sequence[str]) -> float:
        return float(sum((self.a[name] * self.b[name]).sum() for name in names))

    def start(self, generator: torch.Generator) -> None:
        """Go to random permutations."""
        for number, group in enumerate(self.groups):
            self._move(number, permutations.random(group, generator))

    def first_sweep(self) -> None:
        """Match each group by those weights whose other groups have been matched.

        Nothing moves if that is worse than the order as it is: of two networks with a common
        origin, for one.
        """
        before, weights, orders = self.score(), dict(self.b), list(self.permutations)
        waiting = set(range(len(self.groups)))
        for number in range(len(self.groups)):
            blocked = {name for other in waiting - {number} for name in self._names[other]}
            twice = {
                name
                for name in self._names[number]
                if len({axis for tensor, axis in self._axes[number] if tensor == name}) > 1
            }
            usable = [n for n in self._names[number] if n not in blocked | twice]
            usable = usable or self._names[number]
            for apart in (True, False) if len(self.groups[number].inner) > 1 else (False,):
                self._move(number, assign(self.similarity(number, usable, apart=apart)))
            waiting.discard(number)
        if self.score() < before:
            self.b, self.permutations = weights, orders

    def run(self, generator: torch.Generator, gain: float) -> None:
        """Visit the groups in random order until no visit gains."""
        stale = set(range(len(self.groups)))
        for _ in range(SWEEPS):
            for number in torch.randperm(len(self.groups), generator=generator).tolist():
                if number in stale:
                    stale.discard(number)
                    if self._improve(number, gain):
                        mine = set(self._names[number])
                        stale |= {i for i, names in enumerate(self._names) if mine & set(names)}
            if not stale:
                return

    def _improve(self, number: int, gain: float) -> bool:
        names = self._names[number]
        before, weights, order = self._products(names), dict(self.b), self.permutations[number]
        self._move(number, assign(self.similarity(number, names)))
        if self._products(names) > before + gain:
            return True
        self.b, self.permutations[number] = weights, order
        return False

    def similarity(self, number: int, names: Sequence[str], *, apart: bool = False) -> Similarity:
        """Inner products of the units of a group, over the tensors `names`.

        With `apart`, inner groups that share entries are told from the entries of one alone,
        where they have such.
        """
        group = self.groups[number]

        def rows(places: Sequence[Place]) -> list[tuple[Tensor, Tensor]]:
            chosen = [place for place in places if place.tensor in names]
            return [(p.rows(self.a[p.tensor]), p.rows(self.b[p.tensor])) for p in chosen]

        pairs = [rows(self._own[number])]
        for part in group.inner:
            others = [p for other in group.inner if other is not part for p in other.places]
            alone = uncovered(part.places, others) if apart else []
            pairs.append(rows(alone) or rows(part.places))
        return similarity(group, pairs)

    def _move(self, number: int, permutation: Permutation) -> None:
        group = self.groups[number]
        moved = {name: self.b[name] for name in self._names[number]}
        self.b.update(permutations.apply([group], [permutation], moved))
        self.permutations[number] = self.permutations[number].then(permutation)


def similarity(group: Group, pairs: Sequence[Sequence[tuple[Any, Any]]]) -> Similarity:
    """Sums of the inner products of rows, those of the group first, then of its inner groups."""
    sums = []
    for size, mine in zip((1, *(p.size for p in group.inner)), pairs, strict=True):
        total = torch.zeros(group.size * size, group.size * size, dtype=torch.float64)
        for a, b in mine:
            total += a @ b.T
        sums.append(total.view(group.size, size, group.size, size).transpose(1, 2))
    return Similarity(sums[0].flatten(1), tuple(sums[1:]))
