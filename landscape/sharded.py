"""A network whose weights, and all vectors of their size, are split over the processes.

Each tensor is cut into slices along its first axis, as fully sharded data parallelism cuts it
(Zhao et al. 2023): a filter lies in one process. A weight is whole where it is looked at and for
no longer: it is gathered when a module asks for it, the graph keeps the slices in its place, and
its gradient goes back to those who hold them. Both are functions that can be differentiated as
often as one likes, which the FSDP of torch cannot (2.13): it has no second derivatives.

Each process evaluates its own batches, and all of them the same number, so that they meet.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from landscape import ranks
from landscape.errors import UserError
from landscape.evaluation import Evaluation
from landscape.space import WeightSpace
from landscape.task import Task

T = TypeVar("T")
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
    """The entries in the order of a flat vector: those of four dimensions with channels last."""
    return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).reshape(-1)


def _shaped(flat: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
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


class Weights(dict[str, Any]):
    """The weights of one module: each is gathered when it is looked at.

    It holds the rows that are here. Who asks for all of them, as `net.parameters()` does, tells
    tied weights by their identity, which gathered ones lack: they are given at the first place.
    """

    def __init__(self, held: Mapping[str, Any], look: Callable[["Weights", str], Any]) -> None:
        """Hold what a module holds."""
        super().__init__(held)
        self._look = look
        self.tied: set[str] = set()  # keys of those that another module holds before

    def __getitem__(self, key: str) -> Any:
        """The whole weight."""
        return self._look(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """The whole weight, if it is there."""
        return self[key] if key in self else default  # noqa: SIM401

    def items(self) -> Any:
        """All of them, each gathered in its turn."""
        return ((key, self[key]) for key in self if key not in self.tied)

    def values(self) -> Any:
        """All of them, each gathered in its turn."""
        return (self[key] for key in self if key not in self.tied)


class ShardedEvaluation(Evaluation):
    """The task on one batch, with tensors of which each process holds its rows.

    Attributes:
        parts: the network's own parameters, the rows that are here.
    """

    def __init__(self, task: Task, net: nn.Module) -> None:
        """Cut the network's parameters up; the network itself stays as it is."""
        super().__init__(task, net)
        named = dict(net.named_parameters())
        self._slices = {name: Slices(tensor.shape) for name, tensor in named.items()}
        cut = {name: self._slices[name].cut(tensor.detach()) for name, tensor in named.items()}
        self.parts = {name: tensor.clone() for name, tensor in cut.items()}
        self._names: dict[tuple[int, str], str] = {}
        self._plain = {module: module._parameters for module in self.modules}
        self._gathering = {m: Weights(held, self._whole) for m, held in self._plain.items()}
        replaced = {id(held): self._gathering[m] for m, held in self._plain.items()}
        for name, places in self._places.items():
            self._places[name] = [(replaced.get(id(held), held), key) for held, key in places]
        for name in named:
            for number, (held, key) in enumerate(self._places[name]):
                self._names[id(held), key] = name
                if number and isinstance(held, Weights):
                    held.tied.add(key)
        self._owner: int | None = None
        self._recent: dict[str, Tensor] = {}  # whole weights of the module looked at last
        self._known: dict[int, tuple[StorageWeakRef, str]] = {}
        self._watch: Callable[[Tensor], Tensor] | None = None

    def shape(self, name: str) -> torch.Size:
        """Of a whole parameter."""
        return self._slices[name].shape

    def release(self) -> None:
        """Let the network go of its own weights; it cannot be used outside of `within` again."""
        for module, held in self._plain.items():
            for key, tensor in held.items():
                if tensor is not None:
                    empty = torch.empty_like(tensor, device="meta")
                    module._parameters[key] = nn.Parameter(empty, tensor.requires_grad)

    def own(self) -> dict[str, Tensor]:
        """The rows here of the parameters, and the buffers."""
        return {**self.parts, **dict(self.net.named_buffers())}

    def here(self, name: str, tensor: Tensor) -> Tensor:
        """The rows here of a parameter, and buffers whole."""
        return self._slices[name].cut(tensor) if name in self._slices else tensor

    def share(self, batches: Iterable[T]) -> Iterator[tuple[T, bool]]:
        """As many on every rank."""
        return ranks.rounds(batches)

    def summed(self, derivative: Tensor) -> None:
        """Nothing is left to do: it came as the rows here of the sum."""

    def agreed(self, condition: bool) -> bool:
        """Whether it holds on all ranks, which have to gather at the same times."""
        return ranks.everywhere(condition)

    @contextlib.contextmanager
    def watching(self, pack: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within the context, `pack` sees what a graph keeps beside whole weights."""
        self._watch = pack
        try:
            yield
        finally:
            self._watch = None

    def within(self, tensors: Mapping[str, Tensor], work: Callable[[], T]) -> T:
        """What `work` returns with `tensors` in the network, parameters as their rows here."""
        for module, weights in self._gathering.items():
            module.__dict__["_parameters"] = weights
        self._forget()
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
                return super().within(tensors, work)
        finally:
            self._forget()
            for module, held in self._plain.items():
                module.__dict__["_parameters"] = held

    def _halve(self, batch: Any, cause: str) -> None:  # noqa: ARG002
        raise UserError(
            f"out of memory ({cause}): processes that share a network cannot make their batches "
            "smaller each by itself: pass a smaller --batch-size"
        )

    def _forget(self) -> None:
        self._owner, self._recent = None, {}
        self._known.clear()

    def _whole(self, held: Weights, key: str) -> Any:
        """What a module finds under `key`."""
        part = dict.__getitem__(held, key)
        name = self._names.get((id(held), key))
        if part is None or name is None:
            return part
        whole = self._data(name, part, id(held))
        return _Gathered.apply(part, self._slices[name], whole)  # type: ignore[no-untyped-call]

    def _data(self, name: str, part: Tensor, owner: int) -> Tensor:
        """The whole weight, without a graph; those of one module are kept for its next look."""
        if owner != self._owner:
            self._owner, self._recent = owner, {}
        if name not in self._recent:
            with torch.no_grad():
                whole = self._slices[name].gathered(part.detach())
            storage = whole.untyped_storage()
            reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            self._known[storage.data_ptr()] = reference, name
            self._recent[name] = whole
        return self._recent[name]

    def _pack(self, tensor: Tensor) -> Any:
        """What a graph keeps of a tensor: of a whole weight its name and how it was looked at."""
        storage = tensor.untyped_storage()
        reference, name = self._known.get(storage.data_ptr(), (None, ""))
        gone = reference is None or reference.expired()  # type: ignore[no-untyped-call]
        if gone or not storage.nbytes():
            # Itself, it would hold its node, which holds it: for ever.
            return tensor.detach() if self._watch is None else self._watch(tensor)
        return name, tensor.size(), tensor.stride(), tensor.storage_offset()

    def _unpack(self, kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        name, size, stride, offset = kept
        held, key = self._places[name][0]
        part = dict.__getitem__(held, key)
        assert part is not None
        whole = self._data(name, part, id(held))
        return whole.as_strided(size, stride, offset)
