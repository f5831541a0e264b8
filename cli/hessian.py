"""`landscape hessian`: the curvature at a checkpoint."""

from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from landscape.errors import UserError

from .options import CheckpointArgument, Fsdp, Output, SetUp
from .options_curvature import Curvature, Rates
from .values import byte_count, one_of, refuse_beside_fsdp

if TYPE_CHECKING:
    from torch import Tensor

    from landscape.hessian import Settings
    from landscape.results import Spectrum

    from .problem import Problem
    from .session import Analysis, Step


NAMES = {
    "hessian": "Hessian",
    "ggn": "Gauss-Newton matrix",
    "fisher": "Empirical Fisher matrix",
}


def hessian(
    setup: SetUp,
    curvature: Curvature,
    rates: Rates,
    out: Output,
    checkpoints: CheckpointArgument = None,
    matrix: Annotated[
        str,
        Option(
            metavar="hessian|ggn|fisher",
            help="The Hessian, the generalised Gauss-Newton or the empirical Fisher matrix.",
        ),
    ] = "hessian",
    precondition: Annotated[
        bool,
        Option(
            "--precondition",
            metavar="",
            help="The matrix in the metric of Adam, whose state the checkpoint holds: "
            "D^-1/2 A D^-1/2, D = sqrt(v_hat) + eps.",
        ),
    ] = False,
    check: Annotated[
        bool,
        Option("--check", metavar="", help="Test the product on itself first: four gradients."),
    ] = False,
    density: Annotated[
        bool, Option("--density", metavar="", help="The spectral density too, with error bands.")
    ] = False,
    log: Annotated[
        bool, Option("--log", metavar="", help="A density over decades, on both sides of zero.")
    ] = False,
    steps: Annotated[
        int, Option(min=2, metavar="N", help="Lanczos steps of each probe, for the density.")
    ] = 60,
    per: Annotated[
        str | None,
        Option(metavar="block|tensor", help="Curvature of each module, or of each tensor, too."),
    ] = None,
    vectors: Annotated[
        bool,
        Option(
            "--vectors", metavar="", help="Write the eigenvectors to OUTPUT.vectors.safetensors."
        ),
    ] = False,
    diagonal: Annotated[
        bool,
        Option("--diagonal", metavar="", help="Write an estimate of the diagonal to that file."),
    ] = False,
    strict: Annotated[
        bool, Option("--strict", metavar="", help="End with 1 if an eigenvalue did not converge.")
    ] = False,
    fsdp: Fsdp = False,
) -> None:
    """Find the Hessian's eigenvalues at both ends, its trace, and more on request.

    Lanczos on Hessian-vector products; every number has its residual or standard error, and
    what is not converged is said. Weight decay is not part of the matrix unless --l2 adds it.

    Example: `landscape hessian ckpt.pt --count 10 --density --per block`
    """
    from landscape import blocks
    from landscape.hessian import Settings
    from landscape.objective import MATRICES
    from landscape.results import Spectrum

    from . import costs, eigen, part, problem
    from .session import Session

    if per is not None:
        one_of(per, blocks.PER, "--per")
    if (density or diagonal or log) and not curvature.probes:
        raise typer.BadParameter("the density and the diagonal need some", param_hint="--probes")
    if fsdp:
        whole = {"--check": check, "--per": per, "--vectors": vectors, "--diagonal": diagonal}
        whole["--precondition"] = precondition
        refuse_beside_fsdp(whole)
    if precondition and (vectors or diagonal):
        raise typer.BadParameter(
            "--vectors and --diagonal are of the matrix itself", param_hint="--precondition"
        )
    settings = Settings(
        **_common(curvature),
        matrix=one_of(matrix, tuple(MATRICES), "--matrix"),
        check=check,
        density="log" if log else "linear" if density else None,
        steps=steps,
        diagonal=diagonal,
        per=per,
    )
    paths = problem.checkpoints(checkpoints)
    session = Session(out, "hessian", paths)
    for path in paths:
        with problem.pointing_to_check(path):
            loaded = part.restrict(problem.load(setup, path, fsdp=fsdp), curvature)
        if out.dry_run:
            many = len(blocks.names(loaded.objective.space, per)) if per else 0
            room = byte_count(curvature.memory, "--memory")
            session.plan(loaded, costs.hessian(settings, many), memory=room)
            continue
        if loaded.objective.space.size < curvature.count:
            session.tell(f"note: there are {loaded.objective.space.size} eigenvalues in all")
        wanted = eigen.beside(session.target(path)) if vectors or diagonal else None
        pace = _pace(loaded, rates, settings.matrix, precondition)
        session.analyse(path, loaded, _analysis(loaded, curvature, settings, pace, wanted))
        if wanted is not None:
            session.tell(f"vectors: {wanted}")
        del loaded, pace  # before the next checkpoint comes into memory
    session.finish()
    found = [result for _, result in session.results if isinstance(result, Spectrum)]
    if strict and not all(result.converged for result in found):
        raise UserError("not every eigenvalue converged, and --strict was given")


