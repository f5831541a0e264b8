"""One seeded random partition of the examples into groups of m."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape import tree
from landscape.errors import UserError
from landscape.objective import Objective


class Groups:
    """Groups of m examples, so that data sorted by class do not bend an interval.

    The examples are shuffled by a seed of their own and dealt out m at a time; what is left over
    belongs to no group. Ready batches whose examples are coupled are shuffled and taken whole,
    as many as hold m examples. Iterating gives the objective of each group in its turn.

    Attributes:
        m: examples of a group; at least, where batches are taken whole.
        count: number of groups.
        examples: of all batches.
        left_out: examples that belong to no group.
        whole: coupled batches were taken whole.
        labels: (N,) the group of each example in the order of the data, -1 for none.
        digest: SHA-256 of the labels.
    """

    def __init__(self, objective: Objective, m: int, *, seed: int) -> None:
        """Shuffle; one pass over the batches, for their sizes.

        Raises:
            UserError: fewer than m examples.
            ValueError: m below 1.
        """
        if m < 1:
            raise ValueError(f"m {m} must be at least 1")
        self.objective, self.m = objective, m
        self._sizes = [tree.size(batch) or 1 for batch in objective.batches]
        self.examples = sum(self._sizes)
        if m > self.examples:
            raise UserError(
                f"groups of m = {m} examples cannot be made of {self.examples}: choose a smaller m"
            )
        self.whole = _coupled(objective)
        atoms = self._sizes if self.whole else [1] * self.examples
        order = torch.randperm(len(atoms), generator=torch.Generator().manual_seed(seed))
        groups, filled = torch.full((len(atoms),), -1), 0
        self.count, begun = 0, 0
        for place, atom in enumerate(order.tolist()):
            filled += atoms[atom]
            if filled >= m:
                groups[order[begun : place + 1]] = self.count
                self.count, begun, filled = self.count + 1, place + 1, 0
        self.labels = groups.repeat_interleave(torch.tensor(atoms))
        self.left_out = int((self.labels < 0).sum())
        self.digest = hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()

    def limited(self, limit: int | None) -> int:
        """How many groups there are, at most `limit`."""
        return self.count if limit is None else min(limit, self.count)

    def sizes(self, count: int) -> NDArray[np.int64]:
        """Examples of the first `count` groups."""
        return np.bincount(self.labels[self.labels >= 0].numpy(), minlength=count)[:count]

    def __iter__(self) -> Iterator[Objective]:
        """The objective of each group; its examples are gathered in one pass over the data."""
        return self.first(self.count)

    def first(self, count: int) -> Iterator[Objective]:
        """The objectives of the first `count` groups."""
        where = self.objective.space
        for parts in self._gathered(min(count, self.count)):
            batches = parts if self.whole else tree.joined(parts)
            yield self.objective.over([tree.move(b, where.device, where.dtype) for b in batches])

    def _gathered(self, count: int) -> list[list[Any]]:
        """The parts of each group; on the host if the data do not stay on the device."""
        kept = getattr(self.objective.batches, "kept", True)
        place = self.objective.space.device if kept else torch.device("cpu")
        groups: list[list[Any]] = [[] for _ in range(count)]
        labels = torch.split(self.labels, self._sizes)
        for batch, mine in zip(self.objective.batches, labels, strict=True):
            for group in torch.unique(mine).tolist():
                if not 0 <= group < count:
                    continue
                index = (mine == group).nonzero().flatten()
                part = batch if len(index) == len(mine) else tree.rows(batch, index)
                groups[group].append(tree.move(part, place, self.objective.space.dtype))
        return groups


def means(values: Tensor, weights: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean of `values` (N,) over each group, and its weight: (count,) each.

    `values` are totals: the mean of a group is the sum of its totals over that of its weights.
    """
    chosen = labels.to(values.device) >= 0
    index = labels.to(values.device)[chosen]
    empty = values.new_zeros(count)
    total = empty.index_add(0, index, values[chosen])
    weight = empty.index_add(0, index, weights[chosen])
    return total / weight, weight


def _coupled(objective: Objective) -> bool:
    """Whether the batches were made by the task and cannot be cut without changing the loss."""
    batches = objective.batches
    return bool(getattr(batches, "ready", False)) and (
        objective.independent(next(iter(batches))) is not True
    )
