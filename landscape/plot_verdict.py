"""The picture of a verdict: every difference with its bounds, in units of its margin."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

from landscape.plot_text import clean, settle, sheet
from landscape.report_text import allowed, interval
from landscape.results import Array, Verdict

_COLOURS = {"pass": "C2", "refused": "C3", "undecided": "C1"}
_LINEAR = 5.0  # margins that an axis shows evenly; logarithmic beyond


def picture(result: Verdict) -> Figure:
    """One row a rule: the interval of the difference, and the margin at 1."""
    rows = np.arange(len(result.rule))
    figure = sheet(6.4, 1.5 + 0.5 * len(rows), _footer(result))
    axes = figure.subplots()
    unit = _units(result)
    low, middle, high = (x / unit for x in (result.low, result.difference, result.high))
    for row in rows:
        colour = _COLOURS[result.rule_verdict[row]]
        if not np.isfinite([low[row], middle[row], high[row]]).all():
            known = not np.isnan(result.candidate[row])
            words = "not finite" if known else "not measured"
            axes.annotate(words, (0.1, row), va="center", color=colour, fontsize=7)
            continue
        bars = [[max(middle[row] - low[row], 0.0)], [max(high[row] - middle[row], 0.0)]]
        axes.errorbar([middle[row]], [row], xerr=bars, fmt="o", ms=4, capsize=3, color=colour)
        limit = result.margin[row] / unit[row]
        axes.plot([limit, limit], [row - 0.35, row + 0.35], color="0.2", lw=1.4)
    for verdict, colour in _COLOURS.items():
        if verdict in result.rule_verdict:
            axes.plot([], [], "o", color=colour, ms=4, label=verdict)
    axes.plot([], [], color="0.2", lw=1.4, label="limit")
    axes.axvline(0, color="0.7", lw=0.6, zorder=0.8)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="difference, in units of its limit")
    _scale(axes, np.concatenate([low, high, result.margin / unit]))
    axes.set_yticks(rows, labels=[_label(result, int(row)) for row in rows])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, edgecolor="none")
    figure.suptitle(clean(f"{result.title}: {result.verdict}", 90), fontsize=9)
    settle(figure)
    return figure


def _units(result: Verdict) -> Array:
    """The size of each margin; where it is 0, of the widest bound, and the margin stays at 0."""
    widest = np.maximum(np.abs(result.low), np.abs(result.high))
    widest = np.where(np.isfinite(widest) & (widest > 0), widest, 1.0)
    known = np.isfinite(result.margin) & (result.margin != 0)
    return np.where(known, np.abs(result.margin), widest)


def _scale(axes: Axes, bounds: Array) -> None:
    """An even axis around 0 and the margin, logarithmic where a bound is far away."""
    bounds = np.concatenate([bounds[np.isfinite(bounds)], [-0.2, 1.2]])
    left, right = float(bounds.min()), float(bounds.max())
    if max(-left, right) <= _LINEAR:
        pad = 0.05 * (right - left)
        axes.set_xlim(left - pad, right + pad)
        return
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xlabel(f"{axes.get_xlabel()} (logarithmic beyond 1)")
    axes.set_xlim(left - max(0.5, -0.5 * left), 1.5 * right)
    subs = (1.0, 2.0, 5.0) if max(-left, right) <= 100 else (1.0,)
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _label(result: Verdict, i: int) -> str:
    warn = " (warn)" if result.level[i] == "warn" else ""
    return f"{clean(result.rule[i], 40)}{warn}\n{interval(result, i)}, {allowed(result, i)}"


def _footer(result: Verdict) -> str:
    key = result.measurement
    words = [
        f"{key['measure']} sharpness, {key['norm']}, rho {key['rho']:g}, m {key['m']}",
        f"judged on {max(result.groups, default=0)} of {result.groups_available} groups",
        "bars: bounds of the mean",
    ]
    return " \N{MIDDLE DOT} ".join(words)
