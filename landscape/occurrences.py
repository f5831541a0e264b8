"""Where along the axes of a tensor its free units stand."""

from collections.abc import Iterator

import torch
from torch import Tensor

from landscape import units
from landscape.units import Units

Occurrence = tuple[units.Factors, int, Tensor]


def occurrences(axis: Units) -> Iterator[Occurrence]:
    """Where each leaf stands along the axis.

    Yields:
        The factors of the product it stands in, which of them it is, and their positions along
        the axis: a tensor with one dimension for each factor.
    """
    root = units.find(axis)
    if root.kind == "leaf":
        yield (root,), 0, torch.arange(root.size)
    elif root.kind == "concatenation":
        start = 0
        for part in root.parts:
            for among, own, positions in occurrences(part):
                yield among, own, positions + start
            start += part.size
    elif (unfolded := _unfolded(units.factors(root))) is not None:
        yield from occurrences(unfolded)
    else:
        yield from _in_product(units.factors(root))


def _in_product(parts: units.Factors) -> Iterator[Occurrence]:
    sizes = [part.size for part in parts]
    whole = torch.arange(units.product(parts).size).view(sizes)
    for place, part in enumerate(parts):
        for among, own, inside in occurrences(part):
            positions = whole.movedim(place, 0)[inside.reshape(-1)]
            positions = positions.view(*inside.shape, *positions.shape[1:])
            order = range(inside.ndim)
            yield (
                (*parts[:place], *among, *parts[place + 1 :]),
                place + own,
                positions.movedim(tuple(order), tuple(place + i for i in order)),
            )


def _unfolded(parts: units.Factors) -> Units | None:
    """A product whose inner factors have copies, as the concatenation of the products of each."""
    for place, outer in enumerate(parts):
        copies = [
            part.copies[1] if part.copies and part.copies[0] is outer else (part,) * outer.size
            for part in parts[place + 1 :]
        ]
        if any(part.copies and part.copies[0] is outer for part in parts[place + 1 :]):
            each = [units.product(inner) for inner in zip(*copies, strict=True)]
            return units.product([*parts[:place], units.concatenation(each)])
    return None
