"""The stages of `landscape connect`: straight lines first, then a path found by training."""

import dataclasses
from collections.abc import Callable, Generator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape import band, batchnorm, connect, controls, curve, ranks
from landscape.errors import UserError
from landscape.estimate import Estimate, PerExample
from landscape.nested import Coordinates
from landscape.objective import Objective
from landscape.path import Path
from landscape.results import Array, Connection

from .beside import OtherPoint
from .problem import Problem
from .session import Step

Estimates = Mapping[str, Estimate]


@dataclass(frozen=True)
class Ends:
    """Two checkpoints of one network, and the data that paths between them are measured on.

    Attributes:
        problem: the first checkpoint and the objective.
        other: the second.
        held: other splits by name, measured beside the objective's own.
        training: the loss over the training data.
    """

    problem: Problem
    other: OtherPoint
    held: Mapping[str, Objective]
    training: Objective

    def at(self, theta: Tensor, buffers: Mapping[str, Tensor] | None = None) -> dict[str, Estimate]:
        """Loss and metrics at `theta` (P,) on every split; statistics are recomputed once."""
        objective = self.problem.objective
        buffers = objective.buffers_at(theta) if buffers is None else buffers
        found = objective.evaluate(theta, buffers=buffers)
        for split, beside in self.held.items():
            values = beside.evaluate(theta, buffers=buffers)
            found |= {f"{name} ({split})": value for name, value in values.items()}
        return found

    def own(self) -> dict[str, tuple[float, float]]:
        """Loss and metrics of both checkpoints, each with its own buffers."""
        first = self.at(self.problem.theta, self.problem.buffers())
        last = self.at(self.other.theta, self.other.buffers)
        return {name: (first[name].mean, last[name].mean) for name in first}


@dataclass(frozen=True)
class Look:
    """How closely a path is looked at."""

    axis: Array
    tolerance: float
    max_evaluations: int


class Stages:
    """What is known of the paths so far; each stage is a generator of steps.

    Attributes:
        found: the paths, the straight line first.
    """

    def __init__(self, ends: Ends, look: Look, records: list[dict[str, Any]]) -> None:
        """Begin, or go on from the records of an earlier run."""
        self.ends, self.look = ends, look
        self.found: list[connect.Found] = []
        self._known: dict[str, dict[Coordinates, Estimates]] = {}
        for record in records:
            if "path" in record:
                values = {name: Estimate(*value) for name, value in record["values"].items()}
                self._known.setdefault(record["path"], {})[(record["at"],)] = values
        self._own = ends.own()

    def explore(
        self,
        name: str,
        route: Path,
        *,
        gradients: int = 0,
        about: str = "",
        reset: Callable[[Tensor, float], Tensor] | None = None,
    ) -> Generator[Step, None, None]:
        """Look at one path, and add it to those found; `reset` changes its points once more."""
        points = dict(self._known.get(name, {}))
        place = torch.empty_like(route.controls[0])

        def theta(t: float) -> Tensor:
            point = route.at(t, place)
            return point if reset is None else reset(point, t)

        found = connect.Found(name, route, points, None, gradients, about)
        if points:
            self.found.append(found)
        run = connect.profile(
            lambda t: self.ends.at(theta(t)),
            self.look.axis,
            tolerance=self.look.tolerance,
            max_evaluations=self.look.max_evaluations,
            known=points,
        )
        for point in run:
            points[point.at] = dict(point.estimates)
            if len(points) == 1:
                self.found.append(found)
            values: dict[str, Any] = {n: astuple(e) for n, e in point.estimates.items()}
            record = {"path": name, "at": point.at[0], "values": values}
            yield Step(record, point.done, point.planned, name)
        barriers = connect.barriers(lambda t: self._losses(theta(t)), points)
        self.found[-1] = dataclasses.replace(found, barriers=barriers)

    def _losses(self, theta: Tensor) -> PerExample:
        return self.ends.problem.objective.losses(theta)

    def record(self, *, complete: bool) -> Connection:
        """The result of what is known."""
        problem, other = self.ends.problem, self.ends.other
        result = connect.assemble(
            self.found,
            self.look.axis,
            self._own,
            tolerance=self.look.tolerance,
            complete=complete,
            names=(problem.name, other.name),
        )
        return dataclasses.replace(
            result,
            l2=problem.objective.l2,
            bn=problem.config["bn"],
            batchnorm=bool(batchnorm.modules(problem.objective.net)),
            title=problem.titled(f"Paths from {problem.name} to {other.name}"),
        )


