"""Where the network ends and the loss begins."""

from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from landscape import tree
from landscape.errors import UserError
from landscape.modes import replaced
from landscape.task import Task

REMEDY = (
    "add outputs(net, batch) and output_loss(outputs, batch) to the task file, so that "
    "output_loss(outputs(net, batch), batch) is the loss and takes the weights through outputs only"
)


class Ends(NamedTuple):
    """Both sides of the cut: equal numbers, in the same order."""

    outputs: list[Tensor]  # z, with the graph that leads to the weights
    inputs: list[Tensor]  # z again, leaves of the graph of the loss


class Cut:
    """The task's loss with its graph cut at the network's outputs z.

    z is what the task's `outputs` returns. Without that, it is what the network returns, if the
    loss calls it exactly once, as `net(...)`: that call gets a copy without graph of what the
    network returned, and whether the loss reaches the weights by another way too shows in its
    graph (`refuse_direct`). z may be a tensor or several in lists, tuples and dicts.

    Attributes:
        ends: z on both sides, of the last loss computed.
    """

    def __init__(self, task: Task) -> None:
        """Nothing is evaluated yet."""
        self._task = task
        self._opaque = ""
        self.ends = Ends([], [])

    def __call__(self, net: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch, as the task's `loss` returns it.

        Raises:
            UserError: the loss cannot be computed from outputs alone; the reason and the remedy.
        """
        self.ends = Ends([], [])
        if self._task.outputs is None or self._task.output_loss is None:
            return self._found(net, batch)
        return self._task.output_loss(self._apart(self._task.outputs(net, batch)), batch)

    def take(self) -> Ends:
        """The ends, forgotten here, so that their graph lives no longer than it is used."""
        ends, self.ends = self.ends, Ends([], [])
        return ends

    def _found(self, net: nn.Module, batch: Any) -> Tensor:
        run, calls = net.forward, 0

        def forward(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            whole = run(*args, **kwargs)
            return self._apart(whole) if calls == 1 else whole

        reason = ""
        with replaced(net, "forward", forward):
            try:
                values = self._task.loss(net, batch)
            except UserError as error:
                reason = f"the loss needs the graph of what the network returns ({error})"
        if calls != 1:
            times = "does not call the network as net(...)"
            reason = f"the loss {f'calls the network {calls} times' if calls else times}"
        if reason:
            _refuse(reason)
        return values

    def _apart(self, whole: Any) -> Any:
        """`whole` with the tensors that have a graph replaced by copies without it."""
        known: dict[int, Tensor] = {}
        opaque: set[str] = set()

        def cut(tensor: Tensor) -> Tensor:
            if not tensor.requires_grad:
                return tensor
            if id(tensor) not in known:
                leaf = tensor.detach().requires_grad_()
                self.ends.outputs.append(tensor)
                self.ends.inputs.append(leaf)
                known[id(tensor)] = leaf.clone()  # which the loss may write to
            return known[id(tensor)]

        def pass_by(thing: Any) -> Any:
            if any(tensor.requires_grad for tensor in tree.tensors(thing)):
                opaque.add(type(thing).__name__)
            return thing

        copy = tree.apply(whole, cut, pass_by)
        self._opaque = ", ".join(sorted(opaque))
        return copy

    def refuse_direct(self, names: list[str]) -> None:
        """Refuse a loss that depends on weights by another way than through z.

        Args:
            names: of the weights that the cut loss has a gradient for.
        """
        if not names:
            return
        way = "by another way than through the outputs"
        if self._opaque:
            way = (
                f"through a {self._opaque} in the outputs, which is neither a tensor nor a list, "
                "tuple or dict of them"
            )
        _refuse(f"the loss depends on {names[0]!r} {way}")

    def refuse_own_loss(self, total: Tensor, linear: Tensor) -> None:
        """Refuse outputs that were found and are the loss itself: the matrix would be zero.

        Args:
            total: sum of the losses.
            linear: sum of the outputs times their slopes; another number where the loss is
                piecewise linear, as the pinball loss is of a forecast.
        """
        if self._task.outputs is None and bool(torch.isclose(linear, total)):
            _refuse("the network returns the loss itself, or tensors that are only added up to it")


def _refuse(reason: str) -> NoReturn:
    raise UserError(
        "the Gauss-Newton matrix needs the network's outputs apart from the loss, and "
        f"{reason}: {REMEDY}"
    )
