"""Groups of units that have no order of their own, and permutations of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """Where the units of a group stand.

    Attributes:
        axis: of the tensor.
        length: entries along the axis.
        positions: (blocks, n, m) of them: the m that belong to each of n units.
        tensor: its name; "" for a result of a step.
        step: number of the step of the dataflow, and of the one of its results.
    """

    axis: int
    length: int
    positions: Tensor
    tensor: str = ""
    step: tuple[int, int] = (-1, -1)

    def rows(self, tensor: Tensor) -> Tensor:
        """The entries (blocks * n, entries of a unit) of `tensor` that belong to each unit."""
        blocks, n, m = self.positions.shape
        picked = tensor.movedim(self.axis, 0)[self.positions.to(tensor.device).reshape(-1)]
        return picked.reshape(blocks * n, -1) if m else picked.reshape(blocks * n, 0)


@dataclass(frozen=True)
class Group:
    """Units that can be put in any order together.

    Attributes:
        size: n, how many.
        places: where they stand in the weights.
        seen: where they stand in what the network computes from data.
        inner: groups that lie inside of each unit and have an order of their own in each: the
            channels of an attention head. Their places have as many blocks as this has units.
    """

    size: int
    places: tuple[Place, ...]
    seen: tuple[Place, ...] = ()
    inner: tuple["Group", ...] = ()

    @property
    def tensors(self) -> list[str]:
        """Names of the tensors it stands in, each once."""
        return list(dict.fromkeys(place.tensor for place in self.places))


@dataclass(frozen=True)
class Permutation:
    """An order of the units of a group.

    Attributes:
        order: (n,) which unit comes to each place.
        inner: (n, k) for each inner group: which of the k units inside of the one that has come
            there comes to each place.
    """

    order: Tensor
    inner: tuple[Tensor, ...] = ()

    def then(self, later: "Permutation") -> "Permutation":
        """This one and `later` after it."""
        inner = tuple(
            mine[later.order].gather(1, other)
            for mine, other in zip(self.inner, later.inner, strict=True)
        )
        return Permutation(self.order[later.order], inner)


def random(group: Group, generator: torch.Generator) -> Permutation:
    """A uniformly random permutation of the group."""
    inner = tuple(
        torch.stack([torch.randperm(part.size, generator=generator) for _ in range(group.size)])
        for part in group.inner
    )
    return Permutation(torch.randperm(group.size, generator=generator), inner)


def unsettled(group: Group, generator: torch.Generator) -> Permutation:
    """A random permutation of the group that leaves no unit where it is."""
    inner = tuple(
        torch.stack([_cycle(part.size, generator) for _ in range(group.size)])
        for part in group.inner
    )
    return Permutation(_cycle(group.size, generator), inner)


def _cycle(size: int, generator: torch.Generator) -> Tensor:
    """Each of a random sequence of indices is followed by the next."""
    sequence = torch.randperm(size, generator=generator)
    return torch.empty_like(sequence).scatter_(0, sequence, sequence.roll(-1))


def identity(group: Group) -> Permutation:
    """The permutation that changes nothing."""
    inner = tuple(torch.arange(p.size).expand(group.size, -1) for p in group.inner)
    return Permutation(torch.arange(group.size), inner)


def units(group: Group) -> int:
    """How many units can move, those inside of others included."""
    return group.size * (1 + sum(part.size for part in group.inner))


def moved(permutation: Permutation) -> int:
    """How many of them do."""
    elsewhere = permutation.order != torch.arange(len(permutation.order))
    inside = (
        elsewhere[:, None] | (order != torch.arange(order.shape[1])) for order in permutation.inner
    )
    return int(elsewhere.sum()) + sum(int(each.sum()) for each in inside)


def apply(
    groups: Sequence[Group],
    permutations: Sequence[Permutation],
    tensors: Mapping[str, Tensor],
    *,
    aliases: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """`tensors`, by name, with the units of `groups` permuted; new ones where something moves.

    Places of tensors that are not there are passed over; a tensor with a name among `aliases`
    is permuted as the first of its names is.
    """
    found = orders(groups, permutations)
    permuted = {name: tensor.detach() for name, tensor in tensors.items()}
    for name in tensors:
        for (tensor, axis), order in found.items():
            if tensor == (aliases or {}).get(name, name):
                permuted[name] = permuted[name].index_select(axis, order.to(permuted[name].device))
    return permuted


def orders(
    groups: Sequence[Group], permutations: Sequence[Permutation]
) -> dict[tuple[str, int], Tensor]:
    """For each tensor and axis that moves, which of its entries comes to each place."""
    found: dict[tuple[str, int], Tensor] = {}
    for group, permutation in zip(groups, permutations, strict=True):
        by_part = (permutation.order[None], *permutation.inner)
        for part, order in zip((group, *group.inner), by_part, strict=True):
            for place in part.places:
                start = torch.arange(place.length)
                before = found.get((place.tensor, place.axis), start)
                after, positions = before.clone(), place.positions
                index = order[..., None].expand_as(positions)
                after[positions] = before[positions.gather(1, index)]
                found[place.tensor, place.axis] = after
    return found


def shared(group: Group) -> Group:
    """An inner group with one order for all the units it lies inside of."""

    def flat(place: Place) -> Place:
        return replace(place, positions=place.positions.transpose(0, 1).flatten(1)[None])

    places, seen = (tuple(map(flat, each)) for each in (group.places, group.seen))
    return replace(group, places=places, seen=seen)
