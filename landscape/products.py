"""Products of a vector with second-derivative matrices of the mean loss, never formed.

Reverse over reverse throughout: `torch` has silently wrong values in gradients of forward-mode
derivatives (through layer_norm and batch_norm), and fused attention has none.
"""

import abc
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from landscape import ranks, tree
from landscape.device import free_memory
from landscape.errors import UserError
from landscape.estimate import PerExample
from landscape.evaluation import Evaluation, Loss
from landscape.modes import twice_differentiable
from landscape.second_order import (
    Narrow,
    explanation,
    refuse_once_differentiable,
    refuse_wrong,
)
from landscape.space import WeightSpace
from landscape.task import Task

Matvec = Callable[[Tensor], Tensor]
Tensors = Mapping[str, Tensor]
Linear = Callable[[Tensors], Tensors]
Part = Callable[[int, PerExample, Tensors], Tensors]
Sums = tuple[Tensor, Tensor]

# The graph of a single batch is kept in two halves from this size on: in one its products peak at
# 1.3 times what one with a rebuilt graph does (a ResNet-20, a GPT), in two at 1.1 times.
LARGE = 64 * 2**20
FEW = 8  # examples that tell how large the graph of a batch will be


class Risk(Protocol):
    """What a product needs of `objective.Objective`."""

    space: WeightSpace
    batches: Iterable[Any]
    evaluation: Evaluation

    @property
    def task(self) -> Task:
        """What is evaluated."""

    def losses(self, theta: Tensor) -> PerExample:
        """Totals and weights (N,) of the examples at a point (P,)."""

    def over(self, batches: Iterable[Any], *, dtype: torch.dtype | None = None) -> "Risk":
        """The same over other batches, in `dtype` if given."""

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient (P,) of the mean at a point (P,)."""

    def independent(self, batch: Any) -> bool | None:
        """Whether the examples of a batch have the same loss in a part of it."""

    def leaves(self, theta: Tensor) -> dict[str, Tensor]:
        """All tensors of the network at a point (P,); those that move begin a graph."""

    def at(self, tensors: Tensors, work: Callable[[], None]) -> None:
        """Do `work` with these tensors in the network."""

    def accumulate(
        self,
        theta: Tensor,
        part: Part,
        *,
        first: int = 0,
        last: int | None = None,
        loss: Loss | None = None,
        most: int | None = None,
    ) -> Sums:
        """Sum of a derivative over the batches, and total and weight of their losses."""

    def penalised(self, derivative: Tensor, of_penalty: Tensor) -> Tensor:
        """The derivative (P,) with that of the penalty added."""


class Product(abc.ABC):
    """v -> A v, A the mean over the examples of a second-derivative matrix, at a point.

    What differs from matrix to matrix is `_linear`, the product with the matrix of a part of one
    batch, for which that part's graph is built. The graphs of as many batches as fit into
    `memory` are kept from the first product on, which saves their building (a third of a Hessian
    product); the others are built anew for every product.

    Attributes:
        name: of the matrix, as in `objective.MATRICES`.
        products: made so far.
        kept: batches whose graph is kept.
        losses: totals and weights (N,) of the examples at the point.
    """

    name: ClassVar[str]

    def __init__(
        self, objective: Risk, theta: Tensor, *, memory: int | None = None, loss: Loss | None = None
    ) -> None:
        """Check the point; nothing is built before the first product.

        Args:
            objective: the mean loss.
            theta: (P,) the point.
            memory: bytes for kept graphs; 0 keeps none, None a quarter of what is free, and in
                any case the graph of a single batch.
            loss: another way to compute the task's loss.

        Raises:
            UserError: the loss of some examples is not finite there.
        """
        self.objective, self.theta = objective, theta.detach().clone()
        self.products = 0
        self._loss = loss
        self._complete = self._some = False  # all graphs are kept, or some, on whatever rank
        self._memory = memory
        self._graphs: dict[int, list[Linear]] | None = None
        self._functions: set[str] = set()  # of the user's own, in what is derived twice
        self._in_network = False  # there are others, in what is derived once
        self._total = self._weight = torch.zeros(())  # of the first product's losses
        self.losses = objective.losses(self.theta)
        refuse_non_finite(objective, self.losses.total)

    @property
    def kept(self) -> int:
        """Batches whose graph is kept."""
        return len(self._graphs or {})

    def __call__(self, v: Tensor) -> Tensor:
        """A v (P,), for v (P,).

        Raises:
            UserError: the loss has no second derivatives; the operation is named.
        """
        pieces = self.objective.space.tensors(v)
        self.products += 1
        if self._graphs is None:
            out = self._build(pieces)
        else:
            out = torch.zeros_like(v)
            if self._some:
                self._add_kept(pieces, self.objective.space.unravel(out))
                self.objective.evaluation.summed(out)
            if not self._complete:
                out += self._rebuilt(pieces)
        # The weight stays on its device: a number of the host would wait for it.
        return self.objective.penalised(out.div_(self._weight.to(out.dtype)), v)

    def graph_bytes(self) -> float:
        """What the graphs of all examples would hold, judged by the first batch: a gradient."""
        return self._bytes_per_example(self.objective) * self.losses.total.numel()

    @abc.abstractmethod
    def _linear(self, loss: PerExample, leaves: Tensors, keep: bool) -> Linear:
        """The product with the matrix of a part of a batch, times the weight of its examples.

        keep: whether it is used more than once; if not, its graph is freed on the way.
        """

    def _roots(self, loss: PerExample) -> list[Tensor]:
        """Where the graph of a part of a batch begins, first that of what is derived twice."""
        return [loss.total]

    def _build(self, pieces: Tensors) -> Tensor:
        """The first product, which keeps what graphs there is room for."""
        graphs: dict[int, list[Linear]] = {}
        single = self._memory is None and self._is_single()
        bytes_each = 0.0 if single else self._bytes_per_example(self.objective)
        half = self._half() if single else None
        room, full, batches = self._room(), False, 0

        def part(index: int, loss: PerExample, leaves: Tensors) -> Tensors:
            nonlocal room, full, batches
            in_loss, *others = [refuse_once_differentiable([root]) for root in self._roots(loss)]
            self._functions |= in_loss
            self._in_network |= any(others)
            size = bytes_each * loss.total.numel()
            # More parts of a single batch than planned come from memory that has run out.
            planned = not single or len(graphs.get(index, ())) < (1 if half is None else 2)
            keep = not full and size <= room and planned
            keep = self.objective.evaluation.agreed(keep)
            linear = self._linear(loss, leaves, keep)
            out = linear(pieces)  # before anything is noted: where memory runs out, it is redone
            batches = index + 1
            room -= size
            if keep:
                graphs.setdefault(index, []).append(linear)
            elif not full:
                full = True
                graphs.pop(index, None)  # its other parts would be counted twice
            return out

        out, sums = self._summed(part, most=half)
        self._graphs, (self._total, self._weight) = graphs, sums
        ends = ranks.of_all((len(graphs) == batches, bool(graphs)))
        self._complete, self._some = all(whole for whole, _ in ends), any(some for _, some in ends)
        return out

    def _try_functions(self) -> None:
        """Refuse autograd functions with a wrong second derivative, as a few examples show it."""
        held = ranks.of_all((self._functions, self._in_network))
        names: set[str] = set().union(*(found for found, _ in held))
        # What tries them is the Hessian, which a matrix need not be where networks have them too.
        if self.objective.space.split or not names or any(beside for _, beside in held):
            return
        with ranks.alone():
            for batch in self.objective.batches:
                if self._tried(names, few(self.objective, batch)) or self._tried(names, batch):
                    return

    def _tried(self, names: set[str], part: Any) -> bool:
        """Whether a part of a batch is through all functions; they have been tried on it then."""
        double, device = torch.float64, self.theta.device
        theta = self.theta.to(double)
        try:
            over = self.objective.over([tree.move(part, device, double)], dtype=double)
            hessian = _Trusted(over, theta, memory=0)
            with Narrow() as narrow:
                hessian(theta)
        except Exception:  # of any kind: a kernel of float32 alone
            return True
        if narrow.seen:
            return True
        if names <= hessian._functions:
            refuse_wrong(names, hessian, over.gradient, theta)
            return True
        return False

    def _is_single(self) -> bool:
        """Whether there is one batch, whose graph is kept without a pass to measure it."""
        batches = itertools.islice(self.objective.batches, 2)
        return self.objective.evaluation.micro_batch is None and len(list(batches)) == 1

    def _half(self) -> int | None:
        """Examples of one half of a single batch whose graph is large; None for all at once."""
        batch = next(iter(self.objective.batches))
        size = tree.size(batch)
        if size is None or not tree.can_be_cut(batch):
            return None
        some = self.objective.over([tree.rows(batch, slice(0, FEW))])
        large = size * self._bytes_per_example(some) > LARGE
        large = self.objective.evaluation.agreed(large)
        return -(-size // 2) if large and self.objective.independent(batch) else None

    def _room(self) -> float:
        return free_memory(self.theta.device) // 4 if self._memory is None else self._memory

    def _add_kept(self, pieces: Tensors, views: Tensors) -> None:
        """Add the products of the kept graphs to `views`."""
        graphs = [linear for parts in (self._graphs or {}).values() for linear in parts]

        def work() -> None:
            for linear in graphs:
                for name, piece in linear(pieces).items():
                    views[name].add_(piece)

        # The network stands at the point, for parts of it that activation checkpointing redoes.
        with twice_differentiable(self.objective.evaluation.modules):
            self.objective.at(self._tensors, work)

    @functools.cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return self.objective.leaves(self.theta)

    def _rebuilt(self, pieces: Tensors) -> Tensor:
        def part(_: int, loss: PerExample, leaves: Tensors) -> Tensors:
            return self._linear(loss, leaves, keep=False)(pieces)

        return self._summed(part, first=self.kept)[0]

    def _bytes_per_example(self, objective: Risk) -> float:
        """What the graph of the first batch holds, beyond the leaves, for each example."""
        if self._memory == 0:
            return math.inf
        seen: dict[int, int] = {}
        found: list[float] = []

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # itself, it would hold its node, which holds it: for ever

        def part(_: int, loss: PerExample, leaves: Tensors) -> Tensors:
            if not found:  # one part: the memory of the next would lie where this one's did
                refuse_once_differentiable(self._roots(loss))
                linear = self._linear(loss, leaves, keep=True)
                for leaf in leaves.values():
                    seen.pop(leaf.untyped_storage().data_ptr(), None)
                found.append(sum(seen.values()) / max(1, loss.total.numel()))
                del linear
            return {}

        with self.objective.evaluation.watching(pack):
            self._summed(part, last=1, objective=objective)
        return found[0] if found else 0.0  # a rank without batches

    def _summed(
        self,
        part: Part,
        *,
        first: int = 0,
        last: int | None = None,
        most: int | None = None,
        objective: Risk | None = None,
    ) -> Sums:
        objective = objective or self.objective
        limits: dict[str, Any] = {"first": first, "last": last, "most": most}
        try:
            with twice_differentiable(objective.evaluation.modules):
                return objective.accumulate(self.theta, part, loss=self._loss, **limits)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise explanation(error) from error


class Hessian(Product):
    """v -> H v, H the Hessian of the mean loss at a point.

    Pearlmutter (1994) in reverse over reverse: H v is the gradient of g(theta).v, g the gradient.
    """

    name = "hessian"

    def _linear(self, loss: PerExample, leaves: Tensors, keep: bool) -> Linear:
        slopes = gradients(loss.total.sum(), leaves, create_graph=True)
        return functools.partial(_along, slopes, leaves, keep)

    def _build(self, pieces: Tensors) -> Tensor:
        out = super()._build(pieces)
        self._try_functions()
        return out


class _Trusted(Hessian):
    """The same, without a trial of the user's functions: their trial is made of it."""

    def _try_functions(self) -> None:
        """Nothing."""


def few(objective: Risk, batch: Any) -> Any:
    """Some examples of a batch; all of it where they have no loss by themselves."""
    apart = tree.can_be_cut(batch) and objective.independent(batch)
    return tree.rows(batch, slice(0, FEW)) if apart else batch


def zero(_: Tensors) -> Tensors:
    """The product of a part whose matrix is zero: it reaches no leaf."""
    return {}


def refuse_non_finite(objective: Risk, total: Tensor) -> None:
    """Refuse a point at which examples have no finite loss, with the batch of the first one."""
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


def _along(slopes: Tensors, leaves: Tensors, keep: bool, pieces: Tensors) -> dict[str, Tensor]:
    """The derivative of the gradient along a vector; zero where the gradient is constant."""
    curved = [name for name, slope in slopes.items() if slope.requires_grad]
    if not curved:
        return {}
    found = torch.autograd.grad(
        [slopes[name] for name in curved],
        list(leaves.values()),
        grad_outputs=[pieces[name] for name in curved],
        retain_graph=keep,
        allow_unused=True,
    )
    return {name: g for name, g in zip(leaves, found, strict=True) if g is not None}
