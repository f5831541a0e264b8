"""`landscape race ckpt.pt`: each optimizer trains the task's network from one checkpoint on."""

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from landscape import batchnorm, course, race, trajectory, tree
from landscape.device import free_memory
from landscape.directions import digest
from landscape.errors import UserError
from landscape.objective import Objective
from landscape.race import Entry, Settings
from landscape.results import Array, Race, Result, Surface
from landscape.surface import axis

from . import beside, costs, problem, surface
from .costs import Needs, Range
from .frame import Frame
from .options import SetUp
from .options_plane import Directions
from .options_race import Ground, Optimizers
from .problem import Problem
from .race import sweep_rates
from .race_run import Contest, contest
from .session import Analysis, Session, Step
from .values import grid_size, one_of

STEPS = 100
STATIONS = 41  # of each way, at which its point is kept and its loss evaluated


def run(
    session: Session,
    setup: SetUp,
    name: str,
    entries: Sequence[Entry],
    optimizers: Optimizers,
    ground: Ground,
) -> None:
    """The race from the checkpoint `name` on, left in the session."""
    path = Path(name)
    counts = grid_size(ground.resolution or "31x31", "--resolution")
    policy = one_of(ground.bn or "recompute", batchnorm.POLICIES, "--bn")
    if ground.start or ground.alpha or ground.beta:
        raise UserError("--start, --alpha and --beta are for functions: leave them out")
    with problem.pointing_to_check(path):
        loaded = problem.load(setup, path, bn=policy)
    steps = optimizers.steps or STEPS
    settings = Settings(steps, optimizers.warmup, optimizers.weight_decay, setup.seed)
    training = beside.training_data(loaded)
    on = course.on_task(
        training, loaded.theta, m=optimizers.m, seed=setup.seed, whole=loaded.objective
    )
    keep = _stations(loaded, steps, len(entries))
    if session.out.dry_run:
        session.plan(loaded, _needs(entries, optimizers, counts, training, len(keep)))
        return
    going = contest(on, entries, optimizers, settings, keep=keep, looks=[steps])
    drawing = _Drawing(loaded, going, ground, counts)
    config = {
        **going.config(),
        **{"m": optimizers.m, "margin": ground.margin, "resolution": list(counts)},
        "tolerance": ground.tolerance,
    }
    session.analyse(path, loaded, Analysis(config, drawing.start, drawing.snapshot))


def _needs(
    entries: Sequence[Entry],
    optimizers: Optimizers,
    counts: tuple[int, int],
    training: Objective,
    stations: int,
) -> Needs:
    """What the race would take: steps are of m examples, so many of them are a pass."""
    plane = costs.surface(counts, Directions())
    swept = sum(math.isnan(entry.rate) for entry in entries) * len(sweep_rates(optimizers.sweep))
    examples = tree.count(training.batches)
    share = min(1.0, optimizers.m / examples)
    passes = (optimizers.steps or STEPS) * (len(entries) + swept) * share
    looks = stations * len(entries) + swept
    return replace(
        plane,
        vectors={**plane.vectors, "points of the ways": stations * len(entries), "optimizer": 4},
        evaluations=Range(plane.evaluations.least + looks, plane.evaluations.most + looks),
        gradients=Range(passes, 2 * passes),
    )


def _stations(loaded: Problem, steps: int, ways: int) -> list[int]:
    """Steps after which points are kept, as many as a quarter of the free memory holds."""
    size = loaded.theta.numel() * loaded.theta.element_size() * ways
    room = max(3, min(STATIONS, free_memory(loaded.theta.device) // 4 // size))
    return sorted({round(step) for step in np.linspace(0, steps, room)})


class _Drawing:
    """The contest first, then the loss over the plane of its ways."""

    def __init__(
        self, loaded: Problem, going: Contest, ground: Ground, counts: tuple[int, int]
    ) -> None:
        self.loaded, self.going, self.ground, self.counts = loaded, going, ground, counts
        self.inner: Analysis | None = None
        self.frame: Frame | None = None
        self.explained: tuple[float, ...] = ()

    def start(self, records: list[dict[str, Any]]) -> Generator[Step, None, Result]:
        yield from self.going.race(records)
        self.frame, axes = self._plane()
        plane = self.frame.config["directions"]
        yield Step({"plane": plane}, 0, None, "plane")
        self.inner = surface.analysis(
            self.loaded, self.frame, axes, Directions(tolerance=self.ground.tolerance, shard="data")
        )
        found = yield from self.inner.start(_of_plane(records, plane))
        return self._record(found)  # type: ignore[arg-type]

    def snapshot(self) -> Race | None:
        partial = self.inner.snapshot() if self.inner else None
        return None if partial is None else self._record(partial)  # type: ignore[arg-type]

    def _plane(self) -> tuple[Frame, list[Array]]:
        """The principal directions of all ways together, and a grid around them.

        Of ways that diverged they know nothing, unless all did.
        """
        start = self.going.course.start
        ways = [way for way in self.going.runs if way.diverged < 0] or self.going.runs
        points = [point for way in ways for point in list(way.points.values())[1:]]
        try:
            plane = trajectory.principal([*points, start])
        except ValueError as error:
            raise UserError(f"{error}; take more steps or other rates") from error
        self.explained = tuple(plane.explained.tolist())
        shares = [f"{100 * share:.3g} % of the variance" for share in self.explained]
        spots, _ = trajectory.coordinates([*points, start], plane.directions)
        room = self.ground.margin * float(np.ptp(spots, axis=0).max())
        lows, highs = spots.min(0) - room, spots.max(0) + room
        objective = self.loaded.objective
        own = objective.evaluate(start, buffers=self.loaded.buffers())["loss"].mean
        frame = Frame(
            what=f"Optimizers from {self.loaded.name}",
            directions=plane.directions,
            labels=tuple(f"principal direction {i}, {s}" for i, s in enumerate(shares, 1)),
            config={"directions": [digest(d) for d in plane.directions]},
            markers=((self.loaded.name, (0.0, 0.0), own),),
        )
        return frame, [axis(*ends) for ends in zip(lows, highs, self.counts, strict=True)]

    def _record(self, found: Surface) -> Race:
        assert self.frame is not None
        directions, start = self.frame.directions, self.going.course.start

        def place(points: Sequence[Tensor]) -> tuple[Array, Array]:
            spots, off = trajectory.coordinates([*points, start], directions)
            return spots[:-1], off[:-1]

        return race.record(
            found,
            self.going.runs,
            place,
            trials=self.going.trials,
            subject=self.loaded.name,
            gradient_source=self.going.course.gradients,
            explained=self.explained,
        )


def _of_plane(records: Sequence[dict[str, Any]], plane: list[str]) -> list[dict[str, Any]]:
    """The evaluations of an earlier run on this very plane."""
    found: list[dict[str, Any]] = []
    same = False
    for record in records:
        if "plane" in record:
            same = record["plane"] == plane
        elif same and "at" in record:
            found.append(record)
    return found
