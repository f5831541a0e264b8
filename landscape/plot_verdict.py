"""The picture of a verdict: every difference with its bounds, in units of what it may be."""

import numpy as np
from matplotlib.figure import Figure

from landscape.plot_text import clean, settle, sheet
from landscape.results import Verdict

_COLOURS = {"pass": "C2", "refused": "C3", "undecided": "C1"}


def picture(result: Verdict) -> Figure:
    """One row a rule: the interval of the difference, and the margin at 1."""
    rows = np.arange(len(result.rule))
    figure = sheet(6.4, 1.5 + 0.42 * len(rows), _footer(result))
    axes = figure.subplots()
    # A margin of 0 has no units: the widest bound takes its place, and the margin stays at 0.
    widest = np.maximum(np.abs(result.low), np.abs(result.high))
    unit = np.where(result.margin != 0, np.abs(result.margin), np.where(widest > 0, widest, 1.0))
    for row in rows:
        colour = _COLOURS[result.rule_verdict[row]]
        low, middle, high = (
            x[row] / unit[row] for x in (result.low, result.difference, result.high)
        )
        if not np.isfinite([low, middle, high]).all():
            axes.annotate("not finite", (0, row), va="center", color=colour, fontsize=7)
            continue
        bars = [[max(middle - low, 0.0)], [max(high - middle, 0.0)]]
        axes.errorbar([middle], [row], xerr=bars, fmt="o", ms=4, capsize=3, color=colour)
        limit = result.margin[row] / unit[row]
        axes.plot([limit, limit], [row - 0.35, row + 0.35], color="0.2", lw=1.4)
    for verdict, colour in _COLOURS.items():
        if verdict in result.rule_verdict:
            axes.plot([], [], "o", color=colour, ms=4, label=verdict)
    axes.plot([], [], color="0.2", lw=1.4, label="limit")
    axes.axvline(0, color="0.7", lw=0.6, zorder=0.8)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="difference, in units of what it may be")
    axes.set_xscale("symlog", linthresh=3)
    warn = [" (warn)" if level == "warn" else "" for level in result.level]
    labels = [f"{clean(name, 40)}{w}" for name, w in zip(result.rule, warn, strict=True)]
    axes.set_yticks(rows, labels=labels)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, edgecolor="none")
    figure.suptitle(clean(f"{result.title}: {result.verdict}", 90), fontsize=9)
    settle(figure)
    return figure


def _footer(result: Verdict) -> str:
    key = result.measurement
    words = [
        f"{key['measure']} sharpness, {key['norm']}, rho {key['rho']:g}, m {key['m']}",
        f"at most {max(result.groups, default=0)} groups",
        "bounds of the mean difference",
    ]
    return " \N{MIDDLE DOT} ".join(words)
