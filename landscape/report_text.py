"""What every report of a gate says: where the verdict came from, and each rule in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from landscape.result_verdict import Verdict

SCHEMA = 1  # of the JSON report; docs/gate.schema.json


@dataclass(frozen=True)
class Source:
    """A file that decided numbers."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Origin:
    """Where a verdict came from, and what becomes of it."""

    candidate: Source
    baseline: Source | None  # None: absolute limits only
    policy: Source | None  # None: the default policy, or limits on the command line
    task: Source | None  # None: stored values were judged
    exit_code: int  # with which the command ends once the reports are written
    command: str
    started: str  # ISO 8601, UTC
    seconds: float
    versions: Mapping[str, str]  # of the tool and of the libraries that decide numbers


def number(value: float) -> str:
    """Four digits; `infinite` and `-` where there is no finite number."""
    if math.isnan(value):
        return "-"
    return f"{value:.4g}" if math.isfinite(value) else "infinite"


def interval(verdict: Verdict, i: int) -> str:
    """The difference of rule i between its bounds."""
    low, high = verdict.low[i], verdict.high[i]
    middle = number(verdict.difference[i])
    if low == high or not (math.isfinite(low) or math.isfinite(high)):
        return middle
    return f"{middle} [{number(low)}, {number(high)}]"


def outcome(verdict: Verdict, i: int) -> str:
    """The verdict on rule i; a rule of level `warn` decides nothing."""
    found = verdict.rule_verdict[i]
    return f"{found} (warning only)" if verdict.level[i] == "warn" and found != "pass" else found


def sentence(verdict: Verdict, i: int) -> str:
    """Rule i in one sentence."""
    found, margin = verdict.rule_verdict[i], number(verdict.margin[i])
    groups, needed = int(verdict.groups[i]), int(verdict.needed[i])
    against = f", baseline {number(verdict.baseline[i])}"
    against = "" if math.isnan(verdict.baseline[i]) else against
    words = {
        "pass": f"is at most {margin}, what it may be",
        "refused": f"is above {margin}, what it may be",
        "undecided": f"may be on either side of {margin}, what it may be",
    }
    text = (
        f"{verdict.rule[i]} {found}: candidate {number(verdict.candidate[i])}{against}; what is "
        f"compared, {interval(verdict, i)}, {words[found]}"
    )
    if groups:
        text += f", after {groups} groups"
    if found == "undecided" and needed:
        text += f"; about {needed} groups would be needed"
    return text


def sources(origin: Origin) -> dict[str, Source]:
    """The files behind a verdict, by what they are."""
    files = {
        "candidate": origin.candidate,
        "baseline": origin.baseline,
        "policy": origin.policy,
        "task": origin.task,
    }
    return {name: source for name, source in files.items() if source is not None}


def facts(verdict: Verdict, origin: Origin) -> dict[str, str]:
    """Provenance and measurement as names and words, for formats that have no structure."""
    return {
        **{name: f"{s.path} (SHA-256 {s.sha256})" for name, s in sources(origin).items()},
        **{name: str(value) for name, value in verdict.measurement.items()},
        "groups available": str(verdict.groups_available),
        "command": origin.command,
        "started": origin.started,
        "versions": ", ".join(f"{name} {text}" for name, text in origin.versions.items()),
    }
