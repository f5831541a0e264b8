"""Products with the Jacobian of tensors with respect to the weights, in reverse mode."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


class Jacobian:
    """J of some outputs with respect to named leaves.

    J' u is the backward pass. It is linear in u, so its derivative along u, at any u, is J:
    J v = d/du (J' u . v), two backward passes and no forward mode. Both graphs are kept as
    long as the object is, if `keep`; else there is one product of each kind, J v first.
    """

    def __init__(self, outputs: Sequence[Tensor], leaves: Tensors, *, keep: bool) -> None:
        """Build the graph of J' u at u = 0.

        Args:
            outputs: with a graph that reaches some of the leaves.
            leaves: by name.
            keep: whether there are further products.
        """
        self.keep = keep
        self._outputs, self._leaves = list(outputs), leaves
        self._dummies = [torch.zeros_like(z, requires_grad=True) for z in outputs]
        found = torch.autograd.grad(
            self._outputs,
            list(leaves.values()),
            self._dummies,
            create_graph=True,
            allow_unused=True,
        )
        pairs = zip(leaves, found, strict=True)
        self._rows = {name: g for name, g in pairs if g is not None and g.requires_grad}

    def times(self, pieces: Tensors) -> list[Tensor]:
        """J v in the shapes of the outputs, for v by the names of the leaves."""
        if not self._rows:
            return [torch.zeros_like(dummy) for dummy in self._dummies]
        found = torch.autograd.grad(
            list(self._rows.values()),
            self._dummies,
            [pieces[name] for name in self._rows],
            retain_graph=self.keep,
            allow_unused=True,
        )
        pairs = zip(found, self._dummies, strict=True)
        return [torch.zeros_like(dummy) if g is None else g for g, dummy in pairs]

    def transposed_times(self, cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
        """J' u by the names of the leaves that are reached, for u in the shapes of the outputs."""
        found = torch.autograd.grad(
            self._outputs,
            list(self._leaves.values()),
            list(cotangents),
            retain_graph=self.keep,
            allow_unused=True,
        )
        return {n: g for n, g in zip(self._leaves, found, strict=True) if g is not None}
