"""The nudged elastic band between two points: AutoNEB (Draxler et al. 2018)."""

import functools
import itertools
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from landscape import curve
from landscape.curve import Check
from landscape.descent import Descent
from landscape.krylov import norm
from landscape.objective import Objective
from landscape.path import Path
from landscape.results import Array

INSERT = 0.2  # of the range of the loss on the band: Draxler et al., section 3.2
BETWEEN = (0.25, 0.5, 0.75)  # of a segment: where the loss is compared with the interpolation


@dataclass(frozen=True)
class Settings:
    """How a band is relaxed.

    Attributes:
        pivots: between the ends, to begin with.
        cycles: after each but the last, pivots are inserted.
        steps: gradients to spend at most, shared out evenly over the cycles.
        rate: of the optimiser, in units of the root mean square difference of the ends' weights.
        m: examples in a batch.
        seed: of the batches.
    """

    pivots: int = 3
    cycles: int = 4
    steps: int = 4000
    rate: float = curve.RATE
    m: int = 128
    seed: int = 0


def stretched(a: Tensor, b: Tensor, settings: Settings) -> Path:
    """The band before it is relaxed: pivots evenly spaced on the straight line from a to b."""
    count = settings.pivots + 1
    knots = tuple(np.linspace(0.0, 1.0, count + 1).tolist())
    pivots = tuple(torch.lerp(a, b, k / count) for k in range(1, count))
    return Path((a, *pivots, b), "polychain", knots)


def relax(
    objective: Objective,
    path: Path,
    settings: Settings,
    *,
    cycle: int = 0,
    state: Mapping[str, Tensor] | None = None,
    lowest: float = math.inf,
) -> Generator[Check, None, None]:
    """Let the pivots of `path` slide down across the band, and insert more where it is too coarse.

    A pivot moves by what the optimiser does with the gradient of one batch, less its component
    along the band, whose direction is that to the neighbour of higher loss (Henkelman and
    Jonsson 2000). Springs are infinitely stiff: after each sweep the pivots are put back at
    their shares of the length. One gradient a pivot and sweep; pivots + 5 vectors of P.

    Args:
        objective: the loss over the training data.
        path: from `stretched`, or from the last check; its pivots are written to.
        settings: the same for the whole run.
        cycle: the first to run: how many checks an earlier run has seen.
        state: of the last check of an earlier run.
        lowest: its lowest `highest`.

    Yields:
        A check after each cycle, with the pivots inserted; one with an infinite `highest` is
        the last.
    """
    descent = Descent(objective, m=settings.m, seed=settings.seed, state=state)
    unit = settings.rate * curve.rms(path.controls[-1] - path.controls[0])
    look, best = curve.Look(objective, path), lowest
    for number in range(cycle, settings.cycles):
        last = settings.steps * (number + 1) // settings.cycles
        losses = _losses(objective, path)
        while descent.steps + len(path.controls) - 2 <= last:
            rate = unit * curve.schedule(descent.steps / settings.steps)
            _sweep(descent, path, losses, rate)
        highest = look.highest()
        flat = highest <= look.flat
        done = flat or not math.isfinite(highest) or number == settings.cycles - 1
        path = path if done else _finer(objective, path)
        look = look.along(path)
        yield Check(path, descent.steps, highest, highest < best, flat, descent.state())
        best = min(best, highest)
        if done:
            return


def _sweep(descent: Descent, path: Path, losses: list[float], rate: float) -> None:
    """One step of every pivot across the band, then all back to their shares of the length."""
    controls = path.controls
    seen = []
    for k in range(1, len(controls) - 1):
        loss, move = descent.step(functools.partial(_copied, controls[k]), rate=rate)
        higher = losses[k + 1] >= losses[k - 1]
        low, high = (k, k + 1) if higher else (k - 1, k)
        tangent = controls[high] - controls[low]
        length = norm(tangent).clamp_min(torch.finfo(tangent.dtype).tiny).to(tangent.dtype)
        tangent /= length
        move.addcmul_(tangent, torch.dot(tangent, move), value=-1)
        controls[k].add_(move)
        seen.append(loss)
    losses[1:-1] = torch.stack(seen).tolist()
    _redistribute(path)


def _copied(pivot: Tensor, out: Tensor) -> None:
    out.copy_(pivot)


def _redistribute(path: Path) -> None:
    """Put each pivot at its knot's share of the length of the band, in place."""
    controls, knots = path.controls, path.knots
    pairs = itertools.pairwise(controls)
    lengths = torch.stack([norm(b - a) for a, b in pairs]).cpu().numpy()
    along = np.r_[0.0, np.cumsum(lengths)] / max(float(lengths.sum()), 1e-300)
    before = controls[0]
    for k in range(1, len(controls) - 1):
        old = controls[k].clone()
        towards = controls[k + 1] if knots[k] > along[k] else before
        gap = along[k + 1] - along[k] if knots[k] > along[k] else along[k] - along[k - 1]
        share = min(1.0, abs(knots[k] - along[k]) / max(float(gap), 1e-300))
        controls[k].copy_(torch.lerp(old, towards, share))
        before = old


def _losses(objective: Objective, path: Path) -> list[float]:
    return [objective.loss(control) for control in path.controls]


def _finer(objective: Objective, path: Path) -> Path:
    """With a pivot in each segment where the loss stands above its interpolation the most."""
    ends, knots = np.array(_losses(objective, path)), np.array(path.knots)
    shares = np.array(BETWEEN)
    inner = knots[:-1, None] + np.diff(knots)[:, None] * shares
    found = np.array([[objective.loss(path.at(t)) for t in row] for row in inner])
    straight = ends[:-1, None] + np.diff(ends)[:, None] * shares
    excess: Array = found - straight
    span = float(max(found.max(), ends.max()) - min(found.min(), ends.min()))
    chosen = excess.max(axis=1) > INSERT * span
    places = inner[np.arange(len(inner)), excess.argmax(axis=1)][chosen]
    new = sorted({*path.knots, *places.tolist()})
    controls = tuple(
        path.controls[path.knots.index(t)] if t in path.knots else path.at(t) for t in new
    )
    return replace(path, controls=controls, knots=tuple(new))
