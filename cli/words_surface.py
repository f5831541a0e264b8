"""A surface or a line in words."""

from typing import Any

import numpy as np

from landscape.results import LAMBDA_MAX, LAMBDA_MIN, RATIO, Quantity, Surface

CURVATURES = (LAMBDA_MAX, LAMBDA_MIN, RATIO)
ROUGH = 0.05  # of the range: what is drawn of an interpolated curvature is then no structure


def sentences(result: Surface) -> list[str]:
    """What a person wants to know first."""
    summary = result.summary()
    lines = [f"result: {result.title}"]
    for name, quantity in result.quantities.items():
        facts = f"{_at_centre(summary, name, quantity)}{_extent(quantity)}"
        error = (
            ""
            if name == "loss" or result.method == "imported"
            else f"; {error_statement(quantity)}"
        )
        lines.append(f"{name}: {facts}{error}")
    if RATIO in result.quantities:
        measured = int(result.quantities[RATIO].computed.sum())
        lines.append(
            f"curvature: at {measured} points, {result.products} products; lambda_ratio is "
            "lambda_min / lambda_max, 0 where the loss is convex"
        )
        worst = max(result.quantities[name].error_of_range for name in CURVATURES)
        if worst > ROUGH:
            lines.append(
                f"warning: between its points the curvature may be off by {100 * worst:.2g} % of "
                "its range, or more; --curvature-points measures it at more of them"
            )
    done, cells = summary["evaluations"], summary["cells"]
    imported = result.method == "imported"
    basis = "none interpolated" if imported else error_statement(result.loss)
    lines.append(f"evaluations: {done} for {cells} cells; {basis}")
    decay = f"{result.l2:g}/2 |theta|^2 is" if result.l2 else "weight decay is not"
    lines.append(f"regularisation: {decay} part of the loss (--l2)")
    if summary["non_finite_points"]:
        lines.append(f"not finite: the loss at {summary['non_finite_points']} points")
    if not result.complete:
        stopped = "the run was stopped; the same command goes on"
        elsewhere = "the tool that wrote it had not computed every cell"
        lines.append(f"partial: {elsewhere if imported else stopped}")
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


def _at_centre(summary: dict[str, Any], name: str, quantity: Quantity) -> str:
    mean, stderr = summary[f"{name}_at_centre"], summary[f"{name}_at_centre_stderr"]
    if mean is None:
        return ""
    error = " without a standard error" if stderr is None else f" +- {stderr:.2g}"
    known = quantity.stderr_basis in ("examples", "none")
    basis = "" if known else f" ({quantity.stderr_basis})"
    return f"{mean:.4g}{error}{basis} at the checkpoint, "


def _extent(quantity: Quantity) -> str:
    finite = quantity.grid[np.isfinite(quantity.grid)]
    return f"{finite.min():.4g} to {finite.max():.4g} on the grid" if finite.size else "no cell yet"


def error_statement(quantity: Quantity) -> str:
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
