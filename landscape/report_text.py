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
    """What rule i compares, between its bounds."""
    middle, low, high = verdict.difference[i], verdict.low[i], verdict.high[i]
    if _is_min(verdict, i):  # the record has them negated
        middle, low, high = -middle, -high, -low
    if math.isinf(verdict.candidate[i]):
        return number(math.inf)
    if low == high or not (math.isfinite(low) and math.isfinite(high)):
        return number(middle)
    return f"{number(middle)} [{number(low)}, {number(high)}]"


def allowed(verdict: Verdict, i: int) -> str:
    """What it may be."""
    margin = verdict.margin[i]
    if math.isnan(margin):
        return "-"
    return f">= {number(-margin)}" if _is_min(verdict, i) else f"<= {number(margin)}"


def _is_min(verdict: Verdict, i: int) -> bool:
    return verdict.rule[i].endswith(".min")


def outcome(verdict: Verdict, i: int) -> str:
    """The verdict on rule i; a rule of level `warn` decides nothing."""
    found = verdict.rule_verdict[i]
    return f"{found} (warning only)" if verdict.level[i] == "warn" and found != "pass" else found


def sentence(verdict: Verdict, i: int) -> str:
    """Rule i in one sentence."""
    limit = verdict.rule[i].rpartition(".")[2]
    what = {"max_increase": "increase", "max_decrease": "decrease"}.get(limit)
    text = f"{verdict.rule[i]} {outcome(verdict, i)}"
    if not math.isnan(verdict.candidate[i]):
        text += ": candidate "
        if what is not None:
            text += f"{number(verdict.candidate[i])}, baseline {number(verdict.baseline[i])}, "
            text += f"{what} "
        text += f"{interval(verdict, i)} where {allowed(verdict, i)} is allowed"
    if groups := int(verdict.groups[i]):
        text += f", {groups} groups"
    if verdict.rule_verdict[i] == "undecided" and (needed := int(verdict.needed[i])):
        text += f"; about {needed} groups would decide"
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
