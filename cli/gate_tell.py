"""What `landscape gate` tells the person at the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from landscape.policy import Policy
from landscape.report_text import interval, number, outcome
from landscape.results import Verdict

WIDTH = 110
_COLOURS = {"pass": "green", "refused": "red", "undecided": "yellow"}


def console(quiet: bool) -> Console:
    """On stderr; as wide as the table, in logs too."""
    found = Console(stderr=True, quiet=quiet, highlight=False)
    return (
        found
        if found.width >= WIDTH
        else Console(stderr=True, quiet=quiet, highlight=False, width=WIDTH)
    )


def policy(console: Console, policy: Policy, source: Path | None) -> None:
    """What is measured and what it may be, before anything is computed."""
    how = policy.measure
    looks = ", ".join(map(str, how.looks))
    where = f"policy {source}" if source else "the default policy"
    console.print(
        f"{where}: {how.measure} sharpness, norm {how.norm}, rho {how.rho:g}, on groups of {how.m} "
        f"examples, looks at {looks} groups",
        markup=False,
        soft_wrap=True,
    )
    for rule in policy.rules:
        warn = ", warning only" if rule.level == "warn" else ""
        text = f"  {rule.quantity}: {rule}, confidence {rule.confidence:g}{warn}"
        console.print(text, markup=False, soft_wrap=True)


def verdict(console: Console, result: Verdict) -> None:
    """A table of the rules, and one sentence."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule", overflow="fold")
    for name in ("candidate", "baseline", "difference", "may be", "groups"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("verdict", overflow="fold")
    for i, name in enumerate(result.rule):
        colour = _COLOURS[result.rule_verdict[i]]
        table.add_row(
            escape(name),
            number(result.candidate[i]),
            number(result.baseline[i]),
            escape(interval(result, i)),
            number(result.margin[i]),
            str(result.groups[i] or "-"),
            f"[{colour}]{escape(outcome(result, i))}[/]",
        )
    console.print(table)
    colour = _COLOURS[result.verdict]
    console.print(f"[bold {colour}]{result.verdict}[/]: {escape(result.reason)}", soft_wrap=True)
