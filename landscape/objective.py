"""The empirical risk of a task as a function of one flat vector."""

import copy
import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from landscape import batchnorm, products, ranks, tree
from landscape.device import accumulator
from landscape.errors import UserError
from landscape.estimate import Estimate, PerExample, estimate, join, without_weight
from landscape.evaluation import Evaluation, Loss
from landscape.fisher import Fisher
from landscape.gauss_newton import GaussNewton
from landscape.modes import evaluating
from landscape.space import WeightSpace, channels_last
from landscape.task import Task

Tensors = Mapping[str, Tensor]
T = TypeVar("T")
MATRICES: dict[str, type[products.Product]] = {
    "hessian": products.Hessian,
    "ggn": GaussNewton,
    "fisher": Fisher,
}


class Objective:
    """The mean loss over the examples, and the task's metrics, at any point (P,).

    Pure: the network, its mode, its buffers and its gradients are the same bits before and
    after every call. The network is evaluated in eval mode; its frozen parameters and buffers
    are passed functionally, from copies in the dtype and on the device of `space`.

    Attributes:
        net: the network with the checkpoint's weights; never written to.
        space: the coordinates that move.
        batches: any iterable that gives the same batches at every pass.
        evaluation: the task on one batch.
        l2: X adds X/2 |theta|^2 to the loss.
        statistics: batches over which BatchNorm statistics are computed anew at every point;
            None keeps the checkpoint's own. Derivatives hold them still.
    """

    def __init__(
        self,
        task: Task,
        net: nn.Module,
        space: WeightSpace,
        batches: Iterable[Any],
        *,
        l2: float = 0.0,
        statistics: Iterable[Any] | None = None,
        evaluation: Evaluation | None = None,
    ) -> None:
        """Bind a task to a network and data; nothing is evaluated yet."""
        self.net, self.space, self.batches = net, space, batches
        self.l2, self.statistics = l2, statistics
        self.evaluation = evaluation or Evaluation(task, net)
        self._grad_inside: bool | None = None  # not known before the first evaluation
        self._masks: list[Tensor | None] | None = None  # looked for at the first NaN
        self._constants: dict[str, Tensor] | None = None

    @property
    def task(self) -> Task:
        """What is evaluated."""
        return self.evaluation.task

    def theta(self) -> Tensor:
        """The point (P,) at which the network stands: its checkpoint."""
        return self.space.ravel(self.evaluation.own())

    def restricted(self, theta: Tensor, names: Collection[str]) -> tuple["Objective", Tensor]:
        """The loss as a function of the tensors `names` alone, and its point in their space.

        The others stay where they are at `theta` (P,). The Hessian of this objective is the
        principal submatrix of the whole one.

        Raises:
            ValueError: `names` holds none of the space's tensors.
        """
        part = copy.copy(self)  # the network, its evaluation and what was found out are shared
        part.space = self.space.only(names)
        pieces = self.space.unravel(theta.detach())
        still = {name: t.clone() for name, t in pieces.items() if name not in part.space.names}
        part._constants = {**self.constants(), **still}
        return part, part.space.ravel(pieces)

    def settled(self, theta: Tensor) -> "Objective":
        """The loss with the BatchNorm statistics that it has at `theta` (P,), anywhere.

        Costs one pass over `statistics`; without them it is the same loss.
        """
        fresh = self.buffers_at(theta)
        if fresh is None:
            return self
        still = copy.copy(self)  # the network, its evaluation and what was found out are shared
        still.statistics, still._constants = None, {**self.constants(), **fresh}
        return still

    def evaluate(self, theta: Tensor, *, buffers: Tensors | None = None) -> dict[str, Estimate]:
        """Mean and standard error of the loss and of every metric at `theta` (P,).

        Args:
            theta: the point.
            buffers: by name, in place of the checkpoint's own or recomputed ones.

        Returns:
            Estimates by name, "loss" first. Non-finite values are returned as they are.
            Costs one pass over the batches, and one over `statistics` if there are any.
        """
        results = self._results(theta, metrics=True, buffers=buffers)
        shift = self.penalty(theta)
        found = {
            name: estimate(examples, shift if name == "loss" else 0.0)
            for name, examples in results.items()
        }
        # Seen in the mean, which is on the host: to look at the values would wait once more.
        if math.isnan(found["loss"].mean) and self._unmasked(results["loss"].total):
            return self.evaluate(theta, buffers=buffers)
        return found

    def examples(self, theta: Tensor, *, buffers: Tensors | None = None) -> dict[str, PerExample]:
        """Totals and weights (N,) of the loss and of every metric at `theta` (P,), float64."""
        return self._examples(theta, metrics=True, buffers=buffers)

    def losses(self, theta: Tensor, *, buffers: Tensors | None = None) -> PerExample:
        """Totals and weights (N,) of the loss of each example at `theta` (P,), float64."""
        return self._examples(theta, metrics=False, buffers=buffers)["loss"]

    def buffers_at(self, theta: Tensor) -> dict[str, Tensor] | None:
        """BatchNorm buffers recomputed at `theta` (P,); None where they are not.

        Costs one pass over `statistics`.
        """
        if self.statistics is None:
            return None
        return self._recomputed(self._tensors(theta), self.statistics)

    def loss(self, theta: Tensor) -> float:
        """Mean loss at `theta` (P,)."""
        return estimate(self.losses(theta), self.penalty(theta)).mean

    def over(self, batches: Iterable[Any], *, dtype: torch.dtype | None = None) -> "Objective":
        """The same loss over other batches of the task; in `dtype`, if given, as they must be."""
        other = copy.copy(self)  # the network, its evaluation and what was found out are shared
        other.batches, other._masks = batches, None
        if dtype is not None and dtype != self.space.dtype:
            other.space, other._constants = replace(self.space, dtype=dtype), None
        return other

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient (P,) of the mean loss at `theta` (P,); costs one pass forward and back."""
        return self.loss_and_gradient(theta)[1]

    def loss_and_gradient(
        self, theta: Tensor, *, loss: Loss | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean loss () and its gradient (P,) at `theta` (P,); costs one pass forward and back.

        `loss` is another way to compute the task's loss.

        Raises:
            UserError: all weights move, and no graph leads to them from the loss of any batch.
        """
        reached: list[bool] = []  # none where this rank has no batch

        def part(_: int, examples: PerExample, leaves: Tensors) -> Tensors:
            reached.append(examples.total.requires_grad)
            return products.gradients(examples.total.sum(), leaves)

        out, sums = self.accumulate(theta, part, loss=loss)
        if reached and not any(reached) and self._all_move():
            raise UserError(
                "the task's loss has no derivative: no graph leads from it to the weights. Look in "
                "it for detach(), item(), numpy() and no_grad(); surfaces and lines need no graph"
            )
        # The loss is looked at, not its derivative, which padding may leave finite.
        if self._unmasked(sums):
            out, sums = self.accumulate(theta, part, loss=loss)
        mean = sums[0] / sums[1] + self.penalty(theta)
        return mean, self.penalised(out.div_(sums[1].to(out.dtype)), theta)

    def _all_move(self) -> bool:
        moving = {name for name, p in self.net.named_parameters() if p.requires_grad}
        return moving <= set(self.space.names)

    def matrix(self, kind: str, theta: Tensor, *, memory: int | None = None) -> products.Product:
        """The product with the matrix `kind`, one of `MATRICES`, at `theta`."""
        if kind not in MATRICES:
            raise ValueError(f"no matrix {kind!r}: one of {', '.join(MATRICES)}")
        return MATRICES[kind](self, theta, memory=memory)

    def hessian(self, theta: Tensor, *, memory: int | None = None) -> products.Hessian:
        """The product with the Hessian of the mean loss at `theta`: see `products.Hessian`."""
        return products.Hessian(self, theta, memory=memory)

    def gauss_newton(self, theta: Tensor, *, memory: int | None = None) -> GaussNewton:
        """The product with the generalised Gauss-Newton matrix: see `gauss_newton`."""
        return GaussNewton(self, theta, memory=memory)

    def fisher(self, theta: Tensor, *, memory: int | None = None) -> Fisher:
        """The product with the empirical Fisher matrix: see `fisher`."""
        return Fisher(self, theta, memory=memory)

    def accumulate(
        self,
        theta: Tensor,
        part: Callable[[int, PerExample, Tensors], Tensors],
        *,
        first: int = 0,
        last: int | None = None,
        loss: Loss | None = None,
        most: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sum over the batches of a derivative of their losses, and the weight of the sum.

        Args:
            theta: (P,) the point; its pieces are the leaves of the graph.
            part: given the index of a batch, the losses of (a part of) its examples and the
                leaves, returns the derivative by name.
            first: the batch to begin with.
            last: the batch to end before; None for all.
            loss: another way to compute the task's loss.
            most: examples of a batch to take at once, where they are independent; None for all.

        Returns:
            The sum (P,), and the total and the weight (2,) of the losses it came from.
            Statistics that move with the weights are no weights: along them it is 0.
        """
        out = torch.zeros_like(theta)
        views = self.space.unravel(out)
        sums = torch.zeros(2, dtype=accumulator(theta.device), device=theta.device)
        tensors = self.leaves(theta)
        leaves = {n: tensors[n] for n in views if n not in self.space.buffers}

        def work() -> None:
            numbered = enumerate(self._masked_batches())
            for index, ((batch, mask), counts) in itertools.islice(numbered, first, last):
                use = functools.partial(add, index, counts)
                self.evaluation.each(batch, use, mask=mask, loss=loss, most=most)

        def add(index: int, counts: bool, found: dict[str, PerExample]) -> None:
            examples = found["loss"] if counts else without_weight(found["loss"])
            for name, piece in part(index, examples, leaves).items():
                views[name].add_(piece)
            total, weight = examples.total.detach().sum(), examples.weight.sum()
            sums.add_(torch.stack([total, weight]).to(sums))

        with evaluating(self.evaluation.modules), torch.enable_grad():
            self.evaluation.within(tensors, work)
        self.evaluation.summed(out)
        ranks.add(sums)
        return out, sums

    def at(self, tensors: Tensors, work: Callable[[], None]) -> None:
        """Do `work` with `tensors` in the network, as `accumulate` evaluates it."""
        with evaluating(self.evaluation.modules), torch.enable_grad():
            self.evaluation.within(tensors, work)

    def leaves(self, theta: Tensor) -> dict[str, Tensor]:
        """The tensors of the network at `theta` (P,), by name.

        Parameters that move are leaves of a graph, without that of theta.
        """
        tensors = {name: tensor.detach() for name, tensor in self._tensors(theta).items()}
        for name in set(self.space.names) - self.space.buffers:
            tensors[name].requires_grad_()
        return tensors

    def penalised(self, derivative: Tensor, of_penalty: Tensor) -> Tensor:
        """`derivative` (P,) with that of the penalty added, which is l2 times `of_penalty`."""
        if self.l2:
            views, penalty = self.space.unravel(derivative), self.space.unravel(of_penalty)
            for name in set(views) - self.space.buffers:
                views[name].add_(penalty[name].detach(), alpha=self.l2)
        return derivative

    def constants(self) -> dict[str, Tensor]:
        """Parameters and buffers that do not move, in the dtype and on the device of theta."""
        if self._constants is None:
            self._constants = {
                # Buffers are copies, for networks that write to them in eval mode.
                name: self._placed(tensor, copy=not isinstance(tensor, nn.Parameter))
                for name, tensor in self.evaluation.own().items()
                if name not in self.space.names
            }
        return self._constants

    def _placed(self, tensor: Tensor, *, copy: bool) -> Tensor:
        dtype = self.space.dtype if tensor.is_floating_point() else tensor.dtype
        layout = torch.channels_last if channels_last(tensor.shape) else torch.preserve_format
        return tensor.detach().to(self.space.device, dtype, copy=copy, memory_format=layout)

    def values(self, batch: Any, *, share: bool = False) -> dict[str, Tensor]:
        """What the task returns for one batch at the checkpoint: `Evaluation.values`."""
        return self._evaluated(
            self._own(), lambda: self.evaluation.values(batch, metrics=True, share=share)
        )

    def values_twice(self, batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`values` asked for two times within one pass, as two batches are."""

        def work() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            first, second = (self.evaluation.values(batch, metrics=True) for _ in range(2))
            return first, second

        return self._evaluated(self._own(), work)

    def independent(self, batch: Any) -> bool | None:
        """Whether examples have the same loss in a part of the batch: `Evaluation.independent`."""
        if self._grad_inside is None:
            self.values(batch)  # settles it: a part may fail for other reasons
        return self._evaluated(self._own(), lambda: self.evaluation.independent(batch))

    def _evaluated(self, tensors: Tensors, work: Callable[[], T]) -> T:
        """What `work` returns with `tensors` in the network, without a graph where possible.

        A loss that differentiates inside (forces) may need the graph on a surface too; whether
        it does is found out once. Inference mode would be no faster, and what a network caches
        in it (rotary embeddings) could not be differentiated later.
        """
        with evaluating(self.evaluation.modules):
            if self._grad_inside:
                with torch.enable_grad():
                    return self.evaluation.within(tensors, work)
            try:
                with torch.no_grad():
                    result = self.evaluation.within(tensors, work)
            except UserError:
                if self._grad_inside is not None:
                    raise
            else:
                self._grad_inside = False
                return result
            with torch.enable_grad():
                result = self.evaluation.within(tensors, work)
            self._grad_inside = True
            return result

    def _own(self) -> dict[str, Tensor]:
        """The tensors of the checkpoint itself; a copy only for another dtype or device."""
        where = self.space
        moving = {n: t for n, t in self.evaluation.own().items() if n in where.names}
        placed = {n: t.detach().to(where.device, where.dtype) for n, t in moving.items()}
        return {**self.constants(), **placed}

    def _tensors(self, theta: Tensor) -> dict[str, Tensor]:
        moving = self.space.tensors(theta)
        for name in self.space.buffers:
            if name.endswith("running_var"):  # extrapolated below zero it means nothing
                moving[name] = moving[name].clamp_min(0.0)
        return {**self.constants(), **moving}

    def penalty(self, theta: Tensor) -> float | Tensor:
        """What l2 adds to the loss at `theta` (P,)."""
        if not self.l2:
            return 0.0
        moving, wide = self.space.unravel(theta), accumulator(theta.device)
        weights = [t for name, t in moving.items() if name not in self.space.buffers]
        norms = [torch.linalg.vector_norm(t, dtype=wide) for t in weights]
        return self.l2 / 2 * self.space.total(torch.stack(norms).square().sum())

    def _examples(
        self, theta: Tensor, *, metrics: bool, buffers: Tensors | None
    ) -> dict[str, PerExample]:
        results = self._results(theta, metrics=metrics, buffers=buffers)
        if self._unmasked(results["loss"].total):
            return self._results(theta, metrics=metrics, buffers=buffers)
        return results

    def _results(
        self, theta: Tensor, *, metrics: bool, buffers: Tensors | None
    ) -> dict[str, PerExample]:
        tensors = self._tensors(theta)
        if buffers is None:
            buffers = self.buffers_at(theta)
        return self._evaluated({**tensors, **(buffers or {})}, lambda: self._pass(metrics))

    def _pass(self, metrics: bool) -> dict[str, PerExample]:
        batches: list[dict[str, PerExample]] = []
        parts: dict[str, list[PerExample]] = {}

        def collect(found: dict[str, PerExample]) -> None:
            for name, examples in found.items():
                apart = examples._replace(total=examples.total.detach())
                parts.setdefault(name, []).append(apart)

        for (batch, mask), counts in self._masked_batches():
            parts.clear()
            self.evaluation.each(batch, collect, mask=mask, metrics=metrics)
            if counts:
                batches.append({name: join(pieces) for name, pieces in parts.items()})
        return ranks.gathered(batches, self.space.device)

    def _recomputed(self, tensors: Tensors, batches: Iterable[Any]) -> dict[str, Tensor]:
        def work() -> dict[str, Tensor]:
            statistics = batchnorm.fresh(self.net, dtype=self.space.dtype, device=self.space.device)
            seen = self.evaluation.within({**tensors, **statistics}, pass_through)
            ranks.average([t for t in statistics.values() if t.is_floating_point()], seen)
            return statistics

        def pass_through() -> int:
            seen = 0
            with batchnorm.accumulating(self.net) as weigh:
                for batch, counts in self.evaluation.share(batches):
                    size = (tree.size(batch) or 1) if counts else 0
                    weigh(size)
                    self.evaluation.values(batch)
                    seen += size
            return seen

        return self._evaluated(tensors, work)

    def _masked_batches(self) -> Iterator[tuple[tuple[Any, Tensor | None], bool]]:
        """The batches of this rank with their masks, and whether they count."""
        masks = iter(self._masks or ())
        return self.evaluation.share((batch, next(masks, None)) for batch in self.batches)

    def _unmasked(self, values: Tensor) -> bool:
        """Whether `values` are NaN because of padding that nobody had masked before.

        Entries of examples that are NaN at the checkpoint are padding, everywhere; a NaN
        elsewhere is a loss that is not finite. Looked up once, at the first NaN seen.
        """
        if self._masks is not None or not bool(values.isnan().any()):
            return False

        def work() -> list[Tensor | None]:
            masks: list[Tensor | None] = []
            for batch in self.batches:
                broken = self.evaluation.values(batch)["loss"].detach().isnan()
                if broken.shape == (tree.size(batch),) and self.task.groups is None:
                    _refuse_examples(broken)
                masks.append(~broken if broken.ndim and bool(broken.any()) else None)
            return masks

        masks = self._evaluated(self._own(), work)
        found = any(mask is not None for mask in masks)
        self._masks = masks if found else []
        return found


def _refuse_examples(broken: Tensor) -> None:
    """One value per example leaves no room for padding: a NaN among them is a broken example."""
    if bool(broken.any()):
        raise UserError(
            f"the loss of {int(broken.sum())} of the {broken.numel()} examples of a batch is NaN "
            "at the checkpoint: look at those examples, or leave them out with weights(batch)"
        )
