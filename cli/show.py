"""`landscape show`: what a result file holds, in words and numbers."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from .options import Json

if TYPE_CHECKING:
    from landscape.results import Result
    from landscape.store import Header


def show(
    results: Annotated[list[Path], Argument(metavar="RESULT.h5", help="Result files.")],
    as_json: Json = False,
) -> None:
    """Print a summary of result files: numbers with their errors, and where they came from.

    Example: `landscape show ckpt.surface.h5`
    """
    from landscape import store

    loaded = [(path, store.load(path), store.describe(path)) for path in results]
    if as_json:
        summaries = [
            {**result.summary(), "provenance": header.provenance, "config": header.config}
            for _, result, header in loaded
        ]
        print(json.dumps(summaries[0] if len(summaries) == 1 else summaries, indent=2))
        return
    for path, result, header in loaded:
        _print(path, result, header)


def _print(path: Path, result: "Result", header: "Header") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from .words import sentences

    table = Table(title=escape(str(path)), show_header=False, title_justify="left", box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for line in sentences(result):
        name, _, fact = line.partition(": ")
        table.add_row(escape(name), escape(fact))
    for name, value in {**header.provenance, **header.config}.items():
        if value is not None and value is not False and value not in ("", [], {}):
            text = value if isinstance(value, str) else json.dumps(value)
            # A digest is told apart by its first digits; --json has all of them.
            text = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"SHA-256 \1...", text)
            table.add_row(escape(name), escape(text), style="dim")
    Console().print(table)
