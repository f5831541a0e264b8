"""A network whose weights are split over the processes.

A weight is whole where it is looked at and for no longer: it is gathered when a module asks for
it, the graph keeps the slices in its place, and its gradient goes back to those who hold them.
The FSDP of torch does as much (2.13), but has no second derivatives.

Each process evaluates its own batches, and all of them the same number, so that they meet.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from landscape import ranks
from landscape.errors import UserError
from landscape.evaluation import Evaluation
from landscape.slices import Slices, gathered
from landscape.task import Task

T = TypeVar("T")


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
        return gathered(part, self._slices[name], whole)

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
        if gone or tensor.is_complex() or not storage.nbytes():
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
