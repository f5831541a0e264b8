"""`landscape hessian`: the curvature at a checkpoint."""

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from landscape.errors import UserError

from .options import CheckpointArgument, Output, SetUp
from .values import byte_count, one_of

if TYPE_CHECKING:
    from landscape.results import Spectrum

    from .problem import Problem
    from .session import Analysis, Step


def hessian(
    setup: SetUp,
    out: Output,
    checkpoints: CheckpointArgument = None,
    count: Annotated[int, Option(min=1, metavar="K", help="Eigenvalues, at each end.")] = 5,
    which: Annotated[
        str,
        Option(
            metavar="both|largest|smallest|magnitude", help="Which end of the spectrum, or both."
        ),
    ] = "both",
    tolerance: Annotated[
        float,
        Option(min=1e-12, metavar="X", help="Residual to reach, relative to the eigenvalue."),
    ] = 1e-3,
    max_products: Annotated[
        int | None,
        Option(min=1, metavar="N", help="Stop the eigenvalues there, converged or not."),
    ] = None,
    basis: Annotated[
        int | None, Option(min=1, metavar="N", help="Krylov vectors kept in memory at most.")
    ] = None,
    memory: Annotated[
        str | None,
        Option(
            metavar="BYTES",
            help="For kept graphs, as in 2G or 500M; 0 keeps none. A quarter of what is free.",
        ),
    ] = None,
    no_multiplicity_check: Annotated[
        bool,
        Option(
            "--no-multiplicity-check", metavar="", help="Do not look for equal eigenvalues again."
        ),
    ] = False,
    strict: Annotated[
        bool, Option("--strict", metavar="", help="End with 1 if an eigenvalue did not converge.")
    ] = False,
) -> None:
    """Find the Hessian's eigenvalues at both ends, with residuals.

    Lanczos on Hessian-vector products; what is not converged is said. Weight decay is not part
    of the matrix unless --l2 adds it.

    Example: `landscape hessian ckpt.pt --count 5`
    """
    from landscape.lanczos import WHICH

    from . import problem
    from .session import Session

    one_of(which, WHICH, "--which")
    room = byte_count(memory, "--memory")
    paths = problem.checkpoints(checkpoints)
    session = Session(out, "hessian", paths)
    for path in paths:
        loaded = problem.load(setup, path)
        settings = {
            "count": count,
            "which": which,
            "tolerance": tolerance,
            "basis": basis,
            "max_products": max_products,
            "multiplicity": not no_multiplicity_check,
        }
        session.analyse(path, loaded, _analysis(loaded, setup.seed, room, settings))
    session.finish()
    if strict and not all(result.converged for _, result in session.results):
        raise UserError("not every eigenvalue converged, and --strict was given")


def _analysis(
    problem: "Problem", seed: int, memory: int | None, settings: dict[str, Any]
) -> "Analysis":
    import torch

    from landscape.hessian import Curvature

    from .session import Analysis, Step

    search: list[Curvature] = []

    def labelled(complete: bool) -> "Spectrum":
        split = f" ({problem.split} split)" if problem.split else ""
        title = f"Hessian of the loss at {problem.name}{split}"
        return replace(search[0].result(complete=complete), title=title)

    def start(_: list[dict[str, Any]]) -> "Generator[Step, None, Spectrum]":
        search.append(
            Curvature(
                problem.objective,
                problem.theta,
                generator=torch.Generator().manual_seed(seed),
                memory=memory,
                **settings,
            )
        )
        for step in search[0]:
            worst = f", residual {step.residuals.max():.1g}" if len(step.residuals) else ""
            note = f"{step.converged} of {step.wanted} eigenvalues converged{worst}"
            yield Step(None, step.products, settings["max_products"], note)
        return labelled(complete=True)

    def snapshot() -> "Spectrum | None":
        return labelled(complete=False) if search and search[0].search.krylov.n else None

    return Analysis({"parameters": "all", **settings}, start, snapshot)
