"""Curvature along training in words."""

import numpy as np

from landscape.results import Array, Track, Tracked
from landscape.stability import ADAM, AT, BAND, BELOW, BEYOND, verdict_of

from .words_stability import caveats, describe, place


def sentences(result: Track) -> list[str]:
    """What a person wants to know first."""
    step = result.step
    lines = [
        f"result: {result.title}",
        f"steps: {step.size} checkpoints from {step[0]:g} to {step[-1]:g} ({result.step_source})",
        *(f"{name}: {_course(quantity)}" for name, quantity in result.quantities.items()),
        f"lambda_max: {_peak(result, result.lambda_max)}",
    ]
    if result.preconditioned_lambda_max is not None:
        peak = _peak(result, result.preconditioned_lambda_max)
        lines.append(f"lambda_max of D^-1/2 H D^-1/2: {peak}")
    if np.isfinite(result.trace).any():
        error = np.nanmax(np.abs(result.trace_stderr / result.trace))
        lines.append(f"trace: {_ends(result.trace)}, standard error at most {100 * error:.2g} %")
    lines += _edge(result)
    decay = f"{result.l2:g} I is" if result.l2 else "weight decay is not"
    lines.append(f"regularisation: {decay} part of the Hessian (--l2)")
    lines.append(f"products: {result.products.sum()} with {result.parameters:,} parameters")
    broken = int((~np.isfinite(result.lambda_max)).sum())
    if broken:
        lines.append(f"warning: the loss is not finite at {broken} of {step.size} checkpoints")
    if not result.complete:
        lines.append("partial: the run was stopped; the same command goes on")
    if not result.converged:
        lines.append("warning: not every eigenvalue converged; raise --max-products")
    return lines


def _course(quantity: Tracked) -> str:
    stderr = quantity.stderr[-1]
    error = f" +- {stderr:.2g}" if np.isfinite(stderr) else " without a standard error"
    return f"{_ends(quantity.value)}{error}"


def _ends(values: Array) -> str:
    first, last = (f"{x:.4g}" if np.isfinite(x) else "not known" for x in values[[0, -1]])
    return f"{first} at the first, {last} at the last"


def _peak(result: Track, values: Array) -> str:
    if not np.isfinite(values).any():
        return "not known at any checkpoint"
    top = int(np.nanargmax(values))
    return f"{_ends(values)}, largest {values[top]:.4g} at step {result.step[top]:g}"


def _edge(result: Track) -> list[str]:
    """Where the last quarter of the steps stands, and how many checkpoints where."""
    settled = result.settled_ratio()
    if not np.isfinite(settled):
        return [f"edge of stability: not judged, {result.rate_source or 'no threshold is known'}"]
    late = result.last_quarter()
    limits = result.threshold
    if result.preconditioned_threshold is not None:
        limits = np.where(np.isfinite(limits), limits, result.preconditioned_threshold)
    known = limits[late & np.isfinite(limits)]
    value = f" = {known[-1]:.4g}" if np.ptp(known) <= 1e-6 * known[-1] else ""
    what = "the preconditioned lambda_max" if result.method == ADAM else "lambda_max"
    counts = {
        BELOW: np.sum(result.ratio < 1 - BAND),
        AT: np.sum(np.abs(result.ratio - 1) <= BAND),
        BEYOND: np.sum(result.ratio > 1 + BAND),
    }
    shares = ", ".join(f"{count} {place(verdict)}" for verdict, count in counts.items() if count)
    how = describe(result.method, result.learning_rate[-1], result.momentum)
    return [
        f"edge of stability: {place(verdict_of(settled))}: in the last quarter of the steps {what} "
        f"averages {settled:.3g} times {result.formula}{value}",
        f"checkpoints: {shares} (within {100 * BAND:g} % counts as at)",
        f"optimiser: {how}, from {result.rate_source}",
        *caveats(batchnorm=result.batchnorm),
    ]