@dataclass(frozen=True)
class Files:
    """Where a trained path is kept, and what its training goes on from.

    Attributes:
        path: the best path so far.
        state: the path as it was at the last check, removed at the end.
    """

    path: File
    state: File

    def discard(self) -> None:
        """Remove both: they belong to another run."""
        self.path.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)


@dataclass(frozen=True)
class Trained:
    """A path found by training.

    Attributes:
        path: the best of all checks.
        gradients: spent in all.
        about: how it was found, in a line.
    """

    path: Path
    gradients: int
    about: str


def train(
    ends: Ends,
    settings: curve.Settings | band.Settings,
    files: Files,
    facts: Mapping[str, Any],
    *,
    resume: bool,
) -> Generator[Step, None, Trained]:
    """Train a path; the best one and the state of the training are in files after every check.

    Args:
        ends: what it joins.
        settings: of a curve, or of an elastic band.
        files: where to keep it.
        facts: what the path belongs to.
        resume: an earlier run has left files.

    Raises:
        UserError: it diverged before there was anything to keep.
    """
    space = ends.problem.objective.space
    route, state = _begin(ends, settings), None
    held: dict[str, Any] = {"checks": 0, "steps": 0, "lowest": np.inf, "end": ""}
    if resume and files.state.is_file():
        route, state, held = controls.load(files.state, space)
    elif ranks.first():
        files.discard()
    for check in () if held["end"] else _run(ends.training, route, settings, held, state):
        held = {
            "checks": held["checks"] + 1,
            "steps": check.steps,
            "lowest": min(held["lowest"], check.highest),
            "end": "flat" if check.flat else "" if np.isfinite(check.highest) else "diverged",
        }
        if check.best and ranks.first():
            controls.save(files.path, space, check.path, facts={**facts, "steps": check.steps})
        if held["end"] != "diverged" and ranks.first():
            controls.save(files.state, space, check.path, facts=held, state=check.state)
        record = {"checks": held["checks"], "highest": check.highest}
        yield Step(record, check.steps, settings.steps, f"highest loss {check.highest:.4g}")
    if not ranks.agreed(files.path.is_file()):  # and all of it is written
        raise UserError(
            f"the path diverged within its first {held['steps']} gradients: lower --rate "
            f"{settings.rate:g}"
        )
    best, _, kept = controls.load(files.path, space)
    end = {
        "flat": f"flat at {curve.LOOKS} places of it on the training data",
        "diverged": f"diverged, the best is kept, of {kept['steps']} gradients",
        "": f"the best is that of {kept['steps']}",
    }[held["end"]]
    what = _describe(settings, best)
    return Trained(best, held["steps"], f"{what}, {held['steps']} gradients, {end}")


def _begin(ends: Ends, settings: curve.Settings | band.Settings) -> Path:
    a, b = ends.problem.theta, ends.other.theta
    if isinstance(settings, curve.Settings):
        return curve.bent(a, b, settings)
    return band.stretched(a, b, settings)


def _run(
    training: Objective,
    route: Path,
    settings: curve.Settings | band.Settings,
    held: Mapping[str, Any],
    state: Mapping[str, Tensor] | None,
) -> Generator[curve.Check, None, None]:
    lowest = held["lowest"]
    if isinstance(settings, curve.Settings):
        return curve.train(training, route, settings, state=state, lowest=lowest)
    cycle = held["checks"]
    return band.relax(training, route, settings, cycle=cycle, state=state, lowest=lowest)


def _describe(settings: curve.Settings | band.Settings, route: Path) -> str:
    inner = len(route.controls) - 2
    ends = "" if inner == 1 else "s"
    decay = ""
    if isinstance(settings, curve.Settings):
        what = "Bezier curve" if route.kind == "bezier" else "polygonal chain"
        decay = f", weight decay {settings.weight_decay:g}" if settings.weight_decay else ""
        return f"{what} of {inner} bend{ends} (Garipov et al. 2018){decay}"
    return f"elastic band of {inner} pivot{ends} (Draxler et al. 2018)"
