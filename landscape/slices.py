"""Tensors and vectors of which each process holds its rows.

Each tensor is cut into slices along its first axis, as fully sharded data parallelism cuts it
(Zhao et al. 2023): a filter lies in one process. To gather one, and to sum and scatter its
gradient, are functions that can be differentiated as often as one likes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from landscape import ranks
from landscape.errors import UserError
from landscape.space import WeightSpace, channels_last

# The names before torch 2.13 come second.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
DRAWN = 1 << 20  # random numbers at a time; a multiple of 16, by which torch draws normal ones


@dataclass(frozen=True)
class Slices:
    """How a tensor is cut: into as many slices along its first axis as there are processes.

    A tensor of no dimension has one, in the first process.
    """

    shape: torch.Size  # of the whole

    @property
    def rows(self) -> int:
        """Length of the first axis."""
        return self.shape[0] if self.shape else 1

    @property
    def inner(self) -> int:
        """Entries of a row."""
        return self.shape[1:].numel()

    @property
    def each(self) -> int:
        """Rows in each process; the last ones may have fewer, or none."""
        return -(-self.rows // ranks.count())

    @property
    def mine(self) -> slice:
        """The rows that are here."""
        start = min(self.rows, ranks.number() * self.each)
        return slice(start, min(self.rows, start + self.each))

    @property
    def here(self) -> torch.Size:
        """The shape of what is here."""
        count = self.mine.stop - self.mine.start
        if not self.shape:
            return torch.Size([] if count else [0])
        return torch.Size([count, *self.shape[1:]])

    def cut(self, whole: Tensor) -> Tensor:
        """A view of the rows that are here."""
        if not self.shape:
            return whole if self.here == self.shape else whole.new_empty(0)
        return whole[self.mine]

    def gathered(self, part: Tensor) -> Tensor:
        """The whole, from the parts of all processes."""
        sent = part.new_zeros(self.each * self.inner)
        sent[: part.numel()].copy_(_flat(part))
        received = part.new_empty(ranks.count() * sent.numel())
        _all_gather(received, sent)
        return _shaped(received[: self.shape.numel()], self.shape)

    def reduced(self, whole: Tensor) -> Tensor:
        """The rows that are here of the sum of what all processes have."""
        sent = whole.new_zeros(ranks.count() * self.each * self.inner)
        sent[: whole.numel()].copy_(_flat(whole))
        received = sent.new_empty(sent.numel() // ranks.count())
        _reduce_scatter(received, sent)
        return _shaped(received[: self.here.numel()], self.here)


def _flat(tensor: Tensor) -> Tensor:
    """The entries in the order of a flat vector."""
    return (tensor.permute(0, 2, 3, 1) if channels_last(tensor.shape) else tensor).reshape(-1)


def _shaped(flat: Tensor, shape: torch.Size) -> Tensor:
    if not channels_last(shape):
        return flat.view(shape)
    n, channels, height, width = shape
    return flat.view(n, height, width, channels).permute(0, 3, 1, 2)


class _Gathered(torch.autograd.Function):
    """The whole tensor of which each process has some rows."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, slices: Slices, whole: Tensor | None) -> Tensor:
        ctx.slices = slices
        return slices.gathered(part) if whole is None else whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        return _Reduced.apply(slope, ctx.slices), None, None  # type: ignore[no-untyped-call]


class _Reduced(torch.autograd.Function):
    """The rows here of the sum of all processes' tensors: the adjoint of `_Gathered`."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, slices: Slices) -> Tensor:
        ctx.slices = slices
        return slices.reduced(whole)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        return _Gathered.apply(slope, ctx.slices, None), None  # type: ignore[no-untyped-call]


def gathered(part: Tensor, slices: Slices, whole: Tensor) -> Tensor:
    """The `whole` tensor, gathered before, as a function of the rows that are here."""
    found: Tensor = _Gathered.apply(part, slices, whole)  # type: ignore[no-untyped-call]
    return found


@dataclass(frozen=True)
class Space(WeightSpace):
    """A weight space of whose vectors each process holds its rows of every tensor.

    Attributes:
        shapes: of what is here.
        slices: of the whole tensors, in the order of `names`.
    """

    slices: tuple[Slices, ...] = ()
    split = True

    @cached_property
    def size(self) -> int:
        """P, over all processes."""
        return sum(one.shape.numel() for one in self.slices)

    def size_of(self, v: Tensor) -> int:  # noqa: ARG002
        """P."""
        return self.size

    def total(self, part: Tensor) -> Tensor:
        """The sum over all processes."""
        whole = part.to(self.device, copy=True)  # the only one on which processes meet
        ranks.add(whole)
        return whole.to(part.device)

    def largest(self, v: Tensor) -> float:
        """The largest |entry| over all processes."""
        return -ranks.least(-float(v.abs().max()))

    def drawn(self, like: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
        """Those of the numbers for the whole vector that belong here; all are drawn, by pieces."""
        out, start, kept = torch.empty_like(like), 0, self._ranges()
        while start < self.size:
            left = self.size - start
            count = left if left < DRAWN + 16 else DRAWN
            numbers = draw(count)
            for whole, here in kept:
                low, high = max(whole.start, start), min(whole.stop, start + count)
                if low < high:
                    at = here.start + low - whole.start
                    out[at : at + high - low].copy_(numbers[low - start : high - start])
            start += count
        return out

    def _ranges(self) -> list[tuple[slice, slice]]:
        """For each tensor where the rows here lie in the whole vector, and in that here."""
        found, whole, here = [], 0, 0
        for one in self.slices:
            low, high = (whole + row * one.inner for row in (one.mine.start, one.mine.stop))
            found.append((slice(low, high), slice(here, here + high - low)))
            whole, here = whole + one.shape.numel(), here + high - low
        return found

    def pieces_of(self, v: Tensor) -> Iterator[Tensor]:
        """The tensors of the whole vector in their order, each gathered for itself."""
        parts = torch.split(v, self.sizes)
        for one, part in zip(self.slices, parts, strict=True):
            yield _flat(one.gathered(_shaped(part, one.here)))

    def only(self, names: Any) -> "Space":
        """As of a `WeightSpace`."""
        slices = dict(zip(self.names, self.slices, strict=True))
        kept = super().only(names)
        assert isinstance(kept, Space)
        return _checked(replace(kept, slices=tuple(slices[name] for name in kept.names)))

    def ravel(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The part here of the point whose coordinates are `tensors`, whole or cut already."""
        slices = dict(zip(self.names, self.slices, strict=True))
        return super().ravel(
            {
                name: one.cut(tensors[name]) if tensors[name].shape == one.shape else tensors[name]
                for name, one in slices.items()
            }
        )


def space(whole: WeightSpace) -> Space:
    """The part here of a weight space.

    Raises:
        UserError: there is one process, or one of them has nothing to hold.
    """
    if ranks.count() == 1:
        raise UserError("--fsdp needs several processes: add --processes N, or run under torchrun")
    slices = tuple(Slices(shape) for shape in whole.shapes)
    return _checked(
        Space(
            names=whole.names,
            shapes=tuple(one.here for one in slices),
            dtype=whole.dtype,
            device=whole.device,
            buffers=whole.buffers,
            slices=slices,
        )
    )


def _checked(part: Space) -> Space:
    if not ranks.everywhere(part.length > 0):
        raise UserError(
            f"--fsdp: {ranks.count()} processes are more than these {len(part.names)} tensors have "
            "rows to share: use fewer processes"
        )
    return part
