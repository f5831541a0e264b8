"""Steps downhill from points of weight space, by random batches and torch's own optimiser."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landscape import batchnorm, tree
from landscape.evaluation import Loss
from landscape.groups import Groups
from landscape.objective import Objective

SMOOTHING = 0.99  # of the second moment: torch's default for RMSprop


class Descent:
    """RMSprop (Hinton 2012) whose second moment serves every point that it is asked about.

    A step of rate r moves each weight by r times its gradient over the root of the mean square
    of its gradients. The points of a path are near each other on the scale on which these
    change, so one second moment does for all: the state takes one vector, whatever the number
    of points. Batches are m random examples each, every example once an epoch. BatchNorm goes
    by the statistics of the batch, as in training; dropout is off.

    The n-th batch is decided by the seed and n alone, so a run goes on bit for bit from its
    points and `state()`.

    Attributes:
        objective: the loss over the training data.
        steps: taken so far, one gradient each.
        batches: in an epoch.
        m: examples in a batch.
    """

    def __init__(
        self, objective: Objective, *, m: int, seed: int, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Begin, or go on from a state; one pass over the data, for their sizes.

        Args:
            objective: is run over m of its examples at a time.
            m: examples in a batch; all of them if there are fewer.
            seed: of the batches.
            state: what `state()` returned.
        """
        self.objective = objective
        self.m = min(m, tree.count(objective.batches))
        self.steps = 0 if state is None else int(state["steps"])
        self._seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed)))
        self._loss = _live(objective)
        self.batches = self._epoch(0).count
        self._queue = self._upcoming()
        space = objective.space
        self._point = torch.zeros(space.size, dtype=space.dtype, device=space.device)
        # Tensor by tensor, so that what the optimiser needs beside its state is no vector of P.
        self._parts = list(space.pieces(self._point).values())
        self._rmsprop = torch.optim.RMSprop(self._parts, alpha=SMOOTHING, foreach=False)
        if state is not None:
            self._restore(state)

    def gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss () and gradient (P,) at `theta` (P,), over the next batch."""
        return self.draw()(theta)

    def draw(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Mean loss () and gradient (P,) over the next batch, as a function of theta (P,)."""
        return functools.partial(next(self._queue).loss_and_gradient, loss=self._loss)

    def step(self, place: Callable[[Tensor], object], *, rate: float) -> tuple[Tensor, Tensor]:
        """Mean loss () over the next batch at a point, and the step (P,) downhill from there.

        Args:
            place: writes the point into the vector (P,) that it is given; called twice, so that
                no copy is kept.
            rate: of the optimiser.

        Returns:
            The loss, and the step in a vector that the next call writes over.
        """
        place(self._point)
        loss, gradient = self.gradient(self._point)
        pieces = self.objective.space.pieces(gradient).values()
        for part, piece in zip(self._parts, pieces, strict=True):
            part.grad = piece
        for group in self._rmsprop.param_groups:
            group["lr"] = rate
        self._rmsprop.step()
        for part in self._parts:
            part.grad = None
        self.steps += 1
        place(gradient)
        return loss, self._point.sub_(gradient)

    def state(self) -> dict[str, Tensor]:
        """What a run goes on from, by name."""
        moments = self._rmsprop.state_dict()["state"]
        squares = {f"square.{i}": entry["square_avg"] for i, entry in moments.items()}
        return {"steps": torch.tensor(self.steps), **squares}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        inner: dict[str, Any] = self._rmsprop.state_dict()
        names = [f"square.{i}" for i in range(len(self._parts))]
        if self.steps:
            inner["state"] = {
                i: {"step": state["steps"].float(), "square_avg": state[name]}
                for i, name in enumerate(names)
            }
        self._rmsprop.load_state_dict(inner)

    def _epoch(self, number: int) -> Groups:
        return Groups(self.objective, self.m, seed=self._seed + number)

    def _upcoming(self) -> Iterator[Objective]:
        """The objective over each batch from the present step on."""
        done = self.steps
        for epoch in itertools.count(done // self.batches):
            yield from itertools.islice(self._epoch(epoch), done % self.batches, None)
            done = 0


def _live(objective: Objective) -> Loss | None:
    """The task's loss with live BatchNorm; None for the plain one."""
    if not batchnorm.modules(objective.net):
        return None

    def loss(net: nn.Module, batch: Any) -> Tensor:
        with batchnorm.live(net):
            return objective.task.loss(net, batch)

    return loss
