"""`landscape gate`: refuse a model by its sharpness."""

import os
import shlex
import sys
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer import Argument

from landscape.errors import UserError

from . import launch
from .options import SetUp
from .options_gate import Gate, Reports

if TYPE_CHECKING:
    from landscape.policy import Policy
    from landscape.report_text import Origin
    from landscape.results import Verdict

    from .problem import Problem

REFUSED, UNDECIDED = 3, 4  # exit codes; 1 is any error, so it is never a verdict


def gate(
    setup: SetUp,
    against: Gate,
    reports: Reports,
    candidate: Annotated[
        Path | None,
        Argument(
            metavar="CANDIDATE",
            help="The checkpoint that is to go live; `init` writes a policy and a workflow file.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Refuse a checkpoint that is sharper, or worse, than it may be: for pipelines.

    Candidate and baseline are measured on the same groups of examples. It passes where the upper
    bound of the difference is within the margin, and is refused where the lower bound is above;
    more groups are looked at in between, up to the policy's last look. Exit codes: 0 pass, 3
    refused, 4 undecided, 1 an error, 2 wrong usage or policy.

    Example: `landscape gate candidate.pt --baseline production.pt`
    """
    if against.from_ is not None:
        _answer(against.from_, candidate, against, reports)
    if candidate is None:
        raise typer.BadParameter("name a checkpoint, or pass --from", param_hint="CANDIDATE")
    if candidate == Path("init") and not candidate.exists():
        from . import gate_init

        for path in gate_init.write(Path.cwd()):
            print(path)
        typer.echo(gate_init.NEXT, err=True)
        return

    from landscape import ranks

    from . import gate_run, gate_tell, plan

    started = time.time(), time.monotonic()
    policy, source = _policy(against)
    _check_reports(reports, candidate)
    console = gate_tell.console(reports.quiet or not launch.is_first())
    gate_tell.policy(console, policy, source)
    if reports.dry_run:
        planned = gate_run.planned(candidate, setup, against, policy)
        if launch.is_first():
            plan.show([planned])
        return
    verdict, problem = gate_run.measure(candidate, setup, against, policy)
    code = _code(verdict, reports)
    command = _command(candidate, setup, against)
    origin = _origin(candidate, against, source, problem, command=command, code=code, begun=started)
    if not ranks.first():
        return
    gate_tell.verdict(console, verdict)
    if reports.explain:
        console.print(f"measure it again: {command}", markup=False, soft_wrap=True)
    _write(verdict, origin, reports)
    print(verdict.verdict)
    raise launch.Verdict(code, kept=reports.json is not None)


def _answer(source: Path, candidate: Path | None, against: Gate, reports: Reports) -> NoReturn:
    """End with the verdict of an earlier run.

    Raises:
        BadParameter: options that belong to a measurement.
        UserError: there is no verdict.
        Exit: always, otherwise.
    """
    others = replace(against, from_=None) != Gate() or replace(reports, quiet=False) != Reports()
    if candidate is not None or others:
        raise typer.BadParameter(
            "the verdict is there already: leave out everything else but --quiet",
            param_hint="--from",
        )

    from landscape import report_json

    from . import gate_tell

    verdict, reason, code = report_json.answer(source)
    gate_tell.console(reports.quiet).print(f"{verdict}: {reason}", markup=False, soft_wrap=True)
    print(verdict)
    raise launch.Verdict(code, kept=True)


def _policy(against: Gate) -> "tuple[Policy, Path | None]":
    """The policy, and the file it comes from.

    Raises:
        PolicyError: it cannot be meant.
        BadParameter: options that contradict it.
    """
    from landscape import policy as policies
    from landscape.gate import Rule

    source = against.policy or policies.nearest(Path.cwd())
    if against.max_sharpness is None and source is not None:
        if against.rho is not None:
            raise typer.BadParameter("set rho in the policy", param_hint="--rho")
        return policies.load(source), source
    if against.max_sharpness is not None and against.policy is not None:
        raise typer.BadParameter("write the limit into the policy", param_hint="--max-sharpness")
    policy = policies.Policy()
    if against.rho is not None:
        if against.rho <= 0:
            raise typer.BadParameter(f"{against.rho} is not positive", param_hint="--rho")
        policy = replace(policy, measure=replace(policy.measure, rho=against.rho))
    if against.max_sharpness is not None:
        absolute = Rule(policies.SHARPNESS, "max", against.max_sharpness)
        others = policy.rules[1:] if _has_baseline(against) else ()
        policy = replace(policy, rules=(absolute, *others), require_baseline=False)
    return policy, None


def _has_baseline(against: Gate) -> bool:
    return against.baseline is not None or against.baseline_result is not None


def _check_reports(reports: Reports, candidate: Path) -> None:
    """Refuse, before anything is computed, a report that could not be written in the end."""
    taken = {candidate.resolve()}
    for path in filter(
        None, (reports.json, reports.junit, reports.markdown, reports.metrics, reports.output)
    ):
        if not path.parent.is_dir():
            raise UserError(f"there is no folder {str(path.parent)!r} for {path.name}: make it")
        if path.is_dir() or path.resolve() in taken:
            raise UserError(f"{str(path)!r} is a folder, or another file of this run: rename it")
        taken.add(path.resolve())
    if reports.output is not None and reports.output.exists() and not reports.overwrite:
        raise UserError(f"{str(reports.output)!r} is there already: pass --overwrite")


def _command(candidate: Path, setup: SetUp, against: Gate) -> str:
    """The command that measures this again."""
    words = ["landscape", "gate", str(candidate)]
    for options in (against, setup):
        for name, value in vars(options).items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words += [option] if value else []
            elif isinstance(value, list):
                words += [word for one in value for word in (option, str(one))]
            elif value is not None and value != getattr(type(options), name, None):
                words += [option, str(value)]
    return shlex.join(words)


def _code(verdict: "Verdict", reports: Reports) -> int:
    """The exit code of a verdict."""
    inconclusive = {"fail": REFUSED, "pass": 0, "error": UNDECIDED}[verdict.on_inconclusive]
    code = {"pass": 0, "refused": REFUSED, "undecided": inconclusive}[verdict.verdict]
    if not code or reports.exit_zero:
        return 0
    return code if reports.fail_code is None else reports.fail_code


def _origin(
    candidate: Path,
    against: Gate,
    policy: Path | None,
    problem: "Problem",
    *,
    command: str,
    code: int,
    begun: tuple[float, float],
) -> "Origin":
    """Where the verdict comes from."""
    from landscape.report_text import Origin, Source

    from .provenance import file_digest, versions

    baseline = against.baseline or against.baseline_result
    task = problem.objective.task.source

    def source(path: Path | None) -> Source | None:
        return None if path is None else Source(str(path), file_digest(path))

    return Origin(
        candidate=Source(str(candidate), problem.config["checkpoint"]),
        baseline=source(baseline),
        policy=source(policy),
        task=source(task),
        exit_code=code,
        command=command,
        started=datetime.fromtimestamp(begun[0], timezone.utc).isoformat(timespec="seconds"),
        seconds=time.monotonic() - begun[1],
        versions=versions(),
    )


def _write(verdict: "Verdict", origin: "Origin", reports: Reports) -> None:
    """All reports, and what GitHub Actions reads where it runs; the verdict comes after them.

    Raises:
        UserError: one cannot be written.
    """
    from dataclasses import asdict

    from landscape import plot, report_github, report_markdown, store
    from landscape import reports as files

    if reports.output is not None:
        provenance = {"command": origin.command, "seconds": origin.seconds, **origin.versions}
        store.save(reports.output, verdict, config=asdict(origin), provenance=provenance)
        plot.save(plot.figure(verdict), reports.output.with_suffix(".png"))
    asked = {getattr(reports, name): text for name, text in files.FORMATS.items()}
    files.write({path: text(verdict, origin) for path, text in asked.items() if path is not None})
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    # The runner reads both streams; on stdout stands the verdict and nothing else.
    print(report_github.annotations(verdict, origin), end="", file=sys.stderr)
    beside = {
        "GITHUB_STEP_SUMMARY": report_markdown.text,
        "GITHUB_OUTPUT": report_github.outputs,
    }
    for name, text in beside.items():
        if path := os.environ.get(name):
            files.append(Path(path), text(verdict, origin))
