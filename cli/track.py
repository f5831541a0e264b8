"""`landscape track`: curvature, loss and metrics along training."""

import hashlib
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from landscape.errors import UserError

from .options import Output, SetUp
from .options_curvature import (
    BasisDevice,
    Curvature,
    Force,
    MaxProducts,
    Memory,
    No1d,
    Only,
    Probes,
    Rates,
    Tolerance,
)
from .values import byte_count, one_of

if TYPE_CHECKING:
    from landscape.batches import Batches
    from landscape.results import Track
    from landscape.stability import Update
    from landscape.track import Point, Tracker

    from .problem import Problem
    from .session import Analysis, Step

# What training loops put behind the name of a checkpoint.
_COUNTED = re.compile(r"([\W_]*(epoch|ep|step|iter|iteration)?[\W_]*\d+)+$", re.IGNORECASE)


def track(
    setup: SetUp,
    rates: Rates,
    out: Output,
    checkpoints: Annotated[
        list[Path],
        Argument(metavar="CHECKPOINT...", help="Checkpoints of one run, in any order."),
    ],
    held_out: Annotated[
        str | None,
        Option(
            metavar="SPLIT",
            help="Loss and metrics over this split of the data too, beside the task's own.",
        ),
    ] = None,
    tolerance: Tolerance = 1e-3,
    max_products: MaxProducts = None,
    probes: Probes = 10,
    only: Only = None,
    no_1d: No1d = False,
    memory: Memory = None,
    basis_device: BasisDevice = "auto",
    force: Force = False,
) -> None:
    """Follow curvature, loss and metrics over the checkpoints of one training run.

    The largest eigenvalue of the Hessian, its trace, the loss and the task's metrics, drawn by
    step in one picture, with the line at which the learning rate in the files (or --lr) becomes
    unstable: gradient descent on full batches settles there (Cohen et al. 2021).

    Example: `landscape track ckpt_100.pt ckpt_200.pt ckpt_300.pt --lr 0.1`
    """
    from landscape import batchnorm
    from landscape.basis import PLACES
    from landscape.track import Tracker

    from . import beside, costs, problem
    from .part import restrict
    from .session import Session

    place = one_of(basis_device, PLACES, "--basis-device")
    paths = ordered(checkpoints)
    session = Session(named(out, paths, "track"), "track", paths[:1])
    with problem.pointing_to_check(paths[0]):
        first = problem.load(setup, paths[0])
    part = Curvature(only=only, no_1d=no_1d, force=force)
    others = {} if held_out is None else {held_out: beside.other_split(first, held_out)}
    tracker = Tracker(
        seed=setup.seed,
        tolerance=tolerance,
        max_products=max_products,
        probes=probes,
        memory=byte_count(memory, "--memory"),
        place=place,
    )
    whole = restrict(first, part)
    if out.dry_run:
        session.plan(whole, costs.track(len(paths), probes), memory=byte_count(memory, "--memory"))
        session.finish()
        return
    told = set(whole.notes)

    def measure(path: Path) -> _Measured:
        loaded = restrict(first if path == paths[0] else beside.at(first, setup, path), part)
        try:
            found = _measure(loaded, rates, tracker, others)
        except UserError as error:
            raise type(error)(f"{path}: {error}") from error
        unfit = found.why if loaded.training.optimiser is not None else ""
        for note in filter(None, (*loaded.notes, unfit)):
            if note not in told:
                told.add(note)
                session.tell(f"note: {path.name}: {note}")
        return found

    def label(result: "Track") -> "Track":
        return replace(
            result,
            title=first.titled(f"Curvature from {paths[0].name} to {paths[-1].name}"),
            tolerance=tolerance,
            probes=probes,
            parameters=whole.objective.space.size,
            l2=whole.objective.l2,
            batchnorm=bool(batchnorm.modules(whole.objective.net)),
        )

    config = {
        "checkpoint": digest(paths),
        "tensors": None,  # of every checkpoint: what the digest of the files stands for
        "held_out": {name: batches.digest for name, batches in others.items()},
        "rates": asdict(rates),
        "tolerance": tolerance,
        "max_products": max_products,
        "probes": probes,
    }
    several = replace(whole, name=f"{len(paths)} checkpoints")
    session.analyse(paths[0], several, _analysis(paths, measure, label, config))
    session.finish()


