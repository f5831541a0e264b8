"""The loss around a point: rises paired per example, and what they cost."""

from functools import cached_property

import torch
from torch import Tensor

from landscape import lanczos, tree
from landscape.errors import UserError
from landscape.estimate import PerExample, estimate
from landscape.objective import Objective


class Around:
    """L(theta + e) - L(theta), formed for each example in float64, then averaged.

    Attributes:
        objective: the mean loss.
        theta: (P,) the centre; may be of a lower precision than the space of the objective.
        base: totals and weights of the losses of the examples at the centre.
        loss: its mean at the centre, with what l2 adds.
        metrics: the same of the task's metrics, by name.
        gradients: spent so far.
        forwards: spent so far, those of gradients not counted.
    """

    def __init__(self, objective: Objective, theta: Tensor) -> None:
        """Evaluate the centre: one forward.

        Raises:
            UserError: the loss is not finite there.
        """
        self.objective, self.theta = objective, theta.detach()
        self.metrics = objective.examples(self.theta.to(objective.space.dtype))
        self.base = self.metrics.pop("loss")
        self.gradients, self.forwards = 0, 1
        if not bool(self.base.total.isfinite().all()):
            broken = int((~self.base.total.isfinite()).sum())
            raise UserError(
                f"the loss of {broken} of {self.base.total.numel()} examples is not finite at the "
                "checkpoint: there is no rise to measure; check the weights and the data"
            )
        mean_loss = self.base.total.sum() / self.base.weight.sum()
        self.loss = float(mean_loss + objective.penalty(self.theta))

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient (P,) at the centre; kept, since every norm and radius begins with it.

        Raises:
            UserError: it is not finite.
        """
        self.gradients += 1
        gradient = self.objective.gradient(self.theta)
        if not self.objective.space.finite(gradient):
            raise UserError(
                "the gradient is not finite at this point, though the loss is: look for a square "
                "root, a norm or a logarithm of 0 in the network or the loss"
            )
        return gradient

    def rises(self, u: Tensor, scale: Tensor | None = None) -> PerExample:
        """Totals of the rises and weights (N,) at e = scale * u (P,); one forward.

        A loss that is not a number counts as infinite. Holds one vector beside those given.
        """
        self.forwards += 1
        there = self.objective.losses(self._point(u, scale))
        total = there.total - self.base.total + self._penalty(u, scale) * self.base.weight
        return PerExample(total.nan_to_num(torch.inf, torch.inf, -torch.inf), *self.base[1:])

    def rise(self, u: Tensor, scale: Tensor | None = None) -> float:
        """The mean rise at e = scale * u (P,); one forward."""
        return mean(self.rises(u, scale))

    def slope(self, u: Tensor, scale: Tensor | None = None) -> tuple[float, Tensor]:
        """The mean rise at e = scale * u (P,) and the gradient (P,) there; one gradient."""
        self.gradients += 1
        loss, gradient = self.objective.loss_and_gradient(self._point(u, scale))
        return float((loss - self.loss).nan_to_num(torch.inf, torch.inf, -torch.inf)), gradient

    def _point(self, u: Tensor, scale: Tensor | None) -> Tensor:
        wide = self.objective.space.dtype
        e = u.to(wide, copy=True) if scale is None else (u * scale).to(wide)
        return e.add_(self.theta)

    def _penalty(self, u: Tensor, scale: Tensor | None) -> float:
        if not self.objective.l2:
            return 0.0
        e = (u if scale is None else u * scale).to(self.objective.space.dtype)
        pair = torch.stack([self.theta.to(e), e])
        along, square = lanczos.dots(pair, e, self.objective.space).tolist()
        return float(self.objective.l2 * (along + square / 2))


def mean(rises: PerExample) -> float:
    """The mean of paired rises; infinite where that of one example is."""
    return estimate(rises).mean


class Rounding:
    """How far rises are off by rounding: float64 forwards of the same perturbations.

    On the first batch, with its own network precision and in float64 from the same weights.
    """

    def __init__(self, around: Around) -> None:
        """Take the first batch to float64; one forward there."""
        self.around, self.wide = around, None
        where = around.objective.space
        if where.dtype == torch.float64 or where.device.type == "mps":
            return
        first = tree.move(next(iter(around.objective.batches)), where.device, torch.float64)
        exact = around.objective.over([first], dtype=torch.float64)
        self.wide = Around(exact, around.theta)

    def error(self, u: Tensor, rises: PerExample, scale: Tensor | None = None) -> float:
        """The mean of `rises` (N,) at e = scale * u (P,) less that in float64.

        Of the first batch; one float64 forward of it. NaN if it is not known.
        """
        if self.wide is None:
            return float("nan")
        exact = self.wide.rises(u, scale)
        count = len(exact.total)
        same = PerExample(rises.total[:count], rises.weight[:count], rises.basis)
        return mean(same) - mean(exact)
