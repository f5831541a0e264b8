"""Optimizers on their ways from one point: through any function of a point, or a network's loss.

An optimizer sees the point as the tensors it is made of, and takes its steps by its own `step`;
nothing of it is written here. Every optimizer begins at the same point and sees the same batches
and the same noise.

    course = course.on_function(lambda p: (p**2).sum(), torch.tensor([1.0, 2.0]))
    way = race.run(course, race.Entry("adam", "adam", 0.1), race.Settings(steps=100))
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape import optimizers, schedules
from landscape.course import Course, Gradient
from landscape.results import Array, Race, Surface

DIVERGED = 1e4  # times the loss at the start, or 1 if that is more: nobody comes back from there
LATE = 0.1  # of the steps, at the end: their mean loss is what a rate is chosen by


@dataclass(frozen=True)
class Entry:
    """One optimizer with its settings.

    Attributes:
        name: in the picture; no two are the same.
        optimizer: one of `optimizers.NAMES`.
        rate: learning rate, before the schedule.
        schedule: one of `schedules.NAMES`.
        noise: standard deviation of what is added to every entry of every gradient.
    """

    name: str
    optimizer: str
    rate: float
    schedule: str = "constant"
    noise: float = 0.0


@dataclass(frozen=True)
class Settings:
    """What all optimizers of a race share.

    Attributes:
        steps: that each takes.
        warmup: share of the steps, for the schedules that have one.
        weight_decay: of all optimizers.
        seed: of the noise.
    """

    steps: int
    warmup: float = schedules.WARMUP
    weight_decay: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """The way of one optimizer; steps that it did not take are NaN.

    Attributes:
        entry: whose way it is.
        points: (P,) by the number of steps taken, those that were to be kept.
        loss: (S + 1,) over all data, at the points kept.
        batch_loss: (S,) as the optimizer saw it, before each step.
        rate: (S,) of each step.
        gradients: evaluated in all.
        diverged: steps after which the loss was not finite, or beyond `DIVERGED`; -1 for never.
    """

    entry: Entry
    points: dict[int, Tensor]
    loss: Array
    batch_loss: Array
    rate: Array
    gradients: int
    diverged: int

    def score(self) -> float:
        """Mean of the known losses over the last tenth of the steps; infinite if it diverged."""
        if self.diverged >= 0:
            return float("inf")
        late = self.loss[-max(1, round(LATE * len(self.rate))) :]
        return float(late[np.isfinite(late)].mean())


@dataclass(frozen=True)
class Trial:
    """A rate that was tried, and the loss it led to."""

    rate: float
    score: float


def run(
    course: Course, entry: Entry, settings: Settings, *, keep: Collection[int] | None = None
) -> Run:
    """The way of one optimizer over the course.

    Args:
        course: what is raced on.
        entry: the optimizer and its settings.
        settings: of the race.
        keep: numbers of steps after which the point is kept and its loss evaluated; None for all.

    Raises:
        UserError: no such optimizer, or it is not installed.
    """
    walk = _Walk(course, entry, settings)
    steps, batches = settings.steps, course.draw()
    kept = range(steps + 1) if keep is None else set(keep)
    points: dict[int, Tensor] = {}
    loss, seen, rate = (np.full(count, np.nan) for count in (steps + 1, steps, steps))
    limit = DIVERGED * max(abs(course.loss(course.start)), 1.0)
    diverged = -1
    for step in range(steps + 1):
        if step in kept and bool(walk.theta.isfinite().all()):
            points[step] = walk.theta.clone()
            loss[step] = course.loss(walk.theta)
        lost = step in kept and not abs(loss[step]) <= limit
        if not lost and step < steps:
            rate[step] = walk.rate
            seen[step] = walk.step(next(batches))
            lost = not abs(seen[step]) <= limit
        if lost:
            diverged = step
            break
    return Run(entry, points, loss, seen, rate, walk.gradients, diverged)


class _Walk:
    """A point on its way, and the optimizers that move it."""

    def __init__(self, course: Course, entry: Entry, settings: Settings) -> None:
        self.method = optimizers.named(entry.optimizer)
        self.theta = course.start.clone()
        self.gradients, self._steps = 0, 0
        row = self.method.matrix and len(course.shapes) == 1
        self._shapes = [_shape(shape, row) for shape in course.shapes]
        self._parts = self._split(self.theta)
        self._noise = entry.noise
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._made = self.method.build(self._parts, entry.rate, settings.weight_decay)
        self._plans = [
            schedules.attach(entry.schedule, made, settings.steps, warmup=settings.warmup)
            for made in self._made
        ]

    @property
    def rate(self) -> float:
        """Of the next step."""
        return float(self._made[0].param_groups[0]["lr"])

    def step(self, at: Gradient) -> float:
        """Take a step by the loss and gradient `at` a point; the loss before it."""
        losses: list[Tensor] = []

        def closure() -> Any:  # torch says float, and means a tensor as much
            loss, gradient = at(self.theta)
            self.gradients += 1
            losses.append(loss)
            self._give(gradient)
            return loss

        if self.method.twice:
            closure()
        more = {}
        if self.method.curvature and self._steps % self.method.curvature == 0:
            more["hessian"] = self._split(self._diagonal(at))
        first, *others = self._made
        first.step(closure, **more)
        for other in others:
            other.step()
        for plan in self._plans:
            plan.step()
        self._steps += 1
        return float(losses[0])

    def _give(self, gradient: Tensor) -> None:
        if self._noise:
            gradient = gradient + self._noise * self._gaussian()
        for part, piece in zip(self._parts, self._split(gradient), strict=True):
            part.grad = piece

    def _diagonal(self, at: Gradient) -> Tensor:
        """Hutchinson's z * H z (P,), z Gaussian, H z by a central difference of two gradients."""
        z = self._gaussian()
        scale: float = max(float(self.theta.norm()), 1.0) / float(z.norm())
        h: float = torch.finfo(z.dtype).eps ** (1 / 3) * scale
        ahead, behind = (at(self.theta + sign * h * z)[1] for sign in (1, -1))
        self.gradients += 2
        return z.mul(ahead - behind).div_(2 * h)

    def _gaussian(self) -> Tensor:
        # On the host, so that every device sees the same noise.
        drawn = torch.randn(self.theta.shape, generator=self._generator, dtype=torch.float64)
        return drawn.to(self.theta)

    def _split(self, vector: Tensor) -> list[Tensor]:
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        pieces = torch.split(vector, sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]


