"""What `landscape gate` tells the person at the terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from landscape.policy import Policy
from landscape.report_text import allowed, interval, number, outcome, sentence
from landscape.results import Verdict

TABLE_WIDTH = 110
LOG_WIDTH = 140  # a log has no width of its own, and a wrapped table is hard to read there
_COLOURS = {"pass": "green", "refused": "red", "undecided": "yellow"}


def console(quiet: bool) -> Console:
    """On stderr."""
    found = Console(stderr=True, quiet=quiet, highlight=False)
    if not found.is_terminal:
        found.width = LOG_WIDTH
    return found


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
    """A table of the rules, or a line for each where it is too narrow, and one sentence."""
    if console.width < TABLE_WIDTH:
        for i in range(len(result.rule)):
            console.print(f"  {sentence(result, i)}", markup=False, soft_wrap=True)
    else:
        console.print(_table(result))
    colour = _COLOURS[result.verdict]
    console.print(f"[bold {colour}]{result.verdict}[/]: {escape(result.reason)}", soft_wrap=True)


def _table(result: Verdict) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rule", overflow="fold")
    for name in ("candidate", "baseline", "difference", "allowed", "groups"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("verdict", overflow="fold")
    for i, name in enumerate(result.rule):
        colour = _COLOURS[result.rule_verdict[i]]
        table.add_row(
            escape(name),
            number(result.candidate[i]),
            number(result.baseline[i]),
            escape(interval(result, i)),
            allowed(result, i),
            str(result.groups[i] or "-"),
            f"[{colour}]{escape(outcome(result, i))}[/]",
        )
    return table
