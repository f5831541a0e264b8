"""Which part of a network moves, for the commands of curvature."""

import re
from dataclasses import replace

import typer

from landscape.errors import UserError

from .options_curvature import Curvature
from .problem import Problem


def restrict(problem: Problem, options: Curvature) -> Problem:
    """The problem with only the tensors that move for curvature, if it may be asked for at all.

    Raises:
        UserError: the weights are stored in low precision, or no tensor is left.
    """
    if problem.low_precision and not options.force:
        raise UserError(
            f"the weights are stored in {', '.join(problem.low_precision)}, rounded by up to a "
            "thousandth: curvature at the rounded point may differ from that of the trained "
            "network; take a float32 checkpoint, or pass --force to have it at this point"
        )
    space = problem.objective.space
    pattern = _pattern(options.only)
    names = [
        name
        for name, shape in zip(space.names, space.shapes, strict=True)
        if pattern.search(name) and (len(shape) > 1 or not options.no_1d)
    ]
    if not names:
        raise UserError(
            f"--only {options.only!r} matches none of the {len(space.names)} tensors "
            f"({', '.join(space.names[:5])}, ...)"
        )
    if len(names) == len(space.names):
        return problem
    objective, theta = problem.objective.restricted(problem.theta, names)
    config = {**problem.config, "only": options.only, "no_1d": options.no_1d}
    note = f"{objective.space.size:,} of {space.size:,} parameters move, in {len(names)} tensors"
    part = replace(problem, objective=objective, theta=theta, config=config)
    return part.noted(f"a principal submatrix: {note}")


def _pattern(text: str | None) -> re.Pattern[str]:
    try:
        return re.compile(text or "")
    except re.error as error:
        raise typer.BadParameter(
            f"{text!r} is no regular expression ({error})", param_hint="--only"
        ) from error
