"""Pictures of a track: curvature with the edge of stability, trace, loss and metrics by step."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from landscape.plot_levels import log_levels, texts
from landscape.plot_text import clean, settle, sheet
from landscape.results import Array, Track

HELD_OUT = " ("  # begins the name of the split behind a quantity's own name
DECADES = 200.0  # ratio of the largest to the smallest value from which on an axis is logarithmic
LOG_STEPS = 0.05  # share of the range at which the middle checkpoint stands, or less


def picture(result: Track) -> Figure:
    """Panels that share the axis of the steps; what is not known has no panel."""
    names = list(dict.fromkeys(name.partition(HELD_OUT)[0] for name in result.quantities))
    kinds = ["lambda_max"]
    if result.preconditioned_lambda_max is not None:
        kinds.append("preconditioned")
    if np.isfinite(result.trace).any():
        kinds.append("trace")
    heights = [2.2] + [1.6 if kind == "preconditioned" else 1.1 for kind in kinds[1:]]
    heights += [1.4, *[1.0] * (len(names) - 1)]
    figure = sheet(6.4, 0.9 + sum(heights), _footer(result))
    panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, kind in zip(panels, kinds, strict=False):
        {"lambda_max": _top, "preconditioned": _preconditioned, "trace": _trace}[kind](axes, result)
    for axes, name in zip(panels[len(kinds) :], names, strict=True):
        _quantity(axes, result, name)
    _step_axis(panels[-1], result)
    panels[0].set_title(clean(result.title, 85))
    figure.align_ylabels(panels)
    settle(figure)
    return figure


def _top(axes: Any, result: Track) -> None:
    """lambda_max with its residuals, and the threshold where it belongs to the plain Hessian."""
    converged = result.lambda_max_converged
    _eigenvalues(axes, result, result.lambda_max, result.lambda_max_residual, converged)
    axes.set_ylabel("lambda_max")
    axes.set_yscale("log" if _wide(result.lambda_max) else "linear")
    # What is compared with the threshold is lambda_max - l2 + weight decay.
    line = result.threshold - result.weight_decay + result.l2
    shift = np.abs(result.weight_decay - result.l2)[np.isfinite(line)]
    decayed = shift.size and shift.max() > 1e-3 * np.nanmax(line)
    label = f"{result.formula}{' - weight decay' if decayed else ''}"
    _edge(axes, result, line, label, result.lambda_max)


def _preconditioned(axes: Any, result: Track) -> None:
    """The largest eigenvalue in Adam's metric, and Adam's threshold."""
    assert result.preconditioned_lambda_max is not None
    assert result.preconditioned_residual is not None
    assert result.preconditioned_converged is not None
    assert result.preconditioned_threshold is not None
    values, residual = result.preconditioned_lambda_max, result.preconditioned_residual
    _eigenvalues(axes, result, values, residual, result.preconditioned_converged)
    axes.set_ylabel("lambda_max of\n$D^{-1/2}\\,H\\,D^{-1/2}$")
    _edge(axes, result, result.preconditioned_threshold, result.formula, values)


def _eigenvalues(axes: Any, result: Track, values: Array, residual: Array, converged: Any) -> None:
    """Values joined by a line, bars for residuals, hollow where not converged."""
    axes.plot(result.step, values, color="C0", lw=0.9)
    size = 3.5 if values.size <= 60 else 2.0
    for state in (1, 0):
        chosen = np.isfinite(values) & (converged == state)
        if chosen.any():
            bars = axes.errorbar(
                result.step[chosen],
                values[chosen],
                yerr=residual[chosen],
                fmt="o",
                ms=size,
                capsize=2,
                lw=0.8,
                color="C0",
                label="lambda_max" if state else "not converged",
            )
            bars[0].set_markerfacecolor("C0" if state else "white")


def _edge(axes: Any, result: Track, line: Array, label: str, values: Array) -> None:
    """The threshold as steps between checkpoints, within sight of the values."""
    seen = values[np.isfinite(values)]
    known = np.isfinite(line)
    if not seen.size or not known.any():
        return
    least, most = min(0.0, float(seen.min())), float(seen.max())
    top = max(1.15 * most, 1.15 * float(line[known].min()))
    if top > 4 * most > 0 or _wide(values):  # else eigenvalues would lie flat on the ground
        axes.set_yscale("log")
        low = float(seen[seen > 0].min())
        axes.set_ylim(low / 1.5, 3 * max(most, float(line[known].max())))
    else:
        axes.set_ylim(1.05 * least, 1.2 * top)  # room for the legend
    if np.ptp(line[known]) <= 1e-6 * abs(line[known][0]):
        label += f" = {line[known][0]:.4g}"
    axes.plot(
        result.step, line, color="C3", lw=1.0, ls="--", drawstyle="steps-mid", label=clean(label)
    )
    axes.legend(loc="upper left", ncols=3, edgecolor="none")


def _wide(values: Array) -> bool:
    """Whether values are positive and reach over decades."""
    seen = values[np.isfinite(values)]
    return bool(seen.size and seen.min() > 0 and seen.max() > DECADES * seen.min())


def _trace(axes: Any, result: Track) -> None:
    axes.set_yscale("log" if _wide(result.trace) else "linear")
    _band(axes, result, result.trace, result.trace_stderr, "C2", None)
    axes.set_ylabel("trace")


def _quantity(axes: Any, result: Track, name: str) -> None:
    """The loss or a metric, over every split that it was measured on."""
    parts = {
        key: quantity
        for key, quantity in result.quantities.items()
        if key == name or key.startswith(name + HELD_OUT)
    }
    values = np.concatenate([quantity.value for quantity in parts.values()])
    seen = values[np.isfinite(values)]
    log = name == "loss" and seen.size > 0 and bool((seen > 0).all())
    axes.set_yscale("log" if log else "linear")
    for number, (key, quantity) in enumerate(parts.items()):
        label = clean(key) if len(parts) > 1 else None
        _band(axes, result, quantity.value, quantity.stderr, f"C{number}", label)
    axes.set_ylabel("loss" if name == "loss" else clean(name, 18))
    if len(parts) > 1:
        axes.legend(loc="best", edgecolor="none")
    if log:
        low, high = np.log10(axes.get_ylim())
        ticks = np.array([z for z in log_levels(low, high, 5) if low <= z <= high])
        axes.set_yticks(10**ticks, labels=texts(ticks, True))
        axes.minorticks_off()


def _band(
    axes: Any, result: Track, values: Array, stderr: Array, colour: str, label: str | None
) -> None:
    """A curve with 1.96 standard errors on both sides."""
    marks = {"marker": "o", "ms": 2.5} if values.size <= 60 else {}
    axes.plot(result.step, values, color=colour, lw=1.0, label=label, **marks)
    half = 1.96 * np.nan_to_num(stderr)
    low = values - half
    if axes.get_yscale() == "log":
        low = np.maximum(low, values / 10)
    axes.fill_between(result.step, low, values + half, color=colour, alpha=0.25, lw=0)


def _step_axis(axes: Any, result: Track) -> None:
    """Linear steps, or decades where the checkpoints were saved so."""
    step = result.step
    span = float(step[-1] - step[0])
    positive = step[step > 0]
    if span > 0 and positive.size > 2 and np.median(step) - step[0] < LOG_STEPS * span:
        axes.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.3)
        axes.set_xlim(step[0], step[-1] * 1.1)
    elif (step == np.round(step)).all():
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(clean(f"step ({result.step_source})", 90))


def _footer(result: Track) -> str:
    words = [
        f"{result.step.size} checkpoints, {result.products.sum()} products with a vector, "
        f"{result.parameters:,} parameters",
        f"bars: residuals, tolerance {result.tolerance:g}",
        "bands: 1.96 standard errors",
    ]
    if not result.complete:
        words.insert(0, "partial")
    if not result.converged:
        words.append("hollow: not converged")
    if result.method:
        words.append(f"edge of stability of {result.method}, full batches")
    half = (len(words) + 1) // 2
    dot = " \N{MIDDLE DOT} "
    return "\n".join(dot.join(part) for part in (words[:half], words[half:]))