def _common(options: Curvature) -> dict[str, Any]:
    """The settings that the shared options hold."""
    from landscape.basis import PLACES
    from landscape.lanczos import WHICH, least_basis

    one_of(options.basis_device, PLACES, "--basis-device")
    one_of(options.which, WHICH, "--which")
    least = least_basis(options.count, options.which)
    if options.basis is not None and options.basis < least:
        raise typer.BadParameter(
            f"{options.basis} vectors are too few for this --count: it takes {least}",
            param_hint="--basis",
        )
    return {
        "count": options.count,
        "which": options.which,
        "tolerance": options.tolerance,
        "basis": options.basis,
        "max_products": options.max_products,
        "multiplicity": not options.no_multiplicity_check,
        "probes": options.probes,
    }


@dataclass(frozen=True)
class _Pace:
    """The optimiser that was to go on from the checkpoint, for the record and the analysis."""

    facts: dict[str, Any]  # fields of the record
    adam: "tuple[Tensor, float] | None" = None  # D^-1/2 (P,), and its decay beyond l2
    scale: "Tensor | None" = None  # D^-1/2 (P,), for the whole analysis in that metric


def _pace(problem: "Problem", rates: Rates, matrix: str, precondition: bool) -> _Pace:
    """What the options or the file say of it; no verdict is possible on a part of the network.

    Raises:
        UserError: the metric of Adam is wanted, and the file does not hold it.
    """
    from landscape import batchnorm, preconditioning

    from .rates import update

    found, adam = update(rates, problem.training), None
    objective, state = problem.objective, problem.training.optimiser
    if precondition:
        if state is None and problem.training.note:
            raise UserError(f"--precondition takes Adam's metric: {problem.training.note}")
        if state is None:
            raise UserError(
                "the checkpoint holds no state of Adam, which --precondition takes the metric "
                'from: save it, as in torch.save({"model": net.state_dict(), "optimizer": '
                "optimizer.state_dict()}, path)"
            )
        return _Pace({}, scale=preconditioning.scale(state, objective.net, objective.space))
    if {"only", "no_1d"} & problem.config.keys():
        found = "the matrix is of a part of the network"
    if not isinstance(found, str) and found.adam and state is not None and matrix == "hessian":
        try:
            scale = preconditioning.scale(state, objective.net, objective.space)
            adam = (scale, found.weight_decay - objective.l2)
        except UserError as error:
            found = str(error)
    if isinstance(found, str):
        return _Pace({"method": "", "rate_source": found})
    facts = {
        "method": found.method,
        "rate_source": found.source,
        "learning_rate": found.lr,
        "momentum": found.momentum,
        "weight_decay": found.weight_decay,
        "batchnorm": bool(batchnorm.modules(objective.net)),
    }
    return _Pace(facts, adam)


def _analysis(
    problem: "Problem",
    options: Curvature,
    settings: "Settings",
    pace: "_Pace",
    vectors: Path | None,
) -> "Analysis":
    import torch

    from landscape import eigenvectors, ranks
    from landscape.hessian import Curvature

    from . import eigen
    from .session import Analysis, Step

    runs: list[Curvature] = []

    def labelled(complete: bool) -> "Spectrum":
        metric = " in Adam's metric" if pace.scale is not None else ""
        title = problem.titled(f"{NAMES[settings.matrix]} of the loss{metric} at {problem.name}")
        return replace(runs[0].result(complete=complete), title=title, **pace.facts)

    def start(_: list[dict[str, Any]]) -> "Generator[Step, None, Spectrum]":
        run = Curvature(
            problem.objective,
            problem.theta,
            settings,
            generator=torch.Generator().manual_seed(problem.config["seed"]),
            memory=byte_count(options.memory, "--memory"),
            place=options.basis_device,
            adam=pace.adam,
            scale=pace.scale,
        )
        runs.append(run)
        for note in run:
            yield Step(None, run.products, None, note)
        if vectors is not None:
            assert run.pairs is not None
            more = {}
            if settings.diagonal and run.probes is not None:
                diagonal, stderr = run.probes.diagonal()
                more = {"diagonal": diagonal, "diagonal_stderr": stderr}
            if ranks.first():
                space, identity = problem.objective.space, eigen.identity(problem, settings.matrix)
                eigenvectors.save(vectors, space, run.pairs, belongs_to=identity, more=more)
        return labelled(complete=True)

    def snapshot() -> "Spectrum | None":
        return labelled(complete=False) if runs and runs[0].products else None

    config = {
        "parameters": "all",
        **asdict(settings),
        "vectors": vectors is not None,
        "rates": pace.facts,
        "precondition": pace.scale is not None,
    }
    return Analysis(config, start, snapshot)
