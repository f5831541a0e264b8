"""Products of a vector with second-derivative matrices of the mean loss, never formed.

Reverse over reverse throughout: `torch` has silently wrong values in gradients of forward-mode
derivatives (through layer_norm and batch_norm), and fused attention has none.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from landscape import tree
from landscape.device import free_memory
from landscape.errors import UserError
from landscape.estimate import PerExample
from landscape.modes import twice_differentiable
from landscape.space import WeightSpace

Matvec = Callable[[Tensor], Tensor]
Tensors = Mapping[str, Tensor]


class Risk(Protocol):
    """What a product needs of `objective.Objective`."""

    net: nn.Module
    space: WeightSpace
    batches: Iterable[Any]

    def losses(self, theta: Tensor) -> PerExample:
        """Totals and weights (N,) of the examples at a point (P,)."""

    def accumulate(
        self,
        theta: Tensor,
        part: Callable[[int, PerExample, Tensors], Tensors],
        *,
        first: int = 0,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sum of a derivative over the batches, and total and weight of their losses."""

    def penalised(self, derivative: Tensor, of_penalty: Tensor) -> Tensor:
        """The derivative (P,) with that of the penalty added."""


class Hessian:
    """v -> H v, H the Hessian of the mean loss at a point.

    Pearlmutter (1994) in reverse over reverse: H v is the gradient of g(theta).v. The first-order
    graph of as many batches as fit into `memory` is kept from the first product on, which then
    costs about a third less; the graphs of the others are built anew for every product.

    Attributes:
        products: made so far.
        kept: batches whose graph is kept.
    """

    def __init__(self, objective: Risk, theta: Tensor, *, memory: int | None = None) -> None:
        """Check the point; nothing is built before the first product.

        Args:
            objective: the mean loss.
            theta: (P,) the point.
            memory: bytes for kept graphs; 0 keeps none, None a quarter of what is free.

        Raises:
            UserError: the loss of some examples is not finite there.
        """
        self.objective, self.theta = objective, theta.detach().clone()
        self.products = 0
        self._complete = False
        self._room = free_memory(theta.device) // 4 if memory is None else memory
        self._graphs: dict[int, list[tuple[Tensors, Tensors]]] | None = None
        self._weight = 0.0
        _refuse_non_finite(objective, self.theta)

    @property
    def kept(self) -> int:
        """Batches whose graph is kept."""
        return len(self._graphs or {})

    def __call__(self, v: Tensor) -> Tensor:
        """H v (P,), for v (P,)."""
        pieces = self.objective.space.unravel(v)
        self.products += 1
        if self._graphs is None:
            out = self._build(pieces)
        else:
            out = torch.zeros_like(v)
            views = self.objective.space.unravel(out)
            for parts in self._graphs.values():
                for graph in parts:
                    for name, piece in _along(*graph, pieces).items():
                        views[name].add_(piece)
            if not self._complete:
                out += self._rebuilt(pieces)
        return self.objective.penalised(out.div_(self._weight), v)

    def _build(self, pieces: Tensors) -> Tensor:
        """The first product, which keeps what graphs there is room for."""
        graphs: dict[int, list[tuple[Tensors, Tensors]]] = {}
        bytes_each = self._bytes_per_example() if self._room else float("inf")
        room, full = float(self._room), False
        batches = 0

        def part(index: int, loss: PerExample, leaves: Tensors) -> Tensors:
            nonlocal room, full, batches
            batches = index + 1
            slopes = gradients(loss.total.sum(), leaves, create_graph=True)
            room -= bytes_each * loss.total.numel()
            if room < 0 and not full:
                full = True
                graphs.pop(index, None)  # its other parts would be counted twice
            if not full:
                graphs.setdefault(index, []).append((slopes, leaves))
            return _along(slopes, leaves, pieces)

        with twice_differentiable(self.objective.net):
            out, sums = self.objective.accumulate(self.theta, part)
        self._graphs, self._weight = graphs, float(sums[1])
        self._complete = len(graphs) == batches
        return out

    def _rebuilt(self, pieces: Tensors) -> Tensor:
        def part(_: int, loss: PerExample, leaves: Tensors) -> Tensors:
            slopes = gradients(loss.total.sum(), leaves, create_graph=True)
            return _along(slopes, leaves, pieces)

        with twice_differentiable(self.objective.net):
            return self.objective.accumulate(self.theta, part, first=self.kept)[0]

    def _bytes_per_example(self) -> float:
        """What the graph of the first batch holds, beyond the leaves, for each example."""
        seen: dict[int, int] = {}
        examples = 0

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        def part(_: int, loss: PerExample, leaves: Tensors) -> Tensors:
            nonlocal examples
            examples += loss.total.numel()
            gradients(loss.total.sum(), leaves, create_graph=True)
            for leaf in leaves.values():
                seen.pop(leaf.untyped_storage().data_ptr(), None)
            return {}

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with twice_differentiable(self.objective.net), hooks:
            self.objective.accumulate(self.theta, part, last=1)
        return sum(seen.values()) / max(1, examples)


def _refuse_non_finite(objective: Risk, theta: Tensor) -> None:
    total = objective.losses(theta).total
    broken = (~total.isfinite()).nonzero().flatten().tolist()
    if broken:
        ends = itertools.accumulate(tree.size(batch) or 0 for batch in objective.batches)
        batch = next((i for i, end in enumerate(ends) if end > broken[0]), 0)
        raise UserError(
            f"the loss of {len(broken)} of {total.numel()} examples is not finite at this point, "
            f"the first in batch {batch}: there is no curvature; check the weights and the data"
        )


def gradients(loss: Tensor, leaves: Tensors, *, create_graph: bool = False) -> dict[str, Tensor]:
    """Gradients of a scalar by name; zero where it does not reach a leaf."""
    if not loss.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(
        loss, list(leaves.values()), create_graph=create_graph, allow_unused=True
    )
    return {
        name: torch.zeros_like(leaf) if g is None else g
        for (name, leaf), g in zip(leaves.items(), found, strict=True)
    }


def _along(slopes: Tensors, leaves: Tensors, pieces: Tensors) -> dict[str, Tensor]:
    """The derivative of the gradient along a vector; zero where the gradient is constant."""
    curved = [name for name, slope in slopes.items() if slope.requires_grad]
    if not curved:
        return {}
    found = torch.autograd.grad(
        [slopes[name] for name in curved],
        list(leaves.values()),
        grad_outputs=[pieces[name] for name in curved],
        retain_graph=True,
        allow_unused=True,
    )
    return {name: g for name, g in zip(leaves, found, strict=True) if g is not None}
