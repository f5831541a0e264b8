"""`landscape selftest`: whether this installation computes right numbers."""

import json as js
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from typer import Exit, Option

from landscape.errors import UserError

from .options import Json, Quiet

if TYPE_CHECKING:
    import torch

    from landscape.selftest import Outcome


def selftest(
    device: Annotated[
        str,
        Option(
            metavar="all|cpu|cuda[:N]|mps", help="Where to compute; all kinds of device by default."
        ),
    ] = "all",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compute what is known from elsewhere, and say whether this installation gets it right.

    Closed forms and known facts go through the code of the other commands: bowls, invariances,
    dense Hessians, gates, paths, files, resumed runs. Needs no data and no network; under two
    minutes. Exit code 1 if anything differs.

    Example: `landscape selftest`
    """
    from rich.console import Console

    from landscape import selftest as tests

    from .provenance import versions

    outcomes: list[Outcome] = []
    told = Console(stderr=True, quiet=quiet)
    with told.status("checking") as status:
        for place in _devices(device):
            for outcome in tests.run(place):
                outcomes.append(outcome)
                status.update(f"{len(outcomes)} checks done")
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if json:
        rows = [asdict(outcome) for outcome in outcomes]
        print(js.dumps({"passed": not failed, "versions": versions(), "checks": rows}, indent=2))
    else:
        _table(outcomes)
        words = ", ".join(f"{name} {version}" for name, version in versions().items())
        Console(highlight=False).print(f"{len(outcomes) - len(failed)} of {len(outcomes)} passed")
        Console(highlight=False, soft_wrap=True).print(words)
    if failed:
        raise Exit(1)


def _devices(name: str) -> "list[torch.device]":
    """The devices that the option names.

    Raises:
        UserError: no such device here.
    """
    import torch

    from landscape import selftest as tests

    from .problem import choose_device

    if name == "all":
        return tests.devices()
    if name == "auto":
        raise UserError("--device auto: name all, or one device")
    return [choose_device(name, torch.float32)]


def _table(outcomes: "list[Outcome]") -> None:
    """Check, expected, got and verdict, a row each."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    several = len({outcome.device for outcome in outcomes}) > 1
    for name in ("", "check", *(["device"] if several else []), "expected", "got", "s"):
        table.add_column(name, overflow="fold", justify="right" if name == "s" else "left")
    for outcome in outcomes:
        mark = "[green]pass[/]" if outcome.passed else "[bold red]FAIL[/]"
        cells = [escape(outcome.check), *([outcome.device] if several else [])]
        cells += [escape(outcome.expected), escape(outcome.got)]
        table.add_row(mark, *cells, f"{outcome.seconds:.1f}")
    Console().print(table)