def _shape(shape: tuple[int, ...], row: bool) -> tuple[int, ...]:
    """As an optimizer sees a tensor: filters are rows of a matrix; a vector is one, or a `row`."""
    if len(shape) > 1:
        return (shape[0], int(np.prod(shape[1:])))
    return (1, *(shape or (1,))) if row else shape or (1,)


def record(
    surface: Surface,
    runs: Sequence[Run],
    place: Callable[[Sequence[Tensor]], tuple[Array, Array]],
    *,
    trials: Mapping[str, Sequence[Trial]],
    **about: Any,
) -> Race:
    """The surface with the ways of the optimizers on it.

    Args:
        surface: what the ways are drawn over.
        runs: one for each optimizer, of equally many steps.
        place: points (P,) -> their coordinates (T, 2) on the surface, and distances (T,) from it.
        trials: by the name of an entry; none where its rate was given.
        about: further fields of the record.
    """
    steps = len(runs[0].rate) if runs else 0
    alpha, beta, off = (np.full((len(runs), steps + 1), np.nan) for _ in range(3))
    for row, way in enumerate(runs):
        if way.points:
            spots, off[row, list(way.points)] = place(list(way.points.values()))
            alpha[row, list(way.points)], beta[row, list(way.points)] = spots.T
    tried = [sorted(trials.get(way.entry.name, ()), key=lambda t: t.rate) for way in runs]
    width = max(map(len, tried), default=0)
    return Race(
        **{field.name: getattr(surface, field.name) for field in fields(Surface)},
        optimizer=tuple(way.entry.name for way in runs),
        step=np.arange(steps + 1, dtype=np.float64),
        position_alpha=alpha,
        position_beta=beta,
        position_off=off,
        position_loss=_rows([way.loss for way in runs], steps + 1),
        batch_loss=_rows([way.batch_loss for way in runs], steps + 1),
        rate=_rows([way.rate for way in runs], steps + 1),
        base_rate=np.array([way.entry.rate for way in runs]),
        noise=np.array([way.entry.noise for way in runs]),
        gradients=np.array([way.gradients for way in runs], dtype=np.int64),
        diverged=np.array([way.diverged for way in runs], dtype=np.int64),
        sweep_rate=_rows([np.array([t.rate for t in row]) for row in tried], width),
        sweep_loss=_rows([np.array([t.score for t in row]) for row in tried], width),
        schedules=tuple(way.entry.schedule for way in runs),
        about=tuple(optimizers.named(way.entry.optimizer).about for way in runs),
        **about,
    )


def _rows(values: Sequence[Array], width: int) -> Array:
    """The rows of a table, filled up with NaN."""
    table = np.full((len(values), width), np.nan)
    for row, value in zip(table, values, strict=True):
        row[: len(value)] = value
    return table
