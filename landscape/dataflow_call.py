"""One operation of a traced forward pass, as the rules of the dataflow see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from landscape import units
from landscape.units import Units

Labels = tuple[Units, ...]


@dataclass(frozen=True)
class Call:
    """An operation with its arguments and results.

    Attributes:
        name: of the operation without its overload, such as "addmm".
        given: its arguments by their names in the schema, defaults included.
        outputs: the tensors it returned.
        labels: what stands along the axes of a tensor.
    """

    name: str
    given: dict[str, Any]
    outputs: list[Tensor]
    labels: Callable[[Tensor], Labels]

    def __getitem__(self, argument: str) -> Any:
        """The value of an argument."""
        return self.given[argument]

    def of(self, argument: str | int) -> Labels:
        """What stands along the axes of an argument, given by its name or number."""
        value = self.given[argument] if isinstance(argument, str) else self.values[argument]
        return self.labels(value)

    @property
    def values(self) -> list[Any]:
        """The values of the arguments, in order."""
        return list(self.given.values())

    def dims(self, argument: str, ndim: int) -> list[int]:
        """An argument that names one, several or (None or empty) all of `ndim` axes."""
        value = self.given.get(argument)
        if value is None or value == []:
            return list(range(ndim))
        chosen = value if isinstance(value, list | tuple) else [value]
        return [dim % ndim for dim in chosen] if ndim else []


def tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments, those in lists included."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors(value)
    return found


def broadcast(labels: Sequence[Labels], shape: Sequence[int]) -> Labels:
    """What stands along the axes of an elementwise result: all that is laid beside each other."""
    made: list[Units] = []
    for back in range(1, len(shape) + 1):
        size = shape[-back]
        beside = [mine[-back] for mine in labels if len(mine) >= back and mine[-back].size == size]
        for other in beside[1:]:
            units.unify(beside[0], other)
        made.append(beside[0] if beside else units.fixed(size))
    return tuple(reversed(made))


def like(output: Tensor, labels: Labels) -> Labels:
    """Labels for a result of the same axes as `labels`, fixed where sizes differ."""
    if output.ndim != len(labels):
        return tuple(units.fixed(size) for size in output.shape)
    pairs = zip(output.shape, labels, strict=True)
    return tuple(mine if mine.size == size else units.fixed(size) for size, mine in pairs)
