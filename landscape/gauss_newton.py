"""Products with the generalised Gauss-Newton matrix."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from landscape import outputs
from landscape.errors import UserError
from landscape.estimate import PerExample
from landscape.jacobian import Jacobian
from landscape.modes import twice_differentiable
from landscape.products import Linear, Product, Risk, Tensors, zero

AGREEMENT = 1e-4  # relative, of the loss computed in two ways: kernels may round differently


class GaussNewton(Product):
    """v -> G v, G the generalised Gauss-Newton matrix of the mean loss.

    G = J' H_L J (Schraudolph 2002, section 3), J the Jacobian of the network's outputs z with
    respect to the weights and H_L the Hessian of the loss with respect to z, with the weights,
    masks and groups of the loss. The Hessian is G plus the curvature of z itself; the two are
    equal where z is linear in the weights. Positive semi-definite where the loss is convex in z.
    What z is, the task says or its loss shows: `outputs.Cut`.
    """

    name = "ggn"

    def __init__(self, objective: Risk, theta: Tensor, *, memory: int | None = None) -> None:
        """See `Product`.

        Raises:
            UserError: the loss of some examples is not finite.
        """
        self._cut = outputs.Cut(objective.task)
        super().__init__(objective, theta, memory=memory, loss=self._cut)

    def _roots(self, loss: PerExample) -> list[Tensor]:
        return [loss.total, *self._cut.ends.outputs]

    def _linear(self, loss: PerExample, leaves: Tensors, keep: bool) -> Linear:
        ends = self._cut.take()
        if not loss.total.requires_grad:
            return zero
        found = torch.autograd.grad(
            loss.total.sum(),
            [*ends.inputs, *leaves.values()],
            create_graph=True,
            allow_unused=True,
        )
        slopes, direct = found[: len(ends.inputs)], found[len(ends.inputs) :]
        self._cut.refuse_direct([n for n, g in zip(leaves, direct, strict=True) if g is not None])
        # Rows and columns of H_L where the slope is constant are zero.
        curved = [i for i, slope in enumerate(slopes) if slope is not None and slope.requires_grad]
        if not curved:
            self._refuse_hidden_slope()
            pairs = zip(slopes, ends.inputs, strict=True)
            parts = [
                (g.conj() * x.detach()).sum().real.to(loss.total) for g, x in pairs if g is not None
            ]
            if parts:
                self._cut.refuse_own_loss(loss.total.detach().sum(), torch.stack(parts).sum())
            return zero
        z, inputs, bent = ([some[i] for i in curved] for some in (*ends, slopes))
        return functools.partial(_sandwich, Jacobian(z, leaves, keep=keep), inputs, bent)

    def _refuse_hidden_slope(self) -> None:
        """Refuse a slope that only seems constant, where `_try_functions` does not try it."""
        if self._functions and self._in_network:
            raise UserError(
                "the Gauss-Newton matrix needs the second derivative of the loss in the outputs, "
                f"and torch sees none through {' and '.join(sorted(self._functions))}: write its "
                "backward() with operations on ctx.saved_tensors"
            )

    def _build(self, pieces: Tensors) -> Tensor:
        out = super()._build(pieces)
        self._try_functions()
        if self.objective.task.outputs is not None:
            with twice_differentiable(self.objective.evaluation.modules):
                _, sums = self.objective.accumulate(self.theta, lambda *_: {})
            gap = float((self._total - sums[0]) / sums[0].abs().clamp_min(1e-300))
            if abs(gap) > AGREEMENT:
                raise UserError(
                    "the loss computed from the task's outputs differs from loss(net, batch) by a "
                    f"relative {gap:.1e} in total: output_loss(outputs(net, batch), batch) must be "
                    "the loss"
                )
        return out


def _sandwich(
    jacobian: Jacobian, inputs: Sequence[Tensor], slopes: Sequence[Tensor], pieces: Tensors
) -> dict[str, Tensor]:
    """J' H_L J v, where `slopes` is the gradient of the loss with respect to `inputs`."""
    along = jacobian.times(pieces)
    found = torch.autograd.grad(
        slopes, inputs, along, retain_graph=jacobian.keep, allow_unused=True
    )
    pairs = zip(found, inputs, strict=True)
    return jacobian.transposed_times([torch.zeros_like(x) if g is None else g for g, x in pairs])
