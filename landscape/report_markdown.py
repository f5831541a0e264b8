"""A verdict as Markdown: a step's summary, a comment on a merge request."""

import re

from landscape.report_text import Origin, allowed, facts, interval, number, outcome, sentence
from landscape.result_verdict import Verdict

_MARKS = {"pass": "\N{WHITE HEAVY CHECK MARK}", "refused": "\N{CROSS MARK}"}
_UNDECIDED = "\N{WHITE QUESTION MARK ORNAMENT}"
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~@&$])")


def text(verdict: Verdict, origin: Origin) -> str:
    """A heading, the reason, a table of the rules, and provenance to unfold."""
    mark = _MARKS.get(verdict.verdict, _UNDECIDED)
    lines = [
        f"### {mark} Gate: {verdict.verdict}",
        "",
        _escaped(verdict.reason),
        "",
        "| rule | candidate | baseline | difference | allowed | groups | verdict |",
        "|---|---:|---:|---:|---:|---:|---|",
        *(_row(verdict, i) for i in range(len(verdict.rule))),
        "",
        "<details><summary>Measurement and provenance</summary>",
        "",
        *(f"- {_escaped(sentence(verdict, i))}" for i in range(len(verdict.rule))),
        *(f"- {_escaped(name)}: {_code(value)}" for name, value in facts(verdict, origin).items()),
        "",
        "</details>",
    ]
    return "\n".join(lines) + "\n"


def _row(verdict: Verdict, i: int) -> str:
    cells = [
        f"{verdict.rule[i]} ({verdict.limit[i]})",
        number(verdict.candidate[i]),
        number(verdict.baseline[i]),
        interval(verdict, i),
        allowed(verdict, i),
        str(verdict.groups[i] or "-"),
        outcome(verdict, i),
    ]
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Text that no renderer takes for markup, a mention or a new line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Text as it stands, in a fence of more backticks than it holds in a row."""
    text = " ".join(text.split())
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"
