"""`landscape trajectory`: the way of a training over the loss surface."""

import dataclasses
import functools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from landscape.errors import UserError

from .options import Output, SetUp
from .options_plane import Directions
from .values import grid_size, one_of

if TYPE_CHECKING:
    from landscape.results import Array, Result, Surface, Trajectory

    from .frame import Frame
    from .problem import Problem
    from .session import Analysis, Step


def trajectory(
    setup: SetUp,
    directions: Directions,
    out: Output,
    checkpoints: Annotated[
        list[Path],
        Argument(metavar="CHECKPOINT...", help="Three or more of one run, in any order."),
    ],
    resolution: Annotated[
        str, Option(metavar="NxM", help="Grid points along alpha and beta.")
    ] = "51x51",
    margin: Annotated[
        float,
        Option(min=0.0, max=10.0, metavar="X", help="Room around the path, in its own extent."),
    ] = 0.25,
) -> None:
    """Draw the path of a training over the loss on the plane that it moves in most.

    The plane goes through the last checkpoint, along the two principal directions of the
    differences from it (Li et al. 2018), or along directions of your own (--direction-to,
    --direction-eigen). The picture states how much of the variance the plane holds.

    Example: `landscape trajectory step_0.pt step_100.pt step_200.pt`
    """
    from landscape import batchnorm

    from . import costs, problem
    from .session import Session
    from .surface import SHARDS, analysis
    from .track import digest, named, ordered

    counts = grid_size(resolution, "--resolution")
    paths = ordered(checkpoints, least=3)
    one_of(directions.shard, SHARDS, "--shard")
    policy = one_of(directions.bn or "recompute", batchnorm.POLICIES, "--bn")
    session = Session(named(out, paths, "trajectory"), "trajectory", paths[-1:])
    with problem.pointing_to_check(paths[-1]):
        last = problem.load(setup, paths[-1], bn=policy, apart=directions.shard != "data")
    if out.dry_run:
        session.plan(last, costs.surface(counts, directions))
        session.finish()
        return
    way = _way(last, setup, paths)
    plane = _plane(last, setup, directions, way, counts, source=paths[-1], margin=margin)
    run = analysis(last, plane.frame, plane.axes, directions)
    run = _converted(run, functools.partial(way.on, plane))
    config = {**run.config, "checkpoint": digest(paths), "margin": margin}
    several = dataclasses.replace(last, name=f"{len(paths)} checkpoints").noted(*plane.frame.notes)
    session.analyse(paths[-1], several, dataclasses.replace(run, config=config))
    session.finish()


@dataclasses.dataclass(frozen=True)
class _Way:
    """The checkpoints of a training.

    Attributes:
        thetas: points (P,).
        losses: of the checkpoints, with their own buffers.
        step: of the training (S,).
        step_source: where the steps come from, in words.
        names: of the files.
    """

    thetas: list[Any]
    losses: list[float]
    step: "Array"
    step_source: str
    names: list[str]

    def on(self, plane: "_Plane", surface: "Surface") -> "Trajectory":
        """The surface with the checkpoints on it."""
        import numpy as np

        from landscape.results import Surface, Trajectory

        fields = {f.name: getattr(surface, f.name) for f in dataclasses.fields(Surface)}
        return Trajectory(
            **fields,
            step=self.step,
            checkpoint=tuple(self.names),
            path_loss=np.array(self.losses),
            path_off=plane.off,
            path_far=plane.far,
            explained=plane.explained,
            step_source=self.step_source,
        )


@dataclasses.dataclass(frozen=True)
class _Plane:
    """What is drawn.

    Attributes:
        frame: its directions, with the path on it.
        axes: the grid around the path.
        off: distances (S,) of the checkpoints from the plane.
        far: and from the last one.
        explained: shares of the variance along the directions; empty for given ones.
    """

    frame: "Frame"
    axes: "list[Array]"
    off: "Array"
    far: "Array"
    explained: tuple[float, ...]


def _way(last: "Problem", setup: SetUp, paths: list[Path]) -> _Way:
    from landscape import steps

    from . import beside

    thetas, losses, counters = [], [], []
    for path in paths:
        loaded = beside.at(last, setup, path)
        thetas.append(loaded.theta)
        losses.append(loaded.objective.loss(loaded.theta))
        counters.append(dict(loaded.training.counters))
    step, source = steps.axis(counters, paths)
    return _Way(thetas, losses, step, source, [path.name for path in paths])


def _plane(
    last: "Problem",
    setup: SetUp,
    options: Directions,
    way: _Way,
    counts: tuple[int, int],
    *,
    source: Path,
    margin: float,
) -> _Plane:
    """The plane of the options, or that of the principal directions, and a grid around the path."""
    import numpy as np

    from landscape import trajectory
    from landscape.directions import digest
    from landscape.surface import axis

    from . import frame

    explained: tuple[float, ...] = ()
    if options.direction_to or options.direction_eigen:
        span = frame.build(last, setup, options, 2, source=source)
    else:
        for option, given in (("--mark", options.mark), ("--directions-at", options.directions_at)):
            if given:
                raise UserError(
                    f"{option} is not for the plane of a training's principal directions: leave it "
                    "out, or give directions"
                )
        try:
            plane = trajectory.principal(way.thetas)
        except ValueError as error:
            raise UserError(
                f"{error}; draw it with `landscape line` instead, or give directions"
            ) from error
        explained = tuple(plane.explained.tolist())
        shares = [f"{100 * share:.3g} % of the variance" for share in explained]
        span = frame.Frame(
            what="",
            directions=plane.directions,
            labels=tuple(f"principal direction {i}, {s}" for i, s in enumerate(shares, 1)),
            config={"directions": [digest(d) for d in plane.directions]},
            markers=(),
        )
    spots, off = trajectory.coordinates(way.thetas, span.directions)
    far = np.array([float((theta - way.thetas[-1]).norm()) for theta in way.thetas])
    room = margin * float(np.ptp(spots, axis=0).max())
    lows, highs = spots.min(0) - room, spots.max(0) + room
    ends = [
        (way.names[k], tuple(spots[k].tolist()), way.losses[k]) for k in (0, len(way.names) - 1)
    ]
    what = f"Loss along the training from {way.names[0]} to {way.names[-1]}"
    span = dataclasses.replace(span, what=what, markers=tuple(ends), path=(spots, "training"))
    axes = [axis(*limits) for limits in zip(lows, highs, counts, strict=True)]
    return _Plane(span, axes, off, far, explained)


def _converted(analysis: "Analysis", convert: "Callable[[Surface], Trajectory]") -> "Analysis":
    """The same analysis with its surfaces converted."""

    def start(records: list[dict[str, Any]]) -> "Generator[Step, None, Result]":
        return convert((yield from analysis.start(records)))  # type: ignore[arg-type]

    def snapshot() -> "Result | None":
        partial = analysis.snapshot()
        return None if partial is None else convert(partial)  # type: ignore[arg-type]

    return dataclasses.replace(analysis, start=start, snapshot=snapshot)
