"""`landscape surface` and `landscape line`."""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import BadParameter, Option

from .options import CheckpointArgument, Fsdp, Output, SetUp
from .options_plane import Directions
from .values import grid_size, number_range, one_of, refuse_beside_fsdp

if TYPE_CHECKING:
    from landscape.results import Array, Surface

    from .frame import Frame
    from .problem import Problem
    from .session import Analysis, Step

SHARDS = ("auto", "points", "data")
FEW = (
    16  # batches a rank: below, messages and uneven shares cost more than waiting for a last point
)
MOST_CELLS = 4_000_000  # they are kept as Python objects while points are chosen
_RANGE = "Range along direction {}; default -1,1, and -0.5,1.5 with --direction-to."


def surface(
    setup: SetUp,
    directions: Directions,
    out: Output,
    checkpoints: CheckpointArgument = None,
    resolution: Annotated[
        str, Option(metavar="NxM", help="Grid points along alpha and beta.")
    ] = "51x51",
    alpha: Annotated[str | None, Option(metavar="A,B", help=_RANGE.format("1"))] = None,
    beta: Annotated[str | None, Option(metavar="A,B", help=_RANGE.format("2"))] = None,
    fsdp: Fsdp = False,
) -> None:
    """Draw the loss over a plane through a checkpoint (Li et al. 2018).

    The plane is spanned by two random directions, scaled filter by filter to the weights. Only
    as many points are evaluated as the tolerance needs; the rest is interpolated, with the
    error stated in the picture and in the file.

    Example: `landscape surface ckpt.pt --resolution 51x51 --alpha=-1,1 --beta=-1,1`
    """
    counts = grid_size(resolution, "--resolution")
    _run(checkpoints or [], setup, directions, out, counts, (alpha, beta), fsdp=fsdp)


def line(
    setup: SetUp,
    directions: Directions,
    out: Output,
    checkpoints: CheckpointArgument = None,
    resolution: Annotated[
        int, Option(metavar="N", min=2, help="Grid points along the line.")
    ] = 251,
    alpha: Annotated[str | None, Option(metavar="A,B", help=_RANGE.format("1"))] = None,
    fsdp: Fsdp = False,
) -> None:
    """Draw the loss along a line through a checkpoint, with its standard-error band.

    Example: `landscape line a.pt --direction-to b.pt`
    """
    _run(checkpoints or [], setup, directions, out, (resolution,), (alpha,), fsdp=fsdp)


def _run(
    given: list[Path],
    setup: SetUp,
    directions: Directions,
    out: Output,
    counts: Sequence[int],
    ranges: Sequence[str | None],
    *,
    fsdp: bool,
) -> None:
    """Analyse every checkpoint with the same settings, and draw them on one scale."""
    # Between checkpoints, which stand at 0 and 1, a margin of a half shows what lies beyond.
    default = "-0.5,1.5" if directions.direction_to else "-1,1"
    one_of(directions.shard, SHARDS, "--shard")
    limits = [
        number_range(text or default, option)
        for text, option in zip(ranges, ("--alpha", "--beta"), strict=False)
    ]
    if math.prod(counts) > MOST_CELLS:
        raise BadParameter(f"more than {MOST_CELLS:,} cells", param_hint="--resolution")
    kind = "surface" if len(counts) == 2 else "line"
    if len(directions.direction_to) > len(counts):
        raise BadParameter(f"at most {len(counts)} for a {kind}", param_hint="--direction-to")

    if fsdp:
        whole = {
            "--mark": directions.mark,
            "--direction-eigen": directions.direction_eigen,
            "--shard points": directions.shard == "points",
        }
        refuse_beside_fsdp(whole)

    from landscape.surface import axis

    from . import costs, frame, problem
    from .session import Session

    axes = [axis(*limit, count) for limit, count in zip(limits, counts, strict=True)]
    paths = problem.checkpoints(given)
    session = Session(out, kind, paths)
    policy = frame.batchnorm_policy(directions)
    for path in paths:
        with problem.pointing_to_check(path):
            apart = directions.shard != "data" and not fsdp
            loaded = problem.load(setup, path, bn=policy, fsdp=fsdp, apart=apart)
        if out.dry_run:
            session.plan(loaded, costs.surface(counts, directions))
            continue
        span = frame.build(loaded, setup, directions, len(axes), source=path)
        loaded = loaded.noted(*span.notes)
        session.analyse(path, loaded, analysis(loaded, span, axes, directions))
        del loaded, span  # before the next checkpoint comes into memory
    session.finish()


def shares_points(shard: str, problem: "Problem") -> bool:
    """Whether ranks share out points; by themselves where each would have few batches.

    No rank can evaluate a network alone that is sharded over all.
    """
    from landscape import ranks

    if problem.objective.space.split:
        return False
    few = problem.batches.count < FEW * ranks.count()
    return shard == "points" or (shard == "auto" and few)


def analysis(
    problem: "Problem", frame: "Frame", axes: "Sequence[Array]", options: Directions
) -> "Analysis":
    """The loss over the plane or along the line of `frame`, on the grid of `axes`."""
    from landscape import convexity, surface
    from landscape.estimate import Estimate

    from .session import Analysis, Step

    tolerance = 0.0 if options.exact else options.tolerance
    points: dict[tuple[float, ...], dict[str, Estimate]] = {}
    products = 0
    plane = (problem.objective, problem.theta, frame.directions)

    def start(records: list[dict[str, Any]]) -> "Generator[Step, None, Surface]":
        for record in records:
            known = {name: Estimate(*value) for name, value in record["values"].items()}
            keep(record["at"], known, record.get("products", 0))
        most = options.max_evaluations
        yield from steps(
            surface.sample(
                surface.along(*plane),
                axes,
                known=points,
                tolerance=tolerance,
                max_evaluations=most,
                apart=shares_points(options.shard, problem),
            )
        )
        if options.curvature:
            most = options.curvature_points
            yield from steps(
                convexity.evaluate(
                    *plane,
                    axes=axes,
                    known=points,
                    tolerance=options.tolerance,
                    max_points=most,
                    seed=problem.config["seed"],
                )
            )
        return result(complete=True)

    def keep(at: "Sequence[float]", known: "Mapping[str, Estimate]", spent: int) -> None:
        nonlocal products
        points.setdefault(tuple(at), {}).update(known)
        products += spent

    def steps(run: "Generator[surface.Point, None, Any]") -> "Iterator[Step]":
        for point in run:
            keep(point.at, point.estimates, point.products)
            values: dict[str, Any] = {n: astuple(e) for n, e in point.estimates.items()}
            spent = {"products": point.products} if point.products else {}
            note = "" if point.error != point.error else f"error {100 * point.error:.2g} %"
            note = ", ".join(filter(None, ["curvature" if spent else "", note]))
            yield Step({"at": point.at, "values": values, **spent}, point.done, point.planned, note)

    def result(*, complete: bool) -> "Surface":
        found = surface.assemble(points, axes, tolerance=tolerance, complete=complete)
        return replace(frame.label(found, problem), products=products)

    config = {
        **frame.config,
        "axes": [[float(a[0]), float(a[-1]), len(a)] for a in axes],
        "tolerance": tolerance,
        "max_evaluations": options.max_evaluations,
        **({"curvature": options.curvature_points} if options.curvature else {}),
    }
    return Analysis(config, start, lambda: result(complete=False) if points else None)
