"""`landscape sharpness`: how far the loss rises within a radius."""

from collections.abc import Generator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import typer

from .options import CheckpointArgument, Fsdp, Output, SetUp
from .options_sharpness import Sharp
from .values import names, numbers, one_of, refuse_beside_fsdp

if TYPE_CHECKING:
    from pathlib import Path

    from landscape.recipe import Plan
    from landscape.results import Sharpness

    from .problem import Problem
    from .session import Analysis, Step


def sharpness(
    setup: SetUp,
    sharp: Sharp,
    out: Output,
    checkpoints: CheckpointArgument = None,
    fsdp: Fsdp = False,
) -> None:
    """Measure how far the loss rises within radius rho of a checkpoint, with intervals.

    Several checkpoints are compared on the same examples. --dtype auto takes float64 where rounding
    would be a visible part of a rise.

    Example: `landscape sharpness ckpt.pt --rho 0.05`
    """
    plan = _plan(sharp, setup.seed)
    if fsdp:
        whole = {"keskar": bool(plan.eps), "random": "random" in plan.measures}
        refuse_beside_fsdp({f"--measure {name}": asked for name, asked in whole.items()})

    from . import costs, problem
    from .session import Session

    paths = problem.checkpoints(checkpoints)
    session = Session(out, "sharpness", paths)
    for path in paths:
        with problem.pointing_to_check(path):
            loaded, own = _load(setup, path, plan, fsdp=fsdp), plan
        if plan.quadratic and not sharp.measure and not plan.recipe.from_top:
            loaded, own = _as_it_goes(loaded, plan)
        if out.dry_run:
            session.plan(loaded, costs.sharpness(own, _share(loaded, own)))
            continue
        session.analyse(path, loaded, _analysis(loaded, own))
        del loaded  # before the next checkpoint comes into memory
    session.finish()
    if len(paths) > 1 and not out.dry_run:
        from .words_sharpness import comparison

        found: list[Any] = [result for _, result in session.results]
        for line in comparison(found, [path.name for path in paths]):
            session.tell(line)


def _load(setup: SetUp, path: "Path", plan: "Plan", *, fsdp: bool) -> "Problem":
    """The problem; in float64 if --dtype auto finds that rounding would be visible."""
    from landscape.sharpness import rounding_visible

    from . import problem

    apart = plan.m is not None
    if setup.dtype != "auto":
        return problem.load(setup, path, fsdp=fsdp, apart=apart)
    loaded = problem.load(replace(setup, dtype="float32"), path, fsdp=fsdp, apart=apart)
    share = rounding_visible(loaded.objective, loaded.theta, plan)
    if share is None:
        return loaded
    wide = problem.load(replace(setup, dtype="float64"), path, fsdp=fsdp, apart=apart)
    note = f"--dtype auto: float64, since float32 rounding would be {100 * share:.2g} % of a rise"
    return wide.noted(note)


def _as_it_goes(problem: "Problem", plan: "Plan") -> "tuple[Problem, Plan]":
    """Without the quadratic model, which is a default, if there are no second derivatives."""
    from landscape.errors import UserError
    from landscape.products import few

    objective = problem.objective
    some = few(objective, next(iter(objective.batches)))
    try:
        objective.over([some]).hessian(problem.theta, memory=0)(problem.theta)
    except UserError as error:
        return problem.noted(f"no quadratic model: {error}"), replace(plan, quadratic=False)
    return problem, plan


def _share(problem: "Problem", plan: "Plan") -> float:
    """The part of the examples that is in groups."""
    from landscape.groups import Groups

    if plan.m is None:
        return 1.0
    groups = Groups(problem.objective, plan.m, seed=plan.recipe.seed)
    return min(1.0, groups.limited(plan.limit) * plan.m / groups.examples)


