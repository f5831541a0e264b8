"""Losses that a task may give by name, as in `loss = "cross_entropy"`.

A batch is (x, y), and the network is called once, as `net(x)`; what it returns, or the `logits`
of what it returns, are the outputs z. The loss is computed in float64 from z.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from landscape.device import accumulator
from landscape.errors import UserError

Loss = Callable[[nn.Module, Any], Tensor]
IGNORED = -100  # the class that does not count, as in torch


def cross_entropy(net: nn.Module, batch: Any) -> Tensor:
    """-log softmax(z)_y in nats, of the shape of y; 0 where y is `IGNORED`.

    y are classes, (B,) or (B, T) or (B, H, W). z has one dimension more, of the V classes: the
    last, as in (B, T, V), or the second, as in (B, V, H, W).
    """
    return F.cross_entropy(*_of_classes(net, batch), reduction="none", ignore_index=IGNORED)


def nll(net: nn.Module, batch: Any) -> Tensor:
    """-z_y, where z are log-probabilities already; shapes as in `cross_entropy`."""
    return F.nll_loss(*_of_classes(net, batch), reduction="none", ignore_index=IGNORED)


def binary_cross_entropy_with_logits(net: nn.Module, batch: Any) -> Tensor:
    """-y log s(z) - (1 - y) log(1 - s(z)) in nats, s the sigmoid, y in [0, 1]; (B, K)."""
    return F.binary_cross_entropy_with_logits(*_of_numbers(net, batch), reduction="none")


def mse(net: nn.Module, batch: Any) -> Tensor:
    """Mean of (z - y)^2 over the K outputs of an example, (B,)."""
    return F.mse_loss(*_of_numbers(net, batch), reduction="none").mean(1)


def half_squared_error(net: nn.Module, batch: Any) -> Tensor:
    """Half the sum of (z - y)^2 over the K outputs of an example, (B,).

    K/2 times `mse`, and so are gradients and eigenvalues. To compare an eigenvalue with
    2 / learning rate, take the one that was trained with.
    """
    return F.mse_loss(*_of_numbers(net, batch), reduction="none").sum(1) / 2


def l1(net: nn.Module, batch: Any) -> Tensor:
    """Mean of |z - y| over the K outputs of an example, (B,)."""
    return F.l1_loss(*_of_numbers(net, batch), reduction="none").mean(1)


def huber(net: nn.Module, batch: Any) -> Tensor:
    """Mean over the K outputs of r^2 / 2 where |r| < 1, else |r| - 1/2, with r = z - y; (B,)."""
    return F.huber_loss(*_of_numbers(net, batch), reduction="none").mean(1)


def accuracy(net: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Whether the largest output is that of the class, of the shape of y."""
    z, y = _of_classes(net, batch)
    return {"accuracy": z.argmax(1) == y}


def counted(batch: Any) -> Tensor:
    """1 for the classes that count, 0 for `IGNORED`, of the shape of y."""
    return (_pair(batch)[1] != IGNORED).double()


OF_CLASSES = (cross_entropy, nll)
OF_NUMBERS = (binary_cross_entropy_with_logits, mse, half_squared_error, l1, huber)
LOSSES: dict[str, Loss] = {f.__name__: f for f in (*OF_CLASSES, *OF_NUMBERS)}


def by_name(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a task with the loss that its `loss` names.

    Losses of classes bring accuracy, if the task has no metrics, and the weights `counted`, by
    which the task's own are multiplied.

    Raises:
        UserError: no such loss.
    """
    name = members["loss"]
    if name not in LOSSES:
        raise UserError(
            f"loss = {name!r} is none of the losses that go by name ({', '.join(LOSSES)}): take "
            "one of these, or write loss(net, batch), one value per example"
        )
    together = {**members, "loss": LOSSES[name]}
    if LOSSES[name] in OF_CLASSES:
        weights = members.get("weights")
        together.setdefault("metrics", accuracy)
        together["weights"] = functools.partial(_weighted, weights) if weights else counted
    return together


def _weighted(weights: Callable[..., Tensor], batch: Any) -> Tensor:
    given, entries = weights(batch), counted(batch)
    return given.reshape(given.shape + (1,) * (entries.ndim - given.ndim)) * entries


def _pair(batch: Any) -> tuple[Any, Tensor]:
    pair = isinstance(batch, Sequence) and len(batch) == 2
    if not pair or not isinstance(batch[1], Tensor):
        parts = f" of {len(batch)}" if isinstance(batch, Sequence) else ""
        raise UserError(
            f"a loss that goes by name needs batches (x, y), y a tensor, and the task's data() "
            f"gives a {type(batch).__name__}{parts}: return pairs, or write loss(net, batch)"
        )
    return batch[0], batch[1]


def _outputs(net: nn.Module, x: Any) -> Tensor:
    """What the network returns, in the widest type of its device."""
    z = net(x)
    z = z if isinstance(z, Tensor) else getattr(z, "logits", z)
    if not isinstance(z, Tensor):
        raise UserError(
            f"a loss that goes by name needs a network that returns a tensor, or something with "
            f"logits, and this one returns a {type(z).__name__}: write loss(net, batch)"
        )
    return z.to(accumulator(z.device))


def _of_classes(net: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """Outputs with the classes in dimension 1, where torch wants them, and the classes."""
    x, y = _pair(batch)
    z = _outputs(net, x)
    last, second = z.shape[:-1] == y.shape, z.shape[:1] + z.shape[2:] == y.shape
    if y.is_floating_point() or not (last or second):
        raise UserError(
            f"outputs of shape {tuple(z.shape)} and labels of shape {tuple(y.shape)} and "
            f"{y.dtype} do not fit: labels are whole numbers, and outputs have one dimension "
            "more, of the classes, at the end or in the second place"
        )
    if last and second and y.ndim > 1:
        raise UserError(
            f"outputs of shape {tuple(z.shape)} have their classes at the end or in the second "
            "place, which the shape cannot tell: write loss(net, batch) with F.cross_entropy"
        )
    return (z.movedim(-1, 1) if last else z), y.long()


def _of_numbers(net: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """Outputs and targets, both (B, K). (B, 1) beside (B,) are the same; nothing is broadcast."""
    x, y = _pair(batch)
    z = _outputs(net, x)
    if z.shape != y.shape and z.squeeze(-1).shape != y.squeeze(-1).shape:
        raise UserError(
            f"outputs of shape {tuple(z.shape)} and targets of shape {tuple(y.shape)} differ: "
            "give both the same, or write loss(net, batch)"
        )
    return z.reshape(len(z), -1), y.to(z).reshape(len(y), -1)