def ordered(given: Sequence[Path], least: int = 2) -> list[Path]:
    """The checkpoints in the order of the numbers in their names, if these tell them apart.

    Neighbours are then near each other in weight space, as warm starts want it.

    Raises:
        UserError: fewer than `least`, or one of them twice.
    """
    from landscape import names

    if len(given) < least:
        raise UserError(
            f"{least} checkpoints or more of one training run are needed, not {len(given)}: name "
            "them"
        )
    if len({path.resolve() for path in given}) < len(given):
        raise UserError("a checkpoint is named twice: name each once")
    numbers = names.steps(given) or list(range(len(given)))
    return [path for _, path in sorted(zip(numbers, given, strict=True))]


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of the digests of the files, a line each, in their order."""
    from . import provenance

    lines = "".join(f"{provenance.file_digest(path)}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()


def named(out: Output, paths: Sequence[Path], kind: str) -> Output:
    """The output options with a result named after what the checkpoints have in common."""
    path = paths[0]
    stem = path.resolve().name if path.is_dir() else path.stem
    name = _COUNTED.sub("", stem) or path.resolve().parent.name or "checkpoints"
    chosen = replace(out, output=out.output or Path(f"{name}.{kind}.h5"))
    if chosen.output in paths or out.picture in paths:
        raise UserError("the result would be written over a checkpoint: choose another -o")
    return chosen


@dataclass(frozen=True)
class _Measured:
    """One checkpoint: what the journal keeps of it."""

    point: "Point"
    update: "Update | None"
    why: str  # there is no update
    counters: Mapping[str, float]


def _measure(
    loaded: "Problem", rates: Rates, tracker: "Tracker", others: Mapping[str, "Batches"]
) -> _Measured:
    from landscape import preconditioning

    from .rates import update

    objective, state = loaded.objective, loaded.training.optimiser
    found = update(rates, loaded.training)
    scale = None
    if not isinstance(found, str) and found.adam and state is not None:
        try:
            scale = preconditioning.scale(state, objective.net, objective.space)
        except UserError as error:
            found = str(error)
    known, why = (None, found) if isinstance(found, str) else (found, "")
    decay = 0.0 if known is None else known.weight_decay - objective.l2
    point = tracker.measure(objective, loaded.theta, scale=scale, decay=decay)
    quantities = dict(point.quantities)
    for split, batches in others.items():
        beside = loaded.objective.over(batches).evaluate(loaded.theta)
        quantities |= {f"{n} ({split})": (e.mean, e.stderr) for n, e in beside.items()}
    counters = dict(loaded.training.counters)
    return _Measured(replace(point, quantities=quantities), known, why, counters)


def _analysis(
    paths: Sequence[Path],
    measure: Callable[[Path], _Measured],
    label: Callable[["Track"], "Track"],
    config: Mapping[str, Any],
) -> "Analysis":
    """Measures what no earlier run has measured, in the order of `paths`."""
    from landscape import steps, track

    from .session import Analysis, Step

    known: dict[int, _Measured] = {}

    def assembled(complete: bool) -> "Track":
        chosen = [known[i] for i in sorted(known)]
        here = [paths[i] for i in sorted(known)]
        axis, source = steps.axis([m.counters for m in chosen], here)
        # Before its first step an optimiser has no state, which later checkpoints have.
        sources = dict.fromkeys(m.update.source for m in chosen if m.update is not None)
        sources = sources or dict.fromkeys(m.why for m in chosen)
        result = track.assemble(
            [m.point for m in chosen], axis, [m.update for m in chosen], [str(p) for p in here]
        )
        rate_source = " and ".join(sources)
        return label(
            replace(result, step_source=source, rate_source=rate_source, complete=complete)
        )

    def start(records: list[dict[str, Any]]) -> "Generator[Step, None, Track]":
        known.update((record["number"], _from_json(record)) for record in records)
        for number, path in enumerate(paths):
            if number in known:
                continue
            known[number] = measure(path)
            top = known[number].point.hessian.value
            note = f"{path.name}: lambda_max {top:.4g}"
            yield Step({"number": number, **asdict(known[number])}, len(known), len(paths), note)
        return assembled(complete=True)

    return Analysis(config, start, lambda: assembled(complete=False) if known else None)


def _from_json(record: Mapping[str, Any]) -> _Measured:
    """What `asdict` and JSON have made of a checkpoint, as it was."""
    from landscape.probes import Mean
    from landscape.stability import Update
    from landscape.track import Point, Top

    held, update = record["point"], record["update"]
    point = Point(
        hessian=Top(*held["hessian"]),
        adam=None if held["adam"] is None else Top(*held["adam"]),
        trace=Mean(**held["trace"]),
        quantities={name: (pair[0], pair[1]) for name, pair in held["quantities"].items()},
        gradient_norm=held["gradient_norm"],
        products=held["products"],
    )
    found = None if update is None else Update(**update)
    return _Measured(point, found, record["why"], record["counters"])
