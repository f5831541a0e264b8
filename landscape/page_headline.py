"""The finding of a result in one line, and how sure it is: a row of the summary of a page."""

from collections.abc import Callable
from typing import Any

import numpy as np

from landscape.results import (
    Connection,
    Merge,
    Pairs,
    Race,
    Result,
    Sharpness,
    Spectrum,
    Surface,
    Track,
    Trajectory,
    Verdict,
)

KINDS = {
    "surface": "Surface",
    "line": "Line",
    "trajectory": "Trajectory",
    "race": "Race",
    "hessian": "Spectrum",
    "track": "Track",
    "sharpness": "Sharpness",
    "verdict": "Verdict",
    "connect": "Paths",
    "matrix": "Barriers",
    "merge": "Merge",
}


def headline(result: Result) -> tuple[str, str]:
    """What was found, and how sure that is."""
    found, sure = _LINES[type(result)](result)
    return found, sure if result.complete else f"partial; {sure}"


def _with_error(value: float, stderr: float) -> str:
    error = f" \N{PLUS-MINUS SIGN} {stderr:.2g}" if np.isfinite(stderr) and stderr else ""
    return f"{value:.4g}{error}"


def _surface(result: Surface) -> tuple[str, str]:
    summary, loss = result.summary(), result.loss
    centre, error = summary["loss_at_centre"], summary["loss_at_centre_stderr"]
    parts = []
    if centre is not None:
        where = "at the origin" if result.marker_names else "at the checkpoint"
        parts.append(f"loss {_with_error(centre, np.nan if error is None else error)} {where}")
    if summary["loss_min"] is not None:
        parts.append(f"{summary['loss_min']:.4g} to {summary['loss_max']:.4g} on the grid")
    done = f"{summary['evaluations']} evaluations for {summary['cells']} cells"
    shown = loss.error_of_log_range if loss.log else loss.error_of_range
    if loss.error_basis == "none":
        return "; ".join(parts), f"every cell evaluated ({summary['cells']})"
    if loss.error_basis == "unknown" or not np.isfinite(shown):
        return "; ".join(parts), f"no error estimate; {done}"
    of = "log range" if loss.log else "range"
    return "; ".join(parts), f"error {100 * shown:.2g} % of the {of} ({loss.error_basis}); {done}"


def _trajectory(result: Trajectory) -> tuple[str, str]:
    found, sure = _surface(result)
    if result.path_loss.size:
        found = (
            f"loss {result.path_loss[0]:.4g} to {result.path_loss[-1]:.4g} over "
            f"{result.path_loss.size} checkpoints"
        )
    if result.explained:
        sure = f"the plane holds {100 * sum(result.explained):.3g} % of the variance; {sure}"
    return found, sure


def _race(result: Race) -> tuple[str, str]:
    ends = [result.position_loss[row, result.last(row)] for row in range(len(result.optimizer))]
    ends = [x if result.diverged[row] < 0 else np.inf for row, x in enumerate(ends)]
    found = f"{len(ends)} optimizers"
    if np.isfinite(ends).any():
        best = int(np.nanargmin(np.where(np.isfinite(ends), ends, np.inf)))
        found += f"; least loss {ends[best]:.4g} by {result.optimizer[best]}"
    swept = np.isfinite(result.sweep_rate).any()
    steps = max(0, result.step.size - 1)
    return found, f"{steps} steps, rates {'of a sweep' if swept else 'given'}"


def _spectrum(result: Spectrum) -> tuple[str, str]:
    parts = []
    if np.isfinite(result.lambda_max):
        parts.append(f"largest eigenvalue {result.lambda_max:.4g}")
    if result.eigenvalue.size and "smallest" in result.end:
        parts.append(f"smallest {result.eigenvalue.min():.3g}")
    if np.isfinite(result.trace):
        parts.append(f"trace {_with_error(result.trace, result.trace_stderr)}")
    worst = float(result.residual.max()) if result.residual.size else np.nan
    state = "converged" if result.converged else "not all converged"
    return "; ".join(parts), f"{state}, residuals up to {worst:.1g}"


def _track(result: Track) -> tuple[str, str]:
    known = result.lambda_max[np.isfinite(result.lambda_max)]
    parts = [f"loss {result.loss.value[0]:.4g} to {result.loss.value[-1]:.4g}"]
    if known.size:
        parts.append(f"largest eigenvalue {known[0]:.3g} to {known[-1]:.3g}")
    if np.isfinite(ratio := result.settled_ratio()):
        parts.append(f"{ratio:.2g} times the edge of stability at the end")
    state = "converged" if result.converged else "not all converged"
    return "; ".join(parts), f"{result.step.size} checkpoints, {state}"


def _sharpness(result: Sharpness) -> tuple[str, str]:
    known = np.argwhere(~np.isnan(result.rise))
    if not known.size:
        return f"loss {result.loss:.4g}", "no rise measured"
    i, j, k = known[-1] if len(known) == 1 else next(x for x in known if x[2] == known[:, 2].max())
    rise, low, high = (x[i, j, k] for x in (result.rise, result.rise_low, result.rise_high))
    value = f"{rise:.4g} [{low:.3g}, {high:.3g}]" if np.isfinite(low) else f"{rise:.4g}"
    what = f"{result.measure[i]}, {result.norm[j]} norm, rho {result.rho[k]:g}"
    basis = "95 % intervals" if np.isfinite(low) else "too few groups for intervals"
    sure = f"{basis}; {result.examples} examples in {len(result.group_loss)} groups"
    return f"loss rises by {value} ({what})", sure


def _verdict(result: Verdict) -> tuple[str, str]:
    judged = max(result.groups, default=0)
    return (
        f"{result.verdict.upper()}: {result.reason}",
        f"judged on {judged} of {result.groups_available} groups",
    )


def _connection(result: Connection) -> tuple[str, str]:
    barriers = [
        f"{name} {_with_error(barrier, error)}"
        for name, barrier, error in zip(
            result.path, result.barrier, result.barrier_stderr, strict=True
        )
        if np.isfinite(barrier)
    ]
    found = f"barriers: {', '.join(barriers)}" if barriers else "no barrier known yet"
    return found, f"paired standard errors; {result.point_t.size} evaluations"


def _pairs(result: Pairs) -> tuple[str, str]:
    barrier, _ = result.decisive
    known = barrier[~np.eye(len(barrier), dtype=bool)]
    known = known[np.isfinite(known)]
    found = "no barrier known yet"
    if known.size:
        how = "straight" if result.aligned_barrier is None else "aligned"
        found = (
            f"{how} barriers between {len(barrier)} networks: "
            f"{known.min():.3g} to {known.max():.3g}"
        )
    return found, f"paired standard errors; {result.evaluations} evaluations"


def _merge(result: Merge) -> tuple[str, str]:
    loss, best = result.loss, result.best()
    gap = _with_error(loss.difference[best], loss.difference_stderr[best])
    found = (
        f"merged loss {_with_error(loss.value[-1], loss.stderr[-1])}; "
        f"{gap} against {result.model[best]}"
    )
    return found, "differences paired by example"


_LINES: dict[type, Callable[[Any], tuple[str, str]]] = {
    Surface: _surface,
    Trajectory: _trajectory,
    Race: _race,
    Spectrum: _spectrum,
    Track: _track,
    Sharpness: _sharpness,
    Verdict: _verdict,
    Connection: _connection,
    Pairs: _pairs,
    Merge: _merge,
}
