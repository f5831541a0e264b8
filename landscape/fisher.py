"""Products with the empirical Fisher matrix."""

from typing import Any

import torch
from torch import Tensor

from landscape.errors import UserError
from landscape.estimate import NONE, PerExample
from landscape.jacobian import Jacobian
from landscape.products import Linear, Product, Tensors, zero


class Fisher(Product):
    """v -> F v, F the empirical Fisher matrix: the mean of squared gradients of the examples.

    F = sum_i w_i g_i g_i' / sum_i w_i, where g_i is the gradient of m_i = t_i / w_i, the mean loss
    of example i over its entries (t_i its total, w_i its weight). Positive semi-definite. The
    labels are those of the data, not drawn from the network's own distribution, so it is the
    Fisher information only where the network is right (Kunstner et al. 2019, eq. 3).

    An example is what the standard error of the loss rests on: of a (B, ...) loss a row, with
    `groups` a group. In a flat loss without groups each entry counts as one. With l2, the
    penalty's own l2 I is added, as to the Hessian.
    """

    name = "fisher"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See `Product`.

        Raises:
            UserError: the loss has no values for single examples, or is not finite.
        """
        super().__init__(*args, **kwargs)
        if self.losses.basis == NONE:
            raise UserError(
                "the empirical Fisher matrix needs the loss of each example, and the task's loss "
                "returns one number for a batch: return one value per example (reduction='none')"
            )

    def _linear(self, loss: PerExample, leaves: Tensors, keep: bool) -> Linear:
        if not loss.total.requires_grad:
            return zero
        weight, jacobian = loss.weight, Jacobian([loss.total], leaves, keep=keep)

        def times(pieces: Tensors) -> dict[str, Tensor]:
            (along,) = jacobian.times(pieces)
            # t_i' = w_i m_i': of w m' m'' one weight is left over. Examples without one are none.
            each = torch.where(weight != 0, along / weight, 0.0)
            return jacobian.transposed_times([each])

        return times
