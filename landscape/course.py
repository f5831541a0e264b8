"""What optimizers race on: any function of a point, or a task's loss from a checkpoint on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape import surface
from landscape.descent import Descent
from landscape.estimate import NONE, Estimate
from landscape.objective import Objective
from landscape.results import Array, Surface

Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]  # point (P,) -> loss () and gradient (P,)


@dataclass(frozen=True)
class Course:
    """What is raced on.

    Attributes:
        start: (P,) where every optimizer begins.
        draw: begins anew: a loss and its gradient for every step to come.
        loss: at a point (P,), without noise and over all data.
        shapes: of the tensors that the point is made of, in their order.
        gradients: what they are over, in words.
    """

    start: Tensor
    draw: Callable[[], Iterator[Gradient]]
    loss: Callable[[Tensor], float]
    shapes: tuple[tuple[int, ...], ...]
    gradients: str = "exact"


def on_function(f: Callable[[Tensor], Tensor], start: Tensor) -> Course:
    """The course of a function of a point (P,), with exact gradients by autograd."""

    def gradient(point: Tensor) -> tuple[Tensor, Tensor]:
        leaf = point.detach().requires_grad_()
        with torch.enable_grad():
            loss = f(leaf)
        (found,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), found

    def draw() -> Iterator[Gradient]:
        while True:
            yield gradient

    def loss(point: Tensor) -> float:
        with torch.no_grad():
            return float(f(point))

    return Course(start.detach(), draw, loss, (tuple(start.shape),))


def on_task(
    training: Objective, theta: Tensor, *, m: int, seed: int, whole: Objective | None = None
) -> Course:
    """The course of a task's loss from `theta` (P,) on, by batches of m random examples.

    BatchNorm goes by the statistics of the batch, as in training; dropout is off. All optimizers
    see the same batches.

    Args:
        training: the loss over the training data.
        theta: where the race begins.
        m: examples in a batch; all of them if there are fewer.
        seed: of the batches.
        whole: what the loss at a point is, if not `training`.
    """
    measured = training if whole is None else whole
    first = Descent(training, m=m, seed=seed)
    batches = f"of {first.m} random training examples"
    if first.batches == 1 and first.m < m:
        batches = f"of all {first.m} training examples"

    def draw() -> Iterator[Gradient]:
        descent = Descent(training, m=m, seed=seed)
        while True:
            yield descent.draw()

    # Four dimensions lie with their channels last: rows are filters all the same.
    shapes = tuple(tuple(shape) for shape in training.space.shapes)
    return Course(theta.detach(), draw, measured.loss, shapes, batches)


def contours(f: Callable[[Tensor], Tensor], axes: tuple[Array, Array]) -> Surface:
    """The values of a function of two numbers on a grid, every cell evaluated."""
    x, y = np.meshgrid(*axes, indexing="ij")
    places = torch.tensor(np.column_stack([x.ravel(), y.ravel()]))
    with torch.no_grad():
        try:
            values = torch.func.vmap(f)(places).tolist()
        except RuntimeError:  # it looks at numbers, or does what cannot be batched
            values = [float(f(place)) for place in places]
    cells = zip(map(tuple, places.tolist()), values, strict=True)
    points = {place: {"loss": Estimate(value, np.nan, NONE)} for place, value in cells}
    return surface.assemble(points, axes, tolerance=0.0, complete=True)
