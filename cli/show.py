"""`landscape show`: what a result file holds, in words and numbers."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from .options import Json

if TYPE_CHECKING:
    from landscape.results import Quantity, Surface
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


def _print(path: Path, result: "Surface", header: "Header") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

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


def sentences(result: "Surface") -> list[str]:
    """What a person wants to know of a surface or line first, each `name: fact`."""
    summary = result.summary()
    lines = [f"result: {result.title}"]
    for name, quantity in result.quantities.items():
        lines.append(f"{name}: {_at_centre(summary, name)}{_extent(quantity)}")
    done, cells = summary["evaluations"], summary["cells"]
    lines.append(f"evaluations: {done} for {cells} cells; {error_statement(result.loss)}")
    decay = f"{result.l2:g}/2 |theta|^2 is" if result.l2 else "weight decay is not"
    lines.append(f"regularisation: {decay} part of the loss (--l2)")
    if summary["non_finite_points"]:
        lines.append(f"not finite: the loss at {summary['non_finite_points']} points")
    if not result.complete:
        lines.append("partial: the run was stopped; the same command goes on")
    elif not result.converged:
        lines.append(
            f"warning: the error is above the tolerance of {100 * result.tolerance:.3g} %; raise "
            "--max-evaluations, or use --exact"
        )
    for name, a, b, loss in zip(
        result.marker_names,
        result.marker_alpha,
        result.marker_alpha if result.marker_beta is None else result.marker_beta,
        result.marker_loss,
        strict=True,
    ):
        at = f"alpha {a:g}" + ("" if result.marker_beta is None else f", beta {b:g}")
        lines.append(f"{name}: loss {loss:.4g} evaluated by itself, at {at}")
    return lines


def _at_centre(summary: "dict[str, float | None]", name: str) -> str:
    mean, stderr = summary[f"{name}_at_centre"], summary[f"{name}_at_centre_stderr"]
    if mean is None:
        return ""
    error = "" if stderr is None else f" +- {stderr:.2g}"
    return f"{mean:.4g}{error} at the checkpoint, "


def _extent(quantity: "Quantity") -> str:
    import numpy as np

    finite = quantity.grid[np.isfinite(quantity.grid)]
    return f"{finite.min():.4g} to {finite.max():.4g} on the grid" if finite.size else "no cell yet"


def error_statement(quantity: "Quantity") -> str:
    """How far the grid may be from the network, in the words of every output."""
    if quantity.error_basis == "none":
        return "every cell evaluated"
    if quantity.error_basis == "unknown":
        return "no error estimate yet"
    shares = [(quantity.error_of_range, "of the range"), (quantity.error_relative, "pointwise")]
    if quantity.log:
        shares.insert(0, (quantity.error_of_log_range, "of the log range"))
    errors = ", ".join(f"{100 * share:.2g} % {of}" for share, of in shares)
    return f"estimated error {errors} ({quantity.error_basis})"
