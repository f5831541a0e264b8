"""`landscape connect`: paths between two checkpoints, and the barriers on them."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, replace
from pathlib import Path as File
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter

from landscape.errors import UserError

from .options import Output, SetUp
from .options_connect import Looking, Paths
from .values import number_range, one_of

if TYPE_CHECKING:
    from landscape import band, curve
    from landscape.objective import Objective
    from landscape.path import Path
    from landscape.results import Connection, Pairs

    from .align import Aligner
    from .connect_run import Ends, Files, Look
    from .costs import Needs
    from .session import Analysis, Step

METHODS = ("line", "bezier", "polychain", "neb")
ALIGNMENTS = ("weights", "activations", "none")
MOST_POINTS = 100_000


def connect(
    setup: SetUp,
    paths: Paths,
    looking: Looking,
    out: Output,
    checkpoints: Annotated[
        list[File],
        Argument(metavar="A.pt B.pt ...", help="Two checkpoints of one network, or more."),
    ],
) -> None:
    """Join two checkpoints by paths through weight space, and measure the barriers.

    The straight line first; then the line to the second network with its units permuted to
    match the first; then a path of low loss, trained between them. The loss is evaluated where
    each path needs it, with its standard error; BatchNorm statistics are computed anew at every
    point. Three checkpoints or more give the barriers on the straight lines between all of them.

    Example: `landscape connect a.pt b.pt`
    """
    one_of(paths.method, METHODS, "--method")
    one_of(paths.align, ALIGNMENTS, "--align")
    if paths.repair and (paths.align == "none" or len(checkpoints) != 2):
        raise BadParameter("needs two checkpoints and an alignment", param_hint="--repair")
    low, high = number_range(looking.range, "--range")
    if low > 0 or high < 1:
        raise BadParameter("the range must hold 0 and 1", param_hint="--range")
    if looking.resolution > MOST_POINTS:
        raise BadParameter(f"more than {MOST_POINTS:,} points", param_hint="--resolution")
    if len(checkpoints) < 2:
        raise UserError("a path joins two checkpoints: name two, or more for all their barriers")

    from landscape import batchnorm
    from landscape.surface import axis

    from .connect_run import Look

    bn = one_of(looking.bn or "recompute", batchnorm.POLICIES, "--bn")
    look = Look(axis(low, high, looking.resolution), looking.tolerance, looking.max_evaluations)
    if len(checkpoints) > 2:
        if paths.plane or paths.export is not None:
            raise BadParameter("belongs to two checkpoints", param_hint="--plane, --export")
        _between_all(setup, paths, looking, out, checkpoints, look, bn)
    else:
        _between_two(setup, paths, looking, out, checkpoints, look, bn)


def _between_two(
    setup: SetUp,
    paths: Paths,
    looking: Looking,
    out: Output,
    checkpoints: list[File],
    look: "Look",
    bn: str,
) -> None:
    """All paths between two checkpoints."""
    from . import beside, problem
    from .align import Aligner
    from .connect_run import Ends, Files
    from .session import Session

    first, last = checkpoints
    session = Session(_named(out, first, last), "connect", [first])
    with problem.pointing_to_check(first):
        loaded = problem.load(setup, first, bn=bn)
    other = beside.other_point(loaded, setup, last)
    loaded = loaded.noted(*beside.of_buffers(loaded, [other], beside.STILL))
    held = beside.held_out(loaded, looking.held_out)
    ends = Ends(loaded, other, held, beside.training_data(loaded))
    if out.dry_run:
        session.plan(loaded, _needs(paths, looking, ends.training))
        session.finish()
        return
    target = session.target(first)
    files = Files(target.with_suffix(".path.safetensors"), target.with_name(f"{target.name}.state"))
    config = {
        "other": other.digest,
        "paths": {**asdict(paths), "plane": None, "export": None},
        "looking": asdict(looking),
        "bn": bn,
        "held_out": sorted(held),
    }
    align = None
    if paths.align != "none":
        align = Aligner(loaded, paths.align, paths.restarts, session.tell)
    session.analyse(first, loaded, _analysis(ends, look, paths, files, align, config))
    session.finish()
    if paths.plane:
        _plane(ends, paths, files, out, target, looking.tolerance)
    if paths.export is not None:
        _export(ends, paths, files, first, session.tell)


def _needs(paths: Paths, looking: Looking, training: "Objective", pairs: int = 1) -> "Needs":
    """What the paths take; `training` is the loss over the training data."""
    from landscape import tree

    from . import costs

    examples = tree.count(training.batches)
    anew = training.statistics is not None
    return costs.connect(paths, looking, examples=examples, statistics=anew, pairs=pairs)


def _between_all(
    setup: SetUp,
    paths: Paths,
    looking: Looking,
    out: Output,
    checkpoints: list[File],
    look: "Look",
    bn: str,
) -> None:
    """The barriers on the straight lines between each two of several checkpoints."""
    from . import beside, connect_pairs, problem
    from .align import Aligner
    from .session import Analysis, Session
    from .track import named

    if len({path.resolve() for path in checkpoints}) < len(checkpoints):
        raise UserError("a checkpoint is named twice: name each once")
    first, *others = checkpoints
    session = Session(named(out, checkpoints, "matrix"), "matrix", [first])
    with problem.pointing_to_check(first):
        loaded = problem.load(setup, first, bn=bn)
    if out.dry_run:
        pairs = len(checkpoints) * len(others) // 2
        lines = replace(paths, method="line")
        session.plan(loaded, _needs(lines, looking, loaded.objective, pairs))
        session.finish()
        return
    points = [beside.other_point(loaded, setup, path) for path in others]
    loaded = loaded.noted(*beside.of_buffers(loaded, points, beside.STILL))
    align = None
    if paths.align != "none":
        align = Aligner(loaded, paths.align, paths.restarts, session.tell)
    several = connect_pairs.Several(loaded, points, look, align)
    tables: list[connect_pairs.Table] = []

    def start(records: list[dict[str, Any]]) -> "Generator[Step, None, Pairs]":
        tables.append(connect_pairs.Table(several, records))
        return tables[0].fill()

    def snapshot() -> "Pairs | None":
        return tables[0].record(complete=False) if tables and tables[0].known else None

    config = {
        "others": [point.digest for point in points],
        "align": [paths.align, paths.restarts],
        "looking": asdict(looking),
        "bn": bn,
    }
    session.analyse(first, loaded, Analysis(config, start, snapshot))
    session.finish()


def _found(ends: "Ends", paths: Paths, files: "Files") -> "Path":
    """The path that the run has found."""
    from landscape import controls
    from landscape.path import line

    if paths.method == "line" or not files.path.is_file():
        return line(ends.problem.theta, ends.other.theta)
    return controls.load(files.path, ends.problem.objective.space)[0]


def _plane(
    ends: "Ends", paths: Paths, files: "Files", out: Output, target: File, tolerance: float
) -> None:
    """A surface of its own, beside the result of the paths."""
    from . import connect_plane
    from .options_plane import Directions
    from .session import Session
    from .surface import analysis

    frame, axes = connect_plane.frame(ends, _found(ends, paths, files))
    place = target.with_name(f"{target.name.removesuffix('.h5').removesuffix('.connect')}.plane.h5")
    session = Session(replace(out, output=place, picture=None), "surface", [target])
    session.analyse(
        target, ends.problem, analysis(ends.problem, frame, axes, Directions(tolerance=tolerance))
    )
    session.finish()


def _export(
    ends: "Ends", paths: Paths, files: "Files", first: File, tell: "Callable[[str], None]"
) -> None:
    """The network at one place of the path as a checkpoint, its BatchNorm statistics with it."""
    from landscape import checkpoint_write, ranks

    assert paths.export is not None
    objective, other = ends.problem.objective, ends.other.name
    theta = _found(ends, paths, files).at(paths.export)
    tensors = {**objective.space.unravel(theta), **(objective.buffers_at(theta) or {})}
    stems = f"{first.stem}-{File(other).stem}"
    suffix = first.suffix if first.suffix == checkpoint_write.SAFETENSORS else ".pt"
    name = f"{stems}.{paths.method}-{paths.export:g}{suffix}"
    if ranks.first():
        checkpoint_write.save(File(name), checkpoint_write.state(objective.net, tensors))
    tell(f"the network at t = {paths.export:g}: {name}")


def _named(out: Output, first: File, last: File) -> Output:
    """The output options with a result named after both checkpoints."""
    stems = [p.resolve().name if p.is_dir() else p.stem for p in (first, last)]
    named = replace(out, output=out.output or File(f"{stems[0]}-{stems[1]}.connect.h5"))
    taken = {first.resolve(), last.resolve()}
    if any(p is not None and p.resolve() in taken for p in (named.output, out.picture)):
        raise UserError("the result would be written over a checkpoint: choose another -o")
    return named


def _settings(paths: Paths, seed: int) -> "curve.Settings | band.Settings":
    from landscape import band, curve

    if paths.method == "neb":
        return band.Settings(
            pivots=paths.bends or 3,
            cycles=paths.cycles,
            steps=paths.steps or 4000,
            rate=paths.rate,
            m=paths.m,
            seed=seed,
        )
    return curve.Settings(
        kind=paths.method,
        bends=paths.bends or 1,
        steps=paths.steps or 2000,
        rate=paths.rate,
        m=paths.m,
        weight_decay=paths.weight_decay,
        seed=seed,
    )


def _analysis(
    ends: "Ends",
    look: "Look",
    paths: Paths,
    files: "Files",
    align: "Aligner | None",
    config: Mapping[str, Any],
) -> "Analysis":
    """The straight lines, then the trained path; whatever an earlier run has done is kept."""
    from landscape import ranks
    from landscape.path import line

    from .connect_run import Stages, train
    from .session import Analysis

    stages: list[Stages] = []

    def start(records: list[dict[str, Any]]) -> "Generator[Step, None, Connection]":
        stages.append(Stages(ends, look, records))
        a, b = ends.problem.theta, ends.other.theta
        straight = line(a, b)
        yield from stages[0].explore("line", straight, about="straight line")
        if align is not None and not straight.closed:
            mine, theirs = ends.problem.buffers(), ends.other.buffers
            if (moved := align(a, mine, b, theirs)) is not None:
                way = line(a, moved.theta)
                yield from stages[0].explore("aligned", way, about=f"straight line, {moved.about}")
                if paths.repair:
                    reset = align.repaired(a, mine, moved)
                    about = "the aligned line with statistics reset (Jordan et al. 2023)"
                    yield from stages[0].explore("repaired", way, about=about, reset=reset)
        if paths.method != "line" and not straight.closed:
            settings = _settings(paths, ends.problem.config["seed"])
            facts = {"from": ends.problem.config["tensors"], "to": ends.other.digest}
            resume = any("checks" in record for record in records)
            found = yield from train(ends, settings, files, facts, resume=resume)
            yield from stages[0].explore(
                paths.method, found.path, gradients=found.gradients, about=found.about
            )
        result = stages[0].record(complete=True)
        if ranks.first():
            files.state.unlink(missing_ok=True)
        return result

    def snapshot() -> "Connection | None":
        known = stages and stages[0].found
        return stages[0].record(complete=False) if known else None

    return Analysis(config, start, snapshot)