def _plan(sharp: Sharp, seed: int) -> "Plan":
    from landscape import geometry
    from landscape.recipe import MEASURES, RANDOM_SCALES, Plan, Recipe

    if sharp.include_1d and sharp.no_1d:
        raise typer.BadParameter("contradicts --no-1d", param_hint="--include-1d")
    if sharp.draws % 2:
        raise typer.BadParameter(
            "perturbations come in pairs: an even number", param_hint="--draws"
        )
    asked = names(sharp.measure, (*MEASURES, "quadratic", "keskar"), "--measure")
    m = _count(sharp.m, "--m")
    if m is not None and (set(asked) & {"quadratic", "keskar"} or sharp.from_top):
        raise typer.BadParameter(
            "quadratic, keskar and --from-top belong to the mean loss over all examples: leave out "
            "--m",
            param_hint="--measure",
        )
    if sharp.ball != "l2" and ("quadratic" in asked or sharp.from_top):
        raise typer.BadParameter("quadratic and --from-top need --ball l2", param_hint="--ball")
    if sharp.groups is not None and m is None:
        raise typer.BadParameter("needs --m", param_hint="--groups")
    by_default = not asked and m is None and sharp.ball == "l2"
    recipe = Recipe(
        shape=one_of(sharp.ball, geometry.SHAPES, "--ball"),
        include_1d=not sharp.no_1d,
        seed=seed,
        steps=sharp.steps,
        restarts=sharp.restarts,
        from_top=sharp.from_top,
        draws=sharp.draws,
        trials=sharp.trials,
        random_scale=one_of(sharp.random_scale, RANDOM_SCALES, "--random-scale"),
    )
    return Plan(
        measures=tuple(x for x in MEASURES if x in (asked or ("sam", "worst", "average"))),
        norms=names(sharp.norm, geometry.NORMS, "--norm") or ("plain", "adaptive"),
        rhos=radii(sharp.rho, sharp.rho_range),
        m=m,
        limit=sharp.groups,
        per_block=one_of(sharp.per, ("block",), "--per") == "block" if sharp.per else False,
        quadratic="quadratic" in asked or by_default or sharp.from_top,
        eps=numbers(sharp.eps, "--eps") if "keskar" in asked else (),
        recipe=recipe,
    )


def radii(rho: str, span: str | None) -> tuple[float, ...]:
    """The radii of --rho, or those that --rho-range spans, ascending.

    `A,B,N`: N of them from A to B at equal ratios, at three digits; 8 for `A,B`.
    """
    if span is None:
        return numbers(rho, "--rho")
    low, _, rest = span.partition(",")
    high, _, count = rest.partition(",")
    ends = numbers(f"{low},{high}", "--rho-range")
    many = _count(count or "8", "--rho-range")
    if len(ends) < 2 or float(low) > float(high) or many is None or many < 2:
        raise typer.BadParameter(
            f"{span!r} is not A,B or A,B,N with A < B and N at least 2", param_hint="--rho-range"
        )
    ratio = (ends[1] / ends[0]) ** (1 / (many - 1))
    inner = [float(f"{ends[0] * ratio**i:.3g}") for i in range(1, many - 1)]
    return tuple(sorted({ends[0], *inner, ends[1]}))


def _count(text: str, option: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(
            f"{text!r} is neither all nor a count from 1 on", param_hint=option
        )
    return int(text)


def _analysis(problem: "Problem", plan: "Plan") -> "Analysis":
    from landscape.measurement import Measurement

    from .session import Analysis, Step

    measurements: list[Measurement] = []

    def labelled(complete: bool) -> "Sharpness":
        record = measurements[0].result(complete=complete)
        return replace(record, title=problem.titled(f"Sharpness of {problem.name}"))

    def start(records: list[dict[str, Any]]) -> "Generator[Step, None, Sharpness]":
        measurement = Measurement(problem.objective, problem.theta, plan)
        measurements.append(measurement)
        for record in records:
            measurement.keep(record)
        for record in measurement:
            done = len(measurement.records)
            yield Step(record, done, measurement.planned, "")
        return labelled(complete=True)

    def snapshot() -> "Sharpness | None":
        return labelled(complete=False) if measurements and measurements[0].records else None

    return Analysis(
        {"parameters": "all" if plan.recipe.include_1d else "2 dimensions or more", **asdict(plan)},
        start,
        snapshot,
    )
