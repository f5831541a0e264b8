"""Barriers between several checkpoints, in words."""

import numpy as np

from landscape.results import Pairs


def sentences(result: Pairs) -> list[str]:
    """What a person wants to know first."""
    lines = [f"result: {result.title}"]
    for name, loss, stderr in zip(result.model, result.loss, result.loss_stderr, strict=True):
        lines.append(f"{name}: loss {loss:.4g} +- {stderr:.2g}")
    lines.append(f"straight lines: {_extremes(result, result.barrier, result.barrier_stderr)}")
    if result.aligned_barrier is not None and result.aligned_barrier_stderr is not None:
        found = _extremes(result, result.aligned_barrier, result.aligned_barrier_stderr)
        lines.append(f"aligned by {result.alignment}: {found}")
    if result.order:
        chain = " - ".join(result.model[i] for i in result.order)
        lines.append(f"path of least barriers: {chain}, {result.order_total:.3g} in all")
    lines.append(f"evaluations: {result.evaluations}")
    if not result.complete:
        lines.append("partial: the run was stopped; the same command goes on")
    return lines


def _extremes(result: Pairs, table: np.ndarray, stderr: np.ndarray) -> str:
    rows, columns = np.triu_indices(len(table), 1)
    values = table[rows, columns]
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return "no barrier known yet"
    parts = []
    for what, index in (
        ("least", known[values[known].argmin()]),
        ("largest", known[values[known].argmax()]),
    ):
        a, b = rows[index], columns[index]
        parts.append(
            f"{what} barrier {values[index]:.3g} +- {stderr[a, b]:.2g} between "
            f"{result.model[a]} and {result.model[b]}"
        )
    return "; ".join(parts)
