"""A low-loss curve between two points, trained as in Garipov et al. (2018)."""

import copy
import functools
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from landscape.descent import Descent
from landscape.objective import Objective
from landscape.path import Path

RATE = 0.05  # of the root mean square difference of the ends; by trial on four networks
LOOKS = 9  # places of the curve at which a check evaluates the loss, both ends included
FLAT = 0.005  # of the barrier on the line: a curve that stands no higher is flat


@dataclass(frozen=True)
class Settings:
    """How a curve is trained.

    Attributes:
        kind: "bezier" or "polychain".
        bends: control points between the ends.
        steps: gradients to spend at most.
        rate: of the optimiser, in units of the root mean square difference of the ends' weights.
        m: examples in a batch.
        weight_decay: X shrinks the bends by X times the rate at each step, apart from the
            gradient (Loshchilov and Hutter 2019).
        seed: of the batches and of the places on the curve.
    """

    kind: str = "bezier"
    bends: int = 1
    steps: int = 2000
    rate: float = RATE
    m: int = 128
    weight_decay: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Check:
    """How a curve stands after some steps.

    Attributes:
        path: the curve now; its bends go on moving with the training.
        steps: gradients spent.
        highest: the largest loss at `LOOKS` places, on the training data; inf once diverged.
        best: nothing before was lower.
        flat: the curve stands no higher than its ends, up to `FLAT` of the barrier on the line.
        state: what the training goes on from, beside the path.
    """

    path: Path
    steps: int
    highest: float
    best: bool
    flat: bool
    state: Mapping[str, Tensor]


def schedule(share: float) -> float:
    """The rate at a share of the steps, in units of the first: Garipov et al., appendix A.2.

    Constant for the first half, then linear down to a hundredth at nine tenths, then constant.
    """
    return 1.0 if share <= 0.5 else max(0.01, 1.0 - (share - 0.5) / 0.4 * 0.99)


def bent(a: Tensor, b: Tensor, settings: Settings) -> Path:
    """The curve before training: its bends lie evenly spaced on the straight line from a to b."""
    count = settings.bends + 1
    bends = tuple(torch.lerp(a, b, k / count) for k in range(1, count))
    return Path((a, *bends, b), settings.kind)


def train(
    objective: Objective,
    path: Path,
    settings: Settings,
    *,
    state: Mapping[str, Tensor] | None = None,
    lowest: float = math.inf,
) -> Generator[Check, None, None]:
    """Move the bends of `path` until the loss along it is flat, or the steps are spent.

    Each step draws t ~ U(0, 1) and a batch, and adds w_k(t) times the step that the optimiser
    takes at theta(t) to each bend c_k: the chain rule of theta(t) = sum_k w_k(t) c_k. One
    gradient a step; bends, theta(t), gradient and second moment are all the vectors, bends + 3.

    Args:
        objective: the loss over the training data.
        path: from `bent`, or from the last check of an earlier run; its bends are written to.
        settings: the same for the whole run.
        state: of the last check of an earlier run.
        lowest: its lowest `highest`.

    Yields:
        A check now and then, and one at the end; a check with an infinite `highest` is the last.
    """
    descent = Descent(objective, m=settings.m, seed=settings.seed, state=state)
    a, *bends, b = path.controls
    unit = settings.rate * rms(b - a)
    # A look costs a forward pass over all data; the steps between cost three times as much.
    every = max(50, LOOKS * descent.batches)
    look = Look(objective, path)
    best = lowest
    while descent.steps < settings.steps:
        rate = unit * schedule(descent.steps / settings.steps)
        t = _place(settings.seed, descent.steps)
        _, move = descent.step(functools.partial(path.at, t), rate=rate)
        for bend, weight in zip(bends, path.weights(t)[1:-1].tolist(), strict=True):
            bend.add_(move, alpha=weight)
            if settings.weight_decay:
                bend.mul_(1 - rate * settings.weight_decay)
        if descent.steps % every and descent.steps < settings.steps:
            continue
        highest = look.highest()
        flat = highest <= look.flat
        yield Check(path, descent.steps, highest, highest < best, flat, descent.state())
        best = min(best, highest)
        if flat or not math.isfinite(highest):
            return


class Look:
    """The largest loss along a curve, and how low it has to be to count as flat."""

    def __init__(self, objective: Objective, path: Path) -> None:
        """Look along the straight line between the ends of `path`."""
        self._objective, self._path = objective, path
        self._at = torch.empty_like(path.controls[0])
        ends = Path((path.controls[0], path.controls[-1]))
        line = [self._loss(ends, i / (LOOKS - 1)) for i in range(LOOKS)]
        self._end = max(line[0], line[-1])
        self.flat = self._end + FLAT * (max(line) - self._end)

    def along(self, path: Path) -> "Look":
        """The same between the same ends, along another curve."""
        other = copy.copy(self)
        other._path = path
        return other

    def highest(self) -> float:
        """The largest loss at `LOOKS` places of the curve; inf where it is not finite."""
        inner = [self._loss(self._path, i / (LOOKS - 1)) for i in range(1, LOOKS - 1)]
        return max(self._end, *(x if math.isfinite(x) else math.inf for x in inner))

    def _loss(self, path: Path, t: float) -> float:
        return self._objective.loss(path.at(t, self._at))


def _place(seed: int, step: int) -> float:
    """The t of one step, uniform on (0, 1); decided by seed and step alone."""
    return float(np.random.default_rng((seed, step)).random())


def rms(v: Tensor) -> float:
    """Root mean square of the entries of `v` (P,)."""
    return float(torch.linalg.vector_norm(v)) / math.sqrt(v.numel())
