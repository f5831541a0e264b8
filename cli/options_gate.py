"""Options of `landscape gate`."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from .options import DryRun, number

_gate = functools.partial(Option, rich_help_panel="Gate")
_limit = functools.partial(number, rich_help_panel="Gate")
_report = functools.partial(Option, rich_help_panel="Reports")


@dataclass(frozen=True)
class Gate:
    """What a candidate is held against."""

    baseline: Annotated[
        Path | None,
        _gate(metavar="FILE", help="The checkpoint in production, measured on the same examples."),
    ] = None
    baseline_result: Annotated[
        Path | None,
        _gate(
            metavar="FILE.h5",
            help="Its stored result of `landscape sharpness --m M`, in place of the checkpoint.",
        ),
    ] = None
    policy: Annotated[
        Path | None,
        _gate(
            metavar="FILE.toml",
            help="The policy; else [tool.landscape.gate] of the project's pyproject.toml, else "
            "sharpness at most 25 % and loss at most 0.01 above the baseline.",
        ),
    ] = None
    max_sharpness: Annotated[
        float | None, _limit(help="An absolute limit, in place of a policy and a baseline.")
    ] = None
    rho: Annotated[float | None, _limit(help="Radius, where there is no policy.")] = None
    from_: Annotated[
        Path | None,
        _gate(
            "--from",
            metavar="FILE.json",
            help="Measure nothing: end with the verdict that `--json` has written, as under "
            "torchrun, which ends with 1 for 3 and 4.",
        ),
    ] = None


@dataclass(frozen=True)
class Reports:
    """Where the verdict goes, and how the command ends."""

    json: Annotated[
        Path | None, _report("--json", metavar="FILE", help="Everything, by a published schema.")
    ] = None
    junit: Annotated[
        Path | None, _report("--junit", metavar="FILE", help="JUnit XML: one test case a rule.")
    ] = None
    markdown: Annotated[
        Path | None, _report("--markdown", metavar="FILE", help="A table for people.")
    ] = None
    metrics: Annotated[
        Path | None, _report("--metrics", metavar="FILE", help="OpenMetrics text.")
    ] = None
    output: Annotated[
        Path | None,
        _report("--output", "-o", metavar="FILE.h5", help="A result file, with its picture."),
    ] = None
    overwrite: Annotated[
        bool, _report("--overwrite", metavar="", help="Replace a result file.")
    ] = False
    fail_code: Annotated[
        int | None,
        _report(min=0, max=255, metavar="N", help="Exit code in place of 3 and 4."),
    ] = None
    exit_zero: Annotated[
        bool, _report("--exit-zero", metavar="", help="End with 0 in place of 3 and 4.")
    ] = False
    explain: Annotated[
        bool, _report("--explain", metavar="", help="Print the command that measures this again.")
    ] = False
    quiet: Annotated[
        bool, _report("--quiet", "-q", metavar="", help="Print the verdict and errors only.")
    ] = False
    dry_run: DryRun = False
