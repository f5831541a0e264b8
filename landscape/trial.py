"""A network on a few examples, with any tensors in the place of its own."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from landscape import tree
from landscape.modes import evaluating
from landscape.objective import Objective

Tensors = Mapping[str, Tensor]
T = TypeVar("T")
EXAMPLES = 4  # enough to see a change of the function


class Trial:
    """A few examples of one batch, on the CPU and in `dtype` where the network runs so.

    Attributes:
        objective: whose network and task they are.
        batch: the examples.
        device: where they are evaluated.
        dtype: in which they are evaluated.
    """

    def __init__(
        self,
        objective: Objective,
        tensors: Tensors,
        *,
        dtype: torch.dtype = torch.float64,
        batch: Any = None,
        examples: int = EXAMPLES,
    ) -> None:
        """Cut the first batch; it stays whole where its examples cannot be separated.

        Args:
            objective: gives network, task and data.
            tensors: parameters and buffers, by name, with which it runs.
            dtype: to evaluate them in, if that is possible.
            batch: to be taken whole instead.
            examples: to take of the first batch, from all over it.
        """
        self.objective = objective
        first = next(iter(objective.batches)) if batch is None else batch
        cut = batch is None and tree.can_be_cut(first)
        small = _spread(first, examples) if cut else first
        own = objective.space.device, objective.space.dtype
        places = dict.fromkeys(((torch.device("cpu"), dtype), own))
        *choices, last = [(batch, place) for batch in (small, first) for place in places]
        for batch, (self.device, self.dtype) in choices:
            self.batch = self.placed(batch)
            with contextlib.suppress(Exception):  # a network may insist on float32, or on size
                self.outputs(tensors)
                return
        self.batch, (self.device, self.dtype) = last

    def placed(self, batch: Any) -> Any:
        """A batch in the precision of the trial."""
        return tree.move(batch, self.device, self.dtype)

    def within(self, tensors: Tensors, work: Callable[[Tensors], Any]) -> Any:
        """What `work` returns, given the tensors that are in the network meanwhile."""
        inside = {}
        for name, tensor in tensors.items():
            dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
            inside[name] = tensor.detach().to(self.device, dtype)
        evaluation = self.objective.evaluation
        with evaluating(evaluation.modules), torch.enable_grad():
            return evaluation.within(inside, lambda: work(inside))

    def evaluate(self, batch: Any) -> dict[str, Tensor]:
        """Loss and metrics of a batch; to be used inside."""
        return self.objective.evaluation.values(batch, metrics=True)

    def outputs(self, tensors: Tensors) -> list[Tensor]:
        """All that the network returns for the examples, then their losses and metrics."""
        found: list[Tensor] = []

        def work(_: object) -> None:
            with _returned(self.objective.net, found):
                found.extend(self.evaluate(self.batch).values())

        self.within(tensors, work)
        return [tensor.detach().clone() for tensor in found]

    def change(self, before: list[Tensor], tensors: Tensors) -> float:
        """The largest change of an output against `before`, relative to the largest of its kind."""
        after = self.outputs(tensors)
        if [t.shape for t in after] != [t.shape for t in before]:
            return float("inf")
        return max(map(relative_change, before, after), default=0.0)


def _spread(batch: Any, count: int) -> Any:
    """Examples from all over a batch, which may be sorted by what they make a network do."""
    step = max(1, (tree.size(batch) or 0) // count)
    return tree.rows(batch, slice(0, step * count, step))


def relative_change(before: Tensor, after: Tensor) -> float:
    """The largest change of an entry, relative to the largest entry."""
    before, after = before.double(), after.double()
    if before.numel() == 0 or torch.equal(before, after):
        return 0.0
    change = (after - before).abs().nan_to_num(0.0)  # padding is NaN in both
    if not torch.equal(before.isnan(), after.isnan()):
        return float("inf")
    largest = before.nan_to_num(0.0).abs().amax()
    return float(change.amax() / largest) if largest > 0 else float("inf")


@contextlib.contextmanager
def _returned(net: nn.Module, found: list[Tensor]) -> Iterator[None]:
    def leave(module: nn.Module, _: Any, output: Any) -> None:
        if module is net:
            found.extend(tree.tensors(output))

    hook = register_module_forward_hook(leave)
    try:
        yield
    finally:
        hook.remove()
