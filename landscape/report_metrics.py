"""A verdict as OpenMetrics text: for GitLab's metrics reports, and for a push or text collector.

Gauges only: they mean the same to readers of the older Prometheus format, which refuse the other
types of OpenMetrics 1.0.
"""

import math
from collections.abc import Iterable

from landscape.records import Array
from landscape.report_text import Origin, sources
from landscape.result_verdict import Verdict

VERDICTS = ("pass", "refused", "undecided")
Sample = tuple[dict[str, str], float]


def text(verdict: Verdict, origin: Origin) -> str:
    """Families `landscape_gate_...`: one sample a rule, and the verdict as three of 0 and 1."""
    names = ("candidate", "baseline", "difference", "low", "high", "margin")
    about = {
        "candidate": "Mean of the candidate.",
        "baseline": "Mean of the baseline.",
        "difference": "What is compared with the margin.",
        "low": "Lower bound of the difference.",
        "high": "Upper bound of the difference.",
        "margin": "What the difference may be.",
    }
    rules: list[Sample] = [
        ({"rule": rule, "level": verdict.level[i], "verdict": name}, float(name == found))
        for i, (rule, found) in enumerate(zip(verdict.rule, verdict.rule_verdict, strict=True))
        for name in VERDICTS
    ]
    files = sources(origin)
    info = {
        **{name: source.path for name, source in files.items()},
        **{f"{name}_sha256": source.sha256 for name, source in files.items()},
        "version": origin.versions.get("landscape-toolkit", ""),
    }
    total: list[Sample] = [({"verdict": n}, float(n == verdict.verdict)) for n in VERDICTS]
    lines = [
        *_family("verdict", "1 for the verdict of the gate.", total),
        *_family("rule_verdict", "1 for the verdict on a rule.", rules),
        *(
            line
            for name in names
            for line in _family(name, about[name], _by_rule(verdict, getattr(verdict, name)))
        ),
        *_family("groups", "Groups judged on.", _by_rule(verdict, verdict.groups.astype(float))),
        *_family("exit_code", "With which the command ends.", [({}, origin.exit_code)]),
        *_family("files", "Always 1; the files behind the verdict.", [(info, 1.0)]),
        "# EOF",
    ]
    return "\n".join(lines) + "\n"


def _by_rule(verdict: Verdict, values: Array) -> list[Sample]:
    """A sample a rule; none where there is no number."""
    pairs = zip(verdict.rule, values, strict=True)
    return [({"rule": rule}, float(value)) for rule, value in pairs if not math.isnan(value)]


def _family(name: str, about: str, samples: Iterable[Sample]) -> list[str]:
    full = f"landscape_gate_{name}"
    return [
        f"# HELP {full} {about}",
        f"# TYPE {full} gauge",
        *(f"{full}{_labels(labels)} {_number(value)}" for labels, value in samples),
    ]


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return text.replace("\r", " ").replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return f"{value:.9g}"
    return "+Inf" if value > 0 else "-Inf"
