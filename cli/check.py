"""`landscape check`: the whole set-up, part by part, and what each command will cost."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from landscape.errors import UserError

from .options import SetUp
from .options_plane import Directions

if TYPE_CHECKING:
    from landscape.estimate import Estimate

    from .costs import Range
    from .problem import Problem


def check(
    setup: SetUp,
    checkpoint: Annotated[
        Path | None,
        Argument(
            metavar="CHECKPOINT",
            help="A checkpoint; the project's default if none is given.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Load everything, evaluate it once, and print what was found.

    Example: `landscape check ckpt.pt`
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from . import launch
    from . import problem as problems

    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def report(name: str, fact: str) -> None:
        table.add_row(escape(name), escape(fact))

    try:
        path = problems.checkpoints([checkpoint] if checkpoint else None)[0]
        problem = problems.load(setup, path, report=report)
        _network(problem, report)
        _evaluation(problem, report)
    finally:
        # What stood before a mistake is printed too: it tells how far the set-up got.
        Console(quiet=not launch.is_first()).print(table)


def _network(problem: "Problem", report: Callable[[str, str], None]) -> None:
    from torch import nn

    from landscape import batchnorm

    objective, space = problem.objective, problem.objective.space
    shapes = dict(zip(space.names, space.shapes, strict=True))
    matrices = {name: shape for name, shape in shapes.items() if len(shape) >= 2}
    moving = sum(shape.numel() for shape in matrices.values())
    report("random directions", f"move {moving:,} in {_some(list(matrices))}")
    if vectors := [name for name in shapes if name not in matrices]:
        still = f"{space.size - moving:,} in {_some(vectors)} (1-D; --include-1d moves them)"
        report("and leave", still)
    if frozen := [n for n, p in objective.net.named_parameters() if n not in space.names]:
        report("frozen", _some(frozen))
    norms = len(batchnorm.modules(objective.net))
    dropouts = sum(
        isinstance(m, nn.modules.dropout._DropoutNd) or float(getattr(m, "dropout", 0) or 0) > 0
        for m in objective.net.modules()
        if not isinstance(getattr(m, "dropout", 0), nn.Module)
    )
    report(
        "BatchNorm, dropout",
        f"{norms} with running statistics (used as they are), {dropouts} dropout (off)",
    )
    report("dtype, device", f"{str(space.dtype).removeprefix('torch.')}, {space.device}")
    equal = "bit for bit" if problem.findings.bit_equal else "up to rounding"
    report("two evaluations", f"agree {equal}")
    if problem.findings.coupled:
        report("coupling", "the examples of a batch share their loss: batches are taken whole")


def _evaluation(problem: "Problem", report: Callable[[str, str], None]) -> None:
    import torch

    from landscape.hessian import Settings

    from . import costs, plan

    objective, theta = problem.objective, problem.theta
    estimates = objective.evaluate(theta)
    examples = objective.losses(theta)
    counted = examples.weight.sum() if examples.basis == "none" else (examples.weight != 0).sum()
    report("examples", f"{int(counted):,}")
    value = objective.values(next(iter(problem.batches)))["loss"]
    report("loss of a batch", _reduction(tuple(value.shape), objective.task.weights is not None))
    for name, found in estimates.items():
        report(name, _with_error(found))
    if objective.l2 == 0:
        report("regularisation", "none: weight decay is not part of the loss (--l2 X)")
    try:
        gradient = objective.gradient(theta)
    except UserError as error:  # enough for a surface
        report("gradient", f"none: {error}")
        return
    report("gradient", f"|g| = {float(torch.linalg.vector_norm(gradient)):.4g}")
    pace = plan.pace(problem)
    shown = pace.why or f"{pace.product:.3g}"
    times = f"forward {pace.forward:.3g}, gradient {pace.gradient:.3g}"
    report("seconds", f"{times}, Hessian product {shown}")
    plane, line = (costs.surface(counts, Directions()) for counts in ((51, 51), (251,)))
    exact = costs.surface((51, 51), Directions(exact=True)).evaluations.most * pace.forward
    usual = plane.evaluations.times(pace.forward)
    report("landscape surface", f"about {_seconds(usual)}, {exact:.2g} s with --exact")
    report("landscape line", f"about {_seconds(line.evaluations.times(pace.forward))}")
    if not pace.why:
        eigen = costs.hessian(Settings(), 0).products.times(pace.product)
        report("landscape hessian", f"about {_seconds(eigen)}")


def _seconds(found: "Range") -> str:
    return f"{found.least:.2g} to {found.most:.2g} s"


def _some(names: list[str]) -> str:
    """A count of tensors, and the first few by name."""
    rest = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (
        f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'}: {', '.join(names[:6])}{rest}"
    )


def _reduction(shape: tuple[int, ...], weighted: bool) -> str:
    """How the values of one batch become a mean, in words."""
    if not shape:
        return "a scalar, taken as the mean over its batch: there will be no standard error"
    if len(shape) == 1:
        return f"shape {shape}, averaged over the examples"
    if weighted:
        return f"shape {shape}, averaged over the values that count, by their weights"
    return (
        f"shape {shape}, averaged over the examples and over the {math.prod(shape[1:])} values of "
        "each: where training added these up, losses and curvature are smaller here by that factor"
    )


def _with_error(found: "Estimate") -> str:
    if found.basis == "none" or found.stderr != found.stderr:
        return f"{found.mean:.6g}, without a standard error"
    basis = "" if found.basis == "examples" else f", {found.basis}"
    return f"{found.mean:.6g} +- {found.stderr:.2g} (standard error{basis})"
